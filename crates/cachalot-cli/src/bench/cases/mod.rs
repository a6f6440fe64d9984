//! `cachalot bench --case`: one part of the cache at a time, over a store that costs nothing.
//!
//! Every measurement of several runs in a process of its own, so that none finds the memory that another left.

mod figures;
mod flow;
mod flushes;
mod goals;
pub(crate) mod memory;
mod mixed;
mod null_store;
mod overlap;
pub(crate) mod plan;
mod report;
mod resident;
mod rig;
mod svg;
pub(crate) mod timing;

use std::path::Path;

use clap::ValueEnum;

use crate::bench::apart::run_apart;
use crate::bench::args::BenchArgs;
use crate::error::CliError;
use crate::output;

use plan::{Case, Plan, plans};
use report::{CaseReport, CasesReport};

/// Measures the cases that are asked for, or lists them.
pub(crate) fn cases(args: &BenchArgs) -> Result<(), CliError> {
    if args.cases.list_cases {
        return output::print(&listing());
    }
    let report = match &args.cases.from {
        Some(path) => measured_before(path)?,
        None => measure_all(args)?,
    };
    if let Some(path) = &args.cases.chart {
        std::fs::write(path, svg::draw(&report.cases)).map_err(CliError::file("write", path))?;
    }
    if args.json {
        return output::print_json(&report);
    }
    if args.cases.goals {
        return output::print(&goals::markdown(&report.cases));
    }
    output::print(&report.table())
}

/// What an earlier command printed as JSON.
fn measured_before(path: &Path) -> Result<CasesReport, CliError> {
    let text = std::fs::read(path).map_err(CliError::file("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| CliError::Usage(format!("{} holds no figures: {error}", path.display())))
}

fn measure_all(args: &BenchArgs) -> Result<CasesReport, CliError> {
    let plans = plans(args)?;
    let mut report = CasesReport { cases: Vec::new() };
    if let [plan] = plans.as_slice() {
        report.cases.push(measure(plan)?);
    } else {
        for plan in &plans {
            output::note(&plan.label());
            let mut apart: CasesReport = run_apart(&plan.label(), &plan.options())?;
            report.cases.append(&mut apart.cases);
        }
    }
    Ok(report)
}

fn listing() -> String {
    let width = Case::value_variants()
        .iter()
        .map(|case| case.name().len())
        .max();
    let width = width.unwrap_or(0);
    let lines = Case::value_variants()
        .iter()
        .map(|case| format!("{:width$}  {}\n", case.name(), case.about()));
    lines.collect()
}

fn measure(plan: &Plan) -> Result<CaseReport, CliError> {
    match plan.case {
        Case::ReadHit
        | Case::ReadHitFragmented
        | Case::WriteAbsorb
        | Case::WriteAbsorbFragmented => resident::resident(plan),
        Case::WriteFlushSeq | Case::WriteFlushRand => flow::write_flush(plan),
        Case::ReadMiss => flow::misses(plan),
        Case::MixedZipf => mixed::mixed(plan),
        Case::TinyWrites => flushes::tiny(plan),
        Case::FlushUnderLoad => flushes::under_load(plan),
        Case::ReadOverFetches => overlap::over_fetches(plan),
        Case::All => Err(CliError::Usage("`all` is no case by itself".to_owned())),
    }
}

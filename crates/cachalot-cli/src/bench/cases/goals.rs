//! The figures to beat: what the C++ cache needed on the same kind of machine, and what is wanted.

use super::plan::{Case, Fill};
use super::report::{CaseReport, Spread};
use crate::bench::report::human_nanos;

/// What is compared, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Figure {
    /// The time of an operation, over all threads: a second divided by operations a second.
    Operation,
    /// The worst latency.
    Worst,
    /// The processor time that a large read adds.
    LargeRead,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    case: Case,
    /// Threads, and bytes of footprint where they matter.
    threads: usize,
    footprint_bytes: Option<u64>,
    fill: Option<Fill>,
    figure: Figure,
    /// Of the C++ cache, the better end where it gave a range.
    pub(crate) theirs_ns: f64,
    pub(crate) goal_ns: f64,
}

const fn goal(what: &'static str, case: Case, theirs_ns: f64, goal_ns: f64) -> Goal {
    Goal {
        what,
        case,
        threads: 1,
        footprint_bytes: None,
        fill: None,
        figure: Figure::Operation,
        theirs_ns,
        goal_ns,
    }
}

impl Goal {
    const fn of(mut self, footprint_bytes: u64, fill: Fill) -> Self {
        self.footprint_bytes = Some(footprint_bytes);
        self.fill = Some(fill);
        self
    }

    const fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    const fn figure(mut self, figure: Figure) -> Self {
        self.figure = figure;
        self
    }

    /// The measurement that it is about.
    fn report<'a>(&self, cases: &'a [CaseReport]) -> Option<&'a CaseReport> {
        let fits = |report: &&CaseReport| {
            let plan = &report.plan;
            plan.case == self.case
                && plan.threads == self.threads
                && plan.sets == 1
                && self
                    .footprint_bytes
                    .is_none_or(|bytes| bytes == plan.footprint_bytes)
                && self.fill.is_none_or(|fill| fill == plan.fill)
        };
        cases.iter().find(fits)
    }

    /// The processor time of an operation in all threads, where that is what is compared.
    fn cpu(&self, cases: &[CaseReport]) -> Option<Spread> {
        let report = self.report(cases)?;
        (self.figure == Figure::Operation).then_some(report.all_cpu_ns_per_op)
    }

    /// What was measured of it, if it was.
    pub(crate) fn found(&self, cases: &[CaseReport]) -> Option<Spread> {
        let report = self.report(cases)?;
        match self.figure {
            Figure::Operation => {
                let Spread { median, min, max } = report.ops_per_second;
                let nanos = |rate: f64| 1e9 / rate.max(1e-9);
                Some(Spread {
                    median: nanos(median),
                    min: nanos(max),
                    max: nanos(min),
                })
            }
            Figure::Worst => Some(report.latencies.get("operation")?.max_ns),
            Figure::LargeRead => {
                let micros = report.more.get("CPU of the large read, us")?;
                // What is smaller than the noise may come out below nothing.
                Some(micros.map(|micros| micros.max(0.0) * 1e3))
            }
        }
    }
}

const HOT: u64 = 4 << 20;
const WARM: u64 = 256 << 20;

/// All of them, in the order of the table.
pub(crate) const GOALS: [Goal; 17] = [
    goal("read hit, 4 MiB", Case::ReadHit, 521.0, 100.0).of(HOT, Fill::Whole),
    goal("read hit, 256 MiB", Case::ReadHit, 521.0, 100.0).of(WARM, Fill::Whole),
    goal("read hit, 256 MiB, 2 threads", Case::ReadHit, 380.0, 53.0)
        .of(WARM, Fill::Whole)
        .threads(2),
    goal(
        "read hit, separate 4 KiB buffers",
        Case::ReadHitFragmented,
        1776.0,
        100.0,
    )
    .of(WARM, Fill::Rand4k),
    goal(
        "read hit, came by 4 KiB in order",
        Case::ReadHitFragmented,
        13_700.0,
        100.0,
    )
    .of(WARM, Fill::Seq4k),
    goal(
        "read hit, came by 512 bytes",
        Case::ReadHitFragmented,
        13_700.0,
        100.0,
    )
    .of(WARM, Fill::Rand512),
    goal(
        "overwrite absorbed, 4 MiB",
        Case::WriteAbsorb,
        4450.0,
        450.0,
    )
    .of(HOT, Fill::Seq4k),
    goal(
        "overwrite absorbed, 256 MiB",
        Case::WriteAbsorb,
        4450.0,
        450.0,
    )
    .of(WARM, Fill::Seq4k),
    goal(
        "overwrite absorbed, came by 64 KiB",
        Case::WriteAbsorbFragmented,
        137_000.0,
        450.0,
    )
    .of(WARM, Fill::Read64k),
    goal(
        "sequential write and flush",
        Case::WriteFlushSeq,
        1860.0,
        1024.0,
    ),
    goal(
        "random write and flush",
        Case::WriteFlushRand,
        11_900.0,
        2000.0,
    ),
    goal("64 KiB miss, 32 in flight", Case::ReadMiss, 8000.0, 4000.0),
    goal("mixed, 1 thread", Case::MixedZipf, 8000.0, 1000.0),
    goal("mixed, 2 threads", Case::MixedZipf, 7400.0, 1000.0).threads(2),
    goal(
        "4 MiB read over 1024 fetches, CPU",
        Case::ReadOverFetches,
        49e6,
        1e6,
    )
    .figure(Figure::LargeRead),
    goal(
        "worst stall of a hit beside a flush",
        Case::FlushUnderLoad,
        47.5e6,
        50e3,
    )
    .figure(Figure::Worst),
    goal(
        "tiny write absorbed, 128 bytes",
        Case::TinyWrites,
        f64::NAN,
        f64::NAN,
    ),
];

/// The table of goals in Markdown, with what was measured.
pub(crate) fn markdown(cases: &[CaseReport]) -> String {
    let mut text = "| case | C++ cache | goal | measured | least to most | processor time |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let human = |nanos: f64| {
        if nanos.is_finite() {
            human_nanos(nanos)
        } else {
            "-".to_owned()
        }
    };
    for goal in &GOALS {
        let found = goal.found(cases);
        let measured = found.map_or_else(|| "-".to_owned(), |spread| human(spread.median));
        let range = found.map_or_else(
            || "-".to_owned(),
            |spread| format!("{} to {}", human(spread.min), human(spread.max)),
        );
        let cpu = goal.cpu(cases);
        let cpu = cpu.map_or_else(|| "-".to_owned(), |spread| human(spread.median));
        text.push_str(&format!(
            "| {} | {} | {} | {measured} | {range} | {cpu} |\n",
            goal.what,
            human(goal.theirs_ns),
            human(goal.goal_ns)
        ));
    }
    text
}

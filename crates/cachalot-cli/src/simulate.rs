//! `cachalot simulate`: searches for faults of the cache with fresh seeds, or plays one seed again.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use cachalot::{Clock, SystemClock};
use cachalot_sim::{Found, Plan, Search, run, search, shrink};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::cli::{SimulateArgs, StepList};
use crate::error::CliError;
use crate::output;

/// How many runs a failure is shrunk for.
const SHRINK_RUNS: u32 = 500;
/// How much of a shrunk run's history is shown.
const LINES_SHOWN: usize = 60;
/// What the history says of a part that is compared at the end.
const COMPARING: &str = " comparing Part";

pub(crate) fn simulate(args: &SimulateArgs) -> Result<(), CliError> {
    let is_single = args.seed.is_some() && args.runs.is_none() && args.seconds.is_none();
    match args.seed {
        Some(seed) if is_single => single(seed, args),
        _ => many(args),
    }
}

/// Plays one seed, and shrinks it if it fails.
fn single(seed: u64, args: &SimulateArgs) -> Result<(), CliError> {
    let mut plan = Plan::draw(seed, args.steps);
    if let Some(only) = &args.only {
        plan = plan.only(&only.0);
    }
    let outcome = run(&plan, args.log);
    for line in &outcome.log {
        output::print(&format!("{line}\n"))?;
    }
    output::print(&format!(
        "seed {seed}: {} operations in {:?} of virtual time, digest {:016x}\n",
        outcome.operations, outcome.time, outcome.digest
    ))?;
    match outcome.failure {
        None => Ok(()),
        Some(_) if args.only.is_some() => Err(failed(outcome.failure)),
        Some(_) => Err(explain(&plan, args.steps)),
    }
}

fn many(args: &SimulateArgs) -> Result<(), CliError> {
    let first_seed = args
        .seed
        .unwrap_or_else(|| SystemClock::new().timestamp().0);
    let otherwise = if args.runs.is_some() { u64::MAX } else { 10 };
    let what = Search {
        first_seed,
        runs: args.runs.unwrap_or(u64::MAX),
        time: Duration::from_secs(args.seconds.unwrap_or(otherwise)),
        jobs: args
            .jobs
            .and_then(|jobs| usize::try_from(jobs).ok())
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)),
        steps: args.steps,
    };
    output::print(&format!(
        "seeds from {first_seed} on, {} operations each\n",
        args.steps
    ))?;
    let clock = SystemClock::new();
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{elapsed_precise} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let (progress, found) = search(what, |progress| {
        bar.set_message(format!(
            "{} runs, {} operations",
            HumanCount(progress.runs),
            HumanCount(progress.operations)
        ));
        bar.tick();
    });
    let seconds = clock.now().as_nanos() / 1_000_000_000;
    bar.finish_and_clear();
    output::print(&format!(
        "{} runs, {} operations, {} s of virtual time in {seconds} s, digest {:016x}\n",
        HumanCount(progress.runs),
        HumanCount(progress.operations),
        HumanCount(progress.time.as_secs()),
        progress.digest
    ))?;
    match found {
        None => Ok(()),
        Some(Found { plan, .. }) => Err(explain(&plan, args.steps)),
    }
}

/// Shrinks a run that fails, and shows what is left of it.
fn explain(plan: &Plan, steps: u32) -> CliError {
    output::note(&format!(
        "seed {} fails; leaving out what it does not need",
        plan.seed
    ));
    let kept: BTreeSet<u32> = shrink(plan, SHRINK_RUNS);
    let outcome = run(&plan.only(&kept), true);
    let end = outcome.log.iter().position(|line| line.contains("WRONG"));
    let end = end.map_or(outcome.log.len(), |end| end + 1);
    let told = outcome.log.get(..end).unwrap_or_default();
    // Comparisons that went well say little; the last one failed.
    let last = end.saturating_sub(2);
    let is_told = |(at, line): &(usize, &String)| *at >= last || !line.contains(COMPARING);
    let shown: Vec<&String> = told
        .iter()
        .enumerate()
        .filter(is_told)
        .map(|(_, line)| line)
        .collect();
    for line in shown.iter().skip(shown.len().saturating_sub(LINES_SHOWN)) {
        output::note(line);
    }
    let all = replay(plan.seed, steps, None);
    output::note(&format!("to replay all of it: {all}"));
    let left = replay(plan.seed, steps, Some(StepList(kept)));
    output::note(&format!("to replay what is left: {left}"));
    failed(outcome.failure)
}

/// The command that plays a seed, or some of its steps, again.
pub(crate) fn replay(seed: u64, steps: u32, only: Option<StepList>) -> String {
    let all = format!("cachalot simulate --seed {seed} --steps {steps}");
    only.map_or(all.clone(), |only| format!("{all} --log --only {only}"))
}

fn failed(failure: Option<String>) -> CliError {
    CliError::Failed(failure.unwrap_or_else(|| "the run fails only as a whole".to_owned()))
}

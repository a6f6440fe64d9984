//! Many seeds, on several threads, until one fails or the time is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cachalot::{Clock, SystemClock};
use parking_lot::Mutex;

use crate::plan::Plan;
use crate::{Outcome, run};

/// What to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Search {
    /// The first seed; the others follow it.
    pub first_seed: u64,
    /// How many seeds at most.
    pub runs: u64,
    /// For how long at most, in real time.
    pub time: Duration,
    /// On so many threads.
    pub jobs: usize,
    /// Operations in a run.
    pub steps: u32,
}

/// How far a search is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Runs that ended.
    pub runs: u64,
    /// Operations in them.
    pub operations: u64,
    /// The virtual time that they took.
    pub time: Duration,
    /// A hash over the digests of all runs, whatever their order.
    pub digest: u64,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it did.
    pub plan: Plan,
    /// What went wrong.
    pub outcome: Outcome,
}

/// Runs seeds until one fails; reports now and then.
pub fn search(what: Search, report: impl Fn(Progress) + Sync) -> (Progress, Option<Found>) {
    let clock = SystemClock::new();
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let state = Mutex::new((Progress::default(), None::<Found>));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_late = u128::from(clock.now().as_nanos()) > what.time.as_nanos();
            if number >= what.runs || is_late || is_over.load(Ordering::Relaxed) {
                return;
            }
            let plan = Plan::draw(what.first_seed.wrapping_add(number), what.steps);
            let outcome = run(&plan, false);
            let mut state = state.lock();
            let progress = &mut state.0;
            progress.runs += 1;
            progress.operations += outcome.operations;
            progress.time += outcome.time;
            progress.digest ^= outcome.digest.rotate_left((plan.seed % 64) as u32);
            report(*progress);
            if outcome.failure.is_some() {
                is_over.store(true, Ordering::Relaxed);
                state.1.get_or_insert(Found { plan, outcome });
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..what.jobs.max(1) {
            scope.spawn(work);
        }
    });
    state.into_inner()
}

//! Models of what threads do here at the same time, for a checker that decides who runs when: `scripts/models.sh` runs
//! them, `docs/TESTING.md` says how.
//!
//! What runs is the code that ships, with the checker's locks and atomics beneath it (`actors/sync.rs`). Whatever else a
//! model counts with, it counts in plain atomics of its own: those are no steps, so the checker does not see them.
//!
//! Shuttle knows no weak memory: it finds what threads do to each other in some order of their steps. Loom follows the
//! rules for atomics in every order, but only over a few steps, so it gets the smallest models.

mod bell;
mod budget;
#[cfg(model = "shuttle")]
mod door;
#[cfg(model = "shuttle")]
mod ledger;
#[cfg(model = "shuttle")]
mod watched;
mod world;

use std::env;

#[cfg(model = "loom")]
use loom::thread;
#[cfg(model = "shuttle")]
use shuttle::thread;

use super::budget::act_as;
/// A flag that the checker sees.
use super::sync::atomic::AtomicBool as Flag;

/// Runs each of these in a thread of its own, and returns when all have ended. The caller is thread 0.
fn together<const N: usize>(parts: [Box<dyn FnOnce() + Send>; N]) {
    let threads: Vec<_> = parts
        .into_iter()
        .enumerate()
        .map(|(number, part)| {
            thread::spawn(move || {
                act_as(number + 1);
                part();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Boxes what a thread does.
fn part(part: impl FnOnce() + Send + 'static) -> Box<dyn FnOnce() + Send> {
    Box::new(part)
}

fn setting(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Goes through a model in many orders: random ones, and ones in which few threads are preempted.
#[cfg(model = "shuttle")]
fn explore(times: usize, model: fn()) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};

    if let Some(schedule) = setting("CACHALOT_SCHEDULE") {
        run(ReplayScheduler::new_from_encoded(&schedule), model);
        return;
    }
    let number = |name, otherwise| {
        setting(name).map_or(otherwise, |text| text.parse::<usize>().expect("a number"))
    };
    let times = times.div_ceil(5) * number("CACHALOT_MODEL_TIMES", 1);
    let seed = number("CACHALOT_SEED", 1) as u64;
    run(RandomScheduler::new_from_seed(seed, times / 2), model);
    for preemptions in 1..=3 {
        run(
            PctScheduler::new_from_seed(seed, preemptions, times / 6),
            model,
        );
    }
}

/// Goes through a small model in some orders; loom goes through all of them.
#[cfg(model = "shuttle")]
fn explore_all(model: fn()) {
    explore(5_000, model);
}

#[cfg(model = "shuttle")]
fn run(scheduler: impl shuttle::scheduler::Scheduler + 'static, model: fn()) {
    let mut config = shuttle::Config::new();
    // The engine needs more than the usual 32 KiB.
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    shuttle::Runner::new(scheduler, config).run(move || {
        act_as(0);
        model();
    });
}

/// Goes through a model in every order, with all that the rules for atomics allow.
#[cfg(model = "loom")]
fn explore_all(model: fn()) {
    let mut builder = loom::model::Builder::new();
    // Without a bound where none is asked for.
    builder.preemption_bound =
        setting("LOOM_MAX_PREEMPTIONS").map(|most| most.parse().expect("a number"));
    builder.max_branches = 20_000;
    builder.check(move || {
        act_as(0);
        model();
    });
}

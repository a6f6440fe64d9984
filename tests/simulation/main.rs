//! Whole caches in virtual time over failing stores: a fixed set of seeds, and whatever seeds are asked for.
//!
//! `CACHALOT_SEED=n` runs one seed, `CACHALOT_SEEDS=n` so many from the first on. The command `cachalot simulate` takes
//! fresh ones, and shrinks what fails.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

use std::time::Duration;

use bytesize::ByteSize;
use cachalot::{CacheConfig, Hints};
use cachalot_sim::{Op, Part, Patience, Plan, Search, Step, Way, run, search, shrink};

const STEPS: u32 = 500;
const FIRST_SEED: u64 = 1;
const SEEDS: u64 = 60;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().expect(name))
}

fn fail(plan: &Plan) -> ! {
    let seed = plan.seed;
    let kept = shrink(plan, 200);
    let outcome = run(&plan.only(&kept), true);
    for line in &outcome.log {
        println!("{line}");
    }
    panic!(
        "{:?}; to replay: CACHALOT_SEED={seed} cargo test --test simulation, or cachalot simulate --seed {seed}",
        outcome.failure
    );
}

/// B-02, R-01, R-02, R-03, R-05, R-07, R-08, R-11, R-13, R-17, W-01, W-02, W-04, W-05, W-07, F-04, F-06, T-01, S-03,
/// S-04, S-05, S-06, J-01, J-02, L-01, L-03, H-01, H-02, H-03, H-04, H-10, H-11, H-13, H-14, H-16, H-24, H-34, H-36,
/// H-37, H-39, H-41, H-42, H-44, H-46
#[test]
fn caches_that_meet_everything_at_once_answer_everybody_and_lose_nothing() {
    let (first_seed, runs) = match setting("CACHALOT_SEED") {
        Some(seed) => (seed, 1),
        None => (FIRST_SEED, setting("CACHALOT_SEEDS").unwrap_or(SEEDS)),
    };
    let what = Search {
        first_seed,
        runs,
        time: Duration::from_secs(3600),
        jobs: 2,
        steps: STEPS,
    };
    let (progress, found) = search(what, |_| ());
    if let Some(found) = found {
        fail(&found.plan);
    }
    assert_eq!(progress.runs, runs);
    assert!(progress.operations >= runs * u64::from(STEPS));
}

/// T-01, W-05, H-24
#[test]
fn limits_are_judged_to_the_byte_after_most_steps_of_most_runs() {
    let seeds = setting("CACHALOT_SEEDS").unwrap_or(20);
    let judged = (FIRST_SEED..FIRST_SEED + seeds).filter(|seed| {
        let plan = Plan::draw(*seed, 100);
        let outcome = run(&plan, false);
        if outcome.failure.is_some() {
            fail(&plan);
        }
        outcome.limits_judged * 2 > outcome.operations
    });
    let judged = judged.count() as u64;
    println!("{judged} of {seeds} runs");
    assert!(judged * 4 >= seeds * 3, "{judged} of {seeds} runs");
}

#[test]
fn a_seed_does_the_same_each_time() {
    let digests = |seed| {
        let plan = Plan::draw(seed, 200);
        (run(&plan, false).digest, run(&plan, true).digest)
    };
    for seed in 1000..1005 {
        let (first, second) = digests(seed);
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(digests(1000).0, digests(1001).0);
}

/// F-01, W-05, W-08, H-28
#[test]
fn tiny_writes_never_wait_for_the_age_limit() {
    // Two thousand buffers of a byte each, where a few hundred fit, over a store that answers at once.
    let mut plan = (0..)
        .map(|seed| Plan::draw(seed, 1))
        .find(|plan| !plan.is_faulty && !plan.is_abandoned && plan.sets[0].space.sectors > 900)
        .expect("one in many seeds");
    plan.config = CacheConfig {
        max_bytes: ByteSize::mib(8),
        max_dirty_bytes: ByteSize::kib(256),
        target_dirty_bytes: ByteSize::kib(128),
        max_dirty_age: Duration::from_secs(1000),
        ..CacheConfig::default()
    };
    plan.sets[0].space.unit = 1;
    plan.operator = Vec::new();
    let write = |id: u32| Step {
        id,
        pause: Duration::ZERO,
        op: Op::Write {
            set: 0,
            parts: vec![Part {
                at: id * 2 % 900,
                len: 1,
            }],
            way: Way::Request,
            hints: Hints::default(),
            journal: false,
        },
        patience: Patience::Endless,
    };
    plan.callers = vec![(1..2000).map(write).collect()];
    let outcome = run(&plan, false);
    assert_eq!(outcome.failure, None);
    assert!(outcome.time < Duration::from_secs(3), "{:?}", outcome.time);
}

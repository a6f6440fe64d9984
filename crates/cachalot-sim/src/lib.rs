//! Deterministic simulation of whole caches.
//!
//! A [`Plan`] is drawn from one seed: sets of some shape, callers that read, write, flush, discard, close and give up
//! waiting, an operator that changes limits, and a store that delays, fails, forgets, doubles, fills up and goes down.
//! [`run`] plays it on one thread in virtual time: the cache with its actors, flusher, trimmer and ledger is the one
//! that ships. A judge compares every byte read, and every byte that reaches the store, with a plain model; checks
//! limits and books after every step; and sees that everybody is answered. The same seed gives the same run, to the
//! last event: its [`Outcome::digest`] says so.
//!
//! ```
//! let plan = cachalot_sim::Plan::draw(7, 50);
//! let outcome = cachalot_sim::run(&plan, false);
//! assert_eq!(outcome.failure, None);
//! assert_eq!(outcome.digest, cachalot_sim::run(&plan, false).digest);
//! ```
//!
//! What is not simulated: two threads at the same instant. The door's protocol between threads has models and stress
//! tests of its own.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a simulation that goes wrong in itself must stop, and its sizes are small"
)]

mod caller;
mod clock;
mod digest;
mod history;
mod oracle;
mod pattern;
mod plan;
mod search;
mod shrink;
mod space;
mod tap;
mod world;

pub use plan::{Op, Patience, Plan, SetPlan, Step, Way, Ways};
pub use search::{Found, Progress, Search, search};
pub use shrink::shrink;
pub use space::{Part, Space, Spread};

use std::thread;
use std::time::Duration;

use actix::System;
use tokio::runtime::Builder;

/// How a run went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// A hash of everything that happened.
    pub digest: u64,
    /// What went wrong first.
    pub failure: Option<String>,
    /// Operations that callers began.
    pub operations: u64,
    /// How long it took, in virtual time.
    pub time: Duration,
    /// After how many steps what was held had to fit `max_bytes` to the byte. After the others somebody asked for more
    /// than the whole limit, or it had just been lowered.
    pub limits_judged: u64,
    /// What happened, a line each; empty unless asked for.
    pub log: Vec<String>,
}

/// Plays a plan. With `is_logged` the outcome tells all that happened.
///
/// # Panics
/// Where no runtime of one thread can be made.
#[must_use]
pub fn run(plan: &Plan, is_logged: bool) -> Outcome {
    let plan = plan.clone();
    let play = move || {
        let runtime = || {
            let runtime = Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build();
            #[expect(
                clippy::expect_used,
                reason = "without a thread's runtime there is no simulation"
            )]
            runtime.expect("a runtime of one thread can be built")
        };
        System::with_tokio_rt(runtime).block_on(world::play(plan, is_logged))
    };
    // A thread of its own, so that nothing that an earlier run left to its thread is met here.
    let played = thread::Builder::new()
        .name("simulation".to_owned())
        .spawn(play);
    let outcome = played.map(thread::JoinHandle::join);
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Outcome {
            digest: 0,
            failure: Some("the simulation panicked: see above".to_owned()),
            operations: 0,
            time: Duration::ZERO,
            limits_judged: 0,
            log: Vec::new(),
        },
    }
}

//! What callers may rely on, shown on whole caches: each test is a sentence, marked with the rule or scenario that it
//! proves. Most run on paused time and one thread, so that they take no time and always go the same way.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "helpers of tests fail loudly, and their numbers are small"
)]

mod brief;
mod common;
mod door;
mod fencing;
mod flushing;
mod hard;
mod life;
mod limits;
mod panics;
mod reads;
mod runtimes;
mod scale;
mod sets;
mod sight;
mod stress;
mod trimming;
mod until_flush;
mod writes;

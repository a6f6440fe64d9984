//! What callers pay, piece by piece: `door` is what runs in their own thread, `actor` what they wait for.
//!
//! An id says the way, the operation, its size, and over what: `door/hit/4KiB/warm`. *Hot* is 4 MiB, *warm* is 256 MiB;
//! `of_512B` means that the data came in by writes of that size, in random order; with `2_threads` a figure is the time
//! of two operations at once. Only the public interface is used, over a store that forgets writes and reads as zeros.
//!
//! `cargo bench --bench cache -- door/hit` runs some of them, `-- --test` each of them once, without measuring.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that can't run has nothing to report"
)]

mod eviction;
mod flushes;
mod hits;
mod misses;
mod rig;
mod writes;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = cache;
    config = short();
    targets = hits::hits, writes::writes, misses::misses, flushes::flushes, eviction::eviction
}
criterion_main!(cache);

//! The built command, run as people run it.
#![expect(clippy::expect_used, reason = "tests")]

mod bench;
mod bench_volume;
mod cases;
mod common;
mod memory;
mod serve;
mod simulate;
mod transfer;
mod volumes;

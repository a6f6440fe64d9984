//! The `cachalot` command; everything is in the library beside it, where fuzzers reach it.

use std::process::ExitCode;

/// Writes take and give back a buffer each, often on another thread: with the system's allocator that is a quarter of
/// what they cost. What this one keeps for later is more than the bounds on memory allow.
#[cfg(all(feature = "mimalloc", not(feature = "count-allocations")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cachalot_cli::main()
}

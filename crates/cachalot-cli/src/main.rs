//! The `cachalot` command; everything is in the library beside it, where fuzzers reach it.

use std::process::ExitCode;

/// A buffer is often freed by another thread than it was taken by. The system's allocator keeps a heap for each thread, each
/// as large as it ever was; this one has one heap for all, and each thread a small stock of its own.
#[cfg(all(feature = "jemalloc", not(feature = "count-allocations")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cachalot_cli::main()
}

//! Moving whole volumes in and out of a store, through the cache.

mod export;
mod import;
mod sparse;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

pub(crate) use export::export;
pub(crate) use import::import;

use crate::output::human_bytes;

/// The bytes of a block: what is read at once, and what one read or write of the cache asks for.
const BLOCK_BYTES: usize = 256 << 10;
/// How many blocks wait between the reading and the writing side.
const BLOCKS_QUEUED: usize = 4;

/// A progress bar on the standard error; nothing where that is no terminal or `quiet` is asked.
fn progress(total_bytes: Option<u64>, quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let template = match total_bytes {
        Some(_) => "{bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}",
        None => "{spinner} {binary_bytes}, {binary_bytes_per_sec}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total_bytes, target)
        .with_style(style)
        .with_finish(ProgressFinish::AndClear)
}

/// What a transfer did, in one line.
fn summary(verb: &str, size_bytes: u64, data_bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-3);
    format!(
        "{verb} {} ({} of data) in {seconds:.2} s, {:.0} MiB/s",
        human_bytes(size_bytes),
        human_bytes(data_bytes),
        size_bytes as f64 / seconds / f64::from(1 << 20),
    )
}

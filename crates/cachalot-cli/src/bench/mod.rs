//! `cachalot bench`: the same operations through the cache and straight to the store, side by side.

mod apart;
pub(crate) mod args;
mod cases;
mod chart;
mod memory;
mod report;
mod run;
mod scale;
mod side;
mod target;
mod workload;
mod zipf;

use bytes::Bytes;
use cachalot::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CliError, exit_code};
use crate::output;
use crate::store::{OpenFor, StoreUrl};

use args::{BenchArgs, ModeArg, PatternArg};
use report::{BenchReport, GUARANTEES};
use run::{Load, Stop};
use side::{Bench, Side};
use workload::{Pattern, Workload};

/// Runs `cachalot bench`.
pub(crate) async fn bench(args: BenchArgs) -> Result<(), CliError> {
    if args.is_of_parts() {
        return measure_cases(args).await;
    }
    let workload = workload_of(&args)?;
    let threads = single("--threads", &args.threads, 2)?;
    let in_flight = args.in_flight.unwrap_or(32).max(threads);
    let store_delay = args.store_delay.unwrap_or_default();
    let config = args.cache.config()?;
    let layout = args.layout.layout()?;
    let stop = Stop::default();
    stop_on_interrupt(stop.clone())?;
    let (url, directory) = match args.store {
        Some(url) => (url, None),
        None => {
            let directory = TempDir::with_prefix("cachalot-bench-")
                .map_err(CliError::file("make a directory in", std::env::temp_dir()))?;
            (StoreUrl::File(directory.path().to_owned()), Some(directory))
        }
    };
    let mut report = BenchReport {
        store: url.to_string(),
        store_delay_ns: u64::try_from(store_delay.as_nanos()).unwrap_or(u64::MAX),
        workload: workload.clone(),
        threads,
        in_flight,
        cache_bytes: config.max_bytes.as_u64(),
        dirty_bytes_max: config.max_dirty_bytes.as_u64(),
        cache: None,
        direct: None,
    };
    if !args.json {
        output::print(&report.headline())?;
    }
    let bench = Bench {
        workload,
        load: Load {
            threads,
            in_flight,
            warm_up: args.warm_up,
            duration: args.duration,
        },
        layout,
        config,
        delay: store_delay,
        live: args.stats,
        quiet: args.json,
        store: url.open(OpenFor::Adding)?,
        stop,
    };
    if args.mode != ModeArg::Direct {
        report.cache = Some(bench.side(Side::Cache).await?);
    }
    if args.mode != ModeArg::Cache {
        report.direct = Some(bench.side(Side::Direct).await?);
    }
    drop(directory);
    if args.json {
        return output::print_json(&report);
    }
    output::print(&format!(
        "{}\n{}\n{GUARANTEES}",
        report.table(),
        report.charts()
    ))
}

/// Runs `cachalot bench --case` and its like beside the runtime, which has nothing to do meanwhile.
async fn measure_cases(args: BenchArgs) -> Result<(), CliError> {
    let work = tokio::task::spawn_blocking(move || {
        if !args.scaling.scale.is_empty() {
            scale::scale(&args)
        } else if !args.memory.is_empty() {
            memory::memory(&args)
        } else {
            cases::cases(&args)
        }
    });
    tokio::select! {
        done = work => done.unwrap_or_else(|_| Err(CliError::Failed("the benchmark panicked".to_owned()))),
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Err(CliError::Interrupted),
            Err(error) => Err(CliError::Failed(format!("cannot wait for signals: {error}"))),
        },
    }
}

/// The one value of an option that takes several only with --case.
fn single<T: Copy>(option: &str, given: &[T], otherwise: T) -> Result<T, CliError> {
    match given {
        [] => Ok(otherwise),
        [one] => Ok(*one),
        _ => Err(CliError::Usage(format!(
            "{option} takes several values only with --case"
        ))),
    }
}

/// The workload that was asked for, if it makes sense.
pub(crate) fn workload_of(args: &BenchArgs) -> Result<Workload, CliError> {
    let workload = Workload {
        sets: single("--sets", &args.sets, 4)?,
        working_set_bytes: single("--working-set", &args.working_set, 256 << 20)?,
        block_bytes: args.block_size.unwrap_or(4 << 10),
        read_share: args.read_share,
        pattern: match args.pattern {
            PatternArg::Uniform => Pattern::Uniform,
            PatternArg::Sequential => Pattern::Sequential,
            PatternArg::Zipf => Pattern::Zipf {
                exponent: args.zipf_exponent,
            },
        },
        seed: args
            .seed
            .unwrap_or_else(|| SystemClock::new().timestamp().0 % 1_000_000),
    };
    if workload.block_bytes == 0 || workload.block_bytes > 1 << 30 {
        return Err(CliError::Usage(
            "--block-size must be from 1 byte to 1GiB".to_owned(),
        ));
    }
    if workload.working_set_bytes < workload.block_bytes * workload.sets as u64 {
        return Err(CliError::Usage(
            "--working-set must hold at least one block of each set: raise it, or lower --sets or --block-size"
                .to_owned(),
        ));
    }
    Ok(workload)
}

/// What every write of the workload writes.
fn block_of(workload: &Workload) -> Bytes {
    Bytes::from(vec![
        0x5A;
        usize::try_from(workload.block_bytes).unwrap_or(0)
    ])
}

/// On Ctrl-C, ends the run so that what it made is removed; on a second one, ends at once.
fn stop_on_interrupt(stop: Stop) -> Result<(), CliError> {
    // The signal is caught from here on, not only when the task first runs.
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| CliError::Failed(format!("cannot wait for signals: {error}")))?;
    let watch = async move {
        interrupts.recv().await;
        stop.set();
        interrupts.recv().await;
        std::process::exit(i32::from(exit_code::INTERRUPTED));
    };
    drop(tokio::runtime::Handle::current().spawn(watch));
    Ok(())
}

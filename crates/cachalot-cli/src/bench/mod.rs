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
mod volume;
mod workload;
mod zipf;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::Backend;
use cachalot::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CliError, exit_code};
use crate::output;
use crate::store::{OpenFor, StoreUrl};
use crate::volume::{VolumeName, Volumes};

use args::{BenchArgs, ModeArg, PatternArg};
use report::{BenchReport, GUARANTEES};
use run::{Load, Stop, Until};
use side::{Bench, Side};
use volume::OpenVolume;
use workload::{Pattern, Workload};

/// Runs `cachalot bench`.
pub(crate) async fn bench(args: BenchArgs) -> Result<(), CliError> {
    if args.is_of_parts() {
        return measure_cases(args).await;
    }
    check_args(&args)?;
    let stop = Stop::default();
    stop_on_interrupt(stop.clone())?;
    let (url, directory) = match &args.store {
        Some(url) => (url.clone(), None),
        None => {
            let directory = TempDir::with_prefix("cachalot-bench-")
                .map_err(CliError::file("make a directory in", std::env::temp_dir()))?;
            (StoreUrl::File(directory.path().to_owned()), Some(directory))
        }
    };
    let report = match &args.volume.volume {
        Some(name) => {
            let volumes = Volumes::open(&url, OpenFor::Changing)?;
            measure_volume(&args, (&url, &volumes), name, stop).await?
        }
        None => {
            let store = url.open(OpenFor::Adding)?;
            Box::pin(measure(&args, (&url, store), None, stop)).await?
        }
    };
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

/// Measures a volume that nobody else may write meanwhile. However that ends, the right to write it is given back.
async fn measure_volume(
    args: &BenchArgs,
    (url, volumes): (&StoreUrl, &Volumes),
    name: &VolumeName,
    stop: Stop,
) -> Result<BenchReport, CliError> {
    let work = async |volumes: &Volumes| {
        let volume = OpenVolume::load(volumes, name, (url, args)).await?;
        let store = Arc::clone(volumes.backend());
        Box::pin(measure(args, (url, store), Some(volume), stop)).await
    };
    volumes.alone(name, args.volume.break_lock, work).await
}

/// Measures the sides.
async fn measure(
    args: &BenchArgs,
    (url, store): (&StoreUrl, Arc<dyn Backend>),
    volume: Option<OpenVolume>,
    stop: Stop,
) -> Result<BenchReport, CliError> {
    let workload = workload_of(args, volume.as_ref().map(OpenVolume::size_bytes))?;
    let load = load_of(args)?;
    let delay = args.store_delay.unwrap_or_default();
    let config = args.cache.config()?;
    let mut report = BenchReport {
        store: url.to_string(),
        volume: volume.as_ref().map(|volume| volume.name.to_string()),
        store_delay_ns: u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
        workload: workload.clone(),
        threads: load.threads,
        in_flight: load.in_flight,
        cache_bytes: config.max_bytes.as_u64(),
        dirty_bytes_max: config.max_dirty_bytes.as_u64(),
        cache: None,
        direct: None,
    };
    if !args.json {
        output::print(&report.headline())?;
    }
    let mode = match volume {
        Some(_) => ModeArg::Cache,
        None => args.mode.unwrap_or(ModeArg::Both),
    };
    let bench = Bench {
        workload,
        load,
        warm: args.warm,
        layout: args.layout.layout()?,
        config,
        delay,
        live: args.stats,
        quiet: args.json,
        store,
        volume,
        stop,
    };
    if mode != ModeArg::Direct {
        report.cache = Some(bench.side(Side::Cache).await?);
    }
    if mode != ModeArg::Cache {
        report.direct = Some(bench.side(Side::Direct).await?);
    }
    Ok(report)
}

/// Refuses what makes no sense, before a store is opened or made.
fn check_args(args: &BenchArgs) -> Result<(), CliError> {
    if args.volume.volume.is_some() {
        volume::check_args(args)?;
    } else {
        workload_of(args, None)?;
    }
    load_of(args)?;
    args.layout.layout()?;
    args.cache.config()?;
    Ok(())
}

/// How hard and how long to ask.
fn load_of(args: &BenchArgs) -> Result<Load, CliError> {
    let threads = single("--threads", &args.threads, 2)?;
    let (warm_up, until) = match args.operations {
        Some(operations) => (Duration::ZERO, Until::Operations(operations)),
        None => (Duration::from_secs(1), Until::Clock(args.duration)),
    };
    Ok(Load {
        threads,
        in_flight: args.in_flight.unwrap_or(32).max(threads),
        warm_up: args.warm_up.unwrap_or(warm_up),
        until,
    })
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

/// The workload that was asked for, if it makes sense, over a volume of so many bytes where there is one.
pub(crate) fn workload_of(
    args: &BenchArgs,
    volume_bytes: Option<u64>,
) -> Result<Workload, CliError> {
    let (sets, working_set_bytes) = match volume_bytes {
        Some(volume_bytes) => (1, volume_bytes),
        None => (4, 256 << 20),
    };
    let workload = Workload {
        sets: single("--sets", &args.sets, sets)?,
        working_set_bytes: single("--working-set", &args.working_set, working_set_bytes)?,
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
    if let Some(bytes) = volume_bytes.filter(|bytes| workload.working_set_bytes > *bytes) {
        return Err(CliError::Usage(format!(
            "--working-set is larger than the volume, which has {bytes} bytes: lower it, or leave it out to touch all of the volume"
        )));
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

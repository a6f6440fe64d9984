//! Data that goes through the cache: writes with their flush, and misses.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cachalot::{CacheError, Clock, Moment, SystemClock};
use futures::executor::block_on;
use futures::future::try_join_all;
use hdrhistogram::Histogram;

use super::figures::Figures;
use super::plan::{Case, Plan};
use super::report::CaseReport;
use super::rig::Rig;
use super::timing::{Lap, OPS_AT_ONCE, histogram, nanos, on_threads, thread_cpu};
use crate::bench::workload::{scatter, scattering_stride};
use crate::error::CliError;

/// How much of a run is repeated with every operation timed.
const SAMPLED_SHARE: f64 = 0.25;
/// The sets' files of misses are this long for each thread, which nobody reads to its end.
const LANE_BLOCKS: u64 = 1 << 36;

/// Writes everything, flushes, and counts both.
pub(super) fn write_flush(plan: &Plan) -> Result<CaseReport, CliError> {
    let rig = Rig::start(plan)?;
    // Once before, so that the first run finds memory as the others do.
    write_all(&rig, SAMPLED_SHARE, None)?;
    let mut figures = Figures::begin(&rig);
    for _ in 0..plan.pace.runs {
        figures.begin_run();
        let clock = SystemClock::new();
        let (operations, cpu) = write_all(&rig, 1.0, None)?;
        figures.more("ms before the flush", clock.now().as_nanos() as f64 / 1e6);
        rig.flush()?;
        let elapsed = clock.now().since(Moment::default());
        let per_thread = Lap {
            operations: operations / plan.threads as u64,
            elapsed,
            cpu: cpu / u32::try_from(plan.threads).unwrap_or(1),
        };
        figures.run(
            &vec![per_thread; plan.threads],
            plan.in_flight / plan.threads,
        );
        let mut samples = Vec::new();
        write_all(&rig, SAMPLED_SHARE, Some(&mut samples))?;
        rig.flush()?;
        figures.latencies("operation", &samples)?;
    }
    let report = figures.end(&rig);
    rig.end();
    Ok(report)
}

/// Writes a share of all blocks, each thread its part of them; returns how many, and what its threads computed.
fn write_all(
    rig: &Rig,
    share: f64,
    samples: Option<&mut Vec<Histogram<u64>>>,
) -> Result<(u64, Duration), CliError> {
    let plan = &rig.plan;
    let all = (plan.total_bytes / plan.block_bytes).max(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is one"
    )]
    let blocks = ((all as f64 * share) as u64 / plan.threads as u64).max(1);
    let file = plan.blocks_per_set() * plan.sets as u64;
    let stride = if plan.case == Case::WriteFlushRand {
        scattering_stride(file)
    } else {
        1
    };
    let streams = (plan.in_flight / plan.threads).max(1);
    let is_sampled = samples.is_some();
    let done = on_threads(plan.threads, |thread, barrier: &Barrier| {
        let first = thread as u64 * blocks;
        let (next, data, clock) = (Cell::new(0), rig.block(), SystemClock::new());
        let timed = Cell::new(Some(histogram()?));
        barrier.wait();
        let stream = async |_| {
            loop {
                let number = next.replace(next.get() + 1);
                if number >= blocks {
                    return Ok::<(), CacheError>(());
                }
                let block = scatter((first + number) % file, stride, file);
                let Some((set, offset)) = rig.place(block) else {
                    continue;
                };
                if is_sampled {
                    let begun = clock.now();
                    set.write_at(offset, data.clone()).await?;
                    record(&timed, clock.now().since(begun));
                } else {
                    set.write_at(offset, data.clone()).await?;
                }
            }
        };
        let written = match streams {
            1 => block_on(stream(0)),
            streams => block_on(try_join_all((0..streams).map(stream))).map(drop),
        };
        written.map_err(CliError::cache("write through the cache"))?;
        Ok((timed.take(), thread_cpu()))
    })?;
    let cpu = done.iter().map(|(_, cpu)| *cpu).sum();
    if let Some(samples) = samples {
        samples.extend(done.into_iter().filter_map(|(histogram, _)| histogram));
    }
    Ok((blocks * plan.threads as u64, cpu))
}

/// Adds a latency to a histogram that several streams of one thread share.
fn record(histogram: &Cell<Option<Histogram<u64>>>, latency: Duration) {
    if let Some(mut taken) = histogram.take() {
        taken.saturating_record(nanos(latency));
        histogram.set(Some(taken));
    }
}

/// Reads what was never read before.
pub(super) fn misses(plan: &Plan) -> Result<CaseReport, CliError> {
    let rig = Rig::start(plan)?;
    let lanes: Vec<AtomicU64> = (0..plan.threads).map(|_| AtomicU64::new(0)).collect();
    let pace = plan.pace;
    // Until the cache is full, and evicts.
    miss_laps(&rig, &lanes, pace.seconds * SAMPLED_SHARE, false)?;
    let mut figures = Figures::begin(&rig);
    let streams = (plan.in_flight / plan.threads).max(1);
    for _ in 0..pace.runs {
        figures.begin_run();
        let laps = miss_laps(&rig, &lanes, pace.seconds, false)?;
        let laps: Vec<Lap> = laps.into_iter().map(|(lap, _)| lap).collect();
        figures.run(&laps, streams);
        let timed = miss_laps(&rig, &lanes, pace.seconds * SAMPLED_SHARE, true)?;
        let timed: Vec<Histogram<u64>> = timed.into_iter().map(|(_, timed)| timed).collect();
        figures.latencies("operation", &timed)?;
    }
    let report = figures.end(&rig);
    rig.end();
    Ok(report)
}

fn miss_laps(
    rig: &Rig,
    lanes: &[AtomicU64],
    seconds: f64,
    is_sampled: bool,
) -> Result<Vec<(Lap, Histogram<u64>)>, CliError> {
    let plan = &rig.plan;
    let streams = (plan.in_flight / plan.threads).max(1);
    on_threads(plan.threads, |thread, barrier: &Barrier| {
        let lane = thread as u64 * LANE_BLOCKS;
        let read_before = lanes
            .get(thread)
            .map_or(0, |lane| lane.load(Ordering::Relaxed));
        let (clock, next) = (SystemClock::new(), Cell::new(read_before));
        let timed = Cell::new(Some(histogram()?));
        barrier.wait();
        let begun = clock.now();
        let end = begun.after(Duration::from_secs_f64(seconds));
        let is_over = Cell::new(false);
        let stream = async |_| {
            while !is_over.get() {
                let number = next.replace(next.get() + 1);
                let Some((set, offset)) = rig.place(lane + number) else {
                    break;
                };
                let asked = if is_sampled { clock.now() } else { begun };
                black_box(set.read_at(offset, plan.block_bytes).await?);
                if is_sampled {
                    record(&timed, clock.now().since(asked));
                }
                if number.is_multiple_of(OPS_AT_ONCE / 4) && clock.now() >= end {
                    is_over.set(true);
                }
            }
            Ok::<(), CacheError>(())
        };
        block_on(try_join_all((0..streams).map(stream)))
            .map_err(CliError::cache("read through the cache"))?;
        if let Some(lane) = lanes.get(thread) {
            lane.store(next.get(), Ordering::Relaxed);
        }
        let lap = Lap {
            operations: next.get() - read_before,
            elapsed: clock.now().since(begun),
            cpu: thread_cpu(),
        };
        Ok((lap, timed.take().map_or_else(histogram, Ok)?))
    })
}

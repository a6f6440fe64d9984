//! What is left to flush: many tiny writes, and a reader beside a large flush.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use cachalot::{CacheError, Clock, Moment, SystemClock};
use futures::executor::block_on;
use hdrhistogram::Histogram;

use super::figures::Figures;
use super::memory;
use super::plan::Plan;
use super::report::CaseReport;
use super::rig::{Rig, Target};
use super::timing::{Lap, OPS_AT_ONCE, histogram, nanos, on_threads, sampled, thread_cpu};
use crate::bench::workload::{scatter, scattering_stride};
use crate::error::CliError;

/// Absorbs tiny writes, looks at what they take, and flushes them.
pub(super) fn tiny(plan: &Plan) -> Result<CaseReport, CliError> {
    let rig = Rig::start(plan)?;
    tiny_writes(&rig, None)?;
    rig.purge()?;
    let mut figures = Figures::begin(&rig);
    for _ in 0..plan.pace.runs {
        figures.begin_run();
        let laps = tiny_writes(&rig, None)?;
        figures.run(&laps, 1);
        figures.note_memory(&rig);
        let clock = SystemClock::new();
        rig.flush()?;
        figures.more("flush ms", clock.now().as_nanos() as f64 / 1e6);
        rig.purge()?;
        let mut samples = Vec::new();
        tiny_writes(&rig, Some(&mut samples))?;
        figures.latencies("operation", &samples)?;
        rig.purge()?;
    }
    let report = figures.end(&rig);
    rig.end();
    Ok(report)
}

/// Each thread writes its part of the file in order.
fn tiny_writes(rig: &Rig, samples: Option<&mut Vec<Histogram<u64>>>) -> Result<Vec<Lap>, CliError> {
    let plan = &rig.plan;
    let blocks = plan.total_bytes.min(plan.footprint_bytes) / plan.block_bytes;
    let blocks = (blocks / plan.threads as u64).max(1);
    let is_sampled = samples.is_some();
    let done = on_threads(plan.threads, |thread, barrier: &Barrier| {
        let first = thread as u64 * blocks;
        let (clock, data, mut timed) = (SystemClock::new(), rig.block(), histogram()?);
        barrier.wait();
        let begun = clock.now();
        let work = async {
            for number in first..first + blocks {
                let Some((set, offset)) = rig.place(number) else {
                    continue;
                };
                if is_sampled {
                    let asked = clock.now();
                    set.write_at(offset, data.clone()).await?;
                    timed.saturating_record(nanos(clock.now().since(asked)));
                } else {
                    set.write_at(offset, data.clone()).await?;
                }
            }
            Ok::<(), CacheError>(())
        };
        block_on(work).map_err(CliError::cache("write through the cache"))?;
        let lap = Lap {
            operations: blocks,
            elapsed: clock.now().since(begun),
            cpu: thread_cpu(),
        };
        Ok((lap, timed))
    })?;
    let (laps, histograms): (Vec<Lap>, Vec<Histogram<u64>>) = done.into_iter().unzip();
    if let Some(samples) = samples {
        samples.extend(histograms);
    }
    Ok(laps)
}

/// What the writer does at a moment.
const WRITING: u8 = 0;
const FLUSHING: u8 = 1;
const DONE: u8 = 2;

/// The reader's or the writer's side of a run.
enum Side {
    Reader(Box<Read>),
    Writer { flush: Duration },
}

/// What the reader saw.
struct Read {
    written: Histogram<u64>,
    flushed: Histogram<u64>,
    lap: Lap,
    preemptions: u64,
}

/// One thread hits while another writes everything anew and flushes it.
pub(super) fn under_load(plan: &Plan) -> Result<CaseReport, CliError> {
    let rig = Rig::start(plan)?;
    rig.fill()?;
    rig.flush()?;
    let mut figures = Figures::begin(&rig);
    for _ in 0..plan.pace.runs {
        let (clock, mut target) = (SystemClock::new(), rig.target(0));
        let mut alone = histogram()?;
        let time = Duration::from_secs_f64(plan.pace.seconds);
        let work = sampled(&clock, time, &mut alone, async || {
            hit(&mut target, plan).await
        });
        block_on(work).map_err(CliError::cache("read through the cache"))?;
        figures.latencies("reader alone", &[alone])?;

        figures.begin_run();
        let phase = AtomicU8::new(WRITING);
        let sides = on_threads(2, |thread, barrier: &Barrier| match thread {
            0 => reader(&rig, &phase, barrier),
            _ => {
                barrier.wait();
                let flush = writer(&rig, &phase);
                phase.store(DONE, Ordering::Release);
                Ok(Side::Writer { flush: flush? })
            }
        })?;
        for side in sides {
            match side {
                Side::Reader(read) => {
                    figures.run(&[read.lap], 1);
                    figures.latencies("operation", &[read.flushed])?;
                    figures.latencies("while written", &[read.written])?;
                    figures.more("reader preempted, times", read.preemptions as f64);
                }
                Side::Writer { flush } => {
                    figures.more("flush ms", flush.as_secs_f64() * 1e3);
                }
            }
        }
    }
    let report = figures.end(&rig);
    rig.end();
    Ok(report)
}

async fn hit(target: &mut Target<'_>, plan: &Plan) -> Result<(), CacheError> {
    if let Some((set, offset)) = target.next() {
        black_box(set.read_at(offset, plan.block_bytes).await?);
    }
    Ok(())
}

/// Hits until the writer is done, every one of them timed.
fn reader(rig: &Rig, phase: &AtomicU8, barrier: &Barrier) -> Result<Side, CliError> {
    let (clock, mut target) = (SystemClock::new(), rig.target(0));
    let (mut written, mut flushed) = (histogram()?, histogram()?);
    let (mut begun_flushed, mut cpu_before) = (None, Duration::ZERO);
    let mut last = Moment::default();
    barrier.wait();
    let preempted_before = memory::preemptions();
    let work = async {
        loop {
            let now = phase.load(Ordering::Acquire);
            // A flush that was over before the reader looked still has one hit beside it.
            if now == DONE && begun_flushed.is_some() {
                return Ok::<(), CacheError>(());
            }
            let begun = clock.now();
            hit(&mut target, &rig.plan).await?;
            last = clock.now();
            let latency = nanos(last.since(begun));
            if now != WRITING {
                if begun_flushed.is_none() {
                    (begun_flushed, cpu_before) = (Some(begun), thread_cpu());
                }
                flushed.saturating_record(latency);
            } else {
                written.saturating_record(latency);
            }
        }
    };
    block_on(work).map_err(CliError::cache("read through the cache"))?;
    let lap = Lap {
        operations: flushed.len(),
        elapsed: last.since(begun_flushed.unwrap_or(last)),
        cpu: thread_cpu().saturating_sub(cpu_before),
    };
    Ok(Side::Reader(Box::new(Read {
        written,
        flushed,
        lap,
        preemptions: memory::preemptions() - preempted_before,
    })))
}

/// Writes every block, in random order, and flushes; tells how long the flush took.
fn writer(rig: &Rig, phase: &AtomicU8) -> Result<Duration, CliError> {
    let plan = &rig.plan;
    let blocks = plan.blocks_per_set() * plan.sets as u64;
    let (stride, data) = (scattering_stride(blocks), rig.block());
    let work = async {
        for number in 0..blocks {
            if let Some((set, offset)) = rig.place(scatter(number, stride, blocks)) {
                set.write_at(offset, data.clone()).await?;
            }
            if number.is_multiple_of(OPS_AT_ONCE) {
                std::thread::yield_now();
            }
        }
        Ok::<(), CacheError>(())
    };
    block_on(work).map_err(CliError::cache("write through the cache"))?;
    phase.store(FLUSHING, Ordering::Release);
    let clock = SystemClock::new();
    rig.flush()?;
    Ok(clock.now().since(Moment::default()))
}

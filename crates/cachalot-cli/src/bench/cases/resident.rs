//! Hits and absorbed writes: everything is in memory, nothing is written back.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use bytes::Bytes;
use cachalot::{CacheError, ObjectSet, SystemClock};
use futures::executor::block_on;
use hdrhistogram::Histogram;

use super::figures::Figures;
use super::plan::{Case, Plan};
use super::report::CaseReport;
use super::rig::Rig;
use super::timing::{Lap, histogram, lap, on_threads, sampled};
use crate::error::CliError;

/// How much of a run is repeated with every operation timed.
const SAMPLED_SHARE: f64 = 0.5;
/// How long the loop runs before the first run.
const WARM_UP_SHARE: f64 = 0.2;

/// One operation on one block.
trait Operation: Sync {
    /// Does it.
    async fn run(&self, set: &ObjectSet, offset: u64) -> Result<(), CacheError>;
}

/// A read that is answered from memory.
struct Hit {
    block_bytes: u64,
}

impl Operation for Hit {
    async fn run(&self, set: &ObjectSet, offset: u64) -> Result<(), CacheError> {
        let read = set.read_at(offset, self.block_bytes).await?;
        // Lent, not given: moving the answer about is not what is measured.
        black_box(&read);
        Ok(())
    }
}

/// The same, with the bytes copied into a buffer of the caller's own.
struct HitCopied {
    block_bytes: u64,
}

impl Operation for HitCopied {
    async fn run(&self, set: &ObjectSet, offset: u64) -> Result<(), CacheError> {
        let read = set.read_at(offset, self.block_bytes).await?;
        black_box(read.to_vec());
        Ok(())
    }
}

/// A write over what is there.
struct Absorb {
    block: Bytes,
}

impl Operation for Absorb {
    async fn run(&self, set: &ObjectSet, offset: u64) -> Result<(), CacheError> {
        set.write_at(offset, self.block.clone()).await
    }
}

/// Measures hits or absorbed writes.
pub(super) fn resident(plan: &Plan) -> Result<CaseReport, CliError> {
    let rig = Rig::start(plan)?;
    rig.fill()?;
    let is_write = matches!(plan.case, Case::WriteAbsorb | Case::WriteAbsorbFragmented);
    let block_bytes = plan.block_bytes;
    let report = if is_write {
        let block = rig.block();
        measure(&rig, &Absorb { block })
    } else {
        rig.flush()?;
        if plan.pace.copy_out {
            measure(&rig, &HitCopied { block_bytes })
        } else {
            measure(&rig, &Hit { block_bytes })
        }
    };
    rig.end();
    report
}

fn measure(rig: &Rig, operation: &impl Operation) -> Result<CaseReport, CliError> {
    let pace = rig.plan.pace;
    laps(rig, operation, pace.seconds * WARM_UP_SHARE)?;
    let mut figures = Figures::begin(rig);
    for _ in 0..pace.runs {
        figures.begin_run();
        figures.run(&laps(rig, operation, pace.seconds)?, 1);
        let samples = samples(rig, operation, pace.seconds * SAMPLED_SHARE)?;
        figures.latencies("operation", &samples)?;
    }
    figures.note_allocations(allocations(rig, operation)?);
    Ok(figures.end(rig))
}

/// Does the operation on random blocks, as `lap` and `sampled` want it.
async fn once(
    target: &mut super::rig::Target<'_>,
    operation: &impl Operation,
) -> Result<(), CacheError> {
    match target.next() {
        Some((set, offset)) => operation.run(set, offset).await,
        None => Ok(()),
    }
}

fn laps(rig: &Rig, operation: &impl Operation, seconds: f64) -> Result<Vec<Lap>, CliError> {
    on_threads(rig.plan.threads, |thread, barrier: &Barrier| {
        let (clock, mut target) = (SystemClock::new(), rig.target(thread));
        barrier.wait();
        let time = Duration::from_secs_f64(seconds);
        block_on(lap(&clock, time, async || {
            once(&mut target, operation).await
        }))
        .map_err(CliError::cache("use the cache"))
    })
}

fn samples(
    rig: &Rig,
    operation: &impl Operation,
    seconds: f64,
) -> Result<Vec<Histogram<u64>>, CliError> {
    on_threads(rig.plan.threads, |thread, barrier: &Barrier| {
        let (clock, mut target) = (SystemClock::new(), rig.target(thread));
        let mut histogram = histogram()?;
        barrier.wait();
        let time = Duration::from_secs_f64(seconds);
        let work = sampled(&clock, time, &mut histogram, async || {
            once(&mut target, operation).await
        });
        block_on(work).map_err(CliError::cache("use the cache"))?;
        Ok(histogram)
    })
}

/// The allocations of one operation in the caller's thread, where the build counts them.
#[cfg(feature = "count-allocations")]
fn allocations(rig: &Rig, operation: &impl Operation) -> Result<Option<f64>, CliError> {
    const OPERATIONS: u32 = 10_000;
    let mut target = rig.target(0);
    let mut outcome = Ok(());
    let counted = allocation_counter::measure(|| {
        outcome = block_on(async {
            for _ in 0..OPERATIONS {
                once(&mut target, operation).await?;
            }
            Ok(())
        });
    });
    outcome.map_err(CliError::cache("use the cache"))?;
    Ok(Some(counted.count_total as f64 / f64::from(OPERATIONS)))
}

#[cfg(not(feature = "count-allocations"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build can fail")]
const fn allocations(_: &Rig, _: &impl Operation) -> Result<Option<f64>, CliError> {
    Ok(None)
}

//! Reads and writes of which some are hot: a cache smaller than its data, over a store that takes its time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Barrier;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cachalot::{CacheError, Clock, ObjectSet, SystemClock};
use futures::executor::block_on;
use futures::future::try_join_all;
use hdrhistogram::Histogram;

use super::figures::Figures;
use super::plan::Plan;
use super::report::CaseReport;
use super::rig::Rig;
use super::timing::{Lap, OPS_AT_ONCE, histogram, nanos, on_threads, thread_cpu};
use crate::bench::workload::{OpKind, Pattern, Turn, Workload};
use crate::error::CliError;

const READ_SHARE: f64 = 0.7;
const EXPONENT: f64 = 0.99;
/// Drawn before anything is measured, because drawing costs about as much as a hit.
const TAPE_OPS: usize = 1 << 22;
/// How much of a run is repeated with every operation timed.
const SAMPLED_SHARE: f64 = 0.5;
/// How many runs' time to give the cache until it is full and in its usual state, at most.
const WARM_UP_RUNS: u32 = 10;

/// The operations of one thread, and how far it has come.
struct Tape {
    /// The set and block, with the lowest bit set for writes.
    ops: Vec<u64>,
    at: Cell<usize>,
}

impl Tape {
    fn draw(plan: &Plan, thread: usize) -> Self {
        let workload = Workload {
            sets: plan.sets,
            working_set_bytes: plan.footprint_bytes,
            block_bytes: plan.block_bytes,
            read_share: READ_SHARE,
            pattern: Pattern::Zipf { exponent: EXPONENT },
            seed: plan.pace.seed,
        };
        let mut stream = workload.stream(thread as u64, &Turn::default());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of operations, which is bounded"
        )]
        let usual = (pace_ops(plan) as usize).clamp(1 << 10, TAPE_OPS);
        let next = || {
            let op = stream.next_op();
            let block = op.offset / plan.block_bytes * plan.sets as u64 + op.set as u64;
            block << 1 | u64::from(op.kind == OpKind::Write)
        };
        Self {
            ops: std::iter::repeat_with(next).take(usual).collect(),
            at: Cell::new(0),
        }
    }

    /// The next block, and whether to write it.
    fn next(&self) -> (u64, bool) {
        let at = self.at.get();
        self.at
            .set(if at + 1 >= self.ops.len() { 0 } else { at + 1 });
        let op = self.ops.get(at).copied().unwrap_or_default();
        (op >> 1, op & 1 == 1)
    }
}

/// As many operations as a very fast cache does in all runs.
fn pace_ops(plan: &Plan) -> f64 {
    plan.pace.seconds * plan.pace.runs as f64 * 1e6
}

/// The latencies of one thread.
struct Timed {
    all: Histogram<u64>,
    /// Reads that were answered when they were asked.
    hits: Histogram<u64>,
    /// Writes that entered when they were asked.
    absorbed: Histogram<u64>,
}

impl Timed {
    fn new() -> Result<Self, CliError> {
        Ok(Self {
            all: histogram()?,
            hits: histogram()?,
            absorbed: histogram()?,
        })
    }
}

/// Measures the mix.
pub(super) fn mixed(plan: &Plan) -> Result<CaseReport, CliError> {
    let tapes: Vec<Tape> = (0..plan.threads)
        .map(|thread| Tape::draw(plan, thread))
        .collect();
    let tapes: Vec<std::sync::Mutex<Tape>> = tapes.into_iter().map(std::sync::Mutex::new).collect();
    let rig = Rig::start(plan)?;
    for _ in 0..WARM_UP_RUNS {
        laps(&rig, &tapes, plan.pace.seconds, false)?;
        if rig.cache.stats().counters.evicted_bytes > plan.limits.cache_bytes / 4 {
            break;
        }
    }
    let streams = (plan.in_flight / plan.threads).max(1);
    let mut figures = Figures::begin(&rig);
    for _ in 0..plan.pace.runs {
        figures.begin_run();
        let laps_now = laps(&rig, &tapes, plan.pace.seconds, false)?;
        let laps_now: Vec<Lap> = laps_now.into_iter().map(|(lap, _)| lap).collect();
        figures.run(&laps_now, streams);
        let timed = laps(&rig, &tapes, plan.pace.seconds * SAMPLED_SHARE, true)?;
        let (mut all, mut hits, mut absorbed) = (Vec::new(), Vec::new(), Vec::new());
        for (_, timed) in timed {
            all.push(timed.all);
            hits.push(timed.hits);
            absorbed.push(timed.absorbed);
        }
        figures.latencies("operation", &all)?;
        figures.latencies("hits", &hits)?;
        figures.latencies("absorbed writes", &absorbed)?;
    }
    let report = figures.end(&rig);
    rig.end();
    Ok(report)
}

fn laps(
    rig: &Rig,
    tapes: &[std::sync::Mutex<Tape>],
    seconds: f64,
    is_sampled: bool,
) -> Result<Vec<(Lap, Timed)>, CliError> {
    let plan = &rig.plan;
    on_threads(plan.threads, |thread, barrier: &Barrier| {
        // Each thread has a tape of its own; the lock only lends it.
        let tape = tapes.get(thread).and_then(|tape| tape.lock().ok());
        let tape = tape.ok_or(CliError::Interrupted)?;
        let timed = RefCell::new(Timed::new()?);
        let (clock, data, done) = (SystemClock::new(), rig.block(), Cell::new(0));
        barrier.wait();
        let begun = clock.now();
        let end = begun.after(Duration::from_secs_f64(seconds));
        let is_over = Cell::new(false);
        let stream = async |_| {
            while !is_over.get() {
                let (block, is_write) = tape.next();
                let Some((set, offset)) = rig.place(block) else {
                    break;
                };
                if is_sampled {
                    let asked = clock.now();
                    let is_ready = operate((set, offset), &data, is_write).await?;
                    let nanos = nanos(clock.now().since(asked));
                    let mut timed = timed.borrow_mut();
                    timed.all.saturating_record(nanos);
                    match (is_ready, is_write) {
                        (true, false) => timed.hits.saturating_record(nanos),
                        (true, true) => timed.absorbed.saturating_record(nanos),
                        (false, _) => {}
                    }
                } else {
                    operate((set, offset), &data, is_write).await?;
                }
                done.set(done.get() + 1);
                if done.get() % (OPS_AT_ONCE / 4) == 0 && clock.now() >= end {
                    is_over.set(true);
                }
            }
            Ok::<(), CacheError>(())
        };
        let streams = (plan.in_flight / plan.threads).max(1);
        block_on(try_join_all((0..streams).map(stream)))
            .map_err(CliError::cache("use the cache"))?;
        let lap = Lap {
            operations: done.get(),
            elapsed: clock.now().since(begun),
            cpu: thread_cpu(),
        };
        Ok((lap, timed.into_inner()))
    })
}

/// Does one operation; tells whether it was done at once.
async fn operate(
    (set, offset): (&ObjectSet, u64),
    data: &Bytes,
    is_write: bool,
) -> Result<bool, CacheError> {
    if is_write {
        let mut write = pin!(set.write_at(offset, data.clone()));
        let first = poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await;
        if let Poll::Ready(written) = first {
            return written.map(|()| true);
        }
        write.await?;
    } else {
        let mut read = pin!(set.read_at(offset, data.len() as u64));
        let first = poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await;
        if let Poll::Ready(bytes) = first {
            black_box(bytes?);
            return Ok(true);
        }
        black_box(read.await?);
    }
    Ok(false)
}

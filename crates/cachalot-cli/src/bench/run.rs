//! Runs a workload against a target: threads, the operations under way on each, and the clock.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cachalot::{Clock, Moment, SystemClock};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::sync::{oneshot, watch};

use super::target::Target;
use super::workload::{OpKind, Turn, Workload};
use crate::error::CliError;

/// After how many operations one stream lets the others of its thread go on.
const OPS_AT_ONCE: u64 = 8;
/// Latencies above this are counted as this.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// How hard and how long to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The threads that ask.
    pub(crate) threads: usize,
    /// How many operations are under way at once, over all threads.
    pub(crate) in_flight: usize,
    /// How long to run before measuring.
    pub(crate) warm_up: Duration,
    /// When measuring ends.
    pub(crate) until: Until,
}

/// What ends a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// So much time.
    Clock(Duration),
    /// So many operations.
    Operations(u64),
}

/// The measured latencies, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    pub(crate) reads: Histogram<u64>,
    pub(crate) writes: Histogram<u64>,
}

impl Latencies {
    /// No operations yet.
    pub(crate) fn new() -> Result<Self, CliError> {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3)
                .map_err(|error| CliError::Failed(format!("cannot make a histogram: {error}")))
        };
        Ok(Self {
            reads: histogram()?,
            writes: histogram()?,
        })
    }

    /// Adds one operation.
    pub(crate) fn record(&mut self, kind: OpKind, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        match kind {
            OpKind::Read => self.reads.saturating_record(nanos),
            OpKind::Write => self.writes.saturating_record(nanos),
        }
    }

    fn add(&mut self, other: &Self) -> Result<(), CliError> {
        self.reads
            .add(&other.reads)
            .and_then(|()| self.writes.add(&other.writes))
            .map_err(|error| CliError::Failed(format!("cannot add histograms: {error}")))
    }
}

/// Tells everybody to stop: on Ctrl-C, or when one of them has failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    stopped: Arc<AtomicBool>,
}

impl Stop {
    /// Whether to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Tells everybody.
    pub(crate) fn set(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// A run that has ended.
pub(crate) struct Done {
    /// The latencies of the operations begun after the warm-up.
    pub(crate) latencies: Latencies,
    /// The time from the end of the warm-up to the end of the last operation.
    pub(crate) measured: Duration,
    /// How many operations there were, those of the warm-up too.
    pub(crate) operations: u64,
}

/// A run that goes on in its threads.
pub(crate) struct Run {
    clock: Arc<SystemClock>,
    measured_from: Moment,
    operations: Arc<AtomicU64>,
    /// Open as long as a thread works.
    working: watch::Sender<()>,
    threads: Vec<oneshot::Receiver<Result<Latencies, CliError>>>,
}

impl Run {
    /// Starts the threads.
    pub(crate) fn start(
        target: &Target,
        workload: &Workload,
        load: Load,
        stop: &Stop,
    ) -> Result<Self, CliError> {
        let clock = Arc::new(SystemClock::new());
        let measured_from = clock.now().after(load.warm_up);
        let (end, tickets) = match load.until {
            Until::Clock(duration) => (measured_from.after(duration), None),
            Until::Operations(operations) => {
                (Moment::from_nanos(u64::MAX), Some(Tickets::new(operations)))
            }
        };
        let working = watch::Sender::new(());
        let operations = Arc::new(AtomicU64::new(0));
        let turn = Turn::default();
        let mut threads = Vec::new();
        for number in 0..load.threads {
            let streams = (0..load.in_flight as u64)
                .filter(|stream| stream % load.threads as u64 == number as u64)
                .collect();
            let worker = Worker {
                target: target.clone(),
                workload: workload.clone(),
                turn: turn.clone(),
                clock: Arc::clone(&clock),
                measured_from,
                end,
                tickets: tickets.clone(),
                operations: Arc::clone(&operations),
                _works: working.subscribe(),
                stop: stop.clone(),
                block: super::block_of(workload),
            };
            let (sender, receiver) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("bench-{number}"))
                .spawn(move || {
                    // Nobody listens any more only when the whole run was given up.
                    drop(sender.send(worker.run(streams)));
                })
                .map_err(|error| CliError::Failed(format!("cannot start a thread: {error}")))?;
            threads.push(receiver);
        }
        Ok(Self {
            clock,
            measured_from,
            operations,
            working,
            threads,
        })
    }

    /// Whether the warm-up is over.
    pub(crate) fn is_measuring(&self) -> bool {
        self.clock.now() >= self.measured_from
    }

    /// Waits until all threads have ended, however they did.
    pub(crate) async fn ended(&self) {
        self.working.closed().await;
    }

    /// How many operations have ended since the start, give or take those counted late.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Waits for all threads, and returns what they did together.
    pub(crate) async fn finish(self) -> Result<Done, CliError> {
        let mut all = Latencies::new()?;
        let mut failed = None;
        for thread in self.threads {
            match thread.await {
                Ok(Ok(latencies)) => all.add(&latencies)?,
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => {
                    let error = CliError::Failed("a thread of the benchmark panicked".to_owned());
                    failed = failed.or(Some(error));
                }
            }
        }
        let measured = self.clock.now().since(self.measured_from);
        match failed {
            Some(error) => Err(error),
            None => Ok(Done {
                latencies: all,
                measured,
                operations: self.operations.load(Ordering::Relaxed),
            }),
        }
    }
}

/// The operations that are still to be measured, where these are so many, of all streams together.
#[derive(Clone, Debug)]
struct Tickets {
    given: Arc<AtomicU64>,
    all: u64,
}

impl Tickets {
    fn new(all: u64) -> Self {
        Self {
            given: Arc::default(),
            all,
        }
    }

    /// Whether there was one left.
    fn take(&self) -> bool {
        self.given.fetch_add(1, Ordering::Relaxed) < self.all
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ticket {
    /// It is measured if it begins late enough.
    ByTheClock,
    /// It is part of the warm-up.
    WarmUp,
    /// It is one of those that are measured.
    Measured,
    /// It is one too many.
    Refused,
}

/// What one thread needs.
struct Worker {
    target: Target,
    workload: Workload,
    turn: Turn,
    clock: Arc<SystemClock>,
    measured_from: Moment,
    end: Moment,
    tickets: Option<Tickets>,
    operations: Arc<AtomicU64>,
    _works: watch::Receiver<()>,
    stop: Stop,
    block: Bytes,
}

impl Worker {
    fn run(self, streams: Vec<u64>) -> Result<Latencies, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::Failed(format!("cannot start a runtime: {error}")))?;
        let latencies = RefCell::new(Latencies::new()?);
        let streams = streams
            .into_iter()
            .map(|number| self.run_stream(number, &latencies));
        let result = runtime.block_on(try_join_all(streams));
        if result.is_err() {
            self.stop.set();
        }
        result?;
        Ok(latencies.into_inner())
    }

    fn ticket(&self) -> Ticket {
        match &self.tickets {
            None => Ticket::ByTheClock,
            Some(_) if self.clock.now() < self.measured_from => Ticket::WarmUp,
            Some(tickets) if tickets.take() => Ticket::Measured,
            Some(_) => Ticket::Refused,
        }
    }

    /// One operation after the other until the time or the operations are used up.
    async fn run_stream(
        &self,
        number: u64,
        latencies: &RefCell<Latencies>,
    ) -> Result<(), CliError> {
        let mut ops = self.workload.stream(number, &self.turn);
        let mut done = 0;
        loop {
            // Taken before the block is drawn: operations in order are then on the first blocks, all of them.
            let ticket = self.ticket();
            let op = ops.next_op();
            let begun = self.clock.now();
            if ticket == Ticket::Refused || begun >= self.end || self.stop.is_set() {
                let uncounted = done % OPS_AT_ONCE;
                self.operations.fetch_add(uncounted, Ordering::Relaxed);
                return Ok(());
            }
            self.target.run(op, &self.block).await?;
            let is_measured = match ticket {
                Ticket::ByTheClock => begun >= self.measured_from,
                Ticket::Measured => true,
                Ticket::WarmUp | Ticket::Refused => false,
            };
            if is_measured {
                let latency = self.clock.now().since(begun);
                latencies.borrow_mut().record(op.kind, latency);
            }
            done += 1;
            if done % OPS_AT_ONCE == 0 {
                self.operations.fetch_add(OPS_AT_ONCE, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    }
}

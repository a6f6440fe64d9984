//! One side of the benchmark: prepared, measured and cleared away. A volume that is there is only measured.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::{Backend, CountingBackend, OperationCounts, Throttle, ThrottledBackend};
use cachalot::{CacheConfig, Clock, Layout, Moment, SystemClock};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::report::{SideReport, StoreReport};
use super::run::{Load, Run, Stop, Until};
use super::target::{Target, prefill};
use super::volume::OpenVolume;
use super::workload::Workload;
use crate::cached::Session;
use crate::error::CliError;
use crate::output;
use crate::striped::StripedFile;

/// How often the run is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Everything that both sides share.
pub(crate) struct Bench {
    pub(crate) workload: Workload,
    pub(crate) load: Load,
    /// Whether to read everything once before.
    pub(crate) warm: bool,
    pub(crate) layout: Layout,
    pub(crate) config: CacheConfig,
    pub(crate) delay: Duration,
    /// Whether to print the state every second.
    pub(crate) live: bool,
    /// Whether to show no progress.
    pub(crate) quiet: bool,
    pub(crate) store: Arc<dyn Backend>,
    /// What to measure in the place of files that are made and removed.
    pub(crate) volume: Option<OpenVolume>,
    pub(crate) stop: Stop,
}

/// One of the two sides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Cache,
    Direct,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Direct => "direct",
        }
    }
}

/// What a side needs while it is measured.
struct Running {
    side: Side,
    session: Option<Session>,
    counting: Arc<CountingBackend>,
}

impl Bench {
    /// Measures one side.
    pub(crate) async fn side(&self, side: Side) -> Result<SideReport, CliError> {
        let measured = match &self.volume {
            Some(_) => Box::pin(self.measure(side, &[])).await,
            None => self.prepared(side).await,
        };
        let report = measured?;
        if self.stop.is_set() {
            return Err(CliError::Interrupted);
        }
        Ok(report)
    }

    /// Prepares, measures and clears away one side.
    async fn prepared(&self, side: Side) -> Result<SideReport, CliError> {
        let prefixes: Vec<String> = (0..self.workload.sets)
            .map(|set| format!("bench-{}-{}-{set}", side.name(), self.workload.seed))
            .collect();
        let bare = self.files(&self.store, &prefixes);
        let measured = match prefill(&bare, &self.workload, || !self.stop.is_set()).await {
            Ok(()) => Box::pin(self.measure(side, &prefixes)).await,
            Err(error) => Err(error),
        };
        let objects = self.layout.objects_for(self.workload.set_bytes());
        let mut cleared = Ok(());
        for file in &bare {
            cleared = cleared.and(file.remove(objects).await);
        }
        let report = measured?;
        cleared?;
        Ok(report)
    }

    fn files(&self, backend: &Arc<dyn Backend>, prefixes: &[String]) -> Vec<StripedFile> {
        let file =
            |prefix: &String| StripedFile::new(Arc::clone(backend), prefix.as_str(), self.layout);
        prefixes.iter().map(file).collect()
    }

    /// The store with its delay, and with a count of what is asked of it.
    fn counted_store(&self) -> Arc<CountingBackend> {
        let slowed: Arc<dyn Backend> = if self.delay.is_zero() {
            Arc::clone(&self.store)
        } else {
            let throttle = Throttle {
                read_latency: self.delay,
                write_latency: self.delay,
                ..Throttle::default()
            };
            Arc::new(ThrottledBackend::new(Arc::clone(&self.store), throttle))
        };
        Arc::new(CountingBackend::new(slowed))
    }

    async fn measure(&self, side: Side, prefixes: &[String]) -> Result<SideReport, CliError> {
        let counting = self.counted_store();
        let store = Arc::clone(&counting) as Arc<dyn Backend>;
        let session = match side {
            Side::Cache => Some(Session::start(store, &self.config)?),
            Side::Direct => None,
        };
        let running = Running {
            side,
            session,
            counting,
        };
        let measured = self.measure_running(&running, prefixes).await;
        match running.session {
            Some(session) => session.close_after(measured).await,
            None => measured,
        }
    }

    async fn measure_running(
        &self,
        running: &Running,
        prefixes: &[String],
    ) -> Result<SideReport, CliError> {
        let target = self.target(running, prefixes).await?;
        if self.warm {
            target.warm(&self.workload, || !self.stop.is_set()).await?;
        }
        let begun = running.seen(0);
        let run = Run::start(&target, &self.workload, self.load, &self.stop)?;
        let before = self.watch(&run, running).await.unwrap_or(begun);
        let done = run.finish().await?;
        let after = running.seen(done.operations);

        let clock = SystemClock::new();
        target.flush().await?;
        running
            .counting
            .sync()
            .await
            .map_err(CliError::store("make the store's data safe on its disk"))?;
        let settle = clock.now().since(Moment::default());
        let settled = running.seen(done.operations);
        if let Some(session) = running.session.as_ref().filter(|_| self.live) {
            output::note(&session.listing().await);
        }
        Ok(SideReport::new(
            &done.latencies,
            self.workload.block_bytes,
            (done.measured, settle),
            after.hit_ratio_since(&before),
            settled.store_since(&before),
        ))
    }

    async fn target(&self, running: &Running, prefixes: &[String]) -> Result<Target, CliError> {
        let Some(session) = &running.session else {
            let store = Arc::clone(&running.counting) as Arc<dyn Backend>;
            return Ok(Target::Direct(self.files(&store, prefixes)));
        };
        if let Some(volume) = &self.volume {
            let store = Arc::clone(&running.counting) as Arc<dyn Backend>;
            let export = volume.export(&store, session.cache()).await?;
            return Ok(Target::Volume(Arc::new(export)));
        }
        let mut files = Vec::new();
        for prefix in prefixes {
            let bytes = self.workload.set_bytes();
            files.push(session.open(prefix, prefix, self.layout, bytes).await?);
        }
        Ok(Target::Cache(files))
    }

    /// Waits until the run is over, and returns what was seen when its warm-up ended, if it had one.
    async fn watch(&self, run: &Run, running: &Running) -> Option<Seen> {
        let mut ticks = tokio::time::interval(TICK);
        let mut ended = std::pin::pin!(run.ended());
        let mut before = None;
        let bar = self.progress(running.side);
        let (mut last_operations, mut last_moment) = (0, Moment::default());
        let clock = SystemClock::new();
        loop {
            tokio::select! {
                () = &mut ended => break,
                _ = ticks.tick() => {}
            }
            let is_first = before.is_none() && !self.load.warm_up.is_zero();
            if is_first && run.is_measuring() {
                before = Some(running.seen(run.operations()));
            }
            let now = clock.now();
            bar.set_position(match self.load.until {
                Until::Clock(_) => now.as_nanos() / 1_000_000,
                Until::Operations(_) => run.operations(),
            });
            let elapsed = now.since(last_moment);
            if self.live && elapsed >= Duration::from_secs(1) {
                let operations = run.operations();
                let speed = (operations - last_operations) as f64 / elapsed.as_secs_f64();
                let state = match &running.session {
                    Some(session) => session.status(),
                    None => String::new(),
                };
                let name = running.side.name();
                output::note(&format!("{name:6} {speed:>9.0} operations/s  {state}"));
                (last_operations, last_moment) = (operations, now);
            }
        }
        bar.finish_and_clear();
        before
    }

    fn progress(&self, side: Side) -> ProgressBar {
        let target = if self.live || self.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let total = match self.load.until {
            Until::Clock(duration) => {
                u64::try_from((self.load.warm_up + duration).as_millis()).ok()
            }
            Until::Operations(operations) => Some(operations),
        };
        let style = ProgressStyle::with_template("{msg:6} {bar:32} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(total, target)
            .with_style(style)
            .with_message(side.name())
            .with_finish(ProgressFinish::AndClear)
    }
}

impl Running {
    fn seen(&self, asked: u64) -> Seen {
        Seen {
            asked,
            hits: self.session.as_ref().map(Session::hits_and_misses),
            store: self.counting.operations(),
        }
    }
}

/// Counters at one moment.
#[derive(Clone, Copy, Default)]
struct Seen {
    asked: u64,
    hits: Option<(u64, u64)>,
    store: OperationCounts,
}

impl Seen {
    fn hit_ratio_since(&self, before: &Self) -> Option<f64> {
        let (hits, misses) = self.hits?;
        let (hits_before, misses_before) = before.hits.unwrap_or_default();
        let (hits, misses) = (hits - hits_before, misses - misses_before);
        Some(hits as f64 / (hits + misses).max(1) as f64)
    }

    fn store_since(&self, before: &Self) -> StoreReport {
        let (now, then) = (&self.store, &before.store);
        StoreReport {
            operations_asked: self.asked - before.asked,
            reads: now.reads.operations - then.reads.operations,
            writes: now.writes.operations - then.writes.operations,
            read_bytes: now.reads.bytes - then.reads.bytes,
            write_bytes: now.writes.bytes - then.writes.bytes,
        }
    }
}

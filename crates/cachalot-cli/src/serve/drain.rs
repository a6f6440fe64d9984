//! The end of the gateway: everything is stored first, in sight of whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::Backend;
use cachalot::{Advice, Cache, CacheError, Clock, Moment, SystemClock};

use crate::ctl::protocol::DrainProgress;
use crate::error::CliError;

/// Stores everything that the cache holds, and says how far it is. Fails when `second`, the second signal, comes before
/// that, or when another client has taken over, and says how much is lost. Reports `every` so often, and tries a store
/// that failed again then.
pub(super) async fn drain(
    cache: &Cache,
    backend: Option<&Arc<dyn Backend>>,
    second: impl Future<Output = ()>,
    every: Duration,
    mut report: impl FnMut(DrainProgress),
) -> Result<(), CliError> {
    tokio::pin!(second);
    let mut pace = Pace::new(unstored(cache));
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        let closing = store_all(cache, backend);
        tokio::pin!(closing);
        let mut failed = None;
        loop {
            tokio::select! {
                biased;
                () = &mut second => return Err(give_up(cache, "a second signal").await),
                closed = &mut closing, if failed.is_none() => match closed {
                    Ok(()) => return Ok(()),
                    Err((reason, true)) => failed = Some(reason),
                    Err((reason, false)) => return Err(give_up(cache, &reason).await),
                },
                _ = ticks.tick() => {
                    report(pace.progress(unstored(cache), failed.as_deref()));
                    if failed.is_some() {
                        break;
                    }
                }
            }
        }
    }
}

/// Closes the cache and syncs the store; a failure says why, and whether another try may do better.
async fn store_all(
    cache: &Cache,
    backend: Option<&Arc<dyn Backend>>,
) -> Result<(), (String, bool)> {
    let closed = cache.close().await;
    closed.map_err(|error| (reason_of(&error), error.advice() != Advice::GiveUp))?;
    let Some(backend) = backend else {
        return Ok(());
    };
    let synced = backend.sync().await;
    synced.map_err(|error| (error.to_string(), error.is_transient()))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
fn reason_of(error: &CacheError) -> String {
    match error {
        CacheError::WriteBack { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

fn unstored(cache: &Cache) -> u64 {
    let gauges = cache.stats().gauges;
    gauges.dirty_bytes + gauges.tx_bytes
}

/// How fast it goes, and whether it goes at all.
struct Pace {
    clock: SystemClock,
    started: Moment,
    at_first: u64,
    left: u64,
    stall: Option<String>,
}

impl Pace {
    fn new(at_first: u64) -> Self {
        let clock = SystemClock::new();
        Self {
            started: clock.now(),
            clock,
            at_first,
            left: at_first,
            stall: None,
        }
    }

    /// What is told now. What stood in the way is told until something moves.
    fn progress(&mut self, left: u64, failed: Option<&str>) -> DrainProgress {
        if left < self.left {
            self.stall = None;
        }
        if let Some(failed) = failed {
            self.stall = Some(failed.to_owned());
        }
        self.left = left;
        let seconds = self.clock.now().since(self.started).as_secs_f64();
        progress((self.at_first, left), seconds, self.stall.clone())
    }
}

fn progress((at_first, left): (u64, u64), seconds: f64, stall: Option<String>) -> DrainProgress {
    let rate = at_first.saturating_sub(left) as f64 / seconds.max(0.001);
    DrainProgress {
        left_bytes: left,
        bytes_per_second: rate,
        seconds_left: (rate > 0.0).then(|| left as f64 / rate),
        stall,
    }
}

/// Ends the cache as it is, and says how much is lost.
pub(super) async fn give_up(cache: &Cache, reason: &str) -> CliError {
    let lost = cache.abandon().await;
    CliError::Failed(format!(
        "given up after {reason}: {} bytes of unsynced data are lost, {} more were on their way to the store",
        lost.dirty_bytes, lost.in_flight_bytes
    ))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use bytes::Bytes;
    use cachalot::SetOptions;
    use cachalot::backend::{FaultControl, FaultyBackend, MemoryBackend, StoreCondition};
    use tokio::sync::oneshot;

    use super::*;

    const OFTEN: Duration = Duration::from_millis(1);

    async fn with_unstored() -> (Cache, Arc<dyn Backend>, FaultControl) {
        let faulty = FaultyBackend::new(Arc::new(MemoryBackend::new()), 1);
        let control = faulty.control();
        let backend: Arc<dyn Backend> = Arc::new(faulty);
        let cache = Cache::builder(Arc::clone(&backend)).start().unwrap();
        let set = cache.open(SetOptions::new("disk")).await.unwrap();
        let data = Bytes::from_static(&[1; 5000]);
        set.write_at(0, data).await.unwrap();
        (cache, backend, control)
    }

    async fn objects(backend: &Arc<dyn Backend>) -> usize {
        let listed = backend.list(String::new(), None, 10).await;
        listed.unwrap().names.len()
    }

    #[tokio::test]
    async fn a_drain_stores_everything() {
        let (cache, backend, _) = with_unstored().await;
        let drained = drain(&cache, Some(&backend), pending(), OFTEN, |_| ()).await;
        drained.unwrap();
        assert_eq!(objects(&backend).await, 1);
    }

    #[tokio::test]
    async fn a_drain_that_is_given_up_tells_how_much_is_lost() {
        let (cache, backend, _) = with_unstored().await;
        let drained = drain(&cache, Some(&backend), ready(()), OFTEN, |_| ()).await;
        let told = drained.unwrap_err().to_string();
        assert!(told.contains("5000 bytes"), "{told}");
        assert_eq!(objects(&backend).await, 0);
    }

    #[tokio::test]
    async fn a_drain_tells_why_it_stalls_and_goes_on_when_the_store_is_back() {
        let (cache, backend, control) = with_unstored().await;
        control.set_condition(StoreCondition::Down);
        let mut stalls = Vec::new();
        let report = |progress: DrainProgress| {
            if let Some(stall) = progress.stall {
                assert_eq!(progress.left_bytes, 5000);
                stalls.push(stall);
                control.set_condition(StoreCondition::Up);
            }
        };
        let drained = drain(&cache, Some(&backend), pending(), OFTEN, report).await;
        drained.unwrap();
        assert!(
            stalls.first().unwrap().contains("unavailable"),
            "{stalls:?}"
        );
        assert_eq!(objects(&backend).await, 1);
    }

    #[tokio::test]
    async fn a_store_that_can_not_sync_is_asked_again() {
        let (cache, backend, control) = with_unstored().await;
        let kind = cachalot::backend::OperationKind::Sync;
        control.fail_next(kind, cachalot::BackendError::TimedOut);
        let mut stalls = 0;
        let report = |progress: DrainProgress| stalls += u32::from(progress.stall.is_some());
        let drained = drain(&cache, Some(&backend), pending(), OFTEN, report).await;
        drained.unwrap();
        assert_eq!(stalls, 1);
    }

    #[tokio::test]
    async fn a_second_signal_in_a_stall_gives_up_and_tells_how_much_is_lost() {
        let (cache, backend, control) = with_unstored().await;
        control.set_condition(StoreCondition::Down);
        let (signal, signalled) = oneshot::channel();
        let mut signal = Some(signal);
        let report = |progress: DrainProgress| {
            if progress.stall.is_some() {
                signal.take().map(|signal| signal.send(()));
            }
        };
        let second = async { signalled.await.unwrap() };
        let drained = drain(&cache, Some(&backend), second, OFTEN, report).await;
        let given_up = drained.unwrap_err();
        assert!(given_up.to_string().contains("5000 bytes"), "{given_up}");
        assert_ne!(given_up.exit_code(), 0);
    }

    #[tokio::test]
    async fn a_drain_of_what_another_client_took_over_gives_up_by_itself() {
        let (cache, backend, control) = with_unstored().await;
        control.set_condition(StoreCondition::Fenced);
        let drained = drain(&cache, Some(&backend), pending(), OFTEN, |_| ()).await;
        let given_up = drained.unwrap_err().to_string();
        assert!(given_up.contains("5000 bytes"), "{given_up}");
    }

    #[test]
    fn progress_tells_what_is_left_how_fast_and_why_it_stalls() {
        let told = progress((8 << 20, 4 << 20), 2.0, Some("full".to_owned()));
        let line = crate::ctl::progress_line(&told);
        assert!(
            line.contains("2.0 MiB/s, 2 s to go; the store failed: full"),
            "{line}"
        );
        assert_eq!(progress((8, 8), 1.0, None).seconds_left, None);
    }

    #[test]
    fn what_stood_in_the_way_is_told_until_something_moves() {
        let mut pace = Pace::new(9);
        assert_eq!(
            pace.progress(9, Some("full")).stall.as_deref(),
            Some("full")
        );
        assert_eq!(pace.progress(9, None).stall.as_deref(), Some("full"));
        assert_eq!(pace.progress(8, None).stall, None);
    }
}

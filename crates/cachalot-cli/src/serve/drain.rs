//! The end of the gateway: everything is stored first, in sight of whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::Backend;
use cachalot::{Advice, Cache, CacheError, Clock, Moment, SystemClock};

use crate::ctl::protocol::DrainProgress;
use crate::error::CliError;

/// How often a line tells how far it is, and how long until a store that failed is asked again.
const TICK: Duration = Duration::from_secs(1);

/// Stores everything that the cache holds, and says how far it is. Fails when `second`, the second signal, comes before
/// that, or when another client has taken over, and says how much is lost. A store that fails is tried again.
pub(super) async fn drain(
    cache: &Cache,
    backend: Option<&Arc<dyn Backend>>,
    second: impl Future<Output = ()>,
    mut report: impl FnMut(DrainProgress),
) -> Result<(), CliError> {
    tokio::pin!(second);
    let mut pace = Pace::new(unstored(cache));
    let mut ticks = tokio::time::interval(TICK);
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
    use cachalot::backend::MemoryBackend;

    use super::*;

    async fn with_unstored() -> (Cache, Arc<dyn Backend>) {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let cache = Cache::builder(Arc::clone(&backend)).start().unwrap();
        let set = cache.open(SetOptions::new("disk")).await.unwrap();
        let data = Bytes::from_static(&[1; 5000]);
        set.write_at(0, data).await.unwrap();
        (cache, backend)
    }

    async fn objects(backend: &Arc<dyn Backend>) -> usize {
        let listed = backend.list(String::new(), None, 10).await;
        listed.unwrap().names.len()
    }

    #[tokio::test]
    async fn a_drain_stores_everything() {
        let (cache, backend) = with_unstored().await;
        let drained = drain(&cache, Some(&backend), pending(), |_| ()).await;
        drained.unwrap();
        assert_eq!(objects(&backend).await, 1);
    }

    #[tokio::test]
    async fn a_drain_that_is_given_up_tells_how_much_is_lost() {
        let (cache, backend) = with_unstored().await;
        let drained = drain(&cache, Some(&backend), ready(()), |_| ()).await;
        let told = drained.unwrap_err().to_string();
        assert!(told.contains("5000 bytes"), "{told}");
        assert_eq!(objects(&backend).await, 0);
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
}

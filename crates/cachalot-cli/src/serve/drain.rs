//! The end of the gateway: everything is stored first, in sight of whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::Backend;
use cachalot::{Advice, Cache, Clock, SystemClock};

use super::Signals;
use crate::error::CliError;
use crate::output::{human_bytes, note};

/// How often a line tells how far it is, and how long until a store that failed is asked again.
const TICK: Duration = Duration::from_secs(1);

/// Stores everything that the cache holds. Fails when the second signal comes before that, or when another client
/// has taken over, and says how much is lost.
pub(super) async fn drain(
    cache: &Cache,
    backend: Option<&Arc<dyn Backend>>,
    signals: &mut Signals,
    given_up: bool,
) -> Result<(), CliError> {
    if given_up {
        return Err(give_up(cache, "a second signal").await);
    }
    let clock = SystemClock::new();
    let started = clock.now();
    let at_first = unstored(cache);
    let mut ticks = tokio::time::interval(TICK);
    ticks.tick().await;
    let mut stall = None;
    loop {
        let closing = async {
            let closed = cache.close().await;
            closed.map_err(|error| (error.to_string(), error.advice() != Advice::GiveUp))?;
            match backend {
                Some(backend) => backend
                    .sync()
                    .await
                    .map_err(|error| (error.to_string(), error.is_transient())),
                None => Ok(()),
            }
        };
        tokio::pin!(closing);
        let mut ended = None;
        loop {
            tokio::select! {
                closed = &mut closing, if ended.is_none() => match closed {
                    Ok(()) => {
                        note("all is stored");
                        return Ok(());
                    }
                    Err((reason, true)) => ended = Some(reason),
                    Err((reason, false)) => return Err(give_up(cache, &reason).await),
                },
                _ = ticks.tick() => {
                    let seconds = clock.now().since(started).as_secs_f64();
                    stall = ended.clone().or(stall);
                    note(&progress(at_first, unstored(cache), seconds, stall.as_deref()));
                    if ended.is_some() {
                        break;
                    }
                }
                () = signals.next() => return Err(give_up(cache, "a second signal").await),
            }
        }
    }
}

fn unstored(cache: &Cache) -> u64 {
    let gauges = cache.stats().gauges;
    gauges.dirty_bytes + gauges.tx_bytes
}

/// One line: what is left, how fast it goes, how long it will take, and what stands in the way.
fn progress(at_first: u64, left: u64, seconds: f64, stall: Option<&str>) -> String {
    let rate = at_first.saturating_sub(left) as f64 / seconds.max(0.001);
    let mut line = format!(
        "{} left, {:.1} MiB/s",
        human_bytes(left),
        rate / 1_048_576.0
    );
    if rate > 0.0 {
        line.push_str(&format!(", {:.0} s to go", left as f64 / rate));
    }
    if let Some(stall) = stall {
        line.push_str(&format!("; the store failed: {stall}"));
    }
    line
}

async fn give_up(cache: &Cache, reason: &str) -> CliError {
    let lost = cache.abandon().await;
    CliError::Failed(format!(
        "given up after {reason}: {} bytes of unsynced data are lost, {} more were on their way to the store",
        lost.dirty_bytes, lost.in_flight_bytes
    ))
}

#[cfg(test)]
mod tests {
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
        let mut signals = Signals::new().unwrap();
        let drained = drain(&cache, Some(&backend), &mut signals, false).await;
        drained.unwrap();
        assert_eq!(objects(&backend).await, 1);
    }

    #[tokio::test]
    async fn a_drain_that_is_given_up_tells_how_much_is_lost() {
        let (cache, backend) = with_unstored().await;
        let mut signals = Signals::new().unwrap();
        let drained = drain(&cache, Some(&backend), &mut signals, true).await;
        let told = drained.unwrap_err().to_string();
        assert!(told.contains("5000 bytes"), "{told}");
        assert_eq!(objects(&backend).await, 0);
    }

    #[test]
    fn a_line_tells_what_is_left_how_fast_and_why_it_stalls() {
        let line = progress(8 << 20, 4 << 20, 2.0, Some("full"));
        assert!(
            line.contains("2.0 MiB/s, 2 s to go; the store failed: full"),
            "{line}"
        );
        assert!(!progress(8, 8, 1.0, None).contains("to go"));
    }
}

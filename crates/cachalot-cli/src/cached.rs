//! The cache as the commands use it: the one place besides the gateway that calls its interface.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::Backend;
use cachalot::{Advice, Cache, CacheConfig, CacheDump, Layout, ObjectSet, SetOptions};

use crate::error::CliError;
use crate::output::human_bytes;

/// How often the cache is asked whether writing back fails.
const FAILURE_TICK: Duration = Duration::from_millis(200);
/// How many objects of a set a listing shows.
const OBJECTS_LISTED: usize = 20;

/// A running cache over a store.
#[derive(Debug)]
pub(crate) struct Session {
    cache: Cache,
}

impl Session {
    /// Starts a cache.
    pub(crate) fn start(backend: Arc<dyn Backend>, config: &CacheConfig) -> Result<Self, CliError> {
        let cache = Cache::builder(backend)
            .config(config.clone())
            .start()
            .map_err(CliError::cache("start the cache"))?;
        Ok(Self { cache })
    }

    /// Opens a file of at most `file_bytes` bytes whose objects are called `prefix` with a dot and their number.
    pub(crate) async fn open(
        &self,
        name: &str,
        prefix: &str,
        layout: Layout,
        file_bytes: u64,
    ) -> Result<CachedFile, CliError> {
        let options = SetOptions::new(name)
            .prefix(prefix)
            .layout(layout)
            .file_bytes(file_bytes);
        let set = self
            .cache
            .open(options)
            .await
            .map_err(CliError::cache(format!("open {name} in the cache")))?;
        Ok(CachedFile { set })
    }

    /// The cache itself, for what the gateway opens in it.
    pub(crate) const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many reads were answered from memory, and how many were not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        let counters = self.cache.stats().counters;
        (counters.read_ops_hit, counters.read_ops_missed)
    }

    /// What the cache holds and does, in one line.
    pub(crate) fn status(&self) -> String {
        let stats = self.cache.stats();
        let (gauges, counters) = (stats.gauges, stats.counters);
        format!(
            "{:5.1} % hits  {} clean  {} dirty  {} being stored  {} being fetched  {} waiting  {} evicted",
            counters.hit_ratio() * 100.0,
            human_bytes(gauges.clean_bytes),
            human_bytes(gauges.dirty_bytes),
            human_bytes(gauges.tx_bytes),
            human_bytes(gauges.rx_bytes),
            stats.waiting_claims,
            human_bytes(counters.evicted_bytes),
        )
    }

    /// The objects that the cache holds something of, and in which state.
    pub(crate) async fn listing(&self) -> String {
        listing_text(&self.cache.dump().await)
    }

    /// Ends the cache after the work on it: with everything written back when that went well, at once otherwise.
    pub(crate) async fn close_after<T>(self, work: Result<T, CliError>) -> Result<T, CliError> {
        let closed = match &work {
            Ok(_) => self.cache.close().await,
            Err(_) => {
                self.cache.abandon().await;
                return work;
            }
        };
        if let Err(error) = closed {
            self.cache.abandon().await;
            return Err(CliError::cache("write back what the cache holds")(error));
        }
        work
    }
}

fn listing_text(dump: &CacheDump) -> String {
    let mut text = String::new();
    for set in &dump.sets {
        writeln!(text, "set {}: {} objects", set.set, set.objects.len()).unwrap_or_default();
        for object in set.objects.iter().take(OBJECTS_LISTED) {
            let mut states = std::collections::BTreeMap::<String, (u64, u64)>::new();
            for buffer in &object.buffers {
                let state = states.entry(format!("{:?}", buffer.state)).or_default();
                state.0 += 1;
                state.1 += buffer.range.len();
            }
            let states: Vec<String> = states
                .iter()
                .map(|(state, (buffers, bytes))| {
                    format!("{state} {} in {buffers} buffers", human_bytes(*bytes))
                })
                .collect();
            writeln!(text, "  {}: {}", object.object, states.join(", ")).unwrap_or_default();
        }
        if let Some(more @ 1..) = set.objects.len().checked_sub(OBJECTS_LISTED) {
            writeln!(text, "  and {more} more").unwrap_or_default();
        }
    }
    text
}

/// A file whose reads and writes go through the cache.
#[derive(Clone, Debug)]
pub(crate) struct CachedFile {
    set: ObjectSet,
}

impl CachedFile {
    /// Reads `len` bytes; what was never written is zeros.
    pub(crate) async fn read(&self, offset: u64, len: u64) -> Result<Bytes, CliError> {
        let read = self.set.read_at(offset, len).await;
        read.map(|buffer| buffer.into_bytes())
            .map_err(CliError::cache("read through the cache"))
    }

    /// Reads `len` bytes and looks at none of them.
    pub(crate) async fn read_only(&self, offset: u64, len: u64) -> Result<(), CliError> {
        let read = self.set.read_at(offset, len).await;
        read.map(drop)
            .map_err(CliError::cache("read through the cache"))
    }

    /// Writes `data`.
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> Result<(), CliError> {
        let written = self.set.write_at(offset, data).await;
        written.map_err(CliError::cache("write through the cache"))
    }

    /// Waits until everything written so far is in the store.
    pub(crate) async fn flush(&self) -> Result<(), CliError> {
        let flushed = self.set.flush().await;
        flushed
            .map(drop)
            .map_err(CliError::cache("write back what the cache holds"))
    }

    /// Resolves when writing back fails in a way that trying again does not mend: the store is full, say. Until
    /// then the cache tries again, and writers wait.
    pub(crate) async fn failure(&self) -> CliError {
        let mut ticks = tokio::time::interval(FAILURE_TICK);
        let mut failures_seen = 0;
        loop {
            ticks.tick().await;
            let (_, counters) = self.set.stats();
            if counters.write_back_errors == failures_seen {
                continue;
            }
            failures_seen = counters.write_back_errors;
            match self.set.flush().await {
                Err(error) if error.advice() != Advice::Retry => {
                    return CliError::cache("write back what the cache holds")(error);
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

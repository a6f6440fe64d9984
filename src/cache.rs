//! `Cache`: opens sets, looks over all of them, and changes their limits.

mod builder;
mod closing;

pub use builder::CacheBuilder;
pub use closing::CloseProgress;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::{Actor, ArbiterHandle, System};
use futures::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actors::message::{Audit, ChangeLimits, Flush, GetDump, Release, SetDump, Stop};
use crate::actors::{
    Common, Counters, Directory, Gauges, ObjectSetActor, SetShared, SetState, tell,
};
use crate::backend::Backend;
use crate::config::{CacheConfig, Limits};
use crate::engine::{AuditFailure, Charge, EngineOptions, Flushed};
use crate::error::CacheError;
use crate::object_set::ObjectSet;
use crate::options::SetOptions;
use crate::types::SetId;

struct CacheInner {
    common: Arc<Common>,
    directory: Arc<Directory>,
    system: Option<System>,
    arbiters: Vec<ArbiterHandle>,
    next_arbiter: AtomicUsize,
    /// The clean events of open sets, and the lock under which sets are opened.
    opening: Mutex<BTreeMap<SetId, OpenSet>>,
    is_closed: AtomicBool,
}

struct OpenSet {
    options: SetOptions,
    clean: watch::Receiver<u64>,
}

impl Drop for CacheInner {
    fn drop(&mut self) {
        let gauges = Gauges::from(self.common.books.totals());
        let dirty_bytes = gauges.dirty_bytes + gauges.tx_bytes;
        if dirty_bytes > 0 && !self.is_closed.load(Ordering::Acquire) {
            tracing::error!(
                dirty_bytes,
                "the cache was dropped with unsaved data: close it first"
            );
        }
        if self.system.is_none() {
            // The threads live on, and the actors with them unless they are told.
            for addr in self
                .directory
                .sets()
                .iter()
                .filter_map(|set| set.addr().get())
            {
                tell(addr, Stop { flush: false });
            }
        }
        self.end_actors();
    }
}

impl CacheInner {
    /// Ends the flusher, the trimmer and the cache's own threads.
    fn end_actors(&self) {
        self.common.end_actors();
        if let Some(system) = &self.system {
            system.stop();
        }
    }
}

/// A running cache. Clones are handles of the same one.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use cachalot::backend::MemoryBackend;
/// use cachalot::{Cache, SetOptions};
///
/// # futures::executor::block_on(async {
/// let store = Arc::new(MemoryBackend::new());
/// let cache = Cache::builder(store).start()?;
/// let set = cache.open(SetOptions::new("volume")).await?;
/// set.write_at(4096, Bytes::from_static(b"absorbed")).await?;
/// assert_eq!(set.read_at(4096, 8).await?.into_bytes(), "absorbed");
/// set.flush().await?;
/// cache.close().await?;
/// # Ok::<(), cachalot::CacheError>(())
/// # })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    inner: Arc<CacheInner>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.inner.common.backend)
            .finish_non_exhaustive()
    }
}

/// How a cache is (rule L-04).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheStats {
    /// What is held.
    pub gauges: Gauges,
    /// What happened.
    pub counters: Counters,
    /// What is charged to the limits: bytes with overhead, dirty bytes and buffers with those in flight.
    pub charged: Charge,
    /// Objects of which something is remembered.
    pub objects: u64,
    /// Requests that wait for room.
    pub waiting_claims: usize,
    /// Dirty bytes that waiting writes will bring.
    pub waiting_dirty_bytes: u64,
    /// Open sets.
    pub sets: usize,
}

/// What a cache holds (rule L-06).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CacheDump {
    /// Its sets, by name.
    pub sets: Vec<SetDump>,
}

impl Cache {
    /// Begins to build a cache over a store.
    pub fn builder(backend: Arc<dyn Backend>) -> CacheBuilder {
        CacheBuilder::new(backend)
    }

    /// Opens a set, or gives another handle of it where it is open with the same options.
    ///
    /// # Errors
    /// [`CacheError::AlreadyOpen`] when it is open with other options, [`CacheError::Closed`] when the cache is.
    #[expect(
        clippy::unused_async,
        reason = "later stores may have to be asked first"
    )]
    pub async fn open(&self, options: SetOptions) -> Result<ObjectSet, CacheError> {
        options.check()?;
        let inner = &self.inner;
        let mut opening = inner.opening.lock();
        if inner.is_closed.load(Ordering::Acquire) {
            return Err(CacheError::Closed { set: options.id });
        }
        if let Some(shared) = inner.directory.find(&options.id) {
            let is_live = shared.state().is_live();
            match opening.get(&options.id).filter(|_| is_live) {
                Some(open) if open.options == options => {
                    return Ok(ObjectSet::new(self.clone(), shared, open.clean.clone()));
                }
                Some(_) => return Err(CacheError::AlreadyOpen { set: options.id }),
                None => inner.directory.remove(&shared),
            }
        }
        let (clean, events) = watch::channel(0);
        let shared = self.start_set(&options, clean)?;
        let open = OpenSet {
            options: options.clone(),
            clean: events.clone(),
        };
        opening.insert(options.id, open);
        Ok(ObjectSet::new(self.clone(), shared, events))
    }

    fn start_set(
        &self,
        options: &SetOptions,
        clean: watch::Sender<u64>,
    ) -> Result<Arc<SetShared>, CacheError> {
        let inner = &self.inner;
        let shape = options.shape();
        let shared = Arc::new(SetShared::new(
            (options.id.clone(), shape.clone()),
            (options.layout, options.file_bytes),
            options.context.seq,
            inner.common.clone(),
        ));
        let engine = EngineOptions {
            shape,
            layout: options.layout,
            capabilities: inner.common.backend.capabilities(),
            truncation: options.truncation,
            context: options.context.clone(),
            id: options.id.clone(),
            write_through_until_flush: options.write_through_until_flush,
        };
        if options.write_through_until_flush {
            shared.set_state(SetState::Through);
        }
        let turn = inner.next_arbiter.fetch_add(1, Ordering::Relaxed);
        let Some(arbiter) = inner.arbiters.get(turn % inner.arbiters.len()) else {
            return Err(CacheError::Start);
        };
        let addr = ObjectSetActor::start_in_arbiter(arbiter, {
            let shared = shared.clone();
            move |_| ObjectSetActor::new(shared, engine, clean)
        });
        shared.set_addr(addr);
        inner.directory.enter(&shared);
        tracing::info!(set = shared.id.as_str(), "object set opened");
        Ok(shared)
    }

    /// Flushes every set, all at once.
    ///
    /// # Errors
    /// The first error of any set; all of them are waited for.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, not the writing.
    pub async fn flush_all(&self) -> Result<Flushed, CacheError> {
        let flushes = self
            .inner
            .directory
            .sets()
            .into_iter()
            .map(|set| async move {
                let addr = set.addr().get().ok_or_else(|| set.refusal())?;
                match addr.send(Flush::default()).await {
                    Ok(flushed) => flushed,
                    // A set that has closed has stored everything.
                    Err(_) if set.state() == SetState::Closed => Ok(Flushed {
                        already_clean: true,
                    }),
                    Err(_) => Err(set.refusal()),
                }
            });
        let mut all = Flushed {
            already_clean: true,
        };
        let mut first_error = None;
        for flushed in join_all(flushes).await {
            match flushed {
                Ok(flushed) => all.already_clean &= flushed.already_clean,
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(all), Err)
    }

    /// Drops all that is clean, in every set. Returns the bytes kept.
    pub async fn release_all(&self) -> u64 {
        let releases = self
            .inner
            .directory
            .sets()
            .into_iter()
            .map(|set| async move {
                let Some(addr) = set.addr().get() else {
                    return 0;
                };
                addr.send(Release).await.map_or(0, |kept| kept.unwrap_or(0))
            });
        join_all(releases).await.into_iter().sum()
    }

    /// The limits now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.common.limits()
    }

    /// Changes the limits; they take effect at once, and what no longer fits goes.
    ///
    /// # Errors
    /// [`CacheError::InvalidConfig`] for limits that make no sense or a changed number of threads; then nothing
    /// changes.
    pub async fn set_limits(&self, config: &CacheConfig) -> Result<(), CacheError> {
        let common = &self.inner.common;
        let limits = Limits::try_from(config)?;
        let sets = {
            // Whoever opens a set does so either before this, and it is told, or after it, and starts with these.
            let _opening = self.inner.opening.lock();
            common.set_limits(limits)?;
            self.inner.directory.sets()
        };
        let changes = sets.into_iter().map(|set| async move {
            match set.addr().get() {
                Some(addr) => addr.send(ChangeLimits).await.is_ok(),
                None => false,
            }
        });
        common.note_progress();
        join_all(changes).await;
        common.wake_flusher();
        common.wake_trimmer();
        Ok(())
    }

    /// What is held and what happened, over all sets.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let common = &self.inner.common;
        let waiting = common.ledger.waiting();
        let sets = self.inner.directory.sets();
        let mut counters = *common.retired.lock();
        // The counters of a set that ends at this moment may be missing, or be there twice, until the next look.
        for set in &sets {
            if set.state().is_live() {
                counters += set.books.counters();
            }
        }
        CacheStats {
            gauges: common.books.totals().into(),
            counters,
            charged: common.ledger.held(),
            objects: common.ledger.objects().0,
            waiting_claims: waiting.claims,
            waiting_dirty_bytes: waiting.dirty,
            sets: sets.len(),
        }
    }

    /// Lists everything that is cached. Sets that close meanwhile are left out.
    pub async fn dump(&self) -> CacheDump {
        let dumps = self
            .inner
            .directory
            .sets()
            .into_iter()
            .map(|set| async move { set.addr().get()?.send(GetDump).await.ok()?.ok() });
        let mut sets: Vec<SetDump> = join_all(dumps).await.into_iter().flatten().collect();
        sets.sort_by(|a, b| a.set.cmp(&b.set));
        CacheDump { sets }
    }

    /// Checks every set against a recount.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub async fn audit(&self) -> Result<(), AuditFailure> {
        for set in self.inner.directory.sets() {
            if let Some(addr) = set.addr().get()
                && let Ok(audit) = addr.send(Audit).await
            {
                audit?;
            }
        }
        Ok(())
    }
}

//! `CacheBuilder`: starts the threads and the actors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

use actix::{Actor, Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;

use super::{Cache, CacheInner};
use crate::actors::{Common, Directory, FlusherActor, TrimActor};
use crate::backend::Backend;
use crate::clock::{Clock, SystemClock};
use crate::config::{CacheConfig, Limits};
use crate::error::CacheError;

/// What a cache is started with. Made by [`Cache::builder`].
#[derive(Debug)]
pub struct CacheBuilder {
    backend: Arc<dyn Backend>,
    config: CacheConfig,
    clock: Arc<dyn Clock>,
    arbiters: Vec<ArbiterHandle>,
    #[cfg(any(test, feature = "testkit"))]
    audits_each_turn: bool,
}

impl CacheBuilder {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            config: CacheConfig::default(),
            clock: Arc::new(SystemClock::new()),
            arbiters: Vec::new(),
            #[cfg(any(test, feature = "testkit"))]
            audits_each_turn: false,
        }
    }

    /// The limits; [`CacheConfig::default`] unless set.
    #[must_use]
    pub fn config(mut self, config: CacheConfig) -> Self {
        self.config = config;
        self
    }

    /// The clock; the system's unless set.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs the actors on these threads, which the application owns, instead of on threads of the cache's own. They
    /// must live until the cache is closed.
    #[must_use]
    pub fn arbiters(mut self, arbiters: Vec<ArbiterHandle>) -> Self {
        self.arbiters = arbiters;
        self
    }

    /// Sets recount themselves after every turn of their actors, and fail when their books are wrong. Slow: for tests.
    #[cfg(any(test, feature = "testkit"))]
    #[must_use]
    pub const fn audit_each_turn(mut self) -> Self {
        self.audits_each_turn = true;
        self
    }

    /// Starts the cache. Works in a tokio program, in an actix program, and without a runtime; blocks for as long as
    /// it takes to start a thread.
    ///
    /// # Errors
    /// [`CacheError::InvalidConfig`] for limits that make no sense, [`CacheError::Start`] when no thread can be
    /// started.
    pub fn start(self) -> Result<Cache, CacheError> {
        let limits = Limits::try_from(&self.config)?;
        let common = Arc::new(Common::new(self.backend, self.clock, limits));
        #[cfg(any(test, feature = "testkit"))]
        common
            .audits_each_turn
            .store(self.audits_each_turn, std::sync::atomic::Ordering::Relaxed);
        let directory = Arc::new(Directory::default());
        let (system, arbiters) = if self.arbiters.is_empty() {
            let (system, arbiters) = start_threads(limits.arbiters)?;
            (Some(system), arbiters)
        } else {
            (None, self.arbiters)
        };
        let Some(first) = arbiters.first() else {
            return Err(CacheError::Start);
        };
        let flusher = FlusherActor::start_in_arbiter(first, {
            let common = common.clone();
            move |_| FlusherActor::new(common)
        });
        let trimmer = TrimActor::start_in_arbiter(first, {
            let (common, directory) = (common.clone(), directory.clone());
            move |_| TrimActor::new(common, directory)
        });
        common.set_actors(flusher, trimmer);
        let next_arbiter = AtomicUsize::new(0);
        let is_closed = AtomicBool::new(false);
        let opening = Mutex::default();
        let inner = CacheInner {
            common,
            directory,
            system,
            arbiters,
            next_arbiter,
            opening,
            is_closed,
        };
        Ok(Cache {
            inner: Arc::new(inner),
        })
    }
}

/// Starts a system and its arbiters on threads of their own.
fn start_threads(count: usize) -> Result<(System, Vec<ArbiterHandle>), CacheError> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let spawned = thread::Builder::new()
        .name("cachalot".to_owned())
        .spawn(move || {
            let runner = System::new();
            let handles = runner.block_on(async {
                (0..count)
                    .map(|_| Arbiter::new().handle())
                    .collect::<Vec<ArbiterHandle>>()
            });
            let system = System::current();
            if ready.send((system, handles)).is_ok()
                && let Err(error) = runner.run()
            {
                tracing::error!(%error, "the cache's system ended badly");
            }
        });
    let (Ok(_), Ok(started)) = (spawned, started.recv()) else {
        return Err(CacheError::Start);
    };
    Ok(started)
}

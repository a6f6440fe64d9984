//! Requests to the store: how many at once, how often and how long again, what errors mean, what was asked.
//!
//! The client below never repeats a request by itself; this does, with pauses that grow and vary, until
//! `retry_for` has passed. Every attempt is admitted first: a request of a writer that has been fenced off is not
//! repeated. A request keeps its slot while it pauses, so that however much waits on a store that is down, no more
//! than `requests_max` requests knock there. What fails without a success between makes the pauses of all requests
//! longer, those of new ones too: callers that give up and come again do not make a storm.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ::object_store::client::{HttpError, HttpErrorKind};
use ::object_store::path::Path;
use ::object_store::{
    Error, GetOptions, GetRange, PutMode, PutOptions, PutPayload, Result as Answer,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::BLOCK_BYTES_MAX;
use super::connector::NoRoom;
use super::lock::Guard;
use super::threads::Client;
use crate::backend::Delayer;
use crate::clock::Clock;
use crate::error::BackendError;

/// The first pause before a repetition is at most twice this.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How many keys a listing brings for each request, and a removal takes.
pub(super) const PAGE_KEYS: usize = 1000;

/// What was asked of an object store since it was opened: what its bill counts. Repetitions count too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ObjectStoreRequests {
    /// Objects, or parts of them, fetched.
    pub gets: u64,
    /// Objects stored.
    pub puts: u64,
    /// Requests that remove, of up to 1000 keys each.
    pub deletes: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Bytes that came with answers.
    pub get_bytes: u64,
    /// Bytes that were sent to be stored.
    pub put_bytes: u64,
    /// How many of the requests were repetitions.
    pub repeated: u64,
    /// How many of the requests failed, absence aside.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    gets: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    lists: AtomicU64,
    get_bytes: AtomicU64,
    put_bytes: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
}

fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// On whose behalf requests are made.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    gone: Arc<AtomicBool>,
    guards: Vec<Arc<Guard>>,
    /// Whose connections its requests take; those of the first thread otherwise.
    client: Option<Client>,
}

impl Caller {
    /// One that is gone once the flag says so, and writes under these locks.
    pub(super) const fn new(
        gone: Arc<AtomicBool>,
        guards: Vec<Arc<Guard>>,
        client: Client,
    ) -> Self {
        Self {
            gone,
            guards,
            client: Some(client),
        }
    }

    /// The same, needing no right to write.
    fn reading(&self) -> Self {
        Self {
            guards: Vec::new(),
            ..self.clone()
        }
    }

    /// Whether nobody waits any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// Requests to one store.
#[derive(Debug)]
pub(super) struct Requests {
    client: Client,
    slots: Semaphore,
    requests_max: u32,
    /// How many requests failed since the last success.
    streak: AtomicU32,
    retry_for: Duration,
    parts: Parts,
    counters: Counters,
}

/// Where time comes from.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) delayer: Arc<dyn Delayer>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Requests {
    pub(super) fn new(
        client: Client,
        requests_max: usize,
        retry_for: Duration,
        parts: Parts,
    ) -> Self {
        Self {
            client,
            slots: Semaphore::new(requests_max.clamp(1, Semaphore::MAX_PERMITS)),
            requests_max: u32::try_from(requests_max.max(1)).unwrap_or(u32::MAX),
            streak: AtomicU32::new(0),
            retry_for,
            parts,
            counters: Counters::default(),
        }
    }

    pub(super) const fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(super) fn counts(&self) -> ObjectStoreRequests {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        ObjectStoreRequests {
            gets: load(&counters.gets),
            puts: load(&counters.puts),
            deletes: load(&counters.deletes),
            lists: load(&counters.lists),
            get_bytes: load(&counters.get_bytes),
            put_bytes: load(&counters.put_bytes),
            repeated: load(&counters.repeated),
            failed: load(&counters.failed),
        }
    }

    /// An object's bytes, or some of them, in a buffer of their own; `None` when there is no such key.
    pub(super) async fn get(
        &self,
        caller: &Caller,
        path: &Path,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<Bytes>, BackendError> {
        let client = self.client_of(caller);
        let attempt = || self.get_once(client, path, range.clone()).boxed();
        match self.repeat(&caller.reading(), attempt).await {
            Err(BackendError::NotFound) => Ok(None),
            bytes => bytes.map(Some),
        }
    }

    fn client_of<'a>(&'a self, caller: &'a Caller) -> &'a Client {
        caller.client.as_ref().unwrap_or(&self.client)
    }

    async fn get_once(
        &self,
        client: &Client,
        path: &Path,
        range: Option<std::ops::Range<u64>>,
    ) -> Answer<Bytes> {
        add(&self.counters.gets, 1);
        let range = range.map(GetRange::Bounded);
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let answer = client.get_opts(path, options).await?;
        let len = answer.range.end.saturating_sub(answer.range.start);
        let len = usize::try_from(len.min(BLOCK_BYTES_MAX)).unwrap_or_default();
        // What comes may be a small part of the buffer that the connection read into.
        let mut bytes = Vec::with_capacity(len);
        let mut parts = answer.into_stream();
        while let Some(part) = parts.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        add(&self.counters.get_bytes, bytes.len());
        Ok(Bytes::from(bytes))
    }

    /// Stores an object whole.
    pub(super) async fn put(
        &self,
        caller: &Caller,
        path: &Path,
        bytes: &Bytes,
    ) -> Result<(), BackendError> {
        let client = self.client_of(caller);
        let attempt = || {
            self.put_once(client, path, bytes, PutMode::Overwrite)
                .boxed()
        };
        self.repeat(caller, attempt).await.map_err(no_bucket)
    }

    /// Stores an object if there is none of this key; whether it did. After an answer that was lost, `false` may
    /// mean that it did.
    pub(super) async fn create(&self, path: &Path, bytes: &Bytes) -> Result<bool, BackendError> {
        let attempt = || {
            let creating = self.put_once(&self.client, path, bytes, PutMode::Create);
            creating
                .map(|answer| match answer {
                    Ok(()) => Ok(true),
                    Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                    Err(error) => Err(error),
                })
                .boxed()
        };
        self.repeat(&Caller::default(), attempt)
            .await
            .map_err(no_bucket)
    }

    async fn put_once(
        &self,
        client: &Client,
        path: &Path,
        bytes: &Bytes,
        mode: PutMode,
    ) -> Answer<()> {
        add(&self.counters.puts, 1);
        add(&self.counters.put_bytes, bytes.len());
        let payload = PutPayload::from_bytes(bytes.clone());
        let options = PutOptions::from(mode);
        client.put_opts(path, payload, options).await.map(drop)
    }

    /// One attempt to store an object, ahead of all that waits for a slot.
    pub(super) async fn put_now(&self, path: &Path, bytes: &Bytes) -> Result<(), BackendError> {
        let answer = self
            .put_once(&self.client, path, bytes, PutMode::Overwrite)
            .await;
        answer
            .map_err(|error| self.judge(&error))
            .map_err(no_bucket)
    }

    /// Removes keys; those that are absent are no error.
    pub(super) async fn delete(&self, caller: &Caller, paths: &[Path]) -> Result<(), BackendError> {
        let client = self.client_of(caller);
        for some in paths.chunks(PAGE_KEYS) {
            self.repeat(caller, || self.delete_once(client, some).boxed())
                .await?;
        }
        Ok(())
    }

    async fn delete_once(&self, client: &Client, paths: &[Path]) -> Answer<()> {
        add(&self.counters.deletes, 1);
        let locations = stream::iter(paths.to_vec()).map(Ok).boxed();
        let mut answers = client.delete_stream(locations);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Up to `keys_max` keys below `below` that come after `after`, ascending.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        below: &Path,
        after: Option<&Path>,
        keys_max: usize,
    ) -> Result<Vec<Path>, BackendError> {
        let client = self.client_of(caller);
        let attempt = || self.list_once(client, below, after, keys_max).boxed();
        self.repeat(&caller.reading(), attempt).await
    }

    async fn list_once(
        &self,
        client: &Client,
        below: &Path,
        after: Option<&Path>,
        keys_max: usize,
    ) -> Answer<Vec<Path>> {
        let mut metas = match after {
            Some(after) => client.list_with_offset(Some(below), after),
            None => client.list(Some(below)),
        };
        let mut found = Vec::new();
        add(&self.counters.lists, 1);
        while found.len() < keys_max
            && let Some(meta) = metas.next().await
        {
            let path = meta?.location;
            // Not every server knows where to begin: some begin with `after` itself, or with all there is.
            if after.is_some_and(|after| path <= *after) {
                continue;
            }
            if !found.is_empty() && found.len() % PAGE_KEYS == 0 {
                add(&self.counters.lists, 1);
            }
            found.push(path);
        }
        Ok(found)
    }

    /// One attempt at [`Self::list`], ahead of all that waits for a slot.
    pub(super) async fn list_now(
        &self,
        below: &Path,
        after: &Path,
    ) -> Result<Vec<Path>, BackendError> {
        let answer = self
            .list_once(&self.client, below, Some(after), PAGE_KEYS)
            .await;
        answer.map_err(|error| self.judge(&error))
    }

    /// Attempts a request until it succeeds, fails for good, nobody waits for it, or its time is over.
    async fn repeat<'a, T>(
        &self,
        caller: &Caller,
        attempt: impl Fn() -> BoxFuture<'a, Answer<T>> + Send,
    ) -> Result<T, BackendError> {
        let slot = self.slots.acquire().await;
        let _slot = slot.map_err(|_closed: tokio::sync::AcquireError| BackendError::Unavailable)?;
        let end = self.parts.clock.now().after(self.retry_for);
        let mut pause = PAUSE_MIN;
        if let Some(common) = self.common_pause() {
            self.parts
                .delayer
                .delay(between(Duration::ZERO, common))
                .await;
        }
        loop {
            let error = match self.admit(caller).await {
                Ok(()) => match attempt().await {
                    Ok(answer) => {
                        self.streak.store(0, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(error) => self.judge(&error),
                },
                Err(error) => error,
            };
            if !error.is_transient() {
                // The store answers.
                self.streak.store(0, Ordering::Relaxed);
                return Err(error);
            }
            self.streak.fetch_add(1, Ordering::Relaxed);
            pause = between(PAUSE_MIN, pause * 3).min(PAUSE_MAX);
            if let Some(common) = self.common_pause() {
                pause = pause.max(between(common / 2, common * 3 / 2));
            }
            if caller.is_gone() {
                return Err(error);
            }
            if self.parts.clock.now().after(pause) > end {
                tracing::warn!(%error, "given up after repetitions");
                return Err(error);
            }
            self.parts.delayer.delay(pause).await;
            add(&self.counters.repeated, 1);
        }
    }

    /// How long everybody pauses, once as many requests in a row failed as may be under way: twice as long for each
    /// such round.
    fn common_pause(&self) -> Option<Duration> {
        let rounds = self.streak.load(Ordering::Relaxed) / self.requests_max;
        (rounds > 0).then(|| (PAUSE_MIN * (1 << rounds.min(10))).min(PAUSE_MAX))
    }

    async fn admit(&self, caller: &Caller) -> Result<(), BackendError> {
        for guard in &caller.guards {
            guard.admit(self).await?;
        }
        Ok(())
    }

    fn judge(&self, error: &Error) -> BackendError {
        let judged = judge(error);
        if judged != BackendError::NotFound {
            add(&self.counters.failed, 1);
            tracing::debug!(%error, "a request failed");
        }
        judged
    }
}

/// A random pause, so that clients that fail together do not come back together.
fn between(least: Duration, most: Duration) -> Duration {
    rand::rng().random_range(least..=most.max(least))
}

/// A key can be put whether or not it is there, so what is absent is the bucket.
fn no_bucket(error: BackendError) -> BackendError {
    if error != BackendError::NotFound {
        return error;
    }
    BackendError::Io {
        operation: "finding the bucket",
        kind: std::io::ErrorKind::NotFound,
        os_code: None,
    }
}

/// What an error of the store means. Whatever is not known to last is taken for passing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the client's errors are open-ended"
)]
pub(super) fn judge(error: &Error) -> BackendError {
    match error {
        Error::NotFound { .. } => BackendError::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            BackendError::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. } => {
            BackendError::Unsupported {
                operation: "such a request",
            }
        }
        _ => {
            let mut judged = BackendError::Unavailable;
            let mut source = error.source();
            while let Some(error) = source {
                if error.is::<NoRoom>() {
                    return BackendError::Full;
                }
                let http = error.downcast_ref::<HttpError>();
                if http.is_some_and(|error| error.kind() == HttpErrorKind::Timeout) {
                    judged = BackendError::TimedOut;
                }
                source = error.source();
            }
            judged
        }
    }
}

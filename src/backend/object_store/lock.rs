//! The sole right to write, among clients that share nothing but the store.
//!
//! The keys `writer/OBJECT/EPOCH` are a row of records, each created once, by whoever takes the lock next: of two
//! that create the same one, the store lets one. The record with the highest epoch is the holder's. It holds who that
//! is, for how long the lock outlives it, and a number that the holder raises with each *check*.
//!
//! A check first raises that number and then looks for a higher epoch. It counts from when it began. A request that
//! writes is sent only while the last check and the request's own time limit fit into one lease; else the lock is
//! checked first. Whoever takes over from a holder that did not release creates its record first and then waits for
//! one lease of the other: by then the other's last check has run out, and each later one finds the record. Nobody
//! compares clocks; each measures spans on its own.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::object_store::path::Path;
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;

use super::naming::last_part;
use super::requests::{Caller, Requests};
use super::store::Store;
use super::threads::Spawner;
use crate::backend::{HeldLock, LockError, LockRequest};
use crate::error::BackendError;
use crate::types::{Moment, ObjectName};

/// A lease is looked at so many times while somebody else's is watched.
const LOOKS: u32 = 5;
/// How many keys of earlier holders are kept at most, and how often a lock that others took first is tried for.
const TRIES_MAX: usize = 16;
const FIRST_LINE: &str = "cachalot writer 1";

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) is_held: bool,
    /// Raised by each check.
    pub(super) checks: u64,
    pub(super) lease: Duration,
    /// Tells a record from one that another client made of the same words.
    pub(super) nonce: u64,
    pub(super) holder: String,
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let state = if self.is_held { "held" } else { "released" };
        Bytes::from(format!(
            "{FIRST_LINE}\nstate {state}\nchecks {}\nlease_ms {}\nnonce {:016x}\nholder {}",
            self.checks,
            self.lease.as_millis(),
            self.nonce,
            self.holder
        ))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BackendError> {
        Self::parse(bytes).ok_or(BackendError::Corrupt {
            what: "a writer's record",
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let rest = text.strip_prefix(FIRST_LINE)?.strip_prefix("\nstate ")?;
        let (state, rest) = rest.split_once("\nchecks ")?;
        let (checks, rest) = rest.split_once("\nlease_ms ")?;
        let (lease, rest) = rest.split_once("\nnonce ")?;
        let (nonce, holder) = rest.split_once("\nholder ")?;
        Some(Self {
            is_held: match state {
                "held" => true,
                "released" => false,
                _ => return None,
            },
            checks: checks.parse().ok()?,
            lease: Duration::from_millis(lease.parse().ok()?),
            nonce: u64::from_str_radix(nonce, 16).ok()?,
            holder: holder.to_owned(),
        })
    }
}

/// A lock as this client holds it.
pub(super) struct Guard {
    object: ObjectName,
    prefix: String,
    path: Path,
    below: Path,
    record: Record,
    /// How long a request may take.
    request_timeout: Duration,
    checks: AtomicU64,
    /// When the last check began that found the lock ours.
    checked: Mutex<Moment>,
    checking: tokio::sync::Mutex<()>,
    lost: AtomicBool,
    /// It is renewed no more.
    ended: AtomicBool,
    /// Its record says so, and must not be overwritten.
    released: AtomicBool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("path", &self.path)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Guard {
    pub(super) fn covers(&self, name: &ObjectName) -> bool {
        name.as_str().starts_with(&self.prefix)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether a request that begins now ends within the lease, or is cut off.
    fn is_fresh(&self, now: Moment) -> bool {
        let margin = self.request_timeout.min(self.record.lease / 2);
        now.since(*self.checked.lock()).saturating_add(margin) <= self.record.lease
    }

    /// Lets a request that writes go, or tells why it may not.
    pub(super) async fn admit(&self, requests: &Requests) -> Result<(), BackendError> {
        if self.is_lost() {
            return Err(BackendError::Fenced);
        }
        if self.is_fresh(requests.parts().clock.now()) {
            return Ok(());
        }
        self.check(requests, false).await
    }

    /// Raises our number and looks for a higher epoch.
    async fn check(&self, requests: &Requests, always: bool) -> Result<(), BackendError> {
        let _alone = self.checking.lock().await;
        if self.is_lost() {
            return Err(BackendError::Fenced);
        }
        if self.released.load(Ordering::Acquire) {
            return Err(BackendError::Unavailable);
        }
        let began = requests.parts().clock.now();
        if !always && self.is_fresh(began) {
            return Ok(());
        }
        let record = Record {
            checks: self.checks.fetch_add(1, Ordering::Relaxed) + 1,
            ..self.record.clone()
        };
        requests.put_now(&self.path, &record.encode()).await?;
        let higher = requests.list_now(&self.below, &self.path).await?;
        if !higher.is_empty() {
            self.lost.store(true, Ordering::Release);
            return Err(BackendError::Fenced);
        }
        *self.checked.lock() = began;
        Ok(())
    }

    /// Checks three times a lease until the lock is given up or lost.
    async fn renew(this: Weak<Self>, store: Arc<Store>) {
        loop {
            let Some(guard) = this.upgrade() else { return };
            let pause = guard.record.lease / 3;
            drop(guard);
            store.requests.parts().delayer.delay(pause).await;
            let Some(guard) = this.upgrade() else { return };
            if guard.ended.load(Ordering::Acquire) {
                return;
            }
            match guard.check(&store.requests, true).await {
                Ok(()) => {}
                Err(BackendError::Fenced) => {
                    tracing::error!(object = %guard.object, "another client has taken over");
                    return;
                }
                Err(error) => tracing::warn!(%error, object = %guard.object, "can't renew a lock"),
            }
        }
    }
}

/// The lock, as given to who asked for it.
#[derive(Debug)]
pub(super) struct Held {
    guard: Arc<Guard>,
    store: Arc<Store>,
    spawner: Spawner,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.guard.ended.store(true, Ordering::Release);
    }
}

impl HeldLock for Held {
    fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<(), BackendError>> {
        self.guard.ended.store(true, Ordering::Release);
        let (reply, answer) = oneshot::channel();
        let (guard, store) = (Arc::clone(&self.guard), Arc::clone(&self.store));
        self.spawner.spawn(async move {
            // Nobody may be left to tell.
            drop(reply.send(store.release(&guard).await));
        });
        async { answer.await.unwrap_or(Err(BackendError::Unavailable)) }.boxed()
    }
}

impl Store {
    /// The locks that cover an object.
    pub(super) fn guards_of(&self, name: &ObjectName) -> Vec<Arc<Guard>> {
        let mut guards = self.guards.lock().clone();
        guards.retain(|guard| guard.covers(name));
        guards
    }

    async fn release(&self, guard: &Arc<Guard>) -> Result<(), BackendError> {
        // No check is under way, nor will be: it would say that the lock is held.
        let _alone = guard.checking.lock().await;
        guard.released.store(true, Ordering::Release);
        self.guards
            .lock()
            .retain(|other| !Arc::ptr_eq(other, guard));
        if guard.is_lost() {
            return Ok(());
        }
        let record = Record {
            is_held: false,
            ..guard.record.clone()
        };
        let caller = Caller::default();
        self.requests
            .put(&caller, &guard.path, &record.encode())
            .await
    }

    /// The highest epoch, and its record.
    async fn latest_writer(
        &self,
        object: &ObjectName,
    ) -> Result<Option<(u64, Record)>, BackendError> {
        let caller = Caller::default();
        let below = self.keys.writers(object)?;
        let keys = self
            .requests
            .list(&caller, &below, None, usize::MAX)
            .await?;
        let epochs = keys
            .iter()
            .filter_map(|path| last_part(path).parse::<u64>().ok());
        let Some(epoch) = epochs.max() else {
            return Ok(None);
        };
        let path = self.keys.writer(object, epoch)?;
        match self.requests.get(&caller, &path, None).await? {
            Some(bytes) => Ok(Some((epoch, Record::decode(&bytes)?))),
            // Records are removed only below a higher one, so this is about to be seen.
            None => Err(BackendError::Unavailable),
        }
    }

    /// Waits for a lease: whether the record stayed as it was, as if nobody were there.
    async fn is_abandoned(
        &self,
        object: &ObjectName,
        epoch: u64,
        record: &Record,
    ) -> Result<bool, BackendError> {
        for _ in 0..LOOKS {
            let pause = record.lease / (LOOKS - 1);
            self.requests.parts().delayer.delay(pause).await;
            if self.latest_writer(object).await? != Some((epoch, record.clone())) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the lock: see the [module](self).
    pub(super) async fn lock(
        self: &Arc<Self>,
        request: LockRequest,
        request_timeout: Duration,
        spawner: Spawner,
    ) -> Result<Held, LockError> {
        let object = request.object.clone();
        for _ in 0..TRIES_MAX {
            let latest = self.latest_writer(&object).await?;
            let held = latest.clone().filter(|(_, record)| record.is_held);
            if let Some((epoch, record)) = &held
                && !request.breaking
                && !self.is_abandoned(&object, *epoch, record).await?
            {
                match self.latest_writer(&object).await? {
                    Some((_, record)) if record.is_held => {
                        let holder = record.holder;
                        return Err(LockError::Held { holder });
                    }
                    _ => continue,
                }
            }
            let epoch = latest.map_or(1, |(epoch, _)| epoch.saturating_add(1));
            let Some(guard) = self.create_record(&request, epoch, request_timeout).await? else {
                continue;
            };
            let held = held.map(|(_, record)| record);
            return self.settle(guard, held, spawner).await;
        }
        Err(LockError::Store(BackendError::Unavailable))
    }

    /// Creates the record of an epoch; `None` when another client did.
    async fn create_record(
        &self,
        request: &LockRequest,
        epoch: u64,
        request_timeout: Duration,
    ) -> Result<Option<Guard>, BackendError> {
        let record = Record {
            is_held: true,
            checks: 0,
            lease: request.lease.max(Duration::from_millis(1)),
            nonce: rand::random(),
            holder: request.holder.replace('\n', " "),
        };
        let path = self.keys.writer(&request.object, epoch)?;
        let began = self.requests.parts().clock.now();
        if !self.requests.create(&path, &record.encode()).await? {
            // The answer to the one that made it may have been lost.
            let found = self.requests.get(&Caller::default(), &path, None).await?;
            let found = found.map(|bytes| Record::decode(&bytes)).transpose()?;
            if found.as_ref() != Some(&record) {
                return Ok(None);
            }
        }
        Ok(Some(Guard {
            object: request.object.clone(),
            prefix: request.prefix.clone(),
            below: self.keys.writers(&request.object)?,
            path,
            record,
            request_timeout,
            checks: AtomicU64::new(0),
            checked: Mutex::new(began),
            checking: tokio::sync::Mutex::default(),
            lost: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            released: AtomicBool::new(false),
        }))
    }

    /// Waits until the holder before can write no more, and begins to renew.
    async fn settle(
        self: &Arc<Self>,
        guard: Guard,
        before: Option<Record>,
        spawner: Spawner,
    ) -> Result<Held, LockError> {
        let guard = Arc::new(guard);
        let held = Held {
            guard: Arc::clone(&guard),
            store: Arc::clone(self),
            spawner: spawner.clone(),
        };
        spawner.spawn(Guard::renew(Arc::downgrade(&guard), Arc::clone(self)));
        if let Some(record) = before {
            self.requests.parts().delayer.delay(record.lease).await;
        }
        match guard.check(&self.requests, true).await {
            Err(BackendError::Fenced) => {
                let latest = self.latest_writer(&guard.object).await?;
                let holder = latest.map(|(_, record)| record.holder).unwrap_or_default();
                return Err(LockError::Held { holder });
            }
            checked => checked?,
        }
        self.remove_earlier(&guard).await;
        self.objects.forget(&guard.prefix);
        let mut guards = self.guards.lock();
        guards.retain(|other| other.object != guard.object);
        guards.push(guard);
        drop(guards);
        Ok(held)
    }

    /// Records below our own serve nobody; where they stay, they do no harm.
    async fn remove_earlier(&self, guard: &Guard) {
        let caller = Caller::default();
        let listing = self.requests.list(&caller, &guard.below, None, usize::MAX);
        if let Ok(mut keys) = listing.await {
            keys.retain(|path| *path < guard.path);
            if let Err(error) = self.requests.delete(&caller, &keys).await {
                tracing::debug!(%error, "earlier writers' records stay");
            }
        }
    }
}

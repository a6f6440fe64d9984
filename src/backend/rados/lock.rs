//! The sole right to write: a lock of RADOS with a lease, and the blocklist for whoever had it before.
//!
//! The lock lies on an object of its own in a namespace beside the store's, because taking a lock makes the object. An
//! attribute of it, the *record*, names the holder and its address until the holder gives the lock back. Whoever takes the
//! lock while the record names another, because that one's lease ran out or because the lock was broken, first makes the
//! cluster refuse all that still comes from that address. So a write of an old holder can't land after one of the new
//! holder, however long it was on its way, and nobody compares clocks.

use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cachalot_librados::{Cluster, Errno, Locker, Pool, Taking};
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;

use super::error::{at, backend_error};
use super::store::c_name;
use crate::backend::{HeldLock, LockError, LockRequest, WriterLock};
use crate::error::BackendError;
use crate::types::ObjectName;

/// What the namespace of the locks adds to the store's.
pub(super) const LOCKS: &str = ".cachalot-locks";
const LOCK: &CStr = c"cachalot.writer";
const RECORD: &CStr = c"cachalot.writer";
/// How long the cluster refuses a holder that was taken over from: longer than anything is on its way.
const BLOCKLIST_SECONDS: u32 = 24 * 60 * 60;
/// How often a lock that somebody lost or gave back meanwhile is tried for.
const TRIES_MAX: usize = 16;
/// A lease is renewed so many times before it ends.
const RENEWALS: u32 = 3;

/// The locks of a store.
pub(super) struct Locks {
    cluster: Cluster,
    /// The namespace with the objects that carry locks.
    pool: Arc<Pool>,
    guards: Mutex<Vec<Arc<Guard>>>,
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks").finish_non_exhaustive()
    }
}

/// A lock as this client holds it.
#[derive(Debug)]
struct Guard {
    object: ObjectName,
    prefix: String,
    name: CString,
    /// A number of its own and the holder's words.
    cookie: CString,
    record: Vec<u8>,
    lease: Duration,
    lost: AtomicBool,
}

impl Guard {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

/// The words behind the number in a cookie.
fn holder_of(cookie: &CStr) -> String {
    let cookie = cookie.to_string_lossy();
    let words = cookie.split_once(' ').map(|(_number, words)| words);
    words.unwrap_or("another client").to_owned()
}

/// The address in a record.
fn address_of(record: &[u8]) -> Option<CString> {
    let text = std::str::from_utf8(record).ok()?;
    let (address, _cookie) = text.split_once('\n')?;
    CString::new(address)
        .ok()
        .filter(|address| !address.is_empty())
}

impl Locks {
    pub(super) fn new(cluster: Cluster, pool: Arc<Pool>) -> Self {
        Self {
            cluster,
            pool,
            guards: Mutex::default(),
        }
    }

    /// Lets a change of an object go, unless a lock that covers it was lost.
    pub(super) fn admit(&self, object: &ObjectName) -> Result<(), BackendError> {
        let guards = self.guards.lock();
        let is_fenced = guards
            .iter()
            .any(|guard| object.as_str().starts_with(&guard.prefix) && guard.is_lost());
        if is_fenced {
            return Err(BackendError::Fenced);
        }
        Ok(())
    }

    /// Takes the lock and begins to renew it. Blocks.
    pub(super) fn take(self: &Arc<Self>, request: LockRequest) -> Result<WriterLock, LockError> {
        let words = request.holder.replace(['\n', '\0'], " ");
        let cookie = format!("{:016x} {words}", rand::random::<u64>());
        let ours = self.cluster.addresses().map_err(at("tell the address"))?;
        let cookie = CString::new(cookie).unwrap_or_default();
        let guard = Guard {
            name: c_name(&request.object)?,
            object: request.object,
            prefix: request.prefix,
            record: [ours.as_bytes(), b"\n", cookie.to_bytes()].concat(),
            cookie,
            lease: request.lease.max(Duration::from_secs(1)),
            lost: AtomicBool::new(false),
        };
        self.acquire(&guard, request.breaking)?;
        if let Err(error) = self.settle(&guard, &ours) {
            // The lease ends it otherwise.
            self.pool
                .unlock(&guard.name, LOCK, &guard.cookie)
                .unwrap_or_default();
            return Err(error);
        }
        let guard = Arc::new(guard);
        let mut guards = self.guards.lock();
        guards.retain(|other| other.object != guard.object);
        guards.push(Arc::clone(&guard));
        drop(guards);
        self.hold(guard)
    }

    fn acquire(&self, guard: &Guard, breaking: bool) -> Result<(), LockError> {
        for _ in 0..TRIES_MAX {
            let lock = (LOCK, guard.cookie.as_c_str());
            match self.pool.lock(&guard.name, lock, guard.lease, Taking::New) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY | Errno::EXISTS) => {}
                Err(error) => return Err(backend_error("lock", error).into()),
            }
            let lockers = self.pool.lockers(&guard.name, LOCK);
            let lockers = lockers.map_err(at("look at a lock"))?;
            // Its lease has just ended, or it gave the lock back.
            let Some(holder) = lockers.first() else {
                continue;
            };
            if !breaking {
                return Err(LockError::Held {
                    holder: holder_of(&holder.cookie),
                });
            }
            self.break_for(guard, holder)?;
        }
        Err(LockError::Store(BackendError::Unavailable))
    }

    /// Takes the lock from its holder, who can write no more from then on.
    fn break_for(&self, guard: &Guard, holder: &Locker) -> Result<(), BackendError> {
        let recorded = self.record(&guard.name)?;
        let ours = self.cluster.addresses().map_err(at("tell the address"))?;
        // The record names all of a client's addresses; the lock itself is there before the record is.
        let address = recorded
            .filter(|record| record.ends_with(holder.cookie.to_bytes()))
            .and_then(|record| address_of(&record))
            .unwrap_or_else(|| holder.address.clone());
        if address.to_bytes() != ours.as_bytes() {
            self.blocklist(&address)?;
        }
        match self.pool.break_lock(&guard.name, LOCK, holder) {
            Ok(()) | Err(Errno::NOT_FOUND) => Ok(()),
            Err(error) => Err(backend_error("break a lock", error)),
        }
    }

    fn blocklist(&self, address: &CStr) -> Result<(), BackendError> {
        tracing::warn!(?address, "the cluster is told to refuse an earlier writer");
        let done = self.cluster.blocklist(address, BLOCKLIST_SECONDS);
        done.map_err(at("blocklist an earlier writer"))
    }

    fn record(&self, name: &CStr) -> Result<Option<Vec<u8>>, BackendError> {
        match self.pool.attribute(name, RECORD) {
            Ok(record) => Ok(Some(record).filter(|record| !record.is_empty())),
            Err(Errno::NOT_FOUND | Errno::NO_ATTRIBUTE) => Ok(None),
            Err(error) => Err(backend_error("read a writer's record", error)),
        }
    }

    /// Shuts out whoever the record names, and names us. The lock is ours.
    fn settle(&self, guard: &Guard, ours: &str) -> Result<(), LockError> {
        let before = self.record(&guard.name)?;
        let before = before.and_then(|record| address_of(&record));
        if let Some(address) = before.filter(|address| address.to_bytes() != ours.as_bytes()) {
            self.blocklist(&address)?;
        }
        let named = self.pool.set_attribute(&guard.name, RECORD, &guard.record);
        named.map_err(at("write a writer's record"))?;
        // All of this must have fitted into the lease.
        let lock = (LOCK, guard.cookie.as_c_str());
        match self
            .pool
            .lock(&guard.name, lock, guard.lease, Taking::Again)
        {
            Err(Errno::NOT_FOUND | Errno::BUSY) => Err(BackendError::TimedOut.into()),
            renewed => Ok(renewed.map_err(at("renew a lock"))?),
        }
    }

    /// Starts the thread that renews a lock.
    fn hold(self: &Arc<Self>, guard: Arc<Guard>) -> Result<WriterLock, LockError> {
        let (release, releases) = sync_channel::<Release>(1);
        let (locks, held) = (Arc::downgrade(self), Arc::clone(&guard));
        let renewing = move || renew(&locks, &held, &releases);
        let started = cachalot_librados::spawn("cachalot-rados-lock", renewing);
        started.map_err(|error| BackendError::from_io("start a thread", &error))?;
        Ok(WriterLock::new(Box::new(Held { guard, release })))
    }

    /// Prolongs the lease; takes the lock anew when the lease ran out and nobody else had it since.
    fn renew_once(&self, guard: &Guard) -> Result<(), BackendError> {
        let lock = (LOCK, guard.cookie.as_c_str());
        match self
            .pool
            .lock(&guard.name, lock, guard.lease, Taking::Again)
        {
            Err(Errno::NOT_FOUND | Errno::BUSY | Errno::EXISTS) => {}
            renewed => return renewed.map_err(at("renew a lock")),
        }
        match self.pool.lock(&guard.name, lock, guard.lease, Taking::New) {
            Err(Errno::BUSY) => return Err(BackendError::Fenced),
            taken => taken.map_err(at("renew a lock"))?,
        }
        // Whoever takes the lock from us writes the record before anything else.
        if self.record(&guard.name)?.as_deref() == Some(guard.record.as_slice()) {
            return Ok(());
        }
        self.pool
            .unlock(&guard.name, LOCK, &guard.cookie)
            .unwrap_or_default();
        Err(BackendError::Fenced)
    }

    /// Gives a lock back; one that was lost stays where it is.
    fn give_back(&self, guard: &Guard) -> Result<(), BackendError> {
        self.guards
            .lock()
            .retain(|other| !std::ptr::eq(Arc::as_ptr(other), guard));
        if guard.is_lost() {
            return Ok(());
        }
        // While the lock is ours, so is the record.
        let lock = (LOCK, guard.cookie.as_c_str());
        match self
            .pool
            .lock(&guard.name, lock, guard.lease, Taking::Again)
        {
            Err(Errno::NOT_FOUND | Errno::BUSY) => return Ok(()),
            renewed => renewed.map_err(at("renew a lock"))?,
        }
        let cleared = self.pool.set_attribute(&guard.name, RECORD, b"");
        cleared.map_err(at("clear a writer's record"))?;
        match self.pool.unlock(&guard.name, LOCK, &guard.cookie) {
            Ok(()) | Err(Errno::NOT_FOUND) => Ok(()),
            Err(error) => Err(backend_error("unlock", error)),
        }
    }
}

type Release = oneshot::Sender<Result<(), BackendError>>;

/// Renews a lock until it is given back, dropped or lost.
fn renew(locks: &Weak<Locks>, guard: &Arc<Guard>, releases: &Receiver<Release>) {
    loop {
        let asked = releases.recv_timeout(guard.lease / RENEWALS);
        let Some(locks) = locks.upgrade() else { return };
        match asked {
            Ok(reply) => {
                // Nobody may be left to tell.
                drop(reply.send(locks.give_back(guard)));
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if guard.is_lost() => {}
            Err(RecvTimeoutError::Timeout) => match locks.renew_once(guard) {
                Ok(()) => {}
                Err(BackendError::Fenced) => {
                    guard.lost.store(true, Ordering::Release);
                    tracing::error!(object = %guard.object, "another client has taken over");
                }
                Err(error) => tracing::warn!(%error, object = %guard.object, "can't renew a lock"),
            },
        }
    }
}

/// The lock, as given to who asked for it.
#[derive(Debug)]
struct Held {
    guard: Arc<Guard>,
    release: SyncSender<Release>,
}

impl HeldLock for Held {
    fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<(), BackendError>> {
        let (reply, answer) = oneshot::channel();
        // A thread that is gone has no lock to give back.
        drop(self.release.try_send(reply));
        async { answer.await.unwrap_or(Err(BackendError::Unavailable)) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H-41
    #[test]
    fn cookies_and_records_name_who_holds_a_lock() {
        assert_eq!(holder_of(c"0123 process 7 on host"), "process 7 on host");
        assert_eq!(holder_of(c"strange"), "another client");
        let record = b"127.0.0.1:0/77\n0123 process 7 on host";
        assert_eq!(address_of(record).as_deref(), Some(c"127.0.0.1:0/77"));
        assert_eq!(address_of(b""), None);
        assert_eq!(address_of(b"\ncookie"), None);
    }
}

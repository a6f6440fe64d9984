//! Stores in S3, Google Cloud Storage, Azure, and whatever speaks S3's protocol (feature `object-store`).
//!
//! ```text
//! PREFIX/cachalot-store           the marker: version, and how large blocks are
//!       /head/NAME                one object: its size, and the number of its last truncation
//!       /block/NAME/NUMBER        one block of it; one that holds only zeros has no key
//!       /writer/NAME/EPOCH        who has the sole right to write
//! ```
//!
//! `naming` says how names become keys, `store` in which order requests follow each other, `lock` how writers keep
//! each other out, `requests` what happens when requests fail. `docs/OBJECT-STORES.md` is for those who run one.

mod connector;
mod error;
mod head;
mod listing;
mod lock;
mod naming;
mod objects;
mod requests;
mod store;
mod threads;
mod url;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::object_store::ObjectStore;
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Future, FutureExt, ready};
use parking_lot::Mutex;

pub use self::error::ObjectStoreError;
use self::listing::Query;
use self::naming::Keys;
use self::objects::Objects;
pub use self::requests::ObjectStoreRequests;
use self::requests::{Caller, Parts, Requests};
use self::store::{Store, Target};
use self::threads::{Connect, Place, Spawner, Threads};
pub use self::url::{ObjectStoreKind, ObjectStoreUrl};
use super::{
    Backend, BackendRead, BackendWrite, Capabilities, ListPage, LockError, LockRequest, ObjectStat,
    TimerThread, WriterLock,
};
use crate::clock::SystemClock;
use crate::error::BackendError;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectName, SnapId};

/// Whether a store must be there, or must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectStoreOpen {
    /// It must.
    Existing,
    /// It is made where there is none.
    ExistingOrNew,
    /// It must not, and is made.
    New,
}

/// How an object store is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectStoreOptions {
    /// How large the blocks of a new store are: a power of two from 4 KiB to 16 MiB. Higher costs fewer requests for
    /// large writes and moves more bytes for small ones, lower the reverse. Default: 64 KiB.
    pub block_bytes: u64,
    /// How many requests are under way, or pause before they are repeated. Higher uses more of a fast network, lower
    /// spares the store. Default: 64.
    pub requests_max: usize,
    /// How many blocks of one read or write are under way. Higher stores one object faster, lower leaves more to
    /// others. Default: 16.
    pub blocks_at_once: usize,
    /// How long one request may take. Higher bears slower stores, lower notices earlier that no answer comes.
    /// Default: 15 s.
    pub request_timeout: Duration,
    /// How long a request that fails is repeated. With `request_timeout` on top it should stay below the cache's
    /// `backend_timeout`, after which the cache asks anew. Default: 30 s.
    pub retry_for: Duration,
    /// Of how many objects the size is remembered. Higher saves requests, lower saves memory, some 300 bytes for
    /// each. Default: 65,536.
    pub objects_known_max: usize,
    /// The threads that make requests, each over connections of its own. Default: 2.
    pub threads: usize,
    /// Whether a read that finds nothing else under way is made on the thread that asks, as long as that is within a
    /// current-thread runtime of tokio, which has to be driven until the answer comes: so are the threads of actix, on
    /// which a cache asks. That spares two wake-ups of threads, but lets that thread sign and decrypt. Default: no.
    pub reads_on_caller: bool,
}

impl Default for ObjectStoreOptions {
    fn default() -> Self {
        Self {
            block_bytes: 64 << 10,
            requests_max: 64,
            blocks_at_once: 16,
            request_timeout: Duration::from_secs(15),
            retry_for: Duration::from_secs(30),
            objects_known_max: 1 << 16,
            threads: 2,
            reads_on_caller: false,
        }
    }
}

const MARKER: &str = "cachalot object store\nversion 1\nblock bytes ";

impl ObjectStoreOptions {
    /// Opens the store at an address, with credentials from the environment.
    ///
    /// Blocks until the store has answered, as all that opens a store does.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn open(
        &self,
        url: &ObjectStoreUrl,
        open: ObjectStoreOpen,
    ) -> Result<ObjectStoreBackend, ObjectStoreError> {
        let (address, request_timeout) = (url.clone(), self.request_timeout);
        let connect = move || address.connect(request_timeout);
        let opening = Opening {
            place: url.to_string(),
            must_have: url.block_bytes,
            open,
        };
        self.start(Arc::new(connect), &url.prefix, opening, system_parts())
    }

    /// Opens the store below a prefix of any [`ObjectStore`]. That should repeat no requests by itself and give each
    /// up after `request_timeout`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_over(
        &self,
        client: Arc<dyn ObjectStore>,
        prefix: &str,
        open: ObjectStoreOpen,
    ) -> Result<ObjectStoreBackend, ObjectStoreError> {
        let opening = Opening {
            place: format!("{client}/{prefix}"),
            must_have: None,
            open,
        };
        let connect = move || Ok(Arc::clone(&client));
        self.start(Arc::new(connect), prefix, opening, system_parts())
    }

    fn start(
        &self,
        connect: Arc<Connect>,
        prefix: &str,
        opening: Opening,
        parts: Parts,
    ) -> Result<ObjectStoreBackend, ObjectStoreError> {
        let block_bytes = opening.must_have.unwrap_or(self.block_bytes);
        if !is_block_size(block_bytes) {
            return Err(ObjectStoreError::BadBlockSize { block_bytes });
        }
        let threads = Threads::start(self.threads, self.reads_on_caller, connect)?;
        let Some((spawner, client)) = threads.first() else {
            return Err(BackendError::Unavailable.into());
        };
        let requests = Requests::new(client, self.requests_max, self.retry_for, parts);
        let keys = Keys::new(prefix);
        let (reply, answer) = std::sync::mpsc::channel();
        spawner.spawn(async move {
            let found = opening.look(&requests, &keys, block_bytes).await;
            // Whoever opens waits for it.
            drop(reply.send(found.map(|block_bytes| (requests, keys, block_bytes))));
        });
        let found = answer.recv();
        let (requests, keys, block_bytes) =
            found.map_err(|_gone: std::sync::mpsc::RecvError| BackendError::Unavailable)??;
        let store = Arc::new(Store {
            requests,
            keys,
            objects: Objects::new(self.objects_known_max),
            guards: Mutex::default(),
            block_bytes,
            blocks_at_once: self.blocks_at_once.max(1),
        });
        Ok(ObjectStoreBackend {
            store,
            threads,
            spawner,
            request_timeout: self.request_timeout,
        })
    }
}

fn system_parts() -> Parts {
    Parts {
        clock: Arc::new(SystemClock::new()),
        delayer: Arc::new(TimerThread::new()),
    }
}

/// No block is larger.
const BLOCK_BYTES_MAX: u64 = 16 << 20;

const fn is_block_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && bytes >= 4 << 10 && bytes <= BLOCK_BYTES_MAX
}

/// What is asked of a place where a store may be.
struct Opening {
    place: String,
    must_have: Option<u64>,
    open: ObjectStoreOpen,
}

impl Opening {
    /// Looks for the marker, makes it if need be, and tells how large blocks are.
    async fn look(
        self,
        requests: &Requests,
        keys: &Keys,
        block_bytes: u64,
    ) -> Result<u64, ObjectStoreError> {
        let place = self.place;
        let path = keys.marker()?;
        let caller = Caller::default();
        let mut marker = requests.get(&caller, &path, None).await?;
        match (&marker, self.open) {
            (Some(_), ObjectStoreOpen::New) => {
                return Err(ObjectStoreError::AlreadyExists { place });
            }
            (None, ObjectStoreOpen::Existing) => return Err(ObjectStoreError::NotAStore { place }),
            (None, ObjectStoreOpen::New | ObjectStoreOpen::ExistingOrNew) => {
                let ours = Bytes::from(format!("{MARKER}{block_bytes}\n"));
                if requests.create(&path, &ours).await? {
                    return Ok(block_bytes);
                }
                // Another was faster, or the answer to the first attempt was lost.
                marker = requests.get(&caller, &path, None).await?;
            }
            (Some(_), ObjectStoreOpen::Existing | ObjectStoreOpen::ExistingOrNew) => {}
        }
        let found = marker.as_deref().and_then(|bytes| {
            let rest = std::str::from_utf8(bytes).ok()?.strip_prefix(MARKER)?;
            rest.strip_suffix('\n')?.parse().ok()
        });
        match (found, self.must_have) {
            (Some(found), Some(asked)) if found != asked => {
                Err(ObjectStoreError::OtherBlockSize { found, asked })
            }
            (Some(found), _) if is_block_size(found) => Ok(found),
            _ => Err(ObjectStoreError::UnknownVersion { place }),
        }
    }
}

/// A [`Backend`] that keeps each object as blocks in an object store.
///
/// Changes of one object follow each other; reads wait for nothing. Requests run on threads of the backend's own: a
/// write that is given up while it runs ends before any later change of its object begins, and one that has not
/// begun never does. Dropping the backend gives up what is under way.
#[derive(Debug)]
pub struct ObjectStoreBackend {
    store: Arc<Store>,
    threads: Threads,
    spawner: Spawner,
    request_timeout: Duration,
}

/// Marks a caller as gone when its future is dropped.
struct Presence(Arc<AtomicBool>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl ObjectStoreBackend {
    /// What was asked of the store so far.
    #[must_use]
    pub fn requests(&self) -> ObjectStoreRequests {
        self.store.requests.counts()
    }

    /// How large this store's blocks are.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.store.block_bytes
    }

    /// Starts an operation at a place; without one, the backend has ended.
    fn run<T, F>(
        &self,
        place: Option<Place>,
        operation: impl FnOnce(Arc<Store>, Caller) -> F,
        guarding: Option<&ObjectName>,
    ) -> BoxFuture<'static, Result<T, BackendError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let Some(place) = place else {
            return ready(Err(BackendError::Unavailable)).boxed();
        };
        let gone = Arc::new(AtomicBool::new(false));
        let presence = Presence(Arc::clone(&gone));
        let guards = guarding.map_or_else(Vec::new, |name| self.store.guards_of(name));
        let caller = Caller::new(gone, guards, Arc::clone(&place.client));
        let operation = operation(Arc::clone(&self.store), caller);
        let (reply, answer) = oneshot::channel();
        place.spawn(operation, reply);
        async move {
            let answer = answer.await.unwrap_or(Err(BackendError::Unavailable));
            drop(presence);
            answer
        }
        .boxed()
    }

    /// Starts an operation that changes an object.
    fn change<F>(
        &self,
        name: ObjectName,
        operation: impl FnOnce(Arc<Store>, Target) -> F,
    ) -> BoxFuture<'static, Result<(), BackendError>>
    where
        F: Future<Output = Result<(), BackendError>> + Send + 'static,
    {
        let guarded = name.clone();
        self.run(
            self.threads.for_change(),
            |store, caller| {
                let target = store.target(name, caller);
                operation(store, target)
            },
            Some(&guarded),
        )
    }
}

fn unsupported<T: Send + 'static>(
    operation: &'static str,
) -> BoxFuture<'static, Result<T, BackendError>> {
    ready(Err(BackendError::Unsupported { operation })).boxed()
}

impl Backend for ObjectStoreBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            scattered_writes: true,
            write_granularity: u32::try_from(self.store.block_bytes).unwrap_or(1),
            ..Capabilities::default()
        }
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        if read.snap != SnapId::HEAD {
            return unsupported("reads of snapshots");
        }
        self.run(
            self.threads.for_read(),
            |store, caller| {
                let target = store.target(read.object.clone(), caller);
                async move { store.read(&target, &read).await }
            },
            None,
        )
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        if !write.context.snaps.is_empty() {
            return unsupported("writes under snapshots");
        }
        if let Err(error) = self.capabilities().admit(&write) {
            return ready(Err(error)).boxed();
        }
        self.change(write.object.clone(), |store, target| async move {
            store.write(&target, &write).await
        })
    }

    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.change(object, move |store, target| async move {
            store.discard(&target, range).await
        })
    }

    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        if size_bytes > OFFSET_BYTES_MAX {
            return unsupported("sizes past the last offset");
        }
        self.change(object, move |store, target| async move {
            store.truncate(&target, size_bytes).await
        })
    }

    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        self.change(object, |store, target| async move {
            store.remove(&target).await
        })
    }

    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        self.run(
            self.threads.for_read(),
            |store, caller| {
                let target = store.target(object, caller);
                async move { store.stat(&target).await }
            },
            None,
        )
    }

    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        let query = Query {
            prefix,
            after,
            names_max,
        };
        self.run(
            self.threads.for_change(),
            |store, caller| async move { store.list(&caller, &query).await },
            None,
        )
    }

    /// What a store has acknowledged, it keeps: there is nothing to do.
    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        ready(Ok(())).boxed()
    }

    /// Asks for the lock of `request.object`: see `docs/OBJECT-STORES.md` for what it keeps others from.
    fn lock(&self, request: LockRequest) -> BoxFuture<'static, Result<WriterLock, LockError>> {
        let (reply, answer) = oneshot::channel();
        let (store, spawner) = (Arc::clone(&self.store), self.spawner.clone());
        let request_timeout = self.request_timeout;
        self.spawner.spawn(async move {
            let locked = store.lock(request, request_timeout, spawner).await;
            // A lock that nobody receives is dropped, and goes with its lease.
            drop(reply.send(locked.map(|held| WriterLock::new(Box::new(held)))));
        });
        async {
            answer
                .await
                .unwrap_or(Err(LockError::Store(BackendError::Unavailable)))
        }
        .boxed()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

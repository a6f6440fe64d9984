//! Stores in pools of a Ceph cluster (feature `rados`).
//!
//! An object of the cache is a RADOS object of the same name. What librados does lies in the crate `cachalot-librados`;
//! here is what the contract's operations are in its terms: `store` for objects, `pools` for snapshots, `lock` for
//! writers that keep each other out. `docs/RADOS.md` is for those who run one.

mod error;
mod helper;
mod lock;
mod pools;
mod store;
mod url;

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachalot_librados::{Cluster, ConnectOptions, Errno, Pool, Read};
use futures::future::{BoxFuture, FutureExt, ready};

pub use self::error::RadosError;
use self::error::{at, backend_error};
use self::helper::on_a_thread;
use self::lock::{LOCKS, Locks};
use self::pools::Pools;
use self::store::{Query, Reading, Writing, c_name};
pub use self::url::RadosUrl;
use super::{
    Backend, BackendRead, BackendWrite, Capabilities, ListPage, LockError, LockRequest, ObjectStat,
    WriterLock,
};
use crate::error::BackendError;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectName, SnapContext};

/// How a cluster is used, where its `ceph.conf` leaves that open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RadosOptions {
    /// How long connecting may take. Higher bears slower monitors, lower notices earlier that there are none.
    /// Default: 30 s.
    pub connect_timeout: Duration,
    /// After how long an operation without an answer is given up, where `rados_osd_op_timeout` is not set. Until then
    /// it is sent again whenever the cluster changes. It should be above the cache's `backend_timeout`, after which the
    /// cache asks anew, and above `objecter_timeout`. Higher keeps more of an outage's operations in memory,
    /// lower gives up what the cluster would have done. Default: 120 s.
    pub operation_timeout: Duration,
}

impl Default for RadosOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(120),
        }
    }
}

impl RadosOptions {
    /// Opens the store at an address. Blocks until the cluster has answered.
    ///
    /// # Errors
    /// What keeps it from being opened: no librados, no cluster, no such pool.
    pub fn open(&self, url: &RadosUrl) -> Result<RadosBackend, RadosError> {
        let seconds = |time: Duration| time.as_secs().max(1).to_string();
        let replaced =
            |name: &str, default: &str, new: String| (name.to_owned(), default.to_owned(), new);
        let connect = ConnectOptions {
            conf: url.conf.clone(),
            id: url.id.clone(),
            // The cache bounds what is under way; these bounds would block its threads.
            set: ["objecter_inflight_ops", "objecter_inflight_op_bytes"]
                .map(|name| (name.to_owned(), "0".to_owned()))
                .to_vec(),
            replace: vec![
                // The client asks for news of the cluster when an operation takes so long: with Ceph's 10 s and 5 s it
                // notices some 12 s late that a restarted OSD serves again.
                replaced("objecter_timeout", "10.000000", "3".to_owned()),
                replaced("objecter_tick_interval", "5.000000", "1".to_owned()),
                replaced("client_mount_timeout", "300", seconds(self.connect_timeout)),
                replaced("rados_osd_op_timeout", "0", seconds(self.operation_timeout)),
                replaced("rados_mon_op_timeout", "0", seconds(self.connect_timeout)),
            ],
        };
        let cluster = Cluster::connect(&connect)?;
        let text = |text: &str| {
            CString::new(text).map_err(|_nul| RadosError::BadUrl {
                what: "it holds a NUL".to_owned(),
            })
        };
        let pools = Pools::open(cluster, text(&url.pool)?, text(&url.namespace)?);
        let pools = pools.map_err(|errno| match errno {
            Errno::NOT_FOUND => RadosError::NoPool {
                pool: url.pool.clone(),
            },
            other => backend_error("open the pool", other).into(),
        })?;
        let locks = pools.beside(text(&format!("{}{LOCKS}", url.namespace))?);
        let locks = locks.map_err(at("open the pool"))?;
        Ok(RadosBackend {
            locks: Arc::new(Locks::new(pools.cluster().clone(), locks)),
            pools: Arc::new(pools),
        })
    }
}

/// A [`Backend`] in a pool of a Ceph cluster.
///
/// A write is one operation of RADOS, so it is stored whole or not at all, and what is acknowledged is durable. Callbacks
/// of librados complete the futures; only listings, locks and snapshots take a thread while they run. An operation whose
/// future is dropped goes on, and comes before whatever is asked of its object later.
///
/// Snapshots are those that the pool's clients manage: [`Self::create_snapshot`] gives a number, which belongs into the
/// contexts of all writes from then on. A pool that has snapshots of its own can't have these.
///
/// A client that another one has blocklisted gets [`BackendError::Fenced`] for good; a new one can be opened.
pub struct RadosBackend {
    pools: Arc<Pools>,
    locks: Arc<Locks>,
}

impl fmt::Debug for RadosBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RadosBackend")
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}

fn failed<T: Send + 'static>(error: BackendError) -> BoxFuture<'static, Result<T, BackendError>> {
    ready(Err(error)).boxed()
}

impl RadosBackend {
    /// Takes a snapshot's number. It holds what is written before a write first carries it in its context.
    ///
    /// # Errors
    /// Any; `EINVAL` where the pool has snapshots of its own.
    pub fn create_snapshot(&self) -> BoxFuture<'static, Result<u64, BackendError>> {
        let pool = Arc::clone(self.pools.plain());
        on_a_thread(move || pool.create_snapshot().map_err(at("create a snapshot")))
    }

    /// Gives a snapshot up. No context may hold it any more.
    ///
    /// # Errors
    /// Any.
    pub fn remove_snapshot(&self, number: u64) -> BoxFuture<'static, Result<(), BackendError>> {
        let pool = Arc::clone(self.pools.plain());
        on_a_thread(move || {
            pool.remove_snapshot(number)
                .map_err(at("remove a snapshot"))
        })
    }

    /// Makes an object's head what it was at a snapshot, absent if it was absent, as a write under `context` would. The
    /// cache must hold nothing of the object.
    ///
    /// # Errors
    /// Any; the call may be repeated.
    pub fn roll_back(
        &self,
        object: &ObjectName,
        number: u64,
        context: &SnapContext,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        let name = c_name(object);
        let pool = self.pools.under(context).map_err(at("roll back"));
        on_a_thread(move || pool?.roll_back(&name?, number).map_err(at("roll back")))
    }

    /// Starts a change of an object's head that is no write.
    fn change<F>(
        &self,
        object: &ObjectName,
        start: impl FnOnce(Arc<Pool>, CString) -> F,
    ) -> BoxFuture<'static, Result<(), BackendError>>
    where
        F: Future<Output = Result<(), BackendError>> + Send + 'static,
    {
        let name = self.locks.admit(object).and_then(|()| c_name(object));
        match name {
            Ok(name) => start(Arc::clone(self.pools.plain()), name).boxed(),
            Err(error) => failed(error),
        }
    }
}

impl Backend for RadosBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            scattered_writes: true,
            atomic_writes: true,
            // A write that cuts the object looks at it first, and others may pass it meanwhile.
            ordered_writes: false,
            snapshots: true,
            keepable_reads: true,
            write_bytes_max: 16 << 20,
            write_pieces_max: 1024,
            write_granularity: 4096,
        }
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        let pool = self.pools.at(read.snap).map_err(at("read"));
        let name = c_name(&read.object);
        match (pool, name) {
            (Ok(pool), Ok(name)) => {
                let reading = Reading { pool, name, read };
                let begun = reading.begin();
                reading.run(begun).boxed()
            }
            (Err(error), _) | (_, Err(error)) => failed(error),
        }
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        let admitted = self.capabilities().admit(&write);
        let admitted = admitted.and_then(|()| self.locks.admit(&write.object));
        let pool = self.pools.under(&write.context).map_err(at("write"));
        let name = c_name(&write.object);
        match (admitted, pool, name) {
            (Ok(()), Ok(pool), Ok(name)) => {
                let writing = Writing { pool, name, write };
                let begun = writing.begin();
                writing.run(begun).boxed()
            }
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => failed(error),
        }
    }

    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.change(&object, |pool, name| store::discard(pool, name, range))
    }

    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        if size_bytes > OFFSET_BYTES_MAX {
            return failed(BackendError::Unsupported {
                operation: "sizes past the last offset",
            });
        }
        self.change(&object, |pool, name| {
            let mut change = pool.change();
            change.truncate(size_bytes);
            let begun = pool.write(&name, change, None);
            async { begun.await.map_err(at("truncate")) }
        })
    }

    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        self.change(&object, |pool, name| {
            let mut change = pool.change();
            change.remove();
            let begun = pool.write(&name, change, None);
            async { begun.await.map_err(at("remove")) }
        })
    }

    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        let name = match c_name(&object) {
            Ok(name) => name,
            Err(error) => return failed(error),
        };
        let look = Read {
            stat: true,
            ..Read::default()
        };
        let begun = self.pools.plain().read(&name, &look);
        async {
            let found = begun.await.map_err(at("stat"))?;
            Ok(ObjectStat {
                size_bytes: found.size_bytes,
            })
        }
        .boxed()
    }

    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        let pool = Arc::clone(self.pools.plain());
        let query = Query {
            prefix,
            after,
            names_max,
        };
        on_a_thread(move || store::list(&pool, query))
    }

    /// What the cluster has acknowledged, it keeps: there is nothing to do.
    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        ready(Ok(())).boxed()
    }

    /// Asks for the lock of `request.object`: see `docs/RADOS.md` for what it keeps others from.
    fn lock(&self, request: LockRequest) -> BoxFuture<'static, Result<WriterLock, LockError>> {
        let locks = Arc::clone(&self.locks);
        on_a_thread(move || locks.take(request))
    }
}

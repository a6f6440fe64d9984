//! librados for cachalot: the few calls that a store of objects needs, safe to use.
//!
//! `librados.so.2` is loaded when the first cluster is connected and stays loaded; without it, connecting is an ordinary
//! error. This is the one crate of the workspace that holds `unsafe` code. What makes it sound:
//!
//! - An operation under way owns every byte that librados reads or fills, and ends when its callback has run, whatever
//!   became of the future that waits for it.
//! - A [`Pool`] never changes once it is made: namespace, snapshot to read and snapshots to write under are set before
//!   anybody can use it. Each combination is a pool of its own.
//! - A cluster is shut down by a thread of its own when its last pool and operation are gone, never inside a callback.
//! - A process that ends while a cluster is connected skips the destructors of the C++ libraries, which would race
//!   with librados' threads; one that ends later waits for the threads of [`spawn`].

mod cluster;
mod error;
mod exit;
mod library;
mod operation;
mod pool;
mod threads;

pub use self::cluster::{Cluster, ConnectOptions};
pub use self::error::{ConnectError, Errno};
pub use self::operation::{Compare, Pending, Read, ReadAnswer, When, Write};
pub use self::pool::{Locker, Pool, PoolView, RENEW_HELD, Taking};
pub use self::threads::spawn;

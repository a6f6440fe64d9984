//! Stores under the cache: the contract every one of them keeps, and those that come with the library.
//!
//! # The contract
//! An object is a named string of bytes that may have holes; holes and everything past its end read as zeros.
//! - **Absence.** Reading an absent object gives [`BackendError::NotFound`]; reading past the end of one that
//!   exists gives a short, perhaps empty, answer. The first write creates the object.
//! - **Storing.** `Ok` from [`Backend::write`] means that the bytes survive a crash of this process; after
//!   [`Backend::sync`] they survive a loss of power. After `Err` none, some or all of them may be stored: the
//!   cache sends them again, so storing twice must equal storing once.
//! - **Order.** The cache never has two writes of one byte in flight together, so a backend need not order
//!   them. A write that was *given up*, because its future was dropped or answered
//!   [`BackendError::TimedOut`], may still be stored, but never after a later write of the same object.
//! - **Memory.** A returned `Bytes` owns about as much memory as it is long: a backend does not hand out small
//!   slices of large buffers.
//! - **No blocking.** A method returns its future at once; the future may be polled on any thread.
//!
//! `contract` (feature `testkit`) checks all of this on any implementation.

#[cfg(any(test, feature = "testkit"))]
pub mod contract;
mod counting;
mod delay;
mod faulty;
mod file;
#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(all(fuzzing, not(test)))]
pub(crate) mod fuzz;
mod lock;
mod memory;
#[cfg(feature = "object-store")]
mod object_store;
mod operation;
#[cfg(any(feature = "object-store", feature = "rados"))]
mod query;
#[cfg(feature = "rados")]
mod rados;
mod throttled;

pub use counting::{CountingBackend, OperationCount, OperationCounts};
pub use delay::{Delayer, TimerThread};
pub use faulty::{
    FaultControl, FaultCounts, FaultPlan, FaultyBackend, FaultyBuilder, Gate, HeldOperation,
    NotHeld, StoreCondition,
};
pub use file::{FileBackend, FileStoreError, FileStoreOptions};
pub use lock::{HeldLock, LockError, LockRequest, WriterLock};
pub use memory::{MemoryBackend, MemoryBuilder};
#[cfg(feature = "object-store")]
pub use object_store::{
    ObjectStoreBackend, ObjectStoreError, ObjectStoreKind, ObjectStoreOpen, ObjectStoreOptions,
    ObjectStoreRequests, ObjectStoreUrl,
};
pub use operation::{Answer, AnswerFuture, Decorator, Operation, OperationKind};
#[cfg(feature = "rados")]
pub use rados::{RadosBackend, RadosError, RadosOptions, RadosUrl};
pub use throttled::{Throttle, ThrottledBackend};

pub use crate::io::{
    BackendRead, BackendWrite, Capabilities, JournalNotice, ListPage, ObjectStat, WriteRun,
};

use std::fmt;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::BackendError;
use crate::types::{ByteRange, ObjectName, SnapId};

/// A store of named objects. See the [module](self) for what it promises.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// What this store can do. Constant over its life.
    fn capabilities(&self) -> Capabilities;

    /// Reads a range of an object.
    ///
    /// The answer is at most as long as asked; what is missing at its end is zeros.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] for an absent object or snapshot.
    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>>;

    /// Stores the runs of a write, creating or growing the object where needed.
    ///
    /// # Errors
    /// Any; the same write may be sent again.
    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>>;

    /// Makes a range read as zeros and frees its room where the store can; never grows the object.
    ///
    /// An absent object stays absent and is no error.
    ///
    /// # Errors
    /// Any; the call may be repeated.
    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>>;

    /// Cuts or grows an object to a size; what is grown is zeros. An absent object stays absent and is no error.
    ///
    /// # Errors
    /// Any; the call may be repeated.
    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>>;

    /// Removes an object.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is absent already.
    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>>;

    /// Tells an object's size.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when it is absent.
    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>>;

    /// Lists up to `names_max` names that start with `prefix` and come after `after`, ascending.
    ///
    /// # Errors
    /// Any.
    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>>;

    /// Resolves when everything stored before the call survives a loss of power.
    ///
    /// # Errors
    /// Any; then nothing is known of what was stored since the last success.
    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>>;

    /// Asks for the sole right to write some objects. While it is held, other clients are refused; once it is lost,
    /// this client's writes of those objects are answered [`BackendError::Fenced`].
    ///
    /// A store that has one client at a time gives it at once, which is what this does by itself.
    ///
    /// # Errors
    /// [`LockError::Held`] when another client has it and it was not to be broken; [`LockError::Store`].
    ///
    /// # Cancel safety
    /// A lock that was taken and not received goes with its lease.
    fn lock(&self, request: LockRequest) -> BoxFuture<'static, Result<WriterLock, LockError>> {
        drop(request);
        std::future::ready(Ok(WriterLock::not_needed())).boxed()
    }

    /// Whether a write to this range may first copy the object from a parent (as a cloned image does), so that
    /// an object thought absent may hold more than was written.
    fn may_copy_on_write(&self, object: &ObjectName, range: ByteRange, snap: SnapId) -> bool {
        let (_, _, _) = (object, range, snap);
        false
    }

    /// Tells a journal what became of its entries' bytes. Called in the order in which things happened to each
    /// object, from any thread; must not block.
    fn journal(&self, notice: JournalNotice) {
        drop(notice);
    }
}

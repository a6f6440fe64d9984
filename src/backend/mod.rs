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
mod memory;
mod operation;
mod throttled;

pub use counting::{CountingBackend, OperationCount, OperationCounts};
pub use delay::{Delayer, TimerThread};
pub use faulty::{
    FaultControl, FaultCounts, FaultPlan, FaultyBackend, FaultyBuilder, Gate, HeldOperation,
    NotHeld, StoreCondition,
};
pub use file::{FileBackend, FileStoreError, FileStoreOptions};
pub use memory::{MemoryBackend, MemoryBuilder};
pub use operation::{Answer, AnswerFuture, Decorator, Operation, OperationKind};
pub use throttled::{Throttle, ThrottledBackend};

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::error::BackendError;
use crate::types::{
    ByteRange, Hints, JournalTid, ObjectName, SnapContext, SnapId, Timestamp, Truncation,
};

/// What a backend promises beyond the contract. The cache adapts, and assumes nothing that is not set here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// One [`BackendWrite`] may hold several runs that do not touch.
    pub scattered_writes: bool,
    /// A write is stored whole or not at all, even over a crash.
    pub atomic_writes: bool,
    /// Writes of one object are stored in the order in which they were started.
    pub ordered_writes: bool,
    /// Snapshot contexts are kept and snapshots can be read.
    pub snapshots: bool,
    /// The largest write in bytes.
    pub write_bytes_max: u64,
    /// The most pieces (runs of a write, and buffers in them) that one write may hold.
    pub write_pieces_max: usize,
    /// Writes aligned to this many bytes are cheaper than others; a power of two.
    pub write_granularity: u32,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            scattered_writes: false,
            atomic_writes: false,
            ordered_writes: false,
            snapshots: false,
            write_bytes_max: 4 << 20,
            write_pieces_max: 1024,
            write_granularity: 1,
        }
    }
}

/// One ranged read of one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendRead {
    /// The object.
    pub object: ObjectName,
    /// Which of its snapshots, or its head.
    pub snap: SnapId,
    /// The bytes wanted.
    pub range: ByteRange,
    /// What the caller knows about their use.
    pub hints: Hints,
    /// Bytes past its size that are older than its number read as zeros (rule R-17).
    pub truncation: Truncation,
}

/// One run of touching bytes within a [`BackendWrite`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteRun {
    /// Where in the object the run starts, in bytes.
    pub offset: u64,
    /// Its bytes, in order, in at least one buffer; no buffer is empty.
    pub buffers: Vec<Bytes>,
    /// The journal entry that already holds the run, if any.
    pub journal_tid: Option<JournalTid>,
}

impl WriteRun {
    /// The length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.len() as u64).sum()
    }
}

/// One write of one object's head: one run, or several with [`Capabilities::scattered_writes`], ascending and
/// without overlap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendWrite {
    /// The object.
    pub object: ObjectName,
    /// The runs, ascending, at least one.
    pub runs: Vec<WriteRun>,
    /// Under which snapshots the data was written.
    pub context: SnapContext,
    /// When the data was last modified.
    pub modified: Timestamp,
    /// If newer than the object's own, the object is first cut to its size (rule R-17).
    pub truncation: Truncation,
}

impl BackendWrite {
    /// The bytes of all runs.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.runs.iter().map(WriteRun::len_bytes).sum()
    }
}

/// What a backend knows about an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectStat {
    /// One past the last byte ever written, or as truncated.
    pub size_bytes: u64,
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// Names in ascending byte order.
    pub names: Vec<ObjectName>,
    /// Whether names follow these.
    pub more: bool,
}

/// What becomes of bytes that a journal entry holds (rules J-01 and J-02).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalNotice {
    /// The bytes are in the store: the entry no longer needs to hold them.
    Committed {
        /// The object.
        object: ObjectName,
        /// Where.
        range: ByteRange,
        /// The entry.
        tid: JournalTid,
    },
    /// The bytes will never be written back: a newer write, a discard, purge or truncate took their place.
    Overwritten {
        /// The object.
        object: ObjectName,
        /// Where.
        range: ByteRange,
        /// The entry that held them.
        old: JournalTid,
        /// The entry that holds what took their place, if one does.
        new: Option<JournalTid>,
    },
}

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

//! What crosses between the engine and a store: requests, answers and promises, as plain values.
//!
//! The engine and the backends speak through these types and never name each other. Users find them in
//! [`backend`](crate::backend).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
    /// What [`Backend::read`](crate::backend::Backend::read) gives may be kept as it is for as long as its bytes are
    /// cached: it owns about as much memory as it is long, or shares memory that the store keeps anyway, and nobody
    /// changes it. Without this promise the cache copies what it can't see to be the only holder of.
    pub keepable_reads: bool,
    /// The largest write in bytes. Below 256 KiB, a part of the cache is kept for the entries that large buffers are split
    /// into to be stored: 0.2 % for 64 KiB, 3 % for 4 KiB.
    pub write_bytes_max: u64,
    /// The most buffers that one write may hold, over all its runs.
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
            keepable_reads: false,
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

//! What the engine stands on: where windows are kept, and the books that several sets share.

use std::fmt;
use std::ops::DerefMut;

use serde::{Deserialize, Serialize};

use super::object::WindowKey;
use super::window::{Charge, Totals, Window};
use crate::types::{ByteRange, ObjectName, SnapId};

/// Lends the engine its windows, which callers may enter through the door at the same time, and keeps its books.
///
/// Locks of several windows of an object are taken in ascending order; no other lock is held with them but the
/// short ones inside these methods.
pub(crate) trait Shelf: fmt::Debug {
    /// A window's place.
    type Slot: Clone + fmt::Debug;
    /// A window, locked.
    type Guard<'a>: DerefMut<Target = Window>
    where
        Self: 'a;

    /// The window of this name, made when there is none.
    fn open(&self, key: &WindowKey) -> Self::Slot;
    /// Takes a window off the shelf; the caller holds its lock and has marked it closed.
    fn close(&self, key: &WindowKey);
    /// Locks a window.
    fn lock<'a>(slot: &'a Self::Slot) -> Self::Guard<'a>
    where
        Self: 'a;
    /// The windows that callers made dirty since the last call.
    fn take_listed(&self) -> Vec<WindowKey>;
    /// The windows in which callers marked something as not needed since the last call.
    fn take_cooled(&self) -> Vec<WindowKey>;
    /// The flush epoch that writes enter under.
    fn epoch(&self) -> u64;
    /// Ends the flush epoch and returns it: what is acknowledged later belongs to the next.
    fn end_epoch(&self) -> u64;
    /// Reserves room now, unless there is none or others wait for it.
    fn take_room(&self, charge: Charge) -> bool;
    /// Takes room above the limit: for bookkeeping that can't wait.
    fn force_room(&self, charge: Charge);
    /// Returns room.
    fn give_room(&self, charge: Charge);
    /// Adds to the gauges.
    fn add_totals(&self, change: &Totals);
    /// The bytes of the gauges that are dirty or in flight to the store.
    fn unsaved_bytes(&self) -> u64;
    /// Adds to the number of objects.
    fn add_objects(&self, change: i64);
    /// Adds to a counter.
    fn count(&self, counter: Counter, by: u64);
    /// What the store says of copies from a parent.
    fn may_copy_on_write(&self, object: &ObjectName, range: ByteRange, snap: SnapId) -> bool;
}

/// The counters of a set (rule L-04).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// Reads served from memory.
    ReadOpsHit,
    /// Reads that had to wait for the store.
    ReadOpsMissed,
    /// Bytes of reads that were in memory when they were asked for.
    ReadBytesHit,
    /// Bytes of reads that were not.
    ReadBytesMissed,
    /// Bytes asked for by reads.
    ReadBytes,
    /// Writes accepted.
    WriteOps,
    /// Bytes accepted from writes.
    WriteBytes,
    /// Bytes written over while on their way to the store.
    OverwrittenWhileFlushingBytes,
    /// Writes that had to wait for room.
    BlockedWriteOps,
    /// Bytes of such writes.
    BlockedWriteBytes,
    /// The time that such writes waited, in nanoseconds.
    BlockedWriteNanos,
    /// Fetches from the store.
    FetchOps,
    /// Bytes asked for by fetches.
    FetchBytes,
    /// Fetches that failed.
    FetchErrors,
    /// Writebacks to the store.
    WriteBackOps,
    /// Bytes sent by writebacks.
    WriteBackBytes,
    /// Writebacks that failed.
    WriteBackErrors,
    /// Clean bytes that gave way to others.
    EvictedBytes,
}

impl Counter {
    /// The number of counters.
    pub(crate) const COUNT: usize = Self::EvictedBytes as usize + 1;
}

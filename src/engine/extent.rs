//! One cached byte range of one object, and the state that it is in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use super::window::Span;
use crate::buf::Slab;
use crate::error::BackendError;
use crate::types::{JournalTid, Moment, Timestamp};

/// The tid of a fetch or writeback: grows with each one of a set.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct OpId(pub(crate) u64);

/// What is known of bytes that were written here and are not yet in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    /// Since when bytes of this extent have been dirty; an overwrite keeps the older moment.
    pub(crate) since: Moment,
    /// The latest modification time.
    pub(crate) modified: Timestamp,
    /// The flush epoch of the oldest write; a flush waits for all epochs up to its own.
    pub(crate) epoch: u64,
    /// The number of the snapshot context.
    pub(crate) context: u64,
    /// The journal entry that holds the bytes.
    pub(crate) journal: Option<JournalTid>,
}

/// The state of an extent. The table of transitions is in the [engine's documentation](crate::engine).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ExtentState {
    /// As in the store.
    Clean,
    /// Known zeros; no bytes are stored.
    Zero,
    /// Newer than the store.
    Dirty(Written),
    /// A fetch is under way.
    Rx { op: OpId },
    /// A writeback is under way.
    Tx { op: OpId, written: Written },
    /// The last fetch failed.
    Error(BackendError),
}

/// The states without what they carry; indexes [`Totals`](super::Totals).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BufferState {
    /// As in the store.
    Clean,
    /// Known zeros; no bytes are stored.
    Zero,
    /// Newer than the store.
    Dirty,
    /// A fetch is under way.
    Rx,
    /// A writeback is under way.
    Tx,
    /// The last fetch failed.
    Error,
}

impl BufferState {
    /// All states, in the order of their indexes.
    pub const ALL: [Self; 6] = [
        Self::Clean,
        Self::Zero,
        Self::Dirty,
        Self::Rx,
        Self::Tx,
        Self::Error,
    ];
}

impl ExtentState {
    pub(crate) const fn kind(&self) -> BufferState {
        match self {
            Self::Clean => BufferState::Clean,
            Self::Zero => BufferState::Zero,
            Self::Dirty(_) => BufferState::Dirty,
            Self::Rx { .. } => BufferState::Rx,
            Self::Tx { .. } => BufferState::Tx,
            Self::Error(_) => BufferState::Error,
        }
    }

    /// What is not yet in the store, if the extent holds such.
    pub(crate) const fn written(&self) -> Option<&Written> {
        match self {
            Self::Dirty(written) | Self::Tx { written, .. } => Some(written),
            Self::Clean | Self::Zero | Self::Rx { .. } | Self::Error(_) => None,
        }
    }

    /// Whether a journal entry holds the bytes.
    pub(crate) fn is_journaled(&self) -> bool {
        self.written()
            .is_some_and(|written| written.journal.is_some())
    }

    /// Whether the extent may go at any time: its bytes are in the store, or there are none.
    pub(crate) const fn is_droppable(&self) -> bool {
        matches!(self, Self::Clean | Self::Zero | Self::Error(_))
    }
}

/// The recency mark: set by every access, cleared by the eviction scan. The engine's one atomic, since hits set
/// it under a shared lock. It carries no other data, so relaxed order is enough.
#[derive(Debug, Default)]
pub(crate) struct Mark(AtomicU8);

impl Mark {
    /// Accessed since the last scan.
    const HOT: u8 = 1;
    /// First to go, until a plain access.
    const DONT_NEED: u8 = 2;
    /// First to go once clean, and not promoted by accesses that say the same.
    const NO_CACHE: u8 = 4;

    /// A plain access: promotes, and clears the hints of earlier ones.
    pub(crate) fn touch(&self) {
        if self.0.load(Ordering::Relaxed) != Self::HOT {
            self.0.store(Self::HOT, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_dont_need(&self) {
        self.0.store(Self::DONT_NEED, Ordering::Relaxed);
    }

    pub(crate) fn set_no_cache(&self) {
        self.0.store(Self::NO_CACHE, Ordering::Relaxed);
    }

    /// Clears the mark of an access and tells whether it was set.
    pub(crate) fn cool(&self) -> bool {
        let bits = self.0.load(Ordering::Relaxed);
        self.0.store(bits & !Self::HOT, Ordering::Relaxed);
        bits & Self::HOT != 0
    }

    pub(crate) fn is_first_to_go(&self) -> bool {
        self.0.load(Ordering::Relaxed) & (Self::DONT_NEED | Self::NO_CACHE) != 0
    }

    /// The mark of two extents that become one: hot if either is, first to go only if both are.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let (a, b) = (
            self.0.load(Ordering::Relaxed),
            other.0.load(Ordering::Relaxed),
        );
        let hot = (a | b) & Self::HOT;
        let hints = a & b & (Self::DONT_NEED | Self::NO_CACHE);
        Self(AtomicU8::new(hot | hints))
    }
}

impl Clone for Mark {
    fn clone(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

/// One cached byte range, without its state: what a hit needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Where its bytes are; none for states without bytes. Whoever has bytes is readable.
    pub(crate) slab: Option<Arc<Slab>>,
    /// Where in its window it starts.
    pub(crate) start: u32,
    /// Length in bytes, above zero.
    pub(crate) len: u32,
    /// Where in the slab its bytes start.
    pub(crate) at: u32,
    /// The eviction queue's number for it; 0 when it is in no queue.
    pub(crate) stamp: u32,
    pub(crate) mark: Mark,
}

impl Extent {
    /// An extent that holds no bytes.
    pub(crate) fn without_bytes(start: u32, len: u32) -> Self {
        Self {
            slab: None,
            start,
            len,
            at: 0,
            stamp: 0,
            mark: Mark::default(),
        }
    }

    pub(crate) const fn end(&self) -> u32 {
        self.start.saturating_add(self.len)
    }

    pub(crate) const fn span(&self) -> Span {
        Span {
            start: self.start,
            end: self.end(),
        }
    }

    /// Whether its bytes are in this slab.
    pub(crate) fn is_in(&self, slab: &Arc<Slab>) -> bool {
        self.slab.as_ref().is_some_and(|own| Arc::ptr_eq(own, slab))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[test]
    fn a_plain_access_clears_both_hints() {
        let mark = Mark::default();
        mark.set_dont_need();
        assert!(mark.is_first_to_go());
        mark.touch();
        assert!(!mark.is_first_to_go() && mark.cool() && !mark.cool());
        mark.set_no_cache();
        mark.touch();
        assert!(!mark.is_first_to_go());
    }

    /// B-04
    #[test]
    fn a_merged_extent_is_first_to_go_only_if_both_were() {
        let (a, b) = (Mark::default(), Mark::default());
        a.set_dont_need();
        assert!(!a.merged(&b).is_first_to_go());
        b.set_dont_need();
        assert!(a.merged(&b).is_first_to_go());
    }
}

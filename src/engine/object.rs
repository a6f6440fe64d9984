//! One object: what is known of it, its windows, its writebacks in flight, and who waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use super::action::WaiterId;
use super::extent::OpId;
use super::flush_list::FlushList;
use super::window::Span;
use super::window::WINDOW_BYTES;
use crate::types::{ByteRange, Moment, ObjectKey, ObjectName, SnapId};

/// Names an object, or one of its snapshots, within a set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ObjectRef {
    pub(crate) key: ObjectKey,
    pub(crate) snap: SnapId,
}

/// Names a window within a set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct WindowKey {
    pub(crate) object: ObjectRef,
    /// The window's first byte divided by [`WINDOW_BYTES`].
    pub(crate) index: u64,
}

impl Hash for WindowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl WindowKey {
    pub(crate) const fn name(&self) -> WindowName<'_> {
        WindowName {
            object: &self.object.key,
            snap: self.object.snap,
            index: self.index,
        }
    }
}

/// A [`WindowKey`] with a borrowed object, by which a window is looked up; hashes as the key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WindowName<'a> {
    pub(crate) object: &'a ObjectKey,
    pub(crate) snap: SnapId,
    pub(crate) index: u64,
}

impl Hash for WindowName<'_> {
    /// A numbered object takes one step of the hasher, since every hit takes it.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Far from the indexes of windows, which are small.
        let snap = |number: u64| number.wrapping_add(1).rotate_left(40);
        let index = self.index ^ self.snap.number().map_or(0, snap);
        match self.object {
            ObjectKey::Number(number) => {
                state.write_u128((u128::from(*number) << 64) | u128::from(index));
            }
            ObjectKey::Name(name) => {
                name.hash(state);
                state.write_u64(index);
            }
        }
    }
}

impl From<WindowName<'_>> for WindowKey {
    fn from(name: WindowName<'_>) -> Self {
        Self {
            object: ObjectRef {
                key: name.object.clone(),
                snap: name.snap,
            },
            index: name.index,
        }
    }
}

/// The window that a range lies in, and its part of it; `None` where it lies in several.
pub(crate) const fn sole_span(range: ByteRange) -> Option<(u64, Span)> {
    let index = range.start() / WINDOW_BYTES;
    if (range.end() - 1) / WINDOW_BYTES != index {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder of a division by a window's length, and a length within it"
    )]
    let (start, len) = ((range.start() % WINDOW_BYTES) as u32, range.len() as u32);
    let end = start + len;
    Some((index, Span { start, end }))
}

/// The parts of a range by window, ascending.
pub(crate) fn spans(range: ByteRange) -> impl DoubleEndedIterator<Item = (u64, Span)> + Clone {
    let first = range.start() / WINDOW_BYTES;
    let last = (range.end() - 1) / WINDOW_BYTES;
    (first..=last).map(move |index| {
        let base = index * WINDOW_BYTES;
        let start = range.start().max(base) - base;
        let end = range.end().min(base.saturating_add(WINDOW_BYTES)) - base;
        let clip = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        (
            index,
            Span {
                start: clip(start),
                end: clip(end),
            },
        )
    })
}

/// The range of the object that a span of one of its windows covers.
pub(crate) fn range_of(index: u64, span: Span) -> Option<ByteRange> {
    let base = index.checked_mul(WINDOW_BYTES)?;
    ByteRange::between(base + u64::from(span.start), base + u64::from(span.end))
}

/// A writeback under way.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) ranges: Vec<ByteRange>,
    pub(crate) context: u64,
    /// The number of the truncation that it carries.
    pub(crate) truncation: u64,
}

impl InFlight {
    /// Ranges are ascending and disjoint.
    pub(crate) fn overlaps(&self, range: ByteRange) -> bool {
        let next = self
            .ranges
            .partition_point(|known| known.end() <= range.start());
        self.ranges
            .get(next)
            .is_some_and(|known| known.overlaps(range))
    }
}

/// Which snapshot context of an object may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    pub(crate) context: u64,
    /// Newer contexts wait for it: its bytes go whatever their age.
    pub(crate) is_waited_for: bool,
}

/// The pause after a failed writeback (rule F-04).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) failures: u32,
    /// No writeback before this.
    pub(crate) not_before: Moment,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) id: ObjectRef,
    pub(crate) name: ObjectName,
    /// By index within the object: the set's number of the window.
    pub(crate) windows: BTreeMap<u64, usize>,
    /// The store said that the object does not exist, and nothing was written to it since.
    pub(crate) absent: bool,
    /// What is not cached is zeros.
    pub(crate) complete: bool,
    /// The store said that it does not exist while a writeback carried bytes that are no longer here. Whoever misses
    /// waits until one has ended before the store is asked again.
    pub(crate) absence_in_doubt: bool,
    /// The windows that may hold dirty bytes, by index within the object.
    pub(crate) listed: BTreeSet<u64>,
    /// Where the object stands in the set's order of age; nowhere while it is parked.
    pub(crate) due: Option<Moment>,
    /// Nothing of what is due may go before a pause or a writeback of the object ends.
    pub(crate) is_parked: bool,
    /// The snapshot context whose bytes are being sent, until none of them may go.
    pub(crate) turn: Option<Turn>,
    pub(crate) writebacks: BTreeMap<OpId, InFlight>,
    pub(crate) fetches: BTreeSet<OpId>,
    /// Fetches whose range was dropped in part while they were under way. Reads of it wait for their end, so that
    /// none overtakes one that was asked earlier.
    pub(crate) cut_fetches: BTreeMap<OpId, ByteRange>,
    pub(crate) retry: Option<Retry>,
    /// Reads that wait for the end of the pause, each with its round (rule R-12).
    pub(crate) paused_reads: Vec<(WaiterId, u32)>,
    /// Those that wait for its dirty bytes, or writebacks.
    pub(crate) flushes: FlushList,
    /// Where the object stands on the set's list of idle ones.
    pub(crate) idle_since: Option<u64>,
    /// Writes that wait until bytes of an older snapshot context are stored (rule W-09).
    pub(crate) context_waits: Vec<WaiterId>,
}

impl Object {
    pub(crate) fn new(id: ObjectRef, name: ObjectName) -> Self {
        Self {
            id,
            name,
            windows: BTreeMap::new(),
            absent: false,
            complete: false,
            absence_in_doubt: false,
            listed: BTreeSet::new(),
            due: None,
            is_parked: false,
            turn: None,
            writebacks: BTreeMap::new(),
            fetches: BTreeSet::new(),
            cut_fetches: BTreeMap::new(),
            retry: None,
            paused_reads: Vec::new(),
            flushes: FlushList::default(),
            idle_since: None,
            context_waits: Vec::new(),
        }
    }

    /// A window holds nothing dirty any more.
    pub(crate) fn unlist(&mut self, index: u64) {
        self.listed.remove(&index);
        if self.listed.is_empty() {
            // An emptied tree keeps a node, which of many small objects would be much of their memory.
            self.listed = BTreeSet::new();
        }
    }

    /// A writeback has ended.
    pub(crate) fn end_writeback(&mut self, op: OpId) -> Option<InFlight> {
        let flight = self.writebacks.remove(&op);
        if self.writebacks.is_empty() {
            self.writebacks = BTreeMap::new();
        }
        flight
    }

    /// A fetch has ended.
    pub(crate) fn end_fetch(&mut self, op: OpId) {
        self.fetches.remove(&op);
        self.cut_fetches.remove(&op);
        if self.fetches.is_empty() {
            self.fetches = BTreeSet::new();
            self.cut_fetches = BTreeMap::new();
        }
    }

    /// A window has gone.
    pub(crate) fn forget_window(&mut self, index: u64) {
        self.windows.remove(&index);
        if self.windows.is_empty() {
            self.windows = BTreeMap::new();
        }
    }

    /// Whether it holds nothing and nothing is under way, so that only what is known of it would be lost.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.windows.is_empty()
            && self.writebacks.is_empty()
            && self.fetches.is_empty()
            && self.flushes.is_empty()
            && self.context_waits.is_empty()
            && self.paused_reads.is_empty()
    }

    /// Whether anything is known of it that a new object would not know.
    pub(crate) const fn knows_something(&self) -> bool {
        self.absent || self.complete
    }

    /// Whether a failed writeback's pause is not yet over.
    pub(crate) fn is_paused(&self, now: Moment) -> bool {
        self.retry.is_some_and(|retry| retry.not_before > now)
    }

    pub(crate) fn writeback_over(&self, range: ByteRange) -> impl Iterator<Item = OpId> {
        self.writebacks
            .iter()
            .filter(move |(_, flight)| flight.overlaps(range))
            .map(|(op, _)| *op)
    }

    pub(crate) fn cut_fetch_over(&self, range: ByteRange) -> impl Iterator<Item = OpId> {
        self.cut_fetches
            .iter()
            .filter(move |(_, fetched)| fetched.overlaps(range))
            .map(|(op, _)| *op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_falls_into_windows() {
        let range = ByteRange::new(WINDOW_BYTES - 1, WINDOW_BYTES + 2).unwrap();
        let parts: Vec<(u64, Span)> = spans(range).collect();
        let whole = u32::try_from(WINDOW_BYTES).unwrap();
        assert_eq!(
            parts,
            [
                (
                    0,
                    Span {
                        start: whole - 1,
                        end: whole
                    }
                ),
                (
                    1,
                    Span {
                        start: 0,
                        end: whole
                    }
                ),
                (2, Span { start: 0, end: 1 })
            ]
        );
        assert_eq!(
            range_of(1, parts[1].1),
            ByteRange::between(WINDOW_BYTES, 2 * WINDOW_BYTES)
        );
    }

    /// H-08
    #[test]
    fn the_last_window_ends_at_the_largest_offset() {
        let range = ByteRange::new(crate::OFFSET_BYTES_MAX - 1, 1).unwrap();
        let (index, span) = spans(range).next().unwrap();
        assert_eq!(range_of(index, span), Some(range));
    }
}

//! One window of an object: a run of [`WINDOW_BYTES`] bytes with its extents, the unit that one lock guards.
//!
//! Extents are kept sorted by where they start; they never overlap, and a gap means that nothing is known. A window knows no lock, no clock and no other window. What it holds is counted as it
//! changes, and [`Window::settle`] tells what changed since it was last asked, for the ledger and the gauges.

mod audit;
mod charge;
mod drop;
mod fetch;
mod table;
mod write;
mod write_back;

pub(crate) use charge::Settlement;
pub use charge::{Charge, Totals};
pub(crate) use drop::{Dropped, What};
pub(crate) use fetch::{Fill, Found};
pub(crate) use table::Held;
pub(crate) use write::{Put, PutOutcome, Source};
pub(crate) use write_back::{Cutoff, Offer, Sink, WriteEnd};

use std::sync::Arc;

use table::Table;

use super::extent::{BufferState, Extent, ExtentState, OpId};
use super::slab::Slabs;
use crate::buf::{Piece, ReadBuf, Slab};
use crate::types::Moment;

/// How many bytes of an object one window covers.
pub(crate) const WINDOW_BYTES: u64 = 256 << 10;
/// What an extent costs beyond its bytes, charged to the cache's limit: its place in the table, its state, its slab,
/// and what the allocator adds.
pub(crate) const EXTENT_OVERHEAD_BYTES: u64 = 132;
/// What a window costs before it holds anything, charged likewise, with its object, of which it may be all. A window
/// full of 4 KiB extents so costs 160 bytes for each of them.
pub(crate) const WINDOW_OVERHEAD_BYTES: u64 = 1792;

/// A range of bytes within a window, never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a window is far shorter than 4 GiB"
    )]
    pub(crate) const ALL: Self = Self {
        start: 0,
        end: WINDOW_BYTES as u32,
    };

    pub(crate) const fn len(self) -> u32 {
        self.end - self.start
    }

    const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// Bytes that were overwritten or dropped while on their way to the store. They keep their memory, and their place
/// in the books, until the writeback ends.
#[derive(Clone, Debug)]
struct Overtaken {
    op: OpId,
    slab: Arc<Slab>,
    bytes: u32,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Window {
    extents: Table,
    slabs: Slabs,
    totals: Totals,
    /// What writebacks still carry though it was overwritten or dropped here.
    overtaken: Vec<Overtaken>,
    overtaken_bytes: u64,
    /// How many extents a journal entry holds.
    journaled: u32,
    /// What the ledger and the gauges were last told.
    settled: Settlement,
    changed: bool,
    /// Whether the set's actor has this window on its list of dirty ones. A window with dirty extents always is.
    pub(crate) listed: bool,
    /// Whether the window has left its set: whoever finds it looks it up again.
    pub(crate) closed: bool,
    /// Whether reads wait for their answer from what has just come in: no later read is served before them.
    pub(crate) unanswered: bool,
    /// Whether a read waits for bytes that are not here: whoever brings some has it looked at again.
    pub(crate) awaited: bool,
}

impl Window {
    fn start_at(&self, index: usize) -> u32 {
        self.extents.span(index).start
    }

    fn span_at(&self, index: usize) -> Span {
        self.extents.span(index)
    }

    /// The first extent that ends behind `position`.
    fn find(&self, position: u32) -> usize {
        self.extents.find(position)
    }

    /// Splits the extent across `position`, if one lies there, and gives the first extent that starts at or
    /// behind it. Both sides keep all that the whole had; bytes are shared (rule B-03).
    fn cut(&mut self, position: u32) -> usize {
        let index = self.find(position);
        let Some(state) = self.extents.state(index).cloned() else {
            return index;
        };
        let Some(left) = self.extents.get_mut(index) else {
            return index;
        };
        if left.start >= position {
            return index;
        }
        let left_len = position - left.start;
        let mut right = left.clone();
        left.len = left_len;
        right.start = position;
        right.len -= left_len;
        if right.slab.is_some() {
            right.at += left_len;
        }
        self.totals.count(state.kind(), 0, 1);
        if state.is_journaled() {
            self.journaled += 1;
        }
        self.extents.insert(index + 1, right, state);
        self.changed = true;
        index + 1
    }

    /// The extents inside `span`, after cutting those across its edges.
    fn cut_out(&mut self, span: Span) -> std::ops::Range<usize> {
        let first = self.cut(span.start);
        let last = self.cut(span.end);
        first..last
    }

    /// Puts an extent into a gap. Its slab's live bytes already count it.
    fn insert(&mut self, index: usize, extent: Extent, state: ExtentState) {
        self.count(&extent, &state, 1);
        self.extents.insert(index, extent, state);
    }

    fn count(&mut self, extent: &Extent, state: &ExtentState, sign: i64) {
        self.totals.count(state.kind(), extent.len, sign);
        if state.is_journaled() {
            self.journaled = self
                .journaled
                .saturating_add_signed(if sign > 0 { 1 } else { -1 });
        }
        self.changed = true;
    }

    /// Changes the state of the extent at `index`, keeping the counts right.
    fn set_state(&mut self, index: usize, state: ExtentState) {
        let Some(len) = self.extents.get(index).map(|extent| extent.len) else {
            return;
        };
        let Some(held) = self.extents.state_mut(index) else {
            return;
        };
        let after = (state.kind(), state.is_journaled());
        let before = std::mem::replace(held, state);
        self.totals.count(before.kind(), len, -1);
        self.totals.count(after.0, len, 1);
        match (before.is_journaled(), after.1) {
            (true, false) => self.journaled -= 1,
            (false, true) => self.journaled += 1,
            (true, true) | (false, false) => {}
        }
        self.changed = true;
    }

    /// Appends the bytes of `span` to `out`, if all of it is readable; else leaves `out` as it was.
    ///
    /// `promote` marks what is read as used; `dont_need` marks the extents wholly inside as first to go.
    #[inline]
    pub(crate) fn collect(&self, span: Span, how: Access, out: &mut ReadBuf) -> bool {
        let first = self.find(span.start);
        // Most often all of it lies in one.
        if let Some(extent) = self.extents.get(first)
            && extent.span().contains(span)
            && let Some(slab) = &extent.slab
        {
            let at = extent.at + (span.start - extent.start);
            out.push(Piece::of_slab(slab.clone(), at, span.len()));
            how.mark(
                extent,
                extent.start == span.start && extent.len == span.len(),
            );
            return true;
        }
        self.collect_from(first, span, how, out)
    }

    /// As [`collect`](Self::collect), where `first` is the first extent that ends behind where `span` starts.
    fn collect_from(&self, first: usize, span: Span, how: Access, out: &mut ReadBuf) -> bool {
        let pieces = out.piece_count();
        let mut at = span.start;
        for (nth, extent) in self.extents.from(first).iter().enumerate() {
            let is_readable = extent.slab.is_some()
                || self.extents.state(first + nth) == Some(&ExtentState::Zero);
            if extent.start > at || !is_readable {
                break;
            }
            let end = extent.end().min(span.end);
            let within = at - extent.start;
            match &extent.slab {
                Some(slab) => {
                    out.push(Piece::of_slab(slab.clone(), extent.at + within, end - at));
                }
                None => Piece::zeros(u64::from(end - at)).for_each(|zero| out.push(zero)),
            }
            how.mark(extent, span.contains(extent.span()));
            at = end;
            if at == span.end {
                return true;
            }
        }
        out.truncate_pieces(pieces);
        false
    }

    /// As [`collect`](Self::collect), for callers at the door: not while earlier reads wait for their answer (rule
    ///
    pub(crate) fn serve(&self, span: Span, how: Access, out: &mut ReadBuf) -> bool {
        !self.unanswered && self.collect(span, how, out)
    }

    /// Whether nothing is here and nothing is on its way: the window may be closed.
    pub(crate) fn is_idle(&self) -> bool {
        self.extents.is_empty() && self.overtaken.is_empty() && !self.listed
    }

    /// Whether every byte of `span` is held, in any state (rule S-01).
    pub(crate) fn holds(&self, span: Span) -> bool {
        let mut at = span.start;
        for index in self.find(span.start)..self.extents.len() {
            let held = self.span_at(index);
            if held.start > at {
                return false;
            }
            at = held.end;
            if at >= span.end {
                return true;
            }
        }
        false
    }

    /// Since when the oldest dirty bytes have been dirty.
    pub(crate) fn oldest_dirty(&self) -> Option<Moment> {
        if self.totals.buffers_in(BufferState::Dirty) == 0 {
            return None;
        }
        self.dirty(Span::ALL)
            .map(|(_, written)| written.since)
            .min()
    }

    pub(crate) const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Whether a writeback still carries bytes that are no longer here: dirty extents may lie over it.
    pub(crate) const fn has_overtaken(&self) -> bool {
        !self.overtaken.is_empty()
    }

    /// Whether a journal holds some of the window's bytes.
    pub(crate) const fn is_journaled(&self) -> bool {
        self.journaled > 0
    }

    /// All extents with where they are.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Span, Held<'_>)> {
        self.extents.iter()
    }

    /// What the window costs now. While nothing is in it, it is open only for those who wait, and costs nothing, as
    /// they do.
    pub(crate) fn charge(&self) -> Charge {
        if self.closed || (self.extents.is_empty() && self.overtaken.is_empty()) {
            return Charge::default();
        }
        let overtaken = i64::try_from(self.overtaken_bytes).unwrap_or(i64::MAX);
        let overtaken_buffers = i64::try_from(self.overtaken.len()).unwrap_or(i64::MAX);
        let held = self.slabs.allocated_bytes()
            + (self.extents.len() + self.overtaken.len()) as u64 * EXTENT_OVERHEAD_BYTES
            + WINDOW_OVERHEAD_BYTES;
        let totals = &self.totals;
        Charge {
            room: i64::try_from(held).unwrap_or(i64::MAX) + totals.bytes_in(BufferState::Rx),
            dirty: totals.bytes_in(BufferState::Dirty)
                + totals.bytes_in(BufferState::Tx)
                + overtaken,
            dirty_buffers: totals.buffers_in(BufferState::Dirty)
                + totals.buffers_in(BufferState::Tx)
                + overtaken_buffers,
        }
    }

    /// What changed since the last call; the caller tells the ledger and the gauges.
    pub(crate) fn settle(&mut self) -> Settlement {
        if !self.changed && (self.settled.charge.room != 0 || self.closed) {
            return Settlement::default();
        }
        self.changed = false;
        let now = Settlement {
            charge: self.charge(),
            totals: self.totals,
        };
        let mut change = now;
        change.charge -= self.settled.charge;
        change.totals -= self.settled.totals;
        self.settled = now;
        change
    }

    /// What the ledger was last told of this window.
    pub(crate) const fn settled(&self) -> &Settlement {
        &self.settled
    }

    /// Marks the window as gone from its set.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.changed = true;
    }
}

/// How an access treats recency (rule R-16).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Access {
    /// Used: keep it longer.
    #[default]
    Plain,
    /// What lies wholly inside is the first to go.
    DontNeed,
    /// Not promoted.
    NoCache,
    /// Not promoted either, as when a read returns what it has just brought in; but what another brought in with
    /// `NoCache` is wanted after all.
    Arrived,
    /// Leaves no trace.
    Quiet,
}

impl Access {
    pub(crate) const fn of(hints: crate::types::Hints) -> Self {
        if hints.dont_need {
            Self::DontNeed
        } else if hints.no_cache {
            Self::NoCache
        } else {
            Self::Plain
        }
    }

    #[inline]
    fn mark(self, extent: &Extent, wholly_inside: bool) {
        match self {
            Self::Plain => extent.mark.touch(),
            Self::DontNeed if wholly_inside => extent.mark.set_dont_need(),
            Self::DontNeed => extent.mark.touch(),
            // A buffer brought in by `NoCache` is not promoted by another such access; others are.
            Self::NoCache if extent.mark.is_first_to_go() => {}
            Self::NoCache => extent.mark.touch(),
            Self::Arrived if extent.mark.is_first_to_go() => extent.mark.touch(),
            Self::Arrived | Self::Quiet => {}
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(all(fuzzing, not(test)))]
mod tests;
#[cfg(any(test, fuzzing))]
pub(crate) use tests::fuzz;

//! What a read finds in a window, and how fetches fill it (rules ).

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Access, Span, Window};
use crate::engine::extent::{Extent, ExtentState, OpId};
use crate::error::BackendError;

/// What lies at one stretch of a range that a read wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found<'a> {
    /// Bytes that can be served.
    Readable,
    /// Nothing is known.
    Gap,
    /// A fetch is under way.
    Fetching(OpId),
    /// The last fetch failed.
    Failed(&'a BackendError),
}

impl Window {
    /// Walks over `span` from its start to its end without a hole.
    pub(crate) fn examine(&self, span: Span, mut visit: impl FnMut(Span, Found<'_>)) {
        let mut at = span.start;
        for index in self.extents.overlapping(span) {
            let held = self.span_at(index);
            let Some(state) = self.extents.state(index) else {
                break;
            };
            if held.start > at {
                visit(
                    Span {
                        start: at,
                        end: held.start,
                    },
                    Found::Gap,
                );
                at = held.start;
            }
            let end = held.end.min(span.end);
            let found = match state {
                ExtentState::Rx { op } => Found::Fetching(*op),
                ExtentState::Error(error) => Found::Failed(error),
                ExtentState::Clean
                | ExtentState::Zero
                | ExtentState::Dirty(_)
                | ExtentState::Tx { .. } => Found::Readable,
            };
            visit(Span { start: at, end }, found);
            at = end;
        }
        if at < span.end {
            visit(
                Span {
                    start: at,
                    end: span.end,
                },
                Found::Gap,
            );
        }
    }

    /// Where the first byte of `span` lies that can't be served.
    pub(crate) fn lacking(&self, span: Span) -> Option<u32> {
        let mut at = span.start;
        let first = self.find(span.start);
        for (nth, extent) in self.extents.from(first).iter().enumerate() {
            let state = self.extents.state(first + nth);
            let is_readable = match state {
                Some(ExtentState::Rx { .. } | ExtentState::Error(_)) | None => false,
                Some(
                    ExtentState::Clean
                    | ExtentState::Zero
                    | ExtentState::Dirty(_)
                    | ExtentState::Tx { .. },
                ) => true,
            };
            if extent.start > at || !is_readable {
                break;
            }
            at = extent.end();
            if at >= span.end {
                return None;
            }
        }
        Some(at)
    }

    /// Marks what is missing in `span` as being fetched by `op`. Returns those bytes.
    pub(crate) fn begin_fetch(&mut self, span: Span, op: OpId) -> u64 {
        self.fill_gaps(span, &ExtentState::Rx { op }, 0)
    }

    /// Fills what is missing in `span` with known zeros, joined with zeros that they touch. Returns those bytes.
    pub(crate) fn put_zeros(&mut self, span: Span, stamp: u32) -> u64 {
        let filled = self.fill_gaps(span, &ExtentState::Zero, stamp);
        self.join_clean(span);
        filled
    }

    /// Puts new extents where `span` has gaps or failed fetches, and nowhere else.
    fn fill_gaps(&mut self, span: Span, state: &ExtentState, stamp: u32) -> u64 {
        let mut gaps: SmallVec<[Span; 4]> = SmallVec::new();
        self.examine(span, |part, found| match found {
            Found::Gap | Found::Failed(_) => gaps.push(part),
            Found::Readable | Found::Fetching(_) => {}
        });
        let mut filled = 0;
        for gap in gaps {
            let covered = self.cut_out(gap);
            self.remove_indexes(covered.clone(), &mut super::Dropped::default());
            let mut extent = Extent::without_bytes(gap.start, gap.len());
            extent.stamp = stamp;
            self.insert(covered.start, extent, state.clone());
            filled += u64::from(gap.len());
        }
        filled
    }

    /// Gives the extents that still wait for fetch `op` their bytes: `bytes` starts at `span.start`, what it
    /// lacks at the end is zeros. Returns the bytes brought in.
    pub(crate) fn fill(&mut self, span: Span, op: OpId, bytes: Bytes, how: Fill) -> u64 {
        let arrived = u32::try_from(bytes.len())
            .unwrap_or(u32::MAX)
            .min(span.len());
        if arrived < span.len() && arrived > 0 {
            self.cut(span.start + arrived);
        }
        let data_end = span.start + arrived;
        let waiting = self.waiting_for(span, op);
        let live: u32 = waiting
            .iter()
            .filter(|index| self.start_at(**index) < data_end)
            .map(|index| self.span_at(*index).len())
            .sum();
        let mut bytes = bytes;
        bytes.truncate(arrived as usize);
        // Where a part was overwritten meanwhile, each of the others gets a copy of its own: memory stays exact.
        let whole = live == arrived;
        let slab = (live > 0 && whole).then(|| {
            let bytes = std::mem::take(&mut bytes);
            self.slabs.adopt(bytes, live, how.is_vouched_for)
        });
        let mut filled = 0;
        for index in waiting {
            let start = self.start_at(index);
            filled += u64::from(self.span_at(index).len());
            let has_bytes = start < data_end;
            self.set_state(
                index,
                if has_bytes {
                    ExtentState::Clean
                } else {
                    ExtentState::Zero
                },
            );
            let from = start - span.start;
            let Some(extent) = self.extents.get_mut(index) else {
                continue;
            };
            if has_bytes && whole {
                (extent.slab, extent.at) = (slab.clone(), from);
            } else if has_bytes {
                let part = bytes.get(from as usize..(from + extent.len) as usize);
                (extent.slab, extent.at) = (part.map(|part| self.slabs.copy_in(part)), 0);
            }
            extent.stamp = how.stamp;
            match how.access {
                Access::NoCache => extent.mark.set_no_cache(),
                Access::DontNeed | Access::Plain | Access::Arrived | Access::Quiet => {}
            }
        }
        filled
    }

    /// Marks what still waits for fetch `op` as failed (rule R-13).
    pub(crate) fn fail_fetch(&mut self, span: Span, op: OpId, error: &BackendError, stamp: u32) {
        for index in self.waiting_for(span, op) {
            self.set_state(index, ExtentState::Error(error.clone()));
            if let Some(extent) = self.extents.get_mut(index) {
                extent.stamp = stamp;
            }
        }
    }

    /// Forgets that `op` was to bring anything: what waits for it becomes a gap again.
    pub(crate) fn cancel_fetch(&mut self, span: Span, op: OpId) {
        for index in self.waiting_for(span, op).into_iter().rev() {
            self.remove_indexes(index..index + 1, &mut super::Dropped::default());
        }
    }

    /// The extents inside `span` that wait for `op`. Fetches cover whole extents, so no cut is needed.
    fn waiting_for(&self, span: Span, op: OpId) -> SmallVec<[usize; 4]> {
        let waits = |index: &usize| self.extents.state(*index) == Some(&ExtentState::Rx { op });
        self.extents.overlapping(span).filter(waits).collect()
    }
}

/// How fetched bytes enter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    /// The eviction queue's number for what comes in.
    pub(crate) stamp: u32,
    pub(crate) access: Access,
    /// Whether the store promises that its memory is worth keeping ([`Capabilities::keepable_reads`]).
    ///
    /// [`Capabilities::keepable_reads`]: crate::backend::Capabilities::keepable_reads
    pub(crate) is_vouched_for: bool,
}

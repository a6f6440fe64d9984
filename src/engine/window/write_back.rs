//! Choosing dirty bytes to send, and what becomes of them (rules F-02, F-03, W-03, W-09).

use bytes::Bytes;

use super::{Dropped, Span, Window};
use crate::engine::extent::{ExtentState, OpId, Written};
use crate::types::{JournalTid, Moment};

/// Which dirty bytes are to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cutoff {
    /// Those dirty since this moment or before.
    Since(Moment),
    /// Those written in this flush epoch or before.
    Epoch(u64),
}

impl Cutoff {
    pub(crate) fn takes(self, written: &Written) -> bool {
        match self {
            Self::Since(moment) => written.since <= moment,
            Self::Epoch(epoch) => written.epoch <= epoch,
        }
    }
}

/// Where chosen bytes go. Answers whether it takes the extent; the walk ends at the first `Full`.
pub(crate) trait Sink {
    /// Offers a dirty extent.
    fn offer(&mut self, span: Span, written: &Written) -> Offer;
    /// Takes the bytes of an extent that was accepted.
    fn take(&mut self, span: Span, written: &Written, bytes: Bytes);
}

/// A sink's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// Send it; its writeback has this tid.
    Take(OpId),
    /// Leave it for later and go on.
    Skip,
    /// Leave it and end the walk.
    Full,
}

impl Window {
    /// Offers the dirty extents of `span` in order and marks those taken as in flight. Returns whether the sink
    /// was full before the end.
    pub(crate) fn send(&mut self, span: Span, sink: &mut impl Sink) -> bool {
        for index in self.find(span.start)..self.extents.len() {
            let held = self.span_at(index);
            if held.start >= span.end {
                break;
            }
            let Some(extent) = self.extents.get(index) else {
                break;
            };
            let ExtentState::Dirty(written) = extent.state.clone() else {
                continue;
            };
            match sink.offer(held, &written) {
                Offer::Skip => {}
                Offer::Full => return true,
                Offer::Take(op) => {
                    let piece = extent
                        .slab
                        .and_then(|slab| self.slabs.piece(slab, extent.at, extent.len));
                    let Some(piece) = piece else { continue };
                    sink.take(held, &written, piece.into_bytes());
                    self.set_state(index, ExtentState::Tx { op, written });
                }
            }
        }
        false
    }

    /// Whether bytes that `cutoff` names are dirty or in flight in `span`.
    pub(crate) fn is_unstored(&self, span: Span, cutoff: Cutoff) -> bool {
        self.unstored(span).any(|written| cutoff.takes(written))
    }

    /// What is dirty or in flight in `span`.
    pub(crate) fn unstored(&self, span: Span) -> impl Iterator<Item = &Written> {
        self.overlapping(span)
            .filter_map(|(_, state)| state.written())
    }

    /// What is dirty and not in flight.
    pub(crate) fn dirty(&self, span: Span) -> impl Iterator<Item = (Span, &Written)> {
        self.overlapping(span)
            .filter_map(|(held, state)| match state {
                ExtentState::Dirty(written) => Some((held, written)),
                ExtentState::Clean
                | ExtentState::Zero
                | ExtentState::Rx { .. }
                | ExtentState::Tx { .. }
                | ExtentState::Error(_) => None,
            })
    }

    fn overlapping(&self, span: Span) -> impl Iterator<Item = (Span, &ExtentState)> {
        let first = self.find(span.start);
        self.starts
            .iter()
            .zip(&self.extents)
            .skip(first)
            .take_while(move |(start, _)| **start < span.end)
            .map(|(start, extent)| {
                (
                    Span {
                        start: *start,
                        end: *start + extent.len,
                    },
                    &extent.state,
                )
            })
    }

    /// Ends writeback `op` over `span`, of which it carried every byte: what is still in flight under it becomes
    /// clean, or dirty again after a failure. Returns where journal entries have their bytes in the store.
    pub(crate) fn end_write_back(&mut self, span: Span, op: OpId, end: WriteEnd) -> EndOutcome {
        let mut outcome = EndOutcome::default();
        for index in self.find(span.start)..self.extents.len() {
            let held = self.span_at(index);
            if held.start >= span.end {
                break;
            }
            let Some(ExtentState::Tx { op: under, written }) =
                self.extents.get(index).map(|extent| extent.state.clone())
            else {
                continue;
            };
            if under != op {
                continue;
            }
            outcome.bytes += u64::from(held.len());
            match end {
                WriteEnd::Stored { stamp } => {
                    if let Some(tid) = written.journal {
                        outcome.committed.push((held, tid));
                    }
                    self.set_state(index, ExtentState::Clean);
                    if let Some(extent) = self.extents.get_mut(index) {
                        extent.stamp = stamp;
                    }
                }
                WriteEnd::Failed => {
                    self.set_state(index, ExtentState::Dirty(written));
                }
            }
        }
        outcome
    }

    /// Takes bytes off the account of what a writeback carries though it is no longer here.
    pub(crate) fn land_overtaken(&mut self, bytes: u64) {
        self.overtaken = self.overtaken.saturating_sub(bytes);
        if self.overtaken == 0 {
            self.overtaken_buffers = 0;
        }
        self.changed = true;
    }

    /// Joins what touches in `span` after a writeback or fetch, from the end so that indexes stay true.
    pub(crate) fn join_clean(&mut self, span: Span) {
        let first = self.find(span.start);
        let count = self
            .starts
            .iter()
            .skip(first)
            .take_while(|start| **start < span.end)
            .count();
        for index in (first..first + count).rev() {
            self.join_at(index);
        }
    }
}

/// How a writeback ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteEnd {
    /// The store has it. What is clean now gets the eviction queue's number.
    Stored { stamp: u32 },
    /// It does not.
    Failed,
}

/// What a writeback's end found.
#[derive(Debug, Default)]
pub(crate) struct EndOutcome {
    /// Bytes that were still in flight under it.
    pub(crate) bytes: u64,
    /// Where journal entries have their bytes in the store.
    pub(crate) committed: Vec<(Span, JournalTid)>,
}

/// So that a sink which drops things can share the type.
impl Dropped {
    pub(crate) fn absorb(&mut self, other: Self) {
        self.journal.extend(other.journal);
        self.dirty_bytes += other.dirty_bytes;
        self.bytes += other.bytes;
    }
}

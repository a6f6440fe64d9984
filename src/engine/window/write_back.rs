//! Choosing dirty bytes to send, and what becomes of them (rules F-02, F-03, W-03, W-09).

use std::sync::Arc;

use bytes::Bytes;

use super::{Span, Window};
use crate::buf::{Piece, Slab};
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
    /// Send only so many of its first bytes.
    TakeFirst(OpId, u32),
    /// Leave it for later and go on.
    Skip,
    /// Leave it and end the walk.
    Full,
}

impl Window {
    /// Offers the dirty extents of `span` in order and marks those taken as in flight. Returns whether the sink
    /// was full before the end.
    pub(crate) fn send(&mut self, span: Span, sink: &mut impl Sink) -> bool {
        let mut index = self.find(span.start);
        while let Some(state) = self.extents.state(index) {
            let held = self.span_at(index);
            if held.start >= span.end {
                break;
            }
            let ExtentState::Dirty(written) = *state else {
                index += 1;
                continue;
            };
            match sink.offer(held, &written) {
                Offer::Skip => {}
                Offer::Full => return true,
                Offer::Take(op) => self.send_at(index, op, sink),
                Offer::TakeFirst(op, len) => {
                    self.cut(held.start + len);
                    self.send_at(index, op, sink);
                }
            }
            index += 1;
        }
        false
    }

    fn send_at(&mut self, index: usize, op: OpId, sink: &mut impl Sink) {
        let held = self.span_at(index);
        let Some(extent) = self.extents.get(index) else {
            return;
        };
        let Some(ExtentState::Dirty(written)) = self.extents.state(index).cloned() else {
            return;
        };
        let piece = extent
            .slab
            .as_ref()
            .map(|slab| Piece::of_slab(slab.clone(), extent.at, extent.len));
        if let Some(piece) = piece {
            sink.take(held, &written, piece.into_bytes());
            self.set_state(index, ExtentState::Tx { op, written });
        }
    }

    /// Whether bytes that `cutoff` names are dirty in `span`.
    pub(crate) fn is_dirty(&self, span: Span, cutoff: Cutoff) -> bool {
        self.dirty(span).any(|(_, written)| cutoff.takes(written))
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
        let held = |index| Some((self.span_at(index), self.extents.state(index)?));
        self.extents.overlapping(span).filter_map(held)
    }

    /// Ends writeback `op` over `parts`, of which it carried every byte: what is still in flight under it becomes
    /// clean, or dirty again after a failure. Returns where journal entries have their bytes in the store.
    pub(crate) fn end_write_back(&mut self, parts: &[Span], op: OpId, end: WriteEnd) -> EndOutcome {
        let mut outcome = EndOutcome::default();
        let mut slabs = self.land_overtaken(op);
        for part in parts {
            for index in self.extents.overlapping(*part) {
                let held = self.span_at(index);
                let Some(ExtentState::Tx { op: under, written }) =
                    self.extents.state(index).cloned()
                else {
                    continue;
                };
                let Some(extent) = self.extents.get_mut(index) else {
                    break;
                };
                if under != op {
                    continue;
                }
                outcome.bytes += u64::from(held.len());
                slabs.extend(extent.slab.clone());
                match end {
                    WriteEnd::Stored { stamp } => {
                        extent.stamp = stamp;
                        if let Some(tid) = written.journal {
                            outcome.committed.push((held, tid));
                        }
                        self.set_state(index, ExtentState::Clean);
                    }
                    WriteEnd::Failed => {
                        self.set_state(index, ExtentState::Dirty(written));
                    }
                }
            }
        }
        self.copy_out_sparse(slabs);
        if matches!(end, WriteEnd::Stored { .. }) {
            for part in parts {
                self.join_clean(*part);
            }
        }
        self.shrink_if_empty();
        outcome
    }

    /// Lets go of what writeback `op` still carried though it was no longer here.
    fn land_overtaken(&mut self, op: OpId) -> Vec<Arc<Slab>> {
        let mut slabs = Vec::new();
        let (held, released) = (&mut self.slabs, &mut self.overtaken_bytes);
        self.overtaken.retain(|part| {
            if part.op != op {
                return true;
            }
            *released -= u64::from(part.bytes);
            if held.release(&part.slab, part.bytes) {
                slabs.push(part.slab.clone());
            }
            false
        });
        self.changed = true;
        slabs
    }

    /// Joins what touches in `span` after a writeback or fetch, from the end so that indexes stay true.
    pub(crate) fn join_clean(&mut self, span: Span) {
        for index in self.extents.overlapping(span).rev() {
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

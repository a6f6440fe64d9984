//! Taking bytes out of a window: discard, purge, truncate, release, eviction.

use std::ops::Range;
use std::sync::Arc;

use super::table::Table;
use super::{Overtaken, Span, Window};
use crate::buf::Slab;
use crate::engine::extent::{ExtentState, OpId};
use crate::types::JournalTid;

/// What left a window otherwise than by reaching the store.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Where journal entries lost their bytes (rule J-02).
    pub(crate) journal: Vec<(Span, JournalTid)>,
    /// Dirty bytes, not counting those in flight.
    pub(crate) dirty_bytes: u64,
    /// Fetches that now bring less than they were sent for.
    pub(crate) fetches: Vec<OpId>,
}

/// What an eviction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Evicted {
    /// Bytes that went, zeros and failed ones too.
    pub(crate) bytes: u64,
    /// Bytes that stay for another round.
    pub(crate) kept: u64,
    /// Whether any of what went held bytes of the store.
    pub(crate) lost_bytes: bool,
}

/// Which extents go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// All of them.
    All,
    /// Those that may go at any time: clean, zero and error.
    Droppable,
    /// Known zeros.
    Zero,
    /// What holds no bytes: known zeros, and fetches that are under way or failed. It goes on the news that the object
    /// does not exist.
    HoldsNothing,
}

impl What {
    const fn takes(self, state: &ExtentState) -> bool {
        match self {
            Self::All => true,
            Self::Droppable => state.is_droppable(),
            Self::Zero => matches!(state, ExtentState::Zero),
            Self::HoldsNothing => matches!(
                state,
                ExtentState::Zero | ExtentState::Rx { .. } | ExtentState::Error(_)
            ),
        }
    }
}

impl Window {
    /// Removes what `what` names inside `span`, cutting at its edges.
    pub(crate) fn remove(&mut self, span: Span, what: What) -> Dropped {
        let mut dropped = Dropped::default();
        let covered = if what == What::All {
            self.cut_out(span)
        } else {
            self.extents.overlapping(span)
        };
        if what == What::All {
            self.remove_indexes(covered, &mut dropped);
        } else {
            for index in covered.rev() {
                if self
                    .extents
                    .state(index)
                    .is_some_and(|state| what.takes(state))
                {
                    self.remove_indexes(index..index + 1, &mut dropped);
                }
            }
        }
        self.shrink_if_empty();
        dropped
    }

    /// Gives back the tables' memory once nothing is here.
    pub(super) fn shrink_if_empty(&mut self) {
        if self.extents.is_empty() && self.overtaken.is_empty() {
            self.extents = Table::default();
            self.overtaken = Vec::new();
        }
    }

    /// Whether nothing but known zeros and fetches under way is here (rule R-09).
    pub(crate) fn holds_nothing(&self) -> bool {
        self.iter()
            .all(|(_, extent)| What::HoldsNothing.takes(extent.state))
    }

    /// Evicts what bears the eviction queue's number `stamp` and was not used since the last scan; what was
    /// used is left, unmarked, with the number `keep_stamp`. Calls `gone` for where bytes of the store were.
    pub(crate) fn evict(
        &mut self,
        stamp: u32,
        keep_stamp: u32,
        mut gone: impl FnMut(Span),
    ) -> Evicted {
        let mut outcome = Evicted::default();
        let mut ignored = Dropped::default();
        for index in (0..self.extents.len()).rev() {
            let Some(state) = self.extents.state(index) else {
                continue;
            };
            let (is_droppable, is_clean) = (state.is_droppable(), *state == ExtentState::Clean);
            let Some(extent) = self.extents.get_mut(index) else {
                continue;
            };
            if extent.stamp != stamp || !is_droppable {
                continue;
            }
            let bytes = u64::from(extent.len);
            if extent.mark.cool() && !extent.mark.is_first_to_go() {
                extent.stamp = keep_stamp;
                outcome.kept += bytes;
            } else {
                outcome.bytes += bytes;
                if is_clean {
                    outcome.lost_bytes = true;
                    gone(self.span_at(index));
                }
                self.remove_indexes(index..index + 1, &mut ignored);
            }
        }
        self.shrink_if_empty();
        outcome
    }

    /// Gives what is first to go (rule R-16) the number `stamp`. Returns its bytes.
    pub(crate) fn restamp_first_to_go(&mut self, stamp: u32) -> u64 {
        let mut bytes = 0;
        for (extent, state) in self.extents.iter_mut() {
            if state.is_droppable() && extent.mark.is_first_to_go() {
                extent.stamp = stamp;
                bytes += u64::from(extent.len);
            }
        }
        bytes
    }

    /// Removes extents and lets go of their memory. What is in flight to the store stays charged until it lands.
    pub(super) fn remove_indexes(&mut self, indexes: Range<usize>, dropped: &mut Dropped) {
        if indexes.is_empty() {
            return;
        }
        let mut released: Vec<Arc<Slab>> = Vec::new();
        for (extent, state) in self.extents.drain(indexes) {
            self.count(&extent, &state, -1);
            match &state {
                ExtentState::Dirty(_) => dropped.dirty_bytes += u64::from(extent.len),
                ExtentState::Rx { op } if dropped.fetches.last() != Some(op) => {
                    dropped.fetches.push(*op);
                }
                ExtentState::Tx { .. }
                | ExtentState::Clean
                | ExtentState::Zero
                | ExtentState::Rx { .. }
                | ExtentState::Error(_) => {}
            }
            if let Some(tid) = state.written().and_then(|written| written.journal) {
                dropped.journal.push((extent.span(), tid));
            }
            let Some(slab) = extent.slab else { continue };
            if let ExtentState::Tx { op, .. } = state {
                self.overtake(op, slab, extent.len);
            } else if self.slabs.release(&slab, extent.len) {
                released.push(slab);
            }
        }
        self.copy_out_sparse(released);
    }

    /// Notes that writeback `op` still carries so many bytes of a slab which are no longer here.
    fn overtake(&mut self, op: OpId, slab: Arc<Slab>, bytes: u32) {
        self.overtaken_bytes += u64::from(bytes);
        match self.overtaken.last_mut() {
            Some(last) if last.op == op && Arc::ptr_eq(&last.slab, &slab) => last.bytes += bytes,
            Some(_) | None => self.overtaken.push(Overtaken { op, slab, bytes }),
        }
    }

    /// Copies what little is left of each of these slabs into buffers of its own, so that their memory goes
    /// (rule B-05). What is on its way to the store stays: the writeback holds the memory anyway.
    pub(super) fn copy_out_sparse(&mut self, mut slabs: Vec<Arc<Slab>>) {
        // In the order in which they were let go of, not of their addresses: the engine is deterministic.
        slabs.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for slab in slabs {
            let is_carried = self
                .overtaken
                .iter()
                .any(|part| Arc::ptr_eq(&part.slab, &slab))
                || self.iter().any(|(_, extent)| {
                    extent.is_in(&slab) && matches!(extent.state, ExtentState::Tx { .. })
                });
            if slab.live() > 0 && slab.is_sparse() && !is_carried {
                self.copy_out(&slab);
            }
        }
    }

    fn copy_out(&mut self, sparse: &Arc<Slab>) {
        for (extent, _) in self.extents.iter_mut() {
            if !extent.is_in(sparse) {
                continue;
            }
            let Some(bytes) = sparse.slice(extent.at, extent.len) else {
                continue;
            };
            extent.slab = Some(self.slabs.copy_in(bytes));
            extent.at = 0;
            self.slabs.release(sparse, extent.len);
        }
        self.changed = true;
    }

    /// Joins the extent at `index` with neighbours that touch it in the same state, where that needs no copy:
    /// known zeros, and clean bytes of one slab (rule B-04).
    pub(super) fn join_at(&mut self, index: usize) {
        self.join_pair(index);
        if let Some(left) = index.checked_sub(1) {
            self.join_pair(left);
        }
    }

    fn join_pair(&mut self, left: usize) {
        let touches = self.span_at(left).end == self.start_at(left + 1);
        let (Some(a), Some(b)) = (self.extents.get(left), self.extents.get(left + 1)) else {
            return;
        };
        let states = (self.extents.state(left), self.extents.state(left + 1));
        let (Some(a_state), Some(b_state)) = states else {
            return;
        };
        let same = match (a_state, b_state) {
            (ExtentState::Zero, ExtentState::Zero) => true,
            (ExtentState::Clean, ExtentState::Clean) => {
                b.slab.as_ref().is_some_and(|slab| a.is_in(slab)) && a.at + a.len == b.at
            }
            _ => false,
        };
        if !touches || !same {
            return;
        }
        let (len, stamp) = (b.len, a.stamp.max(b.stamp));
        let mark = a.mark.merged(&b.mark);
        let kind = b_state.kind();
        self.extents.remove(left + 1);
        if let Some(whole) = self.extents.get_mut(left) {
            whole.len += len;
            whole.stamp = stamp;
            whole.mark = mark;
        }
        self.totals.count(kind, 0, -1);
        self.changed = true;
    }
}

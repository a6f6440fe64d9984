//! Putting written bytes into a window (rules W-02, W-03, B-04, B-06).

use std::sync::Arc;

use bytes::Bytes;

use super::{Access, Span, Window};
use crate::buf::Slab;
use crate::engine::extent::{Extent, ExtentState, Mark, Written};
use crate::engine::slab::Slabs;
use crate::engine::window::Dropped;

/// Touching small writes are joined into one buffer up to this size.
const JOIN_BYTES_MAX: usize = 4 << 10;

/// The bytes of a write.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// To be copied.
    Lent(&'a [u8]),
    /// The window may keep their memory, if nobody else holds it; what is left shows the same bytes.
    Given(&'a mut Bytes),
}

impl<'a> Source<'a> {
    /// Those bytes of `data` that stand from `from` on; given, where that is all of them.
    pub(crate) fn of(data: &'a mut Bytes, from: u64, len: u32) -> Option<Self> {
        let from = usize::try_from(from).ok()?;
        if from == 0 && data.len() == len as usize {
            return Some(Self::Given(data));
        }
        data.get(from..from.saturating_add(len as usize))
            .map(Self::Lent)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Given(bytes) => bytes,
        }
    }

    /// Whether keeping the memory is less work than copying the bytes.
    fn is_worth_keeping(&self) -> bool {
        match self {
            Self::Lent(_) => false,
            Self::Given(bytes) => Slabs::is_worth_keeping(bytes),
        }
    }
}

/// One write of one run of bytes inside a window.
#[derive(Debug)]
pub(crate) struct Put<'a> {
    pub(crate) span: Span,
    /// As many bytes as `span` is long.
    pub(crate) source: Source<'a>,
    pub(crate) written: Written,
    pub(crate) access: Access,
}

/// Why a write can't be put yet; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PutError {
    /// Bytes beneath belong to an older snapshot context and must reach the store first (rule W-09).
    OlderContext,
}

/// What a write displaced.
#[derive(Debug, Default)]
pub(crate) struct PutOutcome {
    /// Bytes that were in flight to the store.
    pub(crate) overwritten_tx_bytes: u64,
    /// Bytes of journal entries that will not be written back.
    pub(crate) displaced: Dropped,
}

impl Window {
    /// Whether a write may enter: no dirty byte beneath it belongs to an older context.
    pub(crate) fn may_put(&self, span: Span, context: u64) -> bool {
        let mut overlapping = self.extents.overlapping(span);
        overlapping.all(|index| {
            let written = self.extents.state(index).and_then(ExtentState::written);
            written.is_none_or(|beneath| beneath.context >= context)
        })
    }

    /// Whether callers may put a write in without the set's actor: it may enter, and brings nothing that a read waits
    /// for, which is to be answered then (rule R-04).
    pub(crate) fn may_absorb(&self, span: Span, context: u64) -> bool {
        self.may_put(span, context) && !(self.awaited && self.lacking(span).is_some())
    }

    /// Makes exactly `put.span` dirty with `put.bytes`.
    ///
    /// # Errors
    /// [`PutError::OlderContext`] when older bytes must be written back first; then nothing changed.
    pub(crate) fn put(&mut self, put: Put<'_>) -> Result<PutOutcome, PutError> {
        if !self.may_put(put.span, put.written.context) {
            return Err(PutError::OlderContext);
        }
        // Memory is kept only in place of all that it lies over: else it would be held beside the rest of that.
        let is_kept = put.source.is_worth_keeping() && self.covers_whole(put.span);
        if !is_kept && (self.overwrite(&put) || self.dirty_whole(&put) || self.append(&put)) {
            return Ok(PutOutcome::default());
        }
        Ok(self.replace(put))
    }

    /// Whether no extent lies across an edge of `span`.
    fn covers_whole(&self, span: Span) -> bool {
        let mut overlapping = self.extents.overlapping(span);
        overlapping.all(|index| span.contains(self.span_at(index)))
    }

    /// Puts in a write that changes nothing of what the window costs or counts: one that overwrites dirty bytes where
    /// they lie. Says whether it did; else nothing was changed.
    pub(crate) fn absorb(&mut self, put: &Put<'_>) -> bool {
        !put.source.is_worth_keeping() && self.overwrite(put)
    }

    /// Overwrites bytes inside one dirty extent whose memory nobody else holds: no allocation, no new extent.
    fn overwrite(&mut self, put: &Put<'_>) -> bool {
        let index = self.find(put.span.start);
        let Some((extent, ExtentState::Dirty(written))) = self.extents.both_mut(index) else {
            return false;
        };
        if !written.may_join(&put.written) || !extent.overwrite(put) {
            return false;
        }
        *written = written.joined(&put.written);
        true
    }

    /// Makes a clean extent that the write covers exactly dirty, in memory that nobody else holds.
    fn dirty_whole(&mut self, put: &Put<'_>) -> bool {
        let index = self.find(put.span.start);
        let Some((extent, ExtentState::Clean)) = self.extents.both_mut(index) else {
            return false;
        };
        if extent.span() != put.span || !extent.overwrite(put) {
            return false;
        }
        extent.stamp = 0;
        self.set_state(index, ExtentState::Dirty(put.written));
        true
    }

    /// Extends the dirty extent that ends where the write starts, where its buffer has room behind it.
    fn append(&mut self, put: &Put<'_>) -> bool {
        let next = self.find(put.span.start);
        let Some(index) = next.checked_sub(1) else {
            return false;
        };
        let touches = self.span_at(index).end == put.span.start;
        if !touches || self.start_at(next) < put.span.end {
            return false;
        }
        let Some(ExtentState::Dirty(old)) = self.extents.state(index) else {
            return false;
        };
        if !old.may_join(&put.written) {
            return false;
        }
        let state = ExtentState::Dirty(old.joined(&put.written));
        let Some(extent) = self.extents.get_mut(index) else {
            return false;
        };
        let Some(slab) = &mut extent.slab else {
            return false;
        };
        let from = (extent.at + extent.len) as usize;
        let bytes = put.source.bytes();
        let Some(buffer) =
            Slab::unique(slab).and_then(|buffer| buffer.get_mut(from..from + bytes.len()))
        else {
            return false;
        };
        buffer.copy_from_slice(bytes);
        Slabs::retain(slab, put.span.len());
        extent.len += put.span.len();
        put.access.mark(extent, true);
        self.totals.count(state.kind(), put.span.len(), 1);
        self.totals.count(state.kind(), 0, -1);
        if let Some(held) = self.extents.state_mut(index) {
            *held = state;
        }
        self.changed = true;
        true
    }

    /// The general case: whatever lies in the span goes, a new extent takes its place.
    fn replace(&mut self, put: Put<'_>) -> PutOutcome {
        let covered = self.cut_out(put.span);
        let missing = covered.is_empty();
        let mut written = put.written;
        let mut dropped = Dropped::default();
        let mut tx_bytes = 0;
        for index in covered.clone() {
            let Some(state) = self.extents.state(index) else {
                break;
            };
            if let ExtentState::Dirty(old) = state {
                written.since = written.since.min(old.since);
                written.epoch = written.epoch.min(old.epoch);
            }
            if let Some(beneath) = state.written() {
                // Dirty bytes are never put back under an older context than they lie on.
                written.context = written.context.max(beneath.context);
            }
            if matches!(state, ExtentState::Tx { .. }) {
                tx_bytes += u64::from(self.span_at(index).len());
            }
        }
        self.remove_indexes(covered.clone(), &mut dropped);
        dropped
            .journal
            .retain(|(_, tid)| Some(*tid) != put.written.journal);
        let access = put.access;
        let (first, start, slab, at, len) = self.lay_down(covered.start, put, &mut written);
        let mark = Mark::default();
        let extent = Extent {
            slab: Some(slab),
            start,
            len,
            at,
            stamp: 0,
            mark,
        };
        match access {
            Access::DontNeed => extent.mark.set_dont_need(),
            Access::NoCache if missing => extent.mark.set_no_cache(),
            // What is new has yet to show that it is used again.
            Access::Plain | Access::NoCache | Access::Arrived | Access::Quiet if missing => {}
            Access::Plain | Access::NoCache | Access::Arrived | Access::Quiet => {
                extent.mark.touch();
            }
        }
        self.insert(first, extent, ExtentState::Dirty(written));
        PutOutcome {
            overwritten_tx_bytes: tx_bytes,
            displaced: dropped,
        }
    }

    /// Takes the bytes in, joined with small dirty neighbours that they touch, so that many tiny writes don't
    /// cost an extent each (rule B-06). The joined buffer has room to grow.
    fn lay_down(
        &mut self,
        index: usize,
        put: Put<'_>,
        written: &mut Written,
    ) -> (usize, u32, Arc<Slab>, u32, u32) {
        let mut span = put.span;
        let bytes = put.source.bytes();
        let left = index
            .checked_sub(1)
            .filter(|left| self.span_at(*left).end == span.start)
            .filter(|left| self.may_join_small(*left, bytes.len(), written));
        let left_len = left.map_or(0, |left| self.span_at(left).len());
        let right = Some(index)
            .filter(|right| self.start_at(*right) == span.end)
            .filter(|right| self.may_join_small(*right, bytes.len() + left_len as usize, written));
        if left.is_none() && right.is_none() {
            let slab = match put.source {
                Source::Lent(bytes) => self.slabs.copy_in(bytes),
                Source::Given(bytes) => self.slabs.take_given(bytes),
            };
            return (index, span.start, slab, 0, span.len());
        }
        let right_len = right.map_or(0, |right| self.span_at(right).len());
        let total = left_len as usize + bytes.len() + right_len as usize;
        let mut buffer = [0u8; JOIN_BYTES_MAX];
        let parts = [self.bytes_at(left), Some(bytes), self.bytes_at(right)];
        let mut filled = 0;
        for part in parts.into_iter().flatten() {
            if let Some(room) = buffer.get_mut(filled..filled + part.len()) {
                room.copy_from_slice(part);
            }
            filled += part.len();
        }
        for joined in [left, right].into_iter().flatten() {
            if let Some(old) = self.extents.state(joined).and_then(ExtentState::written) {
                *written = old.joined(written);
            }
        }
        let mut ignored = Dropped::default();
        if let Some(right) = right {
            span.end += right_len;
            self.remove_indexes(right..right + 1, &mut ignored);
        }
        let mut first = index;
        if let Some(left) = left {
            span.start -= left_len;
            self.remove_indexes(left..left + 1, &mut ignored);
            first = left;
        }
        let capacity = total.next_power_of_two().min(JOIN_BYTES_MAX);
        let buffer = Box::from(buffer.get(..capacity).unwrap_or(&buffer));
        let slab = self.slabs.take(buffer, span.len());
        (first, span.start, slab, 0, span.len())
    }

    fn bytes_at(&self, index: Option<usize>) -> Option<&[u8]> {
        let extent = self.extents.get(index?)?;
        extent.slab.as_ref()?.slice(extent.at, extent.len)
    }

    fn may_join_small(&self, index: usize, len: usize, written: &Written) -> bool {
        let state = self.extents.state(index);
        matches!(state, Some(ExtentState::Dirty(old)) if old.may_join(written))
            && self.span_at(index).len() as usize + len <= JOIN_BYTES_MAX
    }
}

impl Extent {
    /// Overwrites bytes where they lie, if all of them lie here and nobody else holds their memory.
    fn overwrite(&mut self, put: &Put<'_>) -> bool {
        if !self.span().contains(put.span) {
            return false;
        }
        let at = (self.at + (put.span.start - self.start)) as usize;
        let bytes = put.source.bytes();
        let buffer = self.slab.as_mut().and_then(Slab::unique);
        let Some(room) = buffer.and_then(|buffer| buffer.get_mut(at..at + bytes.len())) else {
            return false;
        };
        room.copy_from_slice(bytes);
        put.access.mark(self, true);
        true
    }
}

impl Written {
    /// Whether bytes written so may become one extent (rule B-04).
    fn may_join(&self, other: &Self) -> bool {
        self.context == other.context && self.journal == other.journal
    }

    fn joined(&self, other: &Self) -> Self {
        Self {
            since: self.since.min(other.since),
            modified: self.modified.max(other.modified),
            epoch: self.epoch.min(other.epoch),
            context: self.context.max(other.context),
            journal: self.journal,
        }
    }
}

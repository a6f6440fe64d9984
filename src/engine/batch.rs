//! Gathering dirty extents of one object into one write, within what the store takes (rules F-02, W-04).

use bytes::Bytes;

use super::extent::{OpId, Written};
use super::object::{InFlight, Turn, range_of};
use super::window::{Cutoff, Offer, Sink, Span};
use crate::io::{Capabilities, WriteRun};
use crate::types::{ByteRange, Timestamp};

/// A write that takes shape.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    op: OpId,
    capabilities: Capabilities,
    cutoff: Cutoff,
    turn: Turn,
    in_flight: Vec<&'a InFlight>,
    /// The window whose extents are offered.
    index: u64,
    /// Whether a writeback under way may lie over the window's dirty bytes.
    checks_overlap: bool,
    pub(super) load: Load,
}

/// What a write carries.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) runs: Vec<WriteRun>,
    /// What the runs cover, joined where they touch.
    pub(super) ranges: Vec<ByteRange>,
    pub(super) bytes: u64,
    pub(super) buffers: usize,
    pub(super) modified: Timestamp,
    /// The oldest flush epoch of it.
    pub(super) epoch: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        op: OpId,
        capabilities: Capabilities,
        (cutoff, turn): (Cutoff, Turn),
        in_flight: Vec<&'a InFlight>,
    ) -> Self {
        Self {
            op,
            capabilities,
            cutoff,
            turn,
            in_flight,
            index: 0,
            checks_overlap: false,
            load: Load {
                runs: Vec::new(),
                ranges: Vec::new(),
                bytes: 0,
                buffers: 0,
                modified: Timestamp::default(),
                epoch: u64::MAX,
            },
        }
    }

    /// From now on, extents of this window are offered.
    pub(super) const fn enter_window(&mut self, index: u64, checks_overlap: bool) {
        self.index = index;
        self.checks_overlap = checks_overlap;
    }

    fn is_over(&self, range: ByteRange) -> bool {
        self.checks_overlap && self.in_flight.iter().any(|flight| flight.overlaps(range))
    }

    fn has_room(&self, range: ByteRange, written: &Written) -> bool {
        let Some(last) = self.load.ranges.last() else {
            return true;
        };
        let touches = last.end() == range.start()
            && self
                .load
                .runs
                .last()
                .is_some_and(|run| run.journal_tid == written.journal);
        self.load.bytes + range.len() <= self.capabilities.write_bytes_max
            && self.load.buffers < self.capabilities.write_pieces_max
            && (touches || self.capabilities.scattered_writes)
    }
}

impl Sink for Batch<'_> {
    fn offer(&mut self, span: Span, written: &Written) -> Offer {
        let Some(range) = range_of(self.index, span) else {
            return Offer::Skip;
        };
        let is_due = self.turn.is_waited_for || self.cutoff.takes(written);
        if written.context != self.turn.context || !is_due || self.is_over(range) {
            return Offer::Skip;
        }
        let bytes_max = self.capabilities.write_bytes_max.max(1);
        if self.load.ranges.is_empty() && range.len() > bytes_max {
            return u32::try_from(bytes_max)
                .map_or(Offer::Take(self.op), |len| Offer::TakeFirst(self.op, len));
        }
        if self.has_room(range, written) {
            Offer::Take(self.op)
        } else {
            Offer::Full
        }
    }

    fn take(&mut self, span: Span, written: &Written, bytes: Bytes) {
        let Some(range) = range_of(self.index, span) else {
            return;
        };
        let load = &mut self.load;
        load.bytes += range.len();
        load.buffers += 1;
        load.modified = load.modified.max(written.modified);
        load.epoch = load.epoch.min(written.epoch);
        let touches = load
            .ranges
            .last()
            .is_some_and(|last| last.end() == range.start());
        if let Some(run) = load.runs.last_mut()
            && touches
            && run.journal_tid == written.journal
        {
            run.buffers.push(bytes);
        } else {
            load.runs.push(WriteRun {
                offset: range.start(),
                buffers: vec![bytes],
                journal_tid: written.journal,
            });
        }
        match load.ranges.last_mut().filter(|_| touches) {
            Some(last) => *last = ByteRange::between(last.start(), range.end()).unwrap_or(range),
            None => load.ranges.push(range),
        }
    }
}

//! Writing back: which dirty bytes go in which order, and what becomes of them (rules F-01 to F-05, W-04, W-09).

use bytes::Bytes;

use super::action::{Action, WaiterId};
use super::eviction::Queue;
use super::extent::{OpId, Written};
use super::object::{InFlight, Retry, range_of, spans};
use super::set::{Op, OpWaiters, SetEngine};
use super::shelf::{Counter, Shelf};
use super::window::{Cutoff, Offer, Sink, Span, WriteEnd};
use crate::error::{BackendError, CacheError};
use crate::io::{BackendWrite, Capabilities, JournalNotice, WriteRun};
use crate::types::{ByteRange, Moment, SnapContext, Timestamp};

/// The age of an object of which nothing may go before a pause or a writeback under way ends.
const PARKED: Moment = Moment::from_nanos(u64::MAX);

/// What the flusher wants written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demand {
    /// About this many bytes.
    pub(crate) bytes: u64,
    /// Only what has been dirty since then or longer.
    pub(crate) since: Moment,
}

/// A writeback under way.
#[derive(Debug)]
pub(super) struct WriteBack {
    object: usize,
    bytes: u64,
    /// Flushes that wait for it.
    pub(super) flushes: Vec<WaiterId>,
    pub(super) started: Moment,
    pub(super) waiters: OpWaiters,
}

/// What came of an attempt to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    /// So many bytes; what is left starts at the position.
    Bytes { bytes: u64, next: u64 },
    /// Nothing may go now.
    Nothing,
}

/// Gathers dirty extents of one object into one write.
struct Batch<'a> {
    op: OpId,
    capabilities: Capabilities,
    cutoff: Cutoff,
    context: u64,
    /// Bytes of this context go whatever the cutoff says: newer ones wait for them.
    ignores_cutoff: bool,
    in_flight: Vec<&'a InFlight>,
    index: u64,
    checks_overlap: bool,
    runs: Vec<WriteRun>,
    ranges: Vec<ByteRange>,
    bytes: u64,
    buffers: usize,
    modified: Timestamp,
    epoch: u64,
}

impl Batch<'_> {
    fn is_over(&self, range: ByteRange) -> bool {
        self.checks_overlap && self.in_flight.iter().any(|flight| flight.overlaps(range))
    }

    fn has_room(&self, range: ByteRange, written: &Written) -> bool {
        let Some(last) = self.ranges.last() else {
            return true;
        };
        let touches = last.end() == range.start()
            && self
                .runs
                .last()
                .is_some_and(|run| run.journal_tid == written.journal);
        self.bytes + range.len() <= self.capabilities.write_bytes_max
            && self.buffers < self.capabilities.write_pieces_max
            && (touches || self.capabilities.scattered_writes)
    }
}

impl Sink for Batch<'_> {
    fn offer(&mut self, span: Span, written: &Written) -> Offer {
        let Some(range) = range_of(self.index, span) else {
            return Offer::Skip;
        };
        let is_due = self.ignores_cutoff || self.cutoff.takes(written);
        if written.context != self.context || !is_due || self.is_over(range) {
            return Offer::Skip;
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
        self.bytes += range.len();
        self.buffers += 1;
        self.modified = self.modified.max(written.modified);
        self.epoch = self.epoch.min(written.epoch);
        let touches = self
            .ranges
            .last()
            .is_some_and(|last| last.end() == range.start());
        if let Some(run) = self.runs.last_mut()
            && touches
            && run.journal_tid == written.journal
        {
            run.buffers.push(bytes);
        } else {
            let offset = range.start();
            let run = WriteRun {
                offset,
                buffers: vec![bytes],
                journal_tid: written.journal,
            };
            self.runs.push(run);
        }
        match self.ranges.last_mut().filter(|_| touches) {
            Some(last) => *last = ByteRange::between(last.start(), range.end()).unwrap_or(range),
            None => self.ranges.push(range),
        }
    }
}

impl<S: Shelf> SetEngine<S> {
    /// The flusher wants bytes written back; replaces what it wanted before.
    pub(crate) fn write_back(&mut self, now: Moment, demand: Demand) {
        self.adopt();
        self.demand = Some(demand);
        self.pump(now);
        self.finish();
    }

    /// What the flusher asked for and is not yet sent, since enough is in flight.
    pub(crate) fn demanded_bytes(&self) -> u64 {
        self.demand.map_or(0, |demand| demand.bytes)
    }

    /// Since when the oldest dirty bytes have been dirty.
    pub(crate) fn oldest_dirty(&mut self) -> Option<Moment> {
        self.adopt();
        self.aging
            .first()
            .map(|(since, _)| *since)
            .filter(|since| *since < PARKED)
    }

    /// Sends what somebody waits for, then what the flusher wants, as far as the limit in flight allows.
    pub(super) fn pump(&mut self, now: Moment) {
        while self.writebacks_in_flight < self.limits.writebacks_in_flight {
            let Some(object) = self.urgent.first().copied() else {
                break;
            };
            let cutoff = self.urgent_cutoff(object);
            if !self.send_some(now, object, cutoff) {
                self.urgent.remove(&object);
            }
        }
        while self.writebacks_in_flight < self.limits.writebacks_in_flight {
            let Some(demand) = self.demand else { break };
            let due = self
                .aging
                .first()
                .copied()
                .filter(|(since, _)| *since <= demand.since);
            let Some((since, object)) = due.filter(|_| demand.bytes > 0) else {
                self.demand = None;
                break;
            };
            if !self.send_some(now, object, Cutoff::Since(demand.since)) {
                self.aging.remove(&(since, object));
                self.reorder(object, Some(since));
            }
        }
    }

    /// How far the flushes and writes that wait for the object reach; all of it after a pause.
    fn urgent_cutoff(&self, object: usize) -> Cutoff {
        let Some(object) = self.objects.get(object) else {
            return Cutoff::Epoch(0);
        };
        let waits_for_all = object.retry.is_some() || !object.context_waits.is_empty();
        let epoch = object
            .flushes
            .iter()
            .map(|flush| flush.epoch)
            .max()
            .unwrap_or(0);
        Cutoff::Epoch(if waits_for_all { u64::MAX } else { epoch })
    }

    /// Files the object under the age of what it still has to send; if none of that may go now, behind the
    /// others.
    fn reorder(&mut self, object: usize, blocked_at: Option<Moment>) {
        let oldest = self.objects.get(object).and_then(|known| {
            let windows = known
                .listed
                .iter()
                .filter_map(|index| known.windows.get(index));
            windows
                .filter_map(|window| {
                    self.look(*window, |window| {
                        window
                            .dirty(Span::ALL)
                            .map(|(_, written)| written.since)
                            .min()
                    })?
                })
                .min()
        });
        let Some(known) = self.objects.get_mut(object) else {
            return;
        };
        let due = oldest.map(|oldest| {
            // Blocked by a writeback of its own: its end files the object anew.
            if blocked_at.is_some_and(|blocked_at| oldest <= blocked_at) {
                PARKED
            } else {
                oldest
            }
        });
        known.due = due;
        if let Some(due) = due {
            self.aging.insert((due, object));
        }
    }

    /// Sends everything dirty of an object at once, whatever its pause and the limit in flight.
    pub(super) fn send_all(&mut self, now: Moment, object: usize) {
        let mut from = 0;
        while let Sent::Bytes { next, .. } =
            self.send_batch(now, object, Cutoff::Epoch(u64::MAX), from)
        {
            from = next;
        }
    }

    /// Sends batches of the object until none is left, the limit in flight is reached or the demand is met.
    /// Returns whether there may be more to send.
    fn send_some(&mut self, now: Moment, object: usize, cutoff: Cutoff) -> bool {
        if self
            .objects
            .get(object)
            .is_none_or(|object| object.is_paused(now))
        {
            return false;
        }
        let mut from = 0;
        while self.writebacks_in_flight < self.limits.writebacks_in_flight {
            match self.send_batch(now, object, cutoff, from) {
                Sent::Nothing => return false,
                Sent::Bytes { bytes, next } => {
                    from = next;
                    if let (Cutoff::Since(_), Some(demand)) = (cutoff, &mut self.demand) {
                        demand.bytes = demand.bytes.saturating_sub(bytes);
                        if demand.bytes == 0 {
                            return true;
                        }
                    }
                }
            }
        }
        true
    }

    /// The snapshot context that may be sent now: the oldest that is dirty, unless an older one is under way.
    fn context_to_send(&self, object: usize) -> Option<(u64, bool)> {
        let known = self.objects.get(object)?;
        let (mut oldest, mut newest) = (u64::MAX, 0);
        for index in &known.listed {
            let Some(window) = known.windows.get(index) else {
                continue;
            };
            self.look(*window, |window| {
                for (_, written) in window.dirty(Span::ALL) {
                    oldest = oldest.min(written.context);
                    newest = newest.max(written.context);
                }
            });
        }
        if oldest == u64::MAX {
            return None;
        }
        let is_held_up = known
            .writebacks
            .values()
            .any(|flight| flight.context < oldest);
        (!is_held_up).then_some((oldest, oldest < newest))
    }

    /// Sends one write of the object's dirty bytes at or behind `from`.
    fn send_batch(&mut self, now: Moment, object: usize, cutoff: Cutoff, from: u64) -> Sent {
        let Some((context, ignores_cutoff)) = self.context_to_send(object) else {
            return Sent::Nothing;
        };
        let op = self.next_op();
        let Some(known) = self.objects.get(object) else {
            return Sent::Nothing;
        };
        let mut batch = Batch {
            op,
            capabilities: self.options.capabilities,
            cutoff,
            context,
            ignores_cutoff,
            in_flight: known.writebacks.values().collect(),
            index: 0,
            checks_overlap: false,
            runs: Vec::new(),
            ranges: Vec::new(),
            bytes: 0,
            buffers: 0,
            modified: Timestamp::default(),
            epoch: u64::MAX,
        };
        let first = from / super::window::WINDOW_BYTES;
        let mut emptied: Vec<usize> = Vec::new();
        let mut settlements = Vec::new();
        for index in known.listed.range(first..) {
            let Some(window) = known.windows.get(index) else {
                continue;
            };
            let Some(entry) = self.windows.get(*window) else {
                continue;
            };
            let mut guard = S::lock(&entry.slot);
            batch.index = *index;
            batch.checks_overlap = guard.has_overtaken();
            let is_full = guard.send(Span::ALL, &mut batch);
            if guard.dirty(Span::ALL).next().is_none() {
                guard.listed = false;
                emptied.push(*window);
            }
            settlements.push(guard.settle());
            drop(guard);
            if is_full {
                break;
            }
        }
        let Batch {
            runs,
            ranges,
            bytes,
            modified,
            epoch,
            ..
        } = batch;
        for settlement in settlements {
            self.account(settlement);
        }
        let Some(last) = ranges.last().copied() else {
            self.unlist(object, &emptied);
            return Sent::Nothing;
        };
        self.start_write_back(
            now,
            (op, object),
            (runs, ranges, bytes),
            (context, modified, epoch),
        );
        self.unlist(object, &emptied);
        Sent::Bytes {
            bytes,
            next: last.end(),
        }
    }

    fn unlist(&mut self, object: usize, windows: &[usize]) {
        for window in windows {
            let Some(entry) = self.windows.get(*window) else {
                continue;
            };
            let index = entry.index;
            if let Some(object) = self.objects.get_mut(object) {
                object.listed.remove(&index);
            }
        }
        self.note_stored(object);
    }

    fn start_write_back(
        &mut self,
        now: Moment,
        (op, object): (OpId, usize),
        (runs, ranges, bytes): (Vec<WriteRun>, Vec<ByteRange>, u64),
        (context, modified, epoch): (u64, Timestamp, u64),
    ) {
        let Some(known) = self.objects.get_mut(object) else {
            return;
        };
        let mut flushes = Vec::new();
        for flush in &mut known.flushes {
            if epoch <= flush.epoch && ranges.iter().any(|range| flush.concerns(*range)) {
                flush.ops += 1;
                flushes.push(flush.waiter);
            }
        }
        known.writebacks.insert(op, InFlight { ranges, context });
        let (name, key) = (known.name.clone(), known.id.key.clone());
        let waiters = OpWaiters::default();
        let write_back = WriteBack {
            object,
            bytes,
            flushes,
            started: now,
            waiters,
        };
        self.ops.insert(op, Op::WriteBack(write_back));
        self.writebacks_in_flight += 1;
        self.shelf.count(Counter::WriteBackOps, 1);
        self.shelf.count(Counter::WriteBackBytes, bytes);
        let seq = context;
        let context = self.contexts.get(&seq).cloned().unwrap_or(SnapContext {
            seq,
            snaps: std::sync::Arc::default(),
        });
        let truncation = self.truncation_of(&key);
        let write = BackendWrite {
            object: name,
            runs,
            context,
            modified,
            truncation,
        };
        self.actions.push_back(Action::WriteBack { op, write });
    }

    /// A writeback has ended. Late and doubled ends change nothing (rule F-05).
    pub(crate) fn handle_write_back(
        &mut self,
        now: Moment,
        op: OpId,
        result: Result<(), BackendError>,
    ) {
        self.adopt();
        self.end_write_back(now, op, result);
        self.finish();
    }

    pub(super) fn end_write_back(
        &mut self,
        now: Moment,
        op: OpId,
        result: Result<(), BackendError>,
    ) {
        let Some(Op::WriteBack(_)) = self.ops.get(&op) else {
            return;
        };
        let Some(Op::WriteBack(ended)) = self.ops.remove(&op) else {
            return;
        };
        self.writebacks_in_flight -= 1;
        let number = ended.object;
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        let Some(flight) = object.writebacks.remove(&op) else {
            return;
        };
        self.land(now, op, number, (&flight.ranges, result.is_ok()));
        match result {
            Ok(()) => self.note_success(number, &flight.ranges),
            Err(error) => self.note_failure(now, number, (&flight.ranges, error), &ended.flushes),
        }
        self.note_stored(number);
        for flush in ended.flushes {
            self.flush_advances(flush, number);
        }
        for waiter in ended.waiters.drops {
            self.drop_advances(waiter);
        }
        for reader in ended.waiters.reads {
            self.read_advances(now, reader);
        }
        self.retry_context_waits(now, number);
        if self
            .objects
            .get(number)
            .is_some_and(|object| object.due == Some(PARKED))
        {
            self.aging.remove(&(PARKED, number));
            self.reorder(number, None);
        }
        if self
            .objects
            .get(number)
            .is_some_and(|object| !object.flushes.is_empty())
        {
            self.urgent.insert(number);
        }
        self.pump(now);
        self.close_if_empty(number);
    }

    /// Brings the end of a writeback to the windows that it came from.
    fn land(
        &mut self,
        now: Moment,
        op: OpId,
        object: usize,
        (ranges, is_stored): (&[ByteRange], bool),
    ) {
        let name = self.objects.get(object).map(|object| object.name.clone());
        let mut by_window: Vec<(u64, Vec<Span>)> = Vec::new();
        for (index, span) in ranges.iter().flat_map(|range| spans(*range)) {
            match by_window.last_mut().filter(|(last, _)| *last == index) {
                Some((_, parts)) => parts.push(span),
                None => by_window.push((index, vec![span])),
            }
        }
        for (index, parts) in by_window {
            let window = self
                .objects
                .get(object)
                .and_then(|known| known.windows.get(&index));
            let Some(window) = window.copied() else {
                continue;
            };
            let stamp = self.evictor.stamp();
            let end = if is_stored {
                WriteEnd::Stored { stamp }
            } else {
                WriteEnd::Failed
            };
            let carried: u64 = parts.iter().map(|part| u64::from(part.len())).sum();
            let mut landed = 0;
            let mut committed = Vec::new();
            self.edit(window, |window| {
                for part in &parts {
                    let outcome = window.end_write_back(*part, op, end);
                    landed += outcome.bytes;
                    committed.extend(outcome.committed);
                }
                window.land_overtaken(carried.saturating_sub(landed));
                if is_stored {
                    for part in &parts {
                        window.join_clean(*part);
                    }
                }
            });
            if let Some(name) = &name {
                for (span, tid) in committed {
                    let Some(range) = range_of(index, span) else {
                        continue;
                    };
                    let notice = JournalNotice::Committed {
                        object: name.clone(),
                        range,
                        tid,
                    };
                    self.actions.push_back(Action::Journal(notice));
                }
            }
            let (first, last) = (parts.first(), parts.last());
            if let (true, Some(first), Some(last)) = (is_stored, first, last) {
                let span = Span {
                    start: first.start,
                    end: last.end,
                };
                self.queue_for_eviction(now, (window, span), stamp, (landed, Queue::Small));
                self.cool(window);
            }
            self.note_dirty(window);
        }
    }

    fn note_success(&mut self, number: usize, ranges: &[ByteRange]) {
        self.last_error = None;
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        if let Some(retry) = object.retry.take() {
            self.pausing.remove(&(retry.not_before, number));
        }
        if object.absent {
            object.absent = false;
            let (name, snap) = (object.name.clone(), object.id.snap);
            let may_copy = ranges
                .iter()
                .any(|range| self.shelf.may_copy_on_write(&name, *range, snap));
            if may_copy && let Some(object) = self.objects.get_mut(number) {
                object.complete = false;
            }
        }
    }

    fn note_failure(
        &mut self,
        now: Moment,
        number: usize,
        (ranges, error): (&[ByteRange], BackendError),
        flushes: &[WaiterId],
    ) {
        self.shelf.count(Counter::WriteBackErrors, 1);
        self.last_error = Some(error.clone());
        let (min, max) = (self.limits.retry_delay_min, self.limits.retry_delay_max);
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        let failures = object.retry.map_or(0, |retry| retry.failures);
        if let Some(retry) = object.retry {
            self.pausing.remove(&(retry.not_before, number));
        }
        let delay = min
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(max);
        let not_before = now.after(delay);
        object.retry = Some(Retry {
            failures: failures.saturating_add(1),
            not_before,
        });
        self.pausing.insert((not_before, number));
        let (first, last) = (ranges.first(), ranges.last());
        let range = first
            .zip(last)
            .and_then(|(a, b)| ByteRange::between(a.start(), b.end()));
        if let (Some(range), Some(object)) = (range, self.objects.get(number)) {
            let error = CacheError::WriteBack {
                object: object.name.clone(),
                range,
                source: error,
            };
            for flush in flushes {
                self.fail_flush(*flush, &error);
            }
        }
    }
}

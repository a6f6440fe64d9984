//! What the end of a writeback brings (rules F-03 to F-05, F-08, J-02).

use super::action::{Action, WaiterId};
use super::eviction::Queue;
use super::extent::OpId;
use super::object::{Retry, range_of, spans};
use super::set::{Op, SetEngine};
use super::shelf::{Counter, Shelf};
use super::window::{Span, WriteEnd};
use crate::error::{BackendError, CacheError};
use crate::io::JournalNotice;
use crate::types::{ByteRange, Moment};

impl<S: Shelf> SetEngine<S> {
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
        let Some(Op::WriteBack(mut ended)) = self.ops.remove(&op) else {
            return;
        };
        ended.waiters.reads.sort_unstable();
        self.writebacks_in_flight -= 1;
        let number = ended.object;
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        let Some(flight) = object.end_writeback(op) else {
            return;
        };
        object.absence_in_doubt = false;
        // Whether it was stored or not: what fetches say of absence may be older than it.
        for fetch in object.fetches.clone() {
            if let Some(Op::Fetch(fetch)) = self.ops.get_mut(&fetch) {
                fetch.trusts_absence = false;
            }
        }
        self.land(now, op, number, (&flight.ranges, result.is_ok()));
        let is_stored = result.is_ok();
        match result {
            Ok(()) => self.note_success(now, number, &flight.ranges),
            Err(error) => self.note_failure(now, number, (&flight.ranges, error), &ended.flushes),
        }
        self.note_stored(number);
        self.flushes_advance(ended.flushes, number);
        for waiter in ended.waiters.drops {
            self.drop_advances(waiter);
        }
        for reader in ended.waiters.reads {
            self.read_advances(now, reader);
        }
        self.retry_context_waits(now, number);
        if is_stored {
            self.end_pause(now, number);
        }
        self.unpark(number);
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
            let outcome = self.edit(window, |window| window.end_write_back(&parts, op, end));
            let Some(outcome) = outcome else { continue };
            if let Some(name) = &name {
                for (span, tid) in outcome.committed {
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
                let queued = (outcome.bytes, Queue::Small);
                self.queue_for_eviction(now, (window, span), stamp, queued);
                self.cool(window);
            }
            self.note_dirty(window);
        }
    }

    fn note_success(&mut self, now: Moment, number: usize, ranges: &[ByteRange]) {
        if !self.is_fenced {
            self.last_error = None;
        }
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        if let Some(retry) = &mut object.retry {
            // What has failed goes at once.
            self.pausing.remove(&(retry.not_before, number));
            *retry = Retry {
                failures: 0,
                not_before: now,
            };
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
        if error == BackendError::Fenced {
            self.fence(now);
        }
        if self.is_fenced {
            // Nothing is tried again, and nobody waits for it.
            return;
        }
        self.last_error = Some(error.clone());
        self.pause(now, number);
        let (first, last) = (ranges.first(), ranges.last());
        let range = first
            .zip(last)
            .and_then(|(a, b)| ByteRange::between(a.start(), b.end()));
        if let (Some(range), Some(object)) = (range, self.objects.get(number)) {
            let error = CacheError::WriteBack {
                object: object.name.clone(),
                range,
                source: error.clone(),
            };
            for flush in flushes {
                self.fail_flush(*flush, &error);
            }
        }
    }

    /// Holds the object's writebacks up for a while, longer with each failure (rule F-04). Those that fail together
    /// count as one failure.
    fn pause(&mut self, now: Moment, number: usize) {
        let (min, max) = (self.limits.retry_delay_min, self.limits.retry_delay_max);
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        if object.is_paused(now) {
            return;
        }
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
    }

    /// The object's pause is over, if there was one: what failed goes, and reads that waited for that go on.
    pub(super) fn end_pause(&mut self, now: Moment, number: usize) {
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        let Some(retry) = object.retry else { return };
        self.pausing.remove(&(retry.not_before, number));
        self.urgent.insert(number);
        self.unpark(number);
        self.wake_paused_reads(now, number);
    }

    /// Forgets earlier failures once all that they left behind is sent again and something was stored.
    pub(super) fn end_retry(&mut self, now: Moment, number: usize) {
        if let Some(object) = self.objects.get_mut(number)
            && object
                .retry
                .is_some_and(|retry| retry.failures == 0 && retry.not_before <= now)
        {
            object.retry = None;
        }
    }

    /// Reads that wait for the end of the object's pause are looked at again.
    pub(super) fn wake_paused_reads(&mut self, now: Moment, number: usize) {
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        for reader in std::mem::take(&mut object.paused_reads) {
            self.read_advances(now, reader);
        }
    }
}

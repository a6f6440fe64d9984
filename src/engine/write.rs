//! Writes that come as messages: room first, then all of an extent at once (rules W-01 to W-07, W-09).

use smallvec::SmallVec;

use super::action::{Action, Reply, WaiterId};
use super::object::{sole_span, spans};
use super::set::SetEngine;
use super::shelf::{Counter, Shelf};
use super::watch::LAST;
use super::window::{
    Access, Charge, EXTENT_OVERHEAD_BYTES, Put, PutOutcome, Settlement, Source, Span,
    WINDOW_OVERHEAD_BYTES,
};
use crate::engine::extent::Written;
use crate::request::{ObjectExtent, WriteRequest};
use crate::types::{ByteRange, Moment, Place, Timestamp};

/// A buffer is never made smaller than this, so that small neighbours can join it.
const BUFFER_BYTES_MIN: u64 = 4 << 10;

/// A write that is not yet answered.
#[derive(Debug)]
pub(super) struct WriteWait {
    request: WriteRequest,
    modified: Timestamp,
    context: u64,
    asked: Moment,
    is_blocked: bool,
    /// It was asked before the flush that ends write-through: the store answers it, whenever it enters.
    is_through: bool,
    /// How many of its extents have entered.
    entered: usize,
    /// Room that is reserved for the rest while it waits for an older context to be stored.
    held: Charge,
}

impl WriteWait {
    /// The extent that enters next.
    fn extent(&self) -> Option<&ObjectExtent> {
        self.request.extents.get(self.entered)
    }
}

/// What a write of `len` bytes into one window can cost at most: its bytes, and the parts it cuts.
pub(crate) fn put_charge(len: u64) -> Charge {
    let room = len.max(BUFFER_BYTES_MIN) + 3 * EXTENT_OVERHEAD_BYTES + WINDOW_OVERHEAD_BYTES;
    Charge {
        room: i64::try_from(room).unwrap_or(i64::MAX),
        dirty: i64::try_from(len).unwrap_or(i64::MAX),
        dirty_buffers: 3,
    }
}

/// The parts of an extent that lie in one window and in one place: the window's index, the part of the window, and
/// where its bytes are in the data.
pub(crate) fn slices(range: ByteRange, places: &[Place]) -> SmallVec<[(u64, Span, u64); 4]> {
    let mut slices = SmallVec::new();
    let mut parts = spans(range);
    let mut open: Option<(u64, Span)> = parts.next();
    for place in places {
        let (mut from, mut left) = (place.offset, place.len);
        while left > 0 {
            let Some((index, span)) = open else {
                return slices;
            };
            let len = u64::from(span.len()).min(left);
            let cut = span.start + u32::try_from(len).unwrap_or(u32::MAX);
            slices.push((
                index,
                Span {
                    start: span.start,
                    end: cut,
                },
                from,
            ));
            open = if cut < span.end {
                Some((
                    index,
                    Span {
                        start: cut,
                        end: span.end,
                    },
                ))
            } else {
                parts.next()
            };
            from += len;
            left -= len;
        }
    }
    slices
}

/// What a write of one extent can cost at most.
pub(crate) fn extent_charge(range: ByteRange, places: &[Place]) -> Charge {
    if places.len() == 1 && sole_span(range).is_some() {
        return put_charge(range.len());
    }
    let mut charge = Charge::default();
    for (_, span, _) in slices(range, places) {
        charge += put_charge(u64::from(span.len()));
    }
    charge
}

/// What a whole write can cost at most.
pub(crate) fn write_charge<'a>(extents: impl Iterator<Item = &'a ObjectExtent>) -> Charge {
    let mut charge = Charge::default();
    for extent in extents {
        charge += extent_charge(extent.range, &extent.places);
    }
    charge
}

impl<S: Shelf> SetEngine<S> {
    /// Writes. `request` has passed its checks. The answer is a [`Reply::Done`].
    pub(crate) fn write(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        request: WriteRequest,
        modified: Timestamp,
    ) {
        self.adopt();
        if self.is_fenced {
            let refused = self.fenced_error();
            self.reply(waiter, Reply::Done(Err(refused)));
            self.finish();
            return;
        }
        if let Some(context) = &request.context {
            self.contexts.insert(context.seq, context.clone());
        }
        let context = request
            .context
            .as_ref()
            .unwrap_or(&self.options.context)
            .seq;
        let charge = write_charge(request.extents.iter());
        let bytes: u64 = request
            .extents
            .iter()
            .map(|extent| extent.range.len())
            .sum();
        let mut wait = WriteWait {
            request,
            modified,
            context,
            asked: now,
            is_blocked: false,
            is_through: self.awaits_flush,
            entered: 0,
            held: Charge::default(),
        };
        if self.shelf.take_room(charge) {
            self.purse += charge;
            self.enter(now, waiter, wait);
        } else {
            wait.is_blocked = true;
            self.shelf.count(Counter::BlockedWriteOps, 1);
            self.shelf.count(Counter::BlockedWriteBytes, bytes);
            self.writes.insert(waiter, wait);
            self.actions.push_back(Action::AwaitRoom { waiter, charge });
        }
        self.finish();
    }

    /// Room that a read or write waited for has been reserved. A waiter that is gone gives it back.
    pub(crate) fn handle_room(&mut self, now: Moment, waiter: WaiterId, charge: Charge) {
        self.adopt();
        self.purse += charge;
        if let Some(wait) = self.writes.remove(&waiter) {
            self.enter(now, waiter, wait);
        } else {
            self.attempt_read(now, waiter, Some(charge));
            self.look_at_due(now, LAST);
        }
        self.finish();
    }

    /// A read or write whose caller is gone, or for which there will be no room, is forgotten. What has entered of
    /// a write stays.
    pub(crate) fn cancel_waiter(&mut self, waiter: WaiterId) {
        self.adopt();
        self.drop_write(waiter);
        self.drop_read(waiter);
        self.finish();
    }

    /// Forgets a write that waits, and gives back the room that it holds.
    pub(super) fn drop_write(&mut self, waiter: WaiterId) {
        let Some(wait) = self.writes.remove(&waiter) else {
            return;
        };
        self.purse += wait.held;
        let Some(extent) = wait.request.extents.get(wait.entered) else {
            return;
        };
        if let Some(number) = self.by_ref.get(&Self::head(&extent.object)).copied()
            && let Some(object) = self.objects.get_mut(number)
        {
            object.context_waits.retain(|waiting| *waiting != waiter);
            self.close_if_empty(number);
        }
    }

    /// Room that is reserved and not used: by writes that wait, and, amid a call, for what it is about to do.
    pub(crate) fn held_charge(&self) -> Charge {
        let mut held = self.held_by_writes();
        held += self.purse;
        held
    }

    /// The room that writes hold while they wait for older contexts to be stored.
    pub(crate) fn held_by_writes(&self) -> Charge {
        let mut held = Charge::default();
        for wait in self.writes.values() {
            held += wait.held;
        }
        held
    }

    /// Puts the write's extents in; stops at one that lies over dirty bytes of an older context.
    fn enter(&mut self, now: Moment, waiter: WaiterId, mut wait: WriteWait) {
        self.purse += std::mem::take(&mut wait.held);
        if wait.is_blocked {
            wait.is_blocked = false;
            let nanos = u64::try_from(now.since(wait.asked).as_nanos()).unwrap_or(u64::MAX);
            self.shelf.count(Counter::BlockedWriteNanos, nanos);
        }
        while let Some(extent) = wait.extent() {
            let Some(object) = self.open_object(&Self::head(&extent.object)) else {
                break;
            };
            if self.enter_extent(now, object, &mut wait) {
                wait.entered += 1;
                continue;
            }
            wait.held = write_charge(wait.request.extents.iter().skip(wait.entered));
            self.purse -= wait.held;
            self.writes.insert(waiter, wait);
            if let Some(object) = self.objects.get_mut(object) {
                object.context_waits.push(waiter);
            }
            self.urgent.insert(object);
            self.pump(now);
            self.look_at_due(now, LAST);
            return;
        }
        // Reads were asked before what they waited for.
        self.look_at_due(now, LAST);
        let bytes: u64 = wait
            .request
            .extents
            .iter()
            .map(|extent| extent.range.len())
            .sum();
        self.shelf.count(Counter::WriteOps, 1);
        self.shelf.count(Counter::WriteBytes, bytes);
        if self.limits.write_through || wait.is_through {
            self.flush_written(now, waiter, &wait.request.extents);
        } else {
            self.reply(waiter, Reply::Done(Ok(())));
        }
    }

    /// Puts one extent in whole, or not at all.
    fn enter_extent(&mut self, now: Moment, object: usize, wait: &mut WriteWait) -> bool {
        let Some(range) = wait.extent().map(|extent| extent.range) else {
            return true;
        };
        let windows: SmallVec<[usize; 4]> = spans(range)
            .filter_map(|(index, _)| self.open_window(object, index))
            .collect();
        let outcomes = self.put_extent(now, &windows, wait);
        let has_entered = outcomes.is_some();
        for (index, outcome) in outcomes.into_iter().flatten() {
            self.shelf.count(
                Counter::OverwrittenWhileFlushingBytes,
                outcome.overwritten_tx_bytes,
            );
            let new = wait.request.journal_tid;
            self.report_overwritten(object, index, outcome.displaced.journal, new);
        }
        if let Some(object) = self.objects.get_mut(object)
            && object.turn.is_some_and(|turn| turn.context != wait.context)
        {
            object.turn = None;
        }
        for ((_, span), window) in spans(range).zip(windows) {
            if has_entered {
                let watchers = self.watchers(window, span);
                self.due.extend(watchers);
                self.note_written(window);
            } else {
                self.close_window_if_idle(window);
            }
        }
        has_entered
    }

    /// Puts an extent's bytes into its windows under all their locks, unless one may not take them yet.
    fn put_extent(
        &mut self,
        now: Moment,
        windows: &[usize],
        wait: &mut WriteWait,
    ) -> Option<Vec<(u64, PutOutcome)>> {
        let extent = wait.extent()?;
        let slices = slices(extent.range, &extent.places);
        let (first, _, _) = *slices.first()?;
        let place = |index: u64| usize::try_from(index - first).unwrap_or(usize::MAX);
        let mut outcomes: Option<Vec<(u64, PutOutcome)>> = None;
        let mut is_awaited = false;
        let mut guards: SmallVec<[S::Guard<'_>; 4]> = windows
            .iter()
            .filter_map(|window| Some(S::lock(&self.windows.get(*window)?.slot)))
            .collect();
        let may_enter = slices.iter().all(|(index, span, _)| {
            let window = guards.get(place(*index));
            window.is_some_and(|window| window.may_put(*span, wait.context))
        });
        if may_enter {
            let written = Written {
                since: now,
                modified: wait.modified,
                // Read under the locks: whoever sees these bytes acknowledged ends a later epoch.
                epoch: self.shelf.epoch(),
                context: wait.context,
                journal: wait.request.journal_tid,
            };
            let access = Access::of(wait.request.hints);
            let outcomes = outcomes.insert(Vec::new());
            for (index, span, from) in &slices {
                let Some(window) = guards.get_mut(place(*index)) else {
                    continue;
                };
                let Some(source) = Source::of(&mut wait.request.data, *from, span.len()) else {
                    continue;
                };
                let put = Put {
                    span: *span,
                    source,
                    written,
                    access,
                };
                if let Ok(outcome) = window.put(put) {
                    outcomes.push((*index, outcome));
                }
                window.listed = true;
                // Who waits for some of it is answered first.
                window.unanswered |= window.awaited;
                is_awaited |= window.awaited;
            }
        }
        let settlements: SmallVec<[Settlement; 4]> =
            guards.iter_mut().map(|window| window.settle()).collect();
        drop(guards);
        for settlement in settlements {
            self.account(settlement);
        }
        if is_awaited {
            self.unanswered.extend(windows);
        }
        outcomes
    }

    /// Looks again at the writes that waited for older contexts of the object to be stored.
    pub(super) fn retry_context_waits(&mut self, now: Moment, object: usize) {
        let Some(known) = self.objects.get_mut(object) else {
            return;
        };
        for waiter in std::mem::take(&mut known.context_waits) {
            if let Some(wait) = self.writes.remove(&waiter) {
                self.enter(now, waiter, wait);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-01
    #[test]
    fn an_extent_is_cut_by_windows_and_by_places() {
        let window = super::super::window::WINDOW_BYTES;
        let range = ByteRange::new(window - 10, 30).unwrap();
        let places = [
            Place {
                offset: 100,
                len: 5,
            },
            Place { offset: 0, len: 25 },
        ];
        let cut = u32::try_from(window).unwrap();
        let expected = [
            (
                0,
                Span {
                    start: cut - 10,
                    end: cut - 5,
                },
                100,
            ),
            (
                0,
                Span {
                    start: cut - 5,
                    end: cut,
                },
                0,
            ),
            (1, Span { start: 0, end: 20 }, 5),
        ];
        assert_eq!(slices(range, &places).as_slice(), expected);
    }
}

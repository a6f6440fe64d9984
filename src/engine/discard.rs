//! Dropping bytes: discard, truncate, purge, release (rules S-03 to S-07, R-17).

use std::collections::BTreeSet;

use super::action::{Reply, WaiterId};
use super::extent::OpId;
use super::set::{Op, SetEngine};
use super::shelf::Shelf;
use super::window::{Dropped, Span, WINDOW_BYTES, What};
use crate::error::RequestError;
use crate::request::ObjectExtent;
use crate::types::{ByteRange, Moment, OFFSET_BYTES_MAX, ObjectKey, SnapId, Truncation};

impl<S: Shelf> SetEngine<S> {
    /// Drops the extents, dirty bytes too. The answer, a [`Reply::Done`], comes when no writeback over them is under
    /// way any more, so that what the caller then does in the store can't be overtaken (rule S-05).
    pub(crate) fn discard(&mut self, now: Moment, waiter: WaiterId, extents: &[ObjectExtent]) {
        self.adopt();
        let mut dropping = Dropping::default();
        for extent in extents {
            let id = Self::head(&extent.object);
            let Some(number) = self.by_ref.get(&id).copied() else {
                continue;
            };
            if let Some(object) = self.objects.get_mut(number) {
                object.absent = false;
                object.complete = false;
            }
            self.drop_range(number, extent.range, &mut dropping);
        }
        self.wait_for_drops(now, waiter, dropping);
        self.finish();
    }

    /// Drops what lies past `size_bytes` of the object, as `discard` does (rule S-06). What is known of the rest
    /// stays known, unless a write that is not known to be stored may have made the object.
    pub(crate) fn truncate(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        (object, size_bytes): (&ObjectKey, u64),
    ) {
        self.adopt();
        let mut dropping = Dropping::default();
        let number = self.by_ref.get(&Self::head(object)).copied();
        if let (Some(number), Some(range)) =
            (number, ByteRange::between(size_bytes, OFFSET_BYTES_MAX))
        {
            if let Some(object) = self.objects.get_mut(number)
                && object.absent
                && (!object.writebacks.is_empty() || object.retry.is_some())
            {
                object.absent = false;
                object.complete = false;
            }
            self.drop_range(number, range, &mut dropping);
        }
        self.wait_for_drops(now, waiter, dropping);
        self.finish();
    }

    /// Notes that the set's file was truncated: what is cached past its end goes, and from now on fetches and
    /// writebacks carry the truncation (rule R-17).
    pub(crate) fn truncate_file(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        truncation: Truncation,
    ) -> Result<(), RequestError> {
        let current = self.options.truncation.seq;
        if truncation.seq <= current {
            return Err(RequestError::StaleTruncation {
                seq: truncation.seq,
                current,
            });
        }
        let Some(layout) = self.options.layout else {
            return Err(RequestError::NoLayout);
        };
        self.adopt();
        self.options.truncation = truncation;
        let mut dropping = Dropping::default();
        let heads: Vec<(usize, u64)> = self
            .by_ref
            .iter()
            .filter(|(id, _)| id.snap == SnapId::HEAD)
            .filter_map(|(id, number)| match id.key {
                ObjectKey::Number(object) => Some((
                    *number,
                    layout.object_size_for(truncation.size_bytes, object),
                )),
                ObjectKey::Name(_) => None,
            })
            .collect();
        for (number, size_bytes) in heads {
            if let Some(range) = ByteRange::between(size_bytes, OFFSET_BYTES_MAX) {
                self.drop_range(number, range, &mut dropping);
            }
        }
        self.wait_for_drops(now, waiter, dropping);
        self.finish();
        Ok(())
    }

    /// Drops everything without writing it back; waiting flushes end (rule S-03). Returns the dirty bytes lost,
    /// those in flight not counted.
    pub(crate) fn purge(&mut self, now: Moment) -> u64 {
        self.adopt();
        let mut dropping = Dropping::default();
        let numbers: Vec<usize> = self.objects.iter().map(|(number, _)| number).collect();
        if let Some(everything) = ByteRange::between(0, OFFSET_BYTES_MAX) {
            for number in &numbers {
                self.drop_range(*number, everything, &mut dropping);
            }
        }
        for number in numbers {
            // What is in the store is not known any more.
            if let Some(object) = self.objects.get_mut(number) {
                object.absent = false;
                object.complete = false;
            }
            self.release_flushes(number);
            self.close_if_empty(number);
        }
        self.go_on_after_drop(now, &dropping);
        self.finish();
        dropping.dirty_bytes
    }

    /// Drops all that is clean, zero or error, forgets what is known of objects, and returns the bytes kept
    /// (rule S-04).
    pub(crate) fn release(&mut self) -> u64 {
        self.adopt();
        let mut kept = 0i64;
        let numbers: Vec<usize> = self.objects.iter().map(|(number, _)| number).collect();
        for number in numbers {
            let Some(object) = self.objects.get_mut(number) else {
                continue;
            };
            object.absent = false;
            object.complete = false;
            let windows: Vec<usize> = object.windows.values().copied().collect();
            for window in windows {
                let left = self.edit(window, |window| {
                    window.remove(Span::ALL, What::Droppable);
                    window.totals().bytes.iter().sum::<i64>()
                });
                kept += left.unwrap_or(0);
                self.close_window_if_idle(window);
            }
            self.close_if_empty(number);
        }
        self.finish();
        u64::try_from(kept).unwrap_or(0)
    }

    /// Drops a range of an object, dirty bytes too.
    fn drop_range(&mut self, number: usize, range: ByteRange, dropping: &mut Dropping) {
        let Some(object) = self.objects.get(number) else {
            return;
        };
        dropping.objects.insert(number);
        dropping.ops.extend(object.writeback_over(range));
        for (window, span) in self.windows_in(number, range) {
            let Some(index) = self.windows.get(window).map(|entry| entry.index) else {
                continue;
            };
            let dropped: Option<Dropped> =
                self.edit(window, |window| window.remove(span, What::All));
            let Some(dropped) = dropped else { continue };
            dropping.dirty_bytes += dropped.dirty_bytes;
            self.report_overwritten(number, index, dropped.journal, None);
            for op in dropped.fetches {
                if let Some(Op::Fetch(fetch)) = self.ops.get(&op)
                    && let Some(object) = self.objects.get_mut(number)
                {
                    object.cut_fetches.insert(op, fetch.range);
                }
            }
            self.note_dirty(window);
        }
        self.note_stored(number);
        self.close_if_empty(number);
    }

    fn wait_for_drops(&mut self, now: Moment, waiter: WaiterId, dropping: Dropping) {
        for op in &dropping.ops {
            if let Some(op) = self.ops.get_mut(op) {
                op.waiters().drops.push(waiter);
            }
        }
        self.drops.insert(waiter, dropping.ops.len());
        if dropping.ops.is_empty() {
            self.end_drop(waiter);
        }
        self.go_on_after_drop(now, &dropping);
    }

    /// Flushes, writes and reads that waited for what is gone go on.
    fn go_on_after_drop(&mut self, now: Moment, dropping: &Dropping) {
        for number in &dropping.objects {
            self.recheck_flushes(*number);
            self.retry_context_waits(now, *number);
            self.wake_paused_reads(now, *number);
        }
        self.pump(now);
    }

    /// One of the writebacks that a discard waits for has ended.
    pub(super) fn drop_advances(&mut self, waiter: WaiterId) {
        let Some(pending) = self.drops.get_mut(&waiter) else {
            return;
        };
        *pending = pending.saturating_sub(1);
        if *pending == 0 {
            self.end_drop(waiter);
        }
    }

    fn end_drop(&mut self, waiter: WaiterId) {
        self.drops.remove(&waiter);
        self.reply(waiter, Reply::Done(Ok(())));
    }

    /// Whether nothing is cached, whether anything is that is neither dirty nor in flight to the store, and whether
    /// anything is dirty or in flight (rule S-02).
    pub(crate) fn holdings(&mut self) -> Holdings {
        self.adopt();
        let mut holdings = Holdings {
            is_empty: true,
            ..Holdings::default()
        };
        for (_, entry) in &self.windows {
            let guard = S::lock(&entry.slot);
            for (_, extent) in guard.iter() {
                holdings.is_empty = false;
                if extent.state.written().is_some() {
                    holdings.is_dirty_or_committing = true;
                } else {
                    holdings.has_cached = true;
                }
            }
        }
        holdings.is_dirty_or_committing |= self.writebacks_in_flight > 0;
        self.finish();
        holdings
    }

    /// Tells whether an object is cached at all, for tests and listings.
    #[cfg(test)]
    pub(crate) fn knows(&self, id: &super::object::ObjectRef) -> bool {
        self.by_ref.contains_key(id)
    }
}

/// What a drop has met.
#[derive(Debug, Default)]
struct Dropping {
    objects: BTreeSet<usize>,
    /// Writebacks under way over what is dropped.
    ops: BTreeSet<OpId>,
    /// Dirty bytes dropped, those in flight not counted.
    dirty_bytes: u64,
}

/// What a set holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) is_empty: bool,
    pub(crate) has_cached: bool,
    pub(crate) is_dirty_or_committing: bool,
}

/// Windows cover objects without a gap.
const _: () = assert!(OFFSET_BYTES_MAX / WINDOW_BYTES < u64::MAX / WINDOW_BYTES);

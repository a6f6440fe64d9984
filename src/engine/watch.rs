//! What waiting reads lack (rule R-04): each watches the first byte that it lacks. Whatever brings that byte, a fetch,
//! whose ever it is, a write, or the news that the object does not exist, has the read looked at again: it goes on to
//! the next byte that it lacks, or is answered.
//!
//! So no read waits of which all bytes are here, and whoever finds its bytes here overtakes nobody. A write at the door
//! that brings what is lacking in a window with a watch goes to the engine. However many parts a read lacks, it is
//! looked at again only for the first of them, and looks on from there.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::action::WaiterId;
use super::object::{ObjectRef, spans};
use super::read::ReadWait;
use super::set::SetEngine;
use super::shelf::Shelf;
use super::window::{Span, WINDOW_BYTES, Window};
use crate::request::ReadRequest;
use crate::types::{ByteRange, Moment};

/// The watches in a window: where the byte lies in it, and who lacks it.
pub(super) type Watches = BTreeSet<(u32, WaiterId)>;

/// Some who wait, each once, in the order in which they were asked.
pub(super) type Waiters = SmallVec<[WaiterId; 4]>;

/// Puts waiters into the order in which they were asked, each once.
pub(super) fn in_order(mut waiters: Waiters) -> Waiters {
    waiters.sort_unstable();
    waiters.dedup();
    waiters
}

/// Comes after all who wait.
pub(super) const LAST: WaiterId = WaiterId(u64::MAX);

/// The first byte that a read lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Which of the request's extents it is in.
    extent: usize,
    /// Where it is in the object.
    pub(super) offset: u64,
    /// The set's number of the window that it is in.
    pub(super) window: usize,
}

impl Watch {
    pub(super) fn at(&self) -> u32 {
        u32::try_from(self.offset % WINDOW_BYTES).unwrap_or(u32::MAX)
    }
}

impl<S: Shelf> SetEngine<S> {
    /// Lets a read wait for the bytes that it lacks. If it lacks none, since others wrote them in the meantime, it is
    /// attempted again.
    pub(super) fn await_bytes(&mut self, now: Moment, waiter: WaiterId, mut wait: ReadWait) {
        let start = wait.request.extents.first();
        let start = start.map_or(0, |extent| extent.range.start());
        let watch = self.first_lacking(&wait.request, (0, start));
        let is_lacking = watch.is_some();
        self.put_watch(waiter, &mut wait, watch);
        self.reads.insert(waiter, wait);
        if !is_lacking {
            self.attempt_read(now, waiter, None);
        }
    }

    /// Bytes have come in that a read may have waited for.
    pub(super) fn look_again(&mut self, now: Moment, waiter: WaiterId) {
        let Some(mut wait) = self.reads.remove(&waiter) else {
            return;
        };
        let old = self.take_watch(waiter, &mut wait);
        let found = old
            .filter(|_| !wait.is_due())
            .and_then(|watch| self.first_lacking(&wait.request, (watch.extent, watch.offset)));
        let next = found.filter(|watch| !self.is_complete_at(watch.window));
        let is_lacking = next.is_some();
        self.put_watch(waiter, &mut wait, next);
        self.reads.insert(waiter, wait);
        for seen in [old, found].into_iter().flatten() {
            self.end_watch(seen.window);
        }
        if !is_lacking {
            self.attempt_read(now, waiter, None);
        }
    }

    /// Whether what is not cached of the window's object is zeros, as a read that is attempted finds.
    fn is_complete_at(&self, window: usize) -> bool {
        let entry = self.windows.get(window);
        let object = entry.and_then(|entry| self.objects.get(entry.object));
        object.is_some_and(|object| object.complete)
    }

    /// Looks again at the reads for which bytes have come in, of those that were asked before `before`.
    pub(super) fn look_at_due(&mut self, now: Moment, before: WaiterId) {
        while let Some(first) = self.due.first().copied().filter(|first| *first < before) {
            self.due.remove(&first);
            self.look_again(now, first);
        }
    }

    /// Who lacks bytes of this part of a window, each once, in the order in which they were asked.
    pub(super) fn watchers(&self, window: usize, span: Span) -> Waiters {
        let Some(entry) = self.windows.get(window) else {
            return Waiters::new();
        };
        let first = WaiterId(0);
        let watches = entry.watches.range((span.start, first)..(span.end, first));
        in_order(watches.map(|(_, waiter)| *waiter).collect())
    }

    /// Who lacks bytes of an object.
    pub(super) fn watchers_of(&self, object: usize) -> BTreeSet<WaiterId> {
        let Some(object) = self.objects.get(object) else {
            return BTreeSet::new();
        };
        let windows = object
            .windows
            .values()
            .filter_map(|window| self.windows.get(*window));
        let watches = windows.flat_map(|entry| &entry.watches);
        watches.map(|(_, waiter)| *waiter).collect()
    }

    /// Whether the window lacks every byte that is watched in it, for reads that wait, and its lock tells so.
    pub(super) fn is_watched_rightly(&self, window: &Window, watches: &Watches) -> bool {
        let is_lacking = |(at, waiter): &(u32, WaiterId)| {
            let byte = Span {
                start: *at,
                end: at + 1,
            };
            window.lacking(byte).is_some() && self.reads.contains_key(waiter)
        };
        window.awaited != watches.is_empty() && watches.iter().all(is_lacking)
    }

    /// The first byte that the read lacks at or behind a place of one of its extents. From then on the door knows that
    /// the window is watched.
    fn first_lacking(
        &mut self,
        request: &ReadRequest,
        (first, offset): (usize, u64),
    ) -> Option<Watch> {
        for (nth, extent) in request.extents.iter().enumerate().skip(first) {
            let id = ObjectRef {
                key: extent.object.clone(),
                snap: request.snap,
            };
            let start = if nth == first {
                offset
            } else {
                extent.range.start()
            };
            let left = ByteRange::between(start, extent.range.end())?;
            let object = self.open_object(&id)?;
            for (index, span) in spans(left) {
                let window = self.open_window(object, index)?;
                let entry = self.windows.get(window)?;
                let mut guard = S::lock(&entry.slot);
                if let Some(at) = guard.lacking(span) {
                    guard.awaited = true;
                    return Some(Watch {
                        extent: nth,
                        offset: index * WINDOW_BYTES + u64::from(at),
                        window,
                    });
                }
            }
        }
        None
    }

    fn put_watch(&mut self, waiter: WaiterId, wait: &mut ReadWait, watch: Option<Watch>) {
        if let Some(watch) = watch
            && let Some(entry) = self.windows.get_mut(watch.window)
        {
            entry.watches.insert((watch.at(), waiter));
        }
        wait.watch = watch;
    }

    /// Ends a read's watch, but for what [`end_watch`](Self::end_watch) does.
    pub(super) fn take_watch(&mut self, waiter: WaiterId, wait: &mut ReadWait) -> Option<Watch> {
        let watch = wait.watch.take()?;
        if let Some(entry) = self.windows.get_mut(watch.window) {
            entry.watches.remove(&(watch.at(), waiter));
        }
        Some(watch)
    }

    /// If nobody watches the window any more, the door is told, and the window closed if it holds nothing.
    pub(super) fn end_watch(&mut self, window: usize) {
        let Some(entry) = self.windows.get(window) else {
            return;
        };
        if entry.watches.is_empty() {
            S::lock(&entry.slot).awaited = false;
            self.close_window_if_idle(window);
        }
    }
}

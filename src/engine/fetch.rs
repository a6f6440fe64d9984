//! Fetches under way, and what their ends bring (rules ).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::action::{Action, WaiterId};
use super::eviction::{Entry, Queue};
use super::extent::OpId;
use super::set::{Op, OpWaiters, SetEngine};
use super::shelf::{Counter, Shelf};
use super::watch::{LAST, in_order};
use super::window::{Access, Fill, Span, What};
use crate::error::{BackendError, CacheError};
use crate::io::BackendRead;
use crate::types::{ByteRange, Hints, Moment};

/// A fetch under way. Its window stays open until it ends.
#[derive(Debug)]
pub(super) struct Fetch {
    object: usize,
    window: usize,
    span: Span,
    pub(super) range: ByteRange,
    hints: Hints,
    /// Whether "no such object" is to be believed (rule R-11).
    pub(super) trusts_absence: bool,
    pub(super) started: Moment,
    pub(super) waiters: OpWaiters,
}

impl<S: Shelf> SetEngine<S> {
    pub(super) fn start_fetch(
        &mut self,
        now: Moment,
        op: OpId,
        (object, window, span): (usize, usize, Span),
        (range, hints): (ByteRange, Hints),
    ) {
        let Some(known) = self.objects.get_mut(object) else {
            return;
        };
        known.fetches.insert(op);
        let (id, name) = (known.id.clone(), known.name.clone());
        self.pin(window);
        let fetch = Fetch {
            object,
            window,
            span,
            range,
            hints,
            trusts_absence: true,
            started: now,
            waiters: OpWaiters::default(),
        };
        self.ops.insert(op, Op::Fetch(fetch));
        self.shelf.count(Counter::FetchOps, 1);
        self.shelf.count(Counter::FetchBytes, range.len());
        let truncation = self.truncation_of(&id.key);
        let read = BackendRead {
            object: name,
            snap: id.snap,
            range,
            hints,
            truncation,
        };
        self.actions.push_back(Action::Fetch { op, read });
    }

    /// A fetch has ended. Late and doubled ends change nothing (rule F-05).
    pub(crate) fn handle_fetch(
        &mut self,
        now: Moment,
        op: OpId,
        result: Result<Bytes, BackendError>,
    ) {
        self.adopt();
        self.end_fetch(now, op, result);
        self.finish();
    }

    pub(super) fn end_fetch(&mut self, now: Moment, op: OpId, result: Result<Bytes, BackendError>) {
        let Some(Op::Fetch(_)) = self.ops.get(&op) else {
            return;
        };
        let Some(Op::Fetch(mut fetch)) = self.ops.remove(&op) else {
            return;
        };
        // Who was asked first may have begun to wait for it last.
        fetch.waiters.reads.sort_unstable();
        if let Some(object) = self.objects.get_mut(fetch.object) {
            object.end_fetch(op);
        }
        let (object, window) = (fetch.object, fetch.window);
        match result {
            Ok(bytes) => self.fill(now, op, &fetch, bytes),
            Err(BackendError::NotFound) => self.find_absent(now, op, &fetch),
            Err(error) => {
                let is_fence = error == BackendError::Fenced;
                self.fail_fetch(now, op, &fetch, error);
                if is_fence {
                    self.fence(now);
                }
            }
        }
        self.unpin(window);
        self.close_if_empty(object);
    }

    fn fill(&mut self, now: Moment, op: OpId, fetch: &Fetch, bytes: Bytes) {
        let access = Access::of(fetch.hints);
        let stamp = self.evictor.stamp();
        let fill = Fill {
            stamp,
            access,
            is_vouched_for: self.options.capabilities.keepable_reads,
        };
        let mut due = self.watchers(fetch.window, fetch.span);
        let brought = self.edit(fetch.window, |window| {
            let brought = window.fill(fetch.span, op, bytes, fill);
            window.join_clean(fetch.span);
            window.unanswered |= !fetch.waiters.reads.is_empty() || !due.is_empty();
            brought
        });
        self.unanswered.push(fetch.window);
        let queue = if access == Access::NoCache {
            Queue::Cold
        } else {
            Queue::Small
        };
        self.queue_for_eviction(
            now,
            (fetch.window, fetch.span),
            stamp,
            (brought.unwrap_or(0), queue),
        );
        for reader in &fetch.waiters.reads {
            if self.is_last_end(*reader) {
                due.push(reader.0);
            }
        }
        for waiter in in_order(due) {
            self.look_again(now, waiter);
        }
        self.look_at_due(now, LAST);
    }

    /// The store has no such object: all reads that wait for it are looked at again, in the order in which they
    /// were asked (rule R-08).
    fn find_absent(&mut self, now: Moment, op: OpId, fetch: &Fetch) {
        let mut readers: BTreeSet<(WaiterId, u32)> = fetch.waiters.reads.iter().copied().collect();
        let is_in_doubt = self.carries_what_is_gone(fetch.object);
        if let Some(object) = self.objects.get_mut(fetch.object) {
            object.absence_in_doubt = is_in_doubt;
        }
        let is_news = self
            .objects
            .get(fetch.object)
            .is_some_and(|object| !object.complete)
            && !is_in_doubt;
        self.edit(fetch.window, |window| window.cancel_fetch(fetch.span, op));
        let mut due = BTreeSet::new();
        if fetch.trusts_absence && is_news {
            let Some(object) = self.objects.get_mut(fetch.object) else {
                return;
            };
            object.absent = true;
            object.complete = true;
            self.drop_if_all_zero(fetch.object);
            // Whatever they wait for: another fetch, a writeback, room.
            due = self.watchers_of(fetch.object);
        }
        readers.retain(|(waiter, round)| {
            let wait = self.reads.get(waiter);
            wait.is_some_and(|wait| wait.is_in_round(*round))
        });
        due.extend(readers.iter().map(|(waiter, _)| *waiter));
        for waiter in due {
            self.attempt_read(now, waiter, None);
        }
        self.look_at_due(now, LAST);
    }

    /// Whether a writeback of the object is under way that carries bytes which are no longer here. Once it lands, the
    /// object exists, and not all that is in it is here: that it did not exist before proves nothing (rule R-08).
    fn carries_what_is_gone(&self, object: usize) -> bool {
        self.objects.get(object).is_some_and(|known| {
            known.windows.values().any(|window| {
                self.look(*window, super::window::Window::has_overtaken)
                    .unwrap_or(false)
            })
        })
    }

    /// Drops what is cached of an absent object if none of it holds bytes (rule R-09).
    fn drop_if_all_zero(&mut self, object: usize) {
        let Some(known) = self.objects.get(object) else {
            return;
        };
        let windows: Vec<usize> = known.windows.values().copied().collect();
        let all_zero = windows.iter().all(|window| {
            self.look(*window, super::window::Window::holds_nothing)
                .unwrap_or(true)
        });
        if !all_zero {
            return;
        }
        for window in windows {
            self.edit(window, |window| {
                window.remove(Span::ALL, What::HoldsNothing)
            });
            self.close_window_if_idle(window);
        }
    }

    fn fail_fetch(&mut self, now: Moment, op: OpId, fetch: &Fetch, error: BackendError) {
        self.shelf.count(Counter::FetchErrors, 1);
        let stamp = self.evictor.stamp();
        self.edit(fetch.window, |window| {
            window.fail_fetch(fetch.span, op, &error, stamp)
        });
        let bytes = u64::from(fetch.span.len());
        self.queue_for_eviction(now, (fetch.window, fetch.span), stamp, (bytes, Queue::Cold));
        let Some(object) = self.objects.get(fetch.object) else {
            return;
        };
        let error = CacheError::Read {
            object: object.name.clone(),
            range: fetch.range,
            source: error,
        };
        for reader in &fetch.waiters.reads {
            self.fail_read(*reader, &error);
        }
    }

    /// Forgets which objects don't exist, with the zeros that were read of them; fetches under way no longer prove
    /// it (rule R-11).
    pub(crate) fn clear_nonexistence(&mut self) {
        self.adopt();
        for op in self.ops.values_mut() {
            if let Op::Fetch(fetch) = op {
                fetch.trusts_absence = false;
            }
        }
        let absent: Vec<usize> = self
            .objects
            .iter()
            .filter(|(_, object)| object.absent)
            .map(|(number, _)| number)
            .collect();
        for number in absent {
            let Some(object) = self.objects.get_mut(number) else {
                continue;
            };
            object.absent = false;
            object.complete = false;
            let windows: Vec<usize> = object.windows.values().copied().collect();
            for window in windows {
                self.edit(window, |window| window.remove(Span::ALL, What::Zero));
                self.close_window_if_idle(window);
            }
            self.close_if_empty(number);
        }
        self.finish();
    }

    /// Queues what bears `stamp` in a window for eviction.
    pub(super) fn queue_for_eviction(
        &mut self,
        now: Moment,
        (window, span): (usize, Span),
        stamp: u32,
        (bytes, queue): (u64, Queue),
    ) {
        if bytes == 0 {
            return;
        }
        let is_recalled = queue == Queue::Small
            && self
                .window_hash(window)
                .is_some_and(|hash| self.evictor.recalls(hash, (span.start, span.end)));
        let queue = if is_recalled { Queue::Main } else { queue };
        let at = now;
        self.push_for_eviction(
            queue,
            Entry {
                window,
                stamp,
                bytes,
                at,
            },
        );
    }
}

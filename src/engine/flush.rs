//! Flushes: callers who wait until everything that was dirty when they asked is stored (rule F-06).

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Flushed, Reply, WaiterId};
use super::flush_list::{FlushList, ObjectFlush};
use super::object::spans;
use super::set::SetEngine;
use super::shelf::Shelf;
use super::window::{Cutoff, Span};
use crate::error::CacheError;
use crate::request::ObjectExtent;
use crate::types::{ByteRange, Moment, SnapId};

/// Objects to flush, each with the ranges that are meant, or all of it.
type Targets = Vec<(usize, Option<Vec<ByteRange>>)>;

/// As many flushes as this are each looked at by itself.
const FLUSHES_FEW: usize = 4;

/// A flush that is not yet answered.
#[derive(Debug)]
pub(super) struct FlushWait {
    /// The objects that still have bytes which it waits for.
    objects: BTreeSet<usize>,
    /// Whether it is the acknowledgement of a write-through write.
    is_write: bool,
}

impl<S: Shelf> SetEngine<S> {
    /// A caller flushes the whole set, or what `extents` touch of its heads. The answer is a [`Reply::Flushed`].
    ///
    /// The first one ends write-through where that is on until then, whatever comes of it: writes that are asked
    /// later are absorbed (H-36).
    pub(crate) fn flush(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        extents: Option<&[ObjectExtent]>,
    ) {
        self.awaits_flush = false;
        if self.is_fenced {
            let refused = self.fenced_error();
            self.reply(waiter, Reply::Flushed(Err(refused)));
            return;
        }
        let epoch = self.shelf.end_epoch();
        self.adopt();
        let targets: Targets = match extents {
            None => self.unstored.iter().map(|object| (*object, None)).collect(),
            Some(extents) => self.ranges_by_object(extents),
        };
        self.wait_for(now, waiter, (epoch, targets), false);
        self.finish();
    }

    /// Stores everything before the set ends: as a flush, but no caller has flushed by it. The answer is a
    /// [`Reply::Flushed`].
    pub(crate) fn store_all(&mut self, now: Moment, waiter: WaiterId) {
        let epoch = self.shelf.end_epoch();
        self.adopt();
        if self.is_fenced && !self.unstored.is_empty() {
            let refused = self.fenced_error();
            self.reply(waiter, Reply::Flushed(Err(refused)));
        } else {
            let targets = self.unstored.iter().map(|object| (*object, None)).collect();
            self.wait_for(now, waiter, (epoch, targets), false);
        }
        self.finish();
    }

    /// Whether every write is answered by the store until a caller first flushes.
    pub(crate) const fn awaits_flush(&self) -> bool {
        self.awaits_flush
    }

    /// Whether every write is answered by the store, for whatever reason.
    pub(crate) const fn is_write_through(&self) -> bool {
        self.awaits_flush || self.limits.write_through
    }

    /// Answers a write when what it wrote is stored (rule W-06).
    pub(super) fn flush_written(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        extents: &[ObjectExtent],
    ) {
        let epoch = self.shelf.end_epoch();
        let targets = self.ranges_by_object(extents);
        self.wait_for(now, waiter, (epoch, targets), true);
    }

    fn ranges_by_object(&self, extents: &[ObjectExtent]) -> Targets {
        let mut targets: BTreeMap<usize, Vec<ByteRange>> = BTreeMap::new();
        for extent in extents {
            let id = Self::head(&extent.object);
            if let Some(object) = self.by_ref.get(&id) {
                targets.entry(*object).or_default().push(extent.range);
            }
        }
        let some = |(object, ranges)| (object, Some(ranges));
        targets.into_iter().map(some).collect()
    }

    fn wait_for(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        (epoch, targets): (u64, Targets),
        is_write: bool,
    ) {
        let mut objects = BTreeSet::new();
        for (number, ranges) in targets {
            let flush = ObjectFlush {
                waiter,
                epoch,
                ranges,
                ops: 0,
            };
            if self.join_flush(number, flush) {
                objects.insert(number);
            }
        }
        let is_clean = objects.is_empty();
        self.flushes.insert(waiter, FlushWait { objects, is_write });
        if is_clean {
            let flushed = Flushed {
                already_clean: true,
            };
            self.end_flush(waiter, Ok(flushed));
        } else {
            self.pump(now);
        }
    }

    /// Makes the flush wait for the object's writebacks under way, and its dirty bytes urgent. Says whether there
    /// are any of either.
    fn join_flush(&mut self, number: usize, mut flush: ObjectFlush) -> bool {
        let Some(object) = self.objects.get(number) else {
            return false;
        };
        let waiter = flush.waiter;
        for (op, flight) in &object.writebacks {
            if flush.concerns_any(flight)
                && let Some(super::set::Op::WriteBack(write)) = self.ops.get_mut(op)
            {
                write.flushes.push(waiter);
                flush.ops += 1;
            }
        }
        if flush.ops == 0 && !self.is_dirty(number, &flush) {
            return false;
        }
        if let Some(object) = self.objects.get_mut(number) {
            object.flushes.insert(flush);
        }
        self.urgent.insert(number);
        true
    }

    /// Whether the object has dirty bytes that the flush waits for. Those in flight it counts.
    fn is_dirty(&self, number: usize, flush: &ObjectFlush) -> bool {
        let cutoff = Cutoff::Epoch(flush.epoch);
        let Some(object) = self.objects.get(number) else {
            return false;
        };
        let is_dirty = |index: u64, span: Span| {
            object.windows.get(&index).is_some_and(|window| {
                self.look(*window, |window| window.is_dirty(span, cutoff))
                    .unwrap_or(false)
            })
        };
        match &flush.ranges {
            None => object
                .listed
                .iter()
                .any(|index| is_dirty(*index, Span::ALL)),
            Some(ranges) => ranges.iter().any(|range| {
                spans(*range)
                    .any(|(index, span)| object.listed.contains(&index) && is_dirty(index, span))
            }),
        }
    }

    /// A writeback has ended that these flushes wait for.
    pub(super) fn flushes_advance(&mut self, waiters: Vec<WaiterId>, number: usize) {
        if waiters.is_empty() {
            return;
        }
        // Where many wait, what is dirty is looked at once for all of them.
        let oldest = (waiters.len() > FLUSHES_FEW).then(|| self.oldest_epoch(number));
        for waiter in waiters {
            let Some(object) = self.objects.get_mut(number) else {
                return;
            };
            let Some(flush) = object.flushes.op_ends(waiter).cloned() else {
                continue;
            };
            let is_dirty = match oldest {
                Some(oldest) if flush.ranges.is_none() => {
                    oldest.is_some_and(|oldest| oldest <= flush.epoch)
                }
                Some(_) | None => self.is_dirty(number, &flush),
            };
            if !is_dirty {
                self.flush_leaves(waiter, number);
            }
        }
        self.close_if_empty(number);
    }

    /// The oldest flush epoch of the object's dirty bytes.
    fn oldest_epoch(&self, number: usize) -> Option<u64> {
        let object = self.objects.get(number)?;
        let windows = object.listed.iter();
        let windows = windows.filter_map(|index| object.windows.get(index));
        let oldest = windows.filter_map(|window| {
            self.look(*window, |window| {
                let dirty = window.dirty(Span::ALL);
                dirty.map(|(_, written)| written.epoch).min()
            })?
        });
        oldest.min()
    }

    /// Ends the flushes that have nothing left to wait for on this object.
    pub(super) fn recheck_flushes(&mut self, number: usize) {
        let Some(object) = self.objects.get(number) else {
            return;
        };
        let over: Vec<WaiterId> = object
            .flushes
            .iter()
            .filter(|flush| flush.ops == 0 && !self.is_dirty(number, flush))
            .map(|flush| flush.waiter)
            .collect();
        if over.is_empty() {
            return;
        }
        for waiter in over {
            self.flush_leaves(waiter, number);
        }
        self.close_if_empty(number);
    }

    /// Ends every flush's wait for this object, whatever it still holds: its dirty bytes are gone.
    pub(super) fn release_flushes(&mut self, number: usize) {
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        let flushes: FlushList = std::mem::take(&mut object.flushes);
        for flush in flushes.iter() {
            self.flush_leaves(flush.waiter, number);
        }
        self.close_if_empty(number);
    }

    fn flush_leaves(&mut self, waiter: WaiterId, number: usize) {
        if let Some(object) = self.objects.get_mut(number) {
            object.flushes.remove(waiter);
        }
        let Some(wait) = self.flushes.get_mut(&waiter) else {
            return;
        };
        wait.objects.remove(&number);
        if wait.objects.is_empty() {
            self.end_flush(
                waiter,
                Ok(Flushed {
                    already_clean: false,
                }),
            );
        }
    }

    /// A writeback that the flush waited for has failed.
    pub(super) fn fail_flush(&mut self, waiter: WaiterId, error: &CacheError) {
        self.end_flush(waiter, Err(error.clone()));
    }

    fn end_flush(&mut self, waiter: WaiterId, result: Result<Flushed, CacheError>) {
        let Some(wait) = self.flushes.remove(&waiter) else {
            return;
        };
        for number in wait.objects {
            if let Some(object) = self.objects.get_mut(number) {
                object.flushes.remove(waiter);
                self.close_if_empty(number);
            }
        }
        let reply = if wait.is_write {
            Reply::Done(result.map(drop))
        } else {
            Reply::Flushed(result)
        };
        self.reply(waiter, reply);
    }

    /// Whether every byte of the extents is held in any state (rule S-01).
    pub(crate) fn is_cached(&mut self, extents: &[ObjectExtent], snap: SnapId) -> bool {
        self.adopt();
        let cached = extents.iter().all(|extent| {
            let id = super::object::ObjectRef {
                key: extent.object.clone(),
                snap,
            };
            let Some(object) = self
                .by_ref
                .get(&id)
                .and_then(|number| self.objects.get(*number))
            else {
                return false;
            };
            spans(extent.range).all(|(index, span)| {
                object.windows.get(&index).is_some_and(|window| {
                    self.look(*window, |window| window.holds(span))
                        .unwrap_or(false)
                })
            })
        });
        self.finish();
        cached
    }
}

//! Giving back clean bytes (rules T-01, T-02, T-03, R-16).

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use super::eviction::{Entry, Queue};
use super::object::ObjectRef;
use super::set::SetEngine;
use super::shelf::{Counter, Shelf};
use crate::types::Moment;

impl<S: Shelf> SetEngine<S> {
    /// Evicts the coldest clean bytes until room for `bytes` is given back or nothing more can go. Returns the
    /// room given back, overhead included.
    pub(crate) fn trim(&mut self, now: Moment, bytes: u64) -> u64 {
        self.adopt();
        self.finish();
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Every entry is looked at twice at most: once marked, once not.
        let mut looks = self.evictor.len().saturating_mul(2);
        while self.purse.room < wanted && looks > 0 {
            looks -= 1;
            let Some((queue, entry)) = self.evictor.pop() else {
                break;
            };
            self.evict_entry(now, queue, entry);
        }
        let freed = u64::try_from(self.purse.room).unwrap_or(0);
        self.finish();
        freed
    }

    fn evict_entry(&mut self, now: Moment, queue: Queue, entry: Entry) {
        let Some(window) = self.windows.get(entry.window) else {
            return;
        };
        if window.pins > 0 {
            self.evictor.push(Queue::Main, entry);
            return;
        }
        let object = window.object;
        let hash = self.window_hash(entry.window);
        let keep_stamp = self.evictor.stamp();
        let evictor = &mut self.evictor;
        let (outcome, settlement) = {
            let mut guard = S::lock(&window.slot);
            let outcome = guard.evict(entry.stamp, keep_stamp, |span| {
                if let Some(hash) = hash {
                    evictor.remember(queue, hash, (span.start, span.end));
                }
            });
            (outcome, guard.settle())
        };
        self.account(settlement);
        if outcome.kept > 0 {
            let kept = Entry {
                stamp: keep_stamp,
                bytes: outcome.kept,
                at: now,
                ..entry
            };
            self.evictor.push(Queue::Main, kept);
        }
        self.shelf.count(Counter::EvictedBytes, outcome.bytes);
        // Where zeros went, a gap still reads as zeros.
        if outcome.lost_bytes
            && let Some(object) = self.objects.get_mut(object)
        {
            object.complete = false;
        }
        self.close_window_if_idle(entry.window);
    }

    /// Queues an entry; from time to time, those whose bytes are gone or bear other numbers are taken out.
    pub(super) fn push_for_eviction(&mut self, queue: Queue, entry: Entry) {
        self.evictor.push(queue, entry);
        if !self.evictor.is_cluttered() {
            return;
        }
        let mut live: BTreeMap<(usize, u32), u64> = BTreeMap::new();
        for (number, entry) in &self.windows {
            let guard = S::lock(&entry.slot);
            for (span, extent) in guard.iter() {
                if extent.state.is_droppable() {
                    *live.entry((number, extent.stamp)).or_default() += u64::from(span.len());
                }
            }
        }
        self.evictor.sweep(&live);
    }

    /// How many entries are queued for eviction.
    #[cfg(test)]
    pub(super) fn eviction_entries(&self) -> usize {
        self.evictor.len()
    }

    /// When the bytes that would be evicted next came in.
    pub(crate) fn coldest(&self) -> Option<Moment> {
        self.evictor.coldest()
    }

    /// Makes what callers said they don't need the first to go.
    pub(super) fn cool(&mut self, window: usize) {
        let stamp = self.evictor.stamp();
        let bytes = self
            .edit(window, |window| window.restamp_first_to_go(stamp))
            .unwrap_or(0);
        if bytes > 0 {
            self.push_for_eviction(
                Queue::Cold,
                Entry {
                    window,
                    stamp,
                    bytes,
                    at: Moment::default(),
                },
            );
        }
    }

    /// A number for a window that outlives its being closed and opened again.
    pub(super) fn window_hash(&self, window: usize) -> Option<u64> {
        let entry = self.windows.get(window)?;
        let id: &ObjectRef = &self.objects.get(entry.object)?.id;
        Some(foldhash::fast::FixedState::default().hash_one((id, entry.index)))
    }
}

//! What is checked after each step, and in the end.

use bytes::Bytes;

use super::oracle::{LEN, bit, tag_of};
use super::world::World;
use crate::buf::ReadBuf;
use crate::engine::extent::ExtentState;
use crate::engine::object::range_of;
use crate::engine::tests::shelf::TestShelf;
use crate::engine::{Access, BufferState, Charge, Shelf};
use crate::error::BackendError;
use crate::request::Missing;

impl World {
    /// Ends that come late or twice, and should change nothing.
    fn repeat_ends(&mut self) {
        for op in self.ended.clone() {
            let stray = Bytes::from_static(b"stray ends");
            self.engine.handle_fetch(self.now, op, Ok(stray));
            self.engine
                .handle_fetch(self.now, op, Err(BackendError::NotFound));
            self.engine
                .handle_write_back(self.now, op, Err(BackendError::Unavailable));
            self.engine.handle_write_back(self.now, op, Ok(()));
            self.take_actions();
        }
    }

    /// Whether all is at rest: nothing is under way, dirty, or waited for.
    pub(super) fn is_at_rest(&self) -> bool {
        self.has_nothing_under_way() && self.shelf.used().dirty == 0
    }

    /// Whether nothing goes on unless somebody asks for it.
    fn has_nothing_under_way(&self) -> bool {
        self.fetches.is_empty()
            && self.writes.is_empty()
            && self.engine.pausing.is_empty()
            && self.shelf.waiting().is_none()
    }

    /// No flush waits for nothing but what was written after it. Where a batch takes only so many bytes, what was joined
    /// is sent in several, and a flush may wait for all of them.
    fn check_flushes(&self) {
        let waiting = &self.oracle.flushes;
        let is_cut = self.setup.write_bytes_max < LEN as u64;
        if waiting.is_empty() || is_cut || !self.writes.is_empty() {
            return;
        }
        let mut dirty = [0; LEN];
        for (_, entry) in &self.engine.windows {
            let guard = TestShelf::lock(&entry.slot);
            for (span, extent) in guard.iter() {
                if extent.state.kind() == BufferState::Dirty {
                    let mut found = ReadBuf::default();
                    assert!(guard.collect(span, Access::Quiet, &mut found));
                    let (start, _) = self.part_of(range_of(entry.index, span).unwrap());
                    for (nth, byte) in found.to_vec().iter().enumerate() {
                        dirty[start + nth] = bit(tag_of(*byte, start + nth));
                    }
                }
            }
        }
        for (waiter, look) in waiting {
            let mut cells = dirty.iter().zip(look.promised);
            assert!(
                look.was_cut
                    || cells.any(|(dirty, promised)| dirty & look.asked != 0
                        || (*dirty != 0 && promised != 0)),
                "flush {waiter:?} waits for what was written after it"
            );
        }
    }

    /// Whatever a caller could read now without waiting is what may be seen.
    fn check_sight(&self) {
        let view = self.view();
        for (_, object) in &self.engine.objects {
            let mut gaps = [true; LEN];
            let mut holds_nothing = true;
            for (index, number) in &object.windows {
                let guard = TestShelf::lock(&self.engine.windows[*number].slot);
                holds_nothing &= guard.holds_nothing();
                for (span, extent) in guard.iter() {
                    let part = self.part_of(range_of(*index, span).unwrap());
                    gaps[part.0..part.1].fill(false);
                    if extent.slab.is_some() || *extent.state == ExtentState::Zero {
                        let mut found = ReadBuf::default();
                        assert!(guard.collect(span, Access::Quiet, &mut found));
                        self.oracle.check_now(part, &found.to_vec(), view);
                    }
                }
            }
            // Where a first write may copy, what is under way is waited for.
            let waits = self.setup.copies_on_write && self.shelf.used().dirty > 0;
            if object.complete && !waits {
                for at in (0..LEN).filter(|at| gaps[*at]) {
                    self.oracle.check_now((at, at + 1), &[0], view);
                }
                let is_reported =
                    object.absent && holds_nothing && self.setup.missing == Missing::NotFound;
                assert!(
                    !is_reported || self.oracle.may_be_absent(view),
                    "the object is known not to exist"
                );
            }
        }
    }

    pub(super) fn check(&mut self) {
        if self.shelf.used().dirty > 0 {
            self.was_unstored = true;
        } else {
            assert!(!self.was_unstored, "the clean event is missing");
        }
        if !self.checks {
            return;
        }
        self.repeat_ends();
        self.oracle.check_crash(&self.store.tags());
        self.check_sight();
        self.check_flushes();
        let recount = match self.engine.audit() {
            Ok(recount) => recount,
            Err(failure) => panic!("{failure}"),
        };
        self.take_actions();
        assert_eq!(recount.charge, self.shelf.used(), "charge: recount, books");
        assert_eq!(recount.totals, self.shelf.totals(), "totals");
        assert_eq!(recount.objects, self.shelf.objects(), "objects");
        assert!(
            self.waiting.is_empty() || !self.has_nothing_under_way(),
            "{:?} wait for nothing",
            self.waiting
        );
        let in_flight: i64 = self
            .writes
            .values()
            .map(|write| write.cells.len() as i64)
            .sum();
        let totals = self.shelf.totals();
        let unstored = totals.bytes_in(BufferState::Dirty) + in_flight;
        assert_eq!(
            self.shelf.used().dirty - self.engine.held_by_writes().dirty,
            unstored,
            "what is charged as dirty is neither dirty nor in flight"
        );
    }

    /// All is at rest: everything is as it should be, and goes when it is dropped.
    pub(super) fn check_end(&mut self) {
        self.checks = true;
        self.oracle.check_end(&self.store.tags());
        assert!(self.engine.is_quiet(), "something is under way");
        let waiter = self.next_waiter();
        self.read((0, LEN), waiter, true);
        while let Some(op) = self.fetches.keys().next().copied() {
            let now = self.fetches[&op].versions.last().unwrap().clone();
            self.end_fetch(op, Ok(now));
        }
        assert!(self.waiting.is_empty(), "the last read is not answered");
        let kept = self.step(|engine, _| engine.release());
        assert_eq!(kept, 0, "bytes outlast a release though nothing is dirty");
        let lost = self.step(|engine, now| engine.purge(now));
        assert_eq!(lost, 0, "bytes were dirty at rest");
        assert_eq!(self.shelf.used(), Charge::default(), "room is lost");
        assert_eq!(
            (self.shelf.objects(), self.shelf.windows()),
            (0, 0),
            "objects and windows are left"
        );
    }
}

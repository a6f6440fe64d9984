//! A number for everything that decides how a world goes on, so that a search looks at equal worlds once.
//!
//! Two worlds are equal when they differ only in names. Operations and waiters are told by their order, moments by
//! what is over and what is still to come, flush epochs by which flushes wait for which bytes, and writes by rank among
//! those of which a byte is left anywhere: in the cache, in the store, or on the way. What was promised is told as far
//! as it can still be broken.
//!
//! Left out are counters, what was evicted before, how warm the cached bytes are, and in which order they would go: the
//! search trims all or nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::looks::ReadLook;
use super::oracle::{Cells, INITIAL, LEN, TAGS, ZEROS, bit, tag_of};
use super::world::World;
use crate::buf::ReadBuf;
use crate::engine::extent::{ExtentState, OpId, Written};
use crate::engine::object::{Object, range_of};
use crate::engine::set::{Op, OpWaiters};
use crate::engine::tests::make::range;
use crate::engine::tests::shelf::TestShelf;
use crate::engine::window::{Charge, Held, Span, Window};
use crate::engine::{Access, BufferState, Shelf, WaiterId};

/// The tags of the bytes in `span` of window `index`, none where the extent has none.
fn tags_in(
    world: &World,
    window: &Window,
    (index, span): (u64, Span),
    extent: Held<'_>,
) -> Vec<u8> {
    let mut tags = Vec::new();
    if extent.slab.is_none() {
        return tags;
    }
    let mut out = ReadBuf::default();
    assert!(
        window.collect(span, Access::Quiet, &mut out),
        "bytes that can't be read"
    );
    let (start, _) = world.part_of(range_of(index, span).unwrap());
    for (nth, byte) in out.to_vec().iter().enumerate() {
        tags.push(tag_of(*byte, start + nth) as u8);
    }
    tags
}

/// What distinguishes a world, and the ways to name things in it.
struct Code<'a> {
    world: &'a World,
    bytes: Vec<u8>,
    /// Writes of which a byte is left anywhere.
    live: u16,
    /// Those of which one may still come to the store.
    may_land: u16,
    /// The epochs of the flushes that wait.
    epochs: BTreeSet<u64>,
    /// By window and extent, the writes its bytes come from.
    tags: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn digest(&self) -> u64 {
        let mut code = Code::new(self);
        code.put_engine();
        code.put_store();
        code.put_oracle();
        XxHash3_64::oneshot(&code.bytes)
    }
}

impl<'a> Code<'a> {
    fn new(world: &'a World) -> Self {
        let oracle = &world.oracle;
        let mut code = Self {
            world,
            bytes: Vec::with_capacity(1024),
            live: bit(ZEROS) | bit(INITIAL),
            may_land: oracle.asked.iter().fold(0, |all, asked| all | asked),
            epochs: BTreeSet::new(),
            tags: Vec::new(),
        };
        for (_, object) in &world.engine.objects {
            code.epochs
                .extend(object.flushes.iter().map(|flush| flush.epoch));
            for (index, number) in &object.windows {
                let guard = TestShelf::lock(&world.engine.windows[*number].slot);
                for (span, extent) in guard.iter() {
                    let tags = tags_in(world, &guard, (*index, span), extent);
                    let all = tags.iter().fold(0, |all, tag| all | bit(usize::from(*tag)));
                    code.live |= all;
                    if let Some(written) = extent.state.written() {
                        code.may_land |= all;
                        code.live |= written.journal.map_or(0, |tid| bit(tid.0.get() as usize));
                    }
                    code.tags.push(tags);
                }
            }
        }
        for write in world.writes.values().chain(&world.given_up) {
            for (_, tag) in &write.cells {
                code.may_land |= bit(*tag);
            }
        }
        for tag in world.store.tags() {
            code.live |= bit(tag);
        }
        for fetch in world.fetches.values() {
            for version in fetch.versions.iter().flatten() {
                for byte in version {
                    code.live |= bit(usize::from(*byte / 16));
                }
            }
        }
        code.live |= code.may_land;
        for (tag, places) in &oracle.journal {
            code.live |= if *places == 0 { 0 } else { bit(*tag) };
        }
        code
    }

    fn put(&mut self, number: usize) {
        self.bytes
            .extend(u16::try_from(number).unwrap().to_le_bytes());
    }

    fn put_flags(&mut self, flags: &[bool]) {
        for flag in flags {
            self.bytes.push(u8::from(*flag));
        }
    }

    fn put_long(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_charge(&mut self, charge: Charge) {
        for part in [charge.room, charge.dirty, charge.dirty_buffers] {
            self.put_long(part.cast_unsigned());
        }
    }

    /// By order among those that are live.
    fn put_tag(&mut self, tag: usize) {
        let is_live = self.live & bit(tag) != 0;
        let rank = (self.live & (bit(tag) - 1)).count_ones() as usize;
        self.put(if is_live { rank } else { TAGS });
    }

    /// Those of the tags that are in `of`, which is a part of the live ones.
    fn put_tags(&mut self, tags: u16, of: u16) {
        let mut left = tags & of;
        let mut ranks = 0;
        while left != 0 {
            let lowest = left & left.wrapping_neg();
            ranks |= 1 << (self.live & (lowest - 1)).count_ones();
            left &= !lowest;
        }
        self.bytes.extend(u16::to_le_bytes(ranks));
    }

    fn put_cells(&mut self, cells: &Cells, of: u16) {
        for cell in cells {
            self.put_tags(*cell, of);
        }
    }

    fn put_waiter(&mut self, waiter: WaiterId) {
        let rank = self.world.waiting.range(..waiter).count();
        self.put(rank);
    }

    fn put_op(&mut self, op: OpId) {
        self.put(self.world.engine.ops.range(..op).count());
    }

    fn put_engine(&mut self) {
        let world = self.world;
        let engine = &world.engine;
        assert!(
            engine.actions.is_empty()
                && engine.emptied.is_empty()
                && engine.purse == Charge::default(),
            "something is left to do"
        );
        let (listed, cooled) = world.shelf.news();
        for keys in [listed, cooled] {
            self.put(keys.len());
            for key in keys {
                self.put_long(key.index);
            }
        }
        self.put_flags(&[
            engine.limits.write_through,
            engine.demand.is_some(),
            engine.was_unstored,
            engine.is_fenced,
            engine.awaits_flush,
            !engine.pausing.is_empty(),
            world.was_unstored,
        ]);
        self.put_charge(world.shelf.used());
        self.put_charge(engine.held_by_writes());
        for (waiter, charge) in world.shelf.queue() {
            self.put_waiter(waiter);
            self.put_charge(charge);
        }
        self.put_long(engine.options.context.seq);
        self.put(engine.contexts.len());
        for context in engine.contexts.keys() {
            self.put_long(*context);
        }
        self.put(engine.urgent.len() * 8 + engine.unstored.len() * 4 + engine.idle.len() * 2);
        self.put(engine.objects.len());
        let mut extents = 0;
        for (number, object) in &engine.objects {
            self.put_flags(&[engine.urgent.contains(&number)]);
            self.put_object(object);
            for (index, window) in &object.windows {
                let entry = &engine.windows[*window];
                self.put(entry.pins as usize);
                let guard = TestShelf::lock(&entry.slot);
                extents = self.put_window(*index, &guard, extents);
            }
        }
        let mut started = None;
        for op in engine.ops.values() {
            // Operations that began together are given up together.
            let with_last = started.replace(op.started()) == Some(op.started());
            self.put_flags(&[with_last]);
            self.put_under_way(op);
        }
        for (waiter, pending) in &engine.drops {
            self.put_waiter(*waiter);
            self.put(*pending);
        }
        self.put(engine.flushes.len() * 256 + engine.writes.len() * 16 + engine.reads.len());
        for waiter in engine.flushes.keys().chain(engine.writes.keys()) {
            self.put_waiter(*waiter);
        }
        for (waiter, read) in &engine.reads {
            self.put_waiter(*waiter);
            self.put_flags(&[read.has_waited, read.has_claim]);
            // The window tells of the byte that it lacks only whether somebody does.
            let watch = read.watch.expect("it lacks something");
            let lacking = range(watch.offset, 1);
            self.put_part(self.world.part_of(lacking));
        }
    }

    fn put_object(&mut self, object: &Object) {
        let world = self.world;
        self.put_flags(&[
            object.absent,
            object.absence_in_doubt,
            object.complete,
            object.is_parked,
            object.idle_since.is_some(),
            object.turn.is_some_and(|turn| turn.is_waited_for),
        ]);
        self.put_long(object.turn.map_or(u64::MAX, |turn| turn.context));
        self.put(object.listed.len() * 8 + object.windows.len());
        for index in &object.listed {
            self.put_long(*index);
        }
        self.put_flags(&[object.due.is_some(), object.is_paused(world.now)]);
        self.put(object.retry.map_or(0, |retry| retry.failures as usize + 1));
        self.put(object.writebacks.len() * 256 + object.fetches.len());
        for (op, flight) in &object.writebacks {
            self.put_op(*op);
            self.put_long(flight.context);
            self.put(flight.ranges.len());
            for range in &flight.ranges {
                self.put_part(self.world.part_of(*range));
            }
        }
        for (op, range) in &object.cut_fetches {
            self.put_op(*op);
            self.put_part(self.world.part_of(*range));
        }
        self.put(object.flushes.iter().count());
        for flush in object.flushes.iter() {
            self.put_waiter(flush.waiter);
            self.put(self.epochs.range(..flush.epoch).count());
            self.put(flush.ops);
            for range in flush.ranges.iter().flatten() {
                self.put_part(self.world.part_of(*range));
            }
        }
        self.put(object.context_waits.len());
        for waiter in &object.context_waits {
            self.put_waiter(*waiter);
        }
        self.put_readers(&object.paused_reads);
    }

    fn put_part(&mut self, (start, end): (usize, usize)) {
        self.put(start * LEN * 2 + end);
    }

    /// Those who still wait; what others left behind is void.
    fn put_readers(&mut self, readers: &[(WaiterId, u32)]) {
        let world = self.world;
        let reads = &world.engine.reads;
        let is_waiting = |(waiter, round): &&(WaiterId, u32)| {
            reads
                .get(waiter)
                .is_some_and(|read| read.is_in_round(*round))
        };
        self.put(readers.iter().filter(is_waiting).count());
        for (waiter, _) in readers.iter().filter(is_waiting) {
            self.put_waiter(*waiter);
        }
    }

    fn put_under_way(&mut self, op: &Op) {
        let waiters: &OpWaiters = match op {
            Op::Fetch(fetch) => {
                self.put_part(self.world.part_of(fetch.range));
                self.put_flags(&[true, fetch.trusts_absence]);
                &fetch.waiters
            }
            Op::WriteBack(write) => {
                self.put_flags(&[false]);
                self.put(write.flushes.len());
                for waiter in &write.flushes {
                    self.put_waiter(*waiter);
                }
                &write.waiters
            }
        };
        self.put_readers(&waiters.reads);
        self.put(waiters.drops.len());
        for waiter in &waiters.drops {
            self.put_waiter(*waiter);
        }
    }

    fn put_window(&mut self, index: u64, window: &Window, mut nth: usize) -> usize {
        self.put_long(index);
        self.put_flags(&[
            window.listed,
            window.unanswered,
            window.awaited,
            window.has_overtaken(),
        ]);
        self.put_charge(window.charge());
        let mut slabs = Vec::new();
        for (span, extent) in window.iter() {
            self.put_part(self.world.part_of(range_of(index, span).unwrap()));
            self.bytes.push(extent.state.kind() as u8);
            if let ExtentState::Rx { op } | ExtentState::Tx { op, .. } = extent.state {
                self.put_op(*op);
            }
            if let Some(written) = extent.state.written() {
                self.put_written(written);
            }
            if let Some(slab) = &extent.slab {
                let slab = Arc::as_ptr(slab);
                let place = slabs.iter().position(|known| *known == slab);
                self.put(place.unwrap_or(slabs.len()));
                self.put(extent.at as usize);
                if place.is_none() {
                    slabs.push(slab);
                }
            }
            for tag in std::mem::take(&mut self.tags[nth]) {
                self.put_tag(usize::from(tag));
            }
            nth += 1;
        }
        self.bytes.push(BufferState::ALL.len() as u8);
        nth
    }

    fn put_written(&mut self, written: &Written) {
        self.put(self.epochs.range(..written.epoch).count());
        self.put_long(written.context);
        if let Some(tid) = written.journal {
            self.put_tag(tid.0.get() as usize);
        }
    }

    fn put_store(&mut self) {
        let world = self.world;
        self.put(world.store.len().map_or(LEN + 1, |len| len));
        for tag in world.store.tags() {
            self.put_tag(tag);
        }
        for fetch in world.fetches.values() {
            self.put(fetch.versions.len());
            for version in &fetch.versions {
                let Some(version) = version else {
                    self.put(LEN + 1);
                    continue;
                };
                self.put(version.len());
                for byte in version {
                    self.put_tag(usize::from(*byte / 16));
                }
            }
        }
        self.put(world.given_up.len());
        for write in world.writes.values().chain(&world.given_up) {
            self.put(write.cells.len());
            self.put_flags(&[write.has_landed]);
            for (at, tag) in &write.cells {
                self.put(*at);
                self.put_tag(*tag);
            }
        }
    }

    fn put_oracle(&mut self) {
        let world = self.world;
        let oracle = &world.oracle;
        let (live, asked) = (self.live, oracle.asked);
        let unanswered = asked.iter().fold(0, |all, asked| all | asked);
        self.put_cells(&oracle.held, live);
        for held in oracle.held {
            self.put_flags(&[held != 0]);
        }
        self.put_cells(&asked, live);
        self.put_cells(&oracle.cut, unanswered);
        self.put_cells(&oracle.stale, live);
        self.put_cells(&oracle.walled, self.may_land);
        self.put_cells(&oracle.flushed, self.may_land);
        self.put_tags(oracle.through, unanswered);
        self.put_flags(&[oracle.may_seem_absent]);
        self.put_tags(oracle.acknowledged, live);
        for tag in (0..TAGS).filter(|tag| live & bit(*tag) != 0) {
            self.put_tags(oracle.before[tag], live);
            if self.may_land & bit(tag) != 0 {
                self.put_part(oracle.parts[tag]);
                self.put_long(oracle.contexts[tag]);
            }
        }
        for (tag, places) in oracle.journal.iter().filter(|(_, places)| **places != 0) {
            self.put_tag(*tag);
            self.put(usize::from(*places));
        }
        for (waiter, tag) in &oracle.writes {
            self.put_waiter(*waiter);
            self.put_tag(*tag);
        }
        for (waiter, look) in &oracle.reads {
            self.put_waiter(*waiter);
            self.put_read(look);
        }
        for (waiter, look) in &oracle.flushes {
            self.put_waiter(*waiter);
            self.put_flags(&[look.was_clean, look.was_cut]);
            self.put_tags(look.asked, live);
            for promised in look.promised {
                // What must not be in the store when it is answered.
                let older = (0..TAGS)
                    .filter(|tag| promised & bit(*tag) != 0)
                    .fold(0, |older, tag| older | oracle.before[tag]);
                self.put_tags(older, live);
            }
        }
        for (waiter, look) in &oracle.drops {
            self.put_waiter(*waiter);
            self.put_part(look.part);
            self.bytes.push(look.deletes as u8);
            self.put_tags(look.acknowledged, self.may_land);
        }
    }

    fn put_read(&mut self, look: &ReadLook) {
        self.put_part(look.part);
        self.put_flags(&[look.deliver, look.may_be_absent, look.must_be_absent]);
        let mut seen = look.seen.clone();
        for allowed in seen.iter_mut().flatten() {
            *allowed &= self.live;
        }
        seen.sort_unstable();
        seen.dedup();
        self.put(seen.len());
        for cells in seen {
            self.put_cells(&cells, self.live);
        }
    }
}

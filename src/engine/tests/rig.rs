//! An engine over a store whose answers the test gives when and as it likes. After every step the engine is audited
//! and its recount compared with the shelf's books.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

pub(super) use super::make::*;
use super::shelf::{Bounds, TestShelf};
use super::store::Store;
use crate::engine::extent::OpId;
use crate::engine::{
    Action, BufferListing, BufferState, Demand, EngineLimits, EngineOptions, Flushed, Layout,
    Reply, SetEngine, WaiterId,
};
use crate::error::{BackendError, CacheError};
use crate::io::{BackendRead, BackendWrite, Capabilities, JournalNotice};
use crate::request::{Missing, ReadRequest, Shape, WriteRequest};
use crate::types::{Moment, ObjectKey, SnapContext, SnapId, Timestamp, Truncation};

/// What a rig is built with.
#[derive(Clone, Debug)]
pub(super) struct RigOptions {
    pub(super) missing: Missing,
    pub(super) capabilities: Capabilities,
    pub(super) layout: Option<Layout>,
    pub(super) limits: EngineLimits,
    pub(super) bounds: Bounds,
    pub(super) until_flush: bool,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            missing: Missing::Zeros,
            capabilities: Capabilities::default(),
            layout: None,
            limits: EngineLimits {
                write_through: false,
                writebacks_in_flight: 32,
                retry_delay_min: Duration::from_millis(100),
                retry_delay_max: Duration::from_secs(1),
                backend_timeout: Duration::from_secs(60),
            },
            bounds: Bounds::default(),
            until_flush: false,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) engine: SetEngine<TestShelf>,
    pub(super) shelf: TestShelf,
    pub(super) store: Store,
    pub(super) now: Moment,
    pub(super) fetches: BTreeMap<OpId, BackendRead>,
    pub(super) write_backs: BTreeMap<OpId, BackendWrite>,
    /// Every writeback that was ever sent.
    pub(super) sent: Vec<BackendWrite>,
    pub(super) given_up: Vec<(OpId, Option<BackendWrite>)>,
    pub(super) notices: Vec<JournalNotice>,
    pub(super) clean_events: usize,
    /// Whether room is given to those who wait as soon as there is some.
    pub(super) serves_room: bool,
    /// The order in which callers were answered.
    pub(super) answered: Vec<WaiterId>,
    pub(super) answers: BTreeMap<WaiterId, Reply>,
    asked: BTreeSet<WaiterId>,
    last_waiter: u64,
    pub(super) was_unstored: bool,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(RigOptions::default())
    }

    pub(super) fn with(options: RigOptions) -> Self {
        let shelf = TestShelf::default();
        shelf.set_bounds(options.bounds);
        let engine_options = EngineOptions {
            shape: Shape {
                prefix: "vol".to_owned(),
                object_bytes_max: crate::types::OFFSET_BYTES_MAX,
                missing: options.missing,
            },
            layout: options.layout,
            capabilities: options.capabilities,
            truncation: Truncation::default(),
            context: SnapContext::default(),
            id: "vol".into(),
            write_through_until_flush: options.until_flush,
        };
        Self {
            engine: SetEngine::new(shelf.clone(), engine_options, options.limits),
            shelf,
            store: Store::default(),
            now: Moment::from_nanos(1),
            fetches: BTreeMap::new(),
            write_backs: BTreeMap::new(),
            sent: Vec::new(),
            given_up: Vec::new(),
            notices: Vec::new(),
            clean_events: 0,
            serves_room: true,
            answered: Vec::new(),
            answers: BTreeMap::new(),
            asked: BTreeSet::new(),
            last_waiter: 0,
            was_unstored: false,
        }
    }

    /// Puts an object of this content into the store.
    pub(super) fn store_object(&mut self, object: u64, bytes: Vec<u8>) {
        self.store.insert(name(object), bytes);
    }

    /// Does one thing to the engine, carries out its actions and checks everything.
    pub(super) fn step<R>(
        &mut self,
        act: impl FnOnce(&mut SetEngine<TestShelf>, Moment) -> R,
    ) -> R {
        let result = act(&mut self.engine, self.now);
        self.take_actions();
        self.check();
        while self.serves_room {
            let Some((waiter, charge)) = self.shelf.serve_first() else {
                break;
            };
            self.engine.handle_room(self.now, waiter, charge);
            self.take_actions();
            self.check();
        }
        result
    }

    pub(super) fn take_actions(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Fetch { op, read } => {
                    self.fetches.insert(op, read);
                }
                Action::WriteBack { op, write } => {
                    self.check_write_back(&write);
                    self.sent.push(write.clone());
                    self.write_backs.insert(op, write);
                }
                Action::GiveUp { op } => {
                    self.fetches.remove(&op);
                    self.given_up.push((op, self.write_backs.remove(&op)));
                }
                Action::Journal(notice) => self.notices.push(notice),
                Action::AwaitRoom { waiter, charge } => self.shelf.await_room(waiter, charge),
                Action::ForgoRoom { waiter } => self.shelf.leave_queue(waiter),
                Action::ForgoWriteRoom => self.shelf.forgo_writes(),
                Action::Reply { waiter, reply } => {
                    assert!(
                        self.asked.remove(&waiter),
                        "{waiter:?} is answered twice or never asked"
                    );
                    self.answered.push(waiter);
                    self.answers.insert(waiter, reply);
                }
                Action::Clean => {
                    assert_eq!(
                        self.shelf.used().dirty,
                        0,
                        "not clean with dirty bytes in the books"
                    );
                    self.clean_events += 1;
                    assert!(self.was_unstored, "a clean event without anything dirty");
                    self.was_unstored = false;
                }
            }
        }
    }

    /// What every writeback must keep to: the store's capabilities, and rule W-04.
    fn check_write_back(&self, write: &BackendWrite) {
        let can = self.engine.options().capabilities;
        assert!(write.len_bytes() <= can.write_bytes_max, "a write too long");
        let pieces: usize = write.runs.iter().map(|run| run.buffers.len()).sum();
        assert!(
            pieces <= can.write_pieces_max,
            "a write of too many pieces: {pieces}"
        );
        assert!(can.scattered_writes || write.runs.len() == 1);
        let mut end = 0;
        for run in &write.runs {
            assert!(run.offset >= end, "runs out of order");
            assert!(run.buffers.iter().all(|buffer| !buffer.is_empty()));
            end = run.offset + run.len_bytes();
        }
        let ranges = ranges_of(write);
        assert!(!ranges.is_empty());
        for other in self.write_backs.values() {
            let apart = other.object != write.object
                || ranges_of(other)
                    .iter()
                    .all(|known| ranges.iter().all(|range| !range.overlaps(*known)));
            assert!(apart, "two writebacks of one byte are in flight");
        }
    }

    pub(super) fn check(&mut self) {
        let recount = match self.engine.audit() {
            Ok(recount) => recount,
            Err(failure) => panic!("{failure}"),
        };
        self.take_actions();
        assert_eq!(recount.charge, self.shelf.used(), "charge: recount, books");
        assert_eq!(
            recount.totals,
            self.shelf.totals(),
            "totals: recount, books"
        );
        assert_eq!(recount.objects, self.shelf.objects(), "objects");
        if self.shelf.used().dirty > 0 {
            self.was_unstored = true;
        } else {
            assert!(!self.was_unstored, "the clean event is missing");
        }
        assert!(
            self.shelf.largest_force() <= 16 << 10,
            "bytes entered without room"
        );
    }

    pub(super) fn next_waiter(&mut self) -> WaiterId {
        self.last_waiter += 1;
        let waiter = WaiterId(self.last_waiter);
        self.asked.insert(waiter);
        waiter
    }

    pub(super) fn read(&mut self, object: u64, offset: u64, len: u64) -> WaiterId {
        self.read_request(read_of(object, offset, len), true)
    }

    pub(super) fn prefetch(&mut self, object: u64, offset: u64, len: u64) -> WaiterId {
        self.read_request(read_of(object, offset, len), false)
    }

    pub(super) fn read_request(&mut self, request: ReadRequest, deliver: bool) -> WaiterId {
        let request = self
            .engine
            .options()
            .shape
            .checked_read(request)
            .expect("a sound read");
        let waiter = self.next_waiter();
        self.step(|engine, now| engine.read(now, waiter, request, deliver));
        waiter
    }

    pub(super) fn write(&mut self, object: u64, offset: u64, bytes: &[u8]) -> WaiterId {
        self.write_request(write_of(object, offset, bytes))
    }

    pub(super) fn write_request(&mut self, request: WriteRequest) -> WaiterId {
        let shape = self.engine.options().shape.clone();
        let request = shape.checked_write(request).expect("a sound write");
        let waiter = self.next_waiter();
        let modified = request
            .modified
            .unwrap_or(Timestamp(self.now.as_nanos() + 1_000_000));
        self.step(|engine, now| engine.write(now, waiter, request, modified));
        waiter
    }

    /// Writes without an audit after it, for tests that write much.
    pub(super) fn engine_write(&mut self, object: u64, offset: u64, bytes: &[u8]) {
        let shape = &self.engine.options().shape;
        let request = shape
            .checked_write(write_of(object, offset, bytes))
            .unwrap();
        let waiter = self.next_waiter();
        self.was_unstored = true;
        self.engine.write(self.now, waiter, request, Timestamp(1));
        self.take_actions();
    }

    pub(super) fn flush(&mut self) -> WaiterId {
        let waiter = self.next_waiter();
        self.step(|engine, now| engine.flush(now, waiter, None));
        waiter
    }

    pub(super) fn flush_range(&mut self, object: u64, offset: u64, len: u64) -> WaiterId {
        let waiter = self.next_waiter();
        let extents = [extent(object, offset, len)];
        self.step(|engine, now| engine.flush(now, waiter, Some(&extents)));
        waiter
    }

    pub(super) fn discard(&mut self, object: u64, offset: u64, len: u64) -> WaiterId {
        let waiter = self.next_waiter();
        let extents = [extent(object, offset, len)];
        self.step(|engine, now| engine.discard(now, waiter, &extents));
        waiter
    }

    pub(super) fn truncate(&mut self, object: u64, size: u64) -> WaiterId {
        let waiter = self.next_waiter();
        let key = ObjectKey::Number(object);
        self.step(|engine, now| engine.truncate(now, waiter, (&key, size)));
        waiter
    }

    pub(super) fn purge(&mut self) -> u64 {
        self.step(|engine, now| engine.purge(now))
    }

    pub(super) fn release(&mut self) -> u64 {
        self.step(|engine, _| engine.release())
    }

    pub(super) fn trim(&mut self, bytes: u64) -> u64 {
        self.step(|engine, now| engine.trim(now, bytes))
    }

    /// Asks for all that is dirty to be written back, whatever its age.
    pub(super) fn write_back_all(&mut self) {
        let demand = Demand {
            bytes: u64::MAX,
            since: self.now,
        };
        self.step(|engine, now| engine.write_back(now, demand));
    }

    pub(super) fn cancel(&mut self, waiter: WaiterId) {
        assert!(self.asked.remove(&waiter), "nobody waits under this number");
        self.shelf.leave_queue(waiter);
        self.step(|engine, _| engine.cancel_waiter(waiter));
    }

    /// Lets time pass, and calls the engine when it wants to be called.
    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now.after(by);
        while self
            .engine
            .poll_deadline()
            .is_some_and(|deadline| deadline <= self.now)
        {
            self.step(|engine, now| engine.handle_deadline(now));
        }
    }

    /// Ends a fetch with what the store holds now.
    pub(super) fn end_fetch(&mut self, op: OpId) {
        let result = self.store.read(&self.fetches[&op]);
        self.end_fetch_with(op, result);
    }

    pub(super) fn end_fetch_with(&mut self, op: OpId, result: Result<Bytes, BackendError>) {
        self.fetches.remove(&op);
        self.step(|engine, now| engine.handle_fetch(now, op, result));
    }

    /// Ends a writeback: the store has it.
    pub(super) fn end_write(&mut self, op: OpId) {
        let write = self
            .write_backs
            .remove(&op)
            .expect("the writeback is in flight");
        self.store.write(&write);
        self.step(|engine, now| engine.handle_write_back(now, op, Ok(())));
    }

    /// Ends a writeback: nothing of it was stored.
    pub(super) fn fail_write(&mut self, op: OpId, error: BackendError) {
        self.write_backs
            .remove(&op)
            .expect("the writeback is in flight");
        self.step(|engine, now| engine.handle_write_back(now, op, Err(error)));
    }

    pub(super) fn end_all_fetches(&mut self) {
        while let Some(op) = self.fetches.keys().next().copied() {
            self.end_fetch(op);
        }
    }

    pub(super) fn end_all_writes(&mut self) {
        while let Some(op) = self.write_backs.keys().next().copied() {
            self.end_write(op);
        }
    }

    /// The one fetch under way.
    pub(super) fn only_fetch(&self) -> OpId {
        assert_eq!(self.fetches.len(), 1, "{:?}", self.fetches);
        *self.fetches.keys().next().unwrap()
    }

    /// The one writeback under way.
    pub(super) fn only_write(&self) -> OpId {
        assert_eq!(self.write_backs.len(), 1, "{:?}", self.write_backs);
        *self.write_backs.keys().next().unwrap()
    }

    /// A number that nobody waits under after all.
    pub(super) fn forget(&mut self, waiter: WaiterId) {
        self.asked.remove(&waiter);
    }

    pub(super) fn is_answered(&self, waiter: WaiterId) -> bool {
        self.answers.contains_key(&waiter)
    }

    pub(super) fn is_anybody_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn waiting(&self) -> Vec<WaiterId> {
        self.asked.iter().copied().collect()
    }

    pub(super) fn answer(&self, waiter: WaiterId) -> &Reply {
        self.answers
            .get(&waiter)
            .unwrap_or_else(|| panic!("{waiter:?} has no answer yet"))
    }

    pub(super) fn bytes(&self, waiter: WaiterId) -> Vec<u8> {
        match self.answer(waiter) {
            Reply::Read(Ok(bytes)) => bytes.to_vec(),
            other => panic!("{waiter:?} is not a read that went well: {other:?}"),
        }
    }

    pub(super) fn read_error(&self, waiter: WaiterId) -> CacheError {
        match self.answer(waiter) {
            Reply::Read(Err(error)) => error.clone(),
            other => panic!("{waiter:?} is not a read that failed: {other:?}"),
        }
    }

    pub(super) fn done(&self, waiter: WaiterId) -> Result<(), CacheError> {
        match self.answer(waiter) {
            Reply::Done(result) => result.clone(),
            other => panic!("{waiter:?} is neither a write nor a discard: {other:?}"),
        }
    }

    pub(super) fn flushed(&self, waiter: WaiterId) -> Result<Flushed, CacheError> {
        match self.answer(waiter) {
            Reply::Flushed(result) => result.clone(),
            other => panic!("{waiter:?} is not a flush: {other:?}"),
        }
    }

    /// Reads to the end, fetching what must be fetched.
    pub(super) fn read_now(&mut self, object: u64, offset: u64, len: u64) -> Vec<u8> {
        let waiter = self.read(object, offset, len);
        while !self.is_answered(waiter) {
            assert!(!self.fetches.is_empty(), "the read waits for no fetch");
            self.end_all_fetches();
        }
        self.bytes(waiter)
    }

    /// The buffers of an object's head.
    pub(super) fn buffers(&mut self, object: u64) -> Vec<BufferListing> {
        let listings = self.step(|engine, now| engine.list(now));
        let wanted = ObjectKey::Number(object);
        listings
            .into_iter()
            .filter(|listing| listing.object == wanted && listing.snap == SnapId::HEAD)
            .flat_map(|listing| listing.buffers)
            .collect()
    }

    /// The buffers of an object's head as (start, end, state).
    pub(super) fn states(&mut self, object: u64) -> Vec<(u64, u64, BufferState)> {
        self.buffers(object)
            .iter()
            .map(|buffer| (buffer.range.start(), buffer.range.end(), buffer.state))
            .collect()
    }

    pub(super) fn bytes_in(&self, state: BufferState) -> i64 {
        self.shelf.totals().bytes_in(state)
    }
}

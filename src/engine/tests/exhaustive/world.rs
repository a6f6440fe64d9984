//! An engine, a store of one small object, and all that is under way between them. Every step is checked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::cases::Setup;
use super::looks::{Deletes, View};
use super::oracle::{Cells, LEN, Oracle, Part, bit, tag_of};
use super::store::{Fetched, Store};
use crate::engine::extent::OpId;
use crate::engine::tests::make::{name, range, ranges_of};
use crate::engine::tests::shelf::TestShelf;
use crate::engine::{Action, EngineLimits, EngineOptions, Reply, SetEngine, Shelf, WaiterId};
use crate::error::{BackendError, CacheError};
use crate::io::{BackendWrite, Capabilities, JournalNotice};
use crate::request::{ObjectExtent, Shape};
use crate::types::{ByteRange, Moment, OFFSET_BYTES_MAX, ObjectKey, SnapContext, Truncation};

/// What happened, line by line.
pub(super) type History = Rc<RefCell<Vec<String>>>;

/// A fetch under way.
#[derive(Clone, Debug)]
pub(super) struct Fetching {
    pub(super) part: Part,
    /// What the store held of it at any moment since it began.
    pub(super) versions: Vec<Fetched>,
}

/// A writeback under way.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    /// Its bytes, each by place and tag.
    pub(super) cells: Vec<(usize, usize)>,
    /// Whether the store has it, though nobody was told.
    pub(super) has_landed: bool,
    /// Keeps its memory as long as a store would.
    write: BackendWrite,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct World {
    pub(super) engine: SetEngine<TestShelf>,
    pub(super) shelf: TestShelf,
    pub(super) store: Store,
    pub(super) oracle: Oracle,
    pub(super) setup: Setup,
    pub(super) now: Moment,
    pub(super) fetches: BTreeMap<OpId, Fetching>,
    pub(super) writes: BTreeMap<OpId, Writing>,
    /// Writebacks that were given up and may land all the same, until a later one does.
    pub(super) given_up: Vec<Writing>,
    /// How many things may still go wrong.
    pub(super) faults: usize,
    pub(super) was_unstored: bool,
    /// Whether each step is checked, or only made, since it was checked before.
    pub(super) checks: bool,
    /// What happened, where somebody wants to know.
    pub(super) history: Option<History>,
    pub(super) ended: Vec<OpId>,
    last_waiter: u64,
    /// Who was asked for and is not answered.
    pub(super) waiting: BTreeSet<WaiterId>,
    /// Discards to follow those that were answered.
    follow_ups: Vec<Part>,
}

impl World {
    pub(super) fn new(setup: Setup, stored: Option<usize>, faults: usize) -> Self {
        let shelf = TestShelf::default();
        shelf.set_bounds(setup.bounds);
        shelf.set_copies_on_write(setup.copies_on_write);
        // There were flushes before, so that an epoch can be one too low.
        shelf.end_epoch();
        shelf.end_epoch();
        let options = EngineOptions {
            shape: Shape {
                prefix: "vol".to_owned(),
                object_bytes_max: OFFSET_BYTES_MAX,
                missing: setup.missing,
            },
            layout: None,
            capabilities: Capabilities {
                scattered_writes: setup.scattered_writes,
                write_bytes_max: setup.write_bytes_max,
                ..Capabilities::default()
            },
            truncation: Truncation::default(),
            context: SnapContext::default(),
            id: "vol".into(),
            write_through_until_flush: false,
        };
        let parent_len = if setup.has_parent { LEN } else { 0 };
        Self {
            engine: SetEngine::new(shelf.clone(), options, limits(&setup, setup.write_through)),
            shelf,
            store: Store::new(stored, parent_len),
            oracle: Oracle::new(),
            setup,
            now: Moment::from_nanos(1),
            fetches: BTreeMap::new(),
            writes: BTreeMap::new(),
            given_up: Vec::new(),
            faults,
            was_unstored: false,
            checks: false,
            history: None,
            ended: Vec::new(),
            last_waiter: 0,
            waiting: BTreeSet::new(),
            follow_ups: Vec::new(),
        }
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(history) = &self.history {
            history.borrow_mut().push(what());
        }
    }

    /// The range of the object that the cells are.
    pub(super) fn range_of(&self, (start, end): Part) -> ByteRange {
        range(self.setup.base + start as u64, (end - start) as u64)
    }

    pub(super) fn part_of(&self, range: ByteRange) -> Part {
        let at = |offset: u64| offset.saturating_sub(self.setup.base).min(LEN as u64) as usize;
        (at(range.start()), at(range.end()))
    }

    pub(super) fn extent(&self, part: Part) -> ObjectExtent {
        let range = self.range_of(part);
        ObjectExtent::new(0, range.start(), range.len()).unwrap()
    }

    pub(super) fn next_waiter(&mut self) -> WaiterId {
        self.last_waiter += 1;
        let waiter = WaiterId(self.last_waiter);
        self.waiting.insert(waiter);
        waiter
    }

    pub(super) fn forget_waiter(&mut self, waiter: WaiterId) {
        self.waiting.remove(&waiter);
        self.shelf.leave_queue(waiter);
    }

    /// What the store shows now, with all that may land in it at any moment.
    pub(super) fn view(&self) -> View {
        let mut cells: Cells = self.store.tags().map(bit);
        let under_way = self.writes.values().filter(|write| !write.has_landed);
        let mut is_settled = true;
        for write in under_way.chain(&self.given_up) {
            is_settled = false;
            for (at, tag) in &write.cells {
                cells[*at] |= bit(*tag);
            }
        }
        if !is_settled && self.store.has_hidden_parent() {
            for cell in cells.iter_mut().take(self.store.parent_len()) {
                *cell |= bit(super::oracle::INITIAL);
            }
        }
        View {
            cells,
            is_absent: self.store.is_absent(),
            is_settled,
        }
    }

    pub(super) fn note(&mut self) {
        if self.oracle.is_watched() {
            let view = self.view();
            self.oracle.note(view);
        }
    }

    /// Does one thing to the engine, carries out its actions and checks everything.
    pub(super) fn step<R>(
        &mut self,
        act: impl FnOnce(&mut SetEngine<TestShelf>, Moment) -> R,
    ) -> R {
        self.note();
        let result = act(&mut self.engine, self.now);
        self.take_actions();
        loop {
            if let Some(part) = self.follow_ups.pop() {
                self.discard(part, Deletes::Nothing);
            } else if let Some((waiter, charge)) = self.shelf.serve_first() {
                self.engine.handle_room(self.now, waiter, charge);
                self.take_actions();
            } else {
                break;
            }
        }
        self.engine.catch_up();
        self.take_actions();
        self.check();
        result
    }

    pub(super) fn discard(&mut self, part: Part, deletes: Deletes) {
        let waiter = self.next_waiter();
        self.oracle.ask_drop(waiter, part, deletes);
        self.note();
        let extents = [self.extent(part)];
        if deletes == Deletes::Tail {
            let size = self.range_of(part).start();
            self.engine
                .truncate(self.now, waiter, (&ObjectKey::Number(0), size));
        } else {
            self.engine.discard(self.now, waiter, &extents);
        }
        self.take_actions();
    }

    pub(super) fn take_actions(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Fetch { op, read } => self.begin_fetch(op, read.range),
                Action::WriteBack { op, write } => self.begin_write(op, write),
                Action::GiveUp { op } => self.give_up(op),
                Action::Journal(notice) => self.take_notice(notice),
                Action::AwaitRoom { waiter, charge } => {
                    self.tell(|| format!("  {waiter:?} waits for room"));
                    self.shelf.await_room(waiter, charge);
                }
                Action::ForgoRoom { waiter } => self.shelf.leave_queue(waiter),
                Action::ForgoWriteRoom => self.shelf.forgo_writes(),
                Action::Reply { waiter, reply } => self.take_reply(waiter, reply),
                Action::Clean => {
                    self.tell(|| "  the set is clean".to_owned());
                    assert_eq!(self.shelf.used().dirty, 0, "a clean event with dirty bytes");
                    assert!(self.writes.is_empty(), "a clean event amid a writeback");
                    assert!(self.was_unstored, "a clean event without anything dirty");
                    self.was_unstored = false;
                }
            }
        }
        self.engine.answered();
    }

    fn begin_fetch(&mut self, op: OpId, range: ByteRange) {
        let part = self.part_of(range);
        self.tell(|| format!("  {op:?} fetches {part:?}"));
        assert_eq!(range, self.range_of(part), "a fetch of what nobody wants");
        let is_over = |(at, _): &(usize, usize)| part.0 <= *at && *at < part.1;
        for write in self.writes.values() {
            assert!(
                !write.cells.iter().any(is_over),
                "a fetch of bytes over which a writeback is under way"
            );
        }
        let versions = vec![self.store.read(part)];
        self.fetches.insert(op, Fetching { part, versions });
    }

    fn begin_write(&mut self, op: OpId, write: BackendWrite) {
        let mut cells = Vec::new();
        let mut end = 0;
        for run in &write.runs {
            assert!(run.offset >= end, "runs out of order");
            end = run.offset + run.len_bytes();
            let bytes = run.buffers.concat();
            assert!(!bytes.is_empty(), "an empty run");
            let first = usize::try_from(run.offset - self.setup.base).unwrap();
            for (nth, byte) in bytes.iter().enumerate() {
                let tag = tag_of(*byte, first + nth);
                self.oracle.check_context(tag, write.context.seq);
                cells.push((first + nth, tag));
            }
        }
        self.tell(|| format!("  {op:?} writes back {cells:?}"));
        let can = self.engine.options().capabilities;
        assert!(write.len_bytes() <= can.write_bytes_max, "a write too long");
        assert!(can.scattered_writes || write.runs.len() == 1, "scattered");
        assert_eq!(write.object, name(0));
        for other in self.writes.values() {
            let ranges = ranges_of(&write);
            let is_over = |known: &ByteRange| ranges.iter().any(|range| range.overlaps(*known));
            assert!(
                !ranges_of(&other.write).iter().any(is_over),
                "two writebacks of one byte are in flight"
            );
            assert_eq!(
                other.write.context, write.context,
                "writebacks of two contexts are in flight together"
            );
        }
        let writing = Writing {
            cells,
            has_landed: false,
            write,
        };
        self.writes.insert(op, writing);
        self.note();
    }

    fn give_up(&mut self, op: OpId) {
        self.tell(|| format!("  {op:?} is given up"));
        self.ended.push(op);
        self.fetches.remove(&op);
        if let Some(write) = self.writes.remove(&op)
            && !write.has_landed
        {
            self.given_up.push(write);
        }
    }

    fn take_notice(&mut self, notice: JournalNotice) {
        self.tell(|| format!("  {notice:?}"));
        match notice {
            JournalNotice::Committed { range, tid, .. } => {
                let part = self.part_of(range);
                self.oracle
                    .commit(tid.0.get() as usize, part, &self.store.tags());
            }
            JournalNotice::Overwritten { range, old, .. } => {
                let part = self.part_of(range);
                self.oracle.retire(old.0.get() as usize, part);
            }
        }
    }

    fn take_reply(&mut self, waiter: WaiterId, reply: Reply) {
        self.tell(|| format!("  {waiter:?} is answered: {reply:?}"));
        assert!(
            self.waiting.remove(&waiter),
            "{waiter:?} is answered twice or never asked"
        );
        match reply {
            Reply::Read(result) => self.end_read(waiter, result.map(|bytes| bytes.to_vec())),
            Reply::Flushed(result) => {
                let flushed = match result {
                    Ok(flushed) => Some(flushed.already_clean),
                    Err(CacheError::WriteBack { .. }) => None,
                    Err(error) => panic!("a flush failed with {error:?}"),
                };
                self.oracle.end_flush(waiter, &self.store.tags(), flushed);
            }
            Reply::Done(result) => {
                if let Some(tag) = self.oracle.writes.remove(&waiter) {
                    let is_store_error = matches!(result, Err(CacheError::WriteBack { .. }));
                    assert!(result.is_ok() || is_store_error, "{result:?}");
                    if result.is_ok() {
                        self.oracle.end_through(tag, &self.store.tags());
                    }
                    self.oracle.enter(tag);
                } else {
                    assert_eq!(result, Ok(()));
                    self.end_drop(waiter);
                }
                self.note();
            }
        }
    }

    fn end_read(&mut self, waiter: WaiterId, result: Result<Vec<u8>, CacheError>) {
        use crate::request::Missing;
        match result {
            Ok(bytes) => {
                assert!(
                    self.setup.missing == Missing::Zeros || !self.oracle.must_be_absent(waiter),
                    "a read of an object that does not exist found {bytes:?}"
                );
                self.oracle.end_read(waiter, Some(&bytes));
            }
            Err(CacheError::NotFound { .. }) => {
                assert_eq!(self.setup.missing, Missing::NotFound);
                self.oracle.end_read(waiter, None);
            }
            // It may have asked the store for what an earlier one has yet to ask for, and was refused.
            Err(CacheError::Read { .. }) => self.oracle.give_up_read(waiter),
            Err(error) => panic!("a read failed with {error:?}"),
        }
    }

    /// After a discard the caller changes the store, and discards once more what reads brought back meanwhile.
    fn end_drop(&mut self, waiter: WaiterId) {
        let look = self.oracle.end_drop(waiter);
        match look.deletes {
            Deletes::Nothing => return,
            Deletes::Range => self.store.discard(look.part),
            Deletes::Tail => self.store.truncate(look.part.0),
        }
        self.note_store_changed();
        self.follow_ups.push(look.part);
    }

    /// Fetches under way may have seen the store before it changed, or see it now.
    pub(super) fn note_store_changed(&mut self) {
        for fetch in self.fetches.values_mut() {
            let version = self.store.read(fetch.part);
            if !fetch.versions.contains(&version) {
                fetch.versions.push(version);
            }
        }
        self.note();
    }

    /// Puts bytes of a writeback into the store.
    pub(super) fn land(&mut self, cells: &[(usize, usize)], is_late: bool) {
        let tags = self.store.tags();
        if is_late && self.store.has_hidden_parent() {
            // What is copied with it changes late, too.
            for (at, old) in tags.iter().enumerate().take(self.store.parent_len()) {
                self.oracle.note_late_landing(at, *old);
            }
        }
        for (at, tag) in cells {
            if is_late {
                self.oracle.note_late_landing(*at, tags[*at]);
            } else {
                self.oracle.check_landing(*at, tags[*at], *tag);
            }
        }
        self.store.write(cells);
        self.oracle.check_crash(&self.store.tags());
        if !is_late {
            self.given_up.clear();
        }
        self.note_store_changed();
    }

    pub(super) fn end_fetch(&mut self, op: OpId, result: Result<Fetched, BackendError>) {
        self.fetches.remove(&op);
        self.ended.push(op);
        let result = match result {
            Ok(Some(bytes)) => Ok(Bytes::from(bytes)),
            Ok(None) => Err(BackendError::NotFound),
            Err(error) => Err(error),
        };
        self.step(|engine, now| engine.handle_fetch(now, op, result));
    }

    pub(super) fn end_write(&mut self, op: OpId, result: Result<(), BackendError>) {
        self.writes.remove(&op);
        self.ended.push(op);
        self.step(|engine, now| engine.handle_write_back(now, op, result));
    }
}

pub(super) fn limits(setup: &Setup, write_through: bool) -> EngineLimits {
    EngineLimits {
        write_through,
        writebacks_in_flight: setup.writebacks_in_flight,
        retry_delay_min: Duration::from_millis(100),
        retry_delay_max: Duration::from_secs(1),
        backend_timeout: Duration::from_secs(60),
    }
}

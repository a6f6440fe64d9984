//! What the threads of callers and actors share: of the whole cache, and of one set.

use std::sync::{Arc, OnceLock, Weak};

use actix::Addr;

use super::bell::Bell;
use super::books::{Books, Counters};
use super::flusher::FlusherActor;
use super::index::Index;
use super::ledger::{Claimant, Ledger};
use super::message::{Completed, End, Wake};
use super::object_set::ObjectSetActor;
use super::state::{SetState, StateCell};
use super::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence};
use super::sync::{Mutex, RwLock};
use super::tell::tell;
use super::trimmer::TrimActor;
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::Limits;
use crate::engine::{BufferState, Charge, Counter, Layout, Totals, WaiterId, WindowKey};
use crate::error::{CacheError, ConfigError};
use crate::request::Shape;
use crate::types::{Moment, SetId, Timestamp};

/// What all sets of a cache share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: Ledger,
    pub(crate) books: Books,
    /// What sets counted that have gone.
    pub(crate) retired: Mutex<Counters>,
    /// The time of day when the clock started.
    clock_start: Timestamp,
    limits: RwLock<Limits>,
    /// Above so many dirty bytes the flusher is woken. Copied from the limits, since every write asks.
    target_dirty_bytes: AtomicU64,
    is_write_through: AtomicBool,
    /// Sets that have become dirty since the flusher last looked.
    dirtied: Mutex<Vec<Weak<SetShared>>>,
    flusher: OnceLock<Addr<FlusherActor>>,
    trimmer: OnceLock<Addr<TrimActor>>,
    pub(super) flusher_bell: Bell,
    trimmer_bell: Bell,
    /// The trimmer has taken all that there was, and nothing has come to its end since.
    nothing_to_trim: AtomicBool,
    /// What the trimmer found short, on its way to the flusher.
    short: AtomicU64,
    /// Whether sets recount themselves after every turn, for tests.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) audits_each_turn: AtomicBool,
}

impl Common {
    pub(crate) fn new(backend: Arc<dyn Backend>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let clock_start = Timestamp(clock.timestamp().0.saturating_sub(clock.now().as_nanos()));
        let write_bytes_max = backend.capabilities().write_bytes_max;
        Self {
            backend,
            clock,
            retired: Mutex::default(),
            clock_start,
            ledger: Ledger::new(&limits, write_bytes_max),
            books: Books::default(),
            limits: RwLock::new(limits),
            target_dirty_bytes: AtomicU64::new(limits.target_dirty_bytes),
            is_write_through: AtomicBool::new(limits.is_write_through()),
            dirtied: Mutex::default(),
            flusher: OnceLock::new(),
            trimmer: OnceLock::new(),
            flusher_bell: Bell::default(),
            trimmer_bell: Bell::default(),
            nothing_to_trim: AtomicBool::new(false),
            short: AtomicU64::new(0),
            #[cfg(any(test, feature = "testkit"))]
            audits_each_turn: AtomicBool::new(false),
        }
    }

    /// The limits now.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read()
    }

    /// Changes the limits and all that is derived from them; nothing else may.
    ///
    /// # Errors
    /// [`ConfigError::Fixed`] for a changed number of threads; then nothing changes.
    pub(crate) fn set_limits(&self, limits: Limits) -> Result<(), ConfigError> {
        let mut current = self.limits.write();
        if limits.arbiters != current.arbiters {
            return Err(ConfigError::Fixed { field: "arbiters" });
        }
        *current = limits;
        self.target_dirty_bytes
            .store(limits.target_dirty_bytes, Ordering::Relaxed);
        self.is_write_through
            .store(limits.is_write_through(), Ordering::Relaxed);
        self.ledger.set_limits(&limits);
        Ok(())
    }

    /// The time of day at a moment.
    pub(crate) const fn timestamp_at(&self, moment: Moment) -> Timestamp {
        Timestamp(self.clock_start.0.saturating_add(moment.as_nanos()))
    }

    pub(crate) fn set_actors(&self, flusher: Addr<FlusherActor>, trimmer: Addr<TrimActor>) {
        // Set once, by the one who starts the cache.
        self.flusher.get_or_init(|| flusher);
        self.trimmer.get_or_init(|| trimmer);
    }

    /// Ends the flusher and the trimmer.
    pub(crate) fn end_actors(&self) {
        if let Some(flusher) = self.flusher.get() {
            tell(flusher, End);
        }
        if let Some(trimmer) = self.trimmer.get() {
            tell(trimmer, End);
        }
    }

    /// Wakes the flusher, unless it is about to look anyway.
    pub(crate) fn wake_flusher(&self) {
        if self.flusher_bell.ring()
            && let Some(flusher) = self.flusher.get()
        {
            tell(flusher, Wake);
        }
    }

    /// Wakes the trimmer, unless it is about to look anyway.
    pub(crate) fn wake_trimmer(&self) {
        if self.trimmer_bell.ring()
            && let Some(trimmer) = self.trimmer.get()
        {
            tell(trimmer, Wake);
        }
    }

    /// The flusher looks now: whoever finds work after this wakes it again. Returns the sets that have become dirty
    /// since it last looked.
    pub(crate) fn flusher_looks(&self) -> Vec<Weak<SetShared>> {
        self.flusher_bell.answer();
        std::mem::take(&mut *self.dirtied.lock())
    }

    /// The trimmer looks now.
    pub(crate) fn trimmer_looks(&self) {
        self.trimmer_bell.answer();
    }

    /// Notes whether the trimmer had to leave more than it should.
    pub(crate) fn note_trimmed(&self, nothing_left: bool) {
        self.nothing_to_trim.store(nothing_left, Ordering::Release);
    }

    /// The trimmer tells the flusher how much room can only come from dirty bytes being stored.
    pub(crate) fn note_short(&self, short: u64) {
        // Relaxed, here and below: a level, of which an older one does no harm.
        self.short.store(short, Ordering::Relaxed);
    }

    /// What the trimmer found short when it last looked.
    pub(crate) fn short(&self) -> u64 {
        self.short.load(Ordering::Relaxed)
    }

    /// An operation has ended: there may be something to trim again.
    pub(crate) fn note_progress(&self) {
        if self.nothing_to_trim.load(Ordering::Acquire) {
            self.nothing_to_trim.store(false, Ordering::Release);
        }
    }

    /// Wakes the trimmer if little room is left, so that room is there before somebody has to wait for it.
    pub(crate) fn check_room(&self) {
        if self.nothing_to_trim.load(Ordering::Acquire) {
            return;
        }
        let (used, limit) = self.ledger.room();
        let (objects, objects_max) = self.ledger.objects();
        if used > limit - limit / 16 || objects > objects_max {
            self.wake_trimmer();
        }
    }

    /// Whether every write is answered by the store.
    pub(crate) fn is_write_through(&self) -> bool {
        self.is_write_through.load(Ordering::Relaxed)
    }

    /// Above so many dirty bytes the flusher is to be woken.
    pub(crate) fn target_dirty_bytes(&self) -> u64 {
        self.target_dirty_bytes.load(Ordering::Relaxed)
    }

    /// Wakes the flusher if more is dirty than the target, in bytes or in buffers (rule W-08).
    pub(crate) fn check_dirty(&self) {
        let (used, _) = self.ledger.dirty();
        let target = self.target_dirty_bytes.load(Ordering::Relaxed);
        let (buffers, buffers_target) = self.ledger.dirty_buffers(target);
        if used > target || buffers > buffers_target {
            self.wake_flusher();
        }
    }
}

/// What callers, the set's actor, the flusher and the trimmer share of one set.
#[derive(Debug)]
pub(crate) struct SetShared {
    pub(crate) id: SetId,
    pub(crate) shape: Shape,
    pub(crate) layout: Option<Layout>,
    pub(crate) file_bytes: Option<u64>,
    pub(crate) common: Arc<Common>,
    pub(crate) books: Books,
    pub(super) windows: Index,
    pub(super) listed: Mutex<Vec<WindowKey>>,
    pub(super) cooled: Mutex<Vec<WindowKey>>,
    pub(super) epoch: AtomicU64,
    /// The number of the snapshot context that plain writes get.
    pub(super) context: AtomicU64,
    /// Whether the flusher knows that the set may be dirty.
    pub(super) is_dirtied: AtomicBool,
    state: StateCell,
    addr: OnceLock<Addr<ObjectSetActor>>,
    /// What the ledger was told that the set holds and can't store.
    pub(super) stranded: Mutex<Charge>,
    granted: Mutex<Vec<(WaiterId, Charge)>>,
    coldest: AtomicU64,
    /// Objects that hold nothing and may be closed.
    idle: AtomicUsize,
    pub(super) objects: AtomicI64,
    last_waiter: AtomicU64,
}

impl SetShared {
    pub(crate) fn new(
        (id, shape): (SetId, Shape),
        (layout, file_bytes): (Option<Layout>, Option<u64>),
        context: u64,
        common: Arc<Common>,
    ) -> Self {
        Self {
            id,
            shape,
            layout,
            file_bytes,
            books: Books::default(),
            windows: Index::default(),
            listed: Mutex::default(),
            cooled: Mutex::default(),
            common,
            epoch: AtomicU64::new(1),
            context: AtomicU64::new(context),
            is_dirtied: AtomicBool::new(false),
            state: StateCell::new(SetState::Open),
            addr: OnceLock::new(),
            stranded: Mutex::default(),
            granted: Mutex::default(),
            coldest: AtomicU64::new(u64::MAX),
            idle: AtomicUsize::new(0),
            objects: AtomicI64::new(0),
            last_waiter: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_addr(&self, addr: Addr<ObjectSetActor>) {
        self.addr.get_or_init(|| addr);
    }

    pub(crate) const fn addr(&self) -> &OnceLock<Addr<ObjectSetActor>> {
        &self.addr
    }

    pub(crate) fn state(&self) -> SetState {
        self.state.get()
    }

    pub(crate) fn set_state(&self, state: SetState) {
        self.state.set(state);
    }

    /// What a caller is told whose request the set no longer takes.
    pub(crate) fn refusal(&self) -> CacheError {
        self.state().refusal(self.id.clone())
    }

    /// The number of the snapshot context that plain writes get from now on.
    pub(crate) fn set_context(&self, seq: u64) {
        self.context.store(seq, Ordering::Release);
    }

    /// Notes that the set may hold dirty bytes, for the flusher's next look; wakes nobody.
    ///
    /// Called after the books show the bytes.
    pub(crate) fn note_dirtied(self: &Arc<Self>) {
        // SeqCst: see `forget_dirtied`.
        fence(Ordering::SeqCst);
        if !self.is_dirtied.load(Ordering::Acquire) && !self.is_dirtied.swap(true, Ordering::AcqRel)
        {
            self.common.dirtied.lock().push(Arc::downgrade(self));
        }
    }

    /// A number for a caller that waits. Callers number their requests themselves, so that they can take them back.
    pub(crate) fn enrol(&self) -> WaiterId {
        // Relaxed: the numbers have to differ, and to grow for each caller.
        WaiterId(self.last_waiter.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whether others have asked since this caller did, so that more is on its way to the actor.
    pub(crate) fn has_younger(&self, waiter: WaiterId) -> bool {
        self.last_waiter.load(Ordering::Relaxed) > waiter.0
    }

    /// The flusher no longer watches the set, unless it has become dirty again meanwhile.
    pub(crate) fn forget_dirtied(self: &Arc<Self>) {
        self.is_dirtied.store(false, Ordering::SeqCst);
        // SeqCst, here and in `note_dirtied`: either the books show its bytes here, or its writer sees
        // that the set is no longer watched.
        fence(Ordering::SeqCst);
        if self.may_be_dirty() {
            self.note_dirtied();
        }
    }

    /// Whether the books show dirty bytes that could be written back.
    pub(crate) fn may_be_dirty(&self) -> bool {
        self.state() != SetState::Fenced && self.books.totals().bytes_in(BufferState::Dirty) > 0
    }

    pub(crate) fn take_granted(&self) -> Vec<(WaiterId, Charge)> {
        std::mem::take(&mut self.granted.lock())
    }

    /// When the bytes that the set would give up next came in.
    pub(crate) fn coldest(&self) -> Option<Moment> {
        let nanos = self.coldest.load(Ordering::Relaxed);
        (nanos != u64::MAX).then(|| Moment::from_nanos(nanos))
    }

    pub(crate) fn set_coldest(&self, coldest: Option<Moment>) {
        let nanos = coldest.map_or(u64::MAX, Moment::as_nanos);
        self.coldest.store(nanos, Ordering::Relaxed);
    }

    /// Whether the set may have something to give to the trimmer: bytes, or objects if those are wanted.
    pub(crate) fn may_give(&self, objects: bool) -> bool {
        self.coldest().is_some() || (objects && self.idle.load(Ordering::Relaxed) > 0)
    }

    pub(crate) fn set_idle(&self, objects: usize) {
        self.idle.store(objects, Ordering::Relaxed);
    }

    /// Gives back all that the set holds, with `more` that its engine held, after its actor has gone. What a caller
    /// puts in later is given back when this is called again.
    pub(crate) fn give_up_everything(&self, more: Charge) {
        self.set_stranded(Charge::default());
        let mut charge = more;
        let windows = self.windows.pin();
        let mut totals = Totals::default();
        windows.for_each(|key, cell| {
            let mut window = cell.lock();
            if !window.closed {
                charge += window.settled().charge;
                totals -= window.settled().totals;
                window.close();
            }
            // Another cell may have taken its place, if somebody else was here before.
            windows.remove_if_same(key, cell);
        });
        self.add_totals(&totals);
        self.common.ledger.give(charge);
        let objects = self.objects.swap(0, Ordering::Relaxed);
        self.common.ledger.add_objects(-objects);
        for (_, charge) in self.take_granted() {
            self.common.ledger.give(charge);
        }
    }

    pub(crate) fn count(&self, counter: Counter, by: u64) {
        self.books.count(counter, by);
    }

    pub(crate) fn add_totals(&self, change: &Totals) {
        if *change != Totals::default() {
            self.books.add_totals(change);
            self.common.books.add_totals(change);
        }
    }
}

impl Claimant for SetShared {
    fn grant(&self, waiter: WaiterId, charge: Charge) {
        let is_first = {
            let mut granted = self.granted.lock();
            granted.push((waiter, charge));
            granted.len() == 1
        };
        let reached = self.addr.get().filter(|_| self.state().is_live());
        match reached {
            Some(addr) => {
                if is_first {
                    tell(addr, Completed);
                }
            }
            None => {
                for (_, charge) in self.take_granted() {
                    self.common.ledger.give(charge);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::backend::MemoryBackend;
    use crate::clock::ManualClock;
    use crate::config::CacheConfig;

    fn limits(change: impl FnOnce(&mut CacheConfig)) -> Limits {
        let mut config = CacheConfig {
            arbiters: 1,
            ..CacheConfig::default()
        };
        change(&mut config);
        Limits::try_from(&config).unwrap()
    }

    fn start(limits: Limits) -> Common {
        let backend = Arc::new(MemoryBackend::new());
        Common::new(backend, Arc::new(ManualClock::new()), limits)
    }

    fn derived(common: &Common) -> (u64, bool, (u64, u64), u64) {
        let (_, objects_max) = common.ledger.objects();
        let room = common.ledger.room();
        (
            common.target_dirty_bytes(),
            common.is_write_through(),
            room,
            objects_max,
        )
    }

    /// L-01, L-02
    #[test]
    fn what_is_derived_from_limits_changes_with_them_and_only_then() {
        let small = limits(|config| {
            config.max_bytes = ByteSize::mib(1);
            config.max_dirty_bytes = ByteSize(0);
            config.target_dirty_bytes = ByteSize(0);
            config.max_objects = 7;
        });
        let threads = limits(|config| config.arbiters = 2);
        let default = limits(|_| ());
        let common = start(default);
        common.set_limits(small).unwrap();
        assert_eq!(derived(&common), derived(&start(small)));
        assert_eq!(common.limits(), small);
        let refused = common.set_limits(threads);
        assert_eq!(refused, Err(ConfigError::Fixed { field: "arbiters" }));
        assert_eq!(derived(&common), derived(&start(small)));
        common.set_limits(default).unwrap();
        assert_eq!(derived(&common), derived(&start(default)));
    }
}

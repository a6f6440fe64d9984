//! A shelf for one thread that keeps exact books and refuses what would pass its limits.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use parking_lot::{Mutex, MutexGuard};

use crate::engine::object::WindowKey;
use crate::engine::window::{Charge, Totals, Window};
use crate::engine::{BufferState, Counter, Shelf, WaiterId};
use crate::types::{ByteRange, ObjectName, SnapId};

/// A window with its lock. A second lock by the same thread is a mistake of the engine, and panics.
#[derive(Clone)]
pub(super) struct Slot {
    window: Rc<Mutex<Window>>,
    /// How often any window of the shelf was locked.
    locks: Rc<Cell<u64>>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.lock().fmt(f)
    }
}

/// Bounds on what is charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) room: i64,
    pub(super) dirty: i64,
    pub(super) dirty_buffers: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            room: 1 << 40,
            dirty: 1 << 40,
            dirty_buffers: 1 << 40,
        }
    }
}

#[derive(Default)]
struct State {
    windows: RefCell<BTreeMap<WindowKey, Slot>>,
    listed: RefCell<Vec<WindowKey>>,
    cooled: RefCell<Vec<WindowKey>>,
    epoch: Cell<u64>,
    bounds: Cell<Bounds>,
    used: Cell<Charge>,
    totals: Cell<Totals>,
    objects: Cell<i64>,
    counters: RefCell<BTreeMap<Counter, u64>>,
    queue: RefCell<VecDeque<(WaiterId, Charge)>>,
    copies_on_write: Cell<bool>,
    largest_force: Cell<i64>,
    locks: Rc<Cell<u64>>,
}

/// See the [module](self).
#[derive(Clone, Default)]
pub(super) struct TestShelf(Rc<State>);

impl fmt::Debug for TestShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestShelf")
    }
}

impl TestShelf {
    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.0.bounds.set(bounds);
    }

    pub(super) fn set_copies_on_write(&self, may_copy: bool) {
        self.0.copies_on_write.set(may_copy);
    }

    pub(super) fn used(&self) -> Charge {
        self.0.used.get()
    }

    pub(super) fn totals(&self) -> Totals {
        self.0.totals.get()
    }

    pub(super) fn objects(&self) -> i64 {
        self.0.objects.get()
    }

    pub(super) fn windows(&self) -> usize {
        self.0.windows.borrow().len()
    }

    /// The most room that was taken at once without asking.
    pub(super) fn largest_force(&self) -> i64 {
        self.0.largest_force.get()
    }

    /// How often windows were locked.
    pub(super) fn locks(&self) -> u64 {
        self.0.locks.get()
    }

    pub(super) fn counter(&self, counter: Counter) -> u64 {
        self.0.counters.borrow().get(&counter).copied().unwrap_or(0)
    }

    /// The window as callers at the door find it.
    pub(super) fn find(&self, key: &WindowKey) -> Option<Slot> {
        self.0.windows.borrow().get(key).cloned()
    }

    pub(super) fn list(&self, key: WindowKey) {
        self.0.listed.borrow_mut().push(key);
    }

    pub(super) fn note_cooled(&self, key: WindowKey) {
        self.0.cooled.borrow_mut().push(key);
    }

    /// Puts a waiter at the end of the queue for room.
    pub(super) fn await_room(&self, waiter: WaiterId, charge: Charge) {
        self.0.queue.borrow_mut().push_back((waiter, charge));
    }

    pub(super) fn leave_queue(&self, waiter: WaiterId) {
        self.0
            .queue
            .borrow_mut()
            .retain(|(queued, _)| *queued != waiter);
    }

    /// Forgets the writes that wait for room.
    pub(super) fn forgo_writes(&self) {
        let mut queue = self.0.queue.borrow_mut();
        queue.retain(|(_, charge)| charge.dirty == 0);
    }

    /// What callers did at the door that the engine has not heard of: windows made dirty, and windows cooled.
    pub(super) fn news(&self) -> (Vec<WindowKey>, Vec<WindowKey>) {
        let state = &self.0;
        (state.listed.borrow().clone(), state.cooled.borrow().clone())
    }

    /// All who wait for room, in order.
    pub(super) fn queue(&self) -> Vec<(WaiterId, Charge)> {
        self.0.queue.borrow().iter().copied().collect()
    }

    pub(super) fn waiting(&self) -> Option<(WaiterId, Charge)> {
        self.0.queue.borrow().front().copied()
    }

    /// Reserves room for the first in the queue, if there is enough.
    pub(super) fn serve_first(&self) -> Option<(WaiterId, Charge)> {
        let (waiter, charge) = self.waiting()?;
        if !self.fits(charge) {
            return None;
        }
        self.0.queue.borrow_mut().pop_front();
        self.add(charge);
        Some((waiter, charge))
    }

    /// A request larger than a whole limit goes through alone.
    fn fits(&self, charge: Charge) -> bool {
        let (used, bounds) = (self.used(), self.0.bounds.get());
        let fits = |used: i64, more: i64, bound: i64| {
            more == 0 || used + more <= bound || (more > bound && used == 0)
        };
        fits(used.room, charge.room, bounds.room)
            && fits(used.dirty, charge.dirty, bounds.dirty)
            && fits(
                used.dirty_buffers,
                charge.dirty_buffers,
                bounds.dirty_buffers,
            )
    }

    fn add(&self, charge: Charge) {
        let mut used = self.used();
        used += charge;
        self.0.used.set(used);
    }
}

impl Shelf for TestShelf {
    type Slot = Slot;
    type Guard<'a> = MutexGuard<'a, Window>;

    fn open(&self, key: &WindowKey) -> Slot {
        self.0
            .windows
            .borrow_mut()
            .entry(key.clone())
            .or_insert_with(|| Slot {
                window: Rc::new(Mutex::new(Window::default())),
                locks: self.0.locks.clone(),
            })
            .clone()
    }

    fn close(&self, key: &WindowKey) {
        let gone = self.0.windows.borrow_mut().remove(key);
        assert!(
            gone.is_some(),
            "a window is closed that is not on the shelf"
        );
    }

    fn lock<'a>(slot: &'a Slot) -> MutexGuard<'a, Window>
    where
        Self: 'a,
    {
        slot.locks.set(slot.locks.get() + 1);
        slot.window.try_lock().expect("a window is locked twice")
    }

    fn take_listed(&self) -> Vec<WindowKey> {
        self.0.listed.take()
    }

    fn take_cooled(&self) -> Vec<WindowKey> {
        self.0.cooled.take()
    }

    fn epoch(&self) -> u64 {
        self.0.epoch.get()
    }

    fn end_epoch(&self) -> u64 {
        let ended = self.0.epoch.get();
        self.0.epoch.set(ended + 1);
        ended
    }

    fn take_room(&self, charge: Charge) -> bool {
        assert!(charge.room >= 0 && charge.dirty >= 0 && charge.dirty_buffers >= 0);
        let fits = self.0.queue.borrow().is_empty() && self.fits(charge);
        if fits {
            self.add(charge);
        }
        fits
    }

    fn force_room(&self, charge: Charge) {
        assert_eq!(charge.dirty, 0, "dirty bytes entered without room");
        assert!(charge.room >= 0 && charge.dirty_buffers >= 0);
        self.0
            .largest_force
            .set(self.largest_force().max(charge.room));
        self.add(charge);
    }

    fn give_room(&self, charge: Charge) {
        assert!(charge.room >= 0 && charge.dirty >= 0 && charge.dirty_buffers >= 0);
        let mut used = self.used();
        used -= charge;
        assert!(
            used.room >= 0 && used.dirty >= 0 && used.dirty_buffers >= 0,
            "more room is given back than was taken"
        );
        self.0.used.set(used);
    }

    fn add_totals(&self, change: &Totals) {
        let mut totals = self.totals();
        totals += *change;
        self.0.totals.set(totals);
    }

    fn unsaved_bytes(&self) -> u64 {
        let totals = self.totals();
        let unsaved = totals.bytes_in(BufferState::Dirty) + totals.bytes_in(BufferState::Tx);
        u64::try_from(unsaved).unwrap()
    }

    fn add_objects(&self, change: i64) {
        self.0.objects.set(self.objects() + change);
    }

    fn count(&self, counter: Counter, by: u64) {
        *self.0.counters.borrow_mut().entry(counter).or_default() += by;
    }

    fn may_copy_on_write(&self, _: &ObjectName, _: ByteRange, _: SnapId) -> bool {
        self.0.copies_on_write.get()
    }
}

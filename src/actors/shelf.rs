//! The engine's way to the windows, the room and the books of its set.

use std::fmt;
use std::sync::Arc;

use super::cell::Cell;
use super::shared::SetShared;
use super::sync::RwLockWriteGuard;
use super::sync::atomic::Ordering;
use crate::engine::{BufferState, Charge, Counter, Shelf, Totals, Window, WindowKey};
use crate::types::{ByteRange, ObjectName, SnapId};

/// The engine's way to what its set shares.
#[derive(Clone)]
pub(crate) struct SetShelf(pub(crate) Arc<SetShared>);

impl fmt::Debug for SetShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SetShelf").field(&self.0.id).finish()
    }
}

impl Shelf for SetShelf {
    type Slot = Arc<Cell>;
    type Guard<'a> = RwLockWriteGuard<'a, Window>;

    fn open(&self, key: &WindowKey) -> Arc<Cell> {
        self.0.open_cell(key)
    }

    fn close(&self, key: &WindowKey) {
        self.0.windows.pin().remove(key);
    }

    fn lock<'a>(slot: &'a Arc<Cell>) -> RwLockWriteGuard<'a, Window>
    where
        Self: 'a,
    {
        slot.lock()
    }

    fn take_listed(&self) -> Vec<WindowKey> {
        std::mem::take(&mut self.0.listed.lock())
    }

    fn take_cooled(&self) -> Vec<WindowKey> {
        std::mem::take(&mut self.0.cooled.lock())
    }

    fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::SeqCst)
    }

    fn end_epoch(&self) -> u64 {
        self.0.epoch.fetch_add(1, Ordering::SeqCst)
    }

    fn take_room(&self, charge: Charge) -> bool {
        self.0.common.ledger.take(charge)
    }

    fn force_room(&self, charge: Charge) {
        self.0.common.ledger.force(charge);
    }

    fn give_room(&self, charge: Charge) {
        self.0.give_stranded(charge);
        self.0.common.ledger.give(charge);
    }

    fn add_totals(&self, change: &Totals) {
        self.0.add_totals(change);
        if change.bytes_in(BufferState::Dirty) > 0 {
            self.0.note_dirtied();
        }
    }

    fn unsaved_bytes(&self) -> u64 {
        self.0.unsaved_bytes()
    }

    fn add_objects(&self, change: i64) {
        self.0.objects.fetch_add(change, Ordering::Relaxed);
        self.0.common.ledger.add_objects(change);
    }

    fn count(&self, counter: Counter, by: u64) {
        self.0.count(counter, by);
    }

    fn may_copy_on_write(&self, object: &ObjectName, range: ByteRange, snap: SnapId) -> bool {
        self.0.common.backend.may_copy_on_write(object, range, snap)
    }
}

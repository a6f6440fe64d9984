//! Opening and closing objects and windows, and the lists that they stand on.
//!
//! Objects and windows have numbers that are used again once they are free. An object is freed only at the end of a
//! call, and not while anything refers to it; a window when it is empty and nobody has it pinned.

use smallvec::SmallVec;

use super::object::{Object, ObjectRef, WindowKey, spans};
use super::set::{SetEngine, WindowEntry};
use super::shelf::Shelf;
use super::watch::Watches;
use super::window::{Span, WINDOW_BYTES};
use crate::types::{ByteRange, Moment, ObjectKey, SnapId};

impl<S: Shelf> SetEngine<S> {
    /// The object, made when it is not known. One that is still empty at the end of the call goes again.
    pub(super) fn open_object(&mut self, id: &ObjectRef) -> Option<usize> {
        if let Some(number) = self.by_ref.get(id) {
            return Some(*number);
        }
        let name = self.options.shape.name_of(&id.key).ok()?;
        let number = self.objects.insert(Object::new(id.clone(), name));
        self.by_ref.insert(id.clone(), number);
        self.shelf.add_objects(1);
        self.emptied.insert(number);
        Some(number)
    }

    pub(super) fn head(key: &ObjectKey) -> ObjectRef {
        ObjectRef {
            key: key.clone(),
            snap: SnapId::HEAD,
        }
    }

    /// Has the object looked at in the end of the call: if nothing is left of it, it is forgotten.
    pub(super) fn close_if_empty(&mut self, number: usize) {
        self.emptied.insert(number);
    }

    /// Forgets the objects of which nothing is left, and notes of which only knowledge is.
    pub(super) fn close_emptied(&mut self) {
        while let Some(number) = self.emptied.pop_first() {
            let Some(object) = self.objects.get_mut(number) else {
                continue;
            };
            if !object.holds_nothing() {
                continue;
            }
            if !object.knows_something() {
                self.forget_object(number);
            } else if object.idle_since.is_none() {
                self.last_idle += 1;
                object.idle_since = Some(self.last_idle);
                self.idle.insert(self.last_idle, number);
            }
        }
    }

    fn forget_object(&mut self, number: usize) {
        let Some(object) = self.objects.try_remove(number) else {
            return;
        };
        self.by_ref.remove(&object.id);
        if let Some(due) = object.due {
            self.aging.remove(&(due, number));
        }
        if let Some(retry) = object.retry {
            self.pausing.remove(&(retry.not_before, number));
        }
        if let Some(since) = object.idle_since {
            self.idle.remove(&since);
        }
        self.urgent.remove(&number);
        self.unstored.remove(&number);
        self.shelf.add_objects(-1);
    }

    /// Closes the longest idle objects until `objects` fewer are known. Returns how many went (rule T-01).
    pub(crate) fn close_idle(&mut self, objects: u64) -> u64 {
        let mut closed = 0;
        while closed < objects {
            let Some((_, number)) = self.idle.pop_first() else {
                break;
            };
            let Some(object) = self.objects.get_mut(number) else {
                continue;
            };
            object.idle_since = None;
            if object.holds_nothing() {
                self.forget_object(number);
                closed += 1;
            }
        }
        closed
    }

    /// The set's number of a window of the object, which is made when there is none.
    pub(super) fn open_window(&mut self, object: usize, index: u64) -> Option<usize> {
        let known = self.objects.get_mut(object)?;
        if let Some(number) = known.windows.get(&index) {
            return Some(*number);
        }
        let key = WindowKey {
            object: known.id.clone(),
            index,
        };
        let slot = self.shelf.open(&key);
        let number = self.windows.insert(WindowEntry {
            object,
            index,
            slot,
            pins: 0,
            watches: Watches::default(),
        });
        known.windows.insert(index, number);
        Some(number)
    }

    /// Closes a window that holds nothing, and with it perhaps its object.
    pub(super) fn close_window_if_idle(&mut self, window: usize) {
        let Some(entry) = self.windows.get(window) else {
            return;
        };
        if entry.pins > 0 || !entry.watches.is_empty() {
            return;
        }
        let (object, index) = (entry.object, entry.index);
        let Some(id) = self.objects.get(object).map(|object| object.id.clone()) else {
            return;
        };
        let settlement = {
            let mut guard = S::lock(&entry.slot);
            if !guard.is_idle() {
                return;
            }
            self.shelf.close(&WindowKey { object: id, index });
            guard.close();
            guard.settle()
        };
        self.account(settlement);
        self.windows.try_remove(window);
        if let Some(object) = self.objects.get_mut(object) {
            object.forget_window(index);
        }
        self.close_if_empty(object);
    }

    /// Keeps a window open, and its bytes from being evicted.
    pub(super) fn pin(&mut self, window: usize) {
        if let Some(entry) = self.windows.get_mut(window) {
            entry.pins += 1;
        }
    }

    pub(super) fn unpin(&mut self, window: usize) {
        if let Some(entry) = self.windows.get_mut(window) {
            entry.pins = entry.pins.saturating_sub(1);
        }
        self.close_window_if_idle(window);
    }

    /// Takes note of what callers did through the door since the last call.
    pub(super) fn adopt(&mut self) {
        for key in self.shelf.take_listed() {
            let Some(object) = self.open_object(&key.object) else {
                continue;
            };
            if let Some(window) = self.open_window(object, key.index) {
                self.note_dirty(window);
            }
        }
        for key in self.shelf.take_cooled() {
            let known = self.by_ref.get(&key.object);
            let object = known.and_then(|number| self.objects.get(*number));
            if let Some(window) = object.and_then(|object| object.windows.get(&key.index)) {
                self.cool(*window);
            }
        }
    }

    /// Puts a window into which was just written on its object's list. If it is there already, its oldest dirty
    /// bytes are as old as they were.
    pub(super) fn note_written(&mut self, window: usize) {
        let is_listed = self.windows.get(window).is_some_and(|entry| {
            let object = self.objects.get(entry.object);
            object.is_some_and(|object| object.listed.contains(&entry.index))
        });
        if !is_listed {
            self.note_dirty(window);
        }
    }

    /// Puts a window that may hold dirty bytes on its object's list, or takes it off if it holds none.
    pub(super) fn note_dirty(&mut self, window: usize) {
        let Some(entry) = self.windows.get(window) else {
            return;
        };
        let (number, index) = (entry.object, entry.index);
        let oldest = {
            let mut guard = S::lock(&entry.slot);
            let oldest = guard.oldest_dirty();
            guard.listed = oldest.is_some();
            oldest
        };
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        let Some(oldest) = oldest else {
            object.unlist(index);
            self.close_window_if_idle(window);
            self.note_stored(number);
            return;
        };
        object.listed.insert(index);
        self.unstored.insert(number);
        self.was_unstored = true;
        if !object.is_parked && object.due.is_none_or(|due| oldest < due) {
            if let Some(due) = object.due.replace(oldest) {
                self.aging.remove(&(due, number));
            }
            self.aging.insert((oldest, number));
        }
    }

    /// Takes the object off the lists of what is unstored, if all of it is stored.
    pub(super) fn note_stored(&mut self, number: usize) {
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        if object.listed.is_empty() {
            if let Some(due) = object.due.take() {
                self.aging.remove(&(due, number));
            }
            object.is_parked = false;
            if object.writebacks.is_empty() {
                self.unstored.remove(&number);
            }
        }
    }

    /// Files the object under the age of its oldest dirty bytes. If those were to go by `blocked` and could not, it
    /// is parked instead, until what they wait for has ended.
    pub(super) fn file_by_age(&mut self, number: usize, blocked: Option<Moment>) {
        let oldest = self.objects.get(number).and_then(|known| {
            let windows = known
                .listed
                .iter()
                .filter_map(|index| known.windows.get(index));
            windows
                .filter_map(|window| self.look(*window, super::window::Window::oldest_dirty)?)
                .min()
        });
        let Some(object) = self.objects.get_mut(number) else {
            return;
        };
        object.is_parked = oldest.is_some_and(|oldest| blocked.is_some_and(|at| oldest <= at));
        if let Some(due) = object.due.take() {
            self.aging.remove(&(due, number));
        }
        if let Some(due) = oldest.filter(|_| !object.is_parked) {
            object.due = Some(due);
            self.aging.insert((due, number));
        }
    }

    /// What the object's dirty bytes may have waited for has ended.
    pub(super) fn unpark(&mut self, number: usize) {
        if self
            .objects
            .get(number)
            .is_some_and(|object| object.is_parked)
        {
            self.file_by_age(number, None);
        }
    }

    /// The windows of the object that lie in `range`, with the parts of it.
    pub(super) fn windows_in(
        &self,
        object: usize,
        range: ByteRange,
    ) -> SmallVec<[(usize, Span); 4]> {
        let Some(object) = self.objects.get(object) else {
            return SmallVec::new();
        };
        let last = (range.end() - 1) / WINDOW_BYTES;
        object
            .windows
            .range(range.start() / WINDOW_BYTES..=last)
            .filter_map(|(index, window)| {
                let base = index * WINDOW_BYTES;
                let whole = ByteRange::between(base, base + WINDOW_BYTES)?;
                let (_, span) = spans(range.intersection(whole)?).next()?;
                Some((*window, span))
            })
            .collect()
    }
}

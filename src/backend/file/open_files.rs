//! The objects' files that are kept open, a bounded number of them.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::fs::{Mode, OFlags};

use crate::types::ObjectName;

/// An object's file, open, its header read.
#[derive(Debug)]
pub(super) struct OpenObject {
    pub(super) name: ObjectName,
    pub(super) file: OwnedFd,
    /// As the header has it; one number for all that have the object open.
    pub(super) truncation_seq: Arc<AtomicU64>,
}

impl OpenObject {
    /// Opens the same file once more, whatever its name and header are by now.
    pub(super) fn reopen(&self) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self {
            name: self.name.clone(),
            file: rustix::fs::open(path, flags, Mode::empty())?,
            truncation_seq: Arc::clone(&self.truncation_seq),
        })
    }
}

#[derive(Debug)]
struct Held {
    object: Arc<OpenObject>,
    /// Set by each use; the hand passes over what was used since it came by last.
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Clock {
    places: HashMap<ObjectName, usize, foldhash::fast::RandomState>,
    ring: Vec<Held>,
    hand: usize,
}

/// Open files by object name. When it is full, one that was not used lately makes room (CLOCK).
///
/// It only saves opening: whoever holds an object's `Arc` may go on using it after it left here.
#[derive(Debug)]
pub(super) struct OpenFiles {
    clock: RwLock<Clock>,
    files_max: usize,
}

impl OpenFiles {
    /// Keeps up to `files_max` files open, at least one.
    pub(super) fn new(files_max: usize) -> Self {
        Self {
            clock: RwLock::default(),
            files_max: files_max.max(1),
        }
    }

    pub(super) fn find(&self, name: &ObjectName) -> Option<Arc<OpenObject>> {
        let clock = self.clock.read();
        let held = clock.ring.get(*clock.places.get(name)?)?;
        if !held.used.load(Ordering::Relaxed) {
            held.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&held.object))
    }

    /// Keeps `object`; what it displaces is closed here, outside the lock, unless somebody uses it.
    pub(super) fn keep(&self, object: Arc<OpenObject>) {
        let mut clock = self.clock.write();
        let displaced = clock.keep(object, self.files_max);
        drop(clock);
        drop(displaced);
    }

    /// Forgets an object that was removed, or whose file must be opened anew.
    pub(super) fn forget(&self, name: &ObjectName) {
        let mut clock = self.clock.write();
        let forgotten = clock.forget(name);
        drop(clock);
        drop(forgotten);
    }

    /// Closes all that nobody uses.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.clock.write());
        drop(all);
    }
}

impl Clock {
    fn keep(&mut self, object: Arc<OpenObject>, files_max: usize) -> Option<Held> {
        let name = object.name.clone();
        let held = Held {
            object,
            used: AtomicBool::new(false),
        };
        if let Some(place) = self.places.get(&name)
            && let Some(old) = self.ring.get_mut(*place)
        {
            return Some(std::mem::replace(old, held));
        }
        if self.ring.len() < files_max {
            self.places.insert(name, self.ring.len());
            self.ring.push(held);
            return None;
        }
        loop {
            self.hand = (self.hand + 1) % self.ring.len().max(1);
            let candidate = self.ring.get_mut(self.hand)?;
            if !std::mem::take(candidate.used.get_mut()) {
                let old = std::mem::replace(candidate, held);
                self.places.remove(&old.object.name);
                self.places.insert(name, self.hand);
                return Some(old);
            }
        }
    }

    fn forget(&mut self, name: &ObjectName) -> Option<Held> {
        let place = self.places.remove(name)?;
        let held = self.ring.swap_remove(place);
        if let Some(moved) = self.ring.get(place) {
            self.places.insert(moved.object.name.clone(), place);
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ObjectName {
        ObjectName::new(format!("o{number}")).unwrap()
    }

    fn open(number: usize) -> Arc<OpenObject> {
        Arc::new(OpenObject {
            name: name(number),
            file: tempfile::tempfile().unwrap().into(),
            truncation_seq: Arc::default(),
        })
    }

    #[test]
    fn never_more_than_the_limit_is_open_and_what_is_used_stays() {
        let files = OpenFiles::new(8);
        for number in 0..100 {
            files.keep(open(number));
            assert!(files.clock.read().ring.len() <= 8);
            assert!(files.find(&name(0)).is_some(), "after {number}");
        }
        let held = (0..100)
            .filter(|number| files.find(&name(*number)).is_some())
            .count();
        assert_eq!(held, 8);
    }

    #[test]
    fn what_is_forgotten_is_closed_and_the_others_are_found() {
        let files = OpenFiles::new(4);
        let watched = open(1);
        let weak = Arc::downgrade(&watched);
        files.keep(watched);
        for number in [2, 3, 4] {
            files.keep(open(number));
        }
        files.forget(&name(1));
        files.forget(&name(1));
        assert!(weak.upgrade().is_none());
        assert!(files.find(&name(1)).is_none());
        for number in [2, 3, 4] {
            assert_eq!(files.find(&name(number)).unwrap().name, name(number));
        }
        files.clear();
        assert!(files.find(&name(2)).is_none());
    }

    #[test]
    fn the_newest_of_two_under_one_name_is_kept() {
        let files = OpenFiles::new(4);
        files.keep(open(1));
        let newer = open(1);
        files.keep(Arc::clone(&newer));
        assert!(Arc::ptr_eq(&files.find(&name(1)).unwrap(), &newer));
    }
}

//! Sets that the flusher watches: none that holds dirty bytes is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::world::set;
use super::{explore, part, together};
use crate::actors::shared::SetShared;
use crate::engine::{BufferState, Totals};

/// What the books of a set that becomes dirty are told.
fn dirties(set: &Arc<SetShared>) -> Box<dyn FnOnce() + Send> {
    let set = set.clone();
    part(move || {
        let mut change = Totals::default();
        change.bytes[BufferState::Dirty as usize] = 4;
        set.add_totals(&change);
        set.note_dirtied();
    })
}

/// F-01, H-33
#[test]
fn a_set_that_becomes_dirty_while_it_is_forgotten_is_watched() {
    explore(3_000, || {
        let set = set();
        set.note_dirtied();
        assert_eq!(set.common.flusher_looks().len(), 1);
        let forgotten = set.clone();
        together([dirties(&set), part(move || forgotten.forget_dirtied())]);
        assert!(set.may_be_dirty());
        assert_eq!(set.common.flusher_looks().len(), 1, "nobody watches it");
    });
}

/// F-01, W-08
#[test]
fn a_set_that_becomes_dirty_is_found_by_the_flusher_that_it_wakes() {
    explore(3_000, || {
        let set = set();
        let (wakes, looked) = (set.clone(), set.clone());
        let becomes_dirty = dirties(&set);
        let found = Arc::new(AtomicUsize::new(0));
        let counts = found.clone();
        together([
            part(move || {
                becomes_dirty();
                wakes.common.wake_flusher();
            }),
            part(move || {
                let dirtied = looked.common.flusher_looks();
                counts.store(dirtied.len(), Ordering::Relaxed);
            }),
        ]);
        let is_found = found.load(Ordering::Relaxed) == 1;
        assert!(
            is_found || set.common.flusher_bell.is_ringing(),
            "nobody looks"
        );
    });
}

/// F-01, H-33
#[test]
fn a_set_that_becomes_dirty_while_the_flusher_looks_is_watched_once() {
    explore(3_000, || {
        let set = set();
        let looked = set.clone();
        let found = Arc::new(AtomicUsize::new(0));
        let counts = found.clone();
        together([
            dirties(&set),
            part(move || {
                let dirtied = looked.common.flusher_looks();
                counts.store(dirtied.len(), Ordering::Relaxed);
            }),
        ]);
        let later = set.common.flusher_looks().len();
        let found = found.load(Ordering::Relaxed);
        assert_eq!(found + later, 1);
    });
}

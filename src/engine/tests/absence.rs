//! Rules and F-08: objects that do not exist, or of which all is known.

use std::time::Duration;

use super::rig::*;
use crate::engine::{BufferState, Counter};
use crate::error::{BackendError, CacheError, RequestError};
use crate::request::{Missing, ReadRequest};
use crate::types::ObjectKey;

fn reporting() -> Rig {
    Rig::with(RigOptions {
        missing: Missing::NotFound,
        ..RigOptions::default()
    })
}

/// What is known of object 1: whether it exists and whether it is complete.
fn known(rig: &mut Rig) -> Option<(bool, bool)> {
    let listings = rig.step(|engine, now| engine.list(now));
    let wanted = ObjectKey::Number(1);
    let listing = listings.iter().find(|listing| listing.object == wanted)?;
    Some((listing.exists, listing.complete))
}

///
#[test]
fn an_absent_object_reads_as_zeros() {
    let mut rig = Rig::new();
    assert_eq!(rig.read_now(1, 100, 50), [0; 50]);
}

/// R-07, H-20
#[test]
fn an_absent_object_is_reported_where_the_set_wants_that() {
    let mut rig = reporting();
    let reader = rig.read(1, 100, 50);
    rig.end_all_fetches();
    let expected = CacheError::NotFound {
        object: ObjectKey::Number(1),
    };
    assert_eq!(rig.read_error(reader), expected);
    let several = ReadRequest {
        extents: vec![extent(1, 0, 1), extent(2, 0, 1)],
        ..ReadRequest::default()
    };
    assert_eq!(
        rig.engine.options().shape.checked_read(several),
        Err(RequestError::SeveralExtents { extents: 2 })
    );
}

///
#[test]
fn absence_is_remembered() {
    for mut rig in [Rig::new(), reporting()] {
        let first = rig.read(1, 0, 10);
        rig.end_all_fetches();
        let again = rig.read(1, 1 << 20, 100_000);
        assert!(rig.is_answered(first) && rig.is_answered(again));
        assert_eq!(rig.shelf.counter(Counter::FetchOps), 1);
        assert_eq!(known(&mut rig), Some((false, true)));
    }
}

/// R-08, H-18
#[test]
fn all_reads_of_an_absent_object_are_answered_in_order_but_its_fetches_are_waited_for() {
    for mut rig in [Rig::new(), reporting()] {
        let readers = [
            rig.read(1, 0, 10),
            rig.read(1, WINDOW, 10),
            rig.read(1, 0, 10),
            rig.read(1, 2 * WINDOW, 10),
        ];
        let other = rig.read(2, 0, 10);
        let ops: Vec<_> = rig.fetches.keys().copied().collect();
        rig.end_fetch(ops[1]);
        assert_eq!(rig.answered, readers);
        assert!(!rig.is_answered(other));
        assert!(!rig.engine.is_quiet(), "three fetches are under way");
        rig.end_all_fetches();
        assert!(rig.engine.is_quiet());
    }
}

///
#[test]
fn dirty_bytes_of_an_object_that_is_not_yet_stored_stay() {
    for mut rig in [Rig::new(), reporting()] {
        let reader = rig.read(1, 0, 100);
        rig.write(1, 10, &pattern(1, 10, 20));
        rig.end_all_fetches();
        let mut expected = vec![0; 100];
        expected[10..30].copy_from_slice(&pattern(1, 10, 20));
        assert_eq!(rig.bytes(reader), expected);
        assert_eq!(rig.bytes_in(BufferState::Dirty), 20);
        assert_eq!(rig.read_now(1, 0, 100), expected);
    }
}

///
#[test]
fn nothing_stays_cached_of_an_absent_object_without_dirty_bytes() {
    let mut rig = reporting();
    rig.read(1, 0, 100);
    rig.read(1, WINDOW, 100);
    let op = *rig.fetches.keys().next().unwrap();
    rig.end_fetch(op);
    assert_eq!(rig.states(1), []);
}

/// R-10, F-08
#[test]
fn a_new_object_needs_no_fetch_after_its_first_write_either() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    rig.write(1, 100, &pattern(1, 100, 10));
    rig.write_back_all();
    assert_eq!(known(&mut rig), Some((false, true)));
    rig.end_all_writes();
    assert_eq!(known(&mut rig), Some((true, true)));
    let mut expected = pattern(1, 100, 10);
    expected.extend([0; 10]);
    assert_eq!(rig.read_now(1, 100, 20), expected);
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 1);
}

///
#[test]
fn absence_can_be_forgotten_and_fetches_under_way_no_longer_prove_it() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    let reader = rig.read(2, 0, 10);
    let under_way = rig.only_fetch();
    rig.step(|engine, _| engine.clear_nonexistence());
    rig.store_object(1, pattern(1, 0, 10));
    rig.store_object(2, pattern(2, 0, 10));
    rig.end_fetch_with(under_way, Err(BackendError::NotFound));
    assert!(!rig.is_answered(reader), "it is fetched again");
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), pattern(2, 0, 10));
    // The zeros that were read before are forgotten, too.
    assert_eq!(rig.read_now(1, 5, 5), pattern(1, 5, 5));
}

/// R-08, H-19
#[test]
fn news_of_absence_from_before_a_writeback_is_not_believed() {
    let mut rig = Rig::new();
    let reader = rig.read(1, 0, 10);
    let under_way = rig.only_fetch();
    rig.write(1, 100, &pattern(1, 100, 10));
    rig.write_back_all();
    rig.end_all_writes();
    rig.trim(u64::MAX);
    rig.end_fetch_with(under_way, Err(BackendError::NotFound));
    let again = rig.read(1, 100, 10);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(again), pattern(1, 100, 10));
    assert_eq!(rig.bytes(reader), [0; 10]);
}

fn rig_over_parent() -> Rig {
    let mut rig = Rig::new();
    rig.shelf.set_copies_on_write(true);
    rig.store.insert_parent(name(1), pattern(9, 0, 4096));
    rig.read_now(1, 0, 10);
    rig.write(1, 0, &pattern(1, 0, 100));
    rig
}

/// R-12, F-08, H-19
#[test]
fn a_read_over_a_first_write_that_copies_waits_for_it_and_looks_again() {
    let mut rig = rig_over_parent();
    let inside = rig.read(1, 0, 100);
    assert!(rig.is_answered(inside), "what is written can be read");
    let reader = rig.read(1, 50, 100);
    assert!(!rig.is_answered(reader) && rig.fetches.is_empty());
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(known(&mut rig), Some((true, false)));
    rig.end_all_fetches();
    let expected = [pattern(1, 50, 50), pattern(9, 100, 50)].concat();
    assert_eq!(rig.bytes(reader), expected);
}

/// R-12, F-04
#[test]
fn a_read_that_needs_a_first_write_waits_out_the_pause_after_its_failure() {
    let mut rig = rig_over_parent();
    let reader = rig.read(1, 50, 100);
    for failures in 0..4 {
        let op = rig.only_write();
        rig.fail_write(op, BackendError::Unavailable);
        assert!(rig.write_backs.is_empty(), "no tight loop");
        let second = rig.read(1, 60, 100);
        assert!(rig.write_backs.is_empty(), "others wait as well");
        rig.cancel(second);
        rig.advance(Duration::from_millis((100 << failures) - 1));
        assert!(rig.write_backs.is_empty());
        rig.advance(Duration::from_millis(1));
    }
    rig.end_all_writes();
    rig.end_all_fetches();
    let expected = [pattern(1, 50, 50), pattern(9, 100, 50)].concat();
    assert_eq!(rig.bytes(reader), expected);
}

/// R-12, S-05
#[test]
fn a_read_that_needs_a_first_write_goes_on_when_that_is_discarded() {
    let mut rig = rig_over_parent();
    let reader = rig.read(1, 50, 100);
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    rig.discard(1, 0, 100);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), [0; 100], "still absent");
}

/// H-17, H-19
#[test]
fn an_object_is_complete_until_bytes_of_the_store_go() {
    let complete = |act: fn(&mut Rig)| {
        let mut rig = Rig::new();
        rig.read_now(1, 0, 10);
        rig.write(1, 0, &pattern(1, 0, 100));
        rig.write_back_all();
        rig.end_all_writes();
        act(&mut rig);
        let reread = rig.read_now(1, 0, 10);
        (known(&mut rig).unwrap(), reread == pattern(1, 0, 10))
    };
    assert_eq!(complete(|_| ()), ((true, true), true));
    let trimmed = complete(|rig| assert!(rig.trim(u64::MAX) > 0));
    assert_eq!(trimmed, ((true, false), true));
    let released = complete(|rig| assert_eq!(rig.release(), 0));
    assert_eq!(released, ((true, false), true));
    let purged = complete(|rig| assert_eq!(rig.purge(), 0));
    assert_eq!(purged, ((true, false), true));
    let discarded = complete(|rig| {
        rig.discard(1, 0, 1);
    });
    assert_eq!(discarded, ((true, false), true));
}

///
#[test]
fn a_failed_fetch_does_not_hide_that_the_object_is_absent() {
    let mut rig = reporting();
    let first = rig.read(1, 3, 6);
    let fetch = rig.only_fetch();
    rig.end_fetch_with(fetch, Err(BackendError::Unavailable));
    assert!(matches!(rig.read_error(first), CacheError::Read { .. }));
    let second = rig.read(1, 4, 4);
    rig.end_all_fetches();
    let expected = CacheError::NotFound {
        object: ObjectKey::Number(1),
    };
    assert_eq!(rig.read_error(second), expected);
    assert!(rig.states(1).is_empty());
}

/// A rig that knows object 1 not to exist, with bytes 4 to 8 of it on their way to the store.
fn on_its_way(mut rig: Rig) -> Rig {
    rig.write(1, 4, &pattern(1, 4, 4));
    rig.flush();
    rig
}

/// S-05
#[test]
fn absence_is_not_believed_while_dropped_bytes_are_on_their_way() {
    for rig in [Rig::new(), reporting()] {
        let mut rig = on_its_way(rig);
        rig.discard(1, 4, 4);
        let reader = rig.read(1, 3, 1);
        let fetch = rig.only_fetch();
        rig.end_fetch(fetch);
        assert!(!rig.is_answered(reader), "absence proves nothing");
        assert!(rig.fetches.is_empty(), "it asks again and again");
        let later = rig.read(1, 2, 1);
        rig.end_all_writes();
        assert_eq!(rig.fetches.len(), 2, "it asks once more");
        rig.end_all_fetches();
        assert_eq!((rig.bytes(reader), rig.bytes(later)), (vec![0], vec![0]));
        assert_eq!(rig.read_now(1, 4, 4), pattern(1, 4, 4));
    }
}

/// R-08, S-06
#[test]
fn absence_is_forgotten_when_what_may_have_made_the_object_is_cut_off() {
    let act: [fn(&mut Rig); 2] = [
        |_| (),
        |rig| {
            let op = rig.only_write();
            rig.fail_write(op, BackendError::Unavailable);
        },
    ];
    for act in act {
        let mut rig = reporting();
        rig.read(1, 0, 10);
        rig.end_all_fetches();
        let mut rig = on_its_way(rig);
        act(&mut rig);
        rig.truncate(1, 2);
        let reader = rig.read(1, 0, 2);
        assert!(!rig.is_answered(reader));
        rig.store_object(1, vec![0; 2]);
        rig.end_all_fetches();
        assert_eq!(rig.bytes(reader), [0; 2], "it asks the store");
    }
}

///
#[test]
fn reads_that_wait_for_a_first_write_are_not_overtaken_once_absence_is_forgotten() {
    let forget: [fn(&mut Rig); 3] = [
        |rig| {
            let op = *rig.write_backs.keys().next().unwrap();
            rig.end_write(op);
        },
        |rig| assert!(rig.release() > 0),
        |rig| rig.step(|engine, _| engine.clear_nonexistence()),
    ];
    for forget in forget {
        let mut rig = rig_over_parent();
        rig.flush();
        rig.write(1, 200, &pattern(1, 200, 10));
        rig.flush();
        let first = rig.read(1, 120, 40);
        forget(&mut rig);
        let second = rig.read(1, 120, 40);
        rig.end_all_fetches();
        rig.end_all_writes();
        rig.end_all_fetches();
        let order: Vec<_> = rig
            .answered
            .iter()
            .filter(|waiter| **waiter >= first)
            .collect();
        assert!(order.ends_with(&[&first, &second]), "{order:?}");
        assert_eq!(rig.bytes(second), pattern(9, 120, 40));
    }
}

/// R-11, F-08: what a fetch says that began before a write was stored is no news of the object afterwards.
#[test]
fn a_fetch_that_is_older_than_a_write_proves_no_absence() {
    let mut rig = reporting();
    rig.read(1, 0, 10);
    let older = rig.only_fetch();
    rig.write(1, 100, &pattern(1, 100, 50));
    rig.write_back_all();
    rig.end_all_writes();
    rig.end_fetch_with(older, Err(BackendError::NotFound));
    rig.end_all_fetches();
    assert_eq!(known(&mut rig), Some((true, false)));
    rig.trim(1 << 20);
    assert_eq!(rig.read_now(1, 100, 50), pattern(1, 100, 50));
}

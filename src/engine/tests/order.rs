//! Rule R-04: a read that waits is answered when its last byte is here, whoever brings it, and before equal ones.

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::Counter;
use crate::engine::{BufferState, Reply, WaiterId};
use crate::error::BackendError;
use crate::request::ReadRequest;

/// A read of everything that an object holds, 100 bytes, and the fetch that it waits for.
fn waiting() -> (Rig, WaiterId) {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    let reader = rig.read(1, 0, 100);
    (rig, reader)
}

/// The reads that were answered, in the order of their answers.
fn answered_reads(rig: &Rig) -> Vec<WaiterId> {
    let is_read = |waiter: &&WaiterId| matches!(rig.answer(**waiter), Reply::Read(_));
    rig.answered.iter().filter(is_read).copied().collect()
}

///
#[test]
fn a_read_is_answered_when_others_wrote_all_that_it_waits_for() {
    let (mut rig, first) = waiting();
    let second = rig.read(1, 0, 100);
    rig.write(1, 0, &pattern(2, 0, 60));
    assert!(!rig.is_answered(first), "its last bytes are not here");
    rig.write(1, 50, &pattern(3, 50, 50));
    let third = rig.read(1, 0, 100);
    assert_eq!(answered_reads(&rig), [first, second, third]);
    assert_eq!(
        rig.bytes(first),
        [pattern(2, 0, 50), pattern(3, 50, 50)].concat()
    );
    assert_eq!(rig.fetches.len(), 1, "the store has not answered");
    rig.end_all_fetches();
    assert_eq!(rig.bytes_in(BufferState::Dirty), 100);
}

///
#[test]
fn a_read_of_a_part_of_a_fetch_is_answered_when_that_part_is_written() {
    let (mut rig, whole) = waiting();
    let part = rig.read(1, 20, 10);
    rig.write(1, 18, &pattern(2, 18, 14));
    assert_eq!(rig.bytes(part), pattern(2, 20, 10));
    assert!(!rig.is_answered(whole));
    rig.end_all_fetches();
    assert!(rig.is_answered(whole));
}

///
#[test]
fn a_read_is_answered_by_the_last_to_bring_something_be_it_a_write_or_a_fetch() {
    for writes_first in [true, false] {
        let mut rig = Rig::new();
        rig.store_object(1, pattern(1, 0, 2 * WINDOW));
        let reader = rig.read(1, WINDOW - 50, 100);
        let ops: Vec<_> = rig.fetches.keys().copied().collect();
        if !writes_first {
            rig.end_fetch(ops[0]);
        }
        rig.write(1, WINDOW, &pattern(2, WINDOW, 50));
        if writes_first {
            assert!(!rig.is_answered(reader));
            rig.end_fetch(ops[0]);
        }
        let expected = [pattern(1, WINDOW - 50, 50), pattern(2, WINDOW, 50)];
        assert_eq!(rig.bytes(reader), expected.concat());
        rig.end_fetch(ops[1]);
    }
}

///
#[test]
fn a_write_at_the_door_that_brings_what_a_read_waits_for_goes_to_the_engine() {
    let (mut rig, reader) = waiting();
    assert!(!rig.door_write(1, 0, &pattern(2, 0, 100)));
    assert!(!rig.door_write(1, 99, &pattern(2, 99, 1)));
    rig.write(1, 0, &pattern(2, 0, 40));
    assert!(
        rig.door_write(1, 10, &pattern(3, 10, 20)),
        "it brings nothing new"
    );
    rig.end_all_fetches();
    assert!(rig.is_answered(reader));
    assert!(rig.door_write(1, 200, &pattern(3, 200, 10)), "nobody waits");
}

///
#[test]
fn the_door_serves_nobody_before_the_answers_that_a_write_has_brought() {
    let (mut rig, reader) = waiting();
    let shape = rig.engine.options().shape.clone();
    let write = shape.checked_write(write_of(1, 0, &pattern(2, 0, 100)));
    let waiter = rig.next_waiter();
    rig.engine
        .write(rig.now, waiter, write.unwrap(), crate::Timestamp(1));
    rig.was_unstored = true;
    assert_eq!(rig.shelf.door_read(1, 0, 100), None);
    rig.step(|_, _| ());
    assert_eq!(rig.bytes(reader), pattern(2, 0, 100));
    assert_eq!(rig.door_read(1, 0, 100), Some(pattern(2, 0, 100)));
}

/// R-04, H-04
#[test]
fn reads_that_wait_for_a_cut_fetch_are_answered_when_the_gap_is_written() {
    let (mut rig, first) = waiting();
    rig.discard(1, 0, 100);
    let second = rig.read(1, 0, 100);
    assert_eq!(rig.fetches.len(), 1, "the cut fetch comes first");
    assert!(!rig.door_write(1, 0, &pattern(2, 0, 100)));
    rig.write(1, 0, &pattern(2, 0, 100));
    let third = rig.read(1, 0, 100);
    assert_eq!(answered_reads(&rig), [first, second, third]);
}

/// R-04, H-21
#[test]
fn reads_that_wait_for_a_writeback_of_dropped_bytes_are_answered_when_the_gap_is_written() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    rig.discard(1, 0, 100);
    let first = rig.read(1, 0, 100);
    assert!(rig.fetches.is_empty(), "the writeback comes first");
    assert!(!rig.door_write(1, 0, &pattern(2, 0, 100)));
    rig.write(1, 0, &pattern(2, 0, 100));
    assert_eq!(rig.bytes(first), pattern(2, 0, 100));
    rig.end_all_writes();
}

///
#[test]
fn reads_that_wait_for_a_first_write_are_answered_when_the_gap_is_written() {
    let mut rig = Rig::new();
    rig.shelf.set_copies_on_write(true);
    rig.read(1, 0, 10);
    rig.end_all_fetches();
    rig.write(1, 0, &pattern(1, 0, 10));
    let first = rig.read(1, WINDOW, 10);
    assert!(rig.fetches.is_empty(), "the writeback comes first");
    // Nothing of that window was ever cached.
    assert!(!rig.door_write(1, WINDOW, &pattern(2, WINDOW, 10)));
    rig.write(1, WINDOW, &pattern(2, WINDOW, 10));
    assert_eq!(rig.bytes(first), pattern(2, WINDOW, 10));
    rig.end_all_writes();
}

///
#[test]
fn a_read_that_waits_for_room_asks_the_store_nothing_once_the_object_is_known_not_to_exist() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 100_000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.store_object(2, pattern(2, 0, 60_000));
    let small = rig.read(1, 0, 10);
    let absent = rig.only_fetch();
    let other = rig.read(2, 0, 60_000);
    let large = rig.read(1, 100, 60_000);
    let queued = rig.read(2, 0, 60_001);
    assert_eq!(rig.fetches.len(), 2, "there is no room for more");
    rig.end_fetch(absent);
    assert_eq!(rig.answered, [small], "zeros take room too, if little");
    let again = rig.read(1, 100, 60_000);
    rig.end_all_fetches();
    rig.trim(u64::MAX);
    assert_eq!(rig.answered, [small, other, large, again]);
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 3);
    rig.end_all_fetches();
    assert!(rig.is_answered(queued));
}

/// H-03
#[test]
fn a_read_that_waits_for_room_costs_none_and_keeps_nothing_from_being_evicted() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 100_000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    rig.read_now(1, 0, 60_000);
    let before = rig.shelf.used();
    let reader = rig.read(1, 50_000, WINDOW);
    assert!(rig.fetches.is_empty());
    assert_eq!(rig.shelf.used(), before);
    rig.trim(u64::MAX);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), pattern(1, 50_000, WINDOW));
}

/// R-04, H-46
#[test]
fn a_read_that_is_gone_leaves_its_windows_to_the_door() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 50_000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.store_object(1, pattern(1, 0, 100_000));
    rig.read_now(1, 0, 1000);
    let gone = rig.read(1, 0, 60_000);
    assert!(!rig.door_write(1, 2000, &[1; 10]));
    rig.cancel(gone);
    assert!(rig.door_write(1, 2000, &[1; 10]));
}

///
#[test]
fn a_read_of_two_objects_does_not_wait_for_the_one_that_is_known_not_to_exist() {
    let mut rig = Rig::new();
    rig.store_object(2, pattern(2, 0, 10));
    let both = ReadRequest {
        extents: vec![extent(2, 0, 10), extent(1, WINDOW, 10)],
        ..ReadRequest::default()
    };
    let reader = rig.read_request(both, true);
    let stored = *rig.fetches.keys().next().unwrap();
    rig.read(1, 0, 10);
    let absent = *rig.fetches.keys().last().unwrap();
    rig.end_fetch(absent);
    assert!(!rig.is_answered(reader));
    rig.end_fetch(stored);
    assert_eq!(rig.bytes(reader), [pattern(2, 0, 10), vec![0; 10]].concat());
    assert_eq!(rig.fetches.len(), 1, "one is under way for nobody");
    rig.end_all_fetches();
}

///
#[test]
fn reads_that_fail_together_are_told_in_the_order_in_which_they_were_asked() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    let first = rig.read(1, WINDOW - 3, 6);
    let ops: Vec<_> = rig.fetches.keys().copied().collect();
    rig.end_fetch(ops[0]);
    rig.discard(1, WINDOW - 2, 4);
    let second = rig.read(1, WINDOW - 3, 6);
    let anew = *rig.fetches.keys().last().unwrap();
    // Now the first begins to wait for what the second asked for.
    rig.end_fetch(ops[1]);
    rig.end_fetch_with(anew, Err(BackendError::Unavailable));
    assert_eq!(answered_reads(&rig), [first, second]);
    rig.read_error(first);
    rig.end_all_fetches();
}

///
#[test]
fn a_large_read_costs_as_much_for_each_write_over_it_however_many_they_are() {
    let cost = |fetches: u64| {
        let mut rig = Rig::new();
        let size = fetches * 4096;
        for nth in 0..fetches {
            let waiter = rig.next_waiter();
            let shape = &rig.engine.options().shape;
            let request = shape.checked_read(read_of(1, nth * 4096, 4096)).unwrap();
            rig.engine.read(rig.now, waiter, request, true);
        }
        rig.step(|_, _| ());
        let whole = rig.read(1, 0, size);
        let before = rig.shelf.locks();
        for nth in 0..fetches {
            assert!(!rig.is_answered(whole));
            rig.engine_write(1, nth * 4096, &pattern(2, nth * 4096, 4096));
        }
        let locks = rig.shelf.locks() - before;
        rig.step(|_, _| ());
        assert!(matches!(rig.answer(whole), Reply::Read(Ok(bytes)) if bytes.len() as u64 == size));
        locks
    };
    let (few, many) = (cost(64), cost(512));
    assert!(many <= 9 * few, "{many} locks against {few}");
}

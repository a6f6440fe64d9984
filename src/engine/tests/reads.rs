//! Rules: reads, fetches, and what meets them on the way.

use bytes::Bytes;

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::{BufferState, Counter, Reply};
use crate::error::{BackendError, CacheError};
use crate::request::{ObjectExtent, ReadRequest};
use crate::types::{Place, SnapId};

///
#[test]
fn a_read_puts_its_extents_where_their_places_are() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    rig.store_object(2, pattern(2, 0, 100));
    let places = |places: &[(u64, u64)]| {
        places
            .iter()
            .map(|(offset, len)| Place {
                offset: *offset,
                len: *len,
            })
            .collect()
    };
    let striped = ReadRequest {
        extents: vec![
            ObjectExtent {
                places: places(&[(0, 10), (20, 10)]),
                ..extent(1, 50, 20)
            },
            ObjectExtent {
                places: places(&[(10, 10), (30, 5)]),
                ..extent(2, 0, 15)
            },
        ],
        ..ReadRequest::default()
    };
    let waiter = rig.read_request(striped, true);
    rig.end_all_fetches();
    let expected = [
        pattern(1, 50, 10),
        pattern(2, 0, 10),
        pattern(1, 60, 10),
        pattern(2, 10, 5),
    ];
    assert_eq!(rig.bytes(waiter), expected.concat());
}

///
#[test]
fn what_is_in_memory_is_served_without_the_store() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write(1, 100, &pattern(1, 100, 100));
    rig.write_back_all();
    let states = rig.states(1);
    assert!(states.iter().all(|(.., state)| *state == BufferState::Tx));
    let in_flight = rig.read(1, 0, 200);
    assert_eq!(rig.bytes(in_flight), pattern(1, 0, 200));
    rig.end_all_writes();
    rig.write(1, 50, &pattern(2, 50, 10));
    let mixed = rig.read(1, 0, 200);
    let mut expected = pattern(1, 0, 200);
    expected[50..60].copy_from_slice(&pattern(2, 50, 10));
    assert_eq!(rig.bytes(mixed), expected);
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 0);
}

///
#[test]
fn a_gap_is_fetched_once_however_many_read_it() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 10_000));
    let readers = [
        rig.read(1, 0, 5000),
        rig.read(1, 0, 5000),
        rig.read(1, 4000, 1000),
        rig.prefetch(1, 100, 200),
    ];
    assert_eq!(rig.fetches.len(), 1);
    let wider = rig.read(1, 4000, 2000);
    assert_eq!(rig.fetches.len(), 2, "only what nobody fetches yet");
    rig.end_all_fetches();
    assert!(readers.iter().all(|reader| rig.is_answered(*reader)));
    assert_eq!(rig.bytes(wider), pattern(1, 4000, 2000));
    assert_eq!(rig.shelf.counter(Counter::FetchBytes), 6000);
}

///
#[test]
fn a_read_is_answered_with_its_last_gap_and_not_before() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 3 * WINDOW));
    let reader = rig.read(1, 0, 3 * WINDOW);
    let ops: Vec<_> = rig.fetches.keys().copied().collect();
    assert_eq!(ops.len(), 3, "a fetch for each window");
    for op in [ops[2], ops[0]] {
        rig.end_fetch(op);
        assert!(!rig.is_answered(reader));
    }
    rig.end_fetch(ops[1]);
    assert_eq!(rig.bytes(reader), pattern(1, 0, 3 * WINDOW));
}

///
#[test]
fn reads_of_one_range_are_answered_in_the_order_in_which_they_were_asked() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    let readers: Vec<_> = (0..5).map(|_| rig.read(1, WINDOW - 50, 100)).collect();
    let ops: Vec<_> = rig.fetches.keys().copied().collect();
    rig.end_fetch(ops[1]);
    rig.end_fetch(ops[0]);
    assert_eq!(rig.answered, readers);
}

/// R-04, H-04
#[test]
fn a_read_asked_after_a_discard_does_not_overtake_one_that_waits() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 4096));
    let first = rig.read(1, 0, 4096);
    let old = rig.only_fetch();
    rig.discard(1, 1000, 1000);
    let second = rig.read(1, 0, 4096);
    assert_eq!(rig.fetches.len(), 1, "the cut fetch comes first");
    rig.end_fetch(old);
    assert!(!rig.is_answered(first) && !rig.is_answered(second));
    rig.end_all_fetches();
    let place = |waiter| rig.answered.iter().position(|known| *known == waiter);
    assert!(place(first) < place(second));
}

/// R-05, H-01, H-03
#[test]
fn bytes_written_during_a_fetch_win() {
    let size = 1 << 20;
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, size));
    let reader = rig.read(1, 0, size);
    let other = rig.read(1, size / 2, 10);
    let at = size / 2 - 1000;
    rig.write(1, at, &pattern(2, at, 64 << 10));
    assert_eq!(rig.door_read(1, at, 100), Some(pattern(2, at, 100)));
    while let Some(op) = rig.fetches.keys().next_back().copied() {
        rig.end_fetch(op);
    }
    let mut expected = pattern(1, 0, size);
    expected[at as usize..(at + (64 << 10)) as usize].copy_from_slice(&pattern(2, at, 64 << 10));
    assert!(rig.bytes(reader) == expected);
    assert_eq!(rig.bytes(other), pattern(2, size / 2, 10));
    assert_eq!(rig.bytes_in(BufferState::Dirty), 64 << 10);
}

/// R-05, H-03
#[test]
fn each_read_is_answered_once_though_all_of_its_fetch_was_written_over() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    let readers = [
        rig.read(1, 0, 100),
        rig.read(1, 20, 10),
        rig.read(1, 0, 100),
    ];
    for at in [40, 0, 60, 20] {
        rig.write(1, at, &pattern(2, at, 40));
    }
    rig.end_all_fetches();
    for reader in readers {
        let answers = rig.answered.iter().filter(|answered| **answered == reader);
        assert_eq!(answers.count(), 1);
    }
    assert_eq!(rig.bytes(readers[0]), pattern(2, 0, 100));
    assert_eq!(rig.bytes(readers[1]), pattern(2, 20, 10));
    assert_eq!(rig.bytes(readers[2]), pattern(2, 0, 100));
}

/// R-05, H-10
#[test]
fn late_and_doubled_ends_of_a_fetch_change_nothing() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    rig.read(1, 0, 100);
    let old = rig.only_fetch();
    rig.end_fetch(old);
    rig.release();
    let reader = rig.read(1, 0, 100);
    let stray = Ok(Bytes::from_static(&[9; 100]));
    rig.step(|engine, now| engine.handle_fetch(now, old, stray));
    rig.step(|engine, now| engine.handle_fetch(now, old, Err(BackendError::NotFound)));
    assert!(!rig.is_answered(reader));
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), pattern(1, 0, 100));
}

/// R-06, H-07
#[test]
fn a_short_answer_is_padded_with_zeros() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 150));
    let mut expected = pattern(1, 0, 150);
    expected.resize(300, 0);
    assert_eq!(rig.read_now(1, 0, 300), expected);
    let expected = [(0, 150, BufferState::Clean), (150, 300, BufferState::Zero)];
    assert_eq!(rig.states(1), expected);
    assert_eq!(rig.read_now(1, 1000, 50), [0; 50], "wholly past the end");
}

/// R-06, H-08
#[test]
fn the_last_bytes_that_an_object_can_have_are_read_and_written() {
    let mut rig = Rig::new();
    let last = crate::OFFSET_BYTES_MAX - 10;
    rig.store_object(1, pattern(1, 0, 10));
    rig.write(1, last, &[7; 10]);
    assert_eq!(rig.read_now(1, last, 10), [7; 10]);
    let waiter = rig.read(1, last - 5, 15);
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Ok(Bytes::new()));
    let expected = [vec![0; 5], vec![7; 10]].concat();
    assert_eq!(rig.bytes(waiter), expected);
}

/// R-13, H-37
#[test]
fn a_failed_fetch_fails_its_readers_and_the_next_read_asks_again() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    let readers = [rig.read(1, 0, 100), rig.read(1, 50, 10)];
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Err(BackendError::Unavailable));
    for reader in readers {
        let expected = CacheError::Read {
            object: name(1),
            range: range(0, 100),
            source: BackendError::Unavailable,
        };
        assert_eq!(rig.read_error(reader), expected);
    }
    assert_eq!(rig.states(1), [(0, 100, BufferState::Error)]);
    assert_eq!(rig.read_now(1, 0, 100), pattern(1, 0, 100));
    assert_eq!(rig.states(1), [(0, 100, BufferState::Clean)]);
}

///
#[test]
fn what_failed_and_what_is_missing_beside_it_is_fetched_in_one() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    rig.read(1, 30, 20);
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Err(BackendError::Unavailable));
    let reader = rig.read(1, 0, 100);
    let op = rig.only_fetch();
    assert_eq!(rig.fetches[&op].range, range(0, 100));
    rig.end_fetch(op);
    assert_eq!(rig.bytes(reader), pattern(1, 0, 100));
}

///
#[test]
fn a_read_that_waits_for_two_fetches_fails_with_the_first_that_does() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    let reader = rig.read(1, 0, 2 * WINDOW);
    let ops: Vec<_> = rig.fetches.keys().copied().collect();
    rig.end_fetch_with(ops[1], Err(BackendError::Unavailable));
    assert!(matches!(
        rig.read_error(reader),
        CacheError::Read { range, .. } if range.start() == WINDOW
    ));
    rig.end_fetch(ops[0]);
    assert_eq!(rig.shelf.counter(Counter::FetchErrors), 1);
}

/// R-14, H-25
#[test]
fn misses_above_the_room_there_is_wait_in_order() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 100_000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    for object in 0..6 {
        rig.store_object(object, pattern(object, 0, 40_000));
    }
    let readers: Vec<_> = (0..6).map(|object| rig.read(object, 0, 40_000)).collect();
    assert_eq!(rig.fetches.len(), 2, "room for two");
    for nth in 0..6 {
        rig.end_fetch(*rig.fetches.keys().next().unwrap());
        assert_eq!(rig.answered, readers[..=nth]);
        assert_eq!(rig.bytes(readers[nth]), pattern(nth as u64, 0, 40_000));
        rig.trim(40_000);
    }
}

/// R-14, H-24
#[test]
fn a_read_larger_than_the_cache_goes_through_alone() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 100_000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.store_object(1, pattern(1, 0, 600_000));
    let small = rig.read(1, 0, 10);
    let large = rig.read(1, 0, 600_000);
    let after = rig.read(1, 599_000, 10);
    rig.end_all_fetches();
    assert!(rig.is_answered(small) && !rig.is_answered(large));
    rig.trim(u64::MAX);
    assert!(!rig.fetches.is_empty(), "nothing else is held any more");
    rig.end_all_fetches();
    assert_eq!(rig.bytes(large), pattern(1, 0, 600_000));
    rig.trim(u64::MAX);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(after), pattern(1, 599_000, 10));
}

///
#[test]
fn a_read_without_a_receiver_fills_the_cache_and_returns_nothing() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    let ahead = rig.prefetch(1, 0, 100);
    rig.end_all_fetches();
    assert!(matches!(rig.answer(ahead), Reply::Read(Ok(bytes)) if bytes.is_empty()));
    assert_eq!(rig.door_read(1, 0, 100), Some(pattern(1, 0, 100)));
}

/// R-14, H-46
#[test]
fn a_read_whose_caller_is_gone_leaves_nothing_behind() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 50_000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.store_object(1, pattern(1, 0, 100_000));
    let fetching = rig.read(1, 0, 40_000);
    let queued = rig.read(1, 50_000, 40_000);
    let next = rig.read(1, 45_000, 100);
    rig.cancel(queued);
    rig.cancel(fetching);
    rig.trim(0);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(next), pattern(1, 45_000, 100));
    rig.release();
    assert_eq!((rig.shelf.windows(), rig.shelf.objects()), (0, 0));
}

/// R-03, H-46
#[test]
fn a_window_that_a_gone_read_kept_open_is_closed() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    rig.read_now(1, 0, 10);
    let reader = rig.read(1, 0, 2 * WINDOW);
    let op = *rig.fetches.keys().next_back().unwrap();
    rig.discard(1, 0, WINDOW);
    rig.cancel(reader);
    rig.end_fetch(op);
    rig.end_all_fetches();
    rig.release();
    assert_eq!((rig.shelf.windows(), rig.shelf.objects()), (0, 0));
}

///
#[test]
fn snapshots_of_an_object_are_cached_apart_from_it() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    rig.write(1, 0, &pattern(2, 0, 100));
    let old = ReadRequest {
        snap: SnapId::snapshot(7),
        ..read_of(1, 0, 100)
    };
    let reader = rig.read_request(old, true);
    let op = rig.only_fetch();
    assert_eq!(rig.fetches[&op].snap, SnapId::snapshot(7));
    rig.end_fetch(op);
    assert_eq!(rig.bytes(reader), pattern(1, 0, 100));
    assert_eq!(rig.door_read(1, 0, 100), Some(pattern(2, 0, 100)));
}

///
#[test]
fn a_large_read_costs_as_much_for_each_of_its_fetches_however_many_they_are() {
    let cost = |fetches: u64| {
        let mut rig = Rig::new();
        let size = fetches * 4096;
        rig.store_object(1, pattern(1, 0, size));
        for nth in 0..fetches {
            let waiter = rig.next_waiter();
            let request = rig
                .engine
                .options()
                .shape
                .checked_read(read_of(1, nth * 4096, 4096));
            rig.engine.read(rig.now, waiter, request.unwrap(), true);
        }
        rig.step(|_, _| ());
        let before = rig.shelf.locks();
        let whole = rig.next_waiter();
        let request = rig.engine.options().shape.checked_read(read_of(1, 0, size));
        rig.engine.read(rig.now, whole, request.unwrap(), true);
        rig.step(|_, _| ());
        let ops: Vec<_> = rig.fetches.keys().copied().collect();
        assert_eq!(ops.len() as u64, fetches);
        for op in ops {
            let result = rig.store.read(&rig.fetches[&op]);
            rig.fetches.remove(&op);
            rig.engine.handle_fetch(rig.now, op, result);
        }
        rig.step(|_, _| ());
        assert_eq!(rig.bytes(whole).len() as u64, size);
        rig.shelf.locks() - before
    };
    let (few, many) = (cost(64), cost(512));
    assert!(many <= 9 * few, "{many} locks against {few}");
}

/// R-04, S-05
#[test]
fn a_read_that_has_to_fetch_anew_is_not_overtaken_by_an_equal_one() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    let first = rig.read(1, WINDOW - 3, 6);
    let ops: Vec<_> = rig.fetches.keys().copied().collect();
    rig.end_fetch(ops[0]);
    rig.discard(1, WINDOW - 2, 4);
    let second = rig.read(1, WINDOW - 3, 6);
    let anew = *rig.fetches.keys().last().unwrap();
    rig.end_fetch(ops[1]);
    let last = *rig.fetches.keys().last().unwrap();
    rig.end_fetch(last);
    rig.end_fetch(anew);
    assert_eq!(rig.answered[rig.answered.len() - 2..], [first, second]);
}

/// B-05
#[test]
fn large_shared_memory_is_kept_where_the_store_vouches_for_it_and_copied_where_not() {
    for is_vouched_for in [true, false] {
        let mut options = RigOptions::default();
        options.capabilities.keepable_reads = is_vouched_for;
        let mut rig = Rig::with(options);
        let shared = Bytes::from(pattern(1, 0, 64 << 10));
        let first = rig.read(1, 0, 64 << 10);
        let fetch = rig.only_fetch();
        rig.end_fetch_with(fetch, Ok(shared.clone()));
        assert_eq!(rig.bytes(first), shared);
        rig.forget(first);
        assert_eq!(!shared.is_unique(), is_vouched_for);
        // What is written over it stays the cache's own.
        rig.write(1, 0, &pattern(2, 0, 4 << 10));
        let expected = [&pattern(2, 0, 4 << 10)[..], &shared[4 << 10..]].concat();
        assert_eq!(rig.read_now(1, 0, 64 << 10), expected);
        assert_eq!(shared, pattern(1, 0, 64 << 10));
        rig.write_back_all();
        rig.end_all_writes();
        rig.release();
        rig.answers.clear();
        assert!(shared.is_unique(), "released, and held all the same");
    }
}

//! Rules F-01 to F-05 and the scenarios of writing back.

use std::time::Duration;

use super::rig::*;
use crate::engine::{BufferState, Counter, Demand};
use crate::error::{BackendError, CacheError};
use crate::request::WriteRequest;
use crate::types::{Moment, Timestamp};

fn scattered() -> Rig {
    let mut options = RigOptions::default();
    options.capabilities.scattered_writes = true;
    Rig::with(options)
}

fn demand(rig: &mut Rig, bytes: u64, since: Moment) {
    rig.step(|engine, now| engine.write_back(now, Demand { bytes, since }));
}

/// F-01, H-12
#[test]
fn the_oldest_bytes_go_first_and_no_more_than_asked_for() {
    let mut rig = Rig::new();
    for object in [3, 1, 2] {
        rig.write(object, 0, &[1; 1000]);
        rig.advance(Duration::from_millis(10));
    }
    assert_eq!(
        rig.step(|engine, _| engine.oldest_dirty()),
        Some(Moment::from_nanos(1))
    );
    let now = rig.now;
    demand(&mut rig, 1500, now);
    let sent: Vec<_> = rig.sent.iter().map(|write| write.object.clone()).collect();
    assert_eq!(sent, [name(3), name(1)]);
    rig.advance(Duration::from_millis(1));
    rig.write(4, 0, &[1; 1000]);
    demand(&mut rig, u64::MAX, now);
    assert_eq!(rig.sent.len(), 3, "what came after the cut-off stays");
}

/// F-01, H-12
#[test]
fn a_pass_takes_all_that_was_dirty_when_it_began_and_nothing_that_came_since() {
    let mut options = RigOptions::default();
    options.limits.writebacks_in_flight = 1;
    let mut rig = Rig::with(options);
    for object in 1..4 {
        rig.write(object, 0, &pattern(object, 0, 1000));
    }
    // These were written at the very moment of the cut-off.
    let began = rig.now;
    demand(&mut rig, u64::MAX, began);
    assert_eq!(rig.sent.len(), 1);
    rig.advance(Duration::from_millis(1));
    // Behind what is in flight, beside what is to go yet, and in an object of its own.
    rig.write(1, 5000, &[9; 10]);
    rig.write(3, 5000, &[9; 10]);
    assert!(rig.door_write(4, 0, &[9; 10]));
    while let Some(op) = rig.write_backs.keys().next().copied() {
        rig.end_write(op);
        demand(&mut rig, u64::MAX, began);
    }
    for object in 1..4 {
        assert_eq!(
            rig.store.get(&name(object)).unwrap(),
            pattern(object, 0, 1000)
        );
    }
    assert!(rig.store.get(&name(4)).is_none());
    assert_eq!(rig.bytes_in(BufferState::Dirty), 30);
}

/// W-04, H-06
#[test]
fn bytes_between_two_ranges_in_flight_wait_for_the_one_that_they_reach_into() {
    let mut rig = scattered();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write(1, 200, &pattern(1, 200, 100));
    rig.write_back_all();
    let op = rig.only_write();
    assert_eq!(ranges_of(&rig.sent[0]), [range(0, 100), range(200, 100)]);
    rig.write(1, 100, &pattern(2, 100, 150));
    rig.write_back_all();
    assert_eq!(rig.write_backs.len(), 1, "it reaches into the second range");
    rig.end_write(op);
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(
        rig.store.get(&name(1)).unwrap()[100..250],
        pattern(2, 100, 150)
    );
}

/// F-01, H-33
#[test]
fn an_overwritten_byte_keeps_its_age() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    let old = rig.now;
    for _ in 0..10 {
        rig.advance(Duration::from_millis(10));
        rig.write(1, 0, &[2; 100]);
        rig.write(1, 50, &[3; 100]);
        assert!(rig.door_write(1, 20, &[4; 10]));
    }
    demand(&mut rig, u64::MAX, old);
    assert_eq!(rig.sent.len(), 1);
    assert!(rig.sent[0].len_bytes() >= 100);
}

/// F-02
#[test]
fn neighbours_go_along_in_one_scattered_write() {
    let mut rig = scattered();
    for at in [0, 10_000, 20_000, WINDOW + 5] {
        rig.write(1, at, &pattern(1, at, 100));
    }
    rig.write(2, 0, &[1; 100]);
    let old = rig.now;
    rig.advance(Duration::from_millis(1));
    rig.write(1, 30_000, &[1; 100]);
    demand(&mut rig, 1, old);
    assert_eq!(rig.sent.len(), 1);
    assert_eq!(
        ranges_of(&rig.sent[0]),
        [
            range(0, 100),
            range(10_000, 100),
            range(20_000, 100),
            range(WINDOW + 5, 100)
        ]
    );
}

/// F-02
#[test]
fn touching_bytes_go_in_one_write_without_copying() {
    let mut rig = Rig::new();
    for nth in 0..64 {
        let at = WINDOW - 32 * 8192 + nth * 8192;
        rig.write(1, at, &pattern(1, at, 8192));
    }
    rig.write(1, 2 * WINDOW + 10, &[1; 10]);
    rig.write_back_all();
    assert_eq!(rig.sent.len(), 2);
    assert_eq!(rig.sent[0].runs[0].buffers.len(), 64);
    assert_eq!(ranges_of(&rig.sent[0]), [range(0, 2 * WINDOW)]);
    rig.end_all_writes();
    assert!(rig.store.get(&name(1)).unwrap()[..2 * WINDOW as usize] == pattern(1, 0, 2 * WINDOW));
}

/// F-02, H-28
#[test]
fn no_write_is_larger_or_has_more_pieces_than_the_store_takes() {
    for (bytes_max, pieces_max) in [(1000, 1024), (4096, 3), (10, 1)] {
        let mut options = RigOptions::default();
        options.capabilities.scattered_writes = true;
        options.capabilities.write_bytes_max = bytes_max;
        options.capabilities.write_pieces_max = pieces_max;
        options.limits.writebacks_in_flight = 1000;
        let mut rig = Rig::with(options);
        let len = 40 * bytes_max + 7;
        rig.write(1, 5, &pattern(1, 5, len));
        for nth in 0..20 {
            rig.write(1, 200_000 + nth * 5000, &pattern(1, nth, 10));
        }
        // The rig refuses what breaks the bounds.
        rig.write_back_all();
        rig.end_all_writes();
        assert_eq!(rig.shelf.used().dirty, 0);
        let stored = &rig.store.get(&name(1)).unwrap()[5..5 + len as usize];
        assert_eq!(stored, pattern(1, 5, len));
    }
}

/// F-03, H-05, H-06
#[test]
fn stored_bytes_become_clean_up_to_their_end_and_no_further() {
    let mut rig = Rig::new();
    for at in (0..40_000).step_by(5000) {
        rig.write(1, at, &pattern(1, at, 5000));
    }
    let old = rig.now;
    rig.advance(Duration::from_millis(1));
    rig.write(1, 40_000, &pattern(1, 40_000, 5000));
    demand(&mut rig, u64::MAX, old);
    let op = rig.only_write();
    rig.end_write(op);
    let states = rig.states(1);
    let (last, stored) = states.split_last().unwrap();
    assert_eq!(*last, (40_000, 45_000, BufferState::Dirty));
    assert!(
        stored
            .iter()
            .all(|(.., state)| *state == BufferState::Clean)
    );
    assert_eq!(rig.read_now(1, 0, 45_000), pattern(1, 0, 45_000));
}

/// F-03, F-04, H-38
#[test]
fn a_failed_writeback_is_tried_again_after_growing_pauses() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    for delay in [100, 200, 400, 800, 1000, 1000] {
        let op = rig.only_write();
        rig.fail_write(op, BackendError::Unavailable);
        assert_eq!(rig.states(1), [(0, 100, BufferState::Dirty)]);
        rig.write_back_all();
        rig.advance(Duration::from_millis(delay - 1));
        assert!(rig.write_backs.is_empty(), "before {delay} ms");
        rig.advance(Duration::from_millis(1));
    }
    assert_eq!(rig.engine.last_error(), Some(&BackendError::Unavailable));
    rig.end_all_writes();
    assert_eq!(rig.engine.last_error(), None);
    rig.write(1, 0, &[1; 10]);
    rig.write_back_all();
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    rig.advance(Duration::from_millis(100));
    assert_eq!(rig.write_backs.len(), 1, "success resets the pause");
}

/// F-04
#[test]
fn failures_of_one_burst_count_once() {
    let mut rig = Rig::new();
    for nth in 0..8 {
        rig.write(1, nth * 10_000, &[1; 100]);
    }
    rig.write_back_all();
    while let Some(op) = rig.write_backs.keys().next().copied() {
        rig.fail_write(op, BackendError::Unavailable);
    }
    rig.advance(Duration::from_millis(100));
    assert_eq!(rig.write_backs.len(), 8);
}

/// F-04
#[test]
fn a_pause_is_the_objects_own() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    rig.write(2, 0, &[1; 100]);
    rig.write_back_all();
    assert_eq!(rig.write_backs.values().next().unwrap().object, name(2));
    assert_eq!(rig.write_backs.len(), 1);
}

/// F-04, H-39
#[test]
fn a_success_lets_what_failed_beside_it_go_at_once() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write(1, 10_000, &[2; 100]);
    rig.write_back_all();
    let ops: Vec<_> = rig.write_backs.keys().copied().collect();
    rig.fail_write(ops[0], BackendError::Unavailable);
    rig.end_write(ops[1]);
    assert_eq!(
        ranges_of(&rig.write_backs[&rig.only_write()]),
        [range(0, 100)]
    );
    rig.end_all_writes();
    assert_eq!(rig.shelf.used().dirty, 0);
    assert_eq!(rig.engine.poll_deadline(), None);
}

/// F-01, H-33
#[test]
fn bytes_held_up_by_a_pause_keep_their_place_when_what_failed_is_discarded() {
    let mut rig = Rig::new();
    rig.now = Moment::default();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let op = rig.only_write();
    rig.write(1, 10_000, &[2; 100]);
    rig.fail_write(op, BackendError::Unavailable);
    rig.write_back_all();
    rig.discard(1, 0, 100);
    rig.advance(Duration::from_millis(200));
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(rig.shelf.used().dirty, 0);
}

/// F-01, H-33
#[test]
fn bytes_held_up_by_a_writeback_keep_their_place() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let old = rig.now;
    rig.write(1, 0, &[2; 100]);
    rig.write_back_all();
    assert_eq!(rig.step(|engine, _| engine.oldest_dirty()), None);
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(rig.step(|engine, _| engine.oldest_dirty()), Some(old));
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(rig.shelf.used().dirty, 0);
}

/// F-05, H-10
#[test]
fn late_and_doubled_ends_of_a_writeback_change_nothing() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let old = rig.only_write();
    rig.end_write(old);
    rig.write(1, 0, &[2; 100]);
    rig.write_back_all();
    for result in [Ok(()), Err(BackendError::Unavailable)] {
        rig.step(|engine, now| engine.handle_write_back(now, old, result));
        assert_eq!(rig.states(1), [(0, 100, BufferState::Tx)]);
    }
    assert_eq!(rig.write_backs.len(), 1);
}

/// F-05, H-10
#[test]
fn what_does_not_answer_in_time_is_given_up() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 1000));
    rig.write(1, 0, &pattern(2, 0, 100));
    rig.write_back_all();
    let reader = rig.read(1, 500, 100);
    let flush = rig.flush();
    let op = rig.only_write();
    rig.advance(Duration::from_secs(59));
    assert!(rig.given_up.is_empty());
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.given_up.len(), 2);
    let source = BackendError::TimedOut;
    assert!(matches!(rig.read_error(reader), CacheError::Read { source: s, .. } if s == source));
    assert!(
        matches!(rig.flushed(flush), Err(CacheError::WriteBack { source: s, .. }) if s == source)
    );
    rig.step(|engine, now| engine.handle_write_back(now, op, Ok(())));
    assert_eq!(rig.bytes_in(BufferState::Dirty), 100);
    rig.advance(Duration::from_millis(100));
    rig.end_all_writes();
    assert_eq!(rig.store.get(&name(1)).unwrap()[..100], pattern(2, 0, 100));
}

/// F-01, H-31
#[test]
fn writebacks_in_flight_are_bounded_and_the_rest_follows() {
    let mut options = RigOptions::default();
    options.limits.writebacks_in_flight = 2;
    let mut rig = Rig::with(options);
    for object in 0..5 {
        rig.write(object, 0, &[1; 100]);
    }
    rig.write_back_all();
    for left in (0..5).rev() {
        assert_eq!(rig.write_backs.len(), 2.min(left + 1));
        let op = *rig.write_backs.keys().next().unwrap();
        rig.end_write(op);
    }
    assert_eq!(rig.shelf.used().dirty, 0);
    assert_eq!(rig.clean_events, 1);
}

/// H-22, H-34
#[test]
fn a_store_that_is_full_keeps_writers_waiting_until_it_is_not() {
    let mut rig = Rig::with(RigOptions {
        bounds: super::shelf::Bounds {
            dirty: 1000,
            ..super::shelf::Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.write(1, 0, &pattern(1, 0, 900));
    let waiting = rig.write(1, 900, &pattern(1, 900, 900));
    for _ in 0..5 {
        rig.write_back_all();
        let op = rig.only_write();
        rig.fail_write(op, BackendError::Full);
        rig.advance(Duration::from_secs(1));
        assert!(!rig.is_answered(waiting));
    }
    assert_eq!(rig.engine.last_error(), Some(&BackendError::Full));
    rig.end_all_writes();
    assert_eq!(rig.done(waiting), Ok(()));
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(rig.store.get(&name(1)).unwrap(), pattern(1, 0, 1800));
}

/// F-01, H-28
#[test]
fn sending_costs_the_same_for_each_buffer_however_many_there_are() {
    let cost = |buffers: u64| {
        let mut options = RigOptions::default();
        options.limits.writebacks_in_flight = 4;
        let mut rig = Rig::with(options);
        for nth in 0..buffers {
            rig.engine_write(1, nth * 2 * WINDOW, &[1; 100]);
        }
        rig.check();
        let before = rig.shelf.locks();
        let waiter = rig.next_waiter();
        rig.engine.flush(rig.now, waiter, None);
        loop {
            rig.take_actions();
            let Some(op) = rig.write_backs.keys().next().copied() else {
                break;
            };
            rig.write_backs.remove(&op);
            rig.engine.handle_write_back(rig.now, op, Ok(()));
        }
        assert_eq!(rig.shelf.counter(Counter::WriteBackOps), buffers);
        assert!(rig.flushed(waiter).is_ok());
        rig.shelf.locks() - before
    };
    let (few, many) = (cost(50), cost(400));
    assert!(many <= 9 * few, "{many} locks against {few}");
}

/// F-02, B-04
#[test]
fn a_writeback_carries_the_latest_of_its_modification_times() {
    let mut rig = Rig::new();
    for (offset, seconds) in [(0, 5), (100, 9), (200, 7)] {
        rig.write_request(WriteRequest {
            modified: Some(Timestamp(seconds)),
            ..write_of(1, offset, &[1; 100])
        });
    }
    rig.write_back_all();
    let modified: Vec<_> = rig.sent.iter().map(|write| write.modified).collect();
    assert_eq!(modified, [Timestamp(9)]);
}

//! Rules F-06 and F-07: waiting until bytes are stored, and hearing that all are.

use std::time::Duration;

use super::rig::*;
use crate::engine::Flushed;
use crate::error::{BackendError, CacheError};

const CLEAN: Result<Flushed, CacheError> = Ok(Flushed {
    already_clean: true,
});
const STORED: Result<Flushed, CacheError> = Ok(Flushed {
    already_clean: false,
});

/// F-06
#[test]
fn a_flush_of_nothing_says_that_all_was_clean() {
    let mut rig = Rig::new();
    let flush = rig.flush();
    assert_eq!(rig.flushed(flush), CLEAN);
    rig.write(1, 0, &[1; 10]);
    let elsewhere = rig.flush_range(1, 100, 10);
    assert_eq!(rig.flushed(elsewhere), CLEAN);
    let unknown = rig.flush_range(2, 0, 10);
    assert_eq!(rig.flushed(unknown), CLEAN);
}

/// F-06, H-12
#[test]
fn a_flush_waits_for_what_is_dirty_and_what_is_in_flight() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 10]);
    rig.write_back_all();
    rig.write(2, 0, &[1; 10]);
    assert!(rig.door_write(3, 0, &[1; 10]));
    let flush = rig.flush();
    assert_eq!(rig.write_backs.len(), 3);
    for _ in 0..3 {
        assert!(!rig.is_answered(flush));
        let op = *rig.write_backs.keys().next_back().unwrap();
        rig.end_write(op);
    }
    assert_eq!(rig.flushed(flush), STORED);
}

/// F-06
#[test]
fn a_flush_of_ranges_sends_every_buffer_that_they_touch_and_no_other() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 10_000]);
    rig.write(1, 20_000, &[1; 10_000]);
    rig.write(2, 0, &[1; 10_000]);
    let flush = rig.flush_range(1, 9_999, 2);
    let sent: Vec<_> = rig.sent.iter().flat_map(ranges_of).collect();
    assert!(sent.contains(&range(0, 10_000)));
    let op = *rig.write_backs.keys().next().unwrap();
    rig.end_write(op);
    assert_eq!(rig.flushed(flush), STORED);
    assert!(rig.sent.iter().all(|write| write.object == name(1)));
}

/// F-06, H-12
#[test]
fn new_writes_do_not_prolong_a_flush() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    let flush = rig.flush();
    let op = rig.only_write();
    rig.write(1, 0, &[2; 100]);
    rig.write(1, 1000, &[2; 100]);
    assert!(rig.door_write(2, 0, &[2; 100]));
    rig.end_write(op);
    assert_eq!(rig.flushed(flush), STORED);
    assert_eq!(rig.write_backs.len(), 0, "nobody asked for those");
}

/// F-06
#[test]
fn a_flush_waits_for_bytes_that_an_older_writeback_holds_up() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    rig.write(1, 50, &[2; 100]);
    let flush = rig.flush();
    let op = rig.only_write();
    rig.end_write(op);
    assert!(!rig.is_answered(flush));
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(rig.flushed(flush), STORED);
}

/// F-06
#[test]
fn a_flush_ends_when_what_it_waits_for_is_dropped() {
    let mut rig = Rig::new();
    let mut options = RigOptions::default();
    options.limits.writebacks_in_flight = 1;
    rig.step(|engine, now| engine.set_limits(now, options.limits));
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    rig.write(2, 0, &[2; 100]);
    let flush = rig.flush_range(2, 0, 100);
    assert!(!rig.is_answered(flush));
    rig.discard(2, 0, 100);
    assert_eq!(rig.flushed(flush), STORED);
}

/// F-06, H-15
#[test]
fn a_flush_of_several_ranges_waits_for_each() {
    let mut rig = Rig::new();
    let at = [0, WINDOW - 5, 3 * WINDOW];
    for at in at {
        rig.write(1, at, &pattern(1, at, 10));
        rig.write(2, at, &pattern(2, at, 10));
    }
    let waiter = rig.next_waiter();
    let extents = [
        extent(1, WINDOW, 2 * WINDOW + 1),
        extent(2, 0, 1),
        extent(1, 0, 1),
        extent(9, 0, 1),
    ];
    rig.step(|engine, now| engine.flush(now, waiter, Some(&extents)));
    while !rig.is_answered(waiter) {
        let op = *rig.write_backs.keys().next_back().unwrap();
        rig.end_write(op);
    }
    for at in at {
        let stored = &rig.store.get(&name(1)).unwrap()[at as usize..at as usize + 10];
        assert_eq!(stored, pattern(1, at, 10));
    }
    assert_eq!(rig.store.get(&name(2)).unwrap()[..10], pattern(2, 0, 10));
}

/// F-04, F-06
#[test]
fn a_failure_reaches_every_flush_that_waited_and_the_bytes_stay_dirty() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write(2, 0, &[1; 100]);
    let flushes = [rig.flush(), rig.flush_range(1, 0, 1), rig.flush()];
    let unconcerned = rig.flush_range(2, 0, 1);
    let op = *rig.write_backs.keys().next().unwrap();
    rig.fail_write(op, BackendError::ReadOnly);
    let expected = CacheError::WriteBack {
        object: name(1),
        range: range(0, 100),
        source: BackendError::ReadOnly,
    };
    for flush in flushes {
        assert_eq!(rig.flushed(flush), Err(expected.clone()));
    }
    assert!(!rig.is_answered(unconcerned));
    rig.end_all_writes();
    assert_eq!(rig.flushed(unconcerned), STORED);
    assert_eq!(rig.shelf.used().dirty, 100);
}

/// F-04, F-06
#[test]
fn a_flush_during_a_pause_waits_for_its_end() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    let flush = rig.flush();
    assert!(!rig.is_answered(flush) && rig.write_backs.is_empty());
    rig.advance(Duration::from_millis(100));
    rig.end_all_writes();
    assert_eq!(rig.flushed(flush), STORED);
}

/// F-06, H-32
#[test]
fn a_flush_does_not_wait_for_writes_that_wait_for_room() {
    let mut rig = Rig::with(RigOptions {
        bounds: super::shelf::Bounds {
            dirty: 1000,
            ..super::shelf::Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.write(1, 0, &[1; 900]);
    let waiting = rig.write(1, 1000, &[1; 900]);
    let flush = rig.flush();
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(rig.flushed(flush), STORED);
    assert_eq!(rig.done(waiting), Ok(()));
    assert_eq!(rig.shelf.used().dirty, 900);
}

/// F-07
#[test]
fn the_clean_event_fires_once_whatever_ends_the_last_dirty_byte() {
    let mut rig = Rig::new();
    let ends: [fn(&mut Rig); 5] = [
        |rig| {
            rig.flush();
            rig.end_all_writes();
        },
        |rig| {
            rig.purge();
        },
        |rig| {
            rig.discard(1, 0, 1000);
        },
        |rig| {
            rig.truncate(1, 0);
        },
        |rig| {
            rig.write_back_all();
            rig.purge();
            assert_eq!(rig.clean_events, 4, "it is still in flight");
            rig.end_all_writes();
        },
    ];
    for (nth, end) in ends.into_iter().enumerate() {
        rig.write(1, 0, &[1; 100]);
        rig.write(1, 500, &[1; 100]);
        assert_eq!(rig.clean_events, nth);
        end(&mut rig);
        assert_eq!(rig.clean_events, nth + 1);
        rig.flush();
        rig.purge();
        assert_eq!(rig.clean_events, nth + 1);
    }
}

/// F-07
#[test]
fn a_write_at_the_door_puts_the_clean_event_off() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let op = rig.only_write();
    assert!(rig.door_write(2, 0, &[1; 100]));
    rig.end_write(op);
    assert_eq!(rig.clean_events, 0);
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(rig.clean_events, 1);
}

//! Rules W-01 to W-07 and B-06 as the engine decides them.

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::{BufferState, Counter, Demand};
use crate::error::{BackendError, CacheError, RequestError};
use crate::request::WriteRequest;

fn bounded(dirty: i64, dirty_buffers: i64) -> Rig {
    Rig::with(RigOptions {
        bounds: Bounds {
            dirty,
            dirty_buffers,
            ..Bounds::default()
        },
        ..RigOptions::default()
    })
}

fn write_through() -> Rig {
    let mut options = RigOptions::default();
    options.limits.write_through = true;
    Rig::with(options)
}

/// W-01
#[test]
fn a_write_is_readable_once_it_is_acknowledged() {
    let mut rig = Rig::new();
    let waiter = rig.write(1, WINDOW - 50, &pattern(1, WINDOW - 50, 100));
    assert_eq!(rig.done(waiter), Ok(()));
    assert_eq!(
        rig.read_now(1, WINDOW - 50, 100),
        pattern(1, WINDOW - 50, 100)
    );
    assert_eq!(
        rig.door_read(1, WINDOW - 50, 100),
        Some(pattern(1, WINDOW - 50, 100))
    );
    assert!(rig.door_write(1, WINDOW - 20, &pattern(2, WINDOW - 20, 40)));
    assert_eq!(
        rig.read_now(1, WINDOW - 20, 40),
        pattern(2, WINDOW - 20, 40)
    );
}

/// W-02, H-02
#[test]
fn a_write_replaces_exactly_its_range_whatever_lies_there() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 600));
    let mut expected = pattern(1, 0, 600);
    expected.resize(700, 0);
    // Clean 0..100, Tx 100..200, Dirty 200..300, Error 300..400, Rx 400..500, nothing 500..600, Zero 600..700.
    rig.read_now(1, 0, 100);
    rig.read_now(1, 600, 100);
    rig.write(1, 100, &pattern(2, 100, 100));
    rig.write_back_all();
    rig.write(1, 200, &pattern(3, 200, 100));
    rig.read(1, 300, 100);
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Err(BackendError::Unavailable));
    rig.read(1, 400, 100);
    expected[100..200].copy_from_slice(&pattern(2, 100, 100));
    expected[200..300].copy_from_slice(&pattern(3, 200, 100));
    for nth in 0..7 {
        let at = nth * 100 + 50;
        rig.write(1, at, &pattern(4, at, 20));
        expected[at as usize..at as usize + 20].copy_from_slice(&pattern(4, at, 20));
    }
    rig.end_all_fetches();
    rig.end_all_writes();
    assert_eq!(rig.read_now(1, 0, 700), expected);
    rig.write(1, 40, &pattern(5, 40, 620));
    expected[40..660].copy_from_slice(&pattern(5, 40, 620));
    assert_eq!(rig.read_now(1, 0, 700), expected);
}

/// W-03, H-11
#[test]
fn bytes_written_over_in_flight_stay_dirty_when_the_older_ones_land() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    rig.write(1, 20, &pattern(2, 20, 30));
    assert_eq!(
        rig.shelf.counter(Counter::OverwrittenWhileFlushingBytes),
        30
    );
    let op = rig.only_write();
    rig.end_write(op);
    let expected = [
        (0, 20, BufferState::Clean),
        (20, 50, BufferState::Dirty),
        (50, 100, BufferState::Clean),
    ];
    assert_eq!(rig.states(1), expected);
    assert_eq!(rig.read_now(1, 20, 30), pattern(2, 20, 30));
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(
        &rig.store.get(&name(1)).unwrap()[20..50],
        pattern(2, 20, 30)
    );
}

/// W-04, H-16
#[test]
fn a_newer_writeback_of_a_byte_waits_for_the_older_one() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    let first = rig.only_write();
    rig.write(1, 50, &pattern(2, 50, 100));
    rig.write(1, 1000, &pattern(2, 1000, 10));
    rig.write_back_all();
    let flush = rig.flush();
    assert_eq!(rig.write_backs.len(), 2, "what lies apart may go");
    rig.end_write(first);
    assert_eq!(rig.write_backs.len(), 2, "now the other may go as well");
    rig.end_all_writes();
    assert!(rig.flushed(flush).is_ok());
    let stored = rig.store.get(&name(1)).unwrap();
    assert_eq!(stored[..50], pattern(1, 0, 50));
    assert_eq!(stored[50..150], pattern(2, 50, 100));
}

/// W-05, H-26
#[test]
fn writers_at_the_dirty_limit_wait_in_order() {
    let mut rig = bounded(10_000, 1 << 40);
    let first = rig.write(1, 0, &[1; 9000]);
    let large = rig.write(2, 0, &[2; 5000]);
    let small = rig.write(3, 0, &[3; 10]);
    assert!(rig.is_answered(first) && !rig.is_answered(large));
    assert!(!rig.is_answered(small), "there is room, but not its turn");
    assert!(!rig.door_write(4, 0, &[4; 10]), "nor at the door");
    assert_eq!(rig.shelf.counter(Counter::BlockedWriteOps), 2);
    assert_eq!(rig.shelf.counter(Counter::BlockedWriteBytes), 5010);
    rig.now = rig.now.after(std::time::Duration::from_millis(3));
    rig.write_back_all();
    assert!(!rig.is_answered(large), "in flight counts as dirty");
    rig.end_all_writes();
    assert_eq!(rig.answered, [first, large, small]);
    assert_eq!(rig.shelf.counter(Counter::BlockedWriteNanos), 6_000_000);
}

/// W-05
#[test]
fn dirty_buffers_are_bounded_like_bytes() {
    let mut rig = bounded(1 << 40, 10);
    let writers: Vec<_> = (0..20)
        .map(|nth| rig.write(1, nth * 8192, &[1; 10]))
        .collect();
    let entered = writers
        .iter()
        .filter(|writer| rig.is_answered(**writer))
        .count();
    assert!((7..=10).contains(&entered), "{entered}");
    while writers.iter().any(|writer| !rig.is_answered(*writer)) {
        rig.write_back_all();
        rig.end_all_writes();
    }
}

/// W-05, H-24
#[test]
fn a_write_larger_than_the_dirty_limit_goes_through_alone() {
    let mut rig = bounded(10_000, 1 << 40);
    rig.write(1, 0, &[1; 100]);
    let large = rig.write(2, 0, &[2; 300_000]);
    assert!(!rig.is_answered(large));
    rig.write_back_all();
    rig.end_all_writes();
    assert!(rig.is_answered(large));
    let after = rig.write(1, 0, &[3; 10]);
    assert!(!rig.is_answered(after), "it is alone");
    rig.write_back_all();
    rig.end_all_writes();
    assert!(rig.is_answered(after));
    assert!(rig.store.get(&name(2)).unwrap() == [2; 300_000]);
}

/// W-06, H-36
#[test]
fn a_write_through_is_acknowledged_by_the_store() {
    let mut rig = write_through();
    let waiter = rig.write(1, 0, &pattern(1, 0, 100));
    assert!(!rig.is_answered(waiter));
    assert_eq!(rig.read_now(1, 0, 100), pattern(1, 0, 100));
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(rig.done(waiter), Ok(()));
    assert_eq!(rig.shelf.used().dirty, 0);
}

/// W-06, H-39
#[test]
fn a_write_through_that_fails_says_so_and_is_sent_again() {
    let mut rig = write_through();
    let waiter = rig.write(1, 0, &pattern(1, 0, 100));
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Full);
    let expected = CacheError::WriteBack {
        object: name(1),
        range: range(0, 100),
        source: BackendError::Full,
    };
    assert_eq!(rig.done(waiter), Err(expected));
    assert_eq!(rig.read_now(1, 0, 100), pattern(1, 0, 100));
    rig.advance(std::time::Duration::from_millis(100));
    rig.end_all_writes();
    assert_eq!(rig.store.get(&name(1)).unwrap(), pattern(1, 0, 100));
}

/// W-06, F-06
#[test]
fn a_write_through_does_not_wait_for_a_later_one_of_the_same_bytes() {
    let mut rig = write_through();
    let first = rig.write(1, 0, &[1; 100]);
    let op = rig.only_write();
    let second = rig.write(1, 0, &[2; 100]);
    rig.end_write(op);
    assert_eq!(rig.done(first), Ok(()));
    assert!(!rig.is_answered(second));
    rig.end_all_writes();
    assert_eq!(rig.done(second), Ok(()));
    assert_eq!(rig.store.get(&name(1)).unwrap(), [2; 100]);
}

/// W-06, L-01
#[test]
fn writing_through_can_begin_and_end_while_running() {
    let mut rig = Rig::new();
    let mut limits = RigOptions::default().limits;
    limits.write_through = true;
    rig.step(|engine, now| engine.set_limits(now, limits));
    let through = rig.write(1, 0, &[1; 10]);
    assert!(!rig.is_answered(through));
    limits.write_through = false;
    rig.step(|engine, now| engine.set_limits(now, limits));
    let absorbed = rig.write(1, 100, &[1; 10]);
    assert!(rig.is_answered(absorbed) && !rig.is_answered(through));
    rig.end_all_writes();
    assert!(rig.is_answered(through));
}

/// W-07, H-46
#[test]
fn a_writer_that_is_gone_takes_no_room_and_holds_nobody_up() {
    let mut rig = bounded(10_000, 1 << 40);
    rig.write(1, 0, &[1; 9000]);
    let gone = rig.write(2, 0, &[2; 9000]);
    let next = rig.write(3, 0, &[3; 500]);
    rig.cancel(gone);
    rig.trim(0);
    assert!(rig.is_answered(next));
    assert_eq!(rig.states(2), []);
    // Room that comes for one who is gone goes back.
    let charge = crate::engine::write::put_charge(10);
    assert!(crate::engine::Shelf::take_room(&rig.shelf, charge));
    rig.step(|engine, now| engine.handle_room(now, gone, charge));
}

/// W-10
#[test]
fn a_write_that_makes_no_sense_is_refused_before_anything_changes() {
    let rig = Rig::new();
    let shape = &rig.engine.options().shape;
    let refused = [
        (WriteRequest::default(), RequestError::NoExtents),
        (
            WriteRequest {
                extents: vec![extent(1, 0, 10), extent(1, 9, 10)],
                data: bytes::Bytes::from_static(&[0; 20]),
                ..WriteRequest::default()
            },
            RequestError::ExtentsOverlap {
                range: range(9, 10),
            },
        ),
    ];
    for (request, expected) in refused {
        assert_eq!(shape.checked_write(request), Err(expected));
    }
}

/// B-06, H-28
#[test]
fn tiny_neighbours_do_not_cost_a_buffer_each() {
    for step in [1u64, 3, 100, 512] {
        let mut rig = Rig::new();
        let mut expected = Vec::new();
        for at in (0..16_384).step_by(step as usize) {
            let bytes = pattern(at, at, step);
            rig.engine_write(1, at, &bytes);
            expected.extend(bytes);
        }
        rig.check();
        let len = expected.len() as u64;
        assert_eq!(rig.read_now(1, 0, len), expected);
        let buffers = rig.buffers(1).len();
        assert!(buffers <= 8, "{buffers} buffers of {step} bytes each");
        let room = rig.shelf.used().room;
        assert!(room <= 2 * 16_384 + 4096, "{room} bytes for 16 KiB");
    }
}

/// B-06
#[test]
fn tiny_neighbours_in_any_order_end_up_joined() {
    let mut rig = Rig::new();
    let mut at = 0u64;
    for _ in 0..1024 {
        at = (at + 389) % 1024;
        rig.engine_write(1, at * 16, &pattern(1, at * 16, 16));
    }
    rig.check();
    assert_eq!(rig.read_now(1, 0, 16_384), pattern(1, 0, 16_384));
    let room = rig.shelf.used().room;
    assert!(room <= 4 * 16_384, "{room} bytes for 16 KiB");
}

/// B-05
#[test]
fn memory_that_is_mostly_overwritten_is_let_go() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, WINDOW));
    rig.read_now(1, 0, WINDOW);
    let mut expected = pattern(1, 0, WINDOW);
    for at in (0..WINDOW).step_by(4096) {
        rig.write(1, at, &pattern(2, at, 4000));
        expected[at as usize..at as usize + 4000].copy_from_slice(&pattern(2, at, 4000));
    }
    let room = u64::try_from(rig.shelf.used().room).unwrap();
    assert!(room < WINDOW + WINDOW / 5, "{room} bytes for one window");
    assert!(rig.read_now(1, 0, WINDOW) == expected);
}

/// W-05, H-28
#[test]
fn what_a_write_can_cost_at_most_covers_what_it_costs() {
    // The shelf refuses dirty bytes without room; here none may be owed for the rest either.
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, WINDOW));
    rig.read_now(1, 0, WINDOW);
    let before = rig.shelf.largest_force();
    rig.write(1, 1000, &[1; 100_000]);
    rig.write_back_all();
    rig.write(1, 30_000, &[2; 50_000]);
    rig.write(1, 2000, &[3; 10]);
    rig.write(1, 2010, &[4; 10]);
    rig.write_back_all();
    rig.write(1, 1990, &[5; 100]);
    rig.write(1, 0, &[6; WINDOW as usize]);
    rig.write_back_all();
    rig.write(1, 7, &[7; 200_000]);
    assert_eq!(rig.shelf.largest_force(), before);
    rig.end_all_writes();
    rig.step(|engine, now| {
        let demand = Demand {
            bytes: 1,
            since: now,
        };
        engine.write_back(now, demand);
    });
    assert_eq!(rig.shelf.largest_force(), before);
}

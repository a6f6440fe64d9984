//! Scenario H-36: write-through until the first flush.

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::WaiterId;
use crate::error::{BackendError, CacheError};

fn until_flush() -> Rig {
    Rig::with(RigOptions {
        until_flush: true,
        ..RigOptions::default()
    })
}

fn store_all(rig: &mut Rig) -> WaiterId {
    let waiter = rig.next_waiter();
    rig.step(|engine, now| engine.store_all(now, waiter));
    waiter
}

/// H-36, W-06
#[test]
fn each_write_before_the_first_flush_is_answered_by_the_store_and_none_after_it() {
    let mut rig = until_flush();
    for nth in 0..3 {
        let through = rig.write(1, nth * 100, &pattern(1, nth * 100, 100));
        assert!(!rig.is_answered(through));
        assert_eq!(
            rig.read_now(1, nth * 100, 100),
            pattern(1, nth * 100, 100),
            "it is readable before it is stored"
        );
        rig.end_all_writes();
        assert_eq!(rig.done(through), Ok(()));
    }
    assert_eq!(rig.store.get(&name(1)).unwrap(), pattern(1, 0, 300));
    assert!(rig.engine.is_write_through());
    let flush = rig.flush();
    assert!(rig.flushed(flush).unwrap().already_clean);
    assert!(!rig.engine.is_write_through());
    let absorbed = rig.write(1, 0, &[7; 300]);
    assert_eq!(rig.done(absorbed), Ok(()));
    assert!(rig.write_backs.is_empty());
}

/// H-36: the flush of a part, or one that comes to nothing, shows as well that the caller flushes.
#[test]
fn any_flush_of_a_caller_ends_it_whatever_comes_of_it() {
    let mut rig = until_flush();
    rig.flush_range(7, 0, 1);
    let absorbed = rig.write(1, 0, &[1; 10]);
    assert_eq!(rig.done(absorbed), Ok(()));

    let mut rig = until_flush();
    let through = rig.write(1, 0, &[1; 10]);
    let flush = rig.flush();
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    assert!(rig.flushed(flush).is_err() && rig.done(through).is_err());
    let absorbed = rig.write(1, 0, &[2; 10]);
    assert_eq!(rig.done(absorbed), Ok(()));
}

/// H-36: nothing but a flush of a caller ends it.
#[test]
fn what_the_set_does_for_itself_does_not_end_it() {
    let mut rig = until_flush();
    rig.write(1, 0, &[1; 10]);
    rig.write_back_all();
    rig.end_all_writes();
    let stored = store_all(&mut rig);
    assert!(rig.flushed(stored).unwrap().already_clean);
    rig.discard(1, 0, 5);
    rig.truncate(1, 5);
    rig.purge();
    rig.release();
    let limits = RigOptions::default().limits;
    rig.step(|engine, now| engine.set_limits(now, limits));
    let through = rig.write(1, 0, &[1; 10]);
    assert!(!rig.is_answered(through));
    rig.end_all_writes();
    assert_eq!(rig.done(through), Ok(()));
}

/// H-36, W-05: a write is answered as was promised when it was asked.
#[test]
fn a_write_that_waits_for_room_when_the_flush_comes_is_still_answered_by_the_store() {
    let mut rig = Rig::with(RigOptions {
        until_flush: true,
        bounds: Bounds {
            dirty: 1000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    let first = rig.write(1, 0, &pattern(1, 0, 900));
    let waiting = rig.write(1, 900, &pattern(1, 900, 900));
    let flush = rig.flush();
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(rig.done(first), Ok(()));
    assert!(rig.flushed(flush).is_ok(), "it entered after the flush");
    assert!(!rig.is_answered(waiting), "it has entered, and no more");
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Full);
    let refused = CacheError::WriteBack {
        object: name(1),
        range: range(900, 900),
        source: BackendError::Full,
    };
    assert_eq!(rig.done(waiting), Err(refused), "with the store's error");
    rig.advance(std::time::Duration::from_millis(100));
    rig.end_all_writes();
    assert_eq!(rig.store.get(&name(1)).unwrap(), pattern(1, 0, 1800));
}

/// H-36, L-01: both ways of write-through together last as long as either.
#[test]
fn a_flush_ends_no_write_through_that_the_limits_ask_for() {
    let mut options = RigOptions {
        until_flush: true,
        ..RigOptions::default()
    };
    options.limits.write_through = true;
    let mut rig = Rig::with(options.clone());
    rig.flush();
    let through = rig.write(1, 0, &[1; 10]);
    assert!(!rig.is_answered(through) && rig.engine.is_write_through());
    options.limits.write_through = false;
    rig.step(|engine, now| engine.set_limits(now, options.limits));
    let absorbed = rig.write(2, 0, &[1; 10]);
    assert_eq!(rig.done(absorbed), Ok(()));
    rig.end_all_writes();
}

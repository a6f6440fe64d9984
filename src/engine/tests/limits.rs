//! Rules L-01, L-06, T-01 and the scenarios of limits as the engine sees them.

use std::time::Duration;

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::window::{EXTENT_OVERHEAD_BYTES, WINDOW_BYTES, WINDOW_OVERHEAD_BYTES};
use crate::engine::{BufferState, Counter};
use crate::types::ObjectKey;

/// L-01
#[test]
fn more_writebacks_in_flight_are_used_at_once() {
    let mut options = RigOptions::default();
    options.limits.writebacks_in_flight = 1;
    let mut rig = Rig::with(options.clone());
    for object in 0..5 {
        rig.write(object, 0, &[1; 10]);
    }
    rig.flush();
    assert_eq!(rig.write_backs.len(), 1);
    options.limits.writebacks_in_flight = 4;
    rig.step(|engine, now| engine.set_limits(now, options.limits));
    assert_eq!(rig.write_backs.len(), 4);
}

/// L-01
#[test]
fn a_shorter_timeout_holds_for_what_is_under_way() {
    let mut options = RigOptions::default();
    let mut rig = Rig::with(options.clone());
    let reader = rig.read(1, 0, 10);
    rig.advance(Duration::from_secs(5));
    options.limits.backend_timeout = Duration::from_secs(3);
    rig.step(|engine, now| engine.set_limits(now, options.limits));
    rig.advance(Duration::ZERO);
    assert!(rig.is_answered(reader));
}

/// L-01, H-44
#[test]
fn raised_bounds_let_waiting_callers_in() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            dirty: 100,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    rig.write(1, 0, &[1; 90]);
    let waiting = rig.write(1, 100, &[1; 90]);
    assert!(!rig.is_answered(waiting));
    rig.shelf.set_bounds(Bounds::default());
    rig.step(|_, _| ());
    assert!(rig.is_answered(waiting));
}

/// L-06
#[test]
fn the_content_is_listed_by_object_and_buffer() {
    let mut rig = Rig::new();
    rig.store_object(2, pattern(1, 0, 100));
    rig.read_now(2, 0, 100);
    rig.write_request(journaled(2, 50, &[1; 10], 7));
    rig.advance(Duration::from_nanos(500));
    rig.read_now(1, 0, 10);
    rig.read(2, 200, 10);
    let listings = rig.step(|engine, now| engine.list(now));
    let keys: Vec<_> = listings
        .iter()
        .map(|listing| listing.object.clone())
        .collect();
    assert_eq!(keys, [ObjectKey::Number(1), ObjectKey::Number(2)]);
    assert!(!listings[0].exists && listings[0].complete);
    let listing = &listings[1];
    assert!(listing.exists && !listing.complete);
    assert_eq!(listing.fetches.len(), 1);
    let states: Vec<_> = listing
        .buffers
        .iter()
        .map(|buffer| (buffer.range.start(), buffer.state))
        .collect();
    let expected = [
        (0, BufferState::Clean),
        (50, BufferState::Dirty),
        (60, BufferState::Clean),
        (200, BufferState::Rx),
    ];
    assert_eq!(states, expected);
    assert_eq!(listing.buffers[1].journal_tid, Some(tid_of(7)));
    assert_eq!(listing.buffers[1].dirty_for_nanos, Some(500));
    assert_eq!(listing.buffers[3].tid, Some(listing.fetches[0]));
    assert!(serde_json::to_string(&listings).unwrap().contains("dirty"));
}

/// T-01, H-30
#[test]
fn objects_that_hold_nothing_are_closed_oldest_first_and_no_others() {
    let mut rig = Rig::new();
    rig.write(9, 0, &[1; 10]);
    for object in [3, 1, 2] {
        rig.read_now(object, 0, 10);
        rig.trim(u64::MAX);
    }
    assert_eq!(rig.shelf.objects(), 4);
    assert_eq!(rig.step(|engine, _| engine.close_idle(2)), 2);
    let knows = |rig: &mut Rig, object| rig.step(|engine, _| engine.knows(&head(object)));
    assert!(!knows(&mut rig, 3) && !knows(&mut rig, 1));
    assert!(knows(&mut rig, 2) && knows(&mut rig, 9));
    rig.read_now(2, 0, 10);
    assert_eq!(
        rig.step(|engine, _| engine.close_idle(9)),
        0,
        "it holds zeros"
    );
    assert_eq!(rig.shelf.objects(), 2);
}

/// T-01
#[test]
fn an_idle_object_that_is_used_again_is_idle_anew_later() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    rig.trim(u64::MAX);
    rig.write(1, 0, &[1; 10]);
    rig.step(|engine, _| engine.close_idle(9));
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(rig.shelf.objects(), 1);
    rig.purge();
    assert_eq!(rig.shelf.objects(), 0);
    for object in 10..14 {
        rig.read_now(object, 0, 10);
        rig.trim(u64::MAX);
    }
    assert_eq!(rig.step(|engine, _| engine.close_idle(9)), 4);
    assert_eq!(rig.shelf.objects(), 0);
}

/// L-01
#[test]
fn known_zeros_wait_for_room_as_what_is_fetched_does() {
    let window = WINDOW_BYTES;
    let one = i64::try_from(WINDOW_OVERHEAD_BYTES + 2 * EXTENT_OVERHEAD_BYTES + 10).unwrap();
    let bounds = Bounds {
        room: 2 * one,
        ..Bounds::default()
    };
    let mut rig = Rig::with(RigOptions {
        bounds,
        ..RigOptions::default()
    });
    rig.read_now(1, 0, 10);
    assert_eq!(rig.read_now(1, window, 10), [0; 10]);
    let waiting = rig.read(1, 2 * window, 10);
    assert!(!rig.is_answered(waiting), "there is room for two windows");
    assert!(rig.shelf.used().room <= bounds.room);
    assert!(rig.trim(u64::MAX) > 0);
    assert_eq!(rig.bytes(waiting), [0; 10]);
    assert_eq!(rig.shelf.largest_force(), 0);
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 1);
    assert_eq!(rig.shelf.counter(Counter::ReadOpsHit), 2);
    assert_eq!(rig.shelf.counter(Counter::ReadOpsMissed), 1);
}

/// H-38
#[test]
fn what_was_reserved_for_a_fetch_holds_the_zeros_that_it_finds() {
    let mut rig = Rig::with(RigOptions {
        bounds: Bounds {
            room: 3000,
            ..Bounds::default()
        },
        ..RigOptions::default()
    });
    let large = rig.read(1, WINDOW_BYTES - 5, 10);
    let other = rig.read(2, 0, 1000);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(large), [0; 10]);
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 2);
    rig.trim(u64::MAX);
    rig.end_all_fetches();
    assert!(rig.is_answered(other));
}

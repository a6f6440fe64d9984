//! Scenario H-41: a fenced client stops writing and says so.

use std::time::Duration;

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::window::Charge;
use crate::engine::{BufferState, WaiterId};
use crate::error::{BackendError, CacheError};
use crate::request::WriteRequest;
use crate::types::SnapContext;

fn with_bounds(dirty: i64, room: i64) -> Rig {
    Rig::with(RigOptions {
        bounds: Bounds {
            dirty,
            room,
            ..Bounds::default()
        },
        ..RigOptions::default()
    })
}

fn refusal(unsaved_bytes: u64) -> CacheError {
    CacheError::Fenced {
        set: "vol".into(),
        unsaved_bytes,
    }
}

/// Has the only writeback under way answered by "fenced".
fn fence(rig: &mut Rig) {
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Fenced);
}

fn fenced() -> Rig {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 900));
    rig.write_back_all();
    fence(&mut rig);
    rig
}

fn store_all(rig: &mut Rig) -> WaiterId {
    let waiter = rig.next_waiter();
    rig.step(|engine, now| engine.store_all(now, waiter));
    waiter
}

/// H-41
#[test]
fn a_fenced_set_sends_nothing_more_and_says_so() {
    let mut rig = with_bounds(1000, 1 << 40);
    rig.write(1, 0, &[1; 900]);
    let waiting = rig.write(1, 900, &[1; 900]);
    let flush = rig.flush();
    fence(&mut rig);
    assert_eq!(rig.flushed(flush), Err(refusal(900)));
    assert_eq!(rig.done(waiting), Err(refusal(900)));
    let later = rig.write(1, 0, &[1; 10]);
    assert_eq!(rig.done(later), Err(refusal(900)));
    let flush = rig.flush();
    assert_eq!(rig.flushed(flush), Err(refusal(900)));
    rig.advance(Duration::from_secs(100));
    rig.write_back_all();
    assert!(rig.write_backs.is_empty());
    assert_eq!(rig.engine.poll_deadline(), None, "nothing is tried again");
    assert_eq!(rig.read_now(1, 0, 900), [1; 900], "nothing is lost yet");
    assert_eq!(rig.purge(), 900);
}

/// H-41: there is nothing to give up where all is stored, but who flushes hears of it.
#[test]
fn a_fenced_set_ends_by_itself_only_with_nothing_unsaved_and_fails_every_flush() {
    let mut rig = fenced();
    let stopping = store_all(&mut rig);
    assert_eq!(rig.flushed(stopping), Err(refusal(900)));
    let part = rig.flush_range(2, 0, 10);
    assert_eq!(rig.flushed(part), Err(refusal(900)));
    assert_eq!(rig.purge(), 900);
    assert_eq!(rig.clean_events, 1);
    let flush = rig.flush();
    assert_eq!(rig.flushed(flush), Err(refusal(0)));
    let stopping = store_all(&mut rig);
    assert!(rig.flushed(stopping).unwrap().already_clean);
    let write = rig.write(1, 0, &[1; 10]);
    assert_eq!(rig.done(write), Err(refusal(0)), "it stays fenced");
}

/// H-41, H-26: its writers leave the queue for room; its readers, who need only room, keep their places.
#[test]
fn the_writers_of_a_fenced_set_give_their_place_to_others() {
    let mut rig = with_bounds(1000, 40_000);
    rig.write(1, 0, &[1; 900]);
    rig.serves_room = false;
    let writer = rig.write(1, 900, &[1; 900]);
    let reader = rig.read(2, 0, 4096);
    assert!(
        rig.shelf
            .waiting()
            .is_some_and(|(waiter, _)| waiter == writer)
    );
    rig.write_back_all();
    fence(&mut rig);
    assert_eq!(rig.done(writer), Err(refusal(900)));
    assert!(
        rig.shelf
            .waiting()
            .is_some_and(|(waiter, _)| waiter == reader)
    );
    rig.serves_room = true;
    let (waiter, charge) = rig.shelf.serve_first().unwrap();
    rig.step(|engine, now| engine.handle_room(now, waiter, charge));
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), [0; 4096]);
}

/// H-41, S-07: room that was granted just before it is given back.
#[test]
fn room_that_a_refused_writer_was_granted_goes_back() {
    let mut rig = with_bounds(1000, 1 << 40);
    rig.write(1, 0, &[1; 900]);
    let read = rig.read(3, 0, 10);
    let op = rig.only_fetch();
    rig.serves_room = false;
    let writer = rig.write(2, 0, &[1; 900]);
    rig.discard(1, 0, 900);
    let (waiter, charge) = rig.shelf.serve_first().unwrap();
    // The grant is on its way while the fetch ends.
    rig.engine
        .handle_fetch(rig.now, op, Err(BackendError::Fenced));
    rig.fetches.remove(&op);
    rig.take_actions();
    rig.step(|engine, now| engine.handle_room(now, waiter, charge));
    assert!(rig.done(writer).is_err() && rig.read_error(read).advice() == crate::Advice::GiveUp);
    assert_eq!(rig.shelf.used().dirty, 0);
}

/// H-41, F-05
#[test]
fn writebacks_under_way_end_as_they_end_and_the_set_stays_fenced() {
    let mut rig = Rig::new();
    for object in 1..=4 {
        rig.write(object, 0, &[1; 100]);
    }
    rig.write_back_all();
    let ops: Vec<_> = rig.write_backs.keys().copied().collect();
    rig.fail_write(ops[0], BackendError::Fenced);
    rig.end_write(ops[1]);
    assert_eq!(rig.engine.last_error(), Some(&BackendError::Fenced));
    assert_eq!(rig.states(2), [(0, 100, BufferState::Clean)]);
    rig.fail_write(ops[2], BackendError::Unavailable);
    assert_eq!(rig.engine.last_error(), Some(&BackendError::Fenced));
    assert_eq!(rig.states(3), [(0, 100, BufferState::Dirty)]);
    rig.fail_write(ops[3], BackendError::Fenced);
    rig.advance(Duration::from_secs(10));
    rig.write_back_all();
    assert!(rig.engine.is_fenced() && rig.write_backs.is_empty());
    assert_eq!(rig.purge(), 300);
}

/// H-41, H-10
#[test]
fn a_writeback_that_is_never_answered_ends_by_its_time_after_a_fence() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write(2, 0, &[1; 100]);
    rig.write_back_all();
    let ops: Vec<_> = rig.write_backs.keys().copied().collect();
    rig.fail_write(ops[0], BackendError::Fenced);
    let discard = rig.discard(2, 0, 100);
    assert!(!rig.is_answered(discard), "it may still land");
    rig.advance(Duration::from_secs(60));
    assert_eq!(rig.done(discard), Ok(()));
    assert!(rig.engine.is_quiet());
}

/// H-41, F-01: the flusher must not take for granted what a fenced set will never send.
#[test]
fn a_fenced_set_takes_on_no_demand_and_has_nothing_old_to_send() {
    let mut rig = fenced();
    rig.write_back_all();
    assert_eq!(rig.engine.demanded_bytes(), 0);
    assert_eq!(rig.step(|engine, _| engine.oldest_dirty()), None);

    let mut options = RigOptions::default();
    options.limits.writebacks_in_flight = 1;
    let mut rig = Rig::with(options);
    rig.write(1, 0, &[1; 100]);
    rig.write(2, 0, &[1; 100]);
    rig.write_back_all();
    assert!(rig.engine.demanded_bytes() > 0);
    fence(&mut rig);
    assert_eq!(
        rig.engine.demanded_bytes(),
        0,
        "nor does it keep an older one"
    );
}

/// H-41: reads of what is in memory are served; those that miss get what the store says.
#[test]
fn a_fenced_set_is_read_as_far_as_the_store_allows() {
    let mut rig = fenced();
    rig.store_object(2, pattern(2, 0, 100));
    assert_eq!(rig.read_now(1, 100, 800), pattern(1, 100, 800));
    assert_eq!(rig.read_now(2, 0, 100), pattern(2, 0, 100));
    let missed = rig.read(3, 0, 100);
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Err(BackendError::Fenced));
    let expected = CacheError::Read {
        object: name(3),
        range: range(0, 100),
        source: BackendError::Fenced,
    };
    assert_eq!(rig.read_error(missed), expected);
}

/// H-41: the store may say so first to a read.
#[test]
fn a_fence_that_a_read_meets_stops_the_writes() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.read(2, 0, 100);
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Err(BackendError::Fenced));
    rig.write_back_all();
    assert!(rig.write_backs.is_empty());
    let write = rig.write(1, 0, &[1; 10]);
    assert_eq!(rig.done(write), Err(refusal(100)));
    assert_eq!(rig.engine.last_error(), Some(&BackendError::Fenced));
}

/// H-41, W-09
#[test]
fn a_write_that_waits_for_an_older_context_is_answered_by_the_fence() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    let newer = rig.write_request(WriteRequest {
        context: Some(SnapContext::new(2, [2, 1]).unwrap()),
        ..write_of(1, 50, &[2; 100])
    });
    assert!(!rig.is_answered(newer));
    fence(&mut rig);
    assert_eq!(rig.done(newer), Err(refusal(100)));
    assert_eq!(rig.read_now(1, 0, 100), [1; 100]);
}

/// H-41, R-12
#[test]
fn a_read_that_needs_a_first_write_fails_with_the_fence() {
    let mut rig = Rig::new();
    rig.shelf.set_copies_on_write(true);
    rig.store.insert_parent(name(1), pattern(9, 0, 4096));
    rig.read_now(1, 0, 10);
    rig.write(1, 0, &pattern(1, 0, 100));
    let paused = rig.read(1, 50, 100);
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    assert!(
        !rig.is_answered(paused),
        "it waits for the end of the pause"
    );
    rig.write(2, 0, &[1; 10]);
    rig.write_back_all();
    fence(&mut rig);
    assert_eq!(rig.engine.poll_deadline(), None, "no pause is left");
    assert_eq!(rig.read_error(paused), refusal(110));
    let later = rig.read(1, 50, 100);
    assert_eq!(rig.read_error(later), refusal(110));
    assert_eq!(rig.read_now(1, 0, 100), pattern(1, 0, 100));
}

/// H-41, H-36
#[test]
fn a_write_through_is_answered_by_the_fence() {
    let mut rig = Rig::with(RigOptions {
        until_flush: true,
        ..RigOptions::default()
    });
    let through = rig.write(1, 0, &[1; 100]);
    fence(&mut rig);
    assert_eq!(rig.done(through), Err(refusal(100)));
    assert!(rig.write_backs.is_empty());
}

/// H-41, S-03, S-05, S-06: dropping needs no store.
#[test]
fn a_fenced_set_drops_what_it_is_told_to_drop() {
    let mut rig = fenced();
    let (discard, truncate) = (rig.discard(1, 0, 100), rig.truncate(1, 800));
    assert_eq!((rig.done(discard), rig.done(truncate)), (Ok(()), Ok(())));
    assert_eq!(rig.states(1), [(100, 800, BufferState::Dirty)]);
    assert_eq!(rig.purge(), 700);
    assert!(rig.write_backs.is_empty() && rig.fetches.is_empty());
}

/// H-41: what can't become room is known for what it is.
#[test]
fn what_a_fenced_set_can_neither_store_nor_evict_is_stranded() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 900]);
    assert_eq!(rig.engine.stranded(), Charge::default());
    rig.write_back_all();
    fence(&mut rig);
    let stranded = rig.engine.stranded();
    assert_eq!(stranded, rig.shelf.used());
    assert_eq!(stranded.dirty, 900);
    rig.read_now(2, 0, 4096);
    assert_eq!(rig.engine.stranded(), stranded, "clean bytes can go");
    rig.purge();
    assert_eq!(rig.engine.stranded(), Charge::default());
}

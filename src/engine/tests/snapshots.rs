//! Rule W-09: bytes of one snapshot context under a later one.

use super::rig::*;
use crate::engine::{BufferState, WaiterId};
use crate::error::BackendError;
use crate::request::WriteRequest;
use crate::types::SnapContext;

fn context(seq: u64) -> SnapContext {
    SnapContext::new(seq, (1..=seq).rev().collect::<Vec<_>>()).unwrap()
}

fn write_under(rig: &mut Rig, seq: u64, object: u64, offset: u64, bytes: &[u8]) -> WaiterId {
    rig.write_request(WriteRequest {
        context: Some(context(seq)),
        ..write_of(object, offset, bytes)
    })
}

/// The contexts of what was sent, with its ranges.
fn sent(rig: &Rig) -> Vec<(u64, Vec<crate::ByteRange>)> {
    rig.sent
        .iter()
        .map(|write| (write.context.seq, ranges_of(write)))
        .collect()
}

/// W-09, H-23
#[test]
fn older_bytes_beneath_a_write_are_stored_under_their_own_context_first() {
    let mut rig = Rig::new();
    write_under(&mut rig, 1, 1, 0, &pattern(1, 0, 100));
    let newer = write_under(&mut rig, 2, 1, 50, &pattern(2, 50, 100));
    assert!(!rig.is_answered(newer));
    assert_eq!(sent(&rig), [(1, vec![range(0, 100)])]);
    assert_eq!(rig.sent[0].context, context(1));
    assert_eq!(rig.read_now(1, 50, 50), pattern(1, 50, 50));
    rig.end_all_writes();
    assert_eq!(rig.done(newer), Ok(()));
    assert_eq!(rig.store.get(&name(1)).unwrap(), pattern(1, 0, 100));
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(sent(&rig)[1..], [(2, vec![range(50, 100)])]);
}

/// W-09, H-23
#[test]
fn bytes_of_two_contexts_beside_each_other_are_kept_apart_and_go_in_order() {
    let mut options = RigOptions::default();
    options.capabilities.scattered_writes = true;
    let mut rig = Rig::with(options);
    write_under(&mut rig, 2, 1, 100, &[2; 100]);
    write_under(&mut rig, 1, 1, 0, &[1; 100]);
    write_under(&mut rig, 1, 1, 200, &[1; 100]);
    let flush = rig.flush();
    let expected = (1, vec![range(0, 100), range(200, 100)]);
    assert_eq!(sent(&rig), [expected]);
    rig.end_all_writes();
    assert_eq!(sent(&rig)[1..], [(2, vec![range(100, 100)])]);
    assert!(rig.flushed(flush).is_ok());
}

/// W-09, H-23
#[test]
fn bytes_of_a_newer_context_wait_for_older_ones_that_are_on_their_way() {
    let mut rig = Rig::new();
    write_under(&mut rig, 1, 1, 0, &[1; 100]);
    rig.write_back_all();
    write_under(&mut rig, 2, 1, 1000, &[2; 100]);
    rig.write_back_all();
    let flush = rig.flush();
    assert_eq!(sent(&rig), [(1, vec![range(0, 100)])]);
    rig.end_all_writes();
    assert_eq!(sent(&rig)[1..], [(2, vec![range(1000, 100)])]);
    assert!(rig.flushed(flush).is_ok());
}

/// W-09
#[test]
fn the_sets_context_is_that_of_writes_without_one() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 10]);
    rig.step(|engine, _| engine.set_context(context(3)));
    assert!(!rig.door_write(1, 5, &[2; 10]), "older bytes lie beneath");
    rig.write(2, 0, &[1; 10]);
    assert!(rig.door_write(3, 0, &[1; 10]));
    rig.step(|engine, _| engine.set_context(context(2)));
    rig.write(4, 0, &[1; 10]);
    rig.flush();
    rig.end_all_writes();
    let contexts: Vec<u64> = sent(&rig).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(contexts, [0, 3, 3, 3], "it never goes back");
    assert_eq!(rig.sent[2].context, context(3));
}

/// W-09, F-04
#[test]
fn a_write_over_older_bytes_waits_as_long_as_they_fail() {
    let mut rig = Rig::new();
    write_under(&mut rig, 1, 1, 0, &[1; 100]);
    let newer = write_under(&mut rig, 2, 1, 0, &[2; 100]);
    for _ in 0..3 {
        let op = rig.only_write();
        rig.fail_write(op, BackendError::Unavailable);
        assert!(!rig.is_answered(newer));
        rig.advance(std::time::Duration::from_secs(1));
    }
    rig.end_all_writes();
    assert_eq!(rig.done(newer), Ok(()));
}

/// W-09, S-07
#[test]
fn a_write_over_older_bytes_goes_on_when_they_are_dropped() {
    let drops: [fn(&mut Rig); 2] = [
        |rig| {
            rig.discard(1, 0, 100);
        },
        |rig| {
            rig.purge();
        },
    ];
    for drop in drops {
        let mut rig = Rig::new();
        write_under(&mut rig, 1, 1, 0, &[1; 100]);
        rig.write(2, 0, &[9; 10]);
        let newer = write_under(&mut rig, 2, 1, 50, &[2; 100]);
        drop(&mut rig);
        assert_eq!(rig.done(newer), Ok(()));
        assert_eq!(rig.read_now(1, 50, 100), [2; 100]);
        rig.flush();
        rig.end_all_writes();
        assert_eq!(rig.store.get(&name(1)).unwrap()[50..150], [2; 100]);
    }
}

/// W-09, S-03
#[test]
fn a_purge_drops_nothing_of_a_write_that_it_lets_in() {
    let mut rig = Rig::new();
    write_under(&mut rig, 1, 1, 0, &[1; 100]);
    rig.write(2, 0, &[9; 10]);
    let both = WriteRequest {
        extents: vec![extent(1, 0, 100), extent(2, 0, 100)],
        data: bytes::Bytes::from(vec![2; 200]),
        context: Some(context(2)),
        ..WriteRequest::default()
    };
    let newer = rig.write_request(both);
    assert!(!rig.is_answered(newer));
    rig.purge();
    assert_eq!(rig.done(newer), Ok(()));
    assert_eq!(rig.bytes_in(BufferState::Dirty), 200);
}

/// W-09, H-46
#[test]
fn a_write_that_waits_for_older_bytes_gives_its_room_back_when_its_caller_goes() {
    let mut rig = Rig::new();
    write_under(&mut rig, 1, 1, 0, &[1; 100]);
    let newer = write_under(&mut rig, 2, 1, WINDOW - 10, &[2; 20]);
    assert!(rig.is_answered(newer), "nothing older lies there");
    let before = rig.shelf.used();
    let newer = write_under(&mut rig, 3, 1, 0, &[2; 100_000]);
    assert!(!rig.is_answered(newer) && rig.shelf.used().room > before.room);
    rig.cancel(newer);
    assert_eq!(rig.shelf.used(), before);
    rig.end_all_writes();
    rig.write_back_all();
    rig.end_all_writes();
    assert_eq!(rig.read_now(1, 0, 100), [1; 100]);
}

/// W-09
#[test]
fn a_write_that_spans_windows_enters_wholly_or_not_at_all() {
    let mut rig = Rig::new();
    write_under(&mut rig, 1, 1, WINDOW + 50, &[1; 10]);
    let newer = write_under(&mut rig, 2, 1, WINDOW - 100, &[2; 200]);
    assert!(!rig.is_answered(newer));
    assert_eq!(rig.shelf.windows(), 1);
    let expected = [(WINDOW + 50, WINDOW + 60, BufferState::Tx)];
    assert_eq!(rig.states(1), expected);
    rig.end_all_writes();
    assert_eq!(rig.read_now(1, WINDOW - 100, 200), [2; 200]);
}

/// W-09
#[test]
fn a_write_with_an_older_context_never_takes_newer_bytes_back() {
    let mut rig = Rig::new();
    write_under(&mut rig, 2, 1, 0, &[2; 100]);
    write_under(&mut rig, 1, 1, 0, &[1; 100]);
    rig.flush();
    rig.end_all_writes();
    assert_eq!(sent(&rig), [(2, vec![range(0, 100)])]);
    assert_eq!(rig.store.get(&name(1)).unwrap(), [1; 100]);
}

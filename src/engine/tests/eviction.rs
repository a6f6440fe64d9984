//! Rules T-01 and T-02, and the scenarios of trimming.

use super::rig::*;
use crate::engine::window::{EXTENT_OVERHEAD_BYTES, WINDOW_OVERHEAD_BYTES};
use crate::engine::{BufferState, Counter};
use crate::error::BackendError;
use crate::types::Moment;

/// T-01, H-35
#[test]
fn only_what_may_go_goes_and_all_of_it_if_need_be() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 4 * WINDOW));
    rig.read_now(1, 0, 50_000);
    rig.write(1, 10_000, &[1; 100]);
    rig.write_back_all();
    rig.write(1, 20_000, &[2; 100]);
    rig.read(1, 3 * WINDOW, 100);
    let room = rig.shelf.used().room;
    let freed = rig.trim(u64::MAX);
    assert_eq!(i64::try_from(freed).unwrap(), room - rig.shelf.used().room);
    let states: Vec<_> = rig.states(1).iter().map(|(.., state)| *state).collect();
    assert_eq!(
        states,
        [BufferState::Tx, BufferState::Dirty, BufferState::Rx]
    );
    assert_eq!(rig.trim(u64::MAX), 0, "nothing more may go");
    assert_eq!(rig.shelf.counter(Counter::EvictedBytes), 49_800);
}

/// T-01
#[test]
fn no_more_goes_than_is_wanted() {
    let mut rig = Rig::new();
    for object in 0..10 {
        rig.store_object(object, pattern(object, 0, 4096));
        rig.now = rig.now.after(std::time::Duration::from_nanos(1));
        rig.read_now(object, 0, 4096);
    }
    assert_eq!(rig.engine.coldest(), Some(Moment::from_nanos(2)));
    let freed = rig.trim(6500);
    let costs = 4096 + EXTENT_OVERHEAD_BYTES + WINDOW_OVERHEAD_BYTES;
    assert_eq!(freed, 2 * costs);
    assert_eq!(rig.bytes_in(BufferState::Clean), 8 * 4096);
    assert_eq!(rig.engine.coldest(), Some(Moment::from_nanos(4)));
    assert_eq!(rig.trim(0), 0);
}

/// T-01
#[test]
fn bytes_in_use_outlive_those_that_are_not() {
    let mut rig = Rig::new();
    for object in 0..10 {
        rig.store_object(object, pattern(object, 0, 4096));
        rig.read_now(object, 0, 4096);
    }
    rig.read_now(0, 0, 4096);
    assert!(rig.door_read(3, 0, 4096).is_some());
    rig.trim(8 * (4096 + EXTENT_OVERHEAD_BYTES + WINDOW_OVERHEAD_BYTES));
    let left: Vec<_> = (0..10)
        .filter(|object| !rig.states(*object).is_empty())
        .collect();
    assert_eq!(left, [0, 3]);
}

/// T-02
#[test]
fn evicting_bytes_of_a_complete_object_ends_its_completeness() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    rig.end_all_writes();
    rig.trim(u64::MAX);
    assert_eq!(rig.read_now(1, 0, 100), pattern(1, 0, 100));
}

/// T-02, R-08
#[test]
fn evicting_zeros_of_an_absent_object_does_not_forget_its_absence() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    rig.trim(u64::MAX);
    assert_eq!(rig.states(1), []);
    let again = rig.read(1, 0, 10);
    assert!(rig.is_answered(again));
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 1);
}

/// T-01, H-29
#[test]
fn failed_buffers_go_first_and_never_stick() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 4096));
    rig.read_now(1, 0, 4096);
    rig.read(2, 0, 4096);
    let op = rig.only_fetch();
    rig.end_fetch_with(op, Err(BackendError::Unavailable));
    assert_eq!(rig.bytes_in(BufferState::Error), 4096);
    assert!(rig.trim(1) > 0);
    assert_eq!(rig.bytes_in(BufferState::Error), 0);
    assert_eq!(rig.bytes_in(BufferState::Clean), 4096);
    assert_eq!(rig.shelf.objects(), 1);
}

/// T-01, R-04, H-35
#[test]
fn what_a_waiting_read_has_found_stays_until_it_is_answered() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    rig.read_now(1, 0, WINDOW);
    let reader = rig.read(1, 0, WINDOW + 10);
    assert_eq!(rig.trim(u64::MAX), 0);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), pattern(1, 0, WINDOW + 10));
    assert_eq!(rig.shelf.counter(Counter::FetchOps), 2);
    assert!(rig.trim(u64::MAX) > 0);
    assert_eq!(rig.bytes_in(BufferState::Clean), 0);
}

/// T-01
#[test]
fn a_window_number_that_is_used_again_is_not_evicted_for_the_old_one() {
    let mut rig = Rig::new();
    for object in 0..20 {
        rig.store_object(object, pattern(object, 0, 4096));
    }
    for object in 0..10 {
        rig.read_now(object, 0, 4096);
    }
    rig.purge();
    for object in 10..20 {
        rig.read_now(object, 0, 4096);
    }
    rig.trim(1);
    assert!(rig.states(10).is_empty(), "the oldest that there is");
    assert_eq!(rig.bytes_in(BufferState::Clean), 9 * 4096);
}

/// T-01
#[test]
fn bytes_written_over_and_over_leave_no_entries_behind() {
    let mut rig = Rig::new();
    for nth in 0..5000u64 {
        rig.engine_write(nth % 3, 0, &[1; 4096]);
        let waiter = rig.next_waiter();
        rig.engine.flush(rig.now, waiter, None);
        rig.take_actions();
        while let Some(op) = rig.write_backs.keys().next().copied() {
            rig.write_backs.remove(&op);
            rig.engine.handle_write_back(rig.now, op, Ok(()));
            rig.take_actions();
        }
        rig.sent.clear();
    }
    rig.check();
    assert!(rig.engine.eviction_entries() <= 1025);
    rig.trim(u64::MAX);
    assert_eq!(rig.bytes_in(BufferState::Clean), 0);
}

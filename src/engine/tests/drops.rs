//! Rules S-01 to S-07: looking at and dropping what is cached.

use super::rig::*;
use super::shelf::Bounds;
use crate::engine::discard::Holdings;
use crate::engine::{BufferState, Flushed, Layout};
use crate::error::{BackendError, RequestError};
use crate::request::ReadRequest;
use crate::types::{ObjectKey, SnapId, Truncation};

/// S-01
#[test]
fn bytes_are_cached_when_every_one_is_held_in_any_state() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 3 * WINDOW));
    let cached = |rig: &mut Rig, offset, len| {
        let wanted = [extent(1, offset, len)];
        rig.step(|engine, _| engine.is_cached(&wanted, SnapId::HEAD))
    };
    assert!(!cached(&mut rig, 0, 10));
    rig.read_now(1, WINDOW - 100, 200);
    rig.write(1, WINDOW + 100, &[1; 100]);
    rig.read(1, WINDOW + 200, 100);
    assert!(cached(&mut rig, WINDOW - 100, 400));
    assert!(!cached(&mut rig, WINDOW - 101, 400));
    assert!(!cached(&mut rig, WINDOW - 100, 401));
    let elsewhere = [extent(1, WINDOW, 10)];
    assert!(!rig.step(|engine, _| engine.is_cached(&elsewhere, SnapId::snapshot(1))));
}

/// S-02
#[test]
fn a_set_tells_what_it_holds() {
    let mut rig = Rig::new();
    let holdings = |rig: &mut Rig| rig.step(|engine, _| engine.holdings());
    let expected = |is_empty, has_cached, is_dirty_or_committing| Holdings {
        is_empty,
        has_cached,
        is_dirty_or_committing,
    };
    assert_eq!(holdings(&mut rig), expected(true, false, false));
    assert!(rig.door_write(1, 0, &[1; 10]));
    assert_eq!(holdings(&mut rig), expected(false, false, true));
    rig.write_back_all();
    assert_eq!(holdings(&mut rig), expected(false, false, true));
    rig.write(1, 100, &[1; 10]);
    rig.end_all_writes();
    assert_eq!(holdings(&mut rig), expected(false, true, true));
    rig.write_back_all();
    rig.purge();
    assert_eq!(holdings(&mut rig), expected(true, false, true));
    rig.end_all_writes();
    assert_eq!(holdings(&mut rig), expected(true, false, false));
}

/// S-03, H-13
#[test]
fn a_purge_drops_everything_and_what_lands_later_brings_nothing_back() {
    let mut options = RigOptions::default();
    options.limits.writebacks_in_flight = 1;
    let mut rig = Rig::with(options);
    rig.store_object(2, pattern(2, 0, 100));
    rig.read_now(2, 0, 100);
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    rig.write(1, 200, &pattern(1, 200, 50));
    let flush = rig.flush_range(1, 200, 1);
    assert_eq!(rig.purge(), 50, "what is in flight is not lost");
    let ended = Ok(Flushed {
        already_clean: false,
    });
    assert_eq!(rig.flushed(flush), ended);
    assert_eq!((rig.states(1), rig.states(2)), (vec![], vec![]));
    assert_eq!(rig.shelf.objects(), 1, "one has writebacks under way");
    rig.end_all_writes();
    assert_eq!(rig.shelf.objects(), 0);
    assert_eq!(rig.shelf.used(), crate::engine::Charge::default());
    assert_eq!(rig.read_now(1, 0, 100), pattern(1, 0, 100));
}

/// S-03, W-04
#[test]
fn a_write_after_a_purge_waits_for_the_writeback_from_before() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write_back_all();
    let old = rig.only_write();
    rig.purge();
    rig.write(1, 0, &pattern(2, 0, 100));
    let flush = rig.flush();
    assert_eq!(rig.write_backs.len(), 1);
    rig.end_write(old);
    assert!(!rig.is_answered(flush));
    rig.end_all_writes();
    assert!(rig.flushed(flush).is_ok());
    assert_eq!(rig.store.get(&name(1)).unwrap(), pattern(2, 0, 100));
}

/// S-03, H-42
#[test]
fn a_purge_does_not_lose_reads() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    let reader = rig.read(1, WINDOW - 10, 20);
    let ops: Vec<_> = rig.fetches.keys().copied().collect();
    rig.end_fetch(ops[0]);
    rig.purge();
    rig.end_fetch(ops[1]);
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), pattern(1, WINDOW - 10, 20));
}

/// S-04
#[test]
fn a_release_keeps_what_is_not_stored_and_tells_how_much() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 1000));
    rig.read_now(1, 0, 1000);
    rig.read_now(2, 0, 10);
    rig.write(1, 100, &[1; 50]);
    rig.write_back_all();
    rig.write(1, 500, &[2; 70]);
    rig.read(3, 0, 30);
    assert_eq!(rig.release(), 50 + 70 + 30);
    let expected = [(100, 150, BufferState::Tx), (500, 570, BufferState::Dirty)];
    assert_eq!(rig.states(1), expected);
    let known = rig.step(|engine, _| engine.knows(&head(2)));
    assert!(!known, "an object of which nothing is left is closed");
    rig.end_all_writes();
    rig.end_all_fetches();
    assert_eq!(rig.release(), 70);
}

/// S-04
#[test]
fn a_release_forgets_what_was_known_of_objects() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    rig.write(1, 0, &[1; 10]);
    rig.release();
    rig.store_object(1, pattern(1, 0, 100));
    assert_eq!(rig.read_now(1, 50, 10), pattern(1, 50, 10));
}

/// S-04
#[test]
fn a_release_drops_under_a_read_that_waits() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 2 * WINDOW));
    rig.read_now(1, 0, WINDOW);
    let reader = rig.read(1, 0, WINDOW + 10);
    assert_eq!(rig.release(), 10);
    rig.store_object(1, pattern(2, 0, 2 * WINDOW));
    rig.end_all_fetches();
    assert_eq!(rig.bytes(reader), pattern(2, 0, WINDOW + 10));
}

/// S-05
#[test]
fn a_discard_drops_exactly_its_range() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 300));
    rig.read_now(1, 0, 100);
    rig.write(1, 100, &pattern(2, 100, 100));
    let waiter = rig.discard(1, 50, 100);
    assert_eq!(rig.done(waiter), Ok(()));
    let expected = [(0, 50, BufferState::Clean), (150, 200, BufferState::Dirty)];
    assert_eq!(rig.states(1), expected);
    assert_eq!(rig.read_now(1, 150, 50), pattern(2, 150, 50));
    assert_eq!(rig.read_now(1, 100, 50), pattern(1, 100, 50));
}

/// S-05, H-13
#[test]
fn a_discard_is_done_when_older_writebacks_have_landed() {
    for outcome in [Ok(()), Err(BackendError::Unavailable)] {
        let mut rig = Rig::new();
        rig.write(1, 0, &pattern(1, 0, 100));
        rig.write_back_all();
        rig.write(1, 200, &pattern(1, 200, 10));
        rig.write_back_all();
        let op = *rig.write_backs.keys().next().unwrap();
        let waiter = rig.discard(1, 20, 50);
        let elsewhere = rig.discard(1, 120, 50);
        assert!(!rig.is_answered(waiter) && rig.is_answered(elsewhere));
        let reader = rig.read(1, 20, 50);
        assert!(rig.fetches.is_empty(), "nor does a fetch overtake it");
        match outcome {
            Ok(()) => rig.end_write(op),
            Err(error) => rig.fail_write(op, error),
        }
        assert_eq!(rig.done(waiter), Ok(()));
        rig.store.discard(&name(1), 20, 70);
        rig.end_all_fetches();
        assert_eq!(rig.bytes(reader), [0; 50]);
    }
}

/// S-05, H-04
#[test]
fn a_fetch_from_before_a_discard_brings_no_old_bytes_back() {
    let mut rig = Rig::new();
    rig.store_object(1, pattern(1, 0, 100));
    let reader = rig.read(1, 0, 100);
    let op = rig.only_fetch();
    let old = rig.store.read(&rig.fetches[&op]);
    rig.discard(1, 30, 40);
    rig.store.discard(&name(1), 30, 70);
    rig.end_fetch_with(op, old);
    assert!(!rig.is_answered(reader));
    rig.end_all_fetches();
    let mut expected = pattern(1, 0, 100);
    expected[30..70].fill(0);
    assert_eq!(rig.bytes(reader), expected);
    assert_eq!(rig.read_now(1, 0, 100), expected);
}

/// S-05, H-21
#[test]
fn discards_over_holes_and_again_and_again_change_nothing_else() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        let nowhere = rig.discard(7, 0, 10);
        assert!(rig.is_answered(nowhere), "nothing is known of it");
        rig.write(1, 100, &pattern(1, 100, 10));
        for (offset, len) in [(0, 100), (110, 1000), (5 * WINDOW, 1 << 40), (104, 1)] {
            let waiter = rig.discard(1, offset, len);
            assert!(rig.is_answered(waiter));
        }
        assert_eq!(rig.bytes_in(BufferState::Dirty), 9);
        rig.discard(1, 0, crate::OFFSET_BYTES_MAX);
        assert_eq!((rig.shelf.windows(), rig.shelf.objects()), (0, 0));
    }
}

/// S-06
#[test]
fn a_truncation_drops_what_lies_beyond() {
    let mut rig = Rig::new();
    rig.write(1, 0, &pattern(1, 0, 100));
    rig.write(1, 2 * WINDOW, &[1; 10]);
    let waiter = rig.truncate(1, 40);
    assert_eq!(rig.done(waiter), Ok(()));
    assert_eq!(rig.states(1), [(0, 40, BufferState::Dirty)]);
    let unknown = rig.truncate(7, 40);
    assert_eq!(rig.done(unknown), Ok(()));
}

fn layered() -> Rig {
    Rig::with(RigOptions {
        layout: Some(Layout::new(4096, 2, 64 << 10).unwrap()),
        ..RigOptions::default()
    })
}

fn truncate_file(rig: &mut Rig, seq: u64, size_bytes: u64) -> crate::engine::WaiterId {
    let waiter = rig.next_waiter();
    let truncation = Truncation { seq, size_bytes };
    rig.step(|engine, now| engine.truncate_file(now, waiter, truncation))
        .unwrap();
    waiter
}

/// R-17, P-02
#[test]
fn a_truncated_file_reads_as_zeros_past_its_end() {
    let mut rig = layered();
    for object in 0..2 {
        rig.store_object(object, pattern(object, 0, 8192));
        rig.read_now(object, 0, 8192);
    }
    // Unit 0 is on object 0, unit 1 on object 1; 100 bytes of unit 1 stay.
    let waiter = truncate_file(&mut rig, 1, 4096 + 100);
    assert_eq!(rig.done(waiter), Ok(()));
    assert_eq!(rig.states(0), [(0, 4096, BufferState::Clean)]);
    assert_eq!(rig.states(1), [(0, 100, BufferState::Clean)]);
    let mut expected = pattern(1, 0, 100);
    expected.resize(8192, 0);
    assert_eq!(rig.read_now(1, 0, 8192), expected);
    assert_eq!(rig.read_now(0, 4096, 10), [0; 10]);
}

///
#[test]
fn writebacks_carry_the_truncation_and_wait_for_those_that_know_nothing_of_it() {
    let mut rig = layered();
    rig.write(0, 0, &pattern(1, 0, 8192));
    rig.write_back_all();
    let old = rig.only_write();
    let waiter = truncate_file(&mut rig, 1, 100);
    assert!(!rig.is_answered(waiter));
    rig.write(0, 20_000, &pattern(2, 20_000, 10));
    rig.write_back_all();
    assert_eq!(rig.write_backs.len(), 1, "the old one must land first");
    rig.end_write(old);
    assert_eq!(rig.done(waiter), Ok(()));
    rig.write_back_all();
    let op = rig.only_write();
    let expected = Truncation {
        seq: 1,
        size_bytes: 100,
    };
    assert_eq!(rig.write_backs[&op].truncation, expected);
    rig.end_write(op);
    assert_eq!(rig.store.get(&name(0)).unwrap()[100..20_000], [0; 19_900]);
}

/// R-17, H-23
#[test]
fn a_truncation_leaves_what_is_cached_of_snapshots() {
    let mut rig = layered();
    rig.store_object(0, pattern(0, 0, 4096));
    let snap = SnapId::snapshot(7);
    let of_snapshot = || ReadRequest {
        snap,
        ..read_of(0, 0, 4096)
    };
    rig.read_request(of_snapshot(), true);
    rig.end_all_fetches();
    truncate_file(&mut rig, 1, 0);
    let wanted = [extent(0, 0, 4096)];
    assert!(rig.step(|engine, _| engine.is_cached(&wanted, snap)));
    let again = rig.read_request(of_snapshot(), true);
    assert_eq!(rig.bytes(again), pattern(0, 0, 4096));
}

///
#[test]
fn an_older_truncation_is_refused() {
    let mut rig = layered();
    truncate_file(&mut rig, 5, 100);
    let waiter = crate::engine::WaiterId(999);
    let stale = Truncation {
        seq: 5,
        size_bytes: 0,
    };
    let refused = rig.step(|engine, now| engine.truncate_file(now, waiter, stale));
    assert_eq!(
        refused,
        Err(RequestError::StaleTruncation { seq: 5, current: 5 })
    );
    let mut flat = Rig::new();
    let refused = flat.step(|engine, now| engine.truncate_file(now, waiter, stale));
    assert_eq!(refused, Err(RequestError::NoLayout));
}

/// S-07, H-27
#[test]
fn whatever_drops_dirty_bytes_lets_waiting_writers_in() {
    let drops: [fn(&mut Rig); 4] = [
        |rig| {
            rig.discard(1, 0, 5000);
        },
        |rig| {
            rig.purge();
        },
        |rig| {
            rig.truncate(1, 0);
        },
        |rig| {
            truncate_file(rig, 1, 0);
        },
    ];
    for drop in drops {
        let mut rig = Rig::with(RigOptions {
            bounds: Bounds {
                dirty: 6000,
                ..Bounds::default()
            },
            layout: Some(Layout::new(4096, 2, 64 << 10).unwrap()),
            ..RigOptions::default()
        });
        rig.write(1, 0, &[1; 5000]);
        let waiting = rig.write(2, 0, &[2; 5000]);
        assert!(!rig.is_answered(waiting));
        drop(&mut rig);
        assert_eq!(rig.done(waiting), Ok(()));
        assert_eq!(rig.read_now(2, 0, 5000), [2; 5000]);
    }
}

/// H-17
#[test]
fn an_object_is_not_forgotten_under_its_writebacks_nor_its_number_used_for_another() {
    let mut rig = Rig::new();
    rig.write(1, 0, &[1; 100]);
    rig.write_back_all();
    let old = rig.only_write();
    let done = rig.discard(1, 0, 100);
    rig.step(|engine, _| engine.close_idle(u64::MAX));
    for object in 2..6 {
        rig.write(object, 0, &[object as u8; 100]);
    }
    rig.end_write(old);
    assert!(rig.is_answered(done));
    for object in 2..6 {
        assert_eq!(rig.read_now(object, 0, 100), [object as u8; 100]);
    }
    assert!(!rig.step(|engine, _| engine.knows(&head(1))));
    assert_eq!(rig.bytes_in(BufferState::Dirty), 400);
}

/// S-05
#[test]
fn a_drop_looks_only_at_what_it_touches() {
    let mut rig = Rig::new();
    for object in 0..200 {
        rig.engine_write(object, 0, &[1; 10]);
        let waiter = rig.next_waiter();
        rig.engine.flush(rig.now, waiter, None);
        rig.take_actions();
    }
    rig.check();
    let before = rig.shelf.locks();
    let waiter = rig.next_waiter();
    rig.engine.discard(rig.now, waiter, &[extent(7, 5, 1)]);
    assert!(rig.shelf.locks() - before < 20);
    rig.take_actions();
    let key = ObjectKey::Number(7);
    let waiter = rig.next_waiter();
    rig.engine.truncate(rig.now, waiter, (&key, 2));
    assert!(rig.shelf.locks() - before < 40);
    rig.step(|_, _| ());
}

/// S-05, L-06
#[test]
fn an_object_that_only_its_absence_kept_goes_when_that_is_discarded() {
    let mut rig = Rig::new();
    rig.read_now(1, 0, 10);
    rig.trim(u64::MAX);
    assert_eq!(rig.shelf.objects(), 1);
    rig.discard(1, 0, 10);
    assert_eq!(rig.shelf.objects(), 0);
    assert_eq!(rig.step(|engine, _| engine.close_idle(9)), 0);
}

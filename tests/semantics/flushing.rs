//! When dirty bytes are written back, and who hears of it.

use std::time::Duration;

use bytesize::ByteSize;
use cachalot::backend::{OperationKind, StoreCondition};
use cachalot::{BackendError, CacheConfig, CacheError, Flushed, ObjectExtent};

use super::common::{Capture, Rig, config, data, name_of, pass, poll_once, settle, start, touches};

const MIB: u64 = 1 << 20;
const CLEAN: Flushed = Flushed {
    already_clean: true,
};
const STORED: Flushed = Flushed {
    already_clean: false,
};

/// F-01, H-33
#[actix::test]
async fn bytes_are_written_back_when_they_are_old_give_or_take_a_second() {
    let rig = Rig::new(config());
    let set = rig.open("f-01-age").await;
    pass(Duration::from_millis(300)).await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    pass(Duration::from_millis(2000)).await;
    set.write_at(MIB, data(2, 1000)).await.unwrap();
    pass(Duration::from_millis(2900)).await;
    assert_eq!(rig.memory.operations().writes.operations, 0);
    pass(Duration::from_millis(1200)).await;
    assert_eq!(rig.stored("f-01-age", 0, 1000), data(1, 1000));
    assert_eq!(
        set.stats().0.dirty_bytes,
        1000,
        "young bytes went along with the old ones"
    );
    pass(Duration::from_millis(2000)).await;
    assert_eq!(set.stats().0.dirty_bytes, 0);
    rig.close().await;
}

/// F-01, H-33: bytes that are written over again and again are as old as their first write.
#[actix::test]
async fn a_hot_block_is_not_put_off_for_ever() {
    let rig = Rig::new(config());
    let set = rig.open("h-33").await;
    for round in 0..80 {
        set.write_at(0, data(round, 1000)).await.unwrap();
        pass(Duration::from_millis(100)).await;
    }
    let writes = rig.memory.operations().writes.operations;
    assert!((1..=2).contains(&writes), "{writes}");
    rig.close().await;
}

/// F-01, H-33: however much became old at once.
#[actix::test]
async fn the_age_limit_holds_for_much_data_of_one_age() {
    let mib = ByteSize::mib;
    let config = CacheConfig {
        max_bytes: mib(96),
        max_dirty_bytes: mib(64),
        target_dirty_bytes: mib(64),
        ..config()
    };
    let rig = Rig::modest(config);
    let set = rig.open("f-01-much").await;
    for block in 0..40 {
        set.write_at(block * MIB, data(block, 1 << 20))
            .await
            .unwrap();
    }
    pass(Duration::from_millis(6500)).await;
    assert_eq!(set.stats().0.dirty_bytes, 0);
    rig.close().await;
}

/// F-01
#[actix::test]
async fn above_the_target_the_oldest_bytes_of_all_sets_go_until_at_the_target() {
    let rig = Rig::modest(config());
    let (young, old) = (rig.open("f-01-young").await, rig.open("f-01-old").await);
    for block in 0..8 {
        old.write_at(block << 17, data(block, 1 << 16))
            .await
            .unwrap();
    }
    pass(Duration::from_millis(100)).await;
    for block in 0..12 {
        young
            .write_at(block << 17, data(block, 1 << 16))
            .await
            .unwrap();
    }
    settle().await;
    assert_eq!(
        old.stats().0.dirty_bytes,
        256 << 10,
        "the oldest did not go first"
    );
    assert_eq!(
        young.stats().0.dirty_bytes,
        768 << 10,
        "more went than had to"
    );
    rig.close().await;
}

/// F-01, W-08: more than the writer needs, so that the store does not do one thing after the other.
#[actix::test]
async fn while_a_writer_waits_an_eighth_of_the_limit_is_on_its_way_though_the_target_is_the_limit()
{
    let limit = 2 * MIB;
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize(limit),
        target_dirty_bytes: ByteSize(limit),
        ..config()
    });
    let set = rig.open("f-01-eighth").await;
    rig.gate.hold_kind(OperationKind::Write);
    for object in 0..32 {
        let bytes = data(object, 64 << 10);
        set.write_object(object, 0, bytes).await.unwrap();
    }
    settle().await;
    assert_eq!(set.stats().0.dirty_bytes, limit, "at the target");
    let waiting = start({
        let set = set.clone();
        async move { set.write_object(32, 0, data(32, 10)).await }
    });
    settle().await;
    assert!(!waiting.is_finished());
    let held = rig.gate.held();
    let on_its_way: u64 = held
        .iter()
        .filter_map(|held| held.operation.range())
        .map(|range| range.len())
        .sum();
    assert!(
        (limit / 8..limit / 4).contains(&on_its_way),
        "{on_its_way} bytes of {limit} are on their way in {} writes",
        held.len()
    );
    rig.gate.release(held[0].number).unwrap();
    waiting.await.unwrap().unwrap();
    rig.close().await;
}

/// F-04, H-38
#[actix::test]
async fn a_failed_writeback_is_retried_with_growing_delays_that_success_resets() {
    let config = CacheConfig {
        retry_delay_min: Duration::from_millis(100),
        retry_delay_max: Duration::from_secs(2),
        ..config()
    };
    let rig = Rig::new(config);
    let set = rig.open("f-04").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    rig.control.set_condition(StoreCondition::Down);
    let failed = set.flush().await.unwrap_err();
    assert!(
        matches!(
            &failed,
            CacheError::WriteBack {
                source: BackendError::Unavailable,
                ..
            }
        ),
        "{failed:?}"
    );
    let status = set.status().await.unwrap();
    assert_eq!(
        status.last_error.as_deref(),
        Some("the store is unavailable")
    );
    assert!(status.is_dirty_or_committing);
    // After 100, 300, 700, 1500, 3100 ms, then every 2 s.
    for (millis, attempts) in [
        (50, 1),
        (100, 2),
        (200, 3),
        (400, 4),
        (800, 5),
        (1600, 6),
        (6000, 9),
    ] {
        pass(Duration::from_millis(millis)).await;
        assert_eq!(
            rig.control.counts().refused,
            attempts,
            "after {millis} ms more"
        );
    }
    rig.control.set_condition(StoreCondition::Up);
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.stored("f-04", 0, 1000), data(1, 1000));
    assert_eq!(set.status().await.unwrap().last_error, None);

    rig.control
        .fail_next(OperationKind::Write, BackendError::Unavailable);
    set.write_at(0, data(2, 1000)).await.unwrap();
    set.flush().await.unwrap_err();
    pass(Duration::from_millis(110)).await;
    assert_eq!(rig.stored("f-04", 0, 1000), data(2, 1000));
    let warnings = Capture::install().of_set("f-04");
    assert!(
        warnings
            .iter()
            .any(|entry| entry.level == tracing::Level::WARN)
    );
    rig.close().await;
}

/// F-06
#[actix::test]
async fn a_flush_waits_for_what_was_dirty_or_in_flight_when_it_was_called_and_no_more() {
    let rig = Rig::new(config());
    let set = rig.open("f-06").await;
    assert_eq!(set.flush().await, Ok(CLEAN));
    rig.gate.hold_kind(OperationKind::Write);
    set.write_at(0, data(1, 1000)).await.unwrap();
    let first = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    let held = rig.gate.wait_held(1).await;
    // In flight now, and overwritten; a second flush waits for both.
    set.write_at(500, data(2, 1000)).await.unwrap();
    let second = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    settle().await;
    set.write_at(MIB, data(3, 1000)).await.unwrap();
    rig.gate.release(held[0].number).unwrap();
    assert_eq!(first.await.unwrap(), Ok(STORED));
    settle().await;
    assert!(!second.is_finished());
    let held = rig.gate.wait_held(1).await;
    rig.gate.release(held[0].number).unwrap();
    assert_eq!(second.await.unwrap(), Ok(STORED));
    assert_eq!(rig.stored("f-06", 500, 1000), data(2, 1000));
    assert_eq!(
        set.stats().0.dirty_bytes,
        1000,
        "a later write was flushed, too"
    );
    rig.close().await;
}

/// F-06
#[actix::test]
async fn a_flush_of_extents_stores_every_buffer_that_it_touches() {
    let rig = Rig::new(config());
    let set = rig.open("f-06-extents").await;
    set.write_object(0, 0, data(1, 10_000)).await.unwrap();
    set.write_object(1, 0, data(2, 10_000)).await.unwrap();
    set.write_object(0, 2 * MIB, data(3, 10_000)).await.unwrap();
    let extents = vec![ObjectExtent::new(0, 9_999, 1).unwrap()];
    assert_eq!(set.flush_extents(extents.clone()).await, Ok(STORED));
    assert_eq!(set.flush_extents(extents).await, Ok(CLEAN));
    assert_eq!(rig.stored("f-06-extents", 0, 10_000), data(1, 10_000));
    assert!(set.stats().0.dirty_bytes >= 10_000);
    assert_eq!(set.flush_range(4 * MIB + 5, 1).await, Ok(STORED));
    assert_eq!(rig.stored("f-06-extents", 4 << 20, 10_000), data(2, 10_000));
    assert_eq!(set.flush_range(100 * MIB, 1).await, Ok(CLEAN));
    rig.close().await;
}

/// F-06: all sets at once, with the first error.
#[actix::test]
async fn flush_all_joins_the_flushes_of_all_sets() {
    let rig = Rig::new(config());
    let names = ["f-06-a", "f-06-b", "f-06-c"];
    assert_eq!(rig.cache.flush_all().await, Ok(CLEAN));
    rig.gate.hold_kind(OperationKind::Write);
    for name in names {
        rig.open(name)
            .await
            .write_at(0, data(1, 1000))
            .await
            .unwrap();
    }
    let flush = start({
        let cache = rig.cache.clone();
        async move { cache.flush_all().await }
    });
    rig.gate.wait_held(3).await;
    rig.gate.release_where(touches(name_of("f-06-a", 0)));
    rig.gate.release_where(touches(name_of("f-06-c", 0)));
    settle().await;
    assert!(!flush.is_finished());
    rig.gate.open();
    assert_eq!(flush.await.unwrap(), Ok(STORED));
    assert_eq!(rig.cache.flush_all().await, Ok(CLEAN));

    rig.open("f-06-b")
        .await
        .write_at(0, data(2, 1000))
        .await
        .unwrap();
    rig.open("f-06-c")
        .await
        .write_at(0, data(2, 1000))
        .await
        .unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let mut flush = Box::pin(rig.cache.flush_all());
    assert!(poll_once(flush.as_mut()).is_pending());
    rig.gate.wait_held(2).await;
    rig.gate
        .fail_where(touches(name_of("f-06-b", 0)), BackendError::Full);
    rig.gate.open();
    assert!(matches!(flush.await, Err(CacheError::WriteBack { .. })));
    assert_eq!(
        rig.stored("f-06-c", 0, 1000),
        data(2, 1000),
        "one error ended the other flush"
    );
    rig.close().await;
}

/// F-07
#[actix::test]
async fn a_set_tells_once_when_all_of_it_has_become_clean() {
    let rig = Rig::new(config());
    let set = rig.open("f-07").await;
    let mut events = set.clean_events();
    rig.gate.hold_kind(OperationKind::Write);
    set.write_at(0, data(1, 1000)).await.unwrap();
    set.write_at(8 * MIB, data(1, 1000)).await.unwrap();
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    let held = rig.gate.wait_held(2).await;
    rig.gate.release(held[0].number).unwrap();
    settle().await;
    assert!(poll_once(Box::pin(events.next()).as_mut()).is_pending());
    rig.gate.open();
    assert_eq!(events.next().await, Some(()));
    flush.await.unwrap().unwrap();
    settle().await;
    assert!(poll_once(Box::pin(events.next()).as_mut()).is_pending());

    set.write_at(0, data(1, 1000)).await.unwrap();
    set.purge().await.unwrap();
    assert_eq!(events.next().await, Some(()));
    set.write_at(0, data(1, 1000)).await.unwrap();
    set.discard_range(0, 2000).await.unwrap();
    assert_eq!(events.next().await, Some(()));
    set.close().await.unwrap();
    assert_eq!(events.next().await, None);
    rig.close().await;
}

/// H-31, F-01: what one set has to write back does not keep others waiting.
#[actix::test]
async fn a_pass_of_the_flusher_lets_others_have_their_turn() {
    let rig = Rig::modest(CacheConfig {
        max_dirty_age: Duration::ZERO,
        ..config()
    });
    let busy = rig.open("h-31-busy").await;
    let other = rig.open("h-31-other").await;
    for piece in 0..2000u64 {
        busy.write_at(piece * 8192, data(piece, 64)).await.unwrap();
    }
    let start_writes = rig.memory.operations().writes.operations;
    rig.gate.hold_kind(OperationKind::Write);
    pass(Duration::from_millis(1100)).await;
    assert_eq!(other.read_at(0, 10).await.unwrap().len(), 10);
    let begun = rig.held(OperationKind::Write);
    assert!(
        begun > 0 && begun <= 32,
        "{begun} writebacks at once, after {start_writes}"
    );
    rig.close().await;
}

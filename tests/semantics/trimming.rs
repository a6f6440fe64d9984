//! What gives way when room is short.

use std::time::Duration;

use bytesize::ByteSize;
use cachalot::backend::OperationKind;
use cachalot::{CacheConfig, Hints};

use super::common::{Rig, config, data, pass, settle, start};

const MIB: u64 = 1 << 20;

/// T-01: across sets, by the age of what each would give.
#[actix::test]
async fn the_coldest_bytes_of_all_sets_go_first() {
    let rig = Rig::new(config());
    let (old, young) = (rig.open("t-01-old").await, rig.open("t-01-young").await);
    for set in [&old, &young] {
        set.write_at(0, data(1, 1 << 20)).await.unwrap();
        set.flush().await.unwrap();
        pass(Duration::from_millis(10)).await;
    }
    let writer = rig.open("t-01-writer").await;
    for block in 0..7u64 {
        let block_bytes = data(block, 256 << 10);
        writer.write_at(block << 18, block_bytes).await.unwrap();
        writer.flush().await.unwrap();
    }
    settle().await;
    let held = |set: &cachalot::ObjectSet| set.stats().0.clean_bytes;
    assert!(held(&old) < MIB, "the oldest stayed");
    assert_eq!(held(&young), MIB, "the youngest went");
    rig.audit(&[&old, &young, &writer]).await;
    rig.close().await;
}

/// T-01, R-16: whether the hit lies in one window or in several.
#[actix::test]
async fn what_is_not_needed_goes_before_what_is_older() {
    for (name, piece) in [("t-01-hints", MIB), ("t-01-small-hints", 256 << 10)] {
        let rig = Rig::new(config());
        let set = rig.open(name).await;
        // Objects that exist, so that bytes are fetched and not known as zeros.
        for offset in [0, MIB, 2 * MIB] {
            set.write_at(offset, data(offset, 1 << 20)).await.unwrap();
            set.flush().await.unwrap();
        }
        let hints = Hints {
            dont_need: true,
            ..Hints::default()
        };
        for nth in 0..MIB / piece {
            let offset = 2 * MIB + nth * piece;
            set.read_at_with(offset, piece, hints).await.unwrap();
        }
        set.write_at(3 * MIB, data(1, 900 << 10)).await.unwrap();
        set.flush().await.unwrap();
        settle().await;
        assert!(!set.is_cached_at(2 * MIB, MIB).await.unwrap());
        assert!(set.is_cached_at(0, 2 * MIB).await.unwrap());
        rig.close().await;
    }
}

/// T-01, H-30
#[actix::test]
async fn few_objects_that_hold_nothing_are_remembered_where_few_may_be() {
    let config = CacheConfig {
        max_bytes: ByteSize::kib(128),
        max_dirty_bytes: ByteSize::kib(32),
        target_dirty_bytes: ByteSize::kib(16),
        max_objects: 10,
        ..config()
    };
    let rig = Rig::new(config);
    let set = rig.open("h-30").await;
    for object in 0..1000u64 {
        let bytes = set.read_object(object, 0, 10).await.unwrap();
        assert_eq!(bytes.to_vec(), [0; 10]);
        if object % 7 == 0 {
            set.write_object(object, 5, data(object, 10)).await.unwrap();
        }
    }
    set.flush().await.unwrap();
    pass(Duration::from_secs(2)).await;
    let objects = set.dump().await.unwrap().objects;
    let idle = objects.iter().filter(|object| object.buffers.is_empty());
    assert!(idle.count() <= 10);
    assert!(objects.len() < 200, "{}", objects.len());
    for object in (0..1000u64).step_by(7) {
        let bytes = set.read_object(object, 5, 10).await.unwrap().into_bytes();
        assert_eq!(bytes, data(object, 10));
    }
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// H-30, H-29: more dirty objects than there may be objects: nothing can go, and nothing spins.
#[actix::test]
async fn a_trimmer_that_can_free_nothing_rests() {
    let rig = Rig::new(CacheConfig {
        max_objects: 10,
        ..config()
    });
    rig.gate.hold_kind(OperationKind::Write);
    let set = rig.open("h-29").await;
    for object in 0..100u64 {
        set.write_object(object, 0, data(object, 10)).await.unwrap();
    }
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    pass(Duration::from_millis(1500)).await;
    let looks = rig.clock.looks();
    settle().await;
    assert!(
        rig.clock.looks() - looks < 20,
        "the trimmer and the set keep each other awake"
    );
    rig.gate.open();
    flush.await.unwrap().unwrap();
    rig.close().await;
}

/// H-29, H-35: what failed to be fetched goes like anything else, and dirty bytes make way once they are stored.
#[actix::test]
async fn room_comes_from_errors_and_from_dirty_bytes_once_stored() {
    let rig = Rig::new(config());
    let set = rig.open("h-35").await;
    for block in 0..60u64 {
        rig.control
            .fail_next(OperationKind::Read, cachalot::BackendError::Unavailable);
        set.read_at(block << 16, 1 << 16).await.unwrap_err();
    }
    for block in 0..31u64 {
        set.write_at(8 * MIB + (block << 16), data(block, 1 << 16))
            .await
            .unwrap();
    }
    let bytes = set.read_at(16 * MIB, 3 * MIB).await.unwrap();
    assert_eq!(bytes.len() as u64, 3 * MIB);
    for block in 0..31u64 {
        let read = set.read_at(8 * MIB + (block << 16), 1 << 16).await.unwrap();
        assert_eq!(read.into_bytes(), data(block, 1 << 16));
    }
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// A cache of 4 MiB that writes nothing back of its own accord, some time after its start.
async fn lazy(max_dirty_bytes: ByteSize) -> Rig {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes,
        target_dirty_bytes: max_dirty_bytes,
        max_dirty_age: Duration::from_secs(1000),
        ..config()
    });
    pass(Duration::from_secs(2)).await;
    rig
}

/// H-35, R-14: as soon as it is asked for, without a tick or the age limit.
#[actix::test]
async fn a_read_gets_its_room_from_dirty_bytes_where_there_are_no_others() {
    let rig = lazy(ByteSize::kib(3800)).await;
    let set = rig.open("h-35-dirty").await;
    for block in 0..56u64 {
        set.write_at(block << 16, data(block, 1 << 16))
            .await
            .unwrap();
    }
    let read = start({
        let set = set.clone();
        async move { set.read_at(16 * MIB, MIB).await.map(|bytes| bytes.len()) }
    });
    settle().await;
    assert!(read.is_finished(), "it waits for the age limit");
    assert_eq!(read.await.unwrap(), Ok(1 << 20));
    for block in 0..56u64 {
        let read = set.read_at(block << 16, 1 << 16).await.unwrap();
        assert_eq!(read.into_bytes(), data(block, 1 << 16));
    }
    rig.close().await;
}

/// H-34, W-05: writers who find no room are let in as soon as there is some, though less is dirty than the target.
#[actix::test]
async fn a_writer_gets_its_room_though_less_is_dirty_than_the_target() {
    let rig = lazy(ByteSize::mib(1)).await;
    let set = rig.open("h-34-target").await;
    set.write_at(0, data(1, 900 << 10)).await.unwrap();
    let write = start({
        let set = set.clone();
        async move { set.write_at(8 * MIB, data(2, 400 << 10)).await }
    });
    settle().await;
    assert!(write.is_finished(), "it waits for the age limit");
    write.await.unwrap().unwrap();
    rig.close().await;
}

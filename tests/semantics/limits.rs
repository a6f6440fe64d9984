//! Limits that change while the cache runs.

use std::time::Duration;

use bytesize::ByteSize;
use cachalot::backend::{Capabilities, MemoryBackend, OperationKind};
use cachalot::{CacheConfig, CacheError, ConfigError};

use super::common::{Rig, config, data, pass, settle, start};

const MIB: u64 = 1 << 20;

/// L-01, T-01
#[actix::test]
async fn a_lowered_size_takes_effect_at_once() {
    let rig = Rig::new(config());
    let set = rig.open("l-01-size").await;
    for block in 0..3u64 {
        set.write_at(block * MIB, data(block, 1 << 20))
            .await
            .unwrap();
        set.flush().await.unwrap();
    }
    assert!(rig.cache.stats().charged.room > 3 << 20);
    let smaller = CacheConfig {
        max_bytes: ByteSize::mib(1),
        max_dirty_bytes: ByteSize::kib(512),
        target_dirty_bytes: ByteSize::kib(512),
        ..config()
    };
    rig.cache.set_limits(&smaller).await.unwrap();
    settle().await;
    assert!(
        rig.cache.stats().charged.room <= 1 << 20,
        "{:?}",
        rig.cache.stats()
    );
    assert_eq!(rig.cache.limits().max_bytes, MIB);
    rig.close().await;
}

/// W-05, T-01
#[actix::test]
async fn splitting_all_that_is_held_for_a_store_of_small_writes_stays_within_the_limit() {
    let capabilities = Capabilities {
        write_bytes_max: 4 << 10,
        ..Capabilities::default()
    };
    let memory = MemoryBackend::builder().capabilities(capabilities).build();
    let config = CacheConfig {
        max_dirty_bytes: ByteSize::mib(4),
        target_dirty_bytes: ByteSize::mib(4),
        writebacks_in_flight: 4096,
        ..config()
    };
    let rig = Rig::over(memory, config);
    let set = rig.open("w-05-splits").await;
    rig.gate.hold_kind(OperationKind::Write);
    let writes: Vec<_> = (0..70_u64)
        .map(|block| {
            let set = set.clone();
            start(async move { set.write_at(block << 16, data(block, 64 << 10)).await })
        })
        .collect();
    settle().await;
    assert!(
        writes.iter().any(|write| !write.is_finished()),
        "all is full"
    );
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    settle().await;
    assert!(rig.held(OperationKind::Write) > 900, "all is being stored");
    let charged = rig.cache.stats().charged;
    assert!(charged.room <= 4 << 20, "{charged:?}");
    rig.gate.open();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    flush.await.unwrap().unwrap();
    rig.close().await;
}

/// L-01, W-05
#[actix::test]
async fn a_raised_dirty_limit_lets_waiting_writers_in_at_once() {
    let rig = Rig::new(config());
    let set = rig.open("l-01-dirty").await;
    rig.gate.hold_kind(OperationKind::Write);
    for block in 0..30u64 {
        set.write_at(block << 16, data(block, 60 << 10))
            .await
            .unwrap();
    }
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(16 * MIB, data(1, 500 << 10)).await }
    });
    settle().await;
    assert!(!waiting.is_finished());
    let raised = CacheConfig {
        max_dirty_bytes: ByteSize::mib(3),
        ..config()
    };
    rig.cache.set_limits(&raised).await.unwrap();
    settle().await;
    assert!(waiting.is_finished());
    waiting.await.unwrap().unwrap();
    rig.close().await;
}

/// L-01, F-01, W-08
#[actix::test]
async fn a_lowered_target_and_age_take_effect_at_once() {
    let rig = Rig::new(config());
    let set = rig.open("l-01-target").await;
    set.write_at(0, data(1, 800_000)).await.unwrap();
    pass(Duration::from_millis(1500)).await;
    assert_eq!(set.stats().0.dirty_bytes, 800_000);
    let lowered = CacheConfig {
        target_dirty_bytes: ByteSize(0),
        ..config()
    };
    rig.cache.set_limits(&lowered).await.unwrap();
    settle().await;
    assert_eq!(set.stats().0.dirty_bytes, 0);

    rig.cache.set_limits(&config()).await.unwrap();
    set.write_at(0, data(2, 8000)).await.unwrap();
    pass(Duration::from_millis(500)).await;
    let younger = CacheConfig {
        max_dirty_age: Duration::from_millis(100),
        ..config()
    };
    rig.cache.set_limits(&younger).await.unwrap();
    pass(Duration::from_millis(1100)).await;
    assert_eq!(set.stats().0.dirty_bytes, 0);
    rig.close().await;
}

/// L-01, W-06, H-36: write-through begins and ends with the limit, and only then.
#[actix::test]
async fn a_cache_may_become_write_through_and_back() {
    let rig = Rig::new(config());
    let set = rig.open("l-01-through").await;
    let through = CacheConfig {
        max_dirty_bytes: ByteSize(0),
        target_dirty_bytes: ByteSize(0),
        ..config()
    };
    set.write_at(0, data(1, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.write_at(0, data(2, 1000)).await.unwrap();
    assert_eq!(rig.stored("l-01-through", 0, 1000), data(1, 1000));
    rig.cache.set_limits(&through).await.unwrap();
    set.write_at(2000, data(3, 1000)).await.unwrap();
    assert_eq!(rig.stored("l-01-through", 2000, 1000), data(3, 1000));
    settle().await;
    assert_eq!(
        rig.stored("l-01-through", 0, 1000),
        data(2, 1000),
        "older dirty bytes stayed"
    );
    rig.cache.set_limits(&config()).await.unwrap();
    set.write_at(2000, data(4, 1000)).await.unwrap();
    assert_eq!(rig.stored("l-01-through", 2000, 1000), data(3, 1000));
    rig.close().await;
}

/// L-01
#[actix::test]
async fn a_changed_number_of_objects_writebacks_and_a_timeout_take_effect() {
    let rig = Rig::modest(config());
    let set = rig.open("l-01-rest").await;
    for object in 0..100u64 {
        set.read_object(object, 0, 10).await.unwrap();
    }
    let changed = CacheConfig {
        max_objects: 10,
        writebacks_in_flight: 3,
        backend_timeout: Duration::from_secs(2),
        ..config()
    };
    rig.cache.set_limits(&changed).await.unwrap();
    rig.cache.release_all().await;
    settle().await;
    assert!(rig.cache.stats().objects <= 10);
    rig.gate.hold_kind(OperationKind::Write);
    for object in 0..10u64 {
        set.write_object(object, 0, data(object, 10)).await.unwrap();
    }
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    settle().await;
    assert_eq!(rig.held(OperationKind::Write), 3);
    pass(Duration::from_millis(2100)).await;
    assert!(matches!(
        flush.await.unwrap(),
        Err(CacheError::WriteBack { .. })
    ));
    rig.close().await;
}

/// L-02
#[actix::test]
async fn bad_limits_are_refused_at_start_and_at_change_and_change_nothing() {
    let rig = Rig::new(config());
    let before = rig.cache.limits();
    let bad = [
        CacheConfig {
            max_bytes: ByteSize(0),
            ..config()
        },
        CacheConfig {
            target_dirty_bytes: ByteSize::mib(3),
            ..config()
        },
        CacheConfig {
            max_dirty_bytes: ByteSize::mib(5),
            ..config()
        },
        CacheConfig {
            writebacks_in_flight: 0,
            ..config()
        },
    ];
    for bad in bad {
        let refused = rig.cache.set_limits(&bad).await.unwrap_err();
        assert!(
            matches!(refused, CacheError::InvalidConfig(_)),
            "{refused:?}"
        );
        let refused = cachalot::Cache::builder(rig.memory.clone())
            .config(bad)
            .start();
        assert!(matches!(refused, Err(CacheError::InvalidConfig(_))));
    }
    let threads = CacheConfig {
        arbiters: 2,
        ..config()
    };
    let refused = rig.cache.set_limits(&threads).await.unwrap_err();
    let fixed = CacheError::InvalidConfig(ConfigError::Fixed { field: "arbiters" });
    assert_eq!(refused, fixed);
    assert_eq!(rig.cache.limits(), before);
    rig.close().await;
}

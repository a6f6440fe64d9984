//! The whole at once: callers, actors, store.

use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::MemoryBackend;
use cachalot::{Cache, CacheConfig, SetOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_back_and_reach_the_store() {
    let store = Arc::new(MemoryBackend::new());
    let cache = Cache::builder(store.clone()).start().unwrap();
    let set = cache.open(SetOptions::new("volume")).await.unwrap();
    let data: Vec<u8> = (0..250u8).cycle().take(1_000_000).collect();
    set.write_at(3_900_000, Bytes::from(data.clone()))
        .await
        .unwrap();
    assert_eq!(
        set.read_at(3_900_000, 1_000_000)
            .await
            .unwrap()
            .into_bytes(),
        data
    );
    assert!(!set.flush().await.unwrap().already_clean);
    assert!(set.flush().await.unwrap().already_clean);
    assert_eq!(set.release().await.unwrap(), 0);
    assert!(!set.is_cached_at(3_900_000, 1).await.unwrap());
    assert_eq!(
        set.read_at(3_900_000, 1_000_000)
            .await
            .unwrap()
            .into_bytes(),
        data
    );
    cache.audit().await.unwrap();
    cache.close().await.unwrap();
    let stats = cache.stats();
    assert_eq!(stats.charged, cachalot::Charge::default(), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_cache_takes_more_than_it_holds() {
    let store = Arc::new(MemoryBackend::new());
    let config = CacheConfig {
        max_bytes: ByteSize::mib(8),
        max_dirty_bytes: ByteSize::mib(4),
        target_dirty_bytes: ByteSize::mib(2),
        ..CacheConfig::default()
    };
    let cache = Cache::builder(store.clone())
        .config(config)
        .start()
        .unwrap();
    let set = cache.open(SetOptions::new("volume")).await.unwrap();
    let tags: Vec<u8> = (0..250).cycle().take(2000).collect();
    for (offset, tag) in (0..).step_by(65536).zip(&tags) {
        set.write_at(offset, Bytes::from(vec![*tag; 65536]))
            .await
            .unwrap();
    }
    for (offset, tag) in (0..).step_by(65536).zip(&tags) {
        let bytes = set.read_at(offset, 65536).await.unwrap().into_bytes();
        assert!(bytes.iter().all(|byte| byte == tag), "at {offset}");
    }
    cache.audit().await.unwrap();
    cache.close().await.unwrap();
    assert_eq!(cache.stats().charged, cachalot::Charge::default());
}

/// H-45
#[tokio::test]
async fn dropping_keeps_dirty_bytes_or_says_what_it_lost() {
    let store = Arc::new(MemoryBackend::new());
    let cache = Cache::builder(store).start().unwrap();
    let set = cache.open(SetOptions::new("volume")).await.unwrap();
    set.write_at(0, Bytes::from_static(&[7; 5000]))
        .await
        .unwrap();
    assert_eq!(
        set.release().await.unwrap(),
        5000,
        "a release keeps what is dirty"
    );
    assert_eq!(cache.release_all().await, 5000);
    assert_eq!(set.read_at(0, 5000).await.unwrap(), [7; 5000][..]);
    assert_eq!(
        set.purge().await.unwrap(),
        5000,
        "a purge says what it dropped"
    );
    assert_eq!(set.read_at(0, 5000).await.unwrap(), [0; 5000][..]);
    set.write_at(0, Bytes::from_static(&[8; 100]))
        .await
        .unwrap();
    let lost = cache.abandon().await;
    assert_eq!(lost.dirty_bytes + lost.in_flight_bytes, 100, "{lost:?}");
}

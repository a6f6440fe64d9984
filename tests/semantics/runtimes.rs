//! The same promises on every runtime: tokio, actix, and none.

use std::sync::Arc;

use bytesize::ByteSize;
use cachalot::backend::MemoryBackend;
use cachalot::message::{Flush, GetStatus, IsCached, Prefetch, Read, Release, Write};
use cachalot::{
    Cache, CacheConfig, ObjectExtent, ObjectSet, ReadRequest, SetOptions, SnapId, WriteRequest,
};

use super::common::{assert_nothing_left, audit, data, start_here, stored};

/// Writes, reads back, flushes, drops and reads from the store: what every program does.
async fn use_cache(cache: Cache, memory: &MemoryBackend) {
    let set = cache.open(SetOptions::new("volume")).await.unwrap();
    let bytes = data(1, 1_000_000);
    set.write_at(3_900_000, bytes.clone()).await.unwrap();
    assert_eq!(
        set.read_at(3_900_000, 1_000_000)
            .await
            .unwrap()
            .into_bytes(),
        bytes
    );
    assert!(!set.flush().await.unwrap().already_clean);
    assert!(set.flush().await.unwrap().already_clean);
    assert_eq!(stored(memory, "volume", 3_900_000, 1_000_000), bytes);
    assert_eq!(set.release().await.unwrap(), 0);
    assert!(!set.is_cached_at(3_900_000, 1).await.unwrap());
    assert_eq!(
        set.read_at(3_900_000, 1_000_000)
            .await
            .unwrap()
            .into_bytes(),
        bytes
    );
    audit(&cache, &[&set]).await;
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

fn start(memory: &Arc<MemoryBackend>) -> Cache {
    Cache::builder(memory.clone()).start().unwrap()
}

/// W-01, F-06, S-04
#[test]
fn a_program_without_a_runtime_uses_the_cache() {
    let memory = Arc::new(MemoryBackend::new());
    futures::executor::block_on(use_cache(start(&memory), &memory));
}

/// W-01, F-06, S-04
#[tokio::test]
async fn a_tokio_program_with_one_thread_uses_the_cache() {
    let memory = Arc::new(MemoryBackend::new());
    use_cache(start(&memory), &memory).await;
}

/// W-01, F-06, S-04
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tokio_program_with_many_threads_uses_the_cache() {
    let memory = Arc::new(MemoryBackend::new());
    use_cache(start(&memory), &memory).await;
}

/// W-01, F-06, S-04
#[actix::test]
async fn an_actix_program_uses_the_cache_on_its_own_threads_or_the_caches() {
    let memory = Arc::new(MemoryBackend::new());
    use_cache(start(&memory), &memory).await;
    let memory = Arc::new(MemoryBackend::new());
    let clock = Arc::new(cachalot::SystemClock::new());
    let cache = start_here(memory.clone(), clock, CacheConfig::default());
    use_cache(cache, &memory).await;
}

fn extent(offset: u64, len: u64) -> Vec<ObjectExtent> {
    vec![ObjectExtent::new(0, offset, len).unwrap()]
}

async fn told(set: &ObjectSet, request: ReadRequest) -> Vec<u8> {
    set.addr()
        .unwrap()
        .send(Read(request))
        .await
        .unwrap()
        .unwrap()
        .to_vec()
}

/// W-01, R-15: a message means what the method of its name does.
#[actix::test]
async fn messages_give_what_the_methods_of_a_handle_give() {
    let memory = Arc::new(MemoryBackend::new());
    let set = start(&memory)
        .open(SetOptions::new("volume"))
        .await
        .unwrap();
    let addr = set.addr().unwrap();
    let bytes = data(2, 10_000);
    let write = WriteRequest {
        extents: extent(500, 10_000),
        data: bytes.clone(),
        ..WriteRequest::default()
    };
    addr.send(Write(write.clone())).await.unwrap().unwrap();
    let read = ReadRequest {
        extents: extent(500, 10_000),
        ..ReadRequest::default()
    };
    assert_eq!(told(&set, read.clone()).await, bytes);
    assert_eq!(set.read(read.clone()).await.unwrap().to_vec(), bytes);
    assert!(
        !addr
            .send(Flush::default())
            .await
            .unwrap()
            .unwrap()
            .already_clean
    );
    assert!(set.flush().await.unwrap().already_clean);
    let status = addr.send(GetStatus).await.unwrap().unwrap();
    assert_eq!(status, set.status().await.unwrap());
    assert_eq!(addr.send(Release).await.unwrap().unwrap(), 0);
    let asked = IsCached {
        extents: extent(500, 1),
        snap: SnapId::HEAD,
    };
    assert!(!addr.send(asked.clone()).await.unwrap().unwrap());
    addr.send(Prefetch(read.clone())).await.unwrap().unwrap();
    assert!(addr.send(asked).await.unwrap().unwrap());
    assert_eq!(told(&set, read).await, bytes);

    let nonsense = WriteRequest {
        data: data(1, 9_999),
        ..write
    };
    let refused = addr
        .send(Write(nonsense.clone()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused, set.write(nonsense).await.unwrap_err());
    set.cache().close().await.unwrap();
}

/// W-01, T-01: more goes through a small cache than it can hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_cache_takes_more_than_it_holds() {
    let memory = Arc::new(MemoryBackend::new());
    let config = CacheConfig {
        max_bytes: ByteSize::mib(4),
        max_dirty_bytes: ByteSize::mib(2),
        target_dirty_bytes: ByteSize::mib(1),
        ..CacheConfig::default()
    };
    let cache = Cache::builder(memory.clone())
        .config(config)
        .start()
        .unwrap();
    let set = cache.open(SetOptions::new("volume")).await.unwrap();
    for block in 0..256u64 {
        set.write_at(block << 16, data(block, 1 << 16))
            .await
            .unwrap();
        let charged = cache.stats().charged;
        assert!(
            charged.room <= 4 << 20 && charged.dirty <= 2 << 20,
            "{charged:?}"
        );
    }
    for block in 0..256u64 {
        let bytes = set
            .read_at(block << 16, 1 << 16)
            .await
            .unwrap()
            .into_bytes();
        assert_eq!(bytes, data(block, 1 << 16), "{block}");
    }
    cache.audit().await.unwrap();
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

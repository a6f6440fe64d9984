//! Many sets, many objects: small enough to be quick, large enough that what grows too fast would show.

use std::sync::Arc;

use bytesize::ByteSize;
use cachalot::backend::{Capabilities, MemoryBackend};
use cachalot::{Cache, CacheConfig, SetOptions};
use futures::executor::block_on;
use futures::future::join_all;

use super::common::{assert_nothing_left, data, stored};

/// F-06, L-03, T-01
#[test]
fn a_thousand_sets_are_open_at_once_with_a_little_dirty_data_each() {
    let memory = Arc::new(MemoryBackend::new());
    let cache = Cache::builder(memory.clone()).start().unwrap();
    let names: Vec<String> = (0..1000).map(|number| format!("set-{number}")).collect();
    block_on(join_all(names.iter().map(|name| async {
        let set = cache.open(SetOptions::new(name.as_str())).await.unwrap();
        set.write_at(5000, data(1, 100)).await.unwrap();
    })));
    assert_eq!(cache.stats().sets, 1000);
    assert!(!block_on(cache.flush_all()).unwrap().already_clean);
    for name in &names {
        assert_eq!(stored(&memory, name, 5000, 100), data(1, 100));
        let set = block_on(cache.open(SetOptions::new(name.as_str()))).unwrap();
        block_on(set.write_at(0, data(2, 100))).unwrap();
    }
    block_on(cache.close()).unwrap();
    for name in &names {
        assert_eq!(stored(&memory, name, 0, 100), data(2, 100));
    }
    assert_nothing_left(&cache);
}

/// T-01, H-28, H-30
#[test]
fn more_objects_are_touched_than_may_be_remembered() {
    let memory = Arc::new(MemoryBackend::new());
    let config = CacheConfig {
        max_bytes: ByteSize::mib(1),
        max_dirty_bytes: ByteSize::kib(512),
        target_dirty_bytes: ByteSize::kib(256),
        max_objects: 100,
        ..CacheConfig::default()
    };
    let cache = Cache::builder(memory.clone())
        .config(config)
        .start()
        .unwrap();
    let set = block_on(cache.open(SetOptions::new("many"))).unwrap();
    let mut most = 0;
    for object in 0..20_000u64 {
        if object % 4 == 0 {
            block_on(set.write_object(object, 0, data(object, 10))).unwrap();
        } else {
            let absent = block_on(set.read_object(object, 0, 10)).unwrap();
            assert_eq!(absent.to_vec(), [0; 10]);
        }
        most = most.max(cache.stats().objects);
    }
    assert!(most < 3_000, "{most}");
    block_on(set.flush()).unwrap();
    for object in (0..20_000u64).step_by(400) {
        let found = block_on(set.read_object(object, 0, 10)).unwrap();
        assert_eq!(found.into_bytes(), data(object, 10));
    }
    block_on(cache.audit()).unwrap();
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

/// H-28, B-06, F-02, W-05: bytes one by one, side by side and apart, to a store that takes three at a time.
#[test]
fn tiny_writes_stay_within_the_limits_and_reach_a_store_that_takes_few_pieces() {
    let capabilities = Capabilities {
        scattered_writes: true,
        write_pieces_max: 3,
        write_bytes_max: 4096,
        ..Capabilities::default()
    };
    let memory = MemoryBackend::builder().capabilities(capabilities).build();
    let memory = Arc::new(memory);
    let config = CacheConfig {
        max_bytes: ByteSize::mib(1),
        max_dirty_bytes: ByteSize::kib(512),
        target_dirty_bytes: ByteSize::kib(512),
        ..CacheConfig::default()
    };
    let cache = Cache::builder(memory.clone())
        .config(config)
        .start()
        .unwrap();
    let set = block_on(cache.open(SetOptions::new("tiny"))).unwrap();
    let byte = |at: u64| (at % 251) as u8 + 1;
    for at in 0..6_000 {
        block_on(set.write_at(at, vec![byte(at)].into())).unwrap();
    }
    let gauges = set.stats().0;
    assert_eq!(gauges.dirty_bytes, 6_000);
    assert!(gauges.dirty_buffers < 12, "{gauges:?}");
    let scattered = |nth: u64| 100_000 + nth * 2 * 7919 % 40_000;
    for nth in 0..6_000 {
        let at = scattered(nth);
        block_on(set.write_at(at, vec![byte(at)].into())).unwrap();
        if nth % 100 == 0 {
            let charged = cache.stats().charged;
            assert!(
                charged.room <= 1 << 20 && charged.dirty <= 512 << 10,
                "{charged:?}"
            );
        }
    }
    block_on(set.flush()).unwrap();
    assert!(
        stored(&memory, "tiny", 0, 6_000)
            .into_iter()
            .eq((0..6_000).map(byte))
    );
    let found = stored(&memory, "tiny", 100_000, 40_000);
    for at in (0..6_000).map(scattered) {
        assert_eq!(found[at as usize - 100_000], byte(at), "at {at}");
    }
    block_on(cache.audit()).unwrap();
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

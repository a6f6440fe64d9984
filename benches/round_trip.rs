//! What a caller pays: hits and absorbed writes through the door, misses and flushes through the actor.
//!
//! An id names the operation, its size, and what the cache was filled with, such as `hit/4KiB/of_64KiB`.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that can't run has nothing to report"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::MemoryBackend;
use cachalot::{Cache, CacheConfig, ObjectSet, SetOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;

const BLOCK: u64 = 4 << 10;

/// A cache that writes back only when told to.
fn cache() -> Cache {
    let config = CacheConfig {
        max_bytes: ByteSize::gib(1),
        max_dirty_bytes: ByteSize::mib(600),
        target_dirty_bytes: ByteSize::mib(600),
        max_dirty_age: Duration::from_secs(3600),
        ..CacheConfig::default()
    };
    Cache::builder(Arc::new(MemoryBackend::new()))
        .config(config)
        .start()
        .expect("the cache starts")
}

fn filled(cache: &Cache, name: &str, file_bytes: u64, write_bytes: u64) -> ObjectSet {
    let set = block_on(cache.open(SetOptions::new(name))).expect("the set opens");
    let data = Bytes::from(vec![
        7;
        usize::try_from(write_bytes).expect("writes are small")
    ]);
    for offset in (0..file_bytes).step_by(data.len()) {
        block_on(set.write_at(offset, data.clone())).expect("the write enters");
    }
    set
}

/// Numbers that repeat only after 2^64 (the step of `SplitMix64`, Steele et al., OOPSLA 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

fn door(c: &mut Criterion) {
    let cache = cache();
    let fills = [
        ("hot_of_4KiB", 4 << 20, 4 << 10),
        ("warm_of_4KiB", 256 << 20, 4 << 10),
        ("warm_of_64KiB", 256 << 20, 64 << 10),
        ("hot_of_512B", 4 << 20, 512),
    ];
    for (name, file_bytes, write_bytes) in fills {
        let set = filled(&cache, name, file_bytes, write_bytes);
        let mut state = 1;
        let mut hit = c.benchmark_group("hit/4KiB");
        hit.throughput(Throughput::Bytes(BLOCK));
        hit.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let offset = next(&mut state) % (file_bytes / BLOCK) * BLOCK;
                black_box(block_on(set.read_at(offset, BLOCK)).expect("the block is there"))
            });
        });
        hit.finish();
        let data = Bytes::from(vec![9; 4 << 10]);
        let mut absorb = c.benchmark_group("absorb/4KiB");
        absorb.throughput(Throughput::Bytes(BLOCK));
        absorb.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                let offset = next(&mut state) % (file_bytes / BLOCK) * BLOCK;
                block_on(set.write_at(offset, data.clone())).expect("the write enters");
            });
        });
        absorb.finish();
        block_on(set.purge()).expect("the set is purged");
        block_on(set.close()).expect("the set closes");
    }
    block_on(cache.close()).expect("the cache closes");
}

fn actor(c: &mut Criterion) {
    let cache = cache();
    let set = filled(&cache, "actor", 64 << 20, 1 << 20);
    block_on(set.flush()).expect("the set is stored");
    let mut state = 1;
    let mut miss = c.benchmark_group("miss/64KiB");
    miss.throughput(Throughput::Bytes(64 << 10));
    miss.bench_function("memory_store", |b| {
        b.iter(|| {
            let offset = next(&mut state) % 1024 * (64 << 10);
            block_on(set.release()).expect("clean bytes go");
            black_box(block_on(set.read_at(offset, 64 << 10)).expect("the block is fetched"))
        });
    });
    miss.finish();
    let data = Bytes::from(vec![9; 1 << 20]);
    let mut flush = c.benchmark_group("write_and_flush/1MiB");
    flush.throughput(Throughput::Bytes(1 << 20));
    flush.bench_function("memory_store", |b| {
        b.iter(|| {
            let offset = next(&mut state) % 64 * (1 << 20);
            block_on(set.write_at(offset, data.clone())).expect("the write enters");
            block_on(set.flush()).expect("it is stored");
        });
    });
    flush.finish();
    block_on(cache.close()).expect("the cache closes");
}

criterion_group!(round_trip, door, actor);
criterion_main!(round_trip);

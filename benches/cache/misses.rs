//! Reads that ask the store, which answers at once: what is left is the cache's own way there and back.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use futures::executor::block_on;
use futures::future::try_join_all;

use crate::rig::{KIB, MIB, Rig, on_two_threads};

/// So much is cached at most, that nothing read before is left when offsets begin anew.
const CACHE: u64 = 32 * MIB;
const IN_FLIGHT: u64 = 32;

pub(crate) fn misses(c: &mut Criterion) {
    for (size, block) in [("4KiB", 4 * KIB), ("64KiB", 64 * KIB)] {
        let mut group = c.benchmark_group(format!("actor/miss/{size}"));
        for (sets, suffix) in [(1, ""), (10, "_10_sets")] {
            let rig = Rig::small(CACHE, sets);
            // Offsets only grow, so nothing is ever read twice.
            let at = std::sync::atomic::AtomicU64::new(0);
            let read = || {
                let number = at.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let nth = usize::try_from(number).unwrap_or(0) % sets;
                let set = rig.sets.get(nth).expect("there is a set");
                set.read_at(number / sets as u64 * block, block)
            };
            let one = |_: &mut u64| {
                black_box(block_on(read()).expect("the block is fetched"));
            };
            group.throughput(Throughput::Bytes(block));
            group.bench_function(format!("alone{suffix}"), |b| b.iter(|| one(&mut 0)));
            group.throughput(Throughput::Bytes(2 * block));
            group.bench_function(format!("alone{suffix}/2_threads"), |b| {
                b.iter_custom(|times| on_two_threads(times, one));
            });
            group.throughput(Throughput::Bytes(IN_FLIGHT * block));
            group.bench_function(format!("32_at_once{suffix}"), |b| {
                b.iter(|| {
                    let reads = try_join_all((0..IN_FLIGHT).map(|_| read()));
                    black_box(block_on(reads).expect("the blocks are fetched"))
                });
            });
        }
        group.finish();
    }
}

//! Reads that are answered from memory.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use futures::executor::block_on;

use crate::rig::{HOT, KIB, MIB, Rig, WARM, on_two_threads};

const BLOCK: u64 = 4 * KIB;

/// The name, how many bytes there are, in which pieces they came, and over how many sets.
const PLACES: [(&str, u64, u64, usize); 7] = [
    ("hot", HOT, 4 * MIB, 1),
    ("warm", WARM, 4 * MIB, 1),
    ("hot_of_4KiB", HOT, 4 * KIB, 1),
    ("warm_of_4KiB", WARM, 4 * KIB, 1),
    ("hot_of_512B", HOT, 512, 1),
    ("warm_of_512B", WARM, 512, 1),
    ("warm_10_sets", 10 * 24 * MIB, 4 * MIB, 10),
];

pub(crate) fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("door/hit/4KiB");
    for (name, bytes, piece, sets) in PLACES {
        let rig = Rig::roomy(sets);
        rig.fill(bytes, piece);
        block_on(rig.cache.flush_all()).expect("it is stored");
        let hit = |state: &mut u64| {
            let (set, offset) = rig.pick(state, bytes, BLOCK);
            black_box(block_on(set.read_at(offset, BLOCK)).expect("the block is there"));
        };
        group.throughput(Throughput::Bytes(BLOCK));
        let mut state = 1;
        group.bench_function(name, |b| b.iter(|| hit(&mut state)));
        group.throughput(Throughput::Bytes(2 * BLOCK));
        group.bench_function(format!("{name}/2_threads"), |b| {
            b.iter_custom(|times| on_two_threads(times, hit));
        });
    }
    group.finish();

    let rig = Rig::roomy(1);
    rig.fill(WARM, 4 * KIB);
    let mut group = c.benchmark_group("door/hit/1MiB");
    group.throughput(Throughput::Bytes(MIB));
    let mut state = 1;
    group.bench_function("warm_of_4KiB", |b| {
        b.iter(|| {
            let (set, offset) = rig.pick(&mut state, WARM, MIB);
            black_box(block_on(set.read_at(offset, MIB)).expect("the bytes are there"))
        });
    });
    group.finish();
}

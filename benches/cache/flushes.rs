//! Flushes, and the writebacks that are built for them.

use criterion::{BatchSize, Criterion, Throughput};
use futures::executor::block_on;

use crate::rig::{KIB, MIB, Rig, data};

/// The name, the size of each write, and how far one starts behind the other.
const WRITES: [(&str, u64, u64); 4] = [
    ("1MiB_of_1MiB", MIB, MIB),
    ("1MiB_of_4KiB", 4 * KIB, 4 * KIB),
    ("1MiB_of_4KiB_apart", 4 * KIB, 12 * KIB),
    ("1MiB_of_512B", 512, 512),
];

pub(crate) fn flushes(c: &mut Criterion) {
    let mut group = c.benchmark_group("actor/flush");
    let rig = Rig::roomy(10);
    group.bench_function("nothing", |b| {
        b.iter(|| block_on(rig.set().flush()).expect("nothing fails"));
    });
    for (name, piece, step) in WRITES {
        group.throughput(Throughput::Bytes(MIB));
        let block = data(piece);
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    for number in 0..MIB / piece {
                        let write = rig.set().write_at(number * step, block.clone());
                        block_on(write).expect("the write enters");
                    }
                },
                |()| block_on(rig.set().flush()).expect("it is stored"),
                BatchSize::PerIteration,
            );
        });
    }
    let block = data(4 * KIB);
    group.throughput(Throughput::Bytes(10 * MIB));
    group.bench_function("10MiB_of_4KiB_10_sets", |b| {
        b.iter_batched(
            || rig.fill(10 * MIB, block.len() as u64),
            |()| block_on(rig.cache.flush_all()).expect("it is stored"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

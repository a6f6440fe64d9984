//! Making room: what goes when the cache is full, and when it is told to drop what it holds.

use criterion::{BatchSize, Criterion, Throughput};
use futures::executor::block_on;

use crate::rig::{KIB, MIB, Rig, data};

pub(crate) fn eviction(c: &mut Criterion) {
    let mut group = c.benchmark_group("actor/evict");
    for (name, block) in [("1MiB_by_4KiB", 4 * KIB), ("1MiB_by_64KiB", 64 * KIB)] {
        let (rig, block_data) = (Rig::small(16 * MIB, 1), data(block));
        let mut at = 0;
        group.throughput(Throughput::Bytes(MIB));
        // Each write needs the room of one before it, which is first written back and then evicted.
        group.bench_function(format!("writes_{name}"), |b| {
            b.iter(|| {
                for _ in 0..MIB / block {
                    let write = rig.set().write_at(at, block_data.clone());
                    block_on(write).expect("the write enters");
                    at += block;
                }
            });
        });
        let rig = Rig::roomy(1);
        for (what, drops_clean) in [("release", true), ("purge", false)] {
            group.bench_function(format!("{what}_{name}"), |b| {
                b.iter_batched(
                    || {
                        rig.fill(MIB, block);
                        if drops_clean {
                            block_on(rig.set().flush()).expect("it is stored");
                        }
                    },
                    |()| {
                        let set = rig.set();
                        if drops_clean {
                            block_on(set.release()).expect("clean bytes go")
                        } else {
                            block_on(set.purge()).expect("all bytes go")
                        }
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

//! Writes for which there is room: they enter in the caller's thread.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use futures::executor::block_on;

use crate::rig::{HOT, KIB, MIB, Rig, WARM, data, on_two_threads};

/// The name, how many bytes there are, in which pieces they came, and over how many sets.
const PLACES: [(&str, u64, u64, usize); 4] = [
    ("hot", HOT, 4 * KIB, 1),
    ("warm", WARM, 4 * KIB, 1),
    ("warm_of_512B", WARM, 512, 1),
    ("warm_10_sets", 10 * 24 * MIB, 4 * KIB, 10),
];
/// What a run of appends fills before it begins anew.
const APPENDED: u64 = 16 * MIB;

pub(crate) fn writes(c: &mut Criterion) {
    for (size, block) in [("4KiB", 4 * KIB), ("512B", 512)] {
        let mut group = c.benchmark_group(format!("door/absorb/{size}"));
        for (name, bytes, piece, sets) in PLACES {
            let rig = Rig::roomy(sets);
            rig.fill(bytes, piece);
            let data = data(block);
            let absorb = |state: &mut u64| {
                let (set, offset) = rig.pick(state, bytes, block);
                block_on(set.write_at(offset, data.clone())).expect("the write enters");
            };
            group.throughput(Throughput::Bytes(block));
            let mut state = 1;
            group.bench_function(name, |b| b.iter(|| absorb(&mut state)));
            group.throughput(Throughput::Bytes(2 * block));
            group.bench_function(format!("{name}/2_threads"), |b| {
                b.iter_custom(|times| on_two_threads(times, absorb));
            });
        }
        group.finish();
    }
    appends(c);
}

/// Writes to where nothing was, one behind the other, 256 KiB of them at a time.
fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("door/append");
    let run = 256 * KIB;
    group.throughput(Throughput::Bytes(run));
    for (name, block) in [("256KiB_by_128B", 128), ("256KiB_by_4KiB", 4 * KIB)] {
        let rig = Rig::roomy(1);
        let block_data: Bytes = data(block);
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    at += run;
                    if at >= APPENDED {
                        block_on(rig.set().purge()).expect("the set is emptied");
                        at = 0;
                    }
                    at
                },
                |at| {
                    for offset in (at..at + run).step_by(block_data.len()) {
                        let write = rig.set().write_at(offset, block_data.clone());
                        block_on(write).expect("the write enters");
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

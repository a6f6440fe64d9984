//! The protocol between door, dirty list and flush, on real threads: no acknowledged write is missed by a flush that
//! starts after it.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::{Backend, BackendRead, JournalNotice, MemoryBackend};
use cachalot::{
    ByteRange, Cache, CacheConfig, Hints, JournalTid, Layout, ObjectExtent, ObjectSet, SetOptions,
    SnapContext, SnapId, Truncation, WriteRequest,
};
use futures::executor::block_on;

use super::common::{assert_nothing_left, config, name_of};

const WRITERS: u64 = 2;
const SLOTS: u64 = 6;
const ROUNDS: u64 = 2_000;

/// Where a writer keeps the versions of a slot: slots lie in windows of their own, and of different objects.
fn offset_of(writer: u64, slot: u64) -> u64 {
    (slot << 20) + (writer << 12)
}

/// The version of a slot in the store.
fn stored_version(memory: &MemoryBackend, writer: u64, slot: u64) -> u64 {
    let offset = offset_of(writer, slot);
    let read = BackendRead {
        object: name_of("door", offset >> 22),
        snap: SnapId::HEAD,
        range: ByteRange::new(offset % (4 << 20), 8).unwrap(),
        hints: Hints::default(),
        truncation: Truncation::default(),
    };
    let bytes = block_on(memory.read(read)).unwrap_or_default();
    let mut version = [0; 8];
    version[..bytes.len()].copy_from_slice(&bytes);
    u64::from_le_bytes(version)
}

fn write_version(set: &ObjectSet, writer: u64, slot: u64, version: u64) {
    let bytes = Bytes::copy_from_slice(&version.to_le_bytes());
    block_on(set.write_at(offset_of(writer, slot), bytes)).unwrap();
}

fn start(max_dirty_age: Duration) -> (Arc<MemoryBackend>, Cache, ObjectSet) {
    let memory = Arc::new(MemoryBackend::new());
    let config = CacheConfig {
        max_dirty_age,
        arbiters: 1,
        ..config()
    };
    let cache = Cache::builder(memory.clone())
        .config(config)
        .start()
        .unwrap();
    let set = block_on(cache.open(SetOptions::new("door"))).unwrap();
    (memory, cache, set)
}

/// F-06, W-01
#[test]
fn a_flush_stores_whatever_its_caller_had_written() {
    let (memory, cache, set) = start(Duration::ZERO);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (set, memory) = (&set, &memory);
            scope.spawn(move || {
                for version in 1..=ROUNDS {
                    let slot = version % SLOTS;
                    write_version(set, writer, slot, version);
                    if version % 2 == 0 {
                        block_on(set.flush()).unwrap();
                    } else {
                        block_on(set.flush_range(offset_of(writer, slot), 8)).unwrap();
                    }
                    assert_eq!(stored_version(memory, writer, slot), version);
                }
            });
        }
    });
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

/// F-06, W-01
#[test]
fn a_flush_stores_whatever_others_had_acknowledged_before_it() {
    let (memory, cache, set) = start(Duration::from_secs(5));
    let acknowledged: Vec<AtomicU64> = (0..WRITERS * SLOTS).map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (set, acknowledged, is_over) = (&set, &acknowledged, &is_over);
            scope.spawn(move || {
                let mut version = 0;
                while !is_over.load(Ordering::Relaxed) {
                    version += 1;
                    let slot = version % SLOTS;
                    write_version(set, writer, slot, version);
                    let place = usize::try_from(writer * SLOTS + slot).unwrap();
                    acknowledged[place].store(version, Ordering::Release);
                }
            });
        }
        for round in 0..ROUNDS {
            let known: Vec<u64> = acknowledged
                .iter()
                .map(|version| version.load(Ordering::Acquire))
                .collect();
            block_on(set.flush()).unwrap();
            for (place, known) in known.into_iter().enumerate() {
                let (writer, slot) = (place as u64 / SLOTS, place as u64 % SLOTS);
                let stored = stored_version(&memory, writer, slot);
                if stored < known {
                    is_over.store(true, Ordering::Relaxed);
                    panic!("round {round}: {known} was acknowledged, {stored} is stored");
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

/// J-02, H-14
#[test]
fn a_write_at_the_door_tells_the_journal_what_it_covers() {
    let (memory, cache, set) = start(Duration::from_secs(5));
    let old = JournalTid(7.try_into().unwrap());
    let journaled = WriteRequest {
        extents: vec![ObjectExtent::new(0, 0, 100).unwrap()],
        data: Bytes::from_static(&[1; 100]),
        journal_tid: Some(old),
        ..WriteRequest::default()
    };
    block_on(set.write(journaled)).unwrap();
    block_on(set.write_object(0, 40, Bytes::from_static(&[2; 20]))).unwrap();
    let overwritten = JournalNotice::Overwritten {
        object: name_of("door", 0),
        range: ByteRange::new(40, 20).unwrap(),
        old,
        new: None,
    };
    assert_eq!(memory.journal_notices(), [overwritten]);
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

/// W-09, H-23
#[test]
fn a_write_at_the_door_lets_bytes_of_an_older_context_be_stored_first() {
    let (memory, cache, set) = start(Duration::from_secs(5));
    block_on(set.write_object(0, 0, Bytes::from_static(&[1; 100]))).unwrap();
    let context = SnapContext::new(1, [1]).unwrap();
    block_on(set.set_snap_context(context)).unwrap();
    block_on(set.write_object(0, 0, Bytes::from_static(&[2; 100]))).unwrap();
    block_on(set.flush()).unwrap();
    let read = |snap| {
        let read = BackendRead {
            object: name_of("door", 0),
            snap,
            range: ByteRange::new(0, 100).unwrap(),
            hints: Hints::default(),
            truncation: Truncation::default(),
        };
        block_on(memory.read(read)).unwrap()
    };
    assert_eq!(read(SnapId::snapshot(1)), [1; 100].as_slice());
    assert_eq!(read(SnapId::HEAD), [2; 100].as_slice());
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

/// R-01, W-01
#[test]
fn a_hit_over_several_runs_of_an_object_sees_a_write_whole_or_not_at_all() {
    const UNIT: usize = 4096;
    let cache = Cache::builder(Arc::new(MemoryBackend::new()))
        .start()
        .unwrap();
    // The file's first and third unit lie beside each other in one object, the second and fourth in another.
    let layout = Layout::new(UNIT as u64, 2, 1 << 20).unwrap();
    let options = SetOptions::new("wide").prefix("wide").layout(layout);
    let set = block_on(cache.open(options)).unwrap();
    let write = |value: u8| {
        let data = Bytes::from(vec![value; 4 * UNIT]);
        block_on(set.write_at(0, data)).unwrap();
    };
    write(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..100_000_u32 {
                write(round as u8);
            }
            is_over.store(true, Ordering::Release);
        });
        while !is_over.load(Ordering::Acquire) {
            let found = block_on(set.read_at(0, 4 * UNIT as u64)).unwrap().to_vec();
            for (one, other) in [(0, 2), (1, 3)] {
                assert_eq!(found[one * UNIT], found[other * UNIT], "half of a write");
            }
        }
    });
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

//! Sets that write through until their caller first flushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::{MemoryBackend, OperationKind, StoreCondition};
use cachalot::message::{Flush, Write};
use cachalot::{Cache, CacheConfig, CacheError, ObjectExtent, ObjectSet, SetOptions, WriteRequest};
use futures::executor::block_on;

use super::common::{Rig, assert_nothing_left, config, data, settle, start, stored};

fn options(name: &str) -> SetOptions {
    SetOptions::new(name).write_through_until_flush(true)
}

/// H-36, W-06
#[actix::test]
async fn a_guest_that_never_flushes_loses_nothing_that_was_acknowledged() {
    let rig = Rig::new(config());
    let set = rig.cache.open(options("h-36-never")).await.unwrap();
    for block in 0..20usize {
        set.write_at((block as u64) << 20, data(block as u64, 5000))
            .await
            .unwrap();
        let stored = rig.stored("h-36-never", block << 20, 5000);
        assert_eq!(stored, data(block as u64, 5000), "acknowledged and stored");
    }
    let message = Write(WriteRequest {
        extents: vec![ObjectExtent::new(7, 0, 100).unwrap()],
        data: data(7, 100),
        ..WriteRequest::default()
    });
    set.addr().unwrap().send(message).await.unwrap().unwrap();
    assert_eq!(rig.stored("h-36-never", 7 << 22, 100), data(7, 100));
    let status = set.status().await.unwrap();
    assert!(status.is_write_through && !status.is_dirty_or_committing);
    let lost = rig.cache.abandon().await;
    assert_eq!(lost.dirty_bytes, 0);
    assert_nothing_left(&rig.cache);
}

/// H-36: each kind of flush ends it, for its own set and for the writes asked after it.
#[actix::test]
async fn the_first_flush_of_a_caller_ends_it_and_nothing_else_does() {
    let rig = Rig::new(config());
    let names = ["h-36-whole", "h-36-range", "h-36-message", "h-36-all"];
    for (turn, name) in names.into_iter().enumerate() {
        let set = rig.cache.open(options(name)).await.unwrap();
        set.write_at(0, data(1, 1000)).await.unwrap();
        assert_eq!(rig.stored(name, 0, 1000), data(1, 1000));
        set.discard_range(0, 10).await.unwrap();
        set.release().await.unwrap();
        let refused = set.flush_extents(Vec::new()).await;
        assert!(matches!(refused, Err(CacheError::InvalidRequest(_))));
        assert!(set.status().await.unwrap().is_write_through, "{name}");
        match turn {
            0 => set.flush().await.map(drop).unwrap(),
            1 => set.flush_range(9000, 10).await.map(drop).unwrap(),
            2 => {
                let flushed = set.addr().unwrap().send(Flush::default()).await;
                flushed.unwrap().map(drop).unwrap();
            }
            _ => rig.cache.flush_all().await.map(drop).unwrap(),
        }
        assert!(!set.status().await.unwrap().is_write_through);
        set.write_at(0, data(2, 1000)).await.unwrap();
        assert_eq!(set.stats().0.dirty_bytes, 1000, "{name} absorbs writes");
    }
    let other = rig.cache.open(options("h-36-other")).await.unwrap();
    other.write_at(0, data(1, 10)).await.unwrap();
    rig.cache
        .open(SetOptions::new("h-36-whole"))
        .await
        .expect_err("a set is open with the options that it was opened with");
    assert_eq!(rig.stored("h-36-other", 0, 10), data(1, 10));
    rig.close().await;
}

/// H-36: who waits when the flush comes is answered as was promised, who asks after it is absorbed.
#[actix::test]
async fn the_switch_lies_between_what_was_asked_before_the_flush_and_after() {
    let rig = Rig::new(config());
    let set = rig.cache.open(options("h-36-switch")).await.unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let write = |block: u64| {
        let set = set.clone();
        start(async move { set.write_at(block << 22, data(block, 1000)).await })
    };
    let before = write(0);
    settle().await;
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    // Asked in the same turn, behind the flush.
    let after = write(1);
    settle().await;
    assert!(after.is_finished(), "absorbed though the flush still waits");
    assert!(!before.is_finished() && !flush.is_finished());
    rig.control.set_condition(StoreCondition::Full);
    rig.gate.open();
    settle().await;
    let failed = before.await.unwrap();
    assert!(
        matches!(failed, Err(CacheError::WriteBack { .. })),
        "{failed:?}"
    );
    assert!(
        flush.await.unwrap().is_err(),
        "it ends write-through all the same"
    );
    let later = write(2);
    settle().await;
    assert!(later.is_finished());
    rig.control.set_condition(StoreCondition::Up);
    rig.close().await;
}

/// H-36, L-03: closing is not flushing.
#[actix::test]
async fn a_close_that_fails_leaves_the_set_writing_through() {
    let rig = Rig::new(config());
    let set = rig.cache.open(options("h-36-close")).await.unwrap();
    rig.control.set_condition(StoreCondition::Full);
    set.write_at(0, data(1, 1000)).await.unwrap_err();
    set.close().await.unwrap_err();
    assert!(set.status().await.unwrap().is_write_through);
    let failed = set.write_at(5000, data(2, 10)).await;
    assert!(
        matches!(failed, Err(CacheError::WriteBack { .. })),
        "{failed:?}"
    );
    rig.control.set_condition(StoreCondition::Up);
    rig.close().await;
}

const SLOTS: u64 = 4;

fn write_version(set: &ObjectSet, writer: u64, version: u64) {
    let offset = ((version % SLOTS) << 20) + (writer << 12);
    let bytes = Bytes::copy_from_slice(&version.to_le_bytes());
    block_on(set.write_at(offset, bytes)).unwrap();
}

fn stored_version(memory: &MemoryBackend, writer: usize, version: u64) -> u64 {
    let offset = ((version % SLOTS) as usize) << 20;
    let bytes = stored(memory, "h-36-threads", offset + (writer << 12), 8);
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// H-36: on real threads, whatever is acknowledged before anybody asks for a flush is in the store.
#[test]
fn every_write_acknowledged_before_the_switch_is_in_the_store() {
    for round in 0..30u64 {
        let memory = Arc::new(MemoryBackend::new());
        let config = CacheConfig {
            max_dirty_age: Duration::from_secs(1000),
            ..config()
        };
        let cache = Cache::builder(memory.clone())
            .config(config)
            .start()
            .unwrap();
        let set = block_on(cache.open(options("h-36-threads"))).unwrap();
        let (is_asked, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let (set, memory, is_asked, is_over) = (&set, &memory, &is_asked, &is_over);
                scope.spawn(move || {
                    let mut version = 0;
                    while !is_over.load(Ordering::SeqCst) {
                        version += 1;
                        write_version(set, writer, version);
                        if !is_asked.load(Ordering::SeqCst) {
                            let stored = stored_version(memory, writer as usize, version);
                            assert_eq!(stored, version, "round {round}");
                        }
                    }
                });
            }
            for version in 1..=round % 7 {
                write_version(&set, 9, version);
            }
            is_asked.store(true, Ordering::SeqCst);
            block_on(set.flush()).unwrap();
            let before = set.stats().1.write_back_ops;
            for version in 1..=100 {
                write_version(&set, 10, version);
            }
            is_over.store(true, Ordering::SeqCst);
            let sent = set.stats().1.write_back_ops - before;
            assert!(sent < 50, "absorbed after the flush: {sent} writebacks");
        });
        block_on(cache.close()).unwrap();
        assert_nothing_left(&cache);
    }
}

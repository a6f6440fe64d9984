//! Opening, closing, abandoning, dropping.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::{MemoryBackend, OperationKind, StoreCondition};
use cachalot::message::Lost;
use cachalot::{Cache, CacheConfig, CacheError, SetOptions};
use futures::FutureExt;

use super::common::{
    Capture, Rig, assert_nothing_left, config, data, drop_after, pass, poll_once, settle, start,
    stored,
};

const MIB: u64 = 1 << 20;

/// L-03, H-42
#[actix::test]
async fn closing_stores_everything_and_waits_for_all_that_is_under_way() {
    let rig = Rig::new(config());
    let set = rig.open("l-03").await;
    let bytes = data(1, 1_000_000);
    set.write_at(0, bytes.clone()).await.unwrap();
    rig.gate.hold_all();
    let read = start({
        let set = set.clone();
        async move { set.read_at(8 * MIB, 1000).await.map(|bytes| bytes.len()) }
    });
    let prefetch = start({
        let set = set.clone();
        async move { set.prefetch_at(12 * MIB, 1000).await }
    });
    rig.gate.wait_held(2).await;
    let mut reports = Vec::new();
    {
        let mut close = Box::pin(
            rig.cache
                .close_with_progress(|progress| reports.push(progress)),
        );
        assert!(poll_once(close.as_mut()).is_pending());
        let held = rig.gate.wait_held(3).await;
        for held in held
            .iter()
            .filter(|held| held.operation.kind() == OperationKind::Write)
        {
            rig.gate.release(held.number).unwrap();
        }
        settle().await;
        assert!(
            poll_once(close.as_mut()).is_pending(),
            "fetches were left behind"
        );
        rig.gate.release_all();
        close.await.unwrap();
    }
    assert_eq!(
        (reports[0].unstored_bytes, reports[0].open_sets),
        (1_000_000, 1)
    );
    let last = reports.last().unwrap();
    assert_eq!((last.unstored_bytes, last.open_sets), (0, 0));
    assert_eq!(read.await.unwrap(), Ok(1000));
    assert_eq!(prefetch.await.unwrap(), Ok(()));
    assert_eq!(rig.stored("l-03", 0, 1_000_000), bytes);
    assert_nothing_left(&rig.cache);
    let closed = |error| matches!(error, CacheError::Closed { .. });
    assert!(closed(set.write_at(0, data(1, 10)).await.unwrap_err()));
    assert!(closed(set.read_at(0, 10).await.unwrap_err()));
    assert!(closed(set.flush().await.unwrap_err()));
    assert!(closed(
        rig.cache.open(SetOptions::new("l-03")).await.unwrap_err()
    ));
    assert_nothing_left(&rig.cache);
    rig.cache.close().await.unwrap();
}

/// L-03, H-39, H-42
#[actix::test]
async fn what_cannot_be_stored_keeps_its_set_open_until_it_can() {
    let rig = Rig::new(config());
    let (set, well) = (rig.open("l-03-failing").await, rig.open("l-03-well").await);
    set.write_at(0, data(1, 1000)).await.unwrap();
    well.write_at(0, data(2, 1000)).await.unwrap();
    well.flush().await.unwrap();
    rig.control.set_condition(StoreCondition::ReadOnly);
    let failed = rig.cache.close().await.unwrap_err();
    assert!(matches!(failed, CacheError::WriteBack { .. }), "{failed:?}");
    assert_eq!(
        set.read_at(0, 1000).await.unwrap().into_bytes(),
        data(1, 1000)
    );
    set.write_at(500, data(3, 10)).await.unwrap();
    let set = rig.open("l-03-failing").await;
    assert_eq!(
        set.read_at(500, 10).await.unwrap().into_bytes(),
        data(3, 10)
    );
    assert!(set.close().await.is_err());
    rig.control.set_condition(StoreCondition::Up);
    rig.cache.close().await.unwrap();
    assert_eq!(rig.stored("l-03-failing", 500, 10), data(3, 10));
    assert_nothing_left(&rig.cache);
}

/// L-03, H-42
#[actix::test]
async fn abandoning_tells_what_was_lost() {
    let rig = Rig::new(config());
    let set = rig.open("abandoned").await;
    rig.gate.hold_all();
    set.write_at(0, data(1, 100_000)).await.unwrap();
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    rig.gate.wait_held(1).await;
    set.write_at(50_000, data(1, 200_000)).await.unwrap();
    let read = start({
        let set = set.clone();
        async move { set.read_at(8 * MIB, 100).await.map(drop) }
    });
    let large = start({
        let set = set.clone();
        async move { set.write_at(16 * MIB, data(1, 6 << 20)).await }
    });
    rig.gate.wait_held(2).await;
    settle().await;
    let lost = rig.cache.abandon().await;
    let expected = Lost {
        dirty_bytes: 200_000,
        in_flight_bytes: 50_000,
    };
    assert_eq!(lost, expected);
    flush.await.unwrap().ok();
    assert!(read.await.unwrap().is_err());
    assert!(large.await.unwrap().is_err());
    settle().await;
    assert_nothing_left(&rig.cache);
    assert!(
        rig.gate.held().iter().all(|held| held.given_up),
        "somebody still waits for the store"
    );
    let told = Capture::install().matching("lost.dirty_bytes", "200000");
    assert_eq!(
        told.first().map(|entry| entry.level),
        Some(tracing::Level::ERROR)
    );
}

/// L-03
#[actix::test]
async fn dropping_the_last_handle_with_unsaved_data_is_told_and_ends_the_actors() {
    let memory = Arc::new(MemoryBackend::new());
    Capture::install();
    let cache = Cache::builder(memory.clone()).start().unwrap();
    let set = cache.open(SetOptions::new("dropped")).await.unwrap();
    set.write_at(0, data(1, 12_347)).await.unwrap();
    drop(cache);
    assert_eq!(set.read_at(0, 10).await.unwrap().len(), 10);
    drop(set);
    let told = Capture::install().matching("dirty_bytes", "12347");
    assert!(
        told.iter()
            .any(|entry| entry.level == tracing::Level::ERROR)
    );

    // On the program's own threads nothing of it stays behind either.
    let rig = Rig::new(config());
    let Rig {
        memory,
        cache,
        clock,
        ..
    } = rig;
    let set = cache.open(SetOptions::new("dropped-here")).await.unwrap();
    set.write_at(0, data(1, 23_459)).await.unwrap();
    let set_alive = Arc::downgrade(&clock);
    drop((cache, set, clock));
    pass(Duration::from_secs(3)).await;
    let told = Capture::install().matching("dirty_bytes", "23459");
    assert!(
        told.iter()
            .any(|entry| entry.level == tracing::Level::ERROR)
    );
    assert_eq!(set_alive.strong_count(), 0, "actors live on");
    assert_eq!(memory.operations().writes.operations, 0);
}

/// L-03
#[actix::test]
async fn a_closed_cache_leaves_no_actors_on_the_programs_threads() {
    let rig = Rig::new(config());
    let set = rig.open("no-actors").await;
    set.write_at(0, data(1, 100)).await.unwrap();
    rig.cache.close().await.unwrap();
    let alive = Arc::downgrade(&rig.clock);
    drop((rig, set));
    settle().await;
    assert_eq!(alive.strong_count(), 0);
}

/// L-03, H-46: a close whose future is dropped goes on; closing again finds it done.
#[actix::test]
async fn closing_may_be_given_up_at_any_point() {
    for polls in 0..4 {
        let rig = Rig::new(config());
        let set = rig.open("h-46-close").await;
        set.write_at(0, data(1, 1000)).await.unwrap();
        rig.gate.hold_kind(OperationKind::Write);
        assert!(drop_after(polls, rig.cache.close()).await.is_none());
        rig.gate.open();
        settle().await;
        rig.cache.close().await.unwrap();
        assert_eq!(rig.stored("h-46-close", 0, 1000), data(1, 1000));
        assert_nothing_left(&rig.cache);
    }
}

/// L-03: whoever opens a set while the cache closes gets it stored, or is refused.
#[actix::test]
async fn a_set_opened_while_the_cache_closes_is_stored_or_refused() {
    let rig = Rig::new(config());
    let first = rig.open("closing-first").await;
    first.write_at(0, data(1, 1000)).await.unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let close = start({
        let cache = rig.cache.clone();
        async move { cache.close().await }
    });
    rig.gate.wait_held(1).await;
    let late = rig.cache.open(SetOptions::new("closing-late")).await;
    let written = match &late {
        Ok(late) => late.write_at(0, data(2, 1000)).await.is_ok(),
        Err(error) => {
            assert!(matches!(error, CacheError::Closed { .. }));
            false
        }
    };
    rig.gate.open();
    close.await.unwrap().unwrap();
    if written {
        assert_eq!(
            rig.stored("closing-late", 0, 1000),
            data(2, 1000),
            "acknowledged and lost"
        );
    }
    assert_nothing_left(&rig.cache);
}

/// L-03: those who read on do not keep a set from closing.
#[actix::test]
async fn a_set_closes_though_others_go_on_reading() {
    let rig = Rig::new(config());
    let set = rig.open("closing-readers").await;
    rig.gate.hold_kind(OperationKind::Read);
    let read = |block: u64| {
        let set = set.clone();
        start(async move { set.read_at(block << 16, 100).await.map(drop) })
    };
    let first = read(0);
    rig.gate.wait_held(1).await;
    let close = start({
        let set = set.clone();
        async move { set.close().await }
    });
    settle().await;
    let second = read(1);
    settle().await;
    let numbers: Vec<u64> = rig.gate.held().iter().map(|held| held.number).collect();
    rig.gate.release(numbers[0]).unwrap();
    first.await.unwrap().unwrap();
    settle().await;
    assert!(close.is_finished(), "a later read keeps the set open");
    close.await.unwrap().unwrap();
    assert!(matches!(
        second.await.unwrap(),
        Err(CacheError::Closed { .. })
    ));
    rig.close().await;
}

/// L-03
#[actix::test]
async fn a_set_can_be_closed_and_opened_anew() {
    let rig = Rig::new(config());
    let set = rig.open("anew").await;
    let twin = rig.open("anew").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    assert_eq!(
        twin.read_at(0, 1000).await.unwrap().into_bytes(),
        data(1, 1000)
    );
    let other = SetOptions::new("anew").no_layout();
    assert!(matches!(
        rig.cache.open(other).await,
        Err(CacheError::AlreadyOpen { .. })
    ));
    twin.close().await.unwrap();
    assert!(matches!(
        set.read_at(0, 10).await,
        Err(CacheError::Closed { .. })
    ));
    let set = rig
        .cache
        .open(SetOptions::new("anew").file_bytes(MIB))
        .await
        .unwrap();
    assert_eq!(
        set.read_at(0, 1000).await.unwrap().into_bytes(),
        data(1, 1000)
    );
    rig.close().await;
}

/// L-03, W-01: every write that races with closing is stored or told that it is not.
#[test]
fn a_write_that_races_with_closing_is_stored_if_it_was_acknowledged() {
    for round in 0..200u64 {
        let memory = Arc::new(MemoryBackend::new());
        let config = CacheConfig {
            arbiters: 1,
            ..config()
        };
        let cache = Cache::builder(memory.clone())
            .config(config)
            .start()
            .unwrap();
        let set = futures::executor::block_on(cache.open(SetOptions::new("race"))).unwrap();
        let written = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2u64)
                .map(|writer| {
                    let set = set.clone();
                    scope.spawn(move || {
                        let mut last = None;
                        for version in 1..10_000u64 {
                            let bytes = data(version, 64);
                            let write = set.write_at(writer << 20, bytes);
                            if futures::executor::block_on(write).is_err() {
                                break;
                            }
                            last = Some(version);
                        }
                        last
                    })
                })
                .collect();
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            futures::executor::block_on(cache.close()).unwrap();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect::<Vec<_>>()
        });
        for (writer, last) in written.into_iter().enumerate() {
            let Some(last) = last else { continue };
            let found = stored(&memory, "race", writer << 20, 64);
            // The one after the last acknowledged may have entered, too.
            assert!(
                found == data(last, 64) || found == data(last + 1, 64),
                "round {round}: writer {writer} was told that version {last} is in"
            );
        }
    }
}

/// H-44
#[actix::test]
async fn operators_may_look_and_change_limits_while_all_is_in_use() {
    let rig = Rig::new(config());
    let set = rig.open("h-44").await;
    let load = start({
        let set = set.clone();
        async move {
            for round in 0..300u64 {
                let offset = (round * 7919) % 50 * 100_000;
                set.write_at(offset, data(round, 50_000)).await.unwrap();
                let read = set.read_at(offset, 50_000).await.unwrap();
                assert_eq!(read.into_bytes(), data(round, 50_000));
                tokio::task::yield_now().await;
            }
        }
    });
    let mut round = 0;
    while !load.is_finished() {
        round += 1;
        let dirty = bytesize::ByteSize::kib(256 << (round % 4));
        let limits = CacheConfig {
            max_bytes: bytesize::ByteSize::mib(2 + round % 3),
            max_dirty_bytes: dirty,
            target_dirty_bytes: bytesize::ByteSize(dirty.as_u64() / 16 * (round % 16)),
            max_objects: 1 + round % 5,
            ..config()
        };
        rig.cache.set_limits(&limits).await.unwrap();
        rig.cache.dump().await;
        rig.cache.audit().await.unwrap();
        set.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    load.await.unwrap();
    assert!(round > 1);
    // Who waits at a limit hears of a higher one, though nothing else happens.
    let low = CacheConfig {
        max_dirty_bytes: bytesize::ByteSize::kib(256),
        target_dirty_bytes: bytesize::ByteSize::kib(256),
        ..config()
    };
    rig.cache.set_limits(&low).await.unwrap();
    set.flush().await.unwrap();
    rig.gate.hold_all();
    set.write_at(0, data(1, 200_000)).await.unwrap();
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(8 * MIB, data(2, 200_000)).await }
    });
    settle().await;
    assert!(!waiting.is_finished());
    rig.cache.set_limits(&config()).await.unwrap();
    settle().await;
    assert!(waiting.is_finished(), "it waits though there is room");
    waiting.await.unwrap().unwrap();
    rig.gate.open();
    set.flush().await.unwrap();
    settle().await;
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// L-03
#[actix::test]
async fn a_door_that_was_closed_serves_nobody() {
    let rig = Rig::new(config());
    let set = rig.open("closed-door").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    assert!(set.read_at(0, 1000).now_or_never().is_some());
    set.close().await.unwrap();
    assert!(matches!(
        set.read_at(0, 1000).await,
        Err(CacheError::Closed { .. })
    ));
    assert!(matches!(
        set.write_at(0, data(1, 10)).await,
        Err(CacheError::Closed { .. })
    ));
    settle().await;
    assert_nothing_left(&rig.cache);
}

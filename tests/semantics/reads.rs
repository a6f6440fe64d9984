//! Reads: shared fetches, their bounds, their order, and what a store that fails does to them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cachalot::backend::{OperationKind, StoreCondition};
use cachalot::{
    BackendError, CacheError, Layout, ObjectExtent, ReadRequest, RequestError, SetOptions,
};
use futures::FutureExt;

use super::common::{
    Capture, Rig, config, data, drop_after, name_of, pass, poll_once, settle, start, touches,
};

const MIB: u64 = 1 << 20;

///
#[actix::test]
async fn reads_of_one_gap_share_a_fetch_and_are_answered_in_order() {
    let rig = Rig::new(config());
    let set = rig.open("r-03").await;
    rig.gate.hold_kind(OperationKind::Read);
    let order = Rc::new(RefCell::new(Vec::new()));
    let readers: Vec<_> = (0..10)
        .map(|number| {
            let (set, order) = (set.clone(), order.clone());
            start(async move {
                set.read_at(4096 * (number % 3), 20_000).await.unwrap();
                order.borrow_mut().push(number);
            })
        })
        .collect();
    settle().await;
    rig.gate.open();
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(rig.memory.operations().reads.operations, 3);
    assert_eq!(*order.borrow(), (0..10).collect::<Vec<_>>());
    rig.close().await;
}

/// what has landed is not served to a later read before the earlier ones have their answer.
#[actix::test]
async fn a_hit_does_not_overtake_the_answer_of_an_earlier_read() {
    let rig = Rig::new(config());
    let set = rig.open("r-04").await;
    rig.gate.hold_kind(OperationKind::Read);
    let first = start({
        let set = set.clone();
        async move { set.read_at(0, 1000).await }
    });
    rig.gate.wait_held(1).await;
    rig.gate.hold_all();
    set.write_at(8 * MIB, data(1, 1000)).await.unwrap();
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    let held = rig.gate.wait_held(2).await;
    // Both end in one turn of the actor: the fetch lands, then the log tells of the failed writeback, and only then
    // is the first read answered.
    let hits = Arc::new(AtomicUsize::new(0));
    Capture::install().listen("r-04", {
        let (set, hits) = (set.clone(), hits.clone());
        move |entry| {
            let is_before_answer = entry.level == tracing::Level::WARN;
            if is_before_answer && set.read_at(0, 1000).now_or_never().is_some() {
                hits.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    rig.gate.release(held[0].number).unwrap();
    rig.gate
        .fail(held[1].number, BackendError::Unavailable)
        .unwrap();
    first.await.unwrap().unwrap();
    flush.await.unwrap().unwrap_err();
    assert!(
        Capture::install()
            .of_set("r-04")
            .iter()
            .any(|e| e.level == tracing::Level::WARN)
    );
    assert_eq!(
        hits.load(Ordering::Relaxed),
        0,
        "a later read was answered first"
    );
    // Then it is a hit again.
    assert!(set.read_at(0, 1000).now_or_never().is_some());
    rig.close().await;
}

///
#[actix::test]
async fn a_read_is_answered_before_the_store_does_when_a_write_brings_what_it_waits_for() {
    let rig = Rig::new(config());
    let set = rig.open("r-04-written").await;
    rig.gate.hold_kind(OperationKind::Read);
    let order = Rc::new(RefCell::new(Vec::new()));
    let read = |number: usize| {
        let (set, order) = (set.clone(), order.clone());
        start(async move {
            let bytes = set.read_at(0, 1000).await.unwrap().to_vec();
            order.borrow_mut().push(number);
            bytes
        })
    };
    let first = read(1);
    settle().await;
    assert_eq!(rig.held(OperationKind::Read), 1);
    set.write_at(500, data(2, 500)).await.unwrap();
    settle().await;
    assert!(order.borrow().is_empty(), "half of it is not here");
    set.write_at(0, data(1, 500)).await.unwrap();
    let second = read(2);
    let expected = [data(1, 500), data(2, 500)].concat();
    assert_eq!(first.await.unwrap(), expected);
    assert_eq!(second.await.unwrap(), expected);
    assert_eq!(*order.borrow(), [1, 2]);
    assert_eq!(
        rig.held(OperationKind::Read),
        1,
        "the store has not answered"
    );
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// R-13, H-37
#[actix::test]
async fn a_failed_read_is_told_and_a_later_one_asks_again() {
    let rig = Rig::new(config());
    let set = rig.open("r-13").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.release().await.unwrap();
    rig.control.set_condition(StoreCondition::Down);
    let failed = set.read_at(0, 1000).await.unwrap_err();
    assert!(
        matches!(
            &failed,
            CacheError::Read {
                source: BackendError::Unavailable,
                ..
            }
        ),
        "{failed:?}"
    );
    rig.control.set_condition(StoreCondition::Up);
    assert_eq!(
        set.read_at(0, 1000).await.unwrap().into_bytes(),
        data(1, 1000)
    );
    rig.close().await;
}

/// R-14, H-25
#[actix::test]
async fn fetches_under_way_never_pass_the_size_of_the_cache() {
    let rig = Rig::new(config());
    let set = rig.open("r-14").await;
    rig.gate.hold_kind(OperationKind::Read);
    let readers: Vec<_> = (0..32u64)
        .map(|block| {
            let set = set.clone();
            start(async move { set.read_at(block * 300_000, 300_000).await.map(|b| b.len()) })
        })
        .collect();
    while !readers.iter().all(tokio::task::JoinHandle::is_finished) {
        settle().await;
        let stats = rig.cache.stats();
        assert!(stats.charged.room <= 4 << 20, "{stats:?}");
        assert!(stats.gauges.rx_bytes <= 4 * MIB, "{stats:?}");
        rig.gate.release_all();
    }
    rig.gate.open();
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// R-14, H-24
#[actix::test]
async fn a_read_larger_than_the_cache_goes_through_alone() {
    let rig = Rig::new(config());
    let set = rig.open("h-24-read").await;
    for block in 0..10u64 {
        set.write_at(block * MIB, data(block, 1 << 20))
            .await
            .unwrap();
    }
    let bytes = set.read_at(0, 10 * MIB).await.unwrap().into_bytes();
    for block in 0..10usize {
        assert_eq!(
            bytes[block << 20..(block + 1) << 20],
            data(block as u64, 1 << 20)
        );
    }
    // Meanwhile others can still read, one way or another.
    assert_eq!(set.read_at(11 * MIB, 10).await.unwrap().len(), 10);
    rig.audit(&[&set]).await;
    rig.close().await;
}

///
#[actix::test]
async fn a_prefetch_fills_the_cache() {
    let rig = Rig::new(config());
    let set = rig.open("r-15").await;
    set.write_at(1000, data(1, 100_000)).await.unwrap();
    set.flush().await.unwrap();
    set.release().await.unwrap();
    let dropped = drop_after(1, set.prefetch_at(1000, 1000)).await;
    assert!(dropped.is_none());
    settle().await;
    assert!(
        set.is_cached_at(1000, 1000).await.unwrap(),
        "a prefetch needs no receiver"
    );
    set.prefetch_at(1000, 100_000).await.unwrap();
    let hit = set.read_at(1000, 100_000).now_or_never().unwrap().unwrap();
    assert_eq!(hit.into_bytes(), data(1, 100_000));
    rig.close().await;
}

///
#[actix::test]
async fn a_prefetch_that_waits_for_room_is_done_though_its_caller_is_gone() {
    let rig = Rig::new(config());
    let set = rig.open("r-15-room").await;
    // The objects exist, so that what is missing of them has to be fetched.
    for object in 0..2u64 {
        set.write_at(((object + 1) << 22) - 1, data(1, 1))
            .await
            .unwrap();
    }
    set.flush().await.unwrap();
    set.release().await.unwrap();
    rig.gate.hold_kind(OperationKind::Read);
    let reader = start({
        let set = set.clone();
        async move { set.read_at(0, 4 * MIB - 300_000).await.map(|b| b.len()) }
    });
    settle().await;
    let dropped = drop_after(1, set.prefetch_at(4 * MIB, 1_000_000)).await;
    assert!(dropped.is_none());
    settle().await;
    assert!(rig.cache.stats().waiting_claims > 0, "there is room");
    rig.gate.open();
    reader.await.unwrap().unwrap();
    while !set.is_cached_at(4 * MIB, 1_000_000).await.unwrap() {
        settle().await;
        let stats = rig.cache.stats();
        let is_coming = stats.waiting_claims > 0 || stats.gauges.rx_bytes > 0;
        let is_there = set.is_cached_at(4 * MIB, 1_000_000).await.unwrap();
        assert!(is_coming || is_there, "nobody fetches it");
    }
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// P-01, P-03
#[actix::test]
async fn file_offsets_fall_onto_striped_objects_in_order() {
    let rig = Rig::new(config());
    let layout = Layout::new(64 << 10, 3, 256 << 10).unwrap();
    let options = SetOptions::new("p-03").layout(layout).file_bytes(2 << 20);
    let set = rig.cache.open(options).await.unwrap();
    let bytes = data(5, 1_500_000);
    set.write_at(30_000, bytes.clone()).await.unwrap();
    for (offset, len) in [(0usize, 1_500_000usize), (65_530, 12), (1_000_000, 400_000)] {
        let read = set
            .read_at(30_000 + offset as u64, len as u64)
            .await
            .unwrap();
        assert_eq!(read.into_bytes(), bytes[offset..offset + len]);
    }
    assert!(set.is_cached_at(30_000, 1_500_000).await.unwrap());
    assert!(!set.is_cached_at(29_999, 2).await.unwrap());
    set.flush_range(30_000, 1_500_000).await.unwrap();
    let object = rig.memory.content(&name_of("p-03", 1)).unwrap();
    assert_eq!(
        object[..1 << 16],
        bytes[(1 << 16) - 30_000..(2 << 16) - 30_000]
    );
    set.discard_range(100_000, 200_000).await.unwrap();
    assert!(!set.is_cached_at(299_999, 1).await.unwrap());
    assert!(set.is_cached_at(300_000, 1_000_000).await.unwrap());
    let past = set.read_at((2 << 20) - 1, 2).await.unwrap_err();
    assert!(matches!(
        past,
        CacheError::InvalidRequest(RequestError::PastFile { .. })
    ));
    rig.close().await;
}

///
#[actix::test]
async fn a_read_of_several_extents_gives_their_bytes_in_order() {
    let rig = Rig::new(config());
    let set = rig.open("r-01").await;
    set.write_object(3, 100, data(3, 500)).await.unwrap();
    set.write_object(1, 0, data(1, 500)).await.unwrap();
    set.flush().await.unwrap();
    set.release().await.unwrap();
    let request = ReadRequest {
        extents: vec![
            ObjectExtent::new(3, 90, 510).unwrap(),
            ObjectExtent::new(1, 0, 500).unwrap(),
            ObjectExtent::new(7, 0, 5).unwrap(),
        ],
        ..ReadRequest::default()
    };
    let expected = [
        vec![0; 10],
        data(3, 500).to_vec(),
        data(1, 500).to_vec(),
        vec![0; 5],
    ]
    .concat();
    assert_eq!(set.read(request.clone()).await.unwrap().to_vec(), expected);
    assert_eq!(
        set.read(request).now_or_never().unwrap().unwrap().to_vec(),
        expected
    );
    rig.close().await;
}

/// H-46
#[actix::test]
async fn a_read_may_be_dropped_at_any_point() {
    let rig = Rig::new(config());
    let set = rig.open("h-46").await;
    // The object exists, so that what is missing of it has to be fetched.
    set.write_at((4 << 20) - 1, data(1, 1)).await.unwrap();
    set.flush().await.unwrap();
    rig.gate.hold_kind(OperationKind::Read);
    for polls in 0..4 {
        let offset = polls as u64 * MIB;
        let neighbour = start({
            let set = set.clone();
            async move { set.read_at(offset, 100_000).await.map(|bytes| bytes.len()) }
        });
        assert!(
            drop_after(polls, set.read_at(offset + 50_000, 100_000))
                .await
                .is_none()
        );
        rig.gate.wait_held(1).await;
        rig.gate.release_all();
        settle().await;
        rig.gate.release_all();
        assert_eq!(neighbour.await.unwrap().unwrap(), 100_000);
    }
    rig.gate.open();
    settle().await;
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// H-10, F-05: a store that never answers is given up on in time.
#[actix::test]
async fn an_operation_without_an_answer_counts_as_failed_in_time() {
    let rig = Rig::new(config());
    let set = rig.open("timeout").await;
    rig.gate.hold_all();
    set.write_at(4 * MIB, data(1, 1000)).await.unwrap();
    let read = start({
        let set = set.clone();
        async move { set.read_at(0, 1000).await }
    });
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    pass(Duration::from_secs(59)).await;
    assert!(!read.is_finished() && !flush.is_finished());
    pass(Duration::from_secs(2)).await;
    let failed = read.await.unwrap().unwrap_err();
    assert!(
        matches!(
            &failed,
            CacheError::Read {
                source: BackendError::TimedOut,
                ..
            }
        ),
        "{failed:?}"
    );
    let failed = flush.await.unwrap().unwrap_err();
    assert!(
        matches!(
            &failed,
            CacheError::WriteBack {
                source: BackendError::TimedOut,
                ..
            }
        ),
        "{failed:?}"
    );
    // What was given up comes late, and changes nothing.
    let late = rig.gate.held().into_iter().filter(|held| held.given_up);
    let late: Vec<u64> = late.map(|held| held.number).collect();
    assert!(late.len() >= 2);
    for number in late {
        rig.gate.release(number).unwrap();
    }
    rig.gate.open();
    assert_eq!(set.read_at(0, 1000).await.unwrap().len(), 1000);
    set.flush().await.unwrap();
    assert_eq!(rig.stored("timeout", 4 << 20, 1000), data(1, 1000));
    settle().await;
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// H-43
#[actix::test]
async fn a_caller_that_is_answered_may_call_straight_back() {
    let rig = Rig::new(config());
    let set = rig.open("h-43").await;
    rig.gate.hold_where(touches(name_of("h-43", 0)));
    let depth = 50u64;
    let mut calls = start({
        let set = set.clone();
        async move {
            for block in 0..depth {
                let read = set.read_at(block * 8192, 4096).await.unwrap();
                set.write_at(block * 8192 + 4096, read.into_bytes())
                    .await
                    .unwrap();
                set.flush_range(block * 8192, 8192).await.unwrap();
            }
        }
    });
    let mut rounds = 0;
    while poll_once(std::pin::Pin::new(&mut calls)).is_pending() {
        settle().await;
        rig.gate.release_all();
        rounds += 1;
        assert!(rounds < 1000);
    }
    rig.close().await;
}

/// Asking for what is in memory fetches nothing, and only bytes count.
#[actix::test]
async fn what_is_in_memory_is_told_at_once_and_nothing_else_is_asked_for() {
    let rig = Rig::new(config());
    let set = rig.open("r-19").await;
    assert!(set.read_cached_at(0, 1000).unwrap().is_none());
    settle().await;
    assert_eq!(rig.memory.operations().reads.operations, 0);
    set.write_at(0, data(7, 1000)).await.unwrap();
    assert!(set.read_cached_at(0, 1001).unwrap().is_none());
    let before = set.stats().1;
    let read = set.read_cached_at(0, 1000).unwrap().unwrap();
    assert_eq!(read.into_bytes(), data(7, 1000));
    let after = set.stats().1;
    assert_eq!(after.read_ops_hit, before.read_ops_hit + 1);
    assert_eq!(after.read_bytes_hit, before.read_bytes_hit + 1000);
    assert_eq!(before.read_ops_hit, 0);
    assert_eq!(after.read_ops_missed, 0);
    assert_eq!(rig.memory.operations().reads.operations, 0);
    set.read_cached_at(0, 0).unwrap_err();
    rig.close().await;
}

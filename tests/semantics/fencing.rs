//! A client that was fenced off: it stops writing the set that another has taken over, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use cachalot::backend::{FaultyBackend, MemoryBackend, Operation, OperationKind, StoreCondition};
use cachalot::message::Write;
use cachalot::{
    Advice, BackendError, Cache, CacheConfig, CacheError, JournalTid, ObjectExtent, ObjectSet,
    SetOptions, WriteRequest,
};
use futures::executor::block_on;

use super::common::{Rig, assert_nothing_left, config, data, pass, settle, start};

const MIB: u64 = 1 << 20;

fn refusal(set: &ObjectSet, unsaved_bytes: u64) -> CacheError {
    CacheError::Fenced {
        set: set.id().clone(),
        unsaved_bytes,
    }
}

/// The writes of a set.
fn of(set: &ObjectSet) -> impl Fn(&Operation) -> bool + Send + Sync + use<> {
    let prefix = format!("{}.", set.id().as_str());
    move |operation| {
        let object = operation.object();
        operation.kind() == OperationKind::Write
            && object.is_some_and(|object| object.as_str().starts_with(&prefix))
    }
}

/// Writes so many bytes and has the set's next writeback answered by "fenced".
async fn fence(rig: &Rig, set: &ObjectSet, bytes: u64) {
    set.write_at(0, data(1, bytes as usize)).await.unwrap();
    rig.control
        .fail_next(OperationKind::Write, BackendError::Fenced);
    let refused = set.flush().await.unwrap_err();
    assert!(matches!(refused, CacheError::Fenced { .. }), "{refused:?}");
}

/// H-41
#[actix::test]
async fn a_fenced_client_stops_writing_and_says_so() {
    let rig = Rig::modest(config());
    let (set, other) = (rig.open("h-41").await, rig.open("h-41-other").await);
    set.write_at(8 * MIB, data(3, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.release().await.unwrap();
    fence(&rig, &set, 5000).await;

    let refused = set.flush().await.unwrap_err();
    assert_eq!(refused, refusal(&set, 5000));
    assert_eq!(refused.advice(), Advice::GiveUp);
    let at_the_door = set.write_at(0, data(2, 100)).await;
    assert_eq!(at_the_door, Err(refusal(&set, 5000)));
    let request = WriteRequest {
        extents: vec![ObjectExtent::new(0, 0, 100).unwrap()],
        data: data(2, 100),
        ..WriteRequest::default()
    };
    let several = set.write(request.clone()).await;
    assert_eq!(several, Err(refusal(&set, 5000)));
    let message = set.addr().unwrap().send(Write(request.clone())).await;
    assert_eq!(message.unwrap(), Err(refusal(&set, 5000)));
    let journaled = WriteRequest {
        journal_tid: Some(JournalTid(1.try_into().unwrap())),
        ..request
    };
    assert_eq!(set.write(journaled).await, Err(refusal(&set, 5000)));

    let status = set.status().await.unwrap();
    assert!(status.is_fenced && status.is_dirty_or_committing);
    assert_eq!(status.last_error.unwrap(), BackendError::Fenced.to_string());
    let unsaved = set.read_at(0, 5000).await.unwrap().into_bytes();
    assert_eq!(unsaved, data(1, 5000), "what is unsaved is readable");
    let missed = set.read_at(8 * MIB, 1000).await.unwrap().into_bytes();
    assert_eq!(missed, data(3, 1000), "the store still answers reads");
    rig.audit(&[&set, &other]).await;

    other.write_at(0, data(4, 1000)).await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(rig.stored("h-41-other", 0, 1000), data(4, 1000));
    pass(Duration::from_secs(100)).await;
    assert_eq!(rig.stored("h-41", 0, 5000), [0; 5000], "nothing is sent");

    assert_eq!(set.close().await, Err(refusal(&set, 5000)));
    assert_eq!(rig.cache.close().await, Err(refusal(&set, 5000)));
    assert_eq!(
        set.read_at(0, 5000).await.unwrap().into_bytes(),
        data(1, 5000)
    );
    let lost = set.abandon().await.unwrap();
    assert_eq!((lost.dirty_bytes, lost.in_flight_bytes), (5000, 0));
    let again = rig.open("h-41").await;
    again.write_at(0, data(5, 10)).await.unwrap();
    again.flush().await.unwrap();
    rig.close().await;
}

/// H-41, W-05, H-26: what the fenced set holds, and its writers in the queue, are not in the others' way.
#[actix::test]
async fn the_other_sets_go_on_though_a_fenced_one_holds_all_that_may_be_dirty() {
    let rig = Rig::modest(config());
    let (set, other) = (rig.open("h-41-full").await, rig.open("h-41-next").await);
    rig.gate.hold_kind(OperationKind::Write);
    set.write_at(0, data(1, 2 << 20)).await.unwrap();
    settle().await;
    let writer = |set: &ObjectSet, at: u64, bytes: usize| {
        let set = set.clone();
        start(async move { set.write_at(at * MIB, data(7, bytes)).await })
    };
    let waiting = writer(&set, 32, 1000);
    let (small, large) = (writer(&other, 32, 1000), writer(&other, 36, 1 << 20));
    settle().await;
    assert_eq!(rig.cache.stats().waiting_claims, 3);
    rig.gate.fail_where(of(&set), BackendError::Fenced);
    settle().await;
    assert_eq!(waiting.await.unwrap(), Err(refusal(&set, 2 << 20)));
    assert_eq!(small.await.unwrap(), Ok(()), "nobody waits behind it");
    assert_eq!(large.await.unwrap(), Ok(()));
    let third = writer(&other, 40, 512 << 10);
    settle().await;
    assert!(third.is_finished(), "the whole limit is the others'");
    let unsaved = set.read_at(0, 2 << 20).await.unwrap().into_bytes();
    assert_eq!(unsaved, data(1, 2 << 20));
    let beyond = writer(&other, 44, 1 << 20);
    settle().await;
    assert!(!beyond.is_finished(), "and no more than that");
    assert_eq!(set.abandon().await.unwrap().dirty_bytes, 2 << 20);
    settle().await;
    assert!(rig.cache.stats().charged.dirty <= 2 << 20);
    assert!(!beyond.is_finished(), "the limit is what it was");
    rig.gate.open();
    for writer in [third, beyond] {
        writer.await.unwrap().unwrap();
    }
    rig.audit(&[&other]).await;
    rig.close().await;
}

/// H-41, H-24, H-35: what can't become room counts as if the cache were smaller by it, so that nobody waits for it.
#[actix::test]
async fn a_request_that_needs_the_room_of_a_fenced_set_goes_through_alone() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("h-41-room").await, rig.open("h-41-wide").await);
    fence(&rig, &set, 2 << 20).await;
    let read = start({
        let other = other.clone();
        async move { other.read_at(0, 3 * MIB).await }
    });
    let own = start({
        let set = set.clone();
        async move { set.read_at(40 * MIB, 3 * MIB).await }
    });
    pass(Duration::from_secs(3)).await;
    assert!(read.is_finished() && own.is_finished());
    assert_eq!(read.await.unwrap().unwrap().len(), 3 << 20);
    assert_eq!(own.await.unwrap().unwrap().len(), 3 << 20);
    let write = start({
        let other = other.clone();
        async move { other.write_at(0, data(1, 3 << 20)).await }
    });
    pass(Duration::from_secs(3)).await;
    assert!(write.is_finished());
    set.abandon().await.unwrap();
    rig.close().await;
}

/// H-41, F-01, W-08: the flusher neither counts on a fenced set nor makes the others pay for it.
#[actix::test]
async fn a_fenced_set_neither_takes_demands_nor_raises_them() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("h-41-demand").await, rig.open("h-41-pays").await);
    fence(&rig, &set, 1_500_000).await;
    other.write_at(0, data(2, 300_000)).await.unwrap();
    pass(Duration::from_millis(1500)).await;
    assert_eq!(
        other.stats().0.dirty_bytes,
        300_000,
        "below the target, and young"
    );
    for block in 1..5 {
        other.write_at(block << 20, data(2, 300_000)).await.unwrap();
    }
    settle().await;
    let left = other.stats().0.dirty_bytes;
    assert!(
        (1..=MIB).contains(&left),
        "down to the target, no further: {left}"
    );
    pass(Duration::from_secs(7)).await;
    assert_eq!(other.stats().0.dirty_bytes, 0, "what is too old goes");
    set.abandon().await.unwrap();
    rig.close().await;
}

/// H-41, H-38: there is nothing to try again, and nothing to look for.
#[actix::test]
async fn a_fenced_set_keeps_nobody_awake() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("h-41-idle").await, rig.open("h-41-room-2").await);
    fence(&rig, &set, 2 << 20).await;
    other.read_at(0, 1_800_000).await.unwrap();
    pass(Duration::from_secs(5)).await;
    let before = rig.clock.looks();
    pass(Duration::from_secs(100)).await;
    let looks = rig.clock.looks() - before;
    assert!(
        looks < 1_000,
        "{looks} looks at the clock in 100 s of nothing"
    );
    set.abandon().await.unwrap();
    rig.close().await;
}

/// H-41, L-03, H-42
#[actix::test]
async fn a_close_that_meets_the_fence_fails_and_leaves_the_set_readable() {
    let rig = Rig::new(config());
    let set = rig.open("h-41-close").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let close = start({
        let set = set.clone();
        async move { set.close().await }
    });
    settle().await;
    rig.gate.fail_where(of(&set), BackendError::Fenced);
    assert_eq!(close.await.unwrap(), Err(refusal(&set, 1000)));
    assert_eq!(set.write_at(0, data(2, 10)).await, Err(refusal(&set, 1000)));
    assert_eq!(
        set.read_at(0, 1000).await.unwrap().into_bytes(),
        data(1, 1000)
    );
    assert_eq!(
        rig.open("h-41-close").await.id(),
        set.id(),
        "another handle of it"
    );
    assert_eq!(set.purge().await.unwrap(), 1000);
    assert_eq!(set.write_at(0, data(2, 10)).await, Err(refusal(&set, 0)));
    assert_eq!(set.flush().await, Err(refusal(&set, 0)));
    assert_eq!(set.close().await, Ok(()), "nothing is left to give up");
    rig.close().await;
}

/// H-41, L-03
#[actix::test]
async fn abandoning_a_set_tells_what_was_lost_of_it_and_leaves_the_others() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("h-41-lost").await, rig.open("h-41-kept").await);
    other.write_at(0, data(2, 700)).await.unwrap();
    set.write_at(0, data(1, 1000)).await.unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    settle().await;
    set.write_at(MIB, data(1, 100)).await.unwrap();
    let lost = set.abandon().await.unwrap();
    assert_eq!((lost.dirty_bytes, lost.in_flight_bytes), (100, 1000));
    flush.await.unwrap().unwrap_err();
    let closed = set.write_at(0, data(1, 10)).await;
    assert!(
        matches!(closed, Err(CacheError::Closed { .. })),
        "{closed:?}"
    );
    rig.gate.open();
    other.flush().await.unwrap();
    assert_eq!(rig.stored("h-41-kept", 0, 700), data(2, 700));
    rig.close().await;
}

/// H-41: on real threads, nobody is told that a write was taken who asks after somebody was told of the fence.
#[test]
fn once_one_caller_knows_of_the_fence_no_write_is_acknowledged() {
    for round in 0..20u64 {
        let memory = Arc::new(MemoryBackend::new());
        let faulty = FaultyBackend::new(memory, 1);
        let control = faulty.control();
        let config = CacheConfig {
            target_dirty_bytes: ByteSize::kib(64),
            ..config()
        };
        let cache = Cache::builder(Arc::new(faulty))
            .config(config)
            .start()
            .unwrap();
        let set = block_on(cache.open(SetOptions::new("h-41-threads"))).unwrap();
        let is_known = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..3u64 {
                let (set, is_known) = (&set, &is_known);
                scope.spawn(move || {
                    let mut refused = 0;
                    for block in (0..).map(|block| block % 64) {
                        let knew = is_known.load(Ordering::SeqCst);
                        let offset = (block << 18) + (writer << 14);
                        match block_on(set.write_at(offset, data(block, 8192))) {
                            Ok(()) => assert!(!knew, "round {round}"),
                            Err(CacheError::Fenced { .. }) => {
                                is_known.store(true, Ordering::SeqCst);
                                refused += 1;
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                        if refused == 50 {
                            return;
                        }
                    }
                });
            }
            for _ in 0..round {
                block_on(set.flush()).unwrap();
            }
            control.set_condition(StoreCondition::Fenced);
        });
        let held = set.stats().0;
        let lost = block_on(set.abandon()).unwrap();
        assert_eq!(
            lost.dirty_bytes + lost.in_flight_bytes,
            held.dirty_bytes + held.tx_bytes
        );
        block_on(cache.close()).unwrap();
        assert_nothing_left(&cache);
    }
}

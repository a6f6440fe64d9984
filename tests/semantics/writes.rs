//! Writes: what is acknowledged when, and who waits for room.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{OperationKind, StoreCondition};
use cachalot::{
    BackendError, CacheConfig, CacheError, ObjectExtent, ObjectSet, SnapContext, WriteRequest,
};

use super::common::{Rig, config, data, drop_after, pass, poll_once, settle, start};

const MIB: u64 = 1 << 20;

/// A cache that stores nothing until its gate lets it, with dirty room for one MiB.
fn held_rig(blocks_upfront: bool) -> Rig {
    let config = CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        target_dirty_bytes: ByteSize::kib(512),
        block_writes_upfront: blocks_upfront,
        ..config()
    };
    let rig = Rig::new(config);
    rig.gate.hold_kind(OperationKind::Write);
    rig
}

/// Fills the dirty room but for 200 KiB.
async fn fill(set: &ObjectSet) {
    for block in 0..13u64 {
        set.write_at(block << 16, data(block, 60 << 10))
            .await
            .unwrap();
    }
}

/// W-01, R-01: what is given away is not copied; what others hold, or what lies in a larger buffer, is.
#[actix::test]
async fn large_memory_that_nobody_else_holds_is_kept_as_it_is() {
    let rig = held_rig(true);
    let set = rig.open("given").await;
    let shows = async |bytes: &[u8], address: *const u8| {
        let read = set.read_at(0, bytes.len() as u64).await.unwrap();
        let read = read.into_bytes();
        assert_eq!(read, bytes);
        (read.as_ptr() == address, read)
    };
    let (first, second) = (data(1, 64 << 10), data(2, 64 << 10));
    let given = Bytes::from(first.to_vec());
    let address = given.as_ptr();
    set.write_at(0, given).await.unwrap();
    let (is_kept, held) = shows(&first, address).await;
    assert!(is_kept);

    let given = Bytes::from(second.to_vec());
    let address = given.as_ptr();
    set.write_at(0, given.clone()).await.unwrap();
    assert!(!shows(&second, address).await.0, "its caller holds it");
    assert_eq!(held, first, "a reader's bytes stay as they were");

    let given = Bytes::from(first.to_vec());
    let address = given.as_ptr();
    set.write_at(0, given).await.unwrap();
    set.write_at(100, Bytes::from_static(b"within"))
        .await
        .unwrap();
    let mut expected = first.to_vec();
    expected[100..106].copy_from_slice(b"within");
    assert!(
        shows(&expected, address).await.0,
        "it is the cache's own now"
    );
    rig.close().await;
}

/// W-01
#[actix::test]
async fn a_write_is_read_back_before_it_is_stored() {
    let rig = held_rig(true);
    let set = rig.open("w-01").await;
    for (offset, len) in [
        (0u64, 1usize),
        (4000, 9000),
        (4100, 3),
        ((4 << 20) - 7, 70_000),
    ] {
        let bytes = data(offset + 7, len);
        set.write_at(offset, bytes.clone()).await.unwrap();
        assert_eq!(
            set.read_at(offset, len as u64).await.unwrap().into_bytes(),
            bytes
        );
    }
    assert_eq!(rig.memory.operations().writes.operations, 0);
    rig.close().await;
}

/// W-05, H-25: room is reserved before data enters.
#[actix::test]
async fn what_is_dirty_or_in_flight_never_passes_its_limit() {
    let rig = held_rig(true);
    let set = rig.open("w-05").await;
    let writers: Vec<_> = (0..40u64)
        .map(|block| {
            let set = set.clone();
            start(async move { set.write_at(block * 100_000, data(block, 100_000)).await })
        })
        .collect();
    for _ in 0..40 {
        settle().await;
        let stats = rig.cache.stats();
        assert!(stats.charged.dirty <= 1 << 20, "{stats:?}");
        assert!(
            stats.gauges.dirty_bytes + stats.gauges.tx_bytes <= MIB,
            "{stats:?}"
        );
        rig.gate.release_all();
    }
    rig.gate.open();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert!(set.stats().1.blocked_write_ops > 0);
    assert_eq!(set.stats().1.write_ops, 40);
    rig.close().await;
}

/// W-05, H-26
#[actix::test]
async fn writers_at_the_limit_are_let_through_in_the_order_in_which_they_came() {
    let rig = held_rig(true);
    let set = rig.open("h-26").await;
    fill(&set).await;
    let order = Rc::new(RefCell::new(Vec::new()));
    // The first is large, the others would fit.
    let mut writers = Vec::new();
    for (number, len) in [600 << 10, 10, 10, 300 << 10, 10].into_iter().enumerate() {
        let (set, order) = (set.clone(), order.clone());
        writers.push(start(async move {
            let offset = 2 * MIB + ((number as u64) << 19);
            set.write_at(offset, data(1, len)).await.unwrap();
            order.borrow_mut().push(number);
        }));
        settle().await;
    }
    assert_eq!(rig.cache.stats().waiting_claims, 5);
    assert!(order.borrow().is_empty());
    rig.gate.open();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4]);
    rig.close().await;
}

/// W-05: it makes nothing dirty that was not.
#[actix::test]
async fn a_write_over_dirty_bytes_needs_no_room_but_does_not_pass_those_who_wait_for_some() {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        target_dirty_bytes: ByteSize::mib(1),
        ..config()
    });
    rig.gate.hold_kind(OperationKind::Write);
    let set = rig.open("w-05-over").await;
    for object in 0..16 {
        let bytes = data(object, 64 << 10);
        set.write_object(object, 0, bytes).await.unwrap();
    }
    settle().await;
    assert_eq!(set.stats().0.dirty_bytes, MIB, "no room is left");
    let over = pin!(set.write_object(15, 100, data(20, 10)));
    assert!(matches!(poll_once(over), Poll::Ready(Ok(()))));
    let waiting = start({
        let set = set.clone();
        async move { set.write_object(16, 0, data(16, 10)).await }
    });
    settle().await;
    assert!(set.stats().0.tx_bytes < MIB / 2, "the last object is dirty");
    let mut over = pin!(set.write_object(15, 200, data(21, 10)));
    assert!(poll_once(over.as_mut()).is_pending());
    rig.gate.open();
    waiting.await.unwrap().unwrap();
    over.await.unwrap();
    let read = set.read_object(15, 0, 300).await.unwrap();
    let mut expected = data(15, 64 << 10)[..300].to_vec();
    expected[100..110].copy_from_slice(&data(20, 10));
    expected[200..210].copy_from_slice(&data(21, 10));
    assert_eq!(read.to_vec(), expected);
    rig.close().await;
}

/// W-06
#[actix::test]
async fn a_write_through_is_acknowledged_by_the_store_or_with_its_error() {
    let config = CacheConfig {
        max_dirty_bytes: ByteSize(0),
        target_dirty_bytes: ByteSize(0),
        ..config()
    };
    let rig = Rig::new(config);
    let set = rig.open("w-06").await;
    rig.gate.hold_kind(OperationKind::Write);
    let writer = start({
        let set = set.clone();
        async move { set.write_at(0, data(1, 5000)).await }
    });
    rig.gate.wait_held(1).await;
    settle().await;
    assert!(!writer.is_finished());
    rig.gate.open();
    writer.await.unwrap().unwrap();
    assert_eq!(rig.stored("w-06", 0, 5000), data(1, 5000));

    rig.control
        .fail_next(OperationKind::Write, BackendError::Full);
    let refused = set.write_at(9000, data(2, 10)).await.unwrap_err();
    assert!(
        matches!(
            refused,
            CacheError::WriteBack {
                source: BackendError::Full,
                ..
            }
        ),
        "{refused:?}"
    );
    // It is kept, readable, and stored when the store has recovered.
    assert_eq!(
        set.read_at(9000, 10).await.unwrap().into_bytes(),
        data(2, 10)
    );
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.stored("w-06", 9000, 10), data(2, 10));
    rig.close().await;
}

/// W-07, H-46
#[actix::test]
async fn a_write_that_waits_upfront_is_given_up_with_its_future() {
    let rig = held_rig(true);
    let set = rig.open("w-07").await;
    fill(&set).await;
    let given_up = drop_after(2, set.write_at(3 * MIB, data(9, 400 << 10))).await;
    assert!(given_up.is_none());
    rig.gate.open();
    set.flush().await.unwrap();
    settle().await;
    assert!(
        rig.stored("w-07", 3 << 20, 400 << 10)
            .iter()
            .all(|byte| *byte == 0)
    );
    assert!(!set.is_cached_at(3 * MIB, 1).await.unwrap());
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// W-07, H-46
#[actix::test]
async fn a_write_that_is_accepted_at_once_enters_without_its_future() {
    let rig = held_rig(false);
    let set = rig.open("w-07-later").await;
    fill(&set).await;
    let given_up = drop_after(2, set.write_at(3 * MIB, data(9, 400 << 10))).await;
    assert!(given_up.is_none());
    rig.gate.open();
    set.flush().await.unwrap();
    settle().await;
    assert_eq!(
        set.read_at(3 * MIB, 400 << 10).await.unwrap().into_bytes(),
        data(9, 400 << 10)
    );
    set.flush().await.unwrap();
    assert_eq!(
        rig.stored("w-07-later", 3 << 20, 400 << 10),
        data(9, 400 << 10)
    );
    rig.close().await;
}

/// H-46, H-26: a caller that is gone holds nobody up.
#[actix::test]
async fn a_write_that_was_given_up_does_not_stand_in_the_way_of_others() {
    let rig = held_rig(true);
    let set = rig.open("h-46-write").await;
    fill(&set).await;
    let mut large = Box::pin(set.write_at(3 * MIB, data(9, 400 << 10)));
    assert!(poll_once(large.as_mut()).is_pending());
    settle().await;
    let small = start({
        let set = set.clone();
        async move { set.write_at(4 * MIB, data(3, 100)).await }
    });
    settle().await;
    assert!(!small.is_finished(), "a small write passes one that waits");
    drop(large);
    settle().await;
    assert!(
        small.is_finished(),
        "a small write waits for one that was given up"
    );
    small.await.unwrap().unwrap();
    rig.close().await;
}

/// H-46: a read that waits for room and is given up holds nobody up either.
#[actix::test]
async fn a_read_that_was_given_up_does_not_stand_in_the_way_of_others() {
    let rig = Rig::new(config());
    rig.gate.hold_kind(OperationKind::Read);
    let set = rig.open("h-46-read").await;
    let first = start({
        let set = set.clone();
        async move { set.read_at(0, 3 * MIB).await.map(|bytes| bytes.len()) }
    });
    rig.gate.wait_held(1).await;
    let mut large = Box::pin(set.read_at(4 * MIB, 2 * MIB));
    assert!(poll_once(large.as_mut()).is_pending());
    settle().await;
    let small = start({
        let set = set.clone();
        async move { set.read_at(8 * MIB, 100).await.map(|bytes| bytes.len()) }
    });
    settle().await;
    assert_eq!(rig.cache.stats().waiting_claims, 2);
    drop(large);
    settle().await;
    assert_eq!(
        rig.cache.stats().waiting_claims,
        0,
        "a small read waits for one that is gone"
    );
    rig.gate.open();
    assert_eq!(first.await.unwrap().unwrap(), 3 << 20);
    assert_eq!(small.await.unwrap().unwrap(), 100);
    rig.close().await;
}

/// W-08
#[actix::test]
async fn more_dirty_than_the_target_wakes_the_flusher_at_once() {
    let rig = held_rig(true);
    let set = rig.open("w-08").await;
    for block in 0..7u64 {
        set.write_at(block << 16, data(block, 64 << 10))
            .await
            .unwrap();
    }
    settle().await;
    assert_eq!(rig.held(OperationKind::Write), 0);
    for block in 7..10u64 {
        set.write_at(block << 16, data(block, 64 << 10))
            .await
            .unwrap();
    }
    settle().await;
    assert!(
        rig.held(OperationKind::Write) > 0,
        "nothing is written back before the next tick"
    );
    rig.close().await;
}

/// H-24, W-05
#[actix::test]
async fn a_write_larger_than_the_limits_goes_through_alone() {
    let rig = Rig::new(config());
    let set = rig.open("h-24").await;
    set.write_at(0, data(1, 100_000)).await.unwrap();
    for (offset, len) in [(MIB, 3usize << 20), (8 * MIB, 6 << 20)] {
        let bytes = data(offset, len);
        set.write_at(offset, bytes.clone()).await.unwrap();
        assert_eq!(
            set.read_at(offset, len as u64).await.unwrap().into_bytes(),
            bytes
        );
        // The next one waits until there is room again, and is not lost.
        set.write_at(0, data(2, 100_000)).await.unwrap();
        set.flush().await.unwrap();
        assert_eq!(rig.stored("h-24", offset as usize, len), bytes);
    }
    assert_eq!(rig.stored("h-24", 0, 100_000), data(2, 100_000));
    assert_eq!(
        set.read_at(8 * MIB, 6 * MIB).await.unwrap().into_bytes(),
        data(8 * MIB, 6 << 20)
    );
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// F-01, H-33: the age limit holds for bytes that had to wait for room, too.
#[actix::test]
async fn bytes_that_waited_for_room_are_written_back_when_they_are_old() {
    let rig = held_rig(true);
    let first = rig.open("h-33-first").await;
    let second = rig.open("h-33-second").await;
    fill(&first).await;
    let waiting = start({
        let second = second.clone();
        async move { second.write_at(0, data(4, 300 << 10)).await }
    });
    // The flusher looks at the set while it holds nothing yet.
    pass(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    rig.gate.open();
    waiting.await.unwrap().unwrap();
    pass(Duration::from_secs(7)).await;
    assert_eq!(
        second.stats().0.dirty_bytes,
        0,
        "dirty bytes were forgotten"
    );
    assert_eq!(rig.stored("h-33-second", 0, 300 << 10), data(4, 300 << 10));
    rig.close().await;
}

/// H-34, H-39: what a full store refuses is kept, and writers wait until it is well again.
#[actix::test]
async fn a_full_store_holds_writers_up_and_loses_nothing() {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        ..config()
    });
    let set = rig.open("h-34").await;
    rig.control.set_condition(StoreCondition::Full);
    let writers: Vec<_> = (0..30u64)
        .map(|block| {
            let set = set.clone();
            start(async move { set.write_at(block << 16, data(block, 1 << 16)).await })
        })
        .collect();
    pass(Duration::from_secs(100)).await;
    assert!(writers.iter().any(|writer| !writer.is_finished()));
    assert!(matches!(
        set.flush().await,
        Err(CacheError::WriteBack { .. })
    ));
    assert_eq!(
        set.read_at(0, 1 << 16).await.unwrap().into_bytes(),
        data(0, 1 << 16)
    );
    rig.control.set_condition(StoreCondition::Up);
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    set.flush().await.unwrap();
    for block in 0..30u64 {
        assert_eq!(
            rig.stored("h-34", (block as usize) << 16, 1 << 16),
            data(block, 1 << 16)
        );
    }
    rig.close().await;
}

/// H-34: while nothing can be done, nothing is done.
#[actix::test]
async fn a_cache_that_waits_for_its_store_is_at_rest() {
    let rig = held_rig(true);
    let set = rig.open("at-rest").await;
    fill(&set).await;
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(4 * MIB, data(3, 500 << 10)).await }
    });
    pass(Duration::from_millis(1500)).await;
    let looks = rig.clock.looks();
    settle().await;
    assert!(
        rig.clock.looks() - looks < 20,
        "the actors keep each other awake"
    );
    assert!(!waiting.is_finished());
    rig.gate.open();
    waiting.await.unwrap().unwrap();
    rig.close().await;
}

/// W-09, S-07, H-46: a write that waits for an older context to be stored keeps its room just until it has entered.
#[actix::test]
async fn a_write_of_a_newer_context_waits_for_the_older_bytes_beneath() {
    let rig = Rig::new(config());
    let set = rig.open("w-09").await;
    rig.gate.hold_kind(OperationKind::Write);
    set.write_at(0, data(1, 10_000)).await.unwrap();
    set.set_snap_context(SnapContext::new(1, [1]).unwrap())
        .await
        .unwrap();
    let mut newer = Box::pin(set.write_at(5000, data(2, 10_000)));
    assert!(poll_once(newer.as_mut()).is_pending());
    let held = rig.gate.wait_held(1).await;
    assert!(matches!(poll_once(newer.as_mut()), Poll::Pending));
    assert_eq!(
        set.read_at(0, 10_000).await.unwrap().into_bytes(),
        data(1, 10_000)
    );
    rig.gate.release(held[0].number).unwrap();
    newer.await.unwrap();
    assert_eq!(
        set.read_at(5000, 10_000).await.unwrap().into_bytes(),
        data(2, 10_000)
    );

    // Given up at any point, it leaves no room behind.
    set.set_snap_context(SnapContext::new(2, [2, 1]).unwrap())
        .await
        .unwrap();
    for polls in 1..4 {
        drop_after(polls, set.write_at(5000, data(3, 10_000))).await;
    }
    rig.gate.open();
    set.flush().await.unwrap();
    settle().await;
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// W-10, H-20
#[actix::test]
async fn requests_that_make_no_sense_change_nothing() {
    let rig = Rig::new(config());
    let set = rig.open("w-10").await;
    let extents = vec![ObjectExtent::new(0, 0, 100).unwrap()];
    let short = WriteRequest {
        extents,
        data: data(1, 99),
        ..WriteRequest::default()
    };
    assert!(matches!(
        set.write(short).await,
        Err(CacheError::InvalidRequest(_))
    ));
    let past = set.write_object(0, (4 << 20) - 1, data(1, 2)).await;
    assert!(matches!(past, Err(CacheError::InvalidRequest(_))));
    assert!(matches!(
        set.write_at(u64::MAX, data(1, 2)).await,
        Err(CacheError::InvalidRequest(_))
    ));
    assert!(matches!(
        set.write_at(0, data(1, 0)).await,
        Err(CacheError::InvalidRequest(_))
    ));
    assert!(set.status().await.unwrap().is_empty);
    rig.audit(&[&set]).await;
    rig.close().await;
}

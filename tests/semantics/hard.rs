//! Hard cases that have broken caches of this kind, met by whole caches.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytesize::ByteSize;
use cachalot::backend::{
    AnswerFuture, Backend, Capabilities, Decorator, JournalNotice, MemoryBackend, Operation,
    OperationKind, StoreCondition,
};
use cachalot::{
    BackendError, CacheConfig, CacheError, Hints, JournalTid, OFFSET_BYTES_MAX, ObjectExtent,
    ObjectSet, SetOptions, WriteRequest,
};
use futures::FutureExt;

use super::common::{
    Rig, TokioClock, assert_nothing_left, config, data, name_of, pass, pause, settle, start,
    start_here, stored, touches,
};

const MIB: u64 = 1 << 20;

/// H-08
#[actix::test]
async fn what_reaches_past_the_end_of_a_volume_is_refused_whole_and_its_last_bytes_are_kept() {
    let rig = Rig::new(config());
    for (name, file_bytes) in [
        ("h-08", (5 << 20) + 3),
        ("h-08-vast", OFFSET_BYTES_MAX),
        ("h-08-tiny", 10),
    ] {
        let options = SetOptions::new(name).file_bytes(file_bytes);
        let set = rig.cache.open(options).await.unwrap();
        set.write_at(file_bytes - 10, data(1, 10)).await.unwrap();
        for (offset, len) in [
            (file_bytes - 10, 11),
            (file_bytes - 1, 2),
            (file_bytes, 1),
            (OFFSET_BYTES_MAX, 1),
            (1 << 63, 1),
            (u64::MAX, 1),
            (u64::MAX - 5, 10),
        ] {
            let refused = |error: CacheError| matches!(error, CacheError::InvalidRequest(_));
            let bytes = data(2, len as usize);
            assert!(refused(set.write_at(offset, bytes).await.unwrap_err()));
            assert!(refused(set.read_at(offset, len).await.unwrap_err()));
            assert!(refused(set.prefetch_at(offset, len).await.unwrap_err()));
            assert!(refused(set.flush_range(offset, len).await.unwrap_err()));
            assert!(refused(set.discard_range(offset, len).await.unwrap_err()));
            assert!(refused(set.is_cached_at(offset, len).await.unwrap_err()));
        }
        assert_eq!(set.stats().0.dirty_bytes, 10);
        set.flush().await.unwrap();
        set.release().await.unwrap();
        let read = set.read_at(file_bytes - 10, 10).await.unwrap();
        assert_eq!(read.into_bytes(), data(1, 10));
        set.close().await.unwrap();
    }
    rig.close().await;
}

/// H-15, F-02, F-06: whatever ends a batch, what lies behind it is stored before the flush ends.
#[actix::test]
async fn a_flush_leaves_nothing_out_at_the_edges_of_batches() {
    for (write_bytes_max, write_pieces_max, scattered_writes) in [
        (100, 1024, true),
        (64 << 10, 3, true),
        (1000, 1, false),
        (4 << 20, 2, false),
        (4 << 20, 1024, true),
    ] {
        let capabilities = Capabilities {
            scattered_writes,
            write_bytes_max,
            write_pieces_max,
            ..Capabilities::default()
        };
        let memory = MemoryBackend::builder().capabilities(capabilities).build();
        let rig = Rig::over(memory, config());
        let set = rig.open("h-15").await;
        let object = 4 * MIB;
        // Touching and apart, within windows and across, up to the ends of objects and over them.
        let pieces: Vec<(u64, usize)> = (0..120)
            .map(|nth| (nth * 97_003, 1 + (nth * 61 % 500) as usize))
            .chain((1..4).map(|nth| (nth * object - 300, 600)))
            .chain((0..50).map(|nth| (3 * object + nth * 700, 700)))
            .collect();
        for (nth, (offset, len)) in pieces.iter().enumerate() {
            set.write_at(*offset, data(nth as u64, *len)).await.unwrap();
        }
        let mut expected: Vec<(u64, Vec<u8>)> = Vec::new();
        for (offset, len) in &pieces {
            let bytes = set.read_at(*offset, *len as u64).await.unwrap().to_vec();
            expected.push((*offset, bytes));
        }
        set.flush().await.unwrap();
        let objects: Vec<_> = (0..4)
            .map(|number| rig.memory.content(&name_of("h-15", number)).unwrap())
            .collect();
        for (offset, bytes) in expected {
            for (at, byte) in (offset..).zip(bytes) {
                let content = &objects[(at / object) as usize];
                let found = content.get((at % object) as usize);
                assert_eq!(found, Some(&byte), "at {at} with {capabilities:?}");
            }
        }
        assert_eq!(set.stats().0.dirty_bytes, 0);
        rig.audit(&[&set]).await;
        rig.close().await;
    }
}

/// H-22, H-39
#[actix::test]
async fn a_store_that_turns_read_only_is_read_on_and_nothing_is_lost() {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        target_dirty_bytes: ByteSize::mib(1),
        ..config()
    });
    let set = rig.open("h-22").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.release().await.unwrap();
    set.write_at(4 * MIB, data(2, 600 << 10)).await.unwrap();
    rig.control.set_condition(StoreCondition::ReadOnly);
    set.write_at(4 * MIB, data(4, 1000)).await.unwrap();
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(8 * MIB, data(3, 600 << 10)).await }
    });
    // Long over the age limit.
    pass(Duration::from_secs(100)).await;
    assert!(!waiting.is_finished());
    let failed = set.flush().await.unwrap_err();
    assert!(
        matches!(
            &failed,
            CacheError::WriteBack {
                source: BackendError::ReadOnly,
                ..
            }
        ),
        "{failed:?}"
    );
    let status = set.status().await.unwrap();
    assert!(status.is_dirty_or_committing && status.last_error.is_some());
    let missed = set.read_at(0, 1000).await.unwrap();
    assert_eq!(missed.into_bytes(), data(1, 1000));
    set.release().await.unwrap();
    let read = set.read_at(4 * MIB, 1000).await.unwrap();
    assert_eq!(read.into_bytes(), data(4, 1000));
    rig.control.set_condition(StoreCondition::Up);
    waiting.await.unwrap().unwrap();
    set.flush().await.unwrap();
    assert_eq!(rig.stored("h-22", 4 << 20, 1000), data(4, 1000));
    let rest = data(2, 600 << 10).slice(1000..);
    assert_eq!(rig.stored("h-22", (4 << 20) + 1000, rest.len()), rest);
    assert_eq!(rig.stored("h-22", 8 << 20, 600 << 10), data(3, 600 << 10));
    rig.close().await;
}

/// H-32
#[actix::test]
async fn a_flush_waits_for_no_write_that_waits_for_its_room() {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        target_dirty_bytes: ByteSize::mib(1),
        ..config()
    });
    rig.gate.hold_kind(OperationKind::Write);
    let set = rig.open("h-32").await;
    set.write_at(0, data(1, 900 << 10)).await.unwrap();
    let writers: Vec<_> = (1..4u64)
        .map(|nth| {
            let set = set.clone();
            start(async move { set.write_at(nth * 4 * MIB, data(nth, 900 << 10)).await })
        })
        .collect();
    settle().await;
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    let flushes: Vec<_> = (0..2)
        .map(|_| {
            let set = set.clone();
            start(async move { set.flush().await })
        })
        .collect();
    let all = start({
        let cache = rig.cache.clone();
        async move { cache.flush_all().await }
    });
    for _ in 0..10 {
        settle().await;
        rig.gate.release_where(touches(name_of("h-32", 0)));
    }
    assert!(
        flushes.iter().all(tokio::task::JoinHandle::is_finished) && all.is_finished(),
        "a flush waits for writes that came in after it"
    );
    assert!(writers[0].is_finished() && !writers[1].is_finished());
    // The others get in one by one as those before them are stored, and no time passes.
    rig.gate.open();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    set.flush().await.unwrap();
    assert_eq!(rig.stored("h-32", 12 << 20, 900 << 10), data(3, 900 << 10));
    rig.close().await;
}

/// H-42, L-03
#[actix::test]
async fn closing_ends_amid_reads_read_ahead_writes_and_writebacks_that_failed() {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        target_dirty_bytes: ByteSize::mib(1),
        ..config()
    });
    let set = rig.open("h-42").await;
    set.write_at(0, data(1, 600 << 10)).await.unwrap();
    rig.control.set_condition(StoreCondition::Down);
    set.flush().await.unwrap_err();
    rig.control.set_condition(StoreCondition::Up);
    rig.gate.hold_all();
    // One of each: under way, and in the pause after a failure.
    let read = start({
        let set = set.clone();
        async move { set.read_at(20 * MIB, 1000).await.map(|bytes| bytes.len()) }
    });
    let prefetch = start({
        let set = set.clone();
        async move { set.prefetch_at(24 * MIB, 1000).await }
    });
    let write = start({
        let set = set.clone();
        async move { set.write_at(8 * MIB, data(2, 600 << 10)).await }
    });
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    settle().await;
    let close = |cache: &cachalot::Cache| {
        let cache = cache.clone();
        start(async move { cache.close().await })
    };
    let failing = close(&rig.cache);
    pass(Duration::from_secs(1)).await;
    assert!(!failing.is_finished() && !write.is_finished() && !flush.is_finished());
    let is_write = |operation: &Operation| operation.kind() == OperationKind::Write;
    assert!(rig.gate.fail_where(is_write, BackendError::Unavailable) > 0);
    settle().await;
    let told = failing.await.unwrap();
    assert!(
        matches!(told, Err(CacheError::WriteBack { .. })),
        "{told:?}"
    );
    assert!(flush.await.unwrap().is_err());
    assert_eq!(set.stats().0.dirty_bytes, 600 << 10, "nothing is lost");
    let closing = close(&rig.cache);
    rig.gate.open();
    closing.await.unwrap().unwrap();
    assert_eq!(read.await.unwrap(), Ok(1000));
    assert_eq!(prefetch.await.unwrap(), Ok(()));
    assert_eq!(rig.stored("h-42", 0, 600 << 10), data(1, 600 << 10));
    if write.await.unwrap().is_ok() {
        assert_eq!(rig.stored("h-42", 8 << 20, 600 << 10), data(2, 600 << 10));
    }
    assert_nothing_left(&rig.cache);
}

/// Calls straight back into the cache, on the thread and within the call of whoever calls it.
#[derive(Debug, Default)]
struct CallsBack {
    set: OnceLock<ObjectSet>,
    times: AtomicUsize,
}

impl CallsBack {
    fn call(&self) {
        // What is asked for here may end in the next call.
        let times = self.times.fetch_add(1, Ordering::Relaxed);
        let Some(set) = self.set.get().filter(|_| times < 40) else {
            return;
        };
        // These are done in place where nobody waits for room; what was not dirty before is put on the set's list.
        let clean = (64 + times as u64) * MIB;
        let written = set.write_at(clean, data(5, 10)).now_or_never();
        assert!(!matches!(written, Some(Err(_))), "{written:?}");
        let read = set.read_at(clean, 10).now_or_never();
        assert!(!matches!(read, Some(Err(_))), "{read:?}");
        assert!(set.stats().1.write_bytes > 0);
        drop(set.clean_events());
        // These need the actor, which is busy: they are asked for, and given up.
        let dont_need = Hints {
            dont_need: true,
            ..Hints::default()
        };
        let read = set.read_at_with(44 * MIB, 10, dont_need).now_or_never();
        assert!(!matches!(read, Some(Err(_))), "{read:?}");
        assert_eq!(set.flush().now_or_never(), None);
        assert_eq!(set.status().now_or_never(), None);
        assert_eq!(set.discard_range(48 * MIB, 10).now_or_never(), None);
    }
}

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        self.call();
    }
}

/// A store that calls back whenever it is called.
#[derive(Debug)]
struct Talkative {
    inner: MemoryBackend,
    back: Arc<CallsBack>,
}

impl Decorator for Talkative {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        self.back.call();
        operation.start(&self.inner)
    }

    fn notice(&self, notice: JournalNotice) {
        self.back.call();
        self.inner.journal(notice);
    }
}

/// H-43: not later, from a task of its own, but out of the wake-up that the answer is.
#[actix::test]
async fn an_answer_may_call_straight_back_into_the_cache() {
    let rig = Rig::new(CacheConfig {
        max_dirty_bytes: ByteSize::mib(1),
        ..config()
    });
    let set = rig.open("h-43-wakes").await;
    let other = rig.open("h-43-other").await;
    set.write_at(0, data(1, 900 << 10)).await.unwrap();
    rig.gate.hold_all();
    let mut events = set.clean_events();
    type Asked<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;
    let asked: Vec<(&str, Asked<'_>)> = vec![
        (
            "read",
            Box::pin(set.read_at(8 * MIB, 100).map(|answer| answer.is_ok())),
        ),
        (
            "prefetch",
            Box::pin(set.prefetch_at(12 * MIB, 100).map(|answer| answer.is_ok())),
        ),
        ("flush", Box::pin(set.flush().map(|answer| answer.is_ok()))),
        (
            "write",
            Box::pin(
                set.write_at(16 * MIB, data(2, 900 << 10))
                    .map(|answer| answer.is_ok()),
            ),
        ),
        (
            "discard",
            Box::pin(set.discard_range(0, 1000).map(|answer| answer.is_ok())),
        ),
        (
            "status",
            Box::pin(set.status().map(|answer| answer.is_ok())),
        ),
        (
            "event",
            Box::pin(events.next().map(|event| event.is_some())),
        ),
        (
            "close",
            Box::pin(other.close().map(|answer| answer.is_ok())),
        ),
        (
            "flush all",
            Box::pin(rig.cache.flush_all().map(|answer| answer.is_ok())),
        ),
    ];
    let mut waiting = Vec::new();
    for (what, mut future) in asked {
        let back = Arc::new(CallsBack::default());
        back.set.set(set.clone()).unwrap();
        let waker = Waker::from(back.clone());
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending(), "{what}");
        settle().await;
        waiting.push((what, future, back, waker));
    }
    rig.gate.open();
    pass(Duration::from_secs(10)).await;
    for (what, mut future, back, waker) in waiting {
        assert!(
            back.times.load(Ordering::Relaxed) > 0,
            "{what} is not answered"
        );
        let mut polled = Poll::Pending;
        for _ in 0..100 {
            polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                break;
            }
            pass(Duration::from_millis(10)).await;
        }
        assert_eq!(polled, Poll::Ready(true), "{what}");
    }
    // Once more where nobody waits for room, so that writes are put in within the wake-up.
    set.flush().await.unwrap();
    let back = Arc::new(CallsBack::default());
    back.set.set(set.clone()).unwrap();
    let waker = Waker::from(back.clone());
    let mut read = Box::pin(set.read_at(20 * MIB, 100));
    let polled = read.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    settle().await;
    assert!(back.times.load(Ordering::Relaxed) > 0);
    read.await.unwrap();
    settle().await;
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// H-43
#[actix::test]
async fn a_store_may_call_straight_back_into_the_cache() {
    pause();
    let back = Arc::new(CallsBack::default());
    let inner = MemoryBackend::new();
    let backend = Talkative {
        inner,
        back: back.clone(),
    };
    let cache = start_here(Arc::new(backend), Arc::new(TokioClock::new()), config());
    let set = cache.open(SetOptions::new("h-43-store")).await.unwrap();
    back.set.set(set.clone()).unwrap();
    for tid in 1..4u64 {
        let write = WriteRequest {
            extents: vec![ObjectExtent::new(0, 0, 100).unwrap()],
            data: data(tid, 100),
            journal_tid: Some(JournalTid(tid.try_into().unwrap())),
            ..WriteRequest::default()
        };
        set.write(write).await.unwrap();
        set.read_at(tid * 8 * MIB, 100).await.unwrap();
        set.flush().await.unwrap();
    }
    settle().await;
    assert!(back.times.load(Ordering::Relaxed) > 10);
    let read = set.read_at(0, 100).await.unwrap();
    assert_eq!(read.into_bytes(), data(3, 100));
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

/// H-45, S-04, T-01
#[actix::test]
async fn nothing_takes_dirty_bytes_away_but_a_drop_that_was_asked_for() {
    let rig = Rig::new(config());
    let set = rig.open("h-45").await;
    set.write_at(0, data(1, 100_000)).await.unwrap();
    set.flush().await.unwrap();
    set.write_at(1000, data(2, 50_000)).await.unwrap();
    set.write_object(9, 5, data(3, 500)).await.unwrap();
    rig.control.set_condition(StoreCondition::Full);
    let is_kept = async |what: &str| {
        settle().await;
        let gauges = set.stats().0;
        assert_eq!(gauges.dirty_bytes + gauges.tx_bytes, 50_500, "after {what}");
        let read = set.read_at(1000, 50_000).await.unwrap();
        assert_eq!(read.into_bytes(), data(2, 50_000), "after {what}");
        let read = set.read_object(9, 5, 500).await.unwrap();
        assert_eq!(read.into_bytes(), data(3, 500), "after {what}");
    };
    assert_eq!(set.release().await.unwrap(), 50_500);
    is_kept("a release").await;
    assert_eq!(rig.cache.release_all().await, 50_500);
    is_kept("a release of all").await;
    set.clear_nonexistence().await.unwrap();
    is_kept("forgetting absence").await;
    let unneeded = Hints {
        dont_need: true,
        no_cache: true,
        ..Hints::default()
    };
    set.read_at_with(0, 100_000, unneeded).await.unwrap();
    set.prefetch_at(0, 100_000).await.unwrap();
    is_kept("a read of what is not needed").await;
    for block in 0..32 {
        set.read_at(100 * MIB + block * 4 * MIB, MIB).await.unwrap();
    }
    is_kept("reads of more than there is room for").await;
    let small = CacheConfig {
        max_bytes: ByteSize::kib(40),
        max_dirty_bytes: ByteSize::kib(20),
        target_dirty_bytes: ByteSize(0),
        max_objects: 1,
        ..config()
    };
    rig.cache.set_limits(&small).await.unwrap();
    pass(Duration::from_secs(30)).await;
    is_kept("lowered limits").await;
    let write_through = CacheConfig {
        max_dirty_bytes: ByteSize(0),
        target_dirty_bytes: ByteSize(0),
        ..config()
    };
    rig.cache.set_limits(&write_through).await.unwrap();
    pass(Duration::from_secs(30)).await;
    is_kept("a switch to write-through").await;
    rig.cache.set_limits(&config()).await.unwrap();
    set.flush().await.unwrap_err();
    is_kept("a flush that failed").await;
    set.close().await.unwrap_err();
    rig.cache.close().await.unwrap_err();
    is_kept("closing that failed").await;
    // What is asked to be dropped is, and nothing beside it.
    set.discard_range(1000, 10_000).await.unwrap();
    assert_eq!(set.stats().0.dirty_bytes, 40_500);
    set.truncate(9, 105).await.unwrap();
    assert_eq!(set.stats().0.dirty_bytes, 40_100);
    assert_eq!(set.purge().await.unwrap(), 40_100, "a purge tells");
    rig.control.set_condition(StoreCondition::Up);
    assert_eq!(rig.stored("h-45", 0, 100_000), data(1, 100_000));
    assert_eq!(stored(&rig.memory, "h-45", 9 << 22, 505), vec![0; 505]);
    let absent = rig.memory.content(&name_of("h-45", 9));
    assert!(absent.is_none(), "a purge stores nothing");
    rig.close().await;
}

use std::time::Duration;

use futures::executor::block_on;
use futures::future::{BoxFuture, join_all};

use super::*;
use crate::backend::{BackendRead, BackendWrite, MemoryBackend, WriteRun, contract};
use crate::types::{ByteRange, Hints, ObjectName, SnapContext, SnapId, Timestamp, Truncation};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn write_runs(runs: &[(u64, &'static [u8])]) -> BackendWrite {
    let run = |(offset, data): &(u64, &'static [u8])| WriteRun {
        offset: *offset,
        buffers: vec![Bytes::from_static(data)],
        journal_tid: None,
    };
    BackendWrite {
        object: name("o"),
        runs: runs.iter().map(run).collect(),
        context: SnapContext::default(),
        modified: Timestamp::default(),
        truncation: Truncation::default(),
    }
}

fn write_of(data: &'static [u8]) -> BackendWrite {
    write_runs(&[(0, data)])
}

fn read_of(len: u64) -> BackendRead {
    BackendRead {
        object: name("o"),
        snap: SnapId::HEAD,
        range: ByteRange::new(0, len).unwrap(),
        hints: Hints::default(),
        truncation: Truncation::default(),
    }
}

/// A faulty store that promises neither order nor atomic writes, and the memory within.
fn unreliable(seed: u64, plan: FaultPlan) -> (FaultyBackend, Arc<MemoryBackend>) {
    let memory = Arc::new(MemoryBackend::new());
    let promised = Capabilities {
        atomic_writes: false,
        ordered_writes: false,
        ..memory.capabilities()
    };
    let builder = FaultyBackend::builder(Arc::clone(&memory) as _, seed);
    (builder.plan(plan).capabilities(promised).build(), memory)
}

fn content(memory: &MemoryBackend) -> Option<Vec<u8>> {
    memory.content(&name("o")).map(|bytes| bytes.to_vec())
}

fn is_pending<T>(future: &mut BoxFuture<'static, T>) -> bool {
    future.now_or_never().is_none()
}

#[tokio::test]
async fn a_faulty_store_without_faults_keeps_the_contract() -> Result<(), contract::Violations> {
    let new = || FaultyBackend::new(Arc::new(MemoryBackend::new()), 17);
    contract::check(async || Arc::new(new()) as _).await
}

/// Delays, doubled operations and short reads are within the contract.
#[tokio::test]
async fn what_the_contract_allows_keeps_the_contract() -> Result<(), contract::Violations> {
    let plan = FaultPlan {
        delay: 0.3,
        delay_max: Duration::from_micros(50),
        short_read: 0.5,
        ..FaultPlan::default()
    };
    let double = FaultPlan {
        double: 1.0,
        ..plan
    };
    contract::check(async || {
        let (store, _) = unreliable(17, plan);
        store.control().set_plan_of(OperationKind::Write, double);
        Arc::new(store) as _
    })
    .await?;
    // With order promised, a second execution never undoes a later write.
    contract::check(async || {
        let store = FaultyBackend::new(Arc::new(MemoryBackend::new()), 18);
        store.control().set_plan(plan);
        store.control().set_plan_of(OperationKind::Write, double);
        Arc::new(store) as _
    })
    .await
}

#[tokio::test]
async fn a_failed_operation_does_nothing() {
    let (store, memory) = unreliable(
        1,
        FaultPlan {
            fail: 1.0,
            ..FaultPlan::default()
        },
    );
    for _ in 0..20 {
        let error = store.write(write_of(b"data")).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
    assert_eq!(content(&memory), None);
    assert!(store.sync().await.is_err() && store.stat(name("o")).await.is_err());
    assert_eq!(store.control().counts().failed, 22);
}

/// H-16
#[tokio::test]
async fn a_lost_reply_leaves_the_write_stored() {
    let plan = FaultPlan {
        lose_reply: 1.0,
        ..FaultPlan::default()
    };
    let (store, memory) = unreliable(1, plan);
    assert_eq!(
        store.write(write_of(b"data")).await,
        Err(BackendError::TimedOut)
    );
    assert_eq!(content(&memory).unwrap(), b"data");
    assert_eq!(store.read(read_of(4)).await, Err(BackendError::TimedOut));
    assert_eq!(store.control().counts().replies_lost, 2);
}

/// H-10
#[tokio::test]
async fn an_operation_never_answered_is_done_or_not() {
    let plan = FaultPlan {
        never_reply: 1.0,
        ..FaultPlan::default()
    };
    let (mut stored, mut lost) = (0, 0);
    for seed in 0..20 {
        let (store, memory) = unreliable(seed, plan);
        assert!(is_pending(&mut store.write(write_of(b"data"))));
        match content(&memory) {
            Some(_) => stored += 1,
            None => lost += 1,
        }
        assert_eq!(store.control().counts().replies_never, 1);
    }
    assert!(stored > 0 && lost > 0, "{stored} stored, {lost} lost");
}

#[tokio::test]
async fn a_doubled_write_is_stored_twice() {
    let (store, memory) = unreliable(
        1,
        FaultPlan {
            double: 1.0,
            ..FaultPlan::default()
        },
    );
    store.write(write_of(b"data")).await.unwrap();
    assert_eq!(memory.operations().writes.operations, 2);
    assert_eq!(content(&memory).unwrap(), b"data");
    assert_eq!(store.remove(name("o")).await, Err(BackendError::NotFound));
    assert_eq!(content(&memory), None);
    assert_eq!(store.read(read_of(4)).await, Err(BackendError::NotFound));
    assert_eq!(memory.operations().reads.operations, 1);
    assert_eq!(store.control().counts().doubled, 2);
}

#[tokio::test]
async fn a_partial_store_keeps_some_and_fails() {
    let plan = FaultPlan {
        partial_store: 1.0,
        ..FaultPlan::default()
    };
    for seed in 0..20 {
        let (store, memory) = unreliable(seed, plan);
        let scattered = write_runs(&[(0, b"aa"), (2, b"bb"), (6, b"cc")]);
        assert!(store.write(scattered).await.is_err());
        let kept = content(&memory).unwrap();
        let bytes = kept.iter().filter(|byte| **byte != 0).count();
        assert!(bytes == 2 || bytes == 4, "seed {seed}: {kept:?}");

        let (store, memory) = unreliable(seed, plan);
        assert!(store.write(write_of(b"abcd")).await.is_err());
        let kept = content(&memory).unwrap();
        assert!(
            b"abcd".starts_with(&kept) && (1..4).contains(&kept.len()),
            "seed {seed}: {kept:?}"
        );
        assert!(store.write(write_of(b"x")).await.is_err());
        assert_eq!(content(&memory).unwrap(), kept);
    }
}

#[tokio::test]
async fn an_atomic_write_is_never_stored_in_part() {
    let plan = FaultPlan {
        partial_store: 1.0,
        ..FaultPlan::default()
    };
    let store = FaultyBackend::builder(Arc::new(MemoryBackend::new()), 1)
        .plan(plan)
        .build();
    assert_eq!(store.write(write_of(b"abcd")).await, Ok(()));
    assert_eq!(store.control().counts().partial_stores, 0);
}

/// H-07, R-06
#[tokio::test]
async fn a_short_read_lacks_only_zeros() {
    let plan = FaultPlan {
        short_read: 1.0,
        ..FaultPlan::default()
    };
    let (store, _) = unreliable(1, plan);
    store.write(write_of(b"ab\0c\0\0")).await.unwrap();
    assert_eq!(store.read(read_of(6)).await.unwrap(), &b"ab\0c"[..]);
    assert_eq!(store.read(read_of(4)).await.unwrap(), &b"ab\0c"[..]);
    assert_eq!(store.control().counts().short_reads, 1);
}

#[tokio::test(start_paused = true)]
async fn delayed_operations_overtake_each_other() {
    #[expect(clippy::disallowed_methods, reason = "the test's timer is tokio's")]
    let delayer = |time| tokio::time::sleep(time).boxed();
    let plan = FaultPlan {
        delay: 1.0,
        delay_max: Duration::from_secs(1),
        ..FaultPlan::default()
    };
    let store = FaultyBackend::builder(Arc::new(MemoryBackend::new()), 17)
        .plan(plan)
        .delayer(Arc::new(delayer))
        .build();
    let finished = Mutex::new(Vec::new());
    let numbered = |number: u64| {
        let writing = store.write(write_runs(&[(number, b"x")]));
        let finished = &finished;
        async move {
            writing.await.unwrap();
            finished.lock().push(number);
        }
    };
    join_all((0..20).map(numbered)).await;
    assert!(!finished.lock().is_sorted(), "{finished:?}");
    assert_eq!(store.control().counts().delayed, 20);
    assert_eq!(store.read(read_of(20)).await.unwrap().len(), 20);
}

#[tokio::test]
async fn a_seed_repeats_its_faults() {
    let plan = FaultPlan {
        fail: 0.2,
        lose_reply: 0.2,
        double: 0.3,
        partial_store: 0.2,
        ..FaultPlan::default()
    };
    let run = async |seed| {
        let (store, memory) = unreliable(seed, plan);
        let mut answers = Vec::new();
        for _ in 0..100 {
            answers.push(store.write(write_of(b"data")).await);
        }
        (answers, memory.operations(), store.control().counts())
    };
    assert_eq!(run(5).await, run(5).await);
    assert_ne!(run(5).await, run(6).await);
}

/// H-22, H-34, H-41
#[tokio::test]
async fn a_condition_refuses_what_it_says() {
    let (store, memory) = unreliable(1, FaultPlan::default());
    let control = store.control();
    store.write(write_of(b"data")).await.unwrap();
    let range = ByteRange::new(0, 1).unwrap();
    for (condition, error, read_works, discard_works) in [
        (
            StoreCondition::Down,
            BackendError::Unavailable,
            false,
            false,
        ),
        (StoreCondition::Full, BackendError::Full, true, true),
        (
            StoreCondition::ReadOnly,
            BackendError::ReadOnly,
            true,
            false,
        ),
        (StoreCondition::Fenced, BackendError::Fenced, false, false),
    ] {
        control.set_condition(condition);
        assert_eq!(control.condition(), condition);
        assert_eq!(store.write(write_of(b"more")).await, Err(error));
        assert_eq!(store.read(read_of(4)).await.is_ok(), read_works);
        let discarded = store.discard(name("o"), range).await;
        assert_eq!(discarded.is_ok(), discard_works, "{condition:?}");
    }
    assert_eq!(content(&memory).unwrap(), b"\0ata");
    control.set_condition(StoreCondition::Up);
    assert_eq!(store.write(write_of(b"more")).await, Ok(()));
}

#[tokio::test]
async fn the_next_operation_of_a_kind_fails_to_order() {
    let (store, memory) = unreliable(1, FaultPlan::default());
    let control = store.control();
    control.fail_next(OperationKind::Write, BackendError::Full);
    control.fail_next(OperationKind::Sync, BackendError::TimedOut);
    control.fail_next(OperationKind::Write, BackendError::Unavailable);
    assert_eq!(store.write(write_of(b"1")).await, Err(BackendError::Full));
    assert_eq!(
        store.write(write_of(b"2")).await,
        Err(BackendError::Unavailable)
    );
    assert_eq!(content(&memory), None);
    assert_eq!(store.write(write_of(b"3")).await, Ok(()));
    assert_eq!(store.sync().await, Err(BackendError::TimedOut));
    assert_eq!(store.sync().await, Ok(()));
}

/// W-10
#[tokio::test]
async fn a_write_beyond_the_promises_is_refused() {
    let memory = Arc::new(MemoryBackend::new());
    let store = FaultyBackend::builder(memory, 1)
        .capabilities(Capabilities::default())
        .build();
    let refused = store.write(write_runs(&[(0, b"a"), (5, b"b")])).await;
    assert!(matches!(refused, Err(BackendError::Unsupported { .. })));
}

#[tokio::test]
async fn the_gate_stores_in_the_order_of_releases() {
    let (store, memory) = unreliable(1, FaultPlan::default());
    let gate = store.gate();
    gate.hold_kind(OperationKind::Write);
    let mut first = store.write(write_of(b"1"));
    let mut second = store.write(write_of(b"2"));
    let third = store.write(write_of(b"3"));
    assert_eq!(store.sync().await, Ok(()));
    assert!(is_pending(&mut first) && is_pending(&mut second));
    let held = gate.wait_held(3).await;
    assert_eq!(
        held.iter().map(|held| held.number).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(held[1].operation, Operation::Write(write_of(b"2")));

    gate.release(2).unwrap();
    assert_eq!(content(&memory).unwrap(), b"3");
    gate.release(0).unwrap();
    assert_eq!(content(&memory).unwrap(), b"1");
    assert!(is_pending(&mut second));
    gate.fail(1, BackendError::Full).unwrap();
    assert_eq!(gate.release(1), Err(NotHeld { number: 1 }));
    assert_eq!(
        (first.await, second.await),
        (Ok(()), Err(BackendError::Full))
    );
    assert_eq!(third.await, Ok(()));
    assert_eq!(content(&memory).unwrap(), b"1");
}

/// H-13, H-16
#[tokio::test]
async fn the_gate_loses_replies_and_lands_what_was_given_up() {
    let (store, memory) = unreliable(1, FaultPlan::default());
    let gate = store.gate();
    gate.hold_all();
    let lost = store.write(write_of(b"lost"));
    gate.store_then_fail(0, BackendError::TimedOut).unwrap();
    assert_eq!(content(&memory).unwrap(), b"lost");
    assert_eq!(lost.await, Err(BackendError::TimedOut));

    let late = store.write(write_of(b"late"));
    assert!(!gate.held()[0].given_up);
    drop(late);
    assert!(gate.held()[0].given_up);
    assert!(gate.wait_held(1).now_or_never().is_none());
    gate.release(1).unwrap();
    assert_eq!(content(&memory).unwrap(), b"late");
    assert!(gate.held().is_empty());
}

#[tokio::test]
async fn what_arrives_while_the_gate_opens_is_not_left_behind() {
    let (store, _) = unreliable(1, FaultPlan::default());
    let (gate, opener) = (store.gate(), store.gate());
    // The worst moment: the rule has been asked, and its answer has not been acted on.
    gate.hold_where(move |_| {
        opener.open();
        true
    });
    let write = store.write(write_of(b"1"));
    assert!(gate.held().is_empty());
    assert_eq!(write.await, Ok(()));
}

#[tokio::test]
async fn the_gate_chooses_by_predicate() {
    let (store, _) = unreliable(1, FaultPlan::default());
    let gate = store.gate();
    let at = |offset: u64| {
        move |operation: &Operation| {
            operation
                .range()
                .is_some_and(|range| range.start() == offset)
        }
    };
    gate.hold_where(|operation| operation.is_change());
    let writes = join_all((0..4).map(|offset| store.write(write_runs(&[(offset, b"x")]))));
    assert_eq!(store.stat(name("o")).await, Err(BackendError::NotFound));
    assert_eq!(gate.wait_held_where(1, at(3)).await.len(), 1);
    assert!(gate.wait_held_where(2, at(3)).now_or_never().is_none());
    assert_eq!(gate.fail_where(at(2), BackendError::ReadOnly), 1);
    assert_eq!(gate.release_where(at(1)), 1);
    assert_eq!(gate.open(), 2);
    let expected = [Ok(()), Ok(()), Err(BackendError::ReadOnly), Ok(())];
    assert_eq!(writes.await, expected);
    assert_eq!(store.remove(name("o")).await, Ok(()));
}

#[test]
fn a_wait_at_the_gate_ends_with_the_operation_it_waits_for() {
    let (store, _) = unreliable(1, FaultPlan::default());
    let gate = store.gate();
    gate.hold_all();
    let waiting = std::thread::spawn({
        let gate = gate.clone();
        move || block_on(gate.wait_held(3)).len()
    });
    let syncing = join_all((0..3).map(|_| store.sync()));
    assert_eq!(waiting.join().unwrap(), 3);
    assert_eq!(gate.release_all(), 3);
    assert_eq!(block_on(syncing), [Ok(()), Ok(()), Ok(())]);
}

/// H-10: what waits at a gate that goes away is answered.
#[tokio::test]
async fn the_end_of_the_store_answers_what_is_held() {
    let (store, _) = unreliable(1, FaultPlan::default());
    store.gate().hold_all();
    let syncing = store.sync();
    drop(store);
    assert_eq!(syncing.await, Err(BackendError::Unavailable));
}

//! Operations on whole sets: looking, dropping, cutting.

use std::sync::Arc;

use cachalot::backend::{Backend, Capabilities, MemoryBackend, OperationKind};
use cachalot::{
    CacheConfig, CacheError, JournalTid, Layout, Missing, ObjectExtent, RequestError, SetOptions,
    SnapId, SystemClock, Truncation, WriteRequest,
};

use super::common::{Rig, config, data, name_of, settle, start, start_here};

const MIB: u64 = 1 << 20;

/// S-01
#[actix::test]
async fn a_range_is_cached_only_if_every_byte_of_it_is_held_in_any_state() {
    let rig = Rig::new(config());
    let set = rig.open("s-01").await;
    assert!(!set.is_cached_at(0, 1).await.unwrap());
    set.write_at(0, data(1, 1000)).await.unwrap();
    rig.gate.hold_kind(OperationKind::Read);
    let read = start({
        let set = set.clone();
        async move { set.read_at(1000, 1000).await }
    });
    rig.gate.wait_held(1).await;
    // Dirty, and on its way.
    assert!(set.is_cached_at(0, 2000).await.unwrap());
    assert!(!set.is_cached_at(0, 2001).await.unwrap());
    let extents = vec![ObjectExtent::new(0, 0, 10).unwrap()];
    assert!(!set.is_cached(extents, SnapId::snapshot(3)).await.unwrap());
    rig.gate.open();
    read.await.unwrap().unwrap();
    rig.close().await;
}

/// S-02
#[actix::test]
async fn a_set_tells_what_it_holds() {
    let rig = Rig::new(config());
    let set = rig.open("s-02").await;
    let status = set.status().await.unwrap();
    assert!(status.is_empty && !status.has_cached && !status.is_dirty_or_committing);
    set.write_at(0, data(1, 1000)).await.unwrap();
    let status = set.status().await.unwrap();
    assert!(!status.is_empty && !status.has_cached && status.is_dirty_or_committing);
    rig.gate.hold_kind(OperationKind::Write);
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    rig.gate.wait_held(1).await;
    assert!(set.status().await.unwrap().is_dirty_or_committing);
    rig.gate.open();
    flush.await.unwrap().unwrap();
    let status = set.status().await.unwrap();
    assert!(!status.is_empty && status.has_cached && !status.is_dirty_or_committing);
    rig.close().await;
}

/// S-03, S-07, H-27
#[actix::test]
async fn a_purge_drops_everything_ends_flushes_and_lets_waiting_writers_in() {
    let rig = Rig::new(config());
    let set = rig.open("s-03").await;
    rig.gate.hold_kind(OperationKind::Write);
    for block in 0..30u64 {
        set.write_at(block << 16, data(block, 60 << 10))
            .await
            .unwrap();
    }
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(16 * MIB, data(1, 500 << 10)).await }
    });
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    settle().await;
    let (gauges, _) = set.stats();
    assert!(!waiting.is_finished() && !flush.is_finished() && gauges.tx_bytes > 0);
    let lost = set.purge().await.unwrap();
    assert_eq!(lost, gauges.dirty_bytes);
    flush.await.unwrap().unwrap();
    rig.gate.open();
    waiting.await.unwrap().unwrap();
    settle().await;
    assert!(!set.is_cached_at(0, 1).await.unwrap());
    assert_eq!(
        set.read_at(16 * MIB, 500 << 10).await.unwrap().into_bytes(),
        data(1, 500 << 10)
    );
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// S-04
#[actix::test]
async fn a_release_keeps_what_is_not_stored_and_forgets_the_rest() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("s-04").await, rig.open("s-04-other").await);
    set.write_object(0, 0, data(1, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.write_object(1, 0, data(2, 700)).await.unwrap();
    set.read_object(2, 0, 500).await.unwrap();
    other.write_object(0, 0, data(3, 50)).await.unwrap();
    assert_eq!(set.release().await.unwrap(), 700);
    assert_eq!(rig.cache.release_all().await, 750);
    let dump = set.dump().await.unwrap();
    assert_eq!(dump.objects.len(), 1);
    let reads = rig.memory.operations().reads.operations;
    set.read_object(2, 0, 500).await.unwrap();
    assert_eq!(
        rig.memory.operations().reads.operations,
        reads + 1,
        "absence was remembered"
    );
    assert_eq!(
        set.read_object(1, 0, 700).await.unwrap().into_bytes(),
        data(2, 700)
    );
    rig.audit(&[&set, &other]).await;
    rig.close().await;
}

/// S-05, H-13: the caller's own discard in the store is not overtaken by what was in flight.
#[actix::test]
async fn a_discard_resolves_when_what_was_in_flight_over_it_has_landed() {
    let rig = Rig::new(config());
    let set = rig.open("s-05").await;
    set.write_at(0, data(1, 10_000)).await.unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    rig.gate.wait_held(1).await;
    let discard = start({
        let set = set.clone();
        async move { set.discard_range(2000, 3000).await }
    });
    settle().await;
    assert!(!discard.is_finished());
    assert!(!set.is_cached_at(2000, 1).await.unwrap());
    assert!(
        set.is_cached_at(0, 2000).await.unwrap() && set.is_cached_at(5000, 5000).await.unwrap()
    );
    rig.gate.open();
    discard.await.unwrap().unwrap();
    flush.await.unwrap().unwrap();
    let range = cachalot::ByteRange::new(2000, 3000).unwrap();
    rig.memory.discard(name_of("s-05", 0), range).await.unwrap();
    let mut expected = data(1, 10_000).to_vec();
    expected[2000..5000].fill(0);
    assert_eq!(set.read_at(0, 10_000).await.unwrap().to_vec(), expected);
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// S-05, F-01: an object is the same by its number and by the name that the number stands for.
#[actix::test]
async fn objects_are_flushed_and_discarded_by_their_names_too() {
    let rig = Rig::new(config());
    let set = rig.open("named").await;
    set.write_at(0, data(1, 1000)).await.unwrap();
    let name = name_of("named", 0);
    let extent = |offset, len| vec![ObjectExtent::new(name.as_str(), offset, len).unwrap()];
    set.flush_extents(extent(0, 1000)).await.unwrap();
    assert_eq!(set.stats().0.dirty_bytes, 0);
    set.discard(extent(100, 200)).await.unwrap();
    assert!(!set.is_cached_at(100, 1).await.unwrap());
    assert!(set.is_cached_at(300, 700).await.unwrap());
    rig.audit(&[&set]).await;
    rig.close().await;
}

/// S-07, H-27
#[actix::test]
async fn a_discard_and_a_truncate_let_waiting_writers_in() {
    let rig = Rig::new(config());
    let set = rig.open("s-07").await;
    rig.gate.hold_kind(OperationKind::Write);
    for round in 0..2u64 {
        for block in 0..15u64 {
            set.write_at(block << 16, data(block, 60 << 10))
                .await
                .unwrap();
        }
        let waiting = start({
            let set = set.clone();
            async move { set.write_at(8 * MIB, data(round, 3 << 19)).await }
        });
        settle().await;
        assert!(!waiting.is_finished());
        if round == 0 {
            set.discard_range(0, 15 << 16).await.unwrap();
        } else {
            set.truncate(0, 0).await.unwrap();
        }
        settle().await;
        assert!(waiting.is_finished(), "round {round}");
        waiting.await.unwrap().unwrap();
        set.purge().await.unwrap();
        rig.gate.release_all();
        settle().await;
    }
    rig.close().await;
}

/// S-06, R-17, P-02
#[actix::test]
async fn a_truncated_file_reads_as_zeros_past_its_end() {
    let rig = Rig::new(config());
    let layout = Layout::new(64 << 10, 2, 256 << 10).unwrap();
    let set = rig
        .cache
        .open(SetOptions::new("r-17").layout(layout))
        .await
        .unwrap();
    let bytes = data(1, 600_000);
    set.write_at(0, bytes.clone()).await.unwrap();
    set.flush().await.unwrap();
    set.truncate_file(Truncation {
        seq: 1,
        size_bytes: 200_000,
    })
    .await
    .unwrap();
    let stale = set
        .truncate_file(Truncation {
            seq: 1,
            size_bytes: 100,
        })
        .await
        .unwrap_err();
    assert!(matches!(
        stale,
        CacheError::InvalidRequest(RequestError::StaleTruncation { .. })
    ));
    let read = set.read_at(0, 600_000).await.unwrap().to_vec();
    assert_eq!(read[..200_000], bytes[..200_000]);
    assert!(read[200_000..].iter().all(|byte| *byte == 0));
    set.write_at(300_000, data(2, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.release().await.unwrap();
    let read = set.read_at(0, 600_000).await.unwrap().to_vec();
    assert_eq!(read[300_000..301_000], data(2, 1000));
    assert!(
        read[200_000..300_000]
            .iter()
            .chain(&read[301_000..])
            .all(|byte| *byte == 0)
    );
    rig.close().await;
}

///
#[actix::test]
async fn a_set_may_be_opened_so_that_missing_objects_are_errors() {
    let rig = Rig::new(config());
    let set = rig
        .cache
        .open(SetOptions::new("r-07").missing(Missing::NotFound))
        .await
        .unwrap();
    let missing = set.read_object(1, 0, 10).await.unwrap_err();
    assert!(
        matches!(missing, CacheError::NotFound { .. }),
        "{missing:?}"
    );
    let reads = rig.memory.operations().reads.operations;
    set.read_object(1, 0, 10).await.unwrap_err();
    assert_eq!(
        rig.memory.operations().reads.operations,
        reads,
        "absence was not remembered"
    );
    set.clear_nonexistence().await.unwrap();
    set.read_object(1, 0, 10).await.unwrap_err();
    assert_eq!(rig.memory.operations().reads.operations, reads + 1);
    set.write_object(1, 0, data(1, 10)).await.unwrap();
    assert_eq!(
        set.read_object(1, 0, 10).await.unwrap().into_bytes(),
        data(1, 10)
    );
    rig.close().await;
}

/// J-02, L-03
#[actix::test]
async fn a_set_that_closes_at_the_end_of_a_long_turn_has_told_all_that_ended_in_it() {
    // Over a store that answers at once a turn goes through many writebacks, one after the other, and ends somewhere.
    let capabilities = Capabilities {
        write_bytes_max: 1,
        ..Capabilities::default()
    };
    for len in 1..=200 {
        let memory = MemoryBackend::builder().capabilities(capabilities).build();
        let memory = Arc::new(memory);
        let config = CacheConfig {
            writebacks_in_flight: 1,
            ..config()
        };
        let cache = start_here(memory.clone(), Arc::new(SystemClock::new()), config);
        let set = cache.open(SetOptions::new("long")).await.unwrap();
        let write = WriteRequest {
            extents: vec![ObjectExtent::new(0, 0, len).unwrap()],
            data: data(1, usize::try_from(len).unwrap()),
            journal_tid: Some(JournalTid(1.try_into().unwrap())),
            ..WriteRequest::default()
        };
        set.write(write).await.unwrap();
        set.close().await.unwrap();
        assert_eq!(memory.journal_notices().len() as u64, len);
        cache.close().await.unwrap();
    }
}

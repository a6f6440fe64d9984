//! What operators see: counters, gauges, listings, spans.

use std::time::Duration;

use cachalot::backend::OperationKind;
use cachalot::{BufferState, CacheDump, Counters, Gauges, SetId};
use tracing::Instrument;

use super::common::{Capture, Rig, config, data, pass, settle, start};

/// L-04
#[actix::test]
async fn counters_and_gauges_tell_by_set_and_in_all_what_happened_and_what_is_held() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("l-04").await, rig.open("l-04-other").await);
    assert_eq!(set.stats(), (Gauges::default(), Counters::default()));
    set.write_at(0, data(1, 1000)).await.unwrap();
    set.read_at(0, 1000).await.unwrap();
    set.read_at(500, 1500).await.unwrap();
    rig.gate.hold_kind(OperationKind::Write);
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    rig.gate.wait_held(1).await;
    assert_eq!(set.stats().0.tx_bytes, 1000);
    set.write_at(0, data(2, 300)).await.unwrap();
    rig.gate.open();
    flush.await.unwrap().unwrap();
    set.flush().await.unwrap();
    let counters = set.stats().1;
    let expected = Counters {
        read_ops_hit: 1,
        read_ops_missed: 1,
        read_bytes_hit: 1500,
        read_bytes_missed: 1000,
        read_bytes: 2500,
        write_ops: 2,
        write_bytes: 1300,
        overwritten_while_flushing_bytes: 300,
        fetch_ops: 1,
        fetch_bytes: 1000,
        write_back_ops: 2,
        write_back_bytes: 1300,
        ..Counters::default()
    };
    assert_eq!(counters, expected);
    assert!((counters.hit_ratio() - 0.5).abs() < f64::EPSILON);
    other.write_at(0, data(2, 300)).await.unwrap();
    let all = rig.cache.stats();
    assert_eq!(all.counters.write_bytes, 1600);
    assert_eq!(
        (all.gauges.dirty_bytes, all.gauges.dirty_buffers, all.sets),
        (300, 1, 2)
    );
    assert_eq!(other.stats().0.dirty_bytes, 300);
    rig.audit(&[&set, &other]).await;
    rig.close().await;
}

/// L-04, W-05
#[actix::test]
async fn writes_that_waited_are_counted_with_their_time() {
    let rig = Rig::new(config());
    let set = rig.open("l-04-blocked").await;
    rig.gate.hold_kind(OperationKind::Write);
    for block in 0..30u64 {
        set.write_at(block << 16, data(block, 60 << 10))
            .await
            .unwrap();
    }
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(16 << 20, data(1, 500 << 10)).await }
    });
    pass(Duration::from_millis(250)).await;
    assert_eq!(rig.cache.stats().waiting_claims, 1);
    assert_eq!(rig.cache.stats().waiting_dirty_bytes, 500 << 10);
    rig.gate.open();
    waiting.await.unwrap().unwrap();
    let counters = set.stats().1;
    assert_eq!(
        (counters.blocked_write_ops, counters.blocked_write_bytes),
        (1, 500 << 10)
    );
    let blocked = Duration::from_nanos(counters.blocked_write_nanos);
    assert!(blocked >= Duration::from_millis(250), "{blocked:?}");
    rig.close().await;
}

/// L-05
#[actix::test]
async fn spans_follow_an_operation_from_its_caller_to_the_store() {
    let rig = Rig::new(config());
    let log = Capture::install();
    let set = rig.open("l-05").await;
    let caller = tracing::info_span!("boot_a_machine", set = "l-05");
    async {
        set.read_at(0, 1000).await.unwrap();
        set.write_at(0, data(1, 1000)).await.unwrap();
        set.flush().await.unwrap();
    }
    .instrument(caller)
    .await;
    for name in ["fetch", "write_back"] {
        let spans = log.of_set("l-05");
        let span = spans.iter().find(|entry| entry.name == name).unwrap();
        assert_eq!(span.fields["object"], "l-05.0000000000000000");
        assert!(span.fields.contains_key("op") && span.fields.contains_key("len_bytes"));
        let outermost = span.within.last().map(String::as_str);
        assert_eq!(
            outermost,
            Some("boot_a_machine"),
            "{name}: {:?}",
            span.within
        );
    }
    rig.close().await;
}

/// L-06, H-44
#[actix::test]
async fn the_content_of_the_cache_can_be_listed_and_kept() {
    let rig = Rig::new(config());
    let (set, other) = (rig.open("l-06-b").await, rig.open("l-06-a").await);
    set.write_object(0, 100, data(1, 1000)).await.unwrap();
    set.flush().await.unwrap();
    set.write_object(0, 5000, data(2, 50)).await.unwrap();
    set.read_object(9, 0, 10).await.unwrap();
    rig.gate.hold_kind(OperationKind::Read);
    let read = start({
        let other = other.clone();
        async move { other.read_object(3, 0, 77).await }
    });
    rig.gate.wait_held(1).await;
    pass(Duration::from_millis(20)).await;
    let dump = rig.cache.dump().await;
    let names: Vec<&SetId> = dump.sets.iter().map(|set| &set.set).collect();
    assert_eq!(names, [&SetId::from("l-06-a"), &SetId::from("l-06-b")]);
    let fetching = &dump.sets[0].objects[0];
    assert_eq!(fetching.buffers[0].state, BufferState::Rx);
    assert_eq!(fetching.fetches, [fetching.buffers[0].tid.unwrap()]);
    let buffers = &dump.sets[1].objects[0].buffers;
    assert_eq!(
        (buffers[0].range.start(), buffers[0].range.end()),
        (100, 1100)
    );
    assert_eq!(buffers[0].state, BufferState::Clean);
    assert_eq!(buffers[1].state, BufferState::Dirty);
    assert!(buffers[1].dirty_for_nanos.unwrap() >= 20_000_000);
    assert!(!dump.sets[1].objects[1].exists && dump.sets[1].objects[1].complete);
    let text = serde_json::to_string(&dump).unwrap();
    assert_eq!(serde_json::from_str::<CacheDump>(&text).unwrap(), dump);
    let stats = rig.cache.stats();
    let text = serde_json::to_string(&stats).unwrap();
    assert_eq!(
        serde_json::from_str::<cachalot::CacheStats>(&text).unwrap(),
        stats
    );
    rig.gate.open();
    read.await.unwrap().unwrap();
    settle().await;
    rig.close().await;
}

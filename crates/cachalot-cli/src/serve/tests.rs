//! The operator's side, in one process: volumes in memory, behind a store that can be told to fail.

use bytes::Bytes;
use cachalot::backend::{
    self, Backend, CountingBackend, FaultControl, FaultyBackend, MemoryBackend, OperationKind,
    StoreCondition,
};
use cachalot::{BackendError, ByteRange, CacheConfig, ObjectName, SetOptions};
use cachalot_nbd::wire::NbdError;
use cachalot_nbd::{Export, ZeroHow};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::ahead::Ahead;
use super::mode::ModeSwitch;
use super::patience::Patience;
use super::timings::Timings;
use super::*;
use crate::ctl::protocol::{Answer, ErrorKind, LimitsChange, Mode, Request};

pub(crate) mod locks;
mod numbers;

pub(super) const SIZE: u64 = 64 << 20;
const LONG: Duration = Duration::from_secs(60);

/// A server with the volume `disk`, and what is behind it.
pub(super) struct Rig {
    pub(super) gateway: Arc<Gateway>,
    pub(super) disk: Arc<VolumeExport>,
    pub(super) control: FaultControl,
    pub(super) counted: Arc<CountingBackend>,
}

pub(super) async fn rig() -> Rig {
    rig_of(cachalot::Layout::default()).await
}

pub(super) async fn rig_of(layout: cachalot::Layout) -> Rig {
    rig_with(layout, Duration::ZERO).await
}

/// A server that lets clients wait for a store that is away.
pub(super) async fn patient_rig() -> Rig {
    rig_with(cachalot::Layout::default(), LONG).await
}

async fn rig_with(layout: cachalot::Layout, patience: Duration) -> Rig {
    rig_full(layout, patience, Ahead::new(1, 0, SIZE)).await
}

/// A server over a store of units, that reads ahead.
pub(super) async fn rig_ahead(layout: cachalot::Layout, unit: u64, window_max: u64) -> Rig {
    rig_full(layout, Duration::ZERO, Ahead::new(unit, window_max, SIZE)).await
}

async fn rig_full(layout: cachalot::Layout, patience: Duration, ahead: Ahead) -> Rig {
    let faulty = FaultyBackend::new(Arc::new(MemoryBackend::new()), 1);
    let control = faulty.control();
    let counted = Arc::new(CountingBackend::new(Arc::new(faulty)));
    let backend: Arc<dyn Backend> = Arc::clone(&counted) as _;
    let config = CacheConfig {
        max_dirty_age: LONG,
        retry_delay_min: Duration::from_millis(1),
        retry_delay_max: Duration::from_millis(1),
        ..CacheConfig::default()
    };
    let cache = Cache::builder(Arc::clone(&backend))
        .config(config.clone())
        .start()
        .unwrap();
    let options = SetOptions::new("disk")
        .prefix("disk")
        .layout(layout)
        .file_bytes(SIZE);
    let disk = Arc::new(VolumeExport {
        set: cache.open(options).await.unwrap(),
        backend,
        name: "disk".to_owned(),
        layout,
        size_bytes: SIZE,
        is_fixed: false,
        mode: ModeSwitch::new(Mode::Writeback),
        timings: Timings::default(),
        patience: Patience(patience),
        ahead,
    });
    let volumes = BTreeMap::from([("disk".to_owned(), Arc::clone(&disk))]);
    Rig {
        gateway: Arc::new(Gateway::new(cache, config, volumes)),
        disk,
        control,
        counted,
    }
}

impl Rig {
    pub(super) fn dirty(&self) -> u64 {
        let gauges = self.disk.set.stats().0;
        gauges.dirty_bytes + gauges.tx_bytes
    }

    pub(super) fn syncs(&self) -> u64 {
        self.counted.operations().syncs
    }
}

pub(super) fn data(byte: u8) -> Bytes {
    vec![byte; 4096].into()
}

/// A socket with somebody who answers.
struct Served {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    _file: SocketFile,
    _answering: JoinSet<()>,
}

async fn served(rig: &Rig) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl");
    let (listener, file) = admin::bind(&path).await.unwrap();
    let mut answering = JoinSet::new();
    answering.spawn(admin::answer_all(listener, Arc::clone(&rig.gateway)));
    Served {
        _directory: directory,
        path,
        _file: file,
        _answering: answering,
    }
}

impl Served {
    async fn say(&self, text: &[u8]) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        // Whoever is turned away may be so before all is said.
        stream.write_all(text).await.unwrap_or_default();
        BufReader::new(stream)
    }

    async fn ask(&self, request: &Request) -> Answer {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        answer(&mut self.say(&line).await).await.unwrap()
    }
}

/// The next answer; `None` at the end.
async fn answer(stream: &mut BufReader<UnixStream>) -> Option<Answer> {
    let mut line = String::new();
    let read = stream.read_line(&mut line);
    match tokio::time::timeout(LONG, read).await.unwrap() {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_str(&line).unwrap()),
    }
}

fn kind_of(answer: Option<Answer>) -> ErrorKind {
    match answer {
        Some(Answer::Failed(error)) => error.kind,
        other => panic!("no error: {other:?}"),
    }
}

#[tokio::test]
async fn every_request_is_answered_in_its_own_kind() {
    let rig = rig().await;
    let served = served(&rig).await;
    rig.disk.write(0, data(1), false).await.unwrap();
    let volume = || Some("disk".to_owned());
    let stats = served.ask(&Request::Stats { volume: None }).await;
    let Answer::Stats(stats) = stats else {
        panic!("{stats:?}");
    };
    assert_eq!(stats.volumes[0].counters.write_bytes, 4096);
    assert_eq!(stats.volumes[0].gauges.dirty_bytes, 4096);
    assert_eq!(stats.volumes[0].requests["write"].done, 1);
    let request = Request::Dump {
        volume: volume(),
        objects: Some(0),
    };
    let Answer::Dump { volumes } = served.ask(&request).await else {
        panic!("no listing");
    };
    assert_eq!((volumes[0].objects, volumes[0].listed.len()), (1, 0));
    let flushed = served.ask(&Request::Flush { volume: volume() }).await;
    let volumes = vec!["disk".to_owned()];
    assert_eq!(flushed, Answer::Flushed { volumes });
    assert_eq!(rig.dirty(), 0);
    assert_eq!(rig.syncs(), 1);
    let Answer::Released { volumes } = served.ask(&Request::Release { volume: None }).await else {
        panic!("nothing released");
    };
    assert_eq!(volumes[0].kept_bytes, 0);
    assert_eq!(rig.disk.set.stats().0, cachalot::Gauges::default());
    let elsewhere = Some("elsewhere".to_owned());
    let refused = served.ask(&Request::Stats { volume: elsewhere }).await;
    assert_eq!(kind_of(Some(refused)), ErrorKind::NoVolume);
    rig.disk.write(0, data(2), false).await.unwrap();
    rig.control.set_condition(StoreCondition::Down);
    let failed = served.ask(&Request::Flush { volume: None }).await;
    assert_eq!(kind_of(Some(failed)), ErrorKind::Store);
}

/// L-01, L-02
#[tokio::test]
async fn limits_are_changed_while_it_serves_all_or_none_of_them() {
    let rig = rig().await;
    let served = served(&rig).await;
    let change = LimitsChange {
        max_bytes: Some(32 << 20),
        max_dirty_bytes: Some(8 << 20),
        max_dirty_age_millis: Some(250),
        ..LimitsChange::default()
    };
    let Answer::Limits(limits) = served.ask(&Request::Limits { change }).await else {
        panic!("no limits");
    };
    assert_eq!(limits.target_dirty_bytes, 4 << 20);
    assert_eq!(limits, rig.gateway.cache.limits().into());
    assert_eq!(limits.max_dirty_age_millis, 250);
    let change = LimitsChange {
        max_objects: Some(7),
        max_dirty_bytes: Some(33 << 20),
        ..LimitsChange::default()
    };
    let refused = served.ask(&Request::Limits { change }).await;
    assert_eq!(kind_of(Some(refused)), ErrorKind::Limits);
    assert_eq!(limits, rig.gateway.cache.limits().into());
}

#[tokio::test]
async fn what_is_no_request_gets_a_typed_error_and_harms_nobody() {
    let rig = rig().await;
    let served = served(&rig).await;
    let mut stream = served.say(b"garbage\n\xff\xfe\n{\"do\":\"stop\"}\n").await;
    for _ in 0..3 {
        assert_eq!(kind_of(answer(&mut stream).await), ErrorKind::Malformed);
    }
    // The same connection goes on.
    stream
        .get_mut()
        .write_all(b"{\"do\":\"mode\"}\n")
        .await
        .unwrap();
    assert!(matches!(
        answer(&mut stream).await,
        Some(Answer::Modes { .. })
    ));
    let long = vec![b'x'; (64 << 10) + 1];
    let mut stream = served.say(&long).await;
    assert_eq!(kind_of(answer(&mut stream).await), ErrorKind::TooLong);
    assert_eq!(answer(&mut stream).await, None);
    // Half a request is none.
    let mut half = served.say(b"{\"do\":").await;
    half.get_mut().shutdown().await.unwrap();
    assert_eq!(kind_of(answer(&mut half).await), ErrorKind::Malformed);
}

#[tokio::test]
async fn a_crowd_is_sent_away_with_a_reason_and_leaves_no_trace() {
    let rig = rig().await;
    let served = served(&rig).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        let mut stream = served.say(b"{\"do\":\"mode\"}\n").await;
        assert!(answer(&mut stream).await.is_some());
        held.push(stream);
    }
    for _ in 0..32 {
        let mut stream = served.say(b"").await;
        assert_eq!(kind_of(answer(&mut stream).await), ErrorKind::Busy);
        assert_eq!(stream.read(&mut [0]).await.unwrap_or_default(), 0);
    }
    drop(held);
    loop {
        let mut stream = served.say(b"{\"do\":\"mode\"}\n").await;
        if matches!(answer(&mut stream).await, Some(Answer::Modes { .. })) {
            break;
        }
    }
}

#[tokio::test]
async fn nobody_but_the_owner_may_use_the_admin_socket() {
    use std::os::unix::fs::PermissionsExt;
    let rig = rig().await;
    let served = served(&rig).await;
    let mode = std::fs::metadata(&served.path).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert!(admin::bind(&served.path).await.is_err());
}

#[tokio::test]
async fn the_admin_socket_is_where_the_server_listens() {
    let unix = ListenAddress::Unix("/run/disk.sock".into());
    let beside = default_admin_path(&unix).unwrap();
    assert_eq!(beside, std::path::Path::new("/run/disk.sock.ctl"));
    let tcp = default_admin_path(&ListenAddress::Tcp("[::1]:7".to_owned()));
    assert!(tcp.is_none_or(|path| path.ends_with("cachalot-7.ctl")));
}

#[tokio::test]
async fn a_switch_to_writethrough_stores_what_was_dirty_and_all_later_writes_before_their_answer() {
    let rig = rig().await;
    rig.disk.write(0, data(1), false).await.unwrap();
    assert_eq!(rig.dirty(), 4096);
    rig.gateway
        .mode(None, Some(Mode::Writethrough))
        .await
        .unwrap();
    assert_eq!(rig.dirty(), 0);
    rig.disk.write(8192, data(2), false).await.unwrap();
    assert_eq!(rig.dirty(), 0);
    let how = ZeroHow {
        no_hole: true,
        fast_only: false,
    };
    rig.disk.zero(0, 1 << 20, how).await.unwrap();
    assert_eq!(rig.dirty(), 0);
    rig.control.set_condition(StoreCondition::Down);
    let failed = rig.disk.write(0, data(3), false).await;
    assert_eq!(failed, Err(NbdError::Io));
    rig.control.set_condition(StoreCondition::Up);
    rig.gateway.mode(None, Some(Mode::Writeback)).await.unwrap();
    rig.disk.write(0, data(4), false).await.unwrap();
    assert!(rig.dirty() > 0);
}

/// Writes once while another write is in the middle, which ends only after the switch has begun.
async fn switched_under_a_write(mode: Mode) -> Rig {
    let rig = rig().await;
    let gate = rig.control.gate();
    // Nothing fits but one write, so that the next one waits in the middle.
    let change = LimitsChange {
        max_dirty_bytes: Some(4096),
        ..LimitsChange::default()
    };
    rig.gateway.limits(change).await.unwrap();
    gate.hold_kind(OperationKind::Write);
    rig.disk.write(0, data(1), false).await.unwrap();
    let mut waiting = Box::pin(rig.disk.write(1 << 20, data(2), false));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let mut switching = Box::pin(rig.disk.switch(mode));
    assert!(futures::poll!(switching.as_mut()).is_pending());
    gate.open();
    let (written, switched) = futures::join!(waiting, switching);
    written.unwrap();
    switched.unwrap();
    rig
}

#[tokio::test]
async fn a_write_that_is_under_way_at_a_switch_is_stored_before_the_answers() {
    for mode in [Mode::Writethrough, Mode::ReadOnly] {
        let rig = switched_under_a_write(mode).await;
        assert_eq!(rig.dirty(), 0, "{mode:?}");
    }
}

#[tokio::test]
async fn read_only_stores_what_was_dirty_and_refuses_what_changes_the_volume() {
    let rig = rig().await;
    rig.disk.write(0, data(1), false).await.unwrap();
    rig.gateway.mode(None, Some(Mode::ReadOnly)).await.unwrap();
    assert_eq!(rig.dirty(), 0);
    assert!(rig.disk.is_read_only());
    let refused = Err(NbdError::NotPermitted);
    assert_eq!(rig.disk.write(0, data(2), false).await, refused);
    assert_eq!(rig.disk.trim(0, 4096).await, refused);
    assert_eq!(rig.disk.zero(0, 4096, ZeroHow::default()).await, refused);
    rig.disk.flush().await.unwrap();
    assert_eq!(rig.disk.read(0, 1).await.unwrap().concat(), [1]);
    rig.gateway.mode(None, Some(Mode::Writeback)).await.unwrap();
    assert!(!rig.disk.is_read_only());
    rig.disk.write(0, data(2), false).await.unwrap();
}

#[tokio::test]
async fn a_switch_holds_though_the_store_fails_and_says_so() {
    let rig = rig().await;
    rig.disk.write(0, data(1), false).await.unwrap();
    rig.control.set_condition(StoreCondition::Down);
    let failed = rig.gateway.mode(None, Some(Mode::ReadOnly)).await;
    assert_eq!(failed.unwrap_err().kind, ErrorKind::Store);
    assert!(rig.disk.is_read_only());
    assert_eq!(rig.dirty(), 4096);
}

#[tokio::test]
async fn read_only_tells_of_writers_that_wait_for_a_store_that_is_down_and_refuses_new_ones() {
    let rig = rig().await;
    let change = LimitsChange {
        max_dirty_bytes: Some(4096),
        ..LimitsChange::default()
    };
    rig.gateway.limits(change).await.unwrap();
    rig.control.set_condition(StoreCondition::Down);
    rig.disk.write(0, data(1), false).await.unwrap();
    let mut waiting = Box::pin(rig.disk.write(1 << 20, data(2), false));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    let switched = rig.gateway.mode(None, Some(Mode::ReadOnly));
    let told = tokio::time::timeout(LONG, switched).await.unwrap();
    let told = told.unwrap_err();
    assert_eq!(told.kind, ErrorKind::Store);
    assert!(told.message.contains("the store, 1 of them"), "{told:?}");
    let refused = rig.disk.write(2 << 20, data(3), false).await;
    assert_eq!(refused, Err(NbdError::NotPermitted));
    // The waiting one ends with the outage, and the switch is complete then.
    rig.control.set_condition(StoreCondition::Up);
    waiting.await.unwrap();
    rig.gateway.mode(None, Some(Mode::ReadOnly)).await.unwrap();
    assert_eq!(rig.dirty(), 0);
}

#[tokio::test]
async fn a_drain_is_asked_for_watched_and_told_to_its_end() {
    let rig = rig().await;
    let served = served(&rig).await;
    let mut stream = served.say(b"{\"do\":\"drain\"}\n").await;
    rig.gateway.asked_to_end().await;
    let progress = crate::ctl::protocol::DrainProgress {
        left_bytes: 5,
        ..Default::default()
    };
    let stage = &rig.gateway.stage;
    stage.send_replace(Stage::Draining(progress.clone()));
    assert_eq!(answer(&mut stream).await, Some(Answer::Draining(progress)));
    let mut late = served.say(b"{\"do\":\"drain\"}\n").await;
    assert!(matches!(answer(&mut late).await, Some(Answer::Draining(_))));
    stage.send_replace(Stage::Drained);
    assert_eq!(answer(&mut stream).await, Some(Answer::Drained {}));
    assert_eq!(answer(&mut late).await, Some(Answer::Drained {}));
    // The connection lasts as long as the process.
    stream.get_mut().write_all(b"\n").await.unwrap();
    stage.send_replace(Stage::Lost("a second signal".to_owned()));
    let mut lost = served.say(b"{\"do\":\"drain\"}\n").await;
    assert_eq!(kind_of(answer(&mut lost).await), ErrorKind::Lost);
}

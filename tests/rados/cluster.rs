//! The tests themselves.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on has failed, and says what it did"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::{
    Backend, Delayer, LockError, LockRequest, RadosBackend, RadosOptions, RadosUrl, TimerThread,
    contract,
};
use cachalot::{BackendError, CacheError, ObjectName, SetOptions, SnapContext, SnapId};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::left_out;
use super::shared::{
    Load, PART_BYTES, content, content_at, flush_at_last, random_operations, request, seed,
    small_cache, small_objects, store_part, store_until_full,
};

const URL: &str = "CACHALOT_RADOS_URL";

/// A namespace of its own, for what a test does.
fn place(test: &str) -> Option<RadosUrl> {
    let Ok(text) = std::env::var(URL) else {
        left_out(test, &format!("{URL} is not set; scripts/rados.sh sets it"));
        return None;
    };
    let mut url: RadosUrl = text.parse().unwrap();
    url.namespace = format!("{test}-{:08x}", rand::random::<u32>());
    Some(url)
}

fn open(url: &RadosUrl) -> Arc<RadosBackend> {
    Arc::new(RadosOptions::default().open(url).unwrap())
}

#[test]
fn the_contract_is_kept() {
    let Some(url) = place("contract") else { return };
    let backend = open(&url);
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
}

/// H-45
#[test]
fn random_operations_through_a_cache_match_a_plain_array() {
    const LEN: usize = 12 << 20;
    let Some(url) = place("random") else { return };
    let seed = seed("scripts/rados.sh random_operations");
    let model = random_operations(open(&url), LEN, seed);
    assert!(
        content(&*open(&url), &small_objects(), "vol", LEN) == model,
        "seed {seed}"
    );
}

/// The names up to here belong to the contract suite, which numbers its snapshots itself.
const FIRST_SNAPSHOT: u64 = 16;

fn new_snapshot(backend: &RadosBackend) -> u64 {
    loop {
        let number = block_on(backend.create_snapshot()).unwrap();
        if number > FIRST_SNAPSHOT {
            return number;
        }
    }
}

/// W-09
#[test]
fn snapshots_hold_what_was_written_before_them_though_it_was_not_stored_yet() {
    const LEN: usize = 4 << 20;
    let Some(url) = place("snapshots") else {
        return;
    };
    let seed = seed("scripts/rados.sh snapshots");
    let mut random = StdRng::seed_from_u64(seed);
    let backend = open(&url);
    let cache = small_cache(Arc::clone(&backend) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let mut model = vec![0_u8; LEN];
    let mut taken: Vec<(u64, Vec<u8>)> = Vec::new();
    for _ in 0..6 {
        for _ in 0..40 {
            let start = random.random_range(0..LEN - 1);
            let len = random.random_range(1..=50_000.min(LEN - start));
            let mut data = vec![0_u8; len];
            random.fill(&mut data[..]);
            model[start..start + len].copy_from_slice(&data);
            block_on(set.write_at(start as u64, Bytes::from(data))).unwrap();
        }
        // Nothing is flushed: what is dirty belongs to the snapshots before.
        taken.push((new_snapshot(&backend), model.clone()));
        let mut numbers: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
        numbers.reverse();
        let context = SnapContext::new(numbers[0], numbers).unwrap();
        block_on(set.set_snap_context(context)).unwrap();
    }
    block_on(set.write_at(0, Bytes::from(vec![7; LEN]))).unwrap();
    block_on(set.flush()).unwrap();
    block_on(set.close()).unwrap();
    block_on(cache.close()).unwrap();
    let fresh = open(&url);
    let layout = small_objects();
    for (number, expected) in &taken {
        let snap = SnapId::snapshot(*number);
        let found = content_at(&*fresh, &layout, "vol", (LEN, snap));
        assert!(found == *expected, "seed {seed}: snapshot {number}");
    }
    assert!(content(&*fresh, &layout, "vol", LEN) == vec![7; LEN]);

    // Back to the third, while all others stay.
    let mut numbers: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
    numbers.reverse();
    let context = SnapContext::new(numbers[0], numbers).unwrap();
    let (third, expected) = &taken[2];
    for number in 0..4 {
        let object = ObjectName::new(format!("vol.{number:016x}")).unwrap();
        block_on(fresh.roll_back(&object, *third, &context)).unwrap();
    }
    assert!(content(&*fresh, &layout, "vol", LEN) == *expected);
    block_on(fresh.remove_snapshot(*third)).unwrap();
    let (last, expected) = &taken[5];
    let snap = SnapId::snapshot(*last);
    assert!(content_at(&*fresh, &layout, "vol", (LEN, snap)) == *expected);

    // Objects that only snapshots hold any more are neither listed nor found.
    for number in 0..4 {
        let object = ObjectName::new(format!("vol.{number:016x}")).unwrap();
        block_on(fresh.remove(object.clone())).unwrap();
        assert_eq!(block_on(fresh.remove(object)), Err(BackendError::NotFound));
    }
    let page = block_on(fresh.list(String::new(), None, 2)).unwrap();
    assert_eq!((page.names.as_slice(), page.more), (&[][..], false));
    assert!(content_at(&*fresh, &layout, "vol", (LEN, snap)) == *expected);
}

fn lock(backend: &RadosBackend, request: LockRequest) -> Result<WriterLockIn, LockError> {
    block_on(backend.lock(request))
}

type WriterLockIn = cachalot::backend::WriterLock;

fn is_fenced(error: &CacheError) -> bool {
    matches!(
        error,
        CacheError::Fenced { .. }
            | CacheError::WriteBack {
                source: BackendError::Fenced,
                ..
            }
    )
}

/// H-41
#[test]
fn of_two_writers_one_writes_and_the_other_is_told() {
    let Some(url) = place("writers") else { return };
    let (first, second) = (open(&url), open(&url));
    let held = lock(&first, request("first", false)).unwrap();
    let cache = small_cache(Arc::clone(&first) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    block_on(set.write_at(0, Bytes::from_static(b"first"))).unwrap();
    block_on(set.flush()).unwrap();
    let refused = lock(&second, request("second", false)).unwrap_err();
    let holder = "first".to_owned();
    assert_eq!(refused, LockError::Held { holder });
    assert!(!held.is_lost());
    // Taking a lock leaves no object where the volume is.
    let page = block_on(second.list(String::new(), None, 10)).unwrap();
    assert_eq!(page.names.len(), 1, "{page:?}");

    let taken = lock(&second, request("second", true)).unwrap();
    block_on(set.write_at(5, Bytes::from_static(b" unsaved"))).unwrap_or(());
    let fenced = block_on(set.flush()).unwrap_err();
    assert!(is_fenced(&fenced), "{fenced:?}");
    let read = block_on(set.read_at(0, 13)).unwrap();
    assert_eq!(read.to_vec(), b"first unsaved");
    drop((set, cache));
    let timer = TimerThread::new();
    while !held.is_lost() {
        block_on(timer.delay(Duration::from_millis(20)));
    }
    block_on(held.release()).unwrap();
    assert!(!taken.is_lost());

    let cache = small_cache(Arc::clone(&second) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    block_on(set.write_at(0, Bytes::from_static(b"second"))).unwrap();
    block_on(set.flush()).unwrap();
    block_on(set.close()).unwrap();
    block_on(taken.release()).unwrap();
    let third = open(&url);
    let again = lock(&third, request("third", false)).unwrap();
    assert_eq!(content(&*second, &small_objects(), "vol", 6), b"second");
    assert!(!again.is_lost());
    block_on(again.release()).unwrap();
}

/// H-41
#[test]
fn a_lock_outlives_its_lease_while_it_is_renewed_and_then_goes_to_who_asks() {
    let Some(url) = place("leases") else { return };
    let (first, second) = (open(&url), open(&url));
    let brief = |holder| LockRequest {
        lease: Duration::from_secs(2),
        ..request(holder, false)
    };
    let timer = TimerThread::new();
    let wait = |millis| block_on(timer.delay(Duration::from_millis(millis)));
    let held = lock(&first, brief("first")).unwrap();
    wait(4000);
    let refused = lock(&second, brief("second")).unwrap_err();
    let holder = "first".to_owned();
    assert_eq!(refused, LockError::Held { holder });
    let options = SetOptions::new("vol").layout(small_objects());
    let cache = small_cache(Arc::clone(&first) as _);
    let set = block_on(cache.open(options)).unwrap();
    block_on(set.write_at(0, Bytes::from_static(b"before"))).unwrap();
    block_on(set.flush()).unwrap();
    // As if it had died, but for what it still writes.
    drop(held);
    let taken = loop {
        match lock(&second, brief("second")) {
            Err(LockError::Held { .. }) => wait(100),
            taken => break taken.unwrap(),
        }
    };
    block_on(set.write_at(0, Bytes::from_static(b"late"))).unwrap_or(());
    let fenced = block_on(set.flush()).unwrap_err();
    assert!(is_fenced(&fenced), "{fenced:?}");
    assert_eq!(content(&*second, &small_objects(), "vol", 6), b"before");
    block_on(taken.release()).unwrap();
}

fn run(command: &str, more: &[&str]) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh");
    let directory = std::env::var("CACHALOT_CLUSTER").unwrap();
    let mut run = Command::new(script);
    run.arg(command).arg(directory).args(more);
    assert!(run.status().unwrap().success(), "{command}");
}

fn ceph(arguments: &[&str]) {
    let conf = PathBuf::from(std::env::var("CACHALOT_CLUSTER").unwrap()).join("ceph.conf");
    let mut run = Command::new("ceph");
    run.arg("-c").arg(conf).args(arguments);
    let output = run.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// The cluster's OSD takes itself for full from then on, until this goes.
struct Full;

impl Full {
    fn begin() -> Self {
        for ratio in ["nearfull", "backfillfull", "full"] {
            ceph(&["osd", &format!("set-{ratio}-ratio"), "0.0001"]);
        }
        Self
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for (ratio, usual) in [
            ("full", "0.95"),
            ("backfillfull", "0.9"),
            ("nearfull", "0.85"),
        ] {
            ceph(&["osd", &format!("set-{ratio}-ratio"), usual]);
        }
    }
}

/// H-34, H-39
#[test]
fn a_full_cluster_fails_flushes_instead_of_holding_them_until_there_is_room() {
    if std::env::var("CACHALOT_CLUSTER").is_err() {
        left_out(
            "full",
            "CACHALOT_CLUSTER is not set; scripts/rados.sh sets it",
        );
        return;
    }
    let Some(url) = place("full") else { return };
    let timer = TimerThread::new();
    let (backend, other) = (open(&url), open(&url));
    let held = lock(&backend, request("first", false)).unwrap();
    let cache = small_cache(Arc::clone(&backend) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let mut model = Vec::new();
    // More than the ratio leaves of the OSD's 16 GiB.
    for _ in 0..8 {
        store_part(&set, &mut model).unwrap();
    }
    let full = Full::begin();
    store_until_full(&set, &mut model, &timer);
    // Two leases later the lock is still ours.
    block_on(timer.delay(Duration::from_secs(7)));
    let refused = lock(&other, request("second", false)).unwrap_err();
    let holder = "first".to_owned();
    assert_eq!(refused, LockError::Held { holder });
    assert!(!held.is_lost());
    // What frees room is done though there is none.
    let first = ObjectName::new(format!("vol.{:016x}", 0)).unwrap();
    block_on(other.remove(first)).unwrap();
    model.iter_mut().take(PART_BYTES).for_each(|byte| *byte = 0);

    drop(full);
    flush_at_last(&set, &timer);
    block_on(set.close()).unwrap();
    block_on(held.release()).unwrap();
    assert!(content(&*other, &small_objects(), "vol", model.len()) == model);
}

/// H-45
#[test]
fn an_osd_that_is_killed_takes_no_flush_with_it() {
    if std::env::var("CACHALOT_CLUSTER").is_err() {
        left_out(
            "kills",
            "CACHALOT_CLUSTER is not set; scripts/rados.sh sets it",
        );
        return;
    }
    let Some(url) = place("kills") else { return };
    let backend = open(&url);
    let cache = small_cache(Arc::clone(&backend) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let timer = TimerThread::new();
    let wait = |seconds| block_on(timer.delay(Duration::from_secs(seconds)));
    let load = Load::new();
    load.run(&set, || {
        for _ in 0..2 {
            wait(1);
            run("kill", &["osd.0"]);
            wait(1);
            run("up", &["--osd-only"]);
            let writes = load.writes.load(Ordering::SeqCst);
            while load.writes.load(Ordering::SeqCst) < writes + 200 {
                wait(1);
            }
        }
        // Killed in full flight, and nothing is written after it.
        run("kill", &["osd.0"]);
        load.ended.store(true, Ordering::SeqCst);
        run("up", &["--osd-only"]);
    });
    drop((set, cache, backend));
    load.check(&*open(&url));
}

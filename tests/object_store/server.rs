//! The tests themselves.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on has failed, and says what it did"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::{
    Backend, Delayer, LockError, ObjectStoreBackend, ObjectStoreOpen, ObjectStoreOptions,
    ObjectStoreUrl, TimerThread, contract,
};
use cachalot::{BackendError, CacheError, SetOptions};
use futures::executor::block_on;

use super::left_out;
use super::shared::{
    CELL_BYTES, CELLS, Load, content, flush_at_last, random_operations, request, seed, small_cache,
    small_objects, store_part, store_until_full,
};

const URL: &str = "CACHALOT_S3_URL";

/// A place of its own on the server, for what a test does.
pub(crate) fn place(test: &str) -> Option<ObjectStoreUrl> {
    let Ok(text) = std::env::var(URL) else {
        left_out(test, &format!("{URL} is not set; scripts/s3.sh sets it"));
        return None;
    };
    let mut url: ObjectStoreUrl = text.parse().unwrap();
    url.prefix = format!("{}/{test}-{:08x}", url.prefix, rand::random::<u32>());
    url.prefix = url.prefix.trim_start_matches('/').to_owned();
    Some(url)
}

pub(crate) fn open(url: &ObjectStoreUrl, options: &ObjectStoreOptions) -> Arc<ObjectStoreBackend> {
    Arc::new(options.open(url, ObjectStoreOpen::ExistingOrNew).unwrap())
}

fn brief() -> ObjectStoreOptions {
    ObjectStoreOptions {
        request_timeout: Duration::from_secs(2),
        retry_for: Duration::from_secs(4),
        ..ObjectStoreOptions::default()
    }
}

#[test]
fn the_contract_is_kept() {
    let Some(url) = place("contract") else { return };
    let backend = open(&url, &ObjectStoreOptions::default());
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
    println!("{:?}", backend.requests());
}

/// H-16, H-45
#[test]
fn random_operations_through_a_cache_match_a_plain_array() {
    const LEN: usize = 12 << 20;
    let Some(url) = place("random") else { return };
    let seed = seed("scripts/s3.sh random_operations");
    let backend = open(&url, &ObjectStoreOptions::default());
    let model = random_operations(Arc::clone(&backend) as _, LEN, seed);
    let fresh = open(&url, &ObjectStoreOptions::default());
    assert!(
        content(&*fresh, &small_objects(), "vol", LEN) == model,
        "seed {seed}"
    );
    println!("{:?}", backend.requests());
}

/// The radosgw of `scripts/cluster.sh`.
struct Server {
    directory: PathBuf,
    port: String,
}

impl Server {
    fn find(test: &str) -> Option<Self> {
        let variable = |name| {
            let value = std::env::var(name).ok();
            if value.is_none() {
                left_out(test, &format!("{name} is not set; scripts/s3.sh sets it"));
            }
            value
        };
        Some(Self {
            directory: variable("CACHALOT_CLUSTER")?.into(),
            port: variable("CACHALOT_CLUSTER_RGW")?,
        })
    }

    fn run(&self, command: &str, more: &[&str]) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh");
        let mut run = Command::new(script);
        run.arg(command).arg(&self.directory).args(more);
        assert!(run.status().unwrap().success(), "{command}");
    }

    fn kill(&self) {
        self.run("kill", &["rgw"]);
    }

    fn start(&self) {
        self.run("up", &["--rgw", &self.port]);
    }
}

/// H-16, H-45
#[test]
fn a_server_away_for_twenty_seconds_takes_no_flush_with_it() {
    let Some(server) = Server::find("outage") else {
        return;
    };
    let Some(url) = place("outage") else { return };
    let timer = TimerThread::new();
    let wait = |seconds| block_on(timer.delay(Duration::from_secs(seconds)));
    let backend = open(&url, &brief());
    let cache = small_cache(Arc::clone(&backend) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let warm = Bytes::from_static(b"held in memory");
    block_on(set.write_at(CELLS * CELL_BYTES, warm.clone())).unwrap();
    let load = Load::new();
    load.run(&set, || {
        wait(2);
        server.kill();
        let before = backend.requests();
        for _ in 0..20 {
            let read = block_on(set.read_at(CELLS * CELL_BYTES, warm.len() as u64)).unwrap();
            assert_eq!(read.to_vec(), warm, "a hit while the server is away");
            wait(1);
        }
        let during = backend.requests();
        let attempts = (during.puts + during.gets) - (before.puts + before.gets);
        println!("attempts in 20 s without a server: {attempts}");
        assert!(attempts < 64 * 20, "a storm of {attempts} attempts");
        server.start();
        let writes = load.writes.load(Ordering::SeqCst);
        while load.writes.load(Ordering::SeqCst) < writes + 200 {
            wait(1);
        }
    });
    // Not closed: the cache goes as in a crash, and only what was flushed must be there.
    drop((set, cache, backend));
    load.check(&*open(&url, &ObjectStoreOptions::default()));
}

/// A quota of the user of `scripts/cluster.sh`, until this goes.
struct Quota(Server);

impl Quota {
    fn begin(server: Server) -> Self {
        let quota = Self(server);
        quota.admin(&["set", "--max-objects=1"]);
        quota.admin(&["enable"]);
        quota
    }

    fn admin(&self, arguments: &[&str]) {
        let mut run = Command::new("radosgw-admin");
        run.arg("-c").arg(self.0.directory.join("ceph.conf"));
        run.args(["quota", "--quota-scope=user", "--uid=test"]);
        let output = run.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.admin(&["disable"]);
    }
}

/// H-34, H-39
#[test]
fn a_quota_that_is_used_up_fails_flushes_until_it_is_lifted() {
    let Some(server) = Server::find("quota") else {
        return;
    };
    let Some(url) = place("quota") else { return };
    let timer = TimerThread::new();
    let backend = open(&url, &brief());
    let cache = small_cache(Arc::clone(&backend) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let mut model = Vec::new();
    store_part(&set, &mut model).unwrap();
    let quota = Quota::begin(server);
    store_until_full(&set, &mut model, &timer);
    drop(quota);
    flush_at_last(&set, &timer);
    block_on(set.close()).unwrap();
    let fresh = open(&url, &ObjectStoreOptions::default());
    assert!(content(&*fresh, &small_objects(), "vol", model.len()) == model);
}

/// H-41
#[test]
fn of_two_writers_one_writes_and_the_other_is_told() {
    let Some(url) = place("writers") else { return };
    let (first, second) = (open(&url, &brief()), open(&url, &brief()));
    let lock = block_on(first.lock(request("first", false))).unwrap();
    let cache = small_cache(Arc::clone(&first) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    block_on(set.write_at(0, Bytes::from_static(b"first"))).unwrap();
    block_on(set.flush()).unwrap();
    let refused = block_on(second.lock(request("second", false))).unwrap_err();
    assert_eq!(
        refused,
        LockError::Held {
            holder: "first".to_owned()
        }
    );
    assert!(!lock.is_lost());
    let taken = block_on(second.lock(request("second", true))).unwrap();
    block_on(set.write_at(5, Bytes::from_static(b" unsaved"))).unwrap_or(());
    let fenced = block_on(set.flush()).unwrap_err();
    assert!(
        matches!(
            fenced,
            CacheError::Fenced { .. }
                | CacheError::WriteBack {
                    source: BackendError::Fenced,
                    ..
                }
        ),
        "{fenced:?}"
    );
    assert!(lock.is_lost() && !taken.is_lost());
    let read = block_on(set.read_at(0, 13)).unwrap();
    assert_eq!(read.to_vec(), b"first unsaved");
    drop((set, cache));
    let cache = small_cache(Arc::clone(&second) as _);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    block_on(set.write_at(0, Bytes::from_static(b"second"))).unwrap();
    block_on(set.flush()).unwrap();
    block_on(lock.release()).unwrap();
    assert!(!taken.is_lost());
    block_on(taken.release()).unwrap();
    let again = block_on(first.lock(request("again", false))).unwrap();
    assert!(!again.is_lost());
    let fresh = open(&url, &ObjectStoreOptions::default());
    assert_eq!(content(&*fresh, &small_objects(), "vol", 6), b"second");
}

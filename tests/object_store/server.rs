//! The tests themselves.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that can't go on has failed, and says what it did"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{
    Backend, BackendRead, Delayer, LockError, LockRequest, ObjectStoreBackend, ObjectStoreOpen,
    ObjectStoreOptions, ObjectStoreUrl, TimerThread, contract,
};
use cachalot::{
    BackendError, ByteRange, Cache, CacheConfig, CacheError, Hints, Layout, ObjectName, ObjectSet,
    SetOptions, SnapId, Truncation,
};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::left_out;

const URL: &str = "CACHALOT_S3_URL";

/// A place of its own on the server, for what a test does.
fn place(test: &str) -> Option<ObjectStoreUrl> {
    let Ok(text) = std::env::var(URL) else {
        left_out(test, &format!("{URL} is not set; scripts/s3.sh sets it"));
        return None;
    };
    let mut url: ObjectStoreUrl = text.parse().unwrap();
    url.prefix = format!("{}/{test}-{:08x}", url.prefix, rand::random::<u32>());
    url.prefix = url.prefix.trim_start_matches('/').to_owned();
    Some(url)
}

fn open(url: &ObjectStoreUrl, options: &ObjectStoreOptions) -> Arc<ObjectStoreBackend> {
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

/// What a volume holds, read without a cache by a client that has seen nothing of it.
fn content(url: &ObjectStoreUrl, layout: &Layout, name: &str, len: usize) -> Vec<u8> {
    let backend = open(url, &ObjectStoreOptions::default());
    let object_bytes = layout.object_size();
    let mut whole = Vec::new();
    for number in 0..(len as u64).div_ceil(object_bytes) {
        let read = BackendRead {
            object: ObjectName::new(format!("{name}.{number:016x}")).unwrap(),
            snap: SnapId::HEAD,
            range: ByteRange::new(0, object_bytes).unwrap(),
            hints: Hints::default(),
            truncation: Truncation::default(),
        };
        let bytes = match block_on(backend.read(read)) {
            Err(BackendError::NotFound) => Bytes::new(),
            bytes => bytes.unwrap(),
        };
        whole.extend_from_slice(&bytes);
        whole.resize(usize::try_from((number + 1) * object_bytes).unwrap(), 0);
    }
    whole.truncate(len);
    whole
}

fn small_objects() -> Layout {
    Layout::unstriped(ByteSize::mib(1).as_u64()).unwrap()
}

fn small_cache(backend: Arc<ObjectStoreBackend>) -> Cache {
    let config = CacheConfig {
        max_bytes: ByteSize::mib(6),
        max_dirty_bytes: ByteSize::mib(3),
        target_dirty_bytes: ByteSize::mib(1),
        max_dirty_age: Duration::from_millis(200),
        ..CacheConfig::default()
    };
    Cache::builder(backend).config(config).start().unwrap()
}

/// H-16, H-45
#[test]
fn random_operations_through_a_cache_match_a_plain_array() {
    const LEN: usize = 12 << 20;
    let Some(url) = place("random") else { return };
    let seed = std::env::var("CACHALOT_SEED").ok();
    let seed: u64 = seed.map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("replay: CACHALOT_SEED={seed} scripts/s3.sh random_operations");
    let mut random = StdRng::seed_from_u64(seed);
    let backend = open(&url, &ObjectStoreOptions::default());
    let cache = small_cache(Arc::clone(&backend));
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let mut model = vec![0_u8; LEN];
    for step in 0..1500 {
        let start = random.random_range(0..LEN - 1);
        let most = if random.random_bool(0.1) {
            700_000
        } else {
            20_000
        };
        let len = random.random_range(1..=most.min(LEN - start));
        match random.random_range(0..100) {
            0..50 => {
                let fill = random.random_range(0..4_u8);
                let mut data = vec![0_u8; len];
                if fill > 0 {
                    random.fill(&mut data[..]);
                }
                model[start..start + len].copy_from_slice(&data);
                block_on(set.write_at(start as u64, Bytes::from(data))).unwrap();
            }
            50..85 => {
                let read = block_on(set.read_at(start as u64, len as u64)).unwrap();
                assert!(
                    read.to_vec() == model[start..start + len],
                    "seed {seed}, step {step}: {len} bytes at {start} differ"
                );
            }
            85..92 => {
                // The cache drops what it holds; the store is told by a write of zeros.
                let zeros = Bytes::from(vec![0; len]);
                block_on(set.discard_range(start as u64, len as u64)).unwrap();
                block_on(set.write_at(start as u64, zeros)).unwrap();
                model[start..start + len].fill(0);
            }
            92..97 => drop(block_on(set.flush()).unwrap()),
            _ => drop(block_on(set.release()).unwrap()),
        }
    }
    block_on(set.close()).unwrap();
    block_on(cache.close()).unwrap();
    assert!(
        content(&url, &small_objects(), "vol", LEN) == model,
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

const CELLS: u64 = 64;
const CELL_BYTES: u64 = 96 << 10;

/// A thread that writes its number of rounds into its cells, and flushes now and then.
fn write_rounds(set: &ObjectSet, cells: std::ops::Range<u64>, load: &Load) {
    for round in 1_u64.. {
        if load.ended.load(Ordering::SeqCst) {
            return;
        }
        for cell in cells.clone() {
            let data = Bytes::from(round.to_be_bytes().repeat(512));
            block_on(set.write_at(cell * CELL_BYTES, data)).unwrap();
            load.writes.fetch_add(1, Ordering::SeqCst);
        }
        // A flush that fails promises nothing; one that succeeds promises this round.
        if block_on(set.flush()).is_ok() {
            for cell in cells.clone() {
                load.flushed[usize::try_from(cell).unwrap()].store(round, Ordering::SeqCst);
            }
        }
    }
}

/// Ends the load however the test ends.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Load {
    ended: AtomicBool,
    writes: AtomicU64,
    flushed: Vec<AtomicU64>,
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
    let cache = small_cache(Arc::clone(&backend));
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let warm = Bytes::from_static(b"held in memory");
    block_on(set.write_at(CELLS * CELL_BYTES, warm.clone())).unwrap();
    let load = Load {
        ended: AtomicBool::new(false),
        writes: AtomicU64::new(0),
        flushed: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (set, load) = (&set, &load);
            let cells = thread * CELLS / 4..(thread + 1) * CELLS / 4;
            scope.spawn(move || write_rounds(set, cells, load));
        }
        let _ending = Ending(&load.ended);
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
    let rounds: Vec<u64> = load
        .flushed
        .iter()
        .map(|round| round.load(Ordering::SeqCst))
        .collect();
    assert!(rounds.iter().all(|round| *round > 0), "{rounds:?}");
    // Not closed: the cache goes as in a crash, and only what was flushed must be there.
    drop((set, cache, backend));
    let len = usize::try_from(CELLS * CELL_BYTES).unwrap();
    let stored = content(&url, &small_objects(), "vol", len);
    for (cell, flushed) in rounds.iter().enumerate() {
        let at = cell * usize::try_from(CELL_BYTES).unwrap();
        let round = u64::from_be_bytes(stored[at..at + 8].try_into().unwrap());
        assert!(round >= *flushed, "cell {cell}: {round}, flushed {flushed}");
    }
}

fn request(holder: &str, breaking: bool) -> LockRequest {
    LockRequest {
        object: ObjectName::new("vol.volume").unwrap(),
        prefix: "vol.".to_owned(),
        holder: holder.to_owned(),
        lease: Duration::from_secs(3),
        breaking,
    }
}

/// H-41
#[test]
fn of_two_writers_one_writes_and_the_other_is_told() {
    let Some(url) = place("writers") else { return };
    let (first, second) = (open(&url, &brief()), open(&url, &brief()));
    let lock = block_on(first.lock(request("first", false))).unwrap();
    let cache = small_cache(Arc::clone(&first));
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
    let cache = small_cache(Arc::clone(&second));
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    block_on(set.write_at(0, Bytes::from_static(b"second"))).unwrap();
    block_on(set.flush()).unwrap();
    block_on(lock.release()).unwrap();
    assert!(!taken.is_lost());
    block_on(taken.release()).unwrap();
    let again = block_on(first.lock(request("again", false))).unwrap();
    assert!(!again.is_lost());
    assert_eq!(content(&url, &small_objects(), "vol", 6), b"second");
}

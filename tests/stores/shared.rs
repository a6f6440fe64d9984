//! What the tests of stores on real servers share.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that can't go on has failed, and says what it did"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{Backend, BackendRead, Delayer, LockRequest, TimerThread};
use cachalot::{
    BackendError, ByteRange, Cache, CacheConfig, CacheError, Hints, Layout, ObjectName, ObjectSet,
    SetOptions, SnapId, Truncation,
};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a volume holds, read without a cache by a client that has seen nothing of it.
pub(crate) fn content(backend: &dyn Backend, layout: &Layout, name: &str, len: usize) -> Vec<u8> {
    content_at(backend, layout, name, (len, SnapId::HEAD))
}

/// The same, at a snapshot.
pub(crate) fn content_at(
    backend: &dyn Backend,
    layout: &Layout,
    name: &str,
    (len, snap): (usize, SnapId),
) -> Vec<u8> {
    let object_bytes = layout.object_size();
    let mut whole = Vec::new();
    for number in 0..(len as u64).div_ceil(object_bytes) {
        let read = BackendRead {
            object: ObjectName::new(format!("{name}.{number:016x}")).unwrap(),
            snap,
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

pub(crate) fn small_objects() -> Layout {
    Layout::unstriped(ByteSize::mib(1).as_u64()).unwrap()
}

pub(crate) fn small_cache(backend: Arc<dyn Backend>) -> Cache {
    let config = CacheConfig {
        max_bytes: ByteSize::mib(6),
        max_dirty_bytes: ByteSize::mib(3),
        target_dirty_bytes: ByteSize::mib(1),
        max_dirty_age: Duration::from_millis(200),
        ..CacheConfig::default()
    };
    Cache::builder(backend).config(config).start().unwrap()
}

/// The seed of a run: that of `CACHALOT_SEED`, or a new one.
pub(crate) fn seed(replay: &str) -> u64 {
    let seed = std::env::var("CACHALOT_SEED").ok();
    let seed: u64 = seed.map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("replay: CACHALOT_SEED={seed} {replay}");
    seed
}

/// Random operations through a small cache, each read judged by a plain array, which is given back.
pub(crate) fn random_operations(backend: Arc<dyn Backend>, len_bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let cache = small_cache(backend);
    let options = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(options)).unwrap();
    let mut model = vec![0_u8; len_bytes];
    for step in 0..1500 {
        let start = random.random_range(0..len_bytes - 1);
        let most = if random.random_bool(0.1) {
            700_000
        } else {
            20_000
        };
        let len = random.random_range(1..=most.min(len_bytes - start));
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
    model
}

pub(crate) const CELLS: u64 = 64;
pub(crate) const CELL_BYTES: u64 = 96 << 10;

/// A thread that writes its number of rounds into its cells, and flushes now and then.
pub(crate) fn write_rounds(set: &ObjectSet, cells: std::ops::Range<u64>, load: &Load) {
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
pub(crate) struct Ending<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) struct Load {
    pub(crate) ended: AtomicBool,
    pub(crate) writes: AtomicU64,
    pub(crate) flushed: Vec<AtomicU64>,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self {
            ended: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            flushed: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Four threads that write, until `meanwhile` is over.
    pub(crate) fn run(&self, set: &ObjectSet, meanwhile: impl FnOnce()) {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cells = thread * CELLS / 4..(thread + 1) * CELLS / 4;
                scope.spawn(move || write_rounds(set, cells, self));
            }
            let _ending = Ending(&self.ended);
            meanwhile();
        });
    }

    /// Whether the store holds what was flushed, or newer.
    pub(crate) fn check(&self, backend: &dyn Backend) {
        let flushed = self.flushed.iter();
        let rounds: Vec<u64> = flushed.map(|round| round.load(Ordering::SeqCst)).collect();
        assert!(rounds.iter().all(|round| *round > 0), "{rounds:?}");
        let len = usize::try_from(CELLS * CELL_BYTES).unwrap();
        let stored = content(backend, &small_objects(), "vol", len);
        for (cell, flushed) in rounds.iter().enumerate() {
            let at = cell * usize::try_from(CELL_BYTES).unwrap();
            let round = u64::from_be_bytes(stored[at..at + 8].try_into().unwrap());
            assert!(round >= *flushed, "cell {cell}: {round}, flushed {flushed}");
        }
    }
}

pub(crate) fn request(holder: &str, breaking: bool) -> LockRequest {
    LockRequest {
        object: ObjectName::new("vol.volume").unwrap(),
        prefix: "vol.".to_owned(),
        holder: holder.to_owned(),
        lease: Duration::from_secs(3),
        breaking,
    }
}

pub(crate) const PART_BYTES: usize = 1 << 20;

/// Writes and flushes one more part of a volume.
pub(crate) fn store_part(set: &ObjectSet, model: &mut Vec<u8>) -> Result<(), CacheError> {
    let number = u8::try_from(model.len() / PART_BYTES).unwrap();
    let part = vec![number + 1; PART_BYTES];
    block_on(set.write_at(model.len() as u64, Bytes::from(part.clone()))).unwrap();
    model.extend(part);
    block_on(set.flush()).map(drop)
}

/// Writes and flushes one part after the other until the store says that it is full; what it did not take is still read.
pub(crate) fn store_until_full(set: &ObjectSet, model: &mut Vec<u8>, timer: &TimerThread) {
    let refused = loop {
        assert!(model.len() < 200 * PART_BYTES, "the store does not fill up");
        match store_part(set, model) {
            Ok(()) => block_on(timer.delay(Duration::from_millis(100))),
            Err(error) => break error,
        }
    };
    let source = BackendError::Full;
    assert!(
        matches!(&refused, CacheError::WriteBack { source: found, .. } if *found == source),
        "{refused:?}"
    );
    let last = model.len() - PART_BYTES;
    let read = block_on(set.read_at(last as u64, PART_BYTES as u64)).unwrap();
    assert!(read.to_vec() == model[last..]);
}

/// Flushes until the store takes it.
pub(crate) fn flush_at_last(set: &ObjectSet, timer: &TimerThread) {
    let mut tries = 0..600;
    while let Err(error) = block_on(set.flush()) {
        assert!(tries.next().is_some(), "{error:?}");
        block_on(timer.delay(Duration::from_millis(100)));
    }
}

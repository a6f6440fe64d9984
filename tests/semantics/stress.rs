//! Everything at once on real threads, over a store that fails, delays and forgets to answer; every byte is compared.
//!
//! Each thread owns a region of each set's file and knows its exact content. All share blocks that are only ever written
//! whole, with one tag: a read of two tags in one block is torn. One more set is closed and opened again meanwhile: what
//! it acknowledged is in the store once it has closed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{Backend, FaultControl, FaultPlan, FaultyBackend, MemoryBackend};
use cachalot::message::{Read, Write};
use cachalot::{
    Cache, CacheConfig, CacheError, Clock, Hints, Layout, ObjectExtent, ObjectKey, ObjectName,
    ObjectSet, ReadRequest, SetOptions, WriteRequest,
};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::brief::Brief;
use super::common::{assert_nothing_left, audit};

pub(crate) const THREADS: usize = 6;
const REGION_BYTES: usize = 700_000;
const REGION_STRIDE: u64 = 1 << 20;
/// The shared blocks of a set lie in an object of their own, some across its windows' edges.
const BLOCK_BYTES: usize = 8 << 10;
const BLOCKS: u64 = 3;

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect(name))
}

fn limits(dice: &mut StdRng) -> CacheConfig {
    let max_kib = [600, 1500, 3000][dice.random_range(0..3)];
    let dirty_kib = [150, 300, 600][dice.random_range(0..3)];
    CacheConfig {
        max_bytes: ByteSize::kib(max_kib),
        max_objects: dice.random_range(1..20),
        max_dirty_bytes: ByteSize::kib(dirty_kib),
        target_dirty_bytes: ByteSize::kib(dice.random_range(0..=dirty_kib)),
        max_dirty_age: Duration::from_millis(dice.random_range(0..1500)),
        block_writes_upfront: dice.random(),
        arbiters: 2,
        writebacks_in_flight: dice.random_range(1..20),
        retry_delay_min: Duration::from_millis(1),
        retry_delay_max: Duration::from_millis(10),
        backend_timeout: Duration::from_millis(50),
    }
}

fn faults() -> FaultPlan {
    FaultPlan {
        fail: 0.02,
        lose_reply: 0.02,
        never_reply: 0.002,
        delay: 0.2,
        delay_max: Duration::from_micros(500),
        double: 0.02,
        short_read: 0.5,
        ..FaultPlan::default()
    }
}

/// One thread's region of one set.
struct Region<'a> {
    set: &'a ObjectSet,
    memory: &'a MemoryBackend,
    start: u64,
    content: Vec<u8>,
}

impl Region<'_> {
    fn place(&self, dice: &mut StdRng) -> (usize, usize) {
        let len = match dice.random_range(0..10) {
            0 => dice.random_range(1..100_000),
            1..4 => dice.random_range(1..600),
            _ => dice.random_range(1..10_000),
        };
        (dice.random_range(0..REGION_BYTES - len), len)
    }

    fn write(&mut self, dice: &mut StdRng) {
        let (at, len) = self.place(dice);
        let bytes = Bytes::from((0..len).map(|_| dice.random()).collect::<Vec<u8>>());
        self.content[at..at + len].copy_from_slice(&bytes);
        let offset = self.start + at as u64;
        if dice.random_range(0..4) == 0 {
            let extents = self.extents(at, len);
            let write = WriteRequest {
                extents,
                data: bytes,
                ..WriteRequest::default()
            };
            let sent = self.set.addr().unwrap().send(Write(write));
            block_on(sent).unwrap().unwrap();
        } else {
            block_on(self.set.write_at(offset, bytes)).unwrap();
        }
    }

    /// Reads until the store answers.
    fn read(&self, at: usize, len: usize, hints: Hints) -> Vec<u8> {
        loop {
            let read = block_on(
                self.set
                    .read_at_with(self.start + at as u64, len as u64, hints),
            );
            match read {
                Ok(bytes) => return bytes.to_vec(),
                Err(CacheError::Read { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn compare(&self, dice: &mut StdRng) {
        let (at, len) = self.place(dice);
        let hints = Hints {
            dont_need: dice.random_range(0..8) == 0,
            ..Hints::default()
        };
        let read = if dice.random_range(0..4) == 0 {
            let extents = self.extents(at, len);
            let read = ReadRequest {
                extents,
                hints,
                ..ReadRequest::default()
            };
            match block_on(self.set.addr().unwrap().send(Read(read))).unwrap() {
                Ok(bytes) => bytes.to_vec(),
                Err(_) => return,
            }
        } else {
            self.read(at, len, hints)
        };
        self.assert_same(&read, at);
    }

    fn assert_same(&self, read: &[u8], at: usize) {
        let expected = &self.content[at..at + read.len()];
        if read != expected {
            let wrong = read.iter().zip(expected).position(|(a, b)| a != b).unwrap();
            panic!(
                "{}: byte {} of the region at {} is {} and should be {} (read {at}..{})",
                self.set.id(),
                at + wrong,
                self.start,
                read[wrong],
                expected[wrong],
                at + read.len()
            );
        }
    }

    /// Drops a range, and then frees it in the store, as a trim of a disk does.
    fn discard(&mut self, dice: &mut StdRng) {
        let (at, len) = self.place(dice);
        block_on(self.set.discard_range(self.start + at as u64, len as u64)).unwrap();
        for extent in self.extents(at, len) {
            let ObjectKey::Number(number) = extent.object else {
                continue;
            };
            let name = format!("{}.{number:016x}", self.set.id());
            let name = ObjectName::new(name).unwrap();
            block_on(self.memory.discard(name, extent.range)).unwrap();
        }
        self.content[at..at + len].fill(0);
    }

    fn flush(&self, dice: &mut StdRng) {
        let (at, len) = self.place(dice);
        let flushed = match dice.random_range(0..3) {
            0 => block_on(self.set.flush()),
            _ => block_on(self.set.flush_range(self.start + at as u64, len as u64)),
        };
        assert!(
            matches!(flushed, Ok(_) | Err(CacheError::WriteBack { .. })),
            "{flushed:?}"
        );
    }

    fn extents(&self, at: usize, len: usize) -> Vec<ObjectExtent> {
        let range = cachalot::ByteRange::new(self.start + at as u64, len as u64).unwrap();
        let runs = self.set.layout().unwrap().extents(range).into_iter();
        runs.map(|run| ObjectExtent {
            object: ObjectKey::Number(run.object),
            range: run.range,
            places: run.places,
        })
        .collect()
    }
}

fn write_block(set: &ObjectSet, dice: &mut StdRng) {
    let bytes = Bytes::from(vec![dice.random::<u8>(); BLOCK_BYTES]);
    let offset = block_offset(dice.random_range(0..BLOCKS));
    block_on(set.write_object(shared_object(set), offset, bytes)).unwrap();
}

fn check_block(set: &ObjectSet, dice: &mut StdRng) {
    let offset = block_offset(dice.random_range(0..BLOCKS));
    let mut read = std::pin::pin!(set.read_object(shared_object(set), offset, BLOCK_BYTES as u64));
    let mut how = "at the door";
    let first = super::common::poll_once(read.as_mut());
    let read = match first {
        std::task::Poll::Ready(read) => read,
        std::task::Poll::Pending => {
            how = "by the actor";
            block_on(read)
        }
    };
    let Ok(bytes) = read else {
        return;
    };
    let bytes = bytes.to_vec();
    let torn = bytes.iter().position(|byte| *byte != bytes[0]);
    assert_eq!(
        torn,
        None,
        "a torn read at {offset}, {how}: {} then {}",
        bytes[0],
        bytes[torn.unwrap_or(0)]
    );
}

/// An object's own name is its name in the store, whatever set it is in: each set has its own.
fn shared_object(set: &ObjectSet) -> ObjectKey {
    ObjectKey::from(format!("{}-shared", set.id()).as_str())
}

/// Every second block lies across the edge of two windows.
fn block_offset(block: u64) -> u64 {
    ((block + 1) << 17) - 4096
}

/// Asks for something, and is gone before it is there, as callers are.
fn give_up(region: &Region<'_>, dice: &mut StdRng) {
    let (set, offset) = (region.set, block_offset(dice.random_range(0..BLOCKS)));
    if dice.random() {
        let read = set.read_at(region.start, REGION_BYTES as u64);
        drop(super::common::poll_once(std::pin::pin!(read)));
    } else {
        let bytes = Bytes::from(vec![dice.random::<u8>(); BLOCK_BYTES]);
        let write = set.write_object(shared_object(set), offset, bytes);
        drop(super::common::poll_once(std::pin::pin!(write)));
    }
}

fn act(region: &mut Region<'_>, dice: &mut StdRng) {
    match dice.random_range(0..100) {
        0..35 => region.write(dice),
        35..68 => region.compare(dice),
        68..70 => drop(block_on(
            region
                .set
                .prefetch_at(region.start, REGION_BYTES as u64 / 4),
        )),
        70..82 => write_block(region.set, dice),
        82..94 => check_block(region.set, dice),
        94..96 => region.flush(dice),
        96..98 => region.discard(dice),
        98 => drop(block_on(region.set.release()).unwrap()),
        _ => give_up(region, dice),
    }
}

/// The sets' files end up in the store as their writers know them.
fn compare_store(regions: &[Region<'_>]) {
    for region in regions {
        let mut stored = vec![0; REGION_BYTES];
        for extent in region.extents(0, REGION_BYTES) {
            let ObjectKey::Number(number) = extent.object else {
                continue;
            };
            let name = ObjectName::new(format!("{}.{number:016x}", region.set.id())).unwrap();
            let object = region.memory.content(&name).unwrap_or_default();
            let mut at = usize::try_from(extent.range.start()).unwrap();
            for place in extent.places {
                let (to, len) = (place.offset as usize, place.len as usize);
                for byte in 0..len {
                    stored[to + byte] = object.get(at + byte).copied().unwrap_or(0);
                }
                at += len;
            }
        }
        region.assert_same(&stored, 0);
        region.assert_same(&region.read(0, REGION_BYTES, Hints::default()), 0);
    }
}

/// What changes and looks while the others work.
fn operate(cache: &Cache, dice: &mut StdRng, is_over: impl Fn() -> bool, then: impl Fn()) {
    while !is_over() {
        block_on(cache.set_limits(&limits(dice))).unwrap();
        block_on(cache.audit()).unwrap();
        block_on(cache.dump());
        let charged = cache.stats().charged;
        assert!(charged.dirty <= 700 << 10, "{charged:?}");
        drop(block_on(cache.flush_all()));
        then();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test ends by the time of day"
)]
fn is_past(until: Instant) -> bool {
    Instant::now() >= until
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test ends by the time of day"
)]
fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Ends the others' work when one thread panics.
struct EndOnPanic<'a>(&'a AtomicBool);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn start(seed: u64) -> (Arc<MemoryBackend>, FaultControl, Cache) {
    let memory = Arc::new(MemoryBackend::new());
    let faulty = FaultyBackend::builder(memory.clone(), seed)
        .plan(faults())
        .build();
    let control = faulty.control();
    let config = limits(&mut StdRng::seed_from_u64(seed));
    let cache = Cache::builder(Arc::new(faulty))
        .config(config)
        .start()
        .unwrap();
    (memory, control, cache)
}

/// W-01, W-02, R-02, R-05, S-05, T-01, L-01, L-03, H-01, H-02, H-13, H-16, H-42, H-44, H-46
#[test]
fn threads_that_do_everything_at_once_find_every_byte_where_it_belongs() {
    let (seed, seconds) = (
        setting("CACHALOT_SEED", cachalot::SystemClock::new().timestamp().0),
        setting("CACHALOT_SECONDS", 2),
    );
    println!("to replay: CACHALOT_SEED={seed} cargo test --test semantics threads_that_do");
    let (memory, control, cache) = start(seed);
    let layout = Layout::new(64 << 10, 2, 512 << 10).unwrap();
    let open = |options| block_on(cache.open(options)).unwrap();
    let sets = [
        open(SetOptions::new("whole")),
        open(SetOptions::new("striped").layout(layout)),
    ];
    let brief = Brief::new(&cache);
    let until = in_seconds(seconds);
    let is_ended = AtomicBool::new(false);
    let is_over = || is_ended.load(Ordering::Relaxed) || is_past(until);
    let mut regions: Vec<Region<'_>> = std::thread::scope(|scope| {
        let work = |thread: usize| {
            let (sets, memory, brief, is_ended, is_over) =
                (&sets, &memory, &brief, &is_ended, &is_over);
            move || {
                let _end = EndOnPanic(is_ended);
                let mut dice = StdRng::seed_from_u64(seed ^ (thread as u64 + 1));
                let region = |set| Region {
                    set,
                    memory,
                    start: thread as u64 * REGION_STRIDE + 30_000,
                    content: vec![0; REGION_BYTES],
                };
                let mut own: Vec<Region<'_>> = sets.iter().map(region).collect();
                while !is_over() {
                    let set = dice.random_range(0..own.len());
                    act(&mut own[set], &mut dice);
                    brief.count_up(thread);
                    brief.check(thread);
                }
                own
            }
        };
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(work(thread)))
            .collect();
        let mut dice = StdRng::seed_from_u64(!seed);
        operate(&cache, &mut dice, is_over, || {
            brief.close_and_open_again(&cache, &memory);
        });
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    control.set_plan(FaultPlan::default());
    while block_on(cache.flush_all()).is_err() {}
    assert!(brief.close(&memory));
    block_on(cache.audit()).unwrap();
    compare_store(&regions);
    block_on(cache.release_all());
    block_on(audit(&cache, &[&sets[0], &sets[1]]));
    regions.clear();
    block_on(cache.close()).unwrap();
    assert_nothing_left(&cache);
}

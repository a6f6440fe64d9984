//! Outages of a real server behind a proxy that fails as it is told.
//!
//! Three writers and two readers go on throughout. What each may see:
//!
//! - no write fails, ever: they are absorbed up to the dirty limit, and then writers wait;
//! - what the cache holds is read, ever;
//! - a flush, and a read of what the cache does not hold, fails only in an outage that is longer than `retry_for`, and then
//!   with an error that says to try again;
//! - every byte that is read, and every byte that is stored in the end, is that of a plain array.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed, and says what it did"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{Backend, Delayer, ObjectStoreBackend, ObjectStoreOptions, TimerThread};
use cachalot::{Advice, Cache, CacheError, ObjectSet, SetOptions};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::proxy::{Counts, Proxy, Weather};
use super::server::{open, place};
use super::shared::{content, request, seed, small_cache, small_objects};

const WRITERS: usize = 3;
/// What each writer has for itself. All of it is three times what may be dirty.
const OWN_BYTES: usize = 3 << 20;
/// What nobody writes, most of which the cache does not hold.
const STILL: usize = WRITERS * OWN_BYTES;
const STILL_BYTES: usize = 4 << 20;
/// What is read all the time.
const WARM: usize = STILL + STILL_BYTES;
const WARM_BYTES: usize = 64 << 10;
const LEN: usize = WARM + WARM_BYTES;

/// How many requests are under way, or pause, at once: what the bounds on their number are counted in.
const SLOTS: u64 = 64;

/// A cache over the proxy, in front of which everybody plays.
struct Scene {
    seed: u64,
    proxy: Proxy,
    backend: Arc<ObjectStoreBackend>,
    cache: Cache,
    set: ObjectSet,
    timer: TimerThread,
    /// Whether flushes and misses may fail.
    is_long: bool,
    ended: AtomicBool,
    writes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    flushes: AtomicU64,
    excused: AtomicU64,
}

impl Scene {
    fn wait(&self, millis: u64) {
        block_on(self.timer.delay(Duration::from_millis(millis)));
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether an error may be told to a caller.
    fn excuse(&self, error: &CacheError) {
        assert!(self.is_long, "seed {}: {error:?}", self.seed);
        assert_eq!(error.advice(), Advice::Retry, "{error:?}");
        self.excused.fetch_add(1, Ordering::SeqCst);
    }

    fn read(&self, model: &[u8], base: usize, place: std::ops::Range<usize>) -> bool {
        let at = base + place.start;
        match block_on(self.set.read_at(at as u64, place.len() as u64)) {
            Ok(read) => assert!(
                read.to_vec() == model[place.clone()],
                "seed {}: {} bytes at {at} differ",
                self.seed,
                place.len()
            ),
            Err(error) => {
                self.excuse(&error);
                return false;
            }
        }
        true
    }

    /// Writes at random within the model's place, and reads back.
    fn play_writer(&self, number: usize, model: &mut [u8]) {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(number as u64));
        while !self.has_ended() {
            let start = random.random_range(0..model.len() - 1);
            let end = model.len().min(start + random.random_range(1..40_000));
            let place = start..end;
            random.fill(&mut model[place.clone()]);
            let data = Bytes::copy_from_slice(&model[place.clone()]);
            let base = number * OWN_BYTES;
            block_on(self.set.write_at((base + start) as u64, data)).unwrap();
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.read(model, base, place);
        }
    }

    /// Reads what nobody writes, at random.
    fn play_reader(&self, model: &[u8]) {
        let mut random = StdRng::seed_from_u64(self.seed ^ u64::MAX);
        while !self.has_ended() {
            let start = random.random_range(0..model.len() - 10_000);
            if self.read(model, STILL, start..start + 10_000) {
                self.misses.fetch_add(1, Ordering::SeqCst);
            }
            self.wait(5);
        }
    }

    /// Reads what the cache always holds: that never fails.
    fn play_warm(&self, model: &[u8]) {
        while !self.has_ended() {
            let read = block_on(self.set.read_at(WARM as u64, model.len() as u64)).unwrap();
            assert!(read.to_vec() == model, "seed {}: a hit differs", self.seed);
            self.hits.fetch_add(1, Ordering::SeqCst);
            self.wait(1);
        }
    }

    fn play_flusher(&self) {
        while !self.has_ended() {
            match block_on(self.set.flush()) {
                Ok(_) => drop(self.flushes.fetch_add(1, Ordering::SeqCst)),
                Err(error) => self.excuse(&error),
            }
            self.wait(100);
        }
    }

    /// Waits until all of these have gone on by so many.
    fn go_on(&self, counts: &[&AtomicU64], by: u64) {
        for count in counts {
            let until = count.load(Ordering::SeqCst) + by;
            self.until(|| count.load(Ordering::SeqCst) >= until);
        }
    }

    fn until(&self, mut holds: impl FnMut() -> bool) {
        for _ in 0..2400 {
            if holds() {
                return;
            }
            self.wait(50);
        }
        assert!(holds(), "seed {}: nothing moves", self.seed);
    }

    /// Waits until every writer waits for room for dirty bytes.
    fn until_writers_wait(&self) {
        self.until(|| {
            let before = self.writes.load(Ordering::SeqCst);
            self.wait(500);
            let waits = self.cache.stats().waiting_dirty_bytes > 0;
            waits && before == self.writes.load(Ordering::SeqCst)
        });
        let dirty = self.dirty();
        println!("writers wait at {dirty} dirty bytes");
        assert!(dirty > ByteSize::kib(2500).as_u64());
    }

    fn dirty(&self) -> u64 {
        self.cache.stats().charged.dirty.unsigned_abs()
    }

    /// Passes so many seconds, in each of which what the cache holds is read and its limits are kept.
    fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            let hits = self.hits.load(Ordering::SeqCst);
            self.wait(1000);
            self.until(|| self.hits.load(Ordering::SeqCst) > hits);
            let dirty = self.dirty();
            assert!(dirty <= ByteSize::mib(3).as_u64(), "{dirty} dirty bytes");
        }
    }

    /// What happens until everything is well again: everybody goes on, and no request is repeated more than once.
    fn recover(&self) {
        let before = self.backend.requests();
        self.proxy.set(Weather::Fair);
        self.go_on(&[&self.writes, &self.misses], 40);
        self.go_on(&[&self.flushes], 2);
        let repeated = self.backend.requests().repeated - before.repeated;
        println!("{repeated} requests were repeated once the server was back");
        assert!(repeated <= SLOTS, "{repeated} repetitions after the outage");
    }

    /// How often somebody knocked since then.
    fn attempts_since(&self, before: Counts) -> u64 {
        let attempts = self.proxy.counts().attempts() - before.attempts();
        println!("{attempts} attempts, {:?}", self.proxy.counts());
        attempts
    }
}

/// Ends the play however the test ends.
struct Ending<'a>(&'a Scene);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.0.proxy.set(Weather::Fair);
    }
}

/// Plays an outage under load, and compares every byte in the end.
fn play(test: &str, options: &ObjectStoreOptions, is_long: bool, outage: impl FnOnce(&Scene)) {
    let Some(mut url) = place(test) else { return };
    assert_eq!(options.requests_max as u64, SLOTS);
    let seed = seed(&format!("scripts/s3.sh {test}"));
    let direct = url.clone();
    let server = url.endpoint.take().unwrap();
    let proxy = Proxy::start(server.trim_start_matches("http://"), &url.prefix, seed).unwrap();
    url.endpoint = Some(proxy.endpoint());
    let backend = open(&url, options);
    let mut lease = request(test, false);
    lease.lease = Duration::from_secs(30);
    let lock = block_on(backend.lock(lease)).unwrap();
    let cache = small_cache(Arc::clone(&backend) as _);
    let sets = SetOptions::new("vol").layout(small_objects());
    let set = block_on(cache.open(sets)).unwrap();

    let mut model = vec![0_u8; LEN];
    StdRng::seed_from_u64(seed).fill(&mut model[STILL..]);
    let still = Bytes::copy_from_slice(&model[STILL..]);
    block_on(set.write_at(STILL as u64, still)).unwrap();
    block_on(set.flush()).unwrap();
    let scene = Scene {
        seed,
        proxy,
        backend,
        cache,
        set,
        timer: TimerThread::new(),
        is_long,
        ended: AtomicBool::new(false),
        writes: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        misses: AtomicU64::new(0),
        flushes: AtomicU64::new(0),
        excused: AtomicU64::new(0),
    };
    let (own, rest) = model.split_at_mut(STILL);
    let (still, warm) = rest.split_at(STILL_BYTES);
    std::thread::scope(|scope| {
        let scene = &scene;
        let _ending = Ending(scene);
        for (number, own) in own.chunks_mut(OWN_BYTES).enumerate() {
            scope.spawn(move || scene.play_writer(number, own));
        }
        scope.spawn(move || scene.play_reader(still));
        scope.spawn(move || scene.play_warm(warm));
        scope.spawn(move || scene.play_flusher());
        scene.go_on(&[&scene.writes, &scene.misses, &scene.hits], 40);
        outage(scene);
        scene.recover();
    });
    assert!(!lock.is_lost(), "nobody took over");
    block_on(scene.set.close()).unwrap();
    block_on(scene.cache.close()).unwrap();
    block_on(lock.release()).unwrap();
    let stored = open(&direct, &ObjectStoreOptions::default());
    assert!(
        content(&*stored, &small_objects(), "vol", LEN) == model,
        "seed {seed}"
    );
    let excused = scene.excused.load(Ordering::SeqCst);
    println!(
        "{excused} answers said to try again; {:?}",
        scene.backend.requests()
    );
}

/// H-34, H-45
#[test]
fn a_storm_of_refusals_is_waited_out() {
    play("storm", &ObjectStoreOptions::default(), false, |scene| {
        let before = scene.proxy.counts();
        scene.proxy.set(Weather::SlowDown);
        scene.until_writers_wait();
        scene.pass(4);
        let attempts = scene.attempts_since(before);
        assert!(attempts < 8 * SLOTS, "a storm of {attempts} attempts");
    });
}

/// H-16, H-34, H-45
#[test]
fn connections_that_are_reset_cost_nobody_a_byte() {
    play("resets", &ObjectStoreOptions::default(), false, |scene| {
        scene.proxy.set(Weather::Resets);
        scene.pass(4);
        let counts = scene.proxy.counts();
        println!("{counts:?}");
        assert!(counts.cut_before > 5 && counts.cut_after > 5 && counts.cut_within > 5);
    });
}

/// H-16, H-34, H-45
#[test]
fn answers_that_come_late_or_too_late_cost_nobody_a_byte() {
    let options = ObjectStoreOptions {
        request_timeout: Duration::from_secs(2),
        ..ObjectStoreOptions::default()
    };
    play("late", &options, false, |scene| {
        scene
            .proxy
            .set(Weather::Late(options.request_timeout * 3 / 2));
        scene.pass(4);
        let repeated = scene.backend.requests().repeated;
        println!("{:?}", scene.proxy.counts());
        assert!(repeated > 5, "{repeated} answers came too late");
    });
}

/// H-34, H-45
#[test]
fn a_server_away_for_a_minute_is_waited_for_without_a_storm() {
    // Much shorter than the outage, so that the cache gives requests up and makes new ones many times.
    let options = ObjectStoreOptions {
        retry_for: Duration::from_secs(4),
        ..ObjectStoreOptions::default()
    };
    play("away", &options, true, |scene| {
        let before = scene.proxy.counts();
        scene.proxy.set(Weather::Away);
        scene.until_writers_wait();
        let writes = scene.writes.load(Ordering::SeqCst);
        scene.pass(60);
        // What still goes in overwrites what is dirty already.
        let more = scene.writes.load(Ordering::SeqCst) - writes;
        assert!(more < 100, "{more} writes went in while all waited");
        let attempts = scene.attempts_since(before);
        assert!(attempts < 30 * SLOTS, "a storm of {attempts} attempts");
    });
}

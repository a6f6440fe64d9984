//! A cache over a store that costs next to nothing, its sets, and how data gets into them.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::{Backend, BackendRead, BackendWrite, Capabilities, ListPage, ObjectStat};
use cachalot::{
    BackendError, ByteRange, Cache, CacheConfig, Clock, Moment, ObjectName, ObjectSet, SetOptions,
    SystemClock,
};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, ready};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const HOT: u64 = 4 * MIB;
pub(crate) const WARM: u64 = 256 * MIB;

static ZEROS: [u8; 4 << 20] = [0; 4 << 20];

/// Forgets writes, reads as zeros, and answers at once.
#[derive(Debug)]
struct NullStore;

fn now<T: Send + 'static>(
    answer: Result<T, BackendError>,
) -> BoxFuture<'static, Result<T, BackendError>> {
    ready(answer).boxed()
}

impl Backend for NullStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        let len = usize::try_from(read.range.len()).unwrap_or(usize::MAX);
        now(ZEROS
            .get(..len)
            .map(Bytes::from_static)
            .ok_or(BackendError::Unavailable))
    }

    fn write(&self, _write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        now(Ok(()))
    }

    fn discard(
        &self,
        _object: ObjectName,
        _range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        now(Ok(()))
    }

    fn truncate(
        &self,
        _object: ObjectName,
        _size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        now(Ok(()))
    }

    fn remove(&self, _object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        now(Ok(()))
    }

    fn stat(&self, _object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        now(Err(BackendError::NotFound))
    }

    fn list(
        &self,
        _prefix: String,
        _after: Option<ObjectName>,
        _names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        now(Ok(ListPage::default()))
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        now(Ok(()))
    }
}

/// A cache with its sets open.
pub(crate) struct Rig {
    pub(crate) cache: Cache,
    pub(crate) sets: Vec<ObjectSet>,
}

impl Rig {
    /// With plenty of room, and writing back only when told to.
    pub(crate) fn roomy(sets: usize) -> Self {
        Self::start(ByteSize::gib(2), ByteSize::gib(2), sets)
    }

    /// Full after a short while.
    pub(crate) fn small(bytes: u64, sets: usize) -> Self {
        Self::start(ByteSize(bytes), ByteSize(bytes / 2), sets)
    }

    fn start(max_bytes: ByteSize, max_dirty_bytes: ByteSize, sets: usize) -> Self {
        let is_roomy = max_bytes == max_dirty_bytes;
        let config = CacheConfig {
            max_bytes,
            max_dirty_bytes,
            target_dirty_bytes: ByteSize(max_dirty_bytes.as_u64() / if is_roomy { 1 } else { 2 }),
            max_dirty_age: Duration::from_secs(3600),
            ..CacheConfig::default()
        };
        let cache = Cache::builder(Arc::new(NullStore))
            .config(config)
            .start()
            .expect("the cache starts");
        let open = |number| {
            let name = format!("set-{number}");
            block_on(cache.open(SetOptions::new(name.as_str()))).expect("the set opens")
        };
        Self {
            sets: (0..sets).map(open).collect(),
            cache,
        }
    }

    pub(crate) fn set(&self) -> &ObjectSet {
        self.sets.first().expect("there is a set")
    }

    /// Writes `bytes` over all sets together in pieces of `piece`, those of less than 1 MiB in random order.
    pub(crate) fn fill(&self, bytes: u64, piece: u64) {
        let pieces = bytes / self.sets.len() as u64 / piece;
        let stride = if piece < MIB { odd(pieces * 5 / 8) } else { 1 };
        for set in &self.sets {
            let block = data(piece);
            for number in 0..pieces {
                let offset = number * stride % pieces * piece;
                block_on(set.write_at(offset, block.clone())).expect("the write enters");
            }
        }
    }

    /// A random set and block of those that `bytes` hold.
    pub(crate) fn pick(&self, state: &mut u64, bytes: u64, block: u64) -> (&ObjectSet, u64) {
        let number = next(state);
        let sets = self.sets.len();
        let nth = usize::try_from(number >> 40).unwrap_or(0) % sets;
        let set = self.sets.get(nth).expect("there is a set");
        let blocks = bytes / sets as u64 / block;
        (set, number % (1 << 40) % blocks * block)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        block_on(self.cache.abandon());
    }
}

/// Numbers that repeat only after 2^64 (the step of `SplitMix64`, Steele et al., OOPSLA 2014).
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// An odd number near this one, which shares no factor with a power of two.
const fn odd(number: u64) -> u64 {
    number | 1
}

pub(crate) fn data(len: u64) -> Bytes {
    Bytes::from(vec![7; usize::try_from(len).expect("pieces are small")])
}

/// The time in which each of two threads does `work` so many times, with a number of its own.
pub(crate) fn on_two_threads(times: u64, work: impl Fn(&mut u64) + Sync) -> Duration {
    let barrier = Barrier::new(2);
    let (work, barrier) = (&work, &barrier);
    let one = move |number: u64| {
        let mut state = number;
        barrier.wait();
        let clock = SystemClock::new();
        for _ in 0..times {
            work(&mut state);
        }
        clock.now().since(Moment::default())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(move || one(1));
        let mine = one(2);
        mine.max(other.join().expect("the other thread ends"))
    })
}

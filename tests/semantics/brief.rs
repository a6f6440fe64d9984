//! A set for the stress test that comes and goes: what it acknowledged is in the store once it has closed.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cachalot::backend::MemoryBackend;
use cachalot::{Cache, CacheError, ObjectName, ObjectSet, SetOptions};
use futures::executor::block_on;

use super::stress::THREADS;

/// A set that is closed and opened again under load. Each thread counts up in a place of its own.
pub(crate) struct Brief {
    set: RwLock<ObjectSet>,
    begun: [AtomicU64; THREADS],
    acknowledged: [AtomicU64; THREADS],
}

impl Brief {
    fn open(cache: &Cache) -> ObjectSet {
        block_on(cache.open(SetOptions::new("brief"))).unwrap()
    }

    pub(crate) fn new(cache: &Cache) -> Self {
        Self {
            set: RwLock::new(Self::open(cache)),
            begun: Default::default(),
            acknowledged: Default::default(),
        }
    }

    fn set(&self) -> ObjectSet {
        self.set.read().unwrap().clone()
    }

    /// Every second one lies across the edge of two windows.
    const fn place(thread: usize) -> u64 {
        ((thread as u64 + 1) << 17) - 4
    }

    pub(crate) fn count_up(&self, thread: usize) {
        let next = self.begun[thread].fetch_add(1, Ordering::SeqCst) + 1;
        let bytes = Bytes::from(next.to_be_bytes().to_vec());
        match block_on(self.set().write_at(Self::place(thread), bytes)) {
            Ok(()) => self.acknowledged[thread].store(next, Ordering::SeqCst),
            Err(CacheError::Closed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn check(&self, thread: usize) {
        let acknowledged = self.acknowledged[thread].load(Ordering::SeqCst);
        match block_on(self.set().read_at(Self::place(thread), 8)) {
            Ok(read) => self.assert_counted(thread, acknowledged, &read.to_vec()),
            Err(CacheError::Closed { .. } | CacheError::Read { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn assert_counted(&self, thread: usize, acknowledged: u64, bytes: &[u8]) {
        let counted = u64::from_be_bytes(bytes.try_into().unwrap());
        let begun = self.begun[thread].load(Ordering::SeqCst);
        assert!(
            (acknowledged..=begun).contains(&counted),
            "thread {thread} has {counted}, of {begun} begun and {acknowledged} acknowledged"
        );
    }

    /// Closes the set, unless the store fails, and compares the store with what was acknowledged.
    pub(crate) fn close(&self, memory: &MemoryBackend) -> bool {
        match block_on(self.set().close()) {
            Ok(()) => {}
            Err(CacheError::WriteBack { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
        let name = ObjectName::new("brief.0000000000000000").unwrap();
        let stored = memory.content(&name).unwrap_or_default();
        for thread in 0..THREADS {
            let acknowledged = self.acknowledged[thread].load(Ordering::SeqCst);
            let at = usize::try_from(Self::place(thread)).unwrap();
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(stored.iter().skip(at)) {
                *to = *from;
            }
            self.assert_counted(thread, acknowledged, &bytes);
        }
        true
    }

    pub(crate) fn close_and_open_again(&self, cache: &Cache, memory: &MemoryBackend) {
        if self.close(memory) {
            *self.set.write().unwrap() = Self::open(cache);
        }
    }
}

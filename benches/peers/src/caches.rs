//! Caches of 4 KiB blocks by object and block: Cachalot, what one would write without it, and others' caches.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::MemoryBackend;
use cachalot::{Cache, CacheConfig, CacheError, ObjectSet, SetOptions};
use futures::FutureExt;
use futures::executor::block_on;
use parking_lot::Mutex;

/// The bytes of a block.
const BLOCK: usize = 4096;
/// The same, as offsets are counted.
pub(crate) const BLOCK_BYTES: u64 = BLOCK as u64;
/// The blocks of an object of 4 MiB.
const OBJECT_BLOCKS: u64 = 1024;
/// Room for so many times what is put in, so that nobody evicts, however unevenly shards are filled.
const SPARE: u64 = 4;

/// An object and a block in it.
type Key = (u64, u64);

const fn key(block: u64) -> Key {
    (block / OBJECT_BLOCKS, block % OBJECT_BLOCKS)
}

/// The data in memory of its own, as a cache must keep it: the caller's buffer is the caller's.
fn own(data: &Bytes) -> Bytes {
    Bytes::copy_from_slice(data)
}

/// What all of them can do. A read gives a reference to the block's memory, as Cachalot's does.
pub(crate) trait BlockCache: Send + Sync {
    /// The first byte of a block; `None` where it is not cached.
    fn read(&self, block: u64) -> Option<u8>;

    /// Puts a block in, over what was there.
    fn write(&self, block: u64, data: &Bytes);
}

/// How a cache for so many blocks is made.
type Start = fn(u64) -> Result<Box<dyn BlockCache>, CacheError>;

/// A cache that is measured.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What it does not do and Cachalot does.
    pub(crate) lacks: &'static str,
    pub(crate) start: Start,
}

const NO_STORE: &str =
    "whole blocks only; no write-back, flush, ordering, dirty limit, byte ranges or snapshots";

/// All of them.
pub(crate) const PEERS: [Peer; 7] = [
    Peer {
        name: "cachalot",
        lacks: "",
        start: |blocks| Ok(Box::new(Cachalot::start(blocks)?)),
    },
    Peer {
        name: "cachalot, one lock around",
        lacks: "callers wait for each other",
        start: |blocks| Ok(Box::new(Mutex::new(Cachalot::start(blocks)?))),
    },
    Peer {
        name: "one lock, BTreeMap",
        lacks: "whole blocks only; no limit, eviction, write-back, flush, ordering, byte ranges or snapshots",
        start: |_| Ok(Box::new(Mutex::new(BTreeMap::<Key, Bytes>::new()))),
    },
    Peer {
        name: "moka",
        lacks: NO_STORE,
        start: |blocks| {
            Ok(Box::new(moka::sync::Cache::<Key, Bytes>::new(
                blocks * SPARE,
            )))
        },
    },
    Peer {
        name: "quick_cache",
        lacks: NO_STORE,
        start: |blocks| {
            Ok(Box::new(quick_cache::sync::Cache::<Key, Bytes>::new(
                items(blocks),
            )))
        },
    },
    Peer {
        name: "foyer-memory",
        lacks: NO_STORE,
        start: |blocks| {
            let cache: foyer_memory::Cache<Key, Bytes> =
                foyer_memory::CacheBuilder::new(items(blocks)).build();
            Ok(Box::new(cache))
        },
    },
    Peer {
        name: "memcpy",
        lacks: "no cache: copies the block from or to its place, as the limit of whatever copies",
        start: |blocks| {
            let blocks = usize::try_from(blocks).unwrap_or_default();
            let slots = std::iter::repeat_with(|| Mutex::new(vec![1; BLOCK]));
            Ok(Box::new(slots.take(blocks).collect::<Vec<Slot>>()))
        },
    },
];

fn items(blocks: u64) -> usize {
    usize::try_from(blocks * SPARE).unwrap_or(usize::MAX)
}

/// Through the handle, as an application does.
struct Cachalot {
    set: ObjectSet,
}

impl Cachalot {
    fn start(blocks: u64) -> Result<Self, CacheError> {
        let bytes = ByteSize(blocks * BLOCK_BYTES * SPARE);
        let config = CacheConfig {
            max_bytes: bytes,
            max_dirty_bytes: bytes,
            target_dirty_bytes: bytes,
            max_dirty_age: Duration::from_secs(3600),
            ..CacheConfig::default()
        };
        let cache = Cache::builder(Arc::new(MemoryBackend::new()))
            .config(config)
            .start()?;
        let set = block_on(cache.open(SetOptions::new("peers")))?;
        Ok(Self { set })
    }
}

impl Drop for Cachalot {
    fn drop(&mut self) {
        // What is dirty is of no use to anybody.
        block_on(self.set.cache().abandon());
    }
}

impl BlockCache for Cachalot {
    fn read(&self, block: u64) -> Option<u8> {
        // A hit and an absorbed write are done when they are first polled.
        let read = self.set.read_at(block * BLOCK_BYTES, BLOCK_BYTES);
        let bytes = read.now_or_never()?.ok()?;
        bytes.pieces().first()?.as_slice().first().copied()
    }

    fn write(&self, block: u64, data: &Bytes) {
        let write = self.set.write_at(block * BLOCK_BYTES, data.clone());
        black_box(write.now_or_never());
    }
}

impl BlockCache for Mutex<Cachalot> {
    fn read(&self, block: u64) -> Option<u8> {
        self.lock().read(block)
    }

    fn write(&self, block: u64, data: &Bytes) {
        self.lock().write(block, data);
    }
}

impl BlockCache for Mutex<BTreeMap<Key, Bytes>> {
    fn read(&self, block: u64) -> Option<u8> {
        let bytes = self.lock().get(&key(block)).cloned()?;
        bytes.first().copied()
    }

    fn write(&self, block: u64, data: &Bytes) {
        let data = own(data);
        // What was there is freed when the lock has gone.
        drop(self.lock().insert(key(block), data));
    }
}

impl BlockCache for moka::sync::Cache<Key, Bytes> {
    fn read(&self, block: u64) -> Option<u8> {
        self.get(&key(block))?.first().copied()
    }

    fn write(&self, block: u64, data: &Bytes) {
        self.insert(key(block), own(data));
    }
}

impl BlockCache for quick_cache::sync::Cache<Key, Bytes> {
    fn read(&self, block: u64) -> Option<u8> {
        self.get(&key(block))?.first().copied()
    }

    fn write(&self, block: u64, data: &Bytes) {
        self.insert(key(block), own(data));
    }
}

impl BlockCache for foyer_memory::Cache<Key, Bytes> {
    fn read(&self, block: u64) -> Option<u8> {
        self.get(&key(block))?.value().first().copied()
    }

    fn write(&self, block: u64, data: &Bytes) {
        drop(self.insert(key(block), own(data)));
    }
}

/// Where a block lies that is copied in place.
type Slot = Mutex<Vec<u8>>;

impl BlockCache for Vec<Slot> {
    fn read(&self, block: u64) -> Option<u8> {
        let mut copy = [0; BLOCK];
        let slot = self.get(usize::try_from(block).ok()?)?;
        copy.copy_from_slice(&slot.lock());
        black_box(&copy).first().copied()
    }

    fn write(&self, block: u64, data: &Bytes) {
        let slot = usize::try_from(block)
            .ok()
            .and_then(|block| self.get(block));
        if let Some(slot) = slot {
            slot.lock().copy_from_slice(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gives_back_what_was_put_in_last() {
        const BLOCKS: u64 = 2000;
        for peer in &PEERS {
            let cache = (peer.start)(BLOCKS).unwrap();
            for value in [3, 5] {
                let data = Bytes::from(vec![value; BLOCK]);
                for block in 0..BLOCKS {
                    cache.write(block, &data);
                }
                for block in 0..BLOCKS {
                    assert_eq!(cache.read(block), Some(value), "{} {block}", peer.name);
                }
            }
        }
    }
}

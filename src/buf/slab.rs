//! One allocation of the cache's memory, shared by what points into it.
//!
//! What counts the holders of an allocation lies beside it, not in front of its bytes: a hit that hands out a
//! reference does not touch the page that holds the data, which over a large cache would cost more than all the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

/// Whose the bytes are. No larger than a box of bytes, so that what lies beside an extent stays small.
#[derive(Debug)]
enum Memory {
    /// The cache's alone.
    Own(Box<[u8]>),
    /// A store's, which may hold them too; never written to.
    Kept(Box<Bytes>),
}

/// One allocation, and how much of it is in use. It belongs to one window; readers and writebacks hold it too.
#[derive(Debug)]
pub(crate) struct Slab {
    memory: Memory,
    /// How many of its bytes the window's extents point at. Changed under the window's lock alone, so that relaxed
    /// order is enough.
    live: AtomicU32,
}

impl Slab {
    /// An allocation that nobody else has.
    pub(crate) fn new(data: Box<[u8]>, live: u32) -> Arc<Self> {
        Self::of(Memory::Own(data), live)
    }

    /// Memory that a store handed out and may hold itself.
    pub(crate) fn kept(bytes: Bytes, live: u32) -> Arc<Self> {
        Self::of(Memory::Kept(Box::new(bytes)), live)
    }

    fn of(memory: Memory, live: u32) -> Arc<Self> {
        let live = AtomicU32::new(live);
        Arc::new(Self { memory, live })
    }

    /// All of its bytes, whether live or not.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Own(data) => data,
            Memory::Kept(bytes) => bytes,
        }
    }

    /// Some of its bytes.
    pub(crate) fn slice(&self, at: u32, len: u32) -> Option<&[u8]> {
        let at = at as usize;
        self.bytes().get(at..at + len as usize)
    }

    /// The bytes for writing, if nobody else holds them: no other extent, no reader, no writeback, no store.
    pub(crate) fn unique(slab: &mut Arc<Self>) -> Option<&mut [u8]> {
        match &mut Arc::get_mut(slab)?.memory {
            Memory::Own(data) => Some(data),
            Memory::Kept(_) => None,
        }
    }

    /// How many of its bytes extents point at.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Notes how many of its bytes extents point at now.
    pub(crate) fn set_live(&self, bytes: u32) {
        self.live.store(bytes, Ordering::Relaxed);
    }

    /// Whether so little of it is in use that the rest is worth copying out.
    pub(crate) fn is_sparse(&self) -> bool {
        (self.live() as usize) * 4 < self.bytes().len()
    }
}

const _: () = assert!(size_of::<Slab>() == 24);

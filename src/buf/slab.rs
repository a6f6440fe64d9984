//! One allocation of the cache's memory, shared by what points into it.
//!
//! What counts the holders of an allocation lies beside it, not in front of its bytes: a hit that hands out a
//! reference does not touch the page that holds the data, which over a large cache would cost more than all the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One allocation, and how much of it is in use. It belongs to one window; readers and writebacks hold it too.
#[derive(Debug)]
pub(crate) struct Slab {
    data: Box<[u8]>,
    /// How many of its bytes the window's extents point at. Changed under the window's lock alone, so that relaxed
    /// order is enough.
    live: AtomicU32,
}

impl Slab {
    pub(crate) fn new(data: Box<[u8]>, live: u32) -> Arc<Self> {
        let live = AtomicU32::new(live);
        Arc::new(Self { data, live })
    }

    /// All of its bytes, whether live or not.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Some of its bytes.
    pub(crate) fn slice(&self, at: u32, len: u32) -> Option<&[u8]> {
        let at = at as usize;
        self.data.get(at..at + len as usize)
    }

    /// The bytes for writing, if nobody else holds the slab: no other extent, no reader, no writeback.
    pub(crate) fn unique(slab: &mut Arc<Self>) -> Option<&mut [u8]> {
        Arc::get_mut(slab).map(|slab| &mut *slab.data)
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
        (self.live() as usize) * 4 < self.data.len()
    }
}

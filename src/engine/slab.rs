//! The memory behind extents: allocations that extents point into, each charged whole for as long as one does.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::buf::Piece;

/// Above this many bytes, fetched memory is kept as it came instead of being copied into its own buffer.
const KEEP_BYTES_MIN: usize = 16 << 10;

/// A slab's place in its window's [`Slabs`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SlabId(NonZeroU32);

impl SlabId {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX - 1);
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Debug)]
enum Memory {
    Own(Arc<[u8]>),
    Kept(Bytes),
}

#[derive(Debug)]
struct Slab {
    memory: Memory,
    /// How many of its bytes extents point at.
    live: u32,
}

impl Slab {
    fn len(&self) -> usize {
        match &self.memory {
            Memory::Own(buffer) => buffer.len(),
            Memory::Kept(bytes) => bytes.len(),
        }
    }

    fn is_sparse(&self) -> bool {
        (self.live as usize) * 4 < self.len()
    }
}

/// The slabs of one window.
#[derive(Debug, Default)]
pub(crate) struct Slabs {
    slots: Vec<Option<Slab>>,
    free: Vec<SlabId>,
    /// Allocated bytes, whether live or not.
    allocated: u64,
}

impl Slabs {
    /// Allocated bytes, whether live or not.
    pub(crate) const fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    fn insert(&mut self, slab: Slab) -> SlabId {
        self.allocated += slab.len() as u64;
        if let Some(id) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(id.index()) {
                *slot = Some(slab);
            }
            return id;
        }
        self.slots.push(Some(slab));
        SlabId::new(self.slots.len() - 1)
    }

    /// Copies `bytes`, all of them live, into a buffer of their own.
    pub(crate) fn copy_in(&mut self, bytes: &[u8]) -> SlabId {
        let live = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.insert(Slab {
            memory: Memory::Own(Arc::from(bytes)),
            live,
        })
    }

    /// Takes over a buffer of which the first `live` bytes are in use.
    pub(crate) fn take(&mut self, buffer: Arc<[u8]>, live: u32) -> SlabId {
        self.insert(Slab {
            memory: Memory::Own(buffer),
            live,
        })
    }

    /// Takes fetched memory, of which `live` bytes will be pointed at: kept where it is large and owns no more
    /// than it shows, else copied (rule B-05).
    pub(crate) fn adopt(&mut self, bytes: Bytes, live: u32) -> SlabId {
        if bytes.len() < KEEP_BYTES_MIN {
            return self.insert(Slab {
                memory: Memory::Own(Arc::from(bytes.as_ref())),
                live,
            });
        }
        let memory = match bytes.try_into_mut() {
            Ok(buffer) if buffer.capacity() <= buffer.len() + buffer.len() / 8 => {
                Memory::Kept(shared(buffer))
            }
            Ok(buffer) => Memory::Own(Arc::from(buffer.as_ref())),
            Err(bytes) => Memory::Own(Arc::from(bytes.as_ref())),
        };
        self.insert(Slab { memory, live })
    }

    /// The bytes of an extent.
    pub(crate) fn piece(&self, id: SlabId, at: u32, len: u32) -> Option<Piece> {
        let slab = self.slots.get(id.index())?.as_ref()?;
        match &slab.memory {
            Memory::Own(buffer) => Some(Piece::own(buffer.clone(), at, len)),
            Memory::Kept(bytes) => {
                let at = at as usize;
                (at + len as usize <= bytes.len())
                    .then(|| Piece::kept(bytes.slice(at..at + len as usize)))
            }
        }
    }

    /// The bytes of an extent, lent.
    pub(crate) fn slice(&self, id: SlabId, at: u32, len: u32) -> Option<&[u8]> {
        let slab = self.slots.get(id.index())?.as_ref()?;
        let whole: &[u8] = match &slab.memory {
            Memory::Own(buffer) => buffer,
            Memory::Kept(bytes) => bytes,
        };
        whole.get(at as usize..at as usize + len as usize)
    }

    /// The slab's buffer for writing, if nobody else holds it: no reader, no writeback.
    pub(crate) fn unique(&mut self, id: SlabId) -> Option<&mut [u8]> {
        match &mut self.slots.get_mut(id.index())?.as_mut()?.memory {
            Memory::Own(buffer) => Arc::get_mut(buffer),
            Memory::Kept(_) => None,
        }
    }

    /// Points at `bytes` more of the slab.
    pub(crate) fn retain(&mut self, id: SlabId, bytes: u32) {
        if let Some(Some(slab)) = self.slots.get_mut(id.index()) {
            slab.live += bytes;
        }
    }

    /// Points at `bytes` fewer of the slab, frees it with the last, and tells whether so little of it is left
    /// in use that the rest is worth copying out.
    pub(crate) fn release(&mut self, id: SlabId, bytes: u32) -> bool {
        let Some(slot) = self.slots.get_mut(id.index()) else {
            return false;
        };
        let Some(slab) = slot else { return false };
        slab.live = slab.live.saturating_sub(bytes);
        let len = slab.len();
        if slab.live == 0 {
            self.allocated -= len as u64;
            *slot = None;
            self.free.push(id);
            return false;
        }
        slab.is_sparse()
    }

    /// Whether so little of the slab is in use that the rest is worth copying out.
    pub(crate) fn is_sparse(&self, id: SlabId) -> bool {
        self.slots
            .get(id.index())
            .and_then(Option::as_ref)
            .is_some_and(Slab::is_sparse)
    }

    /// Live bytes and allocated bytes of every slab, for audits.
    pub(crate) fn usage(&self) -> impl Iterator<Item = (SlabId, u32, usize)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.as_ref()
                .map(|slab| (SlabId::new(index), slab.live, slab.len()))
        })
    }

    /// Gives back the tables' memory once nothing is stored.
    pub(crate) fn shrink_if_empty(&mut self) {
        if self.free.len() == self.slots.len() && !self.slots.is_empty() {
            *self = Self::default();
        }
    }
}

/// Makes the buffer cheap to share from now on: the first clone of a fresh `Bytes` allocates, so it is made here
/// and not by a reader.
fn shared(buffer: BytesMut) -> Bytes {
    let bytes = buffer.freeze();
    drop(bytes.clone());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-05
    #[test]
    fn a_slice_of_a_larger_allocation_is_copied() {
        let mut slabs = Slabs::default();
        let large = Bytes::from(vec![1u8; 1 << 20]);
        let id = slabs.adopt(large.slice(..64 << 10), 64 << 10);
        assert!(
            large.is_unique(),
            "the slab still holds the large allocation"
        );
        assert_eq!(slabs.allocated_bytes(), 64 << 10);
        assert!(matches!(
            slabs.slots[id.index()].as_ref().unwrap().memory,
            Memory::Own(_)
        ));

        let mut spacious = BytesMut::with_capacity(1 << 20);
        spacious.extend_from_slice(&[2; 64 << 10]);
        let id = slabs.adopt(spacious.freeze(), 64 << 10);
        assert!(matches!(
            slabs.slots[id.index()].as_ref().unwrap().memory,
            Memory::Own(_)
        ));
    }

    #[test]
    fn a_whole_allocation_is_kept_as_it_is() {
        let mut slabs = Slabs::default();
        let whole = vec![3u8; 64 << 10];
        let address = whole.as_ptr();
        let id = slabs.adopt(Bytes::from(whole), 64 << 10);
        assert_eq!(slabs.slice(id, 0, 1).unwrap().as_ptr(), address);
    }

    #[test]
    fn memory_is_charged_until_the_last_byte_goes() {
        let mut slabs = Slabs::default();
        let id = slabs.copy_in(&[1; 100]);
        assert!(!slabs.release(id, 60));
        assert_eq!(slabs.allocated_bytes(), 100);
        assert!(slabs.release(id, 20), "a fifth in use is worth copying out");
        slabs.release(id, 20);
        assert_eq!(slabs.allocated_bytes(), 0);
        assert!(slabs.piece(id, 0, 1).is_none());
    }

    #[test]
    fn a_buffer_that_a_reader_holds_is_not_written() {
        let mut slabs = Slabs::default();
        let id = slabs.copy_in(&[1; 100]);
        let piece = slabs.piece(id, 0, 100);
        assert!(slabs.unique(id).is_none());
        drop(piece);
        assert!(slabs.unique(id).is_some());
    }
}

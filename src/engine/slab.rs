//! The memory behind a window's extents: allocations that extents point into, each charged whole for as long as one
//! does.

use std::sync::Arc;

use bytes::Bytes;

use crate::buf::{Piece, Slab};

/// Above this many bytes, memory is kept as it came instead of being copied into its own buffer.
const KEEP_BYTES_MIN: usize = 16 << 10;

/// What the slabs of one window take.
#[derive(Debug, Default)]
pub(crate) struct Slabs {
    /// Allocated bytes, whether live or not.
    allocated: u64,
}

impl Slabs {
    /// Allocated bytes, whether live or not.
    pub(crate) const fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    /// Takes over a buffer of which `live` bytes are in use.
    pub(crate) fn take(&mut self, data: Box<[u8]>, live: u32) -> Arc<Slab> {
        self.allocated += data.len() as u64;
        Slab::new(data, live)
    }

    /// Copies `bytes`, all of them live, into a buffer of their own.
    pub(crate) fn copy_in(&mut self, bytes: &[u8]) -> Arc<Slab> {
        let live = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.take(Box::from(bytes), live)
    }

    /// Whether memory that came with a write is better kept than copied.
    pub(crate) fn is_worth_keeping(bytes: &Bytes) -> bool {
        bytes.len() >= KEEP_BYTES_MIN && bytes.is_unique()
    }

    /// Takes in bytes that came with a write, all of them live: their memory, where that is large and nobody else's,
    /// else a copy. `bytes` shows them still.
    pub(crate) fn take_given(&mut self, bytes: &mut Bytes) -> Arc<Slab> {
        if !Self::is_worth_keeping(bytes) {
            return self.copy_in(bytes);
        }
        let live = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let slab = self.adopt(std::mem::take(bytes), live, false);
        *bytes = Piece::of_slab(slab.clone(), 0, live).into_bytes();
        slab
    }

    /// Takes fetched memory, of which `live` bytes will be pointed at: kept where it is large and owns no more
    /// than it shows, or the store vouches for it; else copied (rule B-05).
    pub(crate) fn adopt(&mut self, bytes: Bytes, live: u32, is_vouched_for: bool) -> Arc<Slab> {
        if bytes.len() < KEEP_BYTES_MIN {
            return self.take(Box::from(bytes.as_ref()), live);
        }
        let data = match bytes.try_into_mut() {
            Ok(buffer) if buffer.capacity() <= buffer.len() + buffer.len() / 8 => {
                Vec::from(buffer).into_boxed_slice()
            }
            Ok(buffer) => Box::from(buffer.as_ref()),
            Err(bytes) if is_vouched_for => {
                self.allocated += bytes.len() as u64;
                return Slab::kept(bytes, live);
            }
            Err(bytes) => Box::from(bytes.as_ref()),
        };
        self.take(data, live)
    }

    /// Points at `bytes` more of a slab.
    pub(crate) fn retain(slab: &Slab, bytes: u32) {
        slab.set_live(slab.live().saturating_add(bytes));
    }

    /// Points at `bytes` fewer of a slab, lets go of it with the last, and tells whether so little of it is left
    /// in use that the rest is worth copying out.
    pub(crate) fn release(&mut self, slab: &Slab, bytes: u32) -> bool {
        let live = slab.live().saturating_sub(bytes);
        slab.set_live(live);
        if live == 0 {
            self.allocated -= slab.bytes().len() as u64;
            return false;
        }
        slab.is_sparse()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    /// B-05
    #[test]
    fn a_slice_of_a_larger_allocation_is_copied() {
        let mut slabs = Slabs::default();
        let large = Bytes::from(vec![1u8; 1 << 20]);
        let slab = slabs.adopt(large.slice(..64 << 10), 64 << 10, false);
        assert!(
            large.is_unique(),
            "the slab still holds the large allocation"
        );
        assert_eq!(slab.bytes().len(), 64 << 10);

        let mut spacious = BytesMut::with_capacity(1 << 20);
        spacious.extend_from_slice(&[2; 64 << 10]);
        let address = spacious.as_ptr();
        let slab = slabs.adopt(spacious.freeze(), 64 << 10, false);
        assert_ne!(slab.bytes().as_ptr(), address);
        assert_eq!(slabs.allocated_bytes(), 128 << 10);
    }

    #[test]
    fn a_whole_allocation_is_kept_as_it_is() {
        let mut slabs = Slabs::default();
        let whole = vec![3u8; 64 << 10];
        let address = whole.as_ptr();
        let slab = slabs.adopt(Bytes::from(whole), 64 << 10, false);
        assert_eq!(slab.bytes().as_ptr(), address);
    }

    /// B-05
    #[test]
    fn what_a_store_vouches_for_is_kept_and_never_written_to() {
        let mut slabs = Slabs::default();
        let shared = Bytes::from(vec![4u8; 64 << 10]);
        let mut slab = slabs.adopt(shared.clone(), 64 << 10, true);
        assert_eq!(slab.bytes().as_ptr(), shared.as_ptr());
        assert_eq!(slabs.allocated_bytes(), 64 << 10, "it is charged whole");
        assert!(
            Slab::unique(&mut slab).is_none(),
            "the store holds it, or did"
        );
        let slab = slabs.adopt(shared.slice(..4 << 10), 4 << 10, true);
        assert_ne!(
            slab.bytes().as_ptr(),
            shared.as_ptr(),
            "small memory is copied, vouched for or not"
        );
    }

    #[test]
    fn memory_that_came_with_a_write_is_kept_where_nobody_else_holds_it() {
        let mut slabs = Slabs::default();
        let mut given = Bytes::from(vec![5u8; 16 << 10]);
        let address = given.as_ptr();
        let mut slab = slabs.take_given(&mut given);
        assert_eq!(slab.bytes().as_ptr(), address);
        assert_eq!(given, vec![5u8; 16 << 10], "it can be given once more");
        assert!(Slab::unique(&mut slab).is_none(), "the giver still sees it");
        drop(given);
        assert!(Slab::unique(&mut slab).is_some());

        let mut shared = Bytes::from(vec![6u8; 16 << 10]);
        let held = shared.clone();
        let mut slice = Bytes::from(vec![7u8; 64 << 10]).slice(..16 << 10);
        let mut small = Bytes::from(vec![8u8; (16 << 10) - 1]);
        for given in [&mut shared, &mut slice, &mut small] {
            let address = given.as_ptr();
            let slab = slabs.take_given(given);
            assert_ne!(slab.bytes().as_ptr(), address);
            assert_eq!(slab.bytes().len(), given.len());
        }
        assert_eq!(held, vec![6u8; 16 << 10]);
    }

    #[test]
    fn memory_is_charged_until_the_last_byte_goes() {
        let mut slabs = Slabs::default();
        let slab = slabs.copy_in(&[1; 100]);
        assert!(!slabs.release(&slab, 60));
        assert_eq!(slabs.allocated_bytes(), 100);
        assert!(
            slabs.release(&slab, 20),
            "a fifth in use is worth copying out"
        );
        slabs.release(&slab, 20);
        assert_eq!(slabs.allocated_bytes(), 0);
    }

    #[test]
    fn a_buffer_that_a_reader_holds_is_not_written() {
        let mut slabs = Slabs::default();
        let mut slab = slabs.copy_in(&[1; 100]);
        let held = slab.clone();
        assert!(Slab::unique(&mut slab).is_none());
        drop(held);
        assert!(Slab::unique(&mut slab).is_some());
    }
}

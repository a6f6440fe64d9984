//! What a read returns: bytes in pieces that share the cache's memory.

mod slab;

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

pub(crate) use slab::Slab;

/// Zeros to point at where no bytes are stored.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A run of bytes that shares memory with the cache.
#[derive(Clone, Debug)]
pub struct Piece(Memory);

#[derive(Clone, Debug)]
enum Memory {
    Slab { slab: Arc<Slab>, at: u32, len: u32 },
    Zeros { len: u32 },
}

impl Piece {
    /// A part of a slab, which must lie in it.
    pub(crate) const fn of_slab(slab: Arc<Slab>, at: u32, len: u32) -> Self {
        Self(Memory::Slab { slab, at, len })
    }

    /// Pieces of zeros, `len` bytes together.
    pub(crate) fn zeros(len: u64) -> impl Iterator<Item = Self> {
        let step = ZEROS.len() as u64;
        (0..len.div_ceil(step)).map(move |nth| {
            let len = as_u32(as_usize((len - nth * step).min(step)));
            Self(Memory::Zeros { len })
        })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Memory::Slab { slab, at, len } => slab.slice(*at, *len).unwrap_or(&[]),
            Memory::Zeros { len } => ZEROS.get(..*len as usize).unwrap_or(&ZEROS),
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        match &self.0 {
            Memory::Slab { len, .. } | Memory::Zeros { len } => *len as usize,
        }
    }

    /// Whether there are none, as after reading them all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as `Bytes`, without copying them.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match &self.0 {
            Memory::Slab { .. } => Bytes::from_owner(self),
            Memory::Zeros { len } => {
                Bytes::from_static(ZEROS.get(..*len as usize).unwrap_or(&ZEROS))
            }
        }
    }

    /// The part of this piece from `from` on, at most `len` bytes of it.
    pub(crate) fn part(&self, from: u64, len: u64) -> Self {
        let mut part = self.clone();
        part.advance(as_usize(from));
        match &mut part.0 {
            Memory::Slab { len: left, .. } | Memory::Zeros { len: left } => {
                *left = as_u32(as_usize(len)).min(*left);
            }
        }
        part
    }

    fn advance(&mut self, count: usize) {
        let count = as_u32(count).min(as_u32(self.len()));
        match &mut self.0 {
            Memory::Slab { at, len, .. } => {
                *at += count;
                *len -= count;
            }
            Memory::Zeros { len } => *len -= count,
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// Pieces are parts of buffers of at most a few MiB.
fn as_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn as_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The bytes that a read returns, in order, as one or more pieces that share memory with the cache.
///
/// Reading through [`Buf`] consumes it; [`pieces`](Self::pieces) and [`io_slices`](Self::io_slices) lend the
/// pieces for vectored output; [`into_bytes`](Self::into_bytes) joins them, which copies if there are several.
///
/// While it lives, it keeps the memory of its pieces alive, which the cache's limits don't count.
#[derive(Clone, Debug, Default)]
pub struct ReadBuf {
    pieces: SmallVec<[Piece; 1]>,
    /// The first piece that is not yet consumed.
    next: usize,
    len: usize,
}

impl ReadBuf {
    #[inline]
    pub(crate) fn push(&mut self, piece: Piece) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// Forgets what was pushed after the buffer had `pieces` pieces.
    pub(crate) fn truncate_pieces(&mut self, pieces: usize) {
        for piece in self.pieces.drain(pieces.min(self.pieces.len())..) {
            self.len -= piece.len();
        }
    }

    pub(crate) fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// The number of bytes left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces that are left.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        self.pieces.get(self.next..).unwrap_or(&[])
    }

    /// The pieces that are left, for vectored output.
    #[must_use]
    pub fn io_slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces()
            .iter()
            .map(|piece| IoSlice::new(piece.as_slice()))
            .collect()
    }

    /// All bytes left as one buffer: the piece itself where there is one, a copy where there are several.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == self.next + 1
            && let Some(piece) = self.pieces.pop()
        {
            return piece.into_bytes();
        }
        let mut joined = BytesMut::with_capacity(self.len);
        for piece in self.pieces() {
            joined.put_slice(piece.as_slice());
        }
        joined.freeze()
    }

    /// All bytes left, copied.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut joined = Vec::with_capacity(self.len);
        for piece in self.pieces() {
            joined.extend_from_slice(piece.as_slice());
        }
        joined
    }
}

impl Buf for ReadBuf {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.get(self.next).map_or(&[], Piece::as_slice)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in dst.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(piece.as_slice());
            filled += 1;
        }
        filled
    }

    #[expect(clippy::panic, reason = "the contract of Buf demands it")]
    fn advance(&mut self, mut count: usize) {
        if count > self.len {
            panic!("cannot advance past the end: {count} of {} bytes", self.len);
        }
        self.len -= count;
        while let Some(piece) = self.pieces.get_mut(self.next) {
            let step = count.min(piece.len());
            piece.advance(step);
            count -= step;
            if !piece.is_empty() {
                break;
            }
            self.next += 1;
        }
    }
}

/// Equal when the bytes are.
impl PartialEq<[u8]> for ReadBuf {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        for piece in self.pieces() {
            match rest.split_at_checked(piece.len()) {
                Some((head, tail)) if head == piece.as_slice() => rest = tail,
                Some(_) | None => return false,
            }
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ReadBuf {
        let mut buf = ReadBuf::default();
        for (bytes, at, len) in [(&b"xhello"[..], 1, 5), (b", ", 0, 2), (b"world", 0, 5)] {
            buf.push(Piece::of_slab(Slab::new(Box::from(bytes), len), at, len));
        }
        buf
    }

    #[test]
    fn pieces_join_in_order() {
        assert_eq!(sample().into_bytes(), "hello, world");
        assert_eq!(sample().io_slices().len(), 3);
        assert!(sample() == b"hello, world"[..]);
        assert!(sample() != b"hello, worl"[..]);
    }

    #[test]
    fn reading_consumes_across_pieces() {
        let mut buf = sample();
        buf.advance(4);
        assert_eq!(buf.copy_to_bytes(4), "o, w");
        assert_eq!(buf.remaining(), 4);
        assert_eq!(buf.clone().into_bytes(), "orld");
        buf.advance(4);
        assert!(buf.is_empty() && buf.chunk().is_empty());
    }

    #[test]
    fn one_piece_becomes_bytes_without_a_copy() {
        let slab = Slab::new(Box::from([7u8; 100]), 100);
        let mut buf = ReadBuf::default();
        buf.push(Piece::of_slab(slab.clone(), 10, 20));
        let bytes = buf.into_bytes();
        assert_eq!(bytes.as_ptr(), slab.bytes()[10..].as_ptr());
    }

    #[test]
    fn zeros_of_any_length() {
        let total: usize = Piece::zeros(200_001).map(|piece| piece.len()).sum();
        assert_eq!(total, 200_001);
        assert!(Piece::zeros(200_001).all(|piece| piece.as_slice().iter().all(|byte| *byte == 0)));
    }
}

//! A string of bytes with holes: what one version of an object holds.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::{Bytes, BytesMut};

use crate::error::BackendError;
use crate::types::{ByteRange, OFFSET_BYTES_MAX};

/// The most bytes in one chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// The least bytes that a chunk takes.
const CHUNK_BYTES_MIN: usize = 512;

/// Bytes in chunks; a chunk that is missing, and what a short one lacks at its end, is zeros.
///
/// Cloning shares the chunks: a chunk is copied only when a shared one is changed. Every chunk owns its whole
/// allocation, so one that is read as a whole is handed out without a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseBytes {
    chunks: BTreeMap<u64, Bytes>,
    len: u64,
}

impl SparseBytes {
    /// One past the last byte ever written, or as set.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Puts `data` at `offset`, which together stay below [`OFFSET_BYTES_MAX`].
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let (index, within) = place(at);
            let (piece, after) = rest.split_at(rest.len().min(CHUNK_BYTES - within));
            self.write_chunk(index, within, piece);
            at += piece.len() as u64;
            rest = after;
        }
        self.len = self.len.max(at);
    }

    fn write_chunk(&mut self, index: u64, within: usize, piece: &[u8]) {
        let end = within + piece.len();
        let chunk = self.chunks.entry(index).or_default();
        let mut bytes = if end > chunk.len() {
            let mut larger = BytesMut::with_capacity(chunk_len(end));
            larger.extend_from_slice(chunk);
            larger.resize(chunk_len(end), 0);
            larger
        } else {
            unshared(std::mem::take(chunk))
        };
        if let Some(target) = bytes.get_mut(within..end) {
            target.copy_from_slice(piece);
        }
        *chunk = bytes.freeze();
    }

    /// Reads a range, as far as the object goes.
    ///
    /// # Errors
    /// When there is no memory for the answer.
    pub(super) fn read(&self, range: ByteRange) -> Result<Bytes, BackendError> {
        let Some(range) = ByteRange::between(range.start(), range.end().min(self.len)) else {
            return Ok(Bytes::new());
        };
        let (index, within) = place(range.start());
        if let Some(chunk) = self.chunks.get(&index)
            && within == 0
            && chunk.len() as u64 == range.len()
        {
            return Ok(chunk.clone());
        }
        let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
        let mut answer = Vec::new();
        if answer.try_reserve_exact(len).is_err() {
            return Err(BackendError::Io {
                operation: "allocating a read's answer",
                kind: std::io::ErrorKind::OutOfMemory,
                os_code: None,
            });
        }
        self.gather(range, &mut answer);
        answer.resize(len, 0);
        Ok(Bytes::from(answer))
    }

    /// Appends the bytes of `range` up to its last chunk.
    fn gather(&self, range: ByteRange, answer: &mut Vec<u8>) {
        let (first, within) = place(range.start());
        let last = place(range.end() - 1).0;
        for (index, chunk) in self.chunks.range(first..=last) {
            let chunk_start = index * CHUNK_BYTES as u64;
            let from = if *index == first { within } else { 0 };
            let to = usize::try_from(range.end() - chunk_start).unwrap_or(usize::MAX);
            let Some(piece) = chunk.get(from..to.min(chunk.len())) else {
                continue;
            };
            let hole = (chunk_start + from as u64) - range.start();
            answer.resize(usize::try_from(hole).unwrap_or(usize::MAX), 0);
            answer.extend_from_slice(piece);
        }
    }

    /// Makes a range zeros; the length stays.
    pub(super) fn zero(&mut self, range: ByteRange) {
        let (first, _) = place(range.start());
        let (last, _) = place(range.end() - 1);
        let inside = |index: u64| {
            let start = index * CHUNK_BYTES as u64;
            ByteRange::between(start, start + CHUNK_BYTES as u64)
                .is_some_and(|chunk| range.contains(chunk))
        };
        let touched: Vec<u64> = self.chunks.range(first..=last).map(|(at, _)| *at).collect();
        for index in touched {
            if inside(index) {
                self.chunks.remove(&index);
            } else {
                self.zero_in_chunk(index, range);
            }
        }
    }

    fn zero_in_chunk(&mut self, index: u64, range: ByteRange) {
        let Entry::Occupied(mut entry) = self.chunks.entry(index) else {
            return;
        };
        let start = index * CHUNK_BYTES as u64;
        let from = usize::try_from(range.start().saturating_sub(start)).unwrap_or(usize::MAX);
        let to = usize::try_from(range.end() - start).unwrap_or(usize::MAX);
        let to = to.min(entry.get().len());
        if from >= to {
            return;
        }
        let mut bytes = unshared(std::mem::take(entry.get_mut()));
        if let Some(target) = bytes.get_mut(from..to) {
            target.fill(0);
        }
        entry.insert(bytes.freeze());
    }

    /// Cuts or grows to a length; what is grown is zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if let Some(cut) = ByteRange::between(len, OFFSET_BYTES_MAX) {
            self.zero(cut);
        }
        self.len = len;
    }

    /// The bytes of memory that the chunks take.
    pub(super) fn held_bytes(&self) -> u64 {
        self.chunks.values().map(|chunk| chunk.len() as u64).sum()
    }
}

/// The chunk of an offset, and the place within it.
fn place(offset: u64) -> (u64, usize) {
    let chunk = CHUNK_BYTES as u64;
    (offset / chunk, usize::try_from(offset % chunk).unwrap_or(0))
}

/// How long a chunk is made that holds `end` bytes.
const fn chunk_len(end: usize) -> usize {
    let len = end.next_power_of_two();
    if len < CHUNK_BYTES_MIN {
        CHUNK_BYTES_MIN
    } else {
        len
    }
}

/// The bytes for change: the same memory when nobody else holds it, else a copy.
fn unshared(bytes: Bytes) -> BytesMut {
    bytes
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(shared.as_ref()))
}

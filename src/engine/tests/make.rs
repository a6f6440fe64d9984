//! Short ways to make requests and bytes.

use bytes::Bytes;

use crate::engine::window::WINDOW_BYTES;
use crate::io::BackendWrite;
use crate::request::{ObjectExtent, ReadRequest, WriteRequest};
use crate::types::{ByteRange, JournalTid, ObjectKey, ObjectName, SnapId};

pub(super) fn name(object: u64) -> ObjectName {
    ObjectName::new(format!("vol.{object:016x}")).unwrap()
}

pub(super) fn head(object: u64) -> crate::engine::object::ObjectRef {
    crate::engine::object::ObjectRef {
        key: ObjectKey::Number(object),
        snap: SnapId::HEAD,
    }
}

pub(super) fn range(offset: u64, len: u64) -> ByteRange {
    ByteRange::new(offset, len).unwrap()
}

pub(super) fn extent(object: u64, offset: u64, len: u64) -> ObjectExtent {
    ObjectExtent::new(object, offset, len).unwrap()
}

pub(super) fn read_of(object: u64, offset: u64, len: u64) -> ReadRequest {
    ReadRequest {
        extents: vec![extent(object, offset, len)],
        ..ReadRequest::default()
    }
}

pub(super) fn write_of(object: u64, offset: u64, bytes: &[u8]) -> WriteRequest {
    WriteRequest {
        extents: vec![extent(object, offset, bytes.len() as u64)],
        data: Bytes::copy_from_slice(bytes),
        ..WriteRequest::default()
    }
}

pub(super) fn journaled(object: u64, offset: u64, bytes: &[u8], tid: u64) -> WriteRequest {
    WriteRequest {
        journal_tid: Some(tid_of(tid)),
        ..write_of(object, offset, bytes)
    }
}

pub(super) fn tid_of(tid: u64) -> JournalTid {
    JournalTid(std::num::NonZeroU64::new(tid).unwrap())
}

/// Bytes that differ from place to place and from one `salt` to the next, and are never zero.
pub(super) fn pattern(salt: u64, offset: u64, len: u64) -> Vec<u8> {
    let words = offset / 8..(offset + len).div_ceil(8);
    let mut bytes = Vec::with_capacity(len as usize + 16);
    for word in words {
        bytes.extend_from_slice(&pattern_word(salt, word));
    }
    bytes.drain(..(offset % 8) as usize);
    bytes.truncate(len as usize);
    bytes
}

/// Eight bytes at a time, which counts under Miri. None of them is zero.
fn pattern_word(salt: u64, word: u64) -> [u8; 8] {
    let mixed = (word + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(salt.wrapping_mul(0x2545_f491_4f6c_dd1d));
    (mixed ^ (mixed >> 29) | 0x0101_0101_0101_0101).to_le_bytes()
}

pub(super) fn ranges_of(write: &BackendWrite) -> Vec<ByteRange> {
    write
        .runs
        .iter()
        .map(|run| range(run.offset, run.len_bytes()))
        .collect()
}

/// The windows' size, as tests reckon.
pub(super) const WINDOW: u64 = WINDOW_BYTES;

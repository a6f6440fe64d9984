//! The block in front of each object's data: what the object is called and how far it was truncated.
//!
//! | bytes | content, little endian |
//! | --- | --- |
//! | 0..16 | magic |
//! | 16..24 | truncation number |
//! | 24..32 | XXH3-64 of the truncation number |
//! | 32..40 | XXH3-64 of the bytes from 40 to the end of the name |
//! | 40..44 | format version |
//! | 44..48 | length of the name |
//! | 48..1072 | the name, then zeros |
//! | 1072..4096 | zeros |
//!
//! The name never changes. The truncation number does; it and its checksum lie in one disk sector, so that
//! rewriting the block, even in parts, can't damage it.

use twox_hash::XxHash3_64;

use crate::error::BackendError;
use crate::types::ObjectName;

/// Where the data starts in an object's file.
pub(super) const HEADER_BYTES: u64 = 4096;
/// As much of the header as has a meaning.
pub(super) const HEADER_USED_BYTES: usize = NAME_AT + ObjectName::LEN_MAX;

const MAGIC: [u8; 16] = *b"cachalot object\n";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = 32;
const SEALED_AT: usize = 40;
const NAME_AT: usize = 48;

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) name: ObjectName,
    pub(super) truncation_seq: u64,
}

/// What stands where a header belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Decoded {
    /// A whole header.
    Whole(Header),
    /// Nothing but zeros, as a loss of power leaves it in a file that was never synced.
    Blank,
}

/// The whole block, [`HEADER_BYTES`] long.
pub(super) fn encode(header: &Header) -> Vec<u8> {
    let name = header.name.as_str().as_bytes();
    let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let sealed = [
        &VERSION.to_le_bytes()[..],
        &name_len.to_le_bytes()[..],
        name,
    ]
    .concat();
    let mut block = Vec::with_capacity(usize::try_from(HEADER_BYTES).unwrap_or(0));
    block.extend_from_slice(&MAGIC);
    block.extend_from_slice(&encode_truncation(header.truncation_seq));
    block.extend_from_slice(&XxHash3_64::oneshot(&sealed).to_le_bytes());
    block.extend_from_slice(&sealed);
    block.resize(block.capacity(), 0);
    block
}

/// The part of the header that records a truncation.
fn encode_truncation(seq: u64) -> [u8; 16] {
    let mut record = [0; 16];
    let (number, checksum) = record.split_at_mut(8);
    number.copy_from_slice(&seq.to_le_bytes());
    checksum.copy_from_slice(&XxHash3_64::oneshot(&seq.to_le_bytes()).to_le_bytes());
    record
}

/// Reads a header from the first bytes of a file: [`HEADER_USED_BYTES`] of them, or all that the file has.
///
/// # Errors
/// [`BackendError::Corrupt`], saying what is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, BackendError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Decoded::Blank);
    }
    if field::<16>(bytes, 0)? != MAGIC {
        return Err(corrupt("its header does not start with the magic"));
    }
    if u32::from_le_bytes(field(bytes, SEALED_AT)?) != VERSION {
        return Err(corrupt("its header is of an unknown version"));
    }
    if bytes.len() < HEADER_USED_BYTES {
        return Err(corrupt(CUT_SHORT));
    }
    let name_len = u32::from_le_bytes(field(bytes, 44)?);
    let name_len = usize::try_from(name_len).unwrap_or(usize::MAX);
    if name_len > ObjectName::LEN_MAX {
        return Err(corrupt("the name in its header is too long"));
    }
    let sealed = bytes
        .get(SEALED_AT..NAME_AT + name_len)
        .ok_or(corrupt(CUT_SHORT))?;
    if XxHash3_64::oneshot(sealed) != u64::from_le_bytes(field(bytes, CHECKSUM_AT)?) {
        return Err(corrupt("the checksum of its header does not match"));
    }
    let number = field::<8>(bytes, 16)?;
    if XxHash3_64::oneshot(&number) != u64::from_le_bytes(field(bytes, 24)?) {
        return Err(corrupt("the checksum of its truncation does not match"));
    }
    let name = sealed
        .get(NAME_AT - SEALED_AT..)
        .and_then(|name| std::str::from_utf8(name).ok())
        .and_then(|name| ObjectName::new(name).ok())
        .ok_or(corrupt("the name in its header is not one"))?;
    Ok(Decoded::Whole(Header {
        name,
        truncation_seq: u64::from_le_bytes(number),
    }))
}

const CUT_SHORT: &str = "its header is cut short";

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BackendError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(corrupt(CUT_SHORT))
}

const fn corrupt(what: &'static str) -> BackendError {
    BackendError::Corrupt { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, truncation_seq: u64) -> Header {
        Header {
            name: ObjectName::new(name).unwrap(),
            truncation_seq,
        }
    }

    #[test]
    fn a_header_reads_back() {
        for name in [
            "a",
            "../..",
            "\u{1f40b} wal",
            &"x".repeat(ObjectName::LEN_MAX),
        ] {
            let header = header(name, u64::MAX - 1);
            let block = encode(&header);
            assert_eq!(block.len() as u64, HEADER_BYTES);
            assert_eq!(
                decode(&block[..HEADER_USED_BYTES]),
                Ok(Decoded::Whole(header))
            );
        }
    }

    /// The first bytes of a header are a disk format: they must never change.
    #[test]
    fn the_format_is_fixed() {
        let block = encode(&header("rbd_data.1", 7));
        let hex: String = block[..58]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "63616368616c6f74206f626a6563740a0700000000000000af96b5d6581e67817d1d778e49996535\
             010000000a0000007262645f646174612e31"
        );
    }

    #[test]
    fn a_truncation_changes_its_record_alone() {
        let rewritten = encode(&header("a", 9));
        let mut block = encode(&header("a", 1));
        block[16..32].copy_from_slice(&encode_truncation(9));
        assert_eq!(block, rewritten);
        assert_eq!(decode(&block), Ok(Decoded::Whole(header("a", 9))));
    }

    #[test]
    fn every_flipped_byte_that_matters_is_noticed() {
        let whole = header("object", 3);
        let block = encode(&whole);
        for at in 0..NAME_AT + "object".len() {
            let mut damaged = block.clone();
            damaged[at] ^= 0x20;
            assert!(
                matches!(decode(&damaged), Err(BackendError::Corrupt { .. })),
                "byte {at}"
            );
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let block = encode(&header("object", 3));
        assert_eq!(decode(&[]), Ok(Decoded::Blank));
        for len in 1..HEADER_USED_BYTES {
            assert!(
                matches!(decode(&block[..len]), Err(BackendError::Corrupt { .. })),
                "{len} bytes"
            );
        }
        assert_eq!(decode(&[0; 512]), Ok(Decoded::Blank));
    }

    #[test]
    fn a_sealed_name_that_is_no_name_is_damage() {
        for name in [&b"\xff\xfe"[..], b"", b"a\0b"] {
            let name_len = u32::try_from(name.len()).unwrap();
            let sealed = [&VERSION.to_le_bytes()[..], &name_len.to_le_bytes(), name].concat();
            let mut block = [
                &MAGIC[..],
                &encode_truncation(0),
                &XxHash3_64::oneshot(&sealed).to_le_bytes(),
                &sealed,
            ]
            .concat();
            block.resize(HEADER_USED_BYTES, 0);
            assert_eq!(
                decode(&block),
                Err(corrupt("the name in its header is not one"))
            );
        }
    }
}

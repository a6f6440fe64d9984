//! Fuzz targets of the file store: what it reads from the disk, and its ranges.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use super::header::{self, Decoded, HEADER_USED_BYTES, Header};
use super::naming::{Leaf, Slot, name_hash};
use super::range_set::RangeSet;
use super::root::{marker_of, version_of};
use crate::error::BackendError;
use crate::fuzz::Choices;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectName};

/// A block is a header that encodes to the same, blank, or damaged; and every header reads back, unless it was
/// changed where it matters.
pub(crate) fn object_header(input: &[u8]) {
    match header::decode(input) {
        Ok(Decoded::Whole(found)) => {
            let block = header::encode(&found);
            let used = 48 + found.name.as_str().len();
            assert_eq!(input[..used], block[..used]);
        }
        Ok(Decoded::Blank) => assert!(input.iter().all(|byte| *byte == 0)),
        Err(error) => assert!(matches!(error, BackendError::Corrupt { .. })),
    }
    let mut choices = Choices::new(input);
    let truncation_seq = choices.number();
    let (at, flip) = (choices.below(1072) as usize, choices.below(256) as u8);
    let Ok(name) = ObjectName::new(String::from_utf8_lossy(choices.rest()).into_owned()) else {
        return;
    };
    let used = 48 + name.as_str().len();
    let whole = Decoded::Whole(Header {
        name: name.clone(),
        truncation_seq,
    });
    let mut block = header::encode(&Header {
        name,
        truncation_seq,
    });
    block.truncate(HEADER_USED_BYTES);
    assert_eq!(header::decode(&block), Ok(whole.clone()));
    block[at] ^= flip;
    match header::decode(&block) {
        Ok(found) => assert!(found == whole && (flip == 0 || at >= used), "damage unseen"),
        Err(error) => assert!(flip != 0 && at < used, "{error}"),
    }
}

/// A file's name stands for one place that is called so, or for none.
pub(crate) fn file_names(input: &[u8]) {
    let (leaf, name) = input.split_at(input.len().min(3));
    if let Some(leaf) = Leaf::parse(leaf) {
        assert_eq!(leaf.file_name().as_bytes(), &input[..3]);
        if let Some(slot) = Slot::parse(leaf, name) {
            assert_eq!(slot.leaf(), leaf);
            let path = slot.path();
            assert_eq!(path.as_bytes(), [&input[..3], b"/", name].concat());
        }
    }
    let slot = Slot {
        hash: name_hash(input),
        number: Choices::new(input).number() as u32,
    };
    let path = slot.path();
    let (leaf, name) = path.split_once('/').unwrap();
    let leaf = Leaf::parse(leaf.as_bytes()).unwrap();
    assert_eq!(Slot::parse(leaf, name.as_bytes()), Some(slot));
}

/// A marker names the version that it was written with; any change of it is noticed, or makes it another version's.
pub(crate) fn store_marker(input: &[u8]) {
    if let Some(version) = version_of(input) {
        assert_eq!(input, marker_of(version).as_bytes());
    }
    let mut choices = Choices::new(input);
    let version = choices.number() as u32;
    let mut marker = marker_of(version).into_bytes();
    assert_eq!(version_of(&marker), Some(version));
    let at = choices.below(marker.len() as u64) as usize;
    marker[at] ^= 1 + choices.below(255) as u8;
    assert_ne!(version_of(&marker), Some(version));
    marker[at] = b'0';
    marker.truncate(at);
    assert_eq!(version_of(&marker), None, "it is cut short");
}

/// As many places as the ranges are tried on.
const LEN: u64 = 300;

/// A set of ranges holds the bytes that an array does.
pub(crate) fn range_set(input: &[u8]) {
    let mut choices = Choices::new(input);
    let base = choices.of(&[0, OFFSET_BYTES_MAX - LEN]);
    let (mut set, mut other) = (RangeSet::default(), RangeSet::default());
    let (mut model, mut others) = ([false; LEN as usize], [false; LEN as usize]);
    while !choices.is_over() {
        let start = choices.below(LEN);
        let len = if choices.one_in(4) {
            choices.below(LEN)
        } else {
            1 + choices.below(16)
        };
        let end = (start + len).min(LEN);
        let Some(range) = ByteRange::between(base + start, base + end) else {
            continue;
        };
        let bytes = start as usize..end as usize;
        match choices.below(8) {
            0..=2 => {
                set.insert(range);
                model[bytes].fill(true);
            }
            3..=5 => {
                set.remove(range);
                model[bytes].fill(false);
            }
            6 => {
                other.insert(range);
                others[bytes].fill(true);
            }
            _ => {
                set.insert_all(std::mem::take(&mut other));
                for (byte, more) in model.iter_mut().zip(&mut others) {
                    *byte |= std::mem::take(more);
                }
            }
        }
        assert_eq!(
            set.overlaps(range),
            model[start as usize..end as usize].contains(&true)
        );
        assert_eq!(set.is_empty(), !model.contains(&true));
        for (at, byte) in (base..).zip(model) {
            let one = ByteRange::between(at, at + 1).unwrap();
            assert_eq!(set.overlaps(one), byte, "byte {at}");
        }
    }
}

//! Requests of any shape against the checks that they pass first.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Choices;
use crate::buf::{Piece, ReadBuf, Slab};
use crate::engine::{Parts, join_places, slices, split_by_place};
use crate::request::{Missing, ObjectExtent, ReadRequest, Shape, WriteRequest};
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectKey, Place};

/// A request is refused with a typed error, or it is what the engine takes for granted.
pub(crate) fn requests(input: &[u8]) {
    let mut choices = Choices::new(input);
    let shape = Shape {
        prefix: "vol".to_owned(),
        object_bytes_max: choices.of(&[4 << 20, 100, 1, OFFSET_BYTES_MAX]),
        missing: choices.of(&[Missing::Zeros, Missing::NotFound]),
    };
    while !choices.is_over() {
        let is_read = choices.one_in(2);
        let data_bytes = choices.below(3000);
        let extents = extents(&mut choices, data_bytes);
        let is_plain = is_plain(&shape, &extents);
        let total: u128 = extents
            .iter()
            .map(|extent| u128::from(extent.range.len()))
            .sum();
        if is_read {
            let read = ReadRequest {
                extents,
                ..ReadRequest::default()
            };
            match shape.checked_read(read) {
                Ok(checked) => check_read(&shape, &checked),
                Err(error) => assert!(!is_plain, "a sound read is refused: {error}"),
            }
        } else {
            let write = WriteRequest {
                extents,
                data: Bytes::from(vec![7; data_bytes as usize]),
                ..WriteRequest::default()
            };
            match shape.checked_write(write) {
                Ok(checked) => check_write(&shape, &checked),
                Err(error) => assert!(
                    !is_plain || total > u128::from(data_bytes),
                    "a sound write is refused: {error}"
                ),
            }
        }
    }
}

fn extents(choices: &mut Choices, data_bytes: u64) -> Vec<ObjectExtent> {
    let mut at = 0;
    let count = choices.below(6);
    let mut extents = Vec::new();
    for _ in 0..count {
        let object = match choices.below(8) {
            0 => ObjectKey::from("vol.0000000000000001"),
            1 => ObjectKey::from("vol.000000000000000A"),
            2 => ObjectKey::from(["", "a\0b", "ä", "plain"][choices.below(4) as usize]),
            3 => ObjectKey::Number(choices.number()),
            _ => ObjectKey::Number(choices.below(3)),
        };
        let start = if choices.one_in(4) {
            choices.number()
        } else {
            choices.below(200)
        };
        let len = if choices.one_in(4) {
            choices.number()
        } else {
            choices.below(500)
        };
        // The second form reaches ranges that no caller can name.
        let range = ByteRange::new(start, len).ok().or_else(|| {
            let end = start.saturating_add(len);
            ByteRange::between(start, end).filter(|_| end > OFFSET_BYTES_MAX)
        });
        let Some(range) = range else { continue };
        let places = places(choices, range.len(), (&mut at, data_bytes));
        extents.push(ObjectExtent {
            object,
            range,
            places,
        });
    }
    extents
}

/// None, some that cover the range one behind the other, or any.
fn places(choices: &mut Choices, len: u64, (at, data_bytes): (&mut u64, u64)) -> Vec<Place> {
    match choices.below(4) {
        0 => (0..choices.below(4))
            .map(|_| Place {
                offset: choices.number(),
                len: choices.number(),
            })
            .collect(),
        1 => Vec::new(),
        kind => {
            let mut places = Vec::new();
            let mut left = len;
            while left > 0 && places.len() < 4 {
                let part = if places.len() == 3 {
                    left
                } else {
                    1 + choices.below(left)
                };
                // Now and then, out of order.
                let offset = if kind == 3 && data_bytes > 0 {
                    choices.below(data_bytes)
                } else {
                    *at
                };
                places.push(Place { offset, len: part });
                *at = at.saturating_add(part);
                left -= part;
            }
            places
        }
    }
}

/// What holds of the extents of a request that was let through. Gives the end of the buffer that they span.
fn check_extents(shape: &Shape, extents: &[ObjectExtent]) -> u64 {
    assert!(!extents.is_empty());
    let mut end = 0;
    for extent in extents {
        assert!(extent.range.end() <= shape.object_bytes_max.min(OFFSET_BYTES_MAX));
        assert!(shape.name_of(&extent.object).is_ok());
        assert_eq!(shape.canonical(extent.object.clone()), extent.object);
        let mut covered = 0u64;
        for place in &extent.places {
            assert!(place.len > 0);
            covered = covered
                .checked_add(place.len)
                .expect("places of a sound length");
            end = end.max(
                place
                    .offset
                    .checked_add(place.len)
                    .expect("a place that ends"),
            );
        }
        assert_eq!(covered, extent.range.len());
        let sliced: u64 = if covered < 1 << 24 {
            slices(extent.range, &extent.places)
                .iter()
                .map(|(_, span, _)| u64::from(span.len()))
                .sum()
        } else {
            covered
        };
        assert_eq!(sliced, covered, "bytes that lie in no window");
    }
    end
}

fn check_read(shape: &Shape, read: &ReadRequest) {
    let end = check_extents(shape, &read.extents);
    assert!(shape.missing == Missing::Zeros || read.extents.len() == 1);
    let places = || read.extents.iter().flat_map(|extent| &extent.places);
    let total: u64 = places().map(|place| place.len).sum();
    assert_eq!(total, end, "every byte of the result comes from one place");
    if end > 1 << 16 {
        return;
    }
    let mut expected = vec![None; end as usize];
    let mut parts = Parts::new();
    for (nth, extent) in read.extents.iter().enumerate() {
        let bytes: Vec<u8> = (0..extent.range.len())
            .map(|at| (at * 7 + nth as u64) as u8)
            .collect();
        let mut from = 0;
        for place in &extent.places {
            for (to, byte) in (place.offset..).zip(&bytes[from..from + place.len as usize]) {
                let old = expected[to as usize].replace(*byte);
                assert_eq!(old, None, "byte {to} of the result has two places");
            }
            from += place.len as usize;
        }
        let mut buffer = ReadBuf::default();
        for piece in bytes.chunks(13) {
            let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let slab = Slab::new(Box::from(piece), len);
            buffer.push(Piece::of_slab(slab, 0, len));
        }
        split_by_place(&extent.places, buffer, &mut parts);
    }
    let expected: Vec<u8> = expected.into_iter().map(Option::unwrap).collect();
    assert_eq!(join_places(parts).to_vec(), expected);
}

fn check_write(shape: &Shape, write: &WriteRequest) {
    let end = check_extents(shape, &write.extents);
    assert!(end <= write.data.len() as u64);
    let mut ends: BTreeMap<(&ObjectKey, u64), u64> = BTreeMap::new();
    for extent in &write.extents {
        let known = ends.insert((&extent.object, extent.range.start()), extent.range.end());
        assert_eq!(known, None, "two extents share their first byte");
    }
    for (((a, _), end), ((b, start), _)) in ends.iter().zip(ends.iter().skip(1)) {
        assert!(a != b || end <= start, "two extents share bytes");
    }
}

/// Requests of the plainest kind that can be refused for nothing.
fn is_plain(shape: &Shape, extents: &[ObjectExtent]) -> bool {
    let mut ranges: Vec<_> = extents
        .iter()
        .map(|extent| (&extent.object, extent.range))
        .collect();
    ranges.sort();
    let apart = ranges
        .windows(2)
        .all(|pair| pair[0].0 != pair[1].0 || !pair[0].1.overlaps(pair[1].1));
    let is_plain = |extent: &ObjectExtent| {
        matches!(extent.object, ObjectKey::Number(_))
            && extent.places.is_empty()
            && extent.range.end() <= shape.object_bytes_max.min(1 << 40)
    };
    let one = shape.missing == Missing::Zeros || extents.len() == 1;
    !extents.is_empty() && one && apart && extents.iter().all(is_plain)
}

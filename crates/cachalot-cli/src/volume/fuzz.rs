//! Fuzz targets of volumes: their headers and the names of their objects.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use cachalot::{Layout, OFFSET_BYTES_MAX, ObjectName};

use super::header::{COPY_BYTES, COPY_OFFSETS, Header, OBJECT_BYTES, VolumeState};
use super::name::VolumeName;
use crate::fuzz::{Choices, check_line};
use crate::output::one_line;

/// A header is what was written, the newer of two; damage to a copy is noticed, and the other one serves.
pub(crate) fn volume_header(input: &[u8]) {
    if let Ok(found) = Header::decode(input) {
        check_found(input, &found.header);
    }
    let mut choices = Choices::new(input);
    let headers = [header(&mut choices), header(&mut choices)];
    let mut object = vec![0; OBJECT_BYTES];
    let mut is_whole = [true; 2];
    for (copy, (header, offset)) in headers.iter().zip(COPY_OFFSETS).enumerate() {
        let at = offset as usize;
        let place = &mut object[at..at + COPY_BYTES];
        let bytes = header.encode();
        assert_eq!(bytes.len(), COPY_BYTES);
        place.copy_from_slice(&bytes);
        match choices.below(4) {
            0 => {}
            1 => place.fill(0),
            2 => place[choices.below(COPY_BYTES as u64) as usize] ^= choices.below(256) as u8,
            _ => {
                // As somebody else might write it: another body under a checksum that fits.
                place[choices.below(COPY_BYTES as u64 - 4) as usize] = choices.below(256) as u8;
                let checksum = crc32fast::hash(&place[..COPY_BYTES - 4]).to_le_bytes();
                place[COPY_BYTES - 4..].copy_from_slice(&checksum);
            }
        }
        is_whole[copy] = place[..] == bytes[..];
    }
    // Where the object ends early, its second copy is cut.
    let len = if choices.one_in(4) {
        choices.below(OBJECT_BYTES as u64) as usize
    } else {
        OBJECT_BYTES
    };
    object.truncate(len);
    is_whole[0] &= len >= COPY_BYTES;
    is_whole[1] &= len == OBJECT_BYTES;
    if let Ok(found) = Header::decode(choices.rest()) {
        check_found(choices.rest(), &found.header);
    }
    let found = Header::decode(&object);
    let [first, second] = headers;
    match (found, is_whole) {
        (Ok(found), [true, true]) => {
            let newer = if second.generation > first.generation {
                second
            } else {
                first
            };
            assert_eq!((found.header, found.one_copy_only), (newer, false));
        }
        (Err(error), [true, true]) => panic!("two whole copies are refused: {error}"),
        (Ok(found), _) => check_found(&object, &found.header),
        (Err(error), _) => assert!(!error.is_empty() && !error.contains('\n')),
    }
}

fn header(choices: &mut Choices) -> Header {
    let unit = 1 + choices.number() % (1 << 30);
    let stripes = 1 + choices.number() % 1000;
    let layout = Layout::new(unit, 1 + choices.below(70_000) as u32, unit * stripes);
    Header {
        generation: choices.number() % (u64::MAX - 1),
        state: choices.of(&[
            VolumeState::Complete,
            VolumeState::Importing,
            VolumeState::Removing,
        ]),
        size_bytes: choices.number() & OFFSET_BYTES_MAX,
        residue_end: choices.number() & OFFSET_BYTES_MAX,
        layout: layout.unwrap_or_default(),
        created_nanos: choices.number(),
    }
}

/// A header that is taken makes sense, and one of the copies has what is written for it.
fn check_found(object: &[u8], header: &Header) {
    assert!(header.size_bytes <= OFFSET_BYTES_MAX && header.residue_end <= OFFSET_BYTES_MAX);
    assert!(header.generation.checked_add(1).is_some());
    // Where nothing is kept yet, others may have written what they like.
    let known = [0..11, 12..64];
    let bytes = header.encode();
    let has_it = COPY_OFFSETS.iter().any(|offset| {
        let copy = object.get(*offset as usize..).unwrap_or_default();
        copy.len() >= COPY_BYTES
            && known
                .iter()
                .all(|part| copy[part.clone()] == bytes[part.clone()])
    });
    assert!(has_it, "{header:?} is in no copy");
}

/// A volume's name is printed as it is read, and an object belongs to the one volume that would make it, or to none.
pub(crate) fn volume_names(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (first, second) = text.split_once('/').unwrap_or((&text, "a"));
    let volume = match first.parse::<VolumeName>() {
        Ok(volume) => volume,
        Err(error) => return check_line(&one_line(&error)),
    };
    assert_eq!(volume.to_string(), first);
    let header = volume.header_object().unwrap();
    assert_eq!(VolumeName::of_header(&header).as_ref(), Some(&volume));
    assert_eq!(volume.data_number(&header), None);
    let number = Choices::new(input).number();
    let data = ObjectName::new(format!("{volume}.{number:016x}")).unwrap();
    assert_eq!(volume.data_number(&data), Some(number));
    assert_eq!(VolumeName::of_header(&data), None);
    // Of two volumes none takes the other's objects.
    if let Ok(other) = second.parse::<VolumeName>()
        && other != volume
    {
        assert_eq!(other.data_number(&data), None);
        assert_eq!(other.data_number(&header), None);
    }
    let Ok(object) = ObjectName::new(second) else {
        return;
    };
    if let Some(number) = volume.data_number(&object) {
        assert_eq!(object.as_str(), format!("{volume}.{number:016x}"));
    }
    if let Some(volume) = VolumeName::of_header(&object) {
        assert_eq!(volume.header_object().unwrap(), object);
    }
}

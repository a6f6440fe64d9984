//! A volume's header: its bytes in the store, and what they mean.
//!
//! The header is kept twice, at two offsets of one object. A change writes and syncs the first copy, then the
//! second, so that a crash at any point leaves at least one whole copy; of two whole ones the newer counts.

use bytes::{Buf, Bytes};
use cachalot::{Layout, OFFSET_BYTES_MAX};
use serde::Serialize;

/// Where the copies start in the header's object.
pub(crate) const COPY_OFFSETS: [u64; 2] = [0, 4096];
/// The length of a copy.
pub(crate) const COPY_BYTES: usize = 128;
/// How many bytes of the header's object must be read to see both copies.
pub(crate) const OBJECT_BYTES: usize = 4096 + COPY_BYTES;

const MAGIC: [u8; 8] = *b"CACHALOT";
const VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 4;

/// How far a volume's life has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VolumeState {
    /// Everything is there.
    Complete,
    /// An import began and has not ended: some of the data may be missing.
    Importing,
    /// A removal began and has not ended: some of the data is gone.
    Removing,
}

impl VolumeState {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Complete => 1,
            Self::Importing => 2,
            Self::Removing => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Complete),
            2 => Some(Self::Importing),
            3 => Some(Self::Removing),
            _ => None,
        }
    }
}

/// What a volume is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Grows with each change; the copy with the higher one counts.
    pub(crate) generation: u64,
    /// How far the volume's life has got.
    pub(crate) state: VolumeState,
    /// The volume's size in bytes.
    pub(crate) size_bytes: u64,
    /// Where old bytes past the size may reach to, after a shrink that has not cut them all off yet; otherwise 0.
    pub(crate) residue_end: u64,
    /// How the volume is spread over objects.
    pub(crate) layout: Layout,
    /// When the volume was made, in nanoseconds since the Unix epoch.
    pub(crate) created_nanos: u64,
}

/// What was found at the place of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copy {
    Absent,
    Whole(Header),
    Damaged(&'static str),
    Newer,
}

/// A header as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// The header that counts.
    pub(crate) header: Header,
    /// Whether one of the copies is damaged or missing.
    pub(crate) one_copy_only: bool,
}

impl Header {
    /// The bytes of a copy.
    pub(crate) fn encode(&self) -> Bytes {
        let mut copy = Vec::with_capacity(COPY_BYTES);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&VERSION.to_le_bytes());
        copy.push(self.state.to_byte());
        copy.push(0);
        copy.extend_from_slice(&self.layout.stripe_count().to_le_bytes());
        let numbers = [
            self.generation,
            self.size_bytes,
            self.residue_end,
            self.layout.stripe_unit(),
            self.layout.object_size(),
            self.created_nanos,
        ];
        for number in numbers {
            copy.extend_from_slice(&number.to_le_bytes());
        }
        copy.resize(COPY_BYTES - CHECKSUM_BYTES, 0);
        let checksum = crc32fast::hash(&copy);
        copy.extend_from_slice(&checksum.to_le_bytes());
        Bytes::from(copy)
    }

    /// Reads the header out of its object's bytes, which may be short.
    ///
    /// # Errors
    /// What is wrong, when no copy is whole or one was written by a newer version.
    pub(crate) fn decode(object: &[u8]) -> Result<Found, &'static str> {
        let copies = COPY_OFFSETS.map(|offset| decode_copy(copy_at(object, offset)));
        match copies {
            [Copy::Newer, _] | [_, Copy::Newer] => {
                Err("it was written by a newer version of this program")
            }
            [Copy::Whole(first), Copy::Whole(second)] => Ok(Found {
                header: if second.generation > first.generation {
                    second
                } else {
                    first
                },
                one_copy_only: false,
            }),
            [Copy::Whole(header), _] | [_, Copy::Whole(header)] => Ok(Found {
                header,
                one_copy_only: true,
            }),
            [Copy::Damaged(what), _] | [Copy::Absent, Copy::Damaged(what)] => Err(what),
            [Copy::Absent, Copy::Absent] => Err("it is empty"),
        }
    }
}

fn copy_at(object: &[u8], offset: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = object.get(start..).unwrap_or_default();
    rest.get(..COPY_BYTES).unwrap_or(rest)
}

fn decode_copy(copy: &[u8]) -> Copy {
    if copy.iter().all(|byte| *byte == 0) {
        return Copy::Absent;
    }
    let Some((body, mut checksum)) = copy.split_last_chunk::<CHECKSUM_BYTES>().map(split) else {
        return Copy::Damaged("it is cut short");
    };
    if copy.len() < COPY_BYTES {
        return Copy::Damaged("it is cut short");
    }
    if !body.starts_with(&MAGIC) {
        return Copy::Damaged("it does not start as a header does");
    }
    if checksum.try_get_u32_le().ok() != Some(crc32fast::hash(body)) {
        return Copy::Damaged("its checksum does not match");
    }
    decode_body(body).unwrap_or(Copy::Damaged("its values make no sense"))
}

const fn split<'a>(parts: (&'a [u8], &'a [u8; CHECKSUM_BYTES])) -> (&'a [u8], &'a [u8]) {
    (parts.0, parts.1.as_slice())
}

/// `None` when a checked body holds values that were never written.
fn decode_body(mut body: &[u8]) -> Option<Copy> {
    body.try_copy_to_slice(&mut [0; MAGIC.len()]).ok()?;
    match body.try_get_u16_le().ok()? {
        VERSION => {}
        newer if newer > VERSION => return Some(Copy::Newer),
        _ => return None,
    }
    let state = VolumeState::from_byte(body.try_get_u8().ok()?)?;
    body.try_get_u8().ok()?;
    let stripe_count = body.try_get_u32_le().ok()?;
    let generation = body.try_get_u64_le().ok()?;
    let size_bytes = body.try_get_u64_le().ok()?;
    let residue_end = body.try_get_u64_le().ok()?;
    let stripe_unit = body.try_get_u64_le().ok()?;
    let object_size = body.try_get_u64_le().ok()?;
    let created_nanos = body.try_get_u64_le().ok()?;
    let is_sound = size_bytes.max(residue_end) <= OFFSET_BYTES_MAX && generation < u64::MAX;
    if !is_sound {
        return None;
    }
    Some(Copy::Whole(Header {
        generation,
        state,
        size_bytes,
        residue_end,
        layout: Layout::new(stripe_unit, stripe_count, object_size).ok()?,
        created_nanos,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(generation: u64) -> Header {
        Header {
            generation,
            state: VolumeState::Importing,
            size_bytes: 10_000_000_001,
            residue_end: 20_000_000_000,
            layout: Layout::new(64 << 10, 5, 4 << 20).unwrap(),
            created_nanos: 1_700_000_000_000_000_000,
        }
    }

    fn object(first: &[u8], second: &[u8]) -> Vec<u8> {
        let mut object = vec![0; OBJECT_BYTES];
        object[..first.len()].copy_from_slice(first);
        object[4096..4096 + second.len()].copy_from_slice(second);
        object
    }

    #[test]
    fn a_header_comes_back_as_it_was_written_and_the_newer_copy_counts() {
        for state in [
            VolumeState::Complete,
            VolumeState::Importing,
            VolumeState::Removing,
        ] {
            let written = Header { state, ..header(7) };
            let bytes = written.encode();
            assert_eq!(bytes.len(), COPY_BYTES);
            let found = Header::decode(&object(&bytes, &bytes)).unwrap();
            assert_eq!((found.header, found.one_copy_only), (written, false));
        }
        let (old, new) = (header(7).encode(), header(8).encode());
        for both in [object(&old, &new), object(&new, &old)] {
            assert_eq!(Header::decode(&both).unwrap().header.generation, 8);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_copy_is_noticed_and_the_other_copy_serves() {
        let (whole, bytes) = (header(1), header(2).encode());
        for bit in 0..COPY_BYTES * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&object(&damaged, &[])).is_err(), "bit {bit}");
            let found = Header::decode(&object(&damaged, &whole.encode())).unwrap();
            assert_eq!((found.header, found.one_copy_only), (whole, true));
        }
    }

    #[test]
    fn a_short_empty_or_foreign_object_is_no_header() {
        let bytes = header(1).encode();
        for len in 0..COPY_BYTES {
            assert!(Header::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(
            Header::decode(&bytes).unwrap().header,
            header(1),
            "one copy suffices"
        );
        assert!(Header::decode(&vec![0; OBJECT_BYTES]).is_err());
        assert!(Header::decode(&vec![b'x'; OBJECT_BYTES]).is_err());
    }

    #[test]
    fn a_header_of_a_newer_version_is_refused_even_beside_an_older_one() {
        let mut newer = header(2).encode().to_vec();
        newer[8] = 2;
        let checksum = crc32fast::hash(&newer[..COPY_BYTES - 4]).to_le_bytes();
        newer[COPY_BYTES - 4..].copy_from_slice(&checksum);
        let error = Header::decode(&object(&newer, &header(1).encode())).unwrap_err();
        assert!(error.contains("newer version"), "{error}");
    }
}

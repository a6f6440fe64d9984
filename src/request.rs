//! What callers ask of a set, and the checks that a request must pass before anything changes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::types::{
    ByteRange, Hints, JournalTid, ObjectKey, ObjectName, Place, SnapContext, SnapId, Timestamp,
};

/// What a read of an object that does not exist gives (rule R-07).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Zeros.
    #[default]
    Zeros,
    /// [`CacheError::NotFound`](crate::CacheError::NotFound); such a set reads one extent at a time.
    NotFound,
}

/// A range of bytes of one object, and where they lie in the caller's buffer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectExtent {
    /// The object.
    pub object: ObjectKey,
    /// The bytes of the object.
    pub range: ByteRange,
    /// Where they lie in the buffer, in the order of the range. Empty means: right behind the extents before.
    pub places: Vec<Place>,
}

impl ObjectExtent {
    /// `len` bytes at `offset` of `object`, behind the extents before it in the buffer.
    ///
    /// # Errors
    /// As [`ByteRange::new`].
    pub fn new(object: impl Into<ObjectKey>, offset: u64, len: u64) -> Result<Self, RequestError> {
        Ok(Self {
            object: object.into(),
            range: ByteRange::new(offset, len)?,
            places: Vec::new(),
        })
    }
}

/// A read of one or more extents.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadRequest {
    /// What to read.
    pub extents: Vec<ObjectExtent>,
    /// From which snapshot, or the head.
    pub snap: SnapId,
    /// How the bytes will be used.
    pub hints: Hints,
}

/// A write of one or more extents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteRequest {
    /// Where to write.
    pub extents: Vec<ObjectExtent>,
    /// The bytes of all extents.
    pub data: Bytes,
    /// Under which snapshots; `None` for the set's own context.
    pub context: Option<SnapContext>,
    /// When the data was modified; `None` for now.
    pub modified: Option<Timestamp>,
    /// How the bytes will be used.
    pub hints: Hints,
    /// The journal entry that already made the bytes durable.
    pub journal_tid: Option<JournalTid>,
}

/// What a set knows of the requests it can serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) prefix: String,
    /// No object is larger.
    pub(crate) object_bytes_max: u64,
    pub(crate) missing: Missing,
}

impl Shape {
    /// The object's name in the backend.
    pub(crate) fn name_of(&self, key: &ObjectKey) -> Result<ObjectName, RequestError> {
        match key {
            ObjectKey::Number(number) => ObjectName::new(format!("{}.{number:016x}", self.prefix)),
            ObjectKey::Name(name) => ObjectName::new(name.clone()),
        }
    }

    /// The same object under the one key that the cache files it by: a name that a number stands for becomes
    /// that number.
    pub(crate) fn canonical(&self, key: ObjectKey) -> ObjectKey {
        if let ObjectKey::Name(name) = &key
            && let Some(digits) = name
                .strip_prefix(&self.prefix)
                .and_then(|rest| rest.strip_prefix('.'))
            && digits.len() == 16
            && let Ok(number) = u64::from_str_radix(digits, 16)
            && format!("{number:016x}") == digits
        {
            return ObjectKey::Number(number);
        }
        key
    }

    pub(crate) fn check_extents(&self, extents: &[ObjectExtent]) -> Result<(), RequestError> {
        if extents.is_empty() {
            return Err(RequestError::NoExtents);
        }
        extents
            .iter()
            .try_for_each(|extent| self.check_range(&extent.object, extent.range))
    }

    pub(crate) fn check_range(
        &self,
        object: &ObjectKey,
        range: ByteRange,
    ) -> Result<(), RequestError> {
        if range.end() > self.object_bytes_max {
            let object_bytes_max = self.object_bytes_max;
            return Err(RequestError::PastObject {
                range,
                object_bytes_max,
            });
        }
        match object {
            ObjectKey::Number(_) => Ok(()),
            ObjectKey::Name(name) => ObjectName::new(name.clone()).map(drop),
        }
    }

    /// Checks a read and gives every extent its places.
    pub(crate) fn checked_read(&self, mut read: ReadRequest) -> Result<ReadRequest, RequestError> {
        self.check_extents(&read.extents)?;
        if self.missing == Missing::NotFound && read.extents.len() > 1 {
            return Err(RequestError::SeveralExtents {
                extents: read.extents.len(),
            });
        }
        let end = self.place(&mut read.extents, None)?;
        // The places of a read must tile the result, since every byte of it comes from somewhere.
        let mut places: Vec<Place> = read
            .extents
            .iter()
            .flat_map(|extent| extent.places.iter().copied())
            .collect();
        places.sort_unstable();
        let mut at = 0;
        for place in places {
            if place.offset != at {
                let range = ByteRange::new(at, place.len.max(1))?;
                return Err(RequestError::BadPlaces {
                    range,
                    data_bytes: end,
                });
            }
            at += place.len;
        }
        Ok(read)
    }

    /// Checks a write and gives every extent its places.
    pub(crate) fn checked_write(
        &self,
        mut write: WriteRequest,
    ) -> Result<WriteRequest, RequestError> {
        self.check_extents(&write.extents)?;
        self.place(&mut write.extents, Some(write.data.len() as u64))?;
        let mut ranges: Vec<(&ObjectKey, ByteRange)> = write
            .extents
            .iter()
            .map(|extent| (&extent.object, extent.range))
            .collect();
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            if let [(a, first), (b, second)] = pair
                && a == b
                && first.overlaps(*second)
            {
                return Err(RequestError::ExtentsOverlap { range: *second });
            }
        }
        Ok(write)
    }

    /// Files extents under canonical keys, fills in places that are left out and checks those that are given.
    /// Returns the end of the buffer that they span.
    fn place(
        &self,
        extents: &mut [ObjectExtent],
        data_bytes: Option<u64>,
    ) -> Result<u64, RequestError> {
        let mut end = 0u64;
        for extent in extents {
            extent.object = self.canonical(extent.object.clone());
            let range = extent.range;
            let bad = |data_bytes| RequestError::BadPlaces { range, data_bytes };
            if extent.places.is_empty() {
                extent.places.push(Place {
                    offset: end,
                    len: range.len(),
                });
            }
            let mut covered = 0u64;
            for place in &extent.places {
                let place_end = place.offset.checked_add(place.len);
                let place_end = place_end.filter(|end| *end <= data_bytes.unwrap_or(u64::MAX));
                let Some(place_end) = place_end.filter(|_| place.len > 0) else {
                    return Err(bad(data_bytes.unwrap_or(end)));
                };
                covered = covered.saturating_add(place.len);
                end = end.max(place_end);
            }
            if covered != range.len() {
                return Err(bad(data_bytes.unwrap_or(end)));
            }
        }
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(missing: Missing) -> Shape {
        Shape {
            prefix: "vol".to_owned(),
            object_bytes_max: 1 << 22,
            missing,
        }
    }

    fn extent(offset: u64, len: u64) -> ObjectExtent {
        ObjectExtent::new(1, offset, len).unwrap()
    }

    fn write(extents: Vec<ObjectExtent>, len: usize) -> WriteRequest {
        WriteRequest {
            extents,
            data: Bytes::from(vec![0; len]),
            ..WriteRequest::default()
        }
    }

    /// W-10
    #[test]
    fn writes_that_make_no_sense_are_refused() {
        let shape = shape(Missing::Zeros);
        let past = write(vec![extent((1 << 22) - 1, 2)], 2);
        assert!(matches!(
            shape.checked_write(past),
            Err(RequestError::PastObject { .. })
        ));
        let none = write(vec![], 0);
        assert_eq!(shape.checked_write(none), Err(RequestError::NoExtents));
        let short = write(vec![extent(0, 10), extent(10, 10)], 19);
        assert!(matches!(
            shape.checked_write(short),
            Err(RequestError::BadPlaces { .. })
        ));
        let twice = write(vec![extent(0, 10), extent(9, 10)], 20);
        assert!(matches!(
            shape.checked_write(twice),
            Err(RequestError::ExtentsOverlap { .. })
        ));
        let mut odd = extent(0, 10);
        odd.places = vec![Place {
            offset: u64::MAX,
            len: 10,
        }];
        assert!(matches!(
            shape.checked_write(write(vec![odd], 10)),
            Err(RequestError::BadPlaces { .. })
        ));
    }

    /// R-07, H-20
    #[test]
    fn a_set_that_reports_missing_objects_reads_one_extent() {
        let read = ReadRequest {
            extents: vec![extent(0, 1), extent(5, 1)],
            ..ReadRequest::default()
        };
        assert!(shape(Missing::Zeros).checked_read(read.clone()).is_ok());
        assert_eq!(
            shape(Missing::NotFound).checked_read(read),
            Err(RequestError::SeveralExtents { extents: 2 })
        );
    }

    /// W-10
    #[test]
    fn places_are_as_long_as_their_extent() {
        let shape = shape(Missing::Zeros);
        for len in [9, 11] {
            let mut odd = extent(0, 10);
            odd.places = vec![Place { offset: 0, len }];
            let read = ReadRequest {
                extents: vec![odd.clone()],
                ..ReadRequest::default()
            };
            assert!(matches!(
                shape.checked_read(read),
                Err(RequestError::BadPlaces { .. })
            ));
            assert!(matches!(
                shape.checked_write(write(vec![odd], 20)),
                Err(RequestError::BadPlaces { .. })
            ));
        }
    }

    #[test]
    fn places_of_a_read_tile_the_result() {
        let mut holed = extent(0, 10);
        holed.places = vec![Place { offset: 0, len: 5 }, Place { offset: 6, len: 5 }];
        let read = ReadRequest {
            extents: vec![holed],
            ..ReadRequest::default()
        };
        assert!(matches!(
            shape(Missing::Zeros).checked_read(read),
            Err(RequestError::BadPlaces { .. })
        ));
    }

    #[test]
    fn a_name_that_a_number_stands_for_is_that_number() {
        let shape = shape(Missing::Zeros);
        let name = shape.name_of(&ObjectKey::Number(0xab)).unwrap();
        assert_eq!(name.as_str(), "vol.00000000000000ab");
        assert_eq!(
            shape.canonical(ObjectKey::from(name.as_str())),
            ObjectKey::Number(0xab)
        );
        let upper = ObjectKey::from("vol.00000000000000AB");
        assert_eq!(shape.canonical(upper.clone()), upper);
    }
}

//! How a file is striped over numbered objects, and back: pure arithmetic that neither overflows nor panics.
//!
//! The file is cut into *units* of `stripe_unit` bytes. A *stripe* is one unit on each of `stripe_count` objects
//! abreast; stripe after stripe fills these objects row by row, and when they are full the next `stripe_count`
//! objects follow. With units of 2 bytes, 3 objects abreast and 4 bytes in an object:
//!
//! ```text
//!            object 0   object 1   object 2  |  object 3   object 4 ...
//! row 0       0  1       2  3       4  5     |  12 13      14 15         bytes of the file
//! row 1       6  7       8  9      10 11     |  18 19      20 21
//! ```

use std::iter::FusedIterator;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, Place};

/// How a file's bytes are spread over objects that are numbered from 0.
///
/// Sizes are read as numbers of bytes or as `"4MiB"`, and written as numbers.
///
/// ```
/// use cachalot::{ByteRange, Layout};
///
/// let layout = Layout::new(64 << 10, 2, 4 << 20)?;
/// let numbers: Vec<u64> = layout.runs(ByteRange::new(0, 192 << 10)?).map(|run| run.object).collect();
/// assert_eq!(numbers, [0, 1, 0]);
/// assert_eq!(layout.file_offset(1, 0), Some(64 << 10));
/// # Ok::<(), cachalot::RequestError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "LayoutAsWritten")]
pub struct Layout {
    stripe_unit: u64,
    stripe_count: u32,
    object_size: u64,
}

#[derive(Deserialize)]
#[serde(rename = "Layout", deny_unknown_fields)]
struct LayoutAsWritten {
    stripe_unit: ByteSize,
    stripe_count: u32,
    object_size: ByteSize,
}

impl TryFrom<LayoutAsWritten> for Layout {
    type Error = RequestError;

    fn try_from(written: LayoutAsWritten) -> Result<Self, RequestError> {
        Self::new(
            written.stripe_unit.as_u64(),
            written.stripe_count,
            written.object_size.as_u64(),
        )
    }
}

/// Objects of 4 MiB, one after the other.
impl Default for Layout {
    fn default() -> Self {
        Self {
            stripe_unit: 4 << 20,
            stripe_count: 1,
            object_size: 4 << 20,
        }
    }
}

/// A piece of a file range that touches on its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The object's number.
    pub object: u64,
    /// The bytes of the object.
    pub range: ByteRange,
    /// How many bytes of the file range come before this piece.
    pub at: u64,
}

/// Everything that a file range has on one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectRuns {
    /// The object's number.
    pub object: u64,
    /// The bytes of the object.
    pub range: ByteRange,
    /// Where these bytes lie within the file range, in the object's order.
    pub places: Vec<Place>,
}

/// Where one byte of the file lies, and how many bytes touch from it on, in the file and on its object alike.
struct Spot {
    object: u64,
    offset: u64,
    touching: u64,
}

impl Layout {
    /// A layout of `stripe_count` objects abreast, each of `object_size` bytes in units of `stripe_unit` bytes.
    ///
    /// With one object abreast the unit changes nothing.
    ///
    /// # Errors
    /// [`RequestError::BadLayout`] when a number is zero, when the object size is no multiple of the unit, or
    /// when it is above [`OFFSET_BYTES_MAX`].
    pub const fn new(
        stripe_unit: u64,
        stripe_count: u32,
        object_size: u64,
    ) -> Result<Self, RequestError> {
        let reason = if stripe_unit == 0 {
            "stripe_unit is 0: set it to object_size, or to a divisor of it"
        } else if stripe_count == 0 {
            "stripe_count is 0: set it to 1 for a file that is not striped"
        } else if object_size == 0 {
            "object_size is 0: set it to the bytes that an object holds, such as 4 MiB"
        } else if object_size > OFFSET_BYTES_MAX {
            "object_size is above 2^63 - 1: lower it"
        } else if !object_size.is_multiple_of(stripe_unit) {
            "object_size is no multiple of stripe_unit: raise it to the next one, or lower stripe_unit"
        } else {
            return Ok(Self {
                stripe_unit,
                stripe_count,
                object_size,
            });
        };
        Err(RequestError::BadLayout { reason })
    }

    /// A layout of objects of `object_size` bytes, one after the other.
    ///
    /// # Errors
    /// [`RequestError::BadLayout`] when that is zero or above [`OFFSET_BYTES_MAX`].
    pub const fn unstriped(object_size: u64) -> Result<Self, RequestError> {
        // An object size of zero is named as such: the unit is not what the caller gave.
        let stripe_unit = if object_size == 0 { 1 } else { object_size };
        Self::new(stripe_unit, 1, object_size)
    }

    /// The bytes of a unit.
    #[must_use]
    pub const fn stripe_unit(&self) -> u64 {
        self.stripe_unit
    }

    /// The number of objects abreast.
    #[must_use]
    pub const fn stripe_count(&self) -> u32 {
        self.stripe_count
    }

    /// The bytes of a full object.
    #[must_use]
    pub const fn object_size(&self) -> u64 {
        self.object_size
    }

    /// The pieces of a file range, in the file's order. It allocates nothing.
    ///
    /// A piece is as long as it touches both in the file and on its object: at most a unit, or with one object
    /// abreast at most an object.
    #[must_use]
    pub const fn runs(&self, range: ByteRange) -> Runs {
        Runs {
            layout: *self,
            range,
            at: 0,
        }
    }

    /// The object and the bytes of it that a file range is, where it touches on one object.
    #[inline]
    pub(crate) fn sole_run(&self, range: ByteRange) -> Option<(u64, ByteRange)> {
        let spot = self.locate(range.start());
        if range.len() > spot.touching {
            return None;
        }
        let run = ByteRange::between(spot.offset, spot.offset + range.len())?;
        Some((spot.object, run))
    }

    /// The pieces of a file range joined by object, in the order in which the file meets the objects.
    ///
    /// What a file range has on one object always touches there, so each object comes once. The memory taken
    /// grows with the number of pieces: bound the range first.
    #[must_use]
    pub fn extents(&self, range: ByteRange) -> Vec<ObjectRuns> {
        let abreast = u64::from(self.stripe_count);
        let mut extents: Vec<ObjectRuns> = Vec::new();
        // The objects abreast that are being filled, where they start in `extents`, and the pieces met on them:
        // the first `abreast` of these meet an object each, and from then on they come round in the same order.
        let (mut group, mut group_at, mut met) = (None, 0, 0);
        for run in self.runs(range) {
            if group != Some(run.object / abreast) {
                group = Some(run.object / abreast);
                group_at = extents.len();
                met = 0;
            }
            let place = Place {
                offset: run.at,
                len: run.range.len(),
            };
            let known = usize::try_from(met % abreast)
                .ok()
                .and_then(|turn| extents.get_mut(group_at + turn));
            match known {
                Some(extent) => {
                    extent.range = ByteRange::between(extent.range.start(), run.range.end())
                        .unwrap_or(extent.range);
                    extent.places.push(place);
                }
                None => extents.push(ObjectRuns {
                    object: run.object,
                    range: run.range,
                    places: vec![place],
                }),
            }
            met += 1;
        }
        extents
    }

    /// The file offset of byte `offset` of an object; `None` when it lies past the object's size, or so far out
    /// that no file reaches it ([`OFFSET_BYTES_MAX`]).
    #[must_use]
    pub fn file_offset(&self, object: u64, offset: u64) -> Option<u64> {
        if offset >= self.object_size {
            return None;
        }
        let abreast = u64::from(self.stripe_count);
        let (group, column) = (object / abreast, object % abreast);
        let (row, within) = (offset / self.stripe_unit, offset % self.stripe_unit);
        let stripe = group.checked_mul(self.rows())?.checked_add(row)?;
        let unit = stripe.checked_mul(abreast)?.checked_add(column)?;
        let start = unit.checked_mul(self.stripe_unit)?.checked_add(within)?;
        (start < OFFSET_BYTES_MAX).then_some(start)
    }

    /// The file ranges of a range of an object, in the object's order, each with the bytes of `range` before it.
    ///
    /// Bytes that have no [`file_offset`](Self::file_offset) are left out; they can only be the last ones.
    #[must_use]
    pub const fn file_ranges(&self, object: u64, range: ByteRange) -> FileRanges {
        FileRanges {
            layout: *self,
            object,
            range,
            at: 0,
        }
    }

    /// How many bytes of an object lie below `file_size`: the size to which it is cut when the file is cut there.
    #[must_use]
    pub fn object_size_for(&self, file_size: u64, object: u64) -> u64 {
        let abreast = u64::from(self.stripe_count);
        let rows = self.rows();
        let Some(first_stripe) = (object / abreast).checked_mul(rows) else {
            return 0;
        };
        let (units, within) = (file_size / self.stripe_unit, file_size % self.stripe_unit);
        let (stripes, last_column) = (units / abreast, units % abreast);
        let Some(full_rows) = stripes.checked_sub(first_stripe) else {
            return 0;
        };
        if full_rows >= rows {
            return self.object_size;
        }
        let in_last_row = match (object % abreast).cmp(&last_column) {
            std::cmp::Ordering::Less => self.stripe_unit,
            std::cmp::Ordering::Equal => within,
            std::cmp::Ordering::Greater => 0,
        };
        full_rows * self.stripe_unit + in_last_row
    }

    /// How many objects a file of this size touches: the highest number among them and one.
    #[must_use]
    pub fn objects_for(&self, file_size: u64) -> u64 {
        let Some(last) = file_size.checked_sub(1) else {
            return 0;
        };
        let abreast = u64::from(self.stripe_count);
        let last_unit = last / self.stripe_unit;
        let group = last_unit / abreast / self.rows();
        let first_unit = group * self.rows() * abreast;
        // The objects abreast are begun in order by the first units of their group.
        group * abreast + (last_unit - first_unit).min(abreast - 1) + 1
    }

    /// The largest size of a file that touches none but the first `objects` objects, at most
    /// [`OFFSET_BYTES_MAX`].
    #[must_use]
    pub fn file_bytes_max(&self, objects: u64) -> u64 {
        let abreast = u64::from(self.stripe_count);
        let full = (objects - objects % abreast).saturating_mul(self.object_size);
        let begun = (objects % abreast).saturating_mul(self.stripe_unit);
        full.saturating_add(begun).min(OFFSET_BYTES_MAX)
    }

    /// The units of an object.
    const fn rows(&self) -> u64 {
        self.object_size / self.stripe_unit
    }

    /// Divides by the object's size. Nearly all sizes are powers of two, and a division takes as long as the rest of
    /// finding an object.
    const fn divide(&self, file_offset: u64) -> (u64, u64) {
        let size = self.object_size;
        if size.is_power_of_two() {
            (
                file_offset >> size.trailing_zeros(),
                file_offset & (size - 1),
            )
        } else {
            (file_offset / size, file_offset % size)
        }
    }

    /// Every product is at most the unit number or the object size, so none overflows.
    #[inline]
    fn locate(&self, file_offset: u64) -> Spot {
        if self.stripe_count == 1 {
            let (object, offset) = self.divide(file_offset);
            return Spot {
                object,
                offset,
                touching: self.object_size - offset,
            };
        }
        let abreast = u64::from(self.stripe_count);
        let (unit, within) = (
            file_offset / self.stripe_unit,
            file_offset % self.stripe_unit,
        );
        let (stripe, column) = (unit / abreast, unit % abreast);
        let (group, row) = (stripe / self.rows(), stripe % self.rows());
        Spot {
            object: group * abreast + column,
            offset: row * self.stripe_unit + within,
            touching: self.stripe_unit - within,
        }
    }
}

/// The pieces of a file range in the file's order: see [`Layout::runs`].
#[derive(Clone, Debug)]
pub struct Runs {
    layout: Layout,
    range: ByteRange,
    at: u64,
}

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let left = ByteRange::between(self.range.start() + self.at, self.range.end())?;
        let spot = self.layout.locate(left.start());
        let len = spot.touching.min(left.len());
        let run = Run {
            object: spot.object,
            range: ByteRange::between(spot.offset, spot.offset + len)?,
            at: self.at,
        };
        self.at += len;
        Some(run)
    }
}

impl FusedIterator for Runs {}

/// The file ranges of a range of an object: see [`Layout::file_ranges`].
#[derive(Clone, Debug)]
pub struct FileRanges {
    layout: Layout,
    object: u64,
    range: ByteRange,
    at: u64,
}

impl Iterator for FileRanges {
    type Item = (ByteRange, u64);

    fn next(&mut self) -> Option<(ByteRange, u64)> {
        let end = self.range.end().min(self.layout.object_size);
        let left = ByteRange::between(self.range.start() + self.at, end)?;
        let start = self.layout.file_offset(self.object, left.start())?;
        let touching = if self.layout.stripe_count == 1 {
            left.len()
        } else {
            self.layout.stripe_unit - left.start() % self.layout.stripe_unit
        };
        let len = touching.min(left.len()).min(OFFSET_BYTES_MAX - start);
        let found = (ByteRange::between(start, start + len)?, self.at);
        self.at += len;
        Some(found)
    }
}

impl FusedIterator for FileRanges {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(unit: u64, count: u32, size: u64) -> Layout {
        Layout::new(unit, count, size).unwrap()
    }

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::between(start, end).unwrap()
    }

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    /// The object and offset of each of the first `len` bytes of a file, found by filling the objects.
    fn fill(layout: Layout, len: usize) -> Vec<(u64, u64)> {
        let abreast = u64::from(layout.stripe_count());
        let mut bytes = Vec::new();
        for group in 0.. {
            for row in (0..layout.object_size()).step_by(index(layout.stripe_unit())) {
                for object in group * abreast..(group + 1) * abreast {
                    for offset in row..row + layout.stripe_unit() {
                        if bytes.len() == len {
                            return bytes;
                        }
                        bytes.push((object, offset));
                    }
                }
            }
        }
        unreachable!("there are always more objects")
    }

    fn small_layouts() -> impl Strategy<Value = Layout> {
        (1_u64..9, 1_u32..6, 1_u64..6)
            .prop_map(|(unit, count, rows)| layout(unit, count, unit * rows))
    }

    /// Layouts of every size that is allowed, powers of two and not.
    fn any_layouts() -> impl Strategy<Value = Layout> {
        let unit = prop_oneof![
            1_u64..=OFFSET_BYTES_MAX,
            (0_u32..63).prop_map(|bits| 1 << bits),
            1_u64..10
        ];
        let count = prop_oneof![1_u32..=u32::MAX, 1_u32..10];
        (unit, count, any::<prop::sample::Index>()).prop_map(|(unit, count, rows)| {
            let most = index(OFFSET_BYTES_MAX / unit);
            layout(unit, count, unit * (1 + rows.index(most) as u64))
        })
    }

    fn edge_numbers() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            (0_u64..40).prop_map(|back| u64::MAX - back),
            (0_u64..40).prop_map(|off| OFFSET_BYTES_MAX - 20 + off),
            0_u64..40
        ]
    }

    proptest! {
        /// P-01
        #[test]
        fn runs_are_where_filling_byte_by_byte_puts_them(
            layout in small_layouts(), start in 0_u64..300, len in 1_u64..200
        ) {
            let bytes = fill(layout, 500);
            let wanted = range(start, start + len);
            let runs: Vec<Run> = layout.runs(wanted).collect();
            let sole = match runs.as_slice() {
                [run] => Some((run.object, run.range)),
                _ => None,
            };
            prop_assert_eq!(layout.sole_run(wanted), sole);
            let (mut at, mut last) = (0, None);
            for run in runs {
                prop_assert_eq!(run.at, at);
                let touches = last == Some((run.object, run.range.start()));
                prop_assert!(!touches, "two runs in a row touch at {:?}", run);
                for offset in run.range.start()..run.range.end() {
                    prop_assert_eq!(bytes[index(start + at)], (run.object, offset));
                    at += 1;
                }
                last = Some((run.object, run.range.end()));
            }
            prop_assert_eq!(at, len);
        }

        /// P-01
        #[test]
        fn extents_hold_each_byte_once_and_each_object_once(
            layout in small_layouts(), start in 0_u64..300, len in 1_u64..200
        ) {
            let bytes = fill(layout, 500);
            let extents = layout.extents(range(start, start + len));
            let mut seen = vec![false; index(len)];
            for extent in &extents {
                let mut offset = extent.range.start();
                for place in &extent.places {
                    for at in place.offset..place.offset + place.len {
                        prop_assert_eq!(bytes[index(start + at)], (extent.object, offset));
                        prop_assert!(!std::mem::replace(&mut seen[index(at)], true));
                        offset += 1;
                    }
                }
                prop_assert_eq!(offset, extent.range.end());
            }
            prop_assert!(seen.iter().all(|seen| *seen));
            let mut met: Vec<u64> = Vec::new();
            for (object, _) in &bytes[index(start)..index(start + len)] {
                if !met.contains(object) {
                    met.push(*object);
                }
            }
            let named: Vec<u64> = extents.iter().map(|extent| extent.object).collect();
            prop_assert_eq!(named, met);
        }

        /// P-01
        #[test]
        fn every_byte_goes_out_and_comes_back(layout in small_layouts()) {
            for (file_offset, (object, offset)) in fill(layout, 500).into_iter().enumerate() {
                prop_assert_eq!(layout.file_offset(object, offset), Some(file_offset as u64));
            }
            prop_assert_eq!(layout.file_offset(0, layout.object_size()), None);
        }

        /// P-01
        #[test]
        fn file_ranges_are_the_bytes_of_the_object(
            layout in small_layouts(), object in 0_u64..12, start in 0_u64..40, len in 1_u64..60
        ) {
            let mut next = start;
            for (file, at) in layout.file_ranges(object, range(start, start + len)) {
                prop_assert_eq!(start + at, next);
                for file_offset in file.start()..file.end() {
                    prop_assert_eq!(layout.file_offset(object, next), Some(file_offset));
                    next += 1;
                }
            }
            prop_assert_eq!(next, (start + len).min(layout.object_size()).max(start));
        }

        /// P-02
        #[test]
        fn sizes_are_those_of_the_bytes_that_are_filled(layout in small_layouts(), size in 0_u64..500) {
            let bytes = fill(layout, index(size));
            let objects = bytes.iter().map(|(object, _)| object + 1).max().unwrap_or(0);
            prop_assert_eq!(layout.objects_for(size), objects);
            for object in 0..objects + 3 {
                let held = bytes.iter().filter(|(holder, _)| *holder == object).count();
                prop_assert_eq!(layout.object_size_for(size, object), held as u64);
            }
        }

        #[test]
        fn the_largest_file_of_some_objects_touches_no_more(layout in small_layouts(), objects in 0_u64..40) {
            let most = layout.file_bytes_max(objects);
            prop_assert_eq!(layout.objects_for(most), objects);
            prop_assert_eq!(layout.objects_for(most + 1), objects + 1);
        }

        /// P-01, P-02
        #[test]
        fn nothing_overflows_at_the_far_end(
            layout in any_layouts(), offset in edge_numbers(), object in edge_numbers(), len in 1_u64..100
        ) {
            let objects = layout.objects_for(offset);
            prop_assert!(objects <= offset);
            prop_assert!(layout.object_size_for(offset, object) <= layout.object_size());
            prop_assert_eq!(layout.object_size_for(offset, objects), 0);
            prop_assert_eq!(layout.object_size_for(offset, object) > 0, object < objects);
            prop_assert!(layout.file_bytes_max(objects) >= offset.min(OFFSET_BYTES_MAX));
            if let Some(file_offset) = layout.file_offset(object, offset) {
                let run = layout.runs(range(file_offset, file_offset + 1)).next();
                prop_assert_eq!(run.map(|run| (run.object, run.range.start())), Some((object, offset)));
            }
            if let Some(far) = ByteRange::between(offset, offset.saturating_add(len)) {
                let mut at = 0;
                for run in layout.runs(far) {
                    prop_assert_eq!(run.at, at);
                    let back = layout.file_offset(run.object, run.range.start());
                    let start = offset + at;
                    prop_assert_eq!(back, (start < OFFSET_BYTES_MAX).then_some(start));
                    at += run.range.len();
                }
                prop_assert_eq!(at, far.len());
                let held: u64 = layout.extents(far).iter().map(|extent| extent.range.len()).sum();
                prop_assert_eq!(held, far.len());
                let found: u64 = layout.file_ranges(object, far).map(|(file, _)| file.len()).sum();
                prop_assert!(found <= far.len());
            }
        }
    }

    /// P-01
    #[test]
    fn a_striped_range_by_hand() {
        // The picture at the top of this file.
        let layout = layout(2, 3, 4);
        let runs: Vec<_> = layout
            .runs(range(3, 15))
            .map(|run| (run.object, run.range, run.at))
            .collect();
        assert_eq!(
            runs,
            [
                (1, range(1, 2), 0),
                (2, range(0, 2), 1),
                (0, range(2, 4), 3),
                (1, range(2, 4), 5),
                (2, range(2, 4), 7),
                (3, range(0, 2), 9),
                (4, range(0, 1), 11),
            ]
        );
        let place = |offset, len| Place { offset, len };
        let extents: Vec<_> = layout
            .extents(range(3, 15))
            .into_iter()
            .map(|extent| (extent.object, extent.range, extent.places))
            .collect();
        assert_eq!(
            extents,
            [
                (1, range(1, 4), vec![place(0, 1), place(5, 2)]),
                (2, range(0, 4), vec![place(1, 2), place(7, 2)]),
                (0, range(2, 4), vec![place(3, 2)]),
                (3, range(0, 2), vec![place(9, 2)]),
                (4, range(0, 1), vec![place(11, 1)]),
            ]
        );
        let back: Vec<_> = layout.file_ranges(1, range(1, 9)).collect();
        assert_eq!(back, [(range(3, 4), 0), (range(8, 10), 1)]);
    }

    /// P-02
    #[test]
    fn a_truncated_file_by_hand() {
        let layout = layout(2, 3, 4);
        let sizes =
            |file_size| [0, 1, 2, 3].map(|object| layout.object_size_for(file_size, object));
        assert_eq!(sizes(0), [0, 0, 0, 0]);
        assert_eq!(sizes(3), [2, 1, 0, 0]);
        assert_eq!(sizes(7), [3, 2, 2, 0]);
        assert_eq!(sizes(13), [4, 4, 4, 1]);
        assert_eq!(layout.objects_for(3), 2);
        assert_eq!(layout.objects_for(12), 3);
        assert_eq!(layout.objects_for(13), 4);
        assert_eq!(
            [0, 1, 3, 4].map(|n| layout.file_bytes_max(n)),
            [0, 2, 12, 14]
        );
    }

    /// P-01
    #[test]
    fn with_one_object_abreast_the_unit_is_the_object() {
        let layout = layout(4096, 1, 4 << 20);
        let runs: Vec<_> = layout.runs(range((4 << 20) - 10, (12 << 20) + 1)).collect();
        let pieces: Vec<_> = runs
            .iter()
            .map(|run| (run.object, run.range.start(), run.range.len()))
            .collect();
        let whole = 4 << 20;
        assert_eq!(
            pieces,
            [(0, whole - 10, 10), (1, 0, whole), (2, 0, whole), (3, 0, 1)]
        );
        assert_eq!(layout.file_ranges(2, range(5, whole)).count(), 1);
    }

    /// P-01
    #[test]
    fn the_last_bytes_there_are_can_be_mapped() {
        let end = OFFSET_BYTES_MAX;
        for layout in [
            Layout::default(),
            layout(1, 1, 1),
            layout(1, u32::MAX, 1),
            Layout::unstriped(OFFSET_BYTES_MAX).unwrap(),
            layout(OFFSET_BYTES_MAX, u32::MAX, OFFSET_BYTES_MAX),
        ] {
            let runs: Vec<_> = layout.runs(ByteRange::new(end - 2, 2).unwrap()).collect();
            assert_eq!(runs.iter().map(|run| run.range.len()).sum::<u64>(), 2);
            let last = runs.last().unwrap();
            let offset = last.range.end() - 1;
            assert_eq!(layout.file_offset(last.object, offset), Some(end - 1));
            assert_eq!(layout.file_offset(u64::MAX, 0), None);
            assert_eq!(layout.object_size_for(u64::MAX - 1, u64::MAX), 0);
            assert_eq!(layout.file_bytes_max(u64::MAX), end);
        }
        // The last object of the default layout lacks its last byte, which no offset names.
        let last = end / (4 << 20);
        let found: Vec<_> = Layout::default()
            .file_ranges(last, range(0, 4 << 20))
            .collect();
        assert_eq!(found, [(range(end - ((4 << 20) - 1), end), 0)]);
    }

    #[test]
    fn layouts_that_make_no_sense_are_refused_with_advice() {
        for (unit, count, size, named) in [
            (0, 1, 4, "stripe_unit is 0"),
            (4, 0, 4, "stripe_count is 0"),
            (4, 1, 0, "object_size is 0"),
            (4, 1, 6, "no multiple"),
            (8, 1, 4, "no multiple"),
            (1, 1, OFFSET_BYTES_MAX + 1, "lower it"),
        ] {
            let error = Layout::new(unit, count, size).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        let error = Layout::unstriped(0).unwrap_err();
        assert!(error.to_string().contains("object_size is 0"), "{error}");
    }

    #[test]
    fn a_layout_is_checked_when_it_is_read() {
        let read = |text| serde_json::from_str::<Layout>(text);
        let text = r#"{"stripe_unit": "64KiB", "stripe_count": 4, "object_size": 4194304}"#;
        let striped = read(text).unwrap();
        assert_eq!(striped, layout(64 << 10, 4, 4 << 20));
        let written = serde_json::to_string(&striped).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&written).unwrap(), striped);
        let bad = r#"{"stripe_unit": 3, "stripe_count": 4, "object_size": 4194304}"#;
        let error = read(bad).unwrap_err().to_string();
        assert!(error.contains("no multiple of stripe_unit"), "{error}");
        assert!(read(r#"{"stripe_unit": 3, "stripe_count": 4, "object_bytes": 3}"#).is_err());
    }

    #[test]
    fn the_default_is_objects_of_four_mebibytes() {
        assert_eq!(Layout::default(), Layout::unstriped(4 << 20).unwrap());
        assert_eq!(Layout::default(), layout(4 << 20, 1, 4 << 20));
    }
}

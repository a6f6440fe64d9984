//! File ranges to objects and back, with any numbers.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use super::Choices;
use crate::engine::Layout;
use crate::types::{ByteRange, OFFSET_BYTES_MAX};

/// More pieces than this are not looked at.
const PIECES_MAX: usize = 300;

/// What a layout says of a file range, of single bytes and of sizes agrees with itself.
pub(crate) fn layout(input: &[u8]) {
    let mut choices = Choices::new(input);
    let unit = choices.number();
    let count = choices.number() as u32;
    let size = if choices.one_in(4) {
        choices.number()
    } else {
        unit.saturating_mul(1 + choices.number() % 1000)
    };
    let Ok(layout) = Layout::new(unit, count, size) else {
        let is_sound = unit > 0
            && count > 0
            && size > 0
            && size <= OFFSET_BYTES_MAX
            && size.is_multiple_of(unit);
        assert!(!is_sound, "a sound layout is refused");
        return;
    };
    while !choices.is_over() {
        let (start, len) = (choices.number(), choices.number());
        if let Ok(range) = ByteRange::new(start, len) {
            check_range(layout, range);
        }
        check_sizes(layout, start, len);
    }
}

fn check_range(layout: Layout, range: ByteRange) {
    let mut at = 0;
    for run in layout.runs(range).take(PIECES_MAX) {
        assert_eq!(run.at, at, "runs follow each other");
        assert!(run.range.end() <= layout.object_size());
        let last = run.range.len() - 1;
        for nth in [0, last / 2, last] {
            let there = layout.file_offset(run.object, run.range.start() + nth);
            assert_eq!(
                there,
                Some(range.start() + at + nth),
                "byte {nth} of {run:?}"
            );
        }
        let back: Vec<_> = layout
            .file_ranges(run.object, run.range)
            .take(PIECES_MAX)
            .collect();
        assert_eq!(
            back.first().map(|(file, _)| file.start()),
            Some(range.start() + at)
        );
        at += run.range.len();
    }
    let pieces = layout.runs(range).take(PIECES_MAX).count();
    assert!(pieces == PIECES_MAX || at == range.len(), "runs end early");
    if pieces == PIECES_MAX {
        return;
    }
    let extents = layout.extents(range);
    let total: u64 = extents.iter().map(|extent| extent.range.len()).sum();
    assert_eq!(total, range.len());
    for (nth, extent) in extents.iter().enumerate() {
        let placed: u64 = extent.places.iter().map(|place| place.len).sum();
        assert_eq!(placed, extent.range.len());
        assert!(
            extents[..nth]
                .iter()
                .all(|other| other.object != extent.object)
        );
        let mut offset = extent.range.start();
        for place in &extent.places {
            let there = layout.file_offset(extent.object, offset);
            assert_eq!(there, Some(range.start() + place.offset));
            offset += place.len;
        }
    }
}

fn check_sizes(layout: Layout, file_size: u64, object: u64) {
    let size = layout.object_size_for(file_size, object);
    assert!(size <= layout.object_size());
    if let Some(below) = size.checked_sub(1)
        && file_size <= OFFSET_BYTES_MAX
    {
        let file = layout.file_offset(object, below);
        assert!(
            file.is_some_and(|file| file < file_size),
            "{file:?} of {file_size}"
        );
    }
    if let Some(file) = layout.file_offset(object, size) {
        assert!(
            file >= file_size,
            "byte {size} of object {object} lies below {file_size}"
        );
    }
    if file_size <= OFFSET_BYTES_MAX {
        let objects = layout.objects_for(file_size);
        assert_eq!(layout.object_size_for(file_size, objects), 0);
        if let Some(last) = objects.checked_sub(1) {
            assert!(layout.object_size_for(file_size, last) > 0);
        }
        assert!(layout.file_bytes_max(objects) >= file_size);
    }
    let most = layout.file_bytes_max(object);
    assert!(most == OFFSET_BYTES_MAX || layout.objects_for(most) <= object);
}

//! Fuzz targets of the stores.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use bytes::Bytes;

pub(crate) use super::file::fuzz::{file_names, object_header, range_set, store_marker};
pub(crate) use super::memory::fuzz::sparse_bytes;

use super::{BackendWrite, Capabilities, Operation, WriteRun};
use crate::fuzz::Choices;
use crate::types::{ByteRange, ObjectName, SnapContext, Timestamp, Truncation};

/// A write is refused with a typed error, or keeps the contract and asks for no more than is promised.
pub(crate) fn operations(input: &[u8]) {
    let mut choices = Choices::new(input);
    while !choices.is_over() {
        let can = Capabilities {
            scattered_writes: choices.one_in(2),
            snapshots: choices.one_in(2),
            write_bytes_max: choices.of(&[4 << 20, 1000, 10, 0, u64::MAX]),
            write_pieces_max: choices.of(&[1024, 3, 1, 0]),
            ..Capabilities::default()
        };
        let runs: Vec<WriteRun> = (0..choices.below(5)).map(|_| run(&mut choices)).collect();
        let write = BackendWrite {
            object: ObjectName::new("object").unwrap(),
            runs,
            context: SnapContext::new(choices.below(3), []).unwrap(),
            modified: Timestamp(choices.number()),
            truncation: Truncation::default(),
        };
        let admitted = can.admit(&write);
        let spanned = Operation::Write(write.clone()).range();
        if admitted.is_ok() {
            assert!(keeps_to(&can, &write), "a write that asks for too much");
            let ends: Option<Vec<_>> = write.runs.iter().map(range_of).collect();
            let ends = ends.expect("runs that are ranges");
            assert!(ends.windows(2).all(|pair| pair[0].end() <= pair[1].start()));
            let whole = ByteRange::between(ends[0].start(), ends[ends.len() - 1].end());
            assert_eq!(spanned, whole);
        } else if let [one] = write.runs.as_slice() {
            let is_whole = one.buffers.iter().all(|buffer| !buffer.is_empty());
            let is_sound = range_of(one).is_some() && is_whole && keeps_to(&can, &write);
            assert!(!is_sound, "a sound write is refused: {admitted:?}");
        }
    }
}

fn run(choices: &mut Choices) -> WriteRun {
    let offset = if choices.one_in(3) {
        choices.number()
    } else {
        choices.below(1000)
    };
    let buffers = (0..choices.below(5))
        .map(|_| Bytes::from(vec![1; choices.below(100) as usize]))
        .collect();
    WriteRun {
        offset,
        buffers,
        journal_tid: None,
    }
}

fn range_of(run: &WriteRun) -> Option<ByteRange> {
    ByteRange::new(run.offset, run.len_bytes()).ok()
}

fn keeps_to(can: &Capabilities, write: &BackendWrite) -> bool {
    let pieces: usize = write.runs.iter().map(|run| run.buffers.len()).sum();
    write.len_bytes() <= can.write_bytes_max
        && pieces <= can.write_pieces_max
        && (can.scattered_writes || write.runs.len() == 1)
        && (can.snapshots || write.context.seq == 0)
}

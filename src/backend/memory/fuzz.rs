//! The fuzz target of bytes with holes.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use super::sparse::SparseBytes;
use crate::fuzz::Choices;
use crate::types::{ByteRange, OFFSET_BYTES_MAX};

/// As many bytes are looked at: three chunks, and a part of one.
const LEN: u64 = 200_000;

/// What is written, cleared, cut and read is what a plain array gives.
pub(crate) fn sparse_bytes(input: &[u8]) {
    let mut choices = Choices::new(input);
    let base = choices.of(&[0, OFFSET_BYTES_MAX - LEN]);
    let (mut sparse, mut model, mut end) = (SparseBytes::default(), vec![0u8; LEN as usize], 0);
    let mut older: Option<(SparseBytes, Vec<u8>, u64)> = None;
    while !choices.is_over() {
        let start = match choices.below(3) {
            0 => choices.below(LEN),
            1 => choices.below(4) * (64 << 10) + choices.below(16),
            _ => choices.below(2000),
        };
        let start = start.min(LEN - 1);
        let len = match choices.below(4) {
            0 => 1 + choices.below(LEN),
            1 => choices.of(&[512, 4096, 64 << 10, 128 << 10]),
            _ => 1 + choices.below(256),
        };
        let stop = (start + len).min(LEN);
        let range = ByteRange::between(base + start, base + stop).unwrap();
        let part = start as usize..stop as usize;
        match choices.below(8) {
            0..=2 => {
                let bytes: Vec<u8> = (start..stop).map(|at| (at ^ len) as u8 | 1).collect();
                sparse.write(range.start(), &bytes);
                model[part.clone()].copy_from_slice(&bytes);
                end = end.max(range.end());
            }
            3..=4 => {
                sparse.zero(range);
                model[part.clone()].fill(0);
            }
            5 => {
                sparse.set_len(range.start());
                model[start as usize..].fill(0);
                end = range.start();
            }
            6 => older = Some((sparse.clone(), model.clone(), end)),
            _ => {}
        }
        check(&sparse, &model, (base, end), range);
        let whole = ByteRange::between(base, base + LEN).unwrap();
        if choices.one_in(8) {
            check(&sparse, &model, (base, end), whole);
            if let Some((sparse, model, end)) = &older {
                check(sparse, model, (base, *end), whole);
            }
        }
    }
}

fn check(sparse: &SparseBytes, model: &[u8], (base, end): (u64, u64), range: ByteRange) {
    assert_eq!(sparse.len(), end);
    let found = sparse.read(range).unwrap();
    let stop = range.end().min(end).max(range.start());
    let expected = &model[(range.start() - base) as usize..(stop - base) as usize];
    assert!(found == expected, "{range} differs");
}

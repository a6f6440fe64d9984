//! Random choices that follow from a seed, or from bytes that a fuzzer gives.

use super::{OBJECTS, Parts, SIZE};
use crate::engine::tests::rig::WINDOW;
use crate::fuzz::Choices;
use crate::types::Hints;

/// Where the choices of a run come from.
#[derive(Debug)]
pub(in crate::engine::tests) enum Dice {
    /// The generator of Steele, Lea and Flood.
    Seed(u64),
    /// Those of a fuzzer.
    Given(Choices),
}

impl Dice {
    pub(in crate::engine::tests) fn below(&mut self, bound: u64) -> u64 {
        match self {
            Self::Seed(seed) => {
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *seed;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (mixed ^ (mixed >> 31)) % bound
            }
            Self::Given(choices) => choices.below(bound),
        }
    }

    /// Whether choices that were given are used up.
    pub(in crate::engine::tests) fn is_over(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Given(choices) => choices.is_over(),
        }
    }

    pub(in crate::engine::tests) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(in crate::engine::tests) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = from.len() as u64;
        (count > 0).then(|| from[self.below(count) as usize])
    }

    pub(in crate::engine::tests) fn of<T: Copy>(&mut self, from: &[T]) -> T {
        self.pick(from).unwrap()
    }

    /// A range that likes edges of blocks and windows.
    pub(in crate::engine::tests) fn range(&mut self) -> (u64, u64) {
        let base = match self.below(4) {
            0 => self.below(SIZE),
            1 => self.below(SIZE / 4096) * 4096,
            2 => self.of(&[0, WINDOW, 2 * WINDOW, 4096, 300_001]),
            _ => 64 * 1024 + self.below(16) * 512,
        };
        let start = base.saturating_sub(self.of(&[0, 0, 0, 1, 100, 4096]));
        let len = match self.below(16) {
            0..=5 => 1 + self.below(600),
            6..=10 => self.of(&[512, 4096, 8192, 1, 4095, 4097]),
            11..=14 => 1 + self.below(40_000),
            _ => 1 + self.below(SIZE),
        };
        let start = start.min(SIZE - 1);
        (start, (start + len).min(SIZE))
    }

    pub(in crate::engine::tests) fn object(&mut self) -> usize {
        self.below(OBJECTS as u64) as usize
    }

    pub(in crate::engine::tests) fn part(&mut self) -> (usize, (u64, u64)) {
        (self.object(), self.range())
    }

    pub(in crate::engine::tests) fn parts(&mut self) -> Parts {
        let mut parts: Parts = Vec::new();
        for _ in 0..1 + self.below(3) {
            let (object, range) = self.part();
            let apart = parts
                .iter()
                .all(|(other, known)| *other != object || known.1 <= range.0 || range.1 <= known.0);
            if apart {
                parts.push((object, range));
            }
        }
        parts
    }

    pub(in crate::engine::tests) fn hints(&mut self) -> Hints {
        Hints {
            dont_need: self.one_in(8),
            no_cache: self.one_in(8),
            ..Hints::default()
        }
    }
}

//! What the benchmark does: a description, and the stream of operations that follows from it and a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use super::zipf::Zipf;

/// Which blocks are touched how often.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pattern {
    /// All alike.
    Uniform,
    /// One after the other, from the first block on, and again.
    Sequential,
    /// A few often, most seldom.
    Zipf {
        /// How steeply the shares fall.
        exponent: f64,
    },
}

/// A workload: the same description and seed give the same operations.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Workload {
    /// How many object sets the blocks are spread over.
    pub(crate) sets: usize,
    /// The bytes of all sets together that may be touched.
    pub(crate) working_set_bytes: u64,
    /// The size of each operation.
    pub(crate) block_bytes: u64,
    /// The share of reads, from 0 to 1.
    pub(crate) read_share: f64,
    /// Which blocks are touched how often.
    pub(crate) pattern: Pattern,
    /// Where the randomness starts.
    pub(crate) seed: u64,
}

impl Workload {
    /// How many blocks each set has, at least one.
    pub(crate) fn blocks_per_set(&self) -> u64 {
        let blocks = self.working_set_bytes / self.block_bytes.max(1);
        (blocks / (self.sets as u64).max(1)).max(1)
    }

    /// How many bytes each set has.
    pub(crate) fn set_bytes(&self) -> u64 {
        self.blocks_per_set() * self.block_bytes
    }

    /// The operations of one of the concurrent streams. Those with one `turn` go through the blocks in order together, where
    /// that is the pattern.
    pub(crate) fn stream(&self, number: u64, turn: &Turn) -> OpStream {
        OpStream::new(self, number, turn)
    }
}

/// Which block comes next, of all streams that share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    blocks: Arc<AtomicU64>,
}

impl Turn {
    fn next_of(&self, blocks: u64) -> u64 {
        self.blocks.fetch_add(1, Ordering::Relaxed) % blocks.max(1)
    }
}

/// How a stream finds its next block.
#[derive(Clone, Debug)]
enum Choice {
    Uniform,
    Sequential(Turn),
    Zipf(Zipf),
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpKind {
    /// Reads the block.
    Read,
    /// Writes the block.
    Write,
}

/// One operation on one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    /// Read or write.
    pub(crate) kind: OpKind,
    /// The number of the set.
    pub(crate) set: usize,
    /// Where in the set the block starts, in bytes.
    pub(crate) offset: u64,
}

/// An endless stream of operations.
#[derive(Clone, Debug)]
pub(crate) struct OpStream {
    random: Xoshiro256PlusPlus,
    choice: Choice,
    blocks: u64,
    stride: u64,
    sets: u64,
    block_bytes: u64,
    read_share: f64,
}

impl OpStream {
    fn new(workload: &Workload, number: u64, turn: &Turn) -> Self {
        let sets = (workload.sets as u64).max(1);
        let blocks = workload.blocks_per_set() * sets;
        let seed = workload
            .seed
            .wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let choice = match workload.pattern {
            Pattern::Uniform => Choice::Uniform,
            Pattern::Sequential => Choice::Sequential(turn.clone()),
            Pattern::Zipf { exponent } => Choice::Zipf(Zipf::new(blocks, exponent)),
        };
        Self {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            choice,
            blocks,
            stride: scattering_stride(blocks),
            sets,
            block_bytes: workload.block_bytes,
            read_share: workload.read_share,
        }
    }

    /// The next operation.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a set's number is below a usize"
    )]
    pub(crate) fn next_op(&mut self) -> Op {
        let block = match &self.choice {
            Choice::Uniform => below(&mut self.random, self.blocks),
            Choice::Sequential(turn) => turn.next_of(self.blocks),
            Choice::Zipf(zipf) => scatter(zipf.sample(&mut self.random), self.stride, self.blocks),
        };
        let kind = if unit_interval(&mut self.random) < self.read_share {
            OpKind::Read
        } else {
            OpKind::Write
        };
        Op {
            kind,
            set: (block % self.sets) as usize,
            offset: block / self.sets * self.block_bytes,
        }
    }
}

/// A number from 0 to below 1.
pub(crate) fn unit_interval(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number below `bound`, which is above zero.
fn below(random: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A stride near the golden section of `blocks` that shares no factor with it, so that steps reach every block.
pub(crate) fn scattering_stride(blocks: u64) -> u64 {
    let mut stride = (blocks / 1000 * 618 + blocks % 1000 * 618 / 1000).max(1);
    while common_divisor(stride, blocks) != 1 {
        stride += 1;
    }
    stride
}

/// Puts neighbouring ranks on blocks far apart: hot blocks are not neighbours in a real volume either.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder of a u64 is one"
)]
pub(crate) fn scatter(rank: u64, stride: u64, blocks: u64) -> u64 {
    (u128::from(rank) * u128::from(stride) % u128::from(blocks.max(1))) as u64
}

const fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(pattern: Pattern) -> Workload {
        Workload {
            sets: 3,
            working_set_bytes: 3 << 20,
            block_bytes: 4096,
            read_share: 0.7,
            pattern,
            seed: 42,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_operations_and_streams_differ() {
        let workload = workload(Pattern::Zipf { exponent: 0.99 });
        let [mut a, mut b, mut other] =
            [1, 1, 2].map(|number| workload.stream(number, &Turn::default()));
        let ops: Vec<Op> = (0..100).map(|_| a.next_op()).collect();
        assert!(ops.iter().all(|op| *op == b.next_op()));
        assert!(ops.iter().any(|op| *op != other.next_op()));
    }

    #[test]
    fn operations_stay_inside_their_sets_and_keep_the_read_share() {
        for pattern in [Pattern::Uniform, Pattern::Zipf { exponent: 1.1 }] {
            let workload = workload(pattern);
            let mut stream = workload.stream(0, &Turn::default());
            let mut reads = 0;
            for _ in 0..20_000 {
                let op = stream.next_op();
                assert!(op.set < 3);
                assert!(op.offset + 4096 <= workload.set_bytes());
                assert_eq!(op.offset % 4096, 0);
                reads += u32::from(op.kind == OpKind::Read);
            }
            assert!((13_600..14_400).contains(&reads), "{reads}");
        }
    }

    #[test]
    fn streams_with_one_turn_go_through_all_blocks_in_order() {
        let workload = workload(Pattern::Sequential);
        let turn = Turn::default();
        let mut streams = [0, 1].map(|number| workload.stream(number, &turn));
        let blocks = workload.blocks_per_set() * 3;
        for number in 0..2 * blocks {
            let op = streams[usize::from(number % 5 < 2)].next_op();
            let block = number % blocks;
            assert_eq!((op.set as u64, op.offset), (block % 3, block / 3 * 4096));
        }
    }

    #[test]
    fn scattering_reaches_every_block_once() {
        for blocks in [1, 2, 3, 1000, 65_536, 99_991] {
            let stride = scattering_stride(blocks);
            let mut seen = vec![false; usize::try_from(blocks).unwrap()];
            for rank in 0..blocks {
                let block = usize::try_from(scatter(rank, stride, blocks)).unwrap();
                assert!(!std::mem::replace(&mut seen[block], true), "{blocks}");
            }
        }
    }
}

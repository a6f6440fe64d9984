//! Remembering what was evicted, by 4 KiB blocks, without its bytes.

use std::collections::{BTreeMap, VecDeque};

/// A block stands for this many bytes.
pub(super) const BLOCK_BYTES: u32 = 4 << 10;

/// Blocks that went not long ago. The oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    /// By window hash: which of its blocks are remembered.
    blocks: BTreeMap<u64, u64>,
    /// The same in the order in which they went; some may have come back since.
    order: VecDeque<(u64, u64)>,
    count: u64,
}

impl Ghost {
    /// Remembers the bytes from `start` to `end` of a window, and no more than `blocks_max` blocks in all.
    pub(super) fn remember(&mut self, window_hash: u64, (start, end): (u32, u32), blocks_max: u64) {
        let known = self.blocks.entry(window_hash).or_default();
        let new = mask(start, end) & !*known;
        if new != 0 {
            *known |= new;
            self.order.push_back((window_hash, new));
            self.count += u64::from(new.count_ones());
        }
        if self.order.len() as u64 > 2 * blocks_max {
            self.clean_up();
        }
        while self.count > blocks_max {
            let Some((window_hash, blocks)) = self.order.pop_front() else {
                break;
            };
            self.forget(window_hash, blocks);
        }
    }

    /// Takes out of the order what came back since.
    fn clean_up(&mut self) {
        let mut left = self.blocks.clone();
        for (window_hash, blocks) in self.order.iter_mut().rev() {
            let left = left.entry(*window_hash).or_default();
            *blocks &= *left;
            *left &= !*blocks;
        }
        self.order.retain(|(_, blocks)| *blocks != 0);
    }

    /// Whether any of the bytes from `start` to `end` is remembered. It is forgotten with that.
    pub(super) fn recalls(&mut self, window_hash: u64, (start, end): (u32, u32)) -> bool {
        self.forget(window_hash, mask(start, end))
    }

    fn forget(&mut self, window_hash: u64, blocks: u64) -> bool {
        let Some(known) = self.blocks.get_mut(&window_hash) else {
            return false;
        };
        let forgotten = *known & blocks;
        *known &= !blocks;
        if *known == 0 {
            self.blocks.remove(&window_hash);
        }
        self.count -= u64::from(forgotten.count_ones());
        forgotten != 0
    }
}

/// The blocks of a window that a span touches, as bits.
fn mask(start: u32, end: u32) -> u64 {
    let first = start / BLOCK_BYTES;
    let last = end.saturating_sub(1) / BLOCK_BYTES;
    let up_to = |bit: u32| {
        if bit >= 63 {
            u64::MAX
        } else {
            (1u64 << (bit + 1)) - 1
        }
    };
    up_to(last) & !(if first == 0 { 0 } else { up_to(first - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_recalled_once() {
        let mut ghost = Ghost::default();
        ghost.remember(7, (8192, 12288), 64);
        assert!(!ghost.recalls(7, (0, 8192)) && !ghost.recalls(8, (8192, 12288)));
        assert!(ghost.recalls(7, (4096, 8193)));
        assert!(!ghost.recalls(7, (8192, 12288)));
        assert_eq!(mask(0, 256 << 10), u64::MAX);
        assert_eq!(mask(4096, 4097), 2);
    }

    #[test]
    fn the_oldest_blocks_are_forgotten_first() {
        let mut ghost = Ghost::default();
        for window in 0..100 {
            ghost.remember(window, (0, 4096), 10);
        }
        assert!(!ghost.recalls(89, (0, 4096)) && ghost.recalls(90, (0, 4096)));
        assert_eq!((ghost.count, ghost.blocks.len()), (9, 9));
        for _ in 0..1000 {
            ghost.remember(5, (0, 4096), 10);
            assert!(ghost.recalls(5, (0, 4096)));
        }
        assert!(ghost.order.len() <= 20, "what came back leaves no trace");
    }
}

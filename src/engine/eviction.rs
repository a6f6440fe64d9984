//! Which clean bytes go next: three queues, first in first out, and the marks that hits leave on extents.
//!
//! New bytes enter the *small* queue. What was used again by the time the scan reaches it moves to *main*, the rest
//! goes; so bytes read once pass through without washing out what is in use. In main, a used extent gets another
//! round. A *ghost* remembers which 4 KiB blocks went from small unused: bytes that come back soon after enter main at
//! once. What callers said they don't need is in *cold* and goes before all else. This is S3-FIFO (Yang et al., SOSP
//! 2023), with entries that stand for all extents of one fetch or writeback in a window.

use std::collections::{BTreeMap, VecDeque};

use crate::types::Moment;

/// The small queue is kept at one part in this many of all queued bytes.
const SMALL_SHARE: u64 = 10;
/// A ghost block stands for this many bytes.
const GHOST_BLOCK_BYTES: u32 = 4 << 10;
/// The ghost remembers at least this many blocks, and as many as are queued.
const GHOST_BLOCKS_MIN: u64 = 64;
/// Fewer entries than this are not worth a sweep.
const SWEEP_ENTRIES_MIN: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queue {
    Cold,
    Small,
    Main,
}

/// Extents of one window that entered together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The set's number of the window.
    pub(crate) window: usize,
    /// What the extents bear.
    pub(crate) stamp: u32,
    /// How many bytes entered; some may have gone since.
    pub(crate) bytes: u64,
    /// When they entered.
    pub(crate) at: Moment,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Evictor {
    cold: VecDeque<Entry>,
    small: VecDeque<Entry>,
    main: VecDeque<Entry>,
    small_bytes: u64,
    main_bytes: u64,
    last_stamp: u32,
    /// By window hash: which of its blocks went unused.
    ghost: BTreeMap<u64, u64>,
    /// The same in the order in which they went; some may have come back since.
    ghost_order: VecDeque<(u64, u64)>,
    /// As many blocks as the ghost remembers.
    ghost_blocks: u64,
    /// How many entries were left by the last sweep.
    swept_to: usize,
}

impl Evictor {
    /// A number that no extent bears.
    pub(crate) const fn stamp(&mut self) -> u32 {
        self.last_stamp = match self.last_stamp.checked_add(1) {
            Some(next) => next,
            None => 1,
        };
        self.last_stamp
    }

    /// Queues the extents that bear `entry.stamp`.
    pub(crate) fn push(&mut self, queue: Queue, entry: Entry) {
        match queue {
            Queue::Cold => self.cold.push_back(entry),
            Queue::Small => {
                self.small_bytes += entry.bytes;
                self.small.push_back(entry);
            }
            Queue::Main => {
                self.main_bytes += entry.bytes;
                self.main.push_back(entry);
            }
        }
    }

    /// Takes the entry that is to go next, with the queue that it was in.
    pub(crate) fn pop(&mut self) -> Option<(Queue, Entry)> {
        if let Some(entry) = self.cold.pop_front() {
            return Some((Queue::Cold, entry));
        }
        let small_is_due = self.small_bytes >= (self.small_bytes + self.main_bytes) / SMALL_SHARE;
        let first = if small_is_due {
            Queue::Small
        } else {
            Queue::Main
        };
        let second = if small_is_due {
            Queue::Main
        } else {
            Queue::Small
        };
        self.pop_from(first).or_else(|| self.pop_from(second))
    }

    fn pop_from(&mut self, queue: Queue) -> Option<(Queue, Entry)> {
        let (entries, bytes) = match queue {
            Queue::Cold => return self.cold.pop_front().map(|entry| (queue, entry)),
            Queue::Small => (&mut self.small, &mut self.small_bytes),
            Queue::Main => (&mut self.main, &mut self.main_bytes),
        };
        let entry = entries.pop_front()?;
        *bytes -= entry.bytes;
        Some((queue, entry))
    }

    /// When the bytes that would go next came in; the clock's start for what nobody needs.
    pub(crate) fn coldest(&self) -> Option<Moment> {
        if !self.cold.is_empty() {
            return Some(Moment::default());
        }
        let small_is_due = self.small_bytes >= (self.small_bytes + self.main_bytes) / SMALL_SHARE;
        let (first, second) = if small_is_due {
            (&self.small, &self.main)
        } else {
            (&self.main, &self.small)
        };
        first
            .front()
            .or_else(|| second.front())
            .map(|entry| entry.at)
    }

    /// How many entries are queued.
    pub(crate) fn len(&self) -> usize {
        self.cold.len() + self.small.len() + self.main.len()
    }

    /// Whether there are so many entries that some must be void.
    pub(crate) fn is_cluttered(&self) -> bool {
        self.len() > self.swept_to.saturating_mul(2).max(SWEEP_ENTRIES_MIN)
    }

    /// Takes out the entries of which nothing is left, and corrects the others, given the bytes that bear each
    /// window's numbers.
    pub(crate) fn sweep(&mut self, live: &BTreeMap<(usize, u32), u64>) {
        let keep = |entry: &mut Entry| {
            entry.bytes = live.get(&(entry.window, entry.stamp)).copied().unwrap_or(0);
            entry.bytes > 0
        };
        for entries in [&mut self.cold, &mut self.small, &mut self.main] {
            entries.retain_mut(keep);
            entries.shrink_to(entries.len().saturating_mul(2));
        }
        self.small_bytes = self.small.iter().map(|entry| entry.bytes).sum();
        self.main_bytes = self.main.iter().map(|entry| entry.bytes).sum();
        self.swept_to = self.len();
    }

    /// Remembers that the bytes from `start` to `end` of a window went unused.
    pub(crate) fn remember(&mut self, window_hash: u64, start: u32, end: u32) {
        let known = self.ghost.entry(window_hash).or_default();
        let new = blocks(start, end) & !*known;
        if new == 0 {
            return;
        }
        *known |= new;
        self.ghost_order.push_back((window_hash, new));
        self.ghost_blocks += u64::from(new.count_ones());
        let queued = (self.small_bytes + self.main_bytes) / u64::from(GHOST_BLOCK_BYTES);
        let blocks_max = queued.max(GHOST_BLOCKS_MIN);
        while self.ghost_blocks > blocks_max || self.ghost_order.len() as u64 > 2 * blocks_max {
            let Some((window_hash, blocks)) = self.ghost_order.pop_front() else {
                break;
            };
            self.forget(window_hash, blocks);
        }
    }

    fn forget(&mut self, window_hash: u64, blocks: u64) -> bool {
        let Some(known) = self.ghost.get_mut(&window_hash) else {
            return false;
        };
        let forgotten = *known & blocks;
        *known &= !blocks;
        if *known == 0 {
            self.ghost.remove(&window_hash);
        }
        self.ghost_blocks -= u64::from(forgotten.count_ones());
        forgotten != 0
    }

    /// Whether bytes that come in now went unused not long ago, and so belong in main.
    pub(crate) fn recalls(&mut self, window_hash: u64, start: u32, end: u32) -> bool {
        self.forget(window_hash, blocks(start, end))
    }
}

/// The blocks of a window that a span touches, as bits.
fn blocks(start: u32, end: u32) -> u64 {
    let first = start / GHOST_BLOCK_BYTES;
    let last = end.saturating_sub(1) / GHOST_BLOCK_BYTES;
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

    fn entry(window: usize, stamp: u32) -> Entry {
        Entry {
            window,
            stamp,
            bytes: 4096,
            at: Moment::from_nanos(u64::from(stamp)),
        }
    }

    #[test]
    fn what_nobody_needs_goes_first() {
        let mut evictor = Evictor::default();
        evictor.push(Queue::Small, entry(1, 1));
        evictor.push(Queue::Main, entry(2, 2));
        evictor.push(Queue::Cold, entry(3, 3));
        assert_eq!(evictor.coldest(), Some(Moment::default()));
        assert_eq!(evictor.pop(), Some((Queue::Cold, entry(3, 3))));
    }

    #[test]
    fn the_small_queue_goes_before_main_while_it_is_large() {
        let mut evictor = Evictor::default();
        for stamp in 1..=20 {
            evictor.push(Queue::Main, entry(1, stamp));
        }
        evictor.push(Queue::Small, entry(2, 21));
        assert_eq!(evictor.pop().map(|(queue, _)| queue), Some(Queue::Main));
        for stamp in 22..=24 {
            evictor.push(Queue::Small, entry(2, stamp));
        }
        assert_eq!(evictor.pop().map(|(queue, _)| queue), Some(Queue::Small));
    }

    #[test]
    fn the_ghost_recalls_blocks_once() {
        let mut evictor = Evictor::default();
        evictor.remember(7, 8192, 12288);
        assert!(!evictor.recalls(7, 0, 8192) && !evictor.recalls(8, 8192, 12288));
        assert!(evictor.recalls(7, 4096, 8193));
        assert!(!evictor.recalls(7, 8192, 12288));
        assert_eq!(blocks(0, 256 << 10), u64::MAX);
        assert_eq!(blocks(4096, 4097), 2);
    }
}

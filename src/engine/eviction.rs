//! Which clean bytes go next: three queues, first in first out, and the marks that hits leave on extents.
//!
//! New bytes enter the *small* queue. What was used again by the time the scan reaches it moves to *main*, the rest
//! goes; so bytes read once pass through without washing out what is in use. In main, a used extent gets another
//! round. What callers said they don't need is in *cold* and goes before all else. This is S3-FIFO (Yang et al., SOSP
//! 2023), with entries that stand for all extents of one fetch or writeback in a window.
//!
//! *Ghosts* remember what went from small and from main not long ago. Bytes that come back enter main at once, and
//! tell which of the two was too short: the small queue's share grows or shrinks with them, as in ARC (Megiddo and
//! Modha, FAST 2003), so that a hot set that moves is followed as quickly as by LRU.

use std::collections::{BTreeMap, VecDeque};

use super::ghost::{BLOCK_BYTES, Ghost};
use crate::types::Moment;

/// The small queue's share of all queued bytes is reckoned in this many parts. It begins as a quarter, and never
/// leaves a tenth to a half.
const SHARE_PARTS: u64 = 1 << 20;
const SHARE_FIRST: u64 = SHARE_PARTS / 4;
const SHARE_MIN: u64 = SHARE_PARTS / 10;
const SHARE_MAX: u64 = SHARE_PARTS / 2;
/// The ghosts remember at least this many blocks each, and as many as are queued.
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
    /// How far small's share has moved from [`SHARE_FIRST`].
    share_moved: i64,
    /// What went from small, and from main.
    small_ghost: Ghost,
    main_ghost: Ghost,
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
        let small_is_due = self.small_is_due();
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

    /// Whether small holds more than its share.
    fn small_is_due(&self) -> bool {
        let queued = self.small_bytes + self.main_bytes;
        let share = SHARE_FIRST.saturating_add_signed(self.share_moved);
        u128::from(self.small_bytes) * u128::from(SHARE_PARTS)
            >= u128::from(queued) * u128::from(share)
    }

    /// Moves small's share by as much as these bytes are of all.
    fn move_share(&mut self, len: u64, grows: bool) {
        let queued = (self.small_bytes + self.main_bytes).max(1);
        let step = (len.min(queued) * SHARE_PARTS / queued).cast_signed();
        let moved = self.share_moved + if grows { step } else { -step };
        let (least, most) = (
            SHARE_MIN.cast_signed() - SHARE_FIRST.cast_signed(),
            SHARE_MAX.cast_signed() - SHARE_FIRST.cast_signed(),
        );
        self.share_moved = moved.clamp(least, most);
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
        let small_is_due = self.small_is_due();
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

    /// Remembers that the bytes from `start` to `end` of a window went from `queue` unused.
    pub(crate) fn remember(&mut self, queue: Queue, window_hash: u64, bytes: (u32, u32)) {
        let queued = (self.small_bytes + self.main_bytes) / u64::from(BLOCK_BYTES);
        let blocks_max = queued.max(GHOST_BLOCKS_MIN);
        match queue {
            Queue::Cold => {}
            Queue::Small => self.small_ghost.remember(window_hash, bytes, blocks_max),
            Queue::Main => self.main_ghost.remember(window_hash, bytes, blocks_max),
        }
    }

    /// Whether the bytes from `start` to `end` of a window, which come in now, went not long ago, and so belong in
    /// main.
    pub(crate) fn recalls(&mut self, window_hash: u64, bytes: (u32, u32)) -> bool {
        let (start, end) = bytes;
        let len = u64::from(end - start);
        let from_small = self.small_ghost.recalls(window_hash, bytes);
        let from_main = self.main_ghost.recalls(window_hash, bytes);
        if from_small != from_main {
            self.move_share(len, from_small);
        }
        from_small || from_main
    }
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
    fn the_small_queue_goes_before_main_while_it_holds_more_than_its_share() {
        let mut evictor = Evictor::default();
        for stamp in 1..=20 {
            evictor.push(Queue::Main, entry(1, stamp));
        }
        for stamp in 21..=26 {
            evictor.push(Queue::Small, entry(2, stamp));
        }
        assert_eq!(evictor.pop().map(|(queue, _)| queue), Some(Queue::Main));
        evictor.push(Queue::Small, entry(2, 27));
        assert_eq!(evictor.pop().map(|(queue, _)| queue), Some(Queue::Small));
    }

    #[test]
    fn what_comes_back_moves_the_share_of_the_queue_that_it_went_from() {
        let mut evictor = Evictor::default();
        for stamp in 1..=20 {
            evictor.push(Queue::Main, entry(1, stamp));
        }
        let before = evictor.share_moved;
        evictor.remember(Queue::Small, 7, (0, 4096));
        assert!(evictor.recalls(7, (0, 4096)));
        let grown = evictor.share_moved;
        assert!(grown > before);
        evictor.remember(Queue::Main, 7, (0, 4096));
        assert!(evictor.recalls(7, (0, 100)));
        assert!(evictor.share_moved < grown);
        assert!(!evictor.recalls(7, (0, 4096)));
        evictor.remember(Queue::Cold, 7, (0, 4096));
        assert!(!evictor.recalls(7, (0, 4096)));
    }

    #[test]
    fn a_sweep_takes_out_what_is_void_and_corrects_the_rest() {
        let mut evictor = Evictor::default();
        for stamp in 1..=1025 {
            evictor.push(Queue::Small, entry(1, stamp));
        }
        assert!(evictor.is_cluttered());
        evictor.sweep(&BTreeMap::from([((1, 5), 100), ((2, 6), 100)]));
        assert_eq!((evictor.len(), evictor.small_bytes), (1, 100));
        assert!(!evictor.is_cluttered());
    }
}

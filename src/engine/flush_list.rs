//! The flushes that wait for one object, and which of them a writeback concerns: found without looking at them all,
//! since where every write is answered by the store each of them is one.

use std::collections::{BTreeMap, BTreeSet};

use super::action::WaiterId;
use super::object::{InFlight, spans};
use crate::types::ByteRange;

/// A flush of more windows than this counts as one of the whole object when it is looked for.
const WINDOWS_MAX: usize = 16;

/// A flush that waits for this object.
#[derive(Clone, Debug)]
pub(crate) struct ObjectFlush {
    pub(crate) waiter: WaiterId,
    pub(crate) epoch: u64,
    /// Only these ranges, or all of the object.
    pub(crate) ranges: Option<Vec<ByteRange>>,
    /// Writebacks under way that carry bytes which it waits for.
    pub(crate) ops: usize,
}

impl ObjectFlush {
    pub(crate) fn concerns(&self, range: ByteRange) -> bool {
        self.ranges
            .as_ref()
            .is_none_or(|ranges| ranges.iter().any(|own| own.overlaps(range)))
    }

    pub(crate) fn concerns_any(&self, flight: &InFlight) -> bool {
        flight.ranges.iter().any(|range| self.concerns(*range))
    }

    /// The windows that it reaches, or `None` for too many to count.
    fn windows(&self) -> Option<BTreeSet<u64>> {
        let ranges = self.ranges.as_ref()?;
        let mut windows = BTreeSet::new();
        for (index, _) in ranges.iter().flat_map(|range| spans(*range)) {
            windows.insert(index);
            if windows.len() > WINDOWS_MAX {
                return None;
            }
        }
        Some(windows)
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct FlushList {
    by_waiter: BTreeMap<WaiterId, ObjectFlush>,
    /// Those of few windows, by each of them.
    by_window: BTreeSet<(u64, WaiterId)>,
    /// The others.
    wide: BTreeSet<WaiterId>,
    /// How many wait for each epoch.
    epochs: BTreeMap<u64, usize>,
}

impl FlushList {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_waiter.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ObjectFlush> {
        self.by_waiter.values()
    }

    /// The latest epoch that any of them waits for.
    pub(crate) fn latest_epoch(&self) -> Option<u64> {
        self.epochs.last_key_value().map(|(epoch, _)| *epoch)
    }

    pub(crate) fn insert(&mut self, flush: ObjectFlush) {
        let waiter = flush.waiter;
        self.remove(waiter);
        match flush.windows() {
            Some(windows) => {
                let of_window = |index| (index, waiter);
                self.by_window.extend(windows.into_iter().map(of_window));
            }
            None => {
                self.wide.insert(waiter);
            }
        }
        *self.epochs.entry(flush.epoch).or_default() += 1;
        self.by_waiter.insert(waiter, flush);
    }

    pub(crate) fn remove(&mut self, waiter: WaiterId) {
        let Some(flush) = self.by_waiter.remove(&waiter) else {
            return;
        };
        if self.by_waiter.is_empty() {
            // Emptied trees would keep a node each.
            *self = Self::default();
            return;
        }
        match flush.windows() {
            Some(windows) => {
                for index in windows {
                    self.by_window.remove(&(index, waiter));
                }
            }
            None => {
                self.wide.remove(&waiter);
            }
        }
        if let Some(count) = self.epochs.get_mut(&flush.epoch) {
            *count -= 1;
            if *count == 0 {
                self.epochs.remove(&flush.epoch);
            }
        }
    }

    /// A writeback begins whose oldest bytes are of this epoch: those that wait for any of them wait for it. Returns
    /// which they are.
    pub(crate) fn op_begins(&mut self, ranges: &[ByteRange], epoch: u64) -> Vec<WaiterId> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut near = self.wide.clone();
        let mut last = None;
        for (index, _) in ranges.iter().flat_map(|range| spans(*range)) {
            if last.replace(index) != Some(index) {
                let of_window = (index, WaiterId(0))..=(index, WaiterId(u64::MAX));
                near.extend(self.by_window.range(of_window).map(|(_, waiter)| *waiter));
            }
        }
        near.retain(|waiter| {
            let flush = self.by_waiter.get_mut(waiter).filter(|flush| {
                epoch <= flush.epoch && ranges.iter().any(|range| flush.concerns(*range))
            });
            let waits = flush.is_some();
            if let Some(flush) = flush {
                flush.ops += 1;
            }
            waits
        });
        near.into_iter().collect()
    }

    /// A writeback that this one waits for has ended. Returns it if it was the last.
    pub(crate) fn op_ends(&mut self, waiter: WaiterId) -> Option<&ObjectFlush> {
        let flush = self.by_waiter.get_mut(&waiter)?;
        flush.ops = flush.ops.saturating_sub(1);
        Some(&*flush).filter(|flush| flush.ops == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len).unwrap()
    }

    fn flush(waiter: u64, epoch: u64, ranges: Option<Vec<ByteRange>>) -> ObjectFlush {
        ObjectFlush {
            waiter: WaiterId(waiter),
            epoch,
            ranges,
            ops: 0,
        }
    }

    /// F-06
    #[test]
    fn a_writeback_concerns_the_flushes_of_its_bytes_that_are_not_older() {
        let mut list = FlushList::default();
        list.insert(flush(1, 5, None));
        list.insert(flush(2, 5, Some(vec![range(0, 100)])));
        list.insert(flush(3, 5, Some(vec![range(100, 100)])));
        list.insert(flush(4, 5, Some(vec![range(0, 1 << 40)])));
        list.insert(flush(5, 3, None));
        let concerned = list.op_begins(&[range(50, 10)], 4);
        assert_eq!(concerned, [1, 2, 4].map(WaiterId));
        assert_eq!(list.latest_epoch(), Some(5));
        let ops: Vec<usize> = list.iter().map(|flush| flush.ops).collect();
        assert_eq!(ops, [1, 1, 0, 1, 0]);
        assert!(list.op_ends(WaiterId(2)).is_some());
        for waiter in 1..=4 {
            list.remove(WaiterId(waiter));
        }
        assert_eq!(list.latest_epoch(), Some(3));
        assert_eq!(list.op_begins(&[range(50, 10)], 3), [WaiterId(5)]);
        list.remove(WaiterId(5));
        assert!(list.is_empty() && list.op_begins(&[range(50, 10)], 3).is_empty());
    }
}

//! A set of byte ranges that uses bounded memory.

use crate::types::ByteRange;

/// Above this many ranges, those furthest back are taken together with the gaps between them.
const RANGES_MAX: usize = 1024;

/// Sorted ranges that do not touch. Holds at least what was inserted; more only above [`RANGES_MAX`] ranges.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<ByteRange>);

impl RangeSet {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn overlaps(&self, range: ByteRange) -> bool {
        let at = self.0.partition_point(|held| held.end() <= range.start());
        self.0.get(at).is_some_and(|held| held.overlaps(range))
    }

    pub(super) fn insert(&mut self, range: ByteRange) {
        let from = self.0.partition_point(|held| held.end() < range.start());
        let to = self.0.partition_point(|held| held.start() <= range.end());
        let start = self
            .0
            .get(from)
            .map_or(range.start(), |held| held.start().min(range.start()));
        let end = to
            .checked_sub(1)
            .and_then(|last| self.0.get(last))
            .map_or(range.end(), |held| held.end().max(range.end()));
        self.0
            .splice(from..to.max(from), ByteRange::between(start, end));
        if self.0.len() > RANGES_MAX {
            self.coarsen();
        }
    }

    pub(super) fn remove(&mut self, range: ByteRange) {
        let from = self.0.partition_point(|held| held.end() <= range.start());
        let to = self.0.partition_point(|held| held.start() < range.end());
        let Some(touched) = self.0.get(from..to) else {
            return;
        };
        let before = touched
            .first()
            .and_then(|first| ByteRange::between(first.start(), range.start()));
        let after = touched
            .last()
            .and_then(|last| ByteRange::between(range.end(), last.end()));
        self.0.splice(from..to, before.into_iter().chain(after));
    }

    pub(super) fn insert_all(&mut self, other: Self) {
        for range in other.0 {
            self.insert(range);
        }
    }

    /// Takes the back half together, gaps and all.
    fn coarsen(&mut self) {
        let back = self.0.split_off(RANGES_MAX / 2);
        if let (Some(first), Some(last)) = (back.first(), back.last()) {
            self.0.extend(ByteRange::between(first.start(), last.end()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::between(start, end).unwrap()
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(steps in prop::collection::vec((any::<bool>(), 0_u64..200, 1_u64..40), 1..60)) {
            let mut set = RangeSet::default();
            let mut model = [false; 240];
            for (insert, start, len) in steps {
                let changed = range(start, start + len);
                if insert { set.insert(changed) } else { set.remove(changed) }
                for at in start..start + len {
                    model[usize::try_from(at).unwrap()] = insert;
                }
                for at in 0..240 {
                    prop_assert_eq!(set.overlaps(range(at, at + 1)), model[usize::try_from(at).unwrap()]);
                }
                prop_assert!(set.0.windows(2).all(|pair| pair[0].end() < pair[1].start()));
                prop_assert_eq!(set.is_empty(), !model.contains(&true));
            }
        }
    }

    #[test]
    fn many_ranges_cost_bounded_memory_and_none_is_forgotten() {
        let mut set = RangeSet::default();
        for at in 0..10_000 {
            set.insert(range(at * 10, at * 10 + 1));
        }
        assert!(set.0.len() <= RANGES_MAX);
        assert!((0..10_000).all(|at| set.overlaps(range(at * 10, at * 10 + 1))));
    }
}

//! The extents of a window in the order of where they start, made for finding one: what a hit needs of an extent
//! is half a cache line, and what else there is to know of it lies elsewhere.

use std::ops::{Deref, Range};

use smallvec::SmallVec;

use super::Span;
use crate::engine::extent::{Extent, ExtentState};

/// How far from where it is guessed to be an extent is looked for before all are searched.
const STEPS_MAX: usize = 8;

/// Tables as small as this are not worth shrinking.
const CAPACITY_MIN: usize = 8;

/// Extents that never overlap, ascending; a gap between them means that nothing is known.
#[derive(Debug, Default)]
pub(super) struct Table {
    extents: Vec<Extent>,
    /// Of each extent.
    states: Vec<ExtentState>,
}

/// An extent with its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    extent: &'a Extent,
    pub(crate) state: &'a ExtentState,
}

impl Deref for Held<'_> {
    type Target = Extent;

    fn deref(&self) -> &Extent {
        self.extent
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.extents.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Extent> {
        self.extents.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Extent> {
        self.extents.get_mut(index)
    }

    pub(super) fn state(&self, index: usize) -> Option<&ExtentState> {
        self.states.get(index)
    }

    /// The state for changing; who changes it keeps the window's counts right.
    pub(super) fn state_mut(&mut self, index: usize) -> Option<&mut ExtentState> {
        self.states.get_mut(index)
    }

    /// An extent with its state, for changing; who changes them keeps the window's counts right.
    pub(super) fn both_mut(&mut self, index: usize) -> Option<(&mut Extent, &mut ExtentState)> {
        self.extents.get_mut(index).zip(self.states.get_mut(index))
    }

    /// Where the extent at `index` lies; behind everything when there is none.
    pub(super) fn span(&self, index: usize) -> Span {
        self.extents.get(index).map_or(
            Span {
                start: u32::MAX,
                end: u32::MAX,
            },
            Extent::span,
        )
    }

    /// The extents from `first` on.
    pub(super) fn from(&self, first: usize) -> &[Extent] {
        self.extents.get(first..).unwrap_or(&[])
    }

    /// The first extent that ends behind `position`.
    ///
    /// Extents of one length that fill a window lie where they are guessed to be, and near there when some have gone.
    #[inline]
    pub(super) fn find(&self, position: u32) -> usize {
        let len = self.extents.len();
        let guess = (position as usize).saturating_mul(len) / Span::ALL.end as usize;
        let steps = match self.extents.get(guess) {
            Some(extent) if extent.start <= position => {
                let ahead = self.from(guess).iter().take(STEPS_MAX);
                let behind = ahead.take_while(|extent| extent.end() <= position);
                Some(guess + behind.count()).filter(|found| *found < guess + STEPS_MAX)
            }
            Some(_) => {
                let before = self.extents.get(..guess).unwrap_or(&[]).iter();
                let ahead = before.rev().take(STEPS_MAX);
                let passed = ahead.take_while(|extent| extent.end() > position).count();
                Some(guess - passed).filter(|_| passed < STEPS_MAX)
            }
            None => None,
        };
        steps.unwrap_or_else(|| self.extents.partition_point(|e| e.end() <= position))
    }

    /// The extents that overlap `span`.
    pub(super) fn overlapping(&self, span: Span) -> Range<usize> {
        let first = self.find(span.start);
        let inside = |extent: &&Extent| extent.start < span.end;
        let count = self.from(first).iter().take_while(inside).count();
        first..first + count
    }

    pub(super) fn insert(&mut self, index: usize, extent: Extent, state: ExtentState) {
        self.extents.insert(index, extent);
        self.states.insert(index, state);
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.extents.remove(index);
        self.states.remove(index);
        self.shrink();
    }

    pub(super) fn drain(&mut self, indexes: Range<usize>) -> SmallVec<[(Extent, ExtentState); 2]> {
        let extents = self.extents.drain(indexes.clone());
        let drained = extents.zip(self.states.drain(indexes)).collect();
        self.shrink();
        drained
    }

    /// Gives memory back when three quarters of it are no longer needed.
    fn shrink(&mut self) {
        let len = self.extents.len();
        if len * 4 < self.extents.capacity() && self.extents.capacity() > CAPACITY_MIN {
            self.extents.shrink_to(len * 2);
            self.states.shrink_to(len * 2);
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Span, Held<'_>)> {
        let states = self.states.iter();
        self.extents
            .iter()
            .zip(states)
            .map(|(extent, state)| (extent.span(), Held { extent, state }))
    }

    /// The extents with their states, for what leaves both as they are but for marks and numbers.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&mut Extent, &ExtentState)> {
        self.extents.iter_mut().zip(&self.states)
    }

    /// Whether each extent has a state.
    pub(super) fn is_whole(&self) -> bool {
        self.extents.len() == self.states.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_extent_is_found_wherever_it_is(
            parts in prop::collection::vec((0u32..6000, 1u32..6000), 0..80),
            position in 0..Span::ALL.end,
        ) {
            let (mut table, mut end) = (Table::default(), 0);
            for (gap, len) in parts {
                let extent = Extent::without_bytes(end + gap, len);
                end = extent.end();
                table.insert(table.len(), extent, ExtentState::Zero);
            }
            let plain = table.extents.iter().position(|extent| extent.end() > position);
            prop_assert_eq!(table.find(position), plain.unwrap_or(table.len()));
        }
    }
}

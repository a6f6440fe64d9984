//! Discards, truncations and purges: what becomes of bytes that are dropped.

use super::{Entry, History, Loose, OPEN, Tick};
use crate::pattern::{self, NOBODY, Stamp};
use crate::space::Part;

/// Names a dropping that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dropping(usize);

impl History {
    /// Begins to make parts zeros, in the cache and in the store: while that is under way nothing is certain.
    pub(crate) fn begin_zero(&mut self, parts: &[Part], start: Tick) -> Dropping {
        let first = self.loose.len();
        for part in parts {
            for number in part.numbers() {
                self.sectors[number as usize].entries.push(Entry {
                    stamp: NOBODY,
                    start,
                    end: OPEN,
                    drops: true,
                });
            }
            self.loose.push(Loose {
                part: *part,
                start,
                end: OPEN,
                leftover_of: None,
            });
        }
        Dropping(first)
    }

    /// Ends it. The same parts must be given.
    pub(crate) fn end_zero(&mut self, parts: &[Part], dropping: Dropping, start: Tick, end: Tick) {
        for (part, loose) in parts.iter().zip(self.loose.iter_mut().skip(dropping.0)) {
            loose.end = end;
            for number in part.numbers() {
                let entries = &mut self.sectors[number as usize].entries;
                let own = |entry: &&mut Entry| entry.drops && entry.start == start;
                if let Some(entry) = entries.iter_mut().find(own) {
                    entry.end = end;
                }
            }
        }
    }

    /// What a purge left uncertain of a sector is certain again: it was written anew.
    pub(super) fn settle(&mut self, number: u32, (start, now): (Tick, Tick)) {
        let one = Part { at: number, len: 1 };
        for loose in &mut self.loose {
            let is_after = loose.leftover_of.is_some_and(|end| end < start);
            if loose.part == one && loose.end == OPEN && is_after {
                loose.end = now;
            }
        }
    }

    /// Begins to drop everything unwritten.
    pub(crate) fn begin_purge(&mut self, start: Tick) -> Dropping {
        let part = Part {
            at: 0,
            len: self.space.sectors,
        };
        self.loose.push(Loose {
            part,
            start,
            end: OPEN,
            leftover_of: None,
        });
        Dropping(self.loose.len() - 1)
    }

    /// Ends it: what the set holds is what the store has, or what is on its way there. Where the store may take a part
    /// of what is on its way, nothing is certain of that until somebody writes there again.
    pub(crate) fn end_purge(
        &mut self,
        dropping: Dropping,
        (start, end): (Tick, Tick),
        (under_way, is_atomic): (&[(usize, Vec<u8>)], bool),
    ) {
        let mut returned: Vec<(u32, Stamp)> = Vec::new();
        for number in 0..self.space.sectors {
            let before = returned.len();
            returned.extend(
                self.entries_of_stored(number)
                    .map(|entry| (number, entry.stamp)),
            );
            if returned.len() == before {
                self.loose.push(Loose {
                    part: Part { at: number, len: 1 },
                    start,
                    end: OPEN,
                    leftover_of: Some(end),
                });
            }
        }
        let unit = self.space.unit as usize;
        for (line, bytes) in under_way {
            let (first, last) = (line / unit, (line + bytes.len()).div_ceil(unit));
            for number in first..last {
                let at = number * unit;
                let whole = at
                    .checked_sub(*line)
                    .and_then(|at| bytes.get(at..at + unit));
                let sector = &self.sectors[number];
                let whose = whole.and_then(|bytes| {
                    let mut entries = sector.entries.iter().rev();
                    entries.find(|entry| pattern::is_of(bytes, entry.stamp, number as u32))
                });
                match whose.filter(|_| is_atomic) {
                    Some(entry) => returned.push((number as u32, entry.stamp)),
                    None => self.loose.push(Loose {
                        part: Part {
                            at: number as u32,
                            len: 1,
                        },
                        start,
                        end: OPEN,
                        leftover_of: Some(end),
                    }),
                }
            }
        }
        self.loose[dropping.0].end = end;
        returned.sort_unstable();
        returned.dedup();
        for (number, stamp) in returned {
            let entries = &mut self.sectors[number as usize].entries;
            // The only thing ever there needs no second mention.
            if entries.len() > 1 || entries.iter().any(|entry| entry.stamp != stamp) {
                entries.push(Entry {
                    stamp,
                    start,
                    end,
                    drops: false,
                });
            }
        }
    }
}

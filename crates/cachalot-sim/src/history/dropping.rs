//! Discards, truncations and purges: what becomes of bytes that are dropped.

use super::{Entry, History, Leftover, Loose, OPEN, Tick};
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
                leftover: None,
            });
        }
        Dropping(first)
    }

    /// Ends it. The same parts must be given. Where a write that came in meanwhile was stored in part before the rest of
    /// it was dropped, that part stays until somebody writes there again.
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
        let mixed: Vec<u32> = parts
            .iter()
            .flat_map(|part| part.numbers())
            .filter(|number| self.entries_of_stored(*number).next().is_none())
            .collect();
        for number in mixed {
            let stored = (
                number as usize * self.space.unit as usize,
                self.stored(number).to_vec(),
            );
            self.leave(number, (start, end), vec![stored]);
        }
    }

    /// From the end of a dropping on a sector may hold any of these pieces, until it is written anew.
    fn leave(&mut self, number: u32, (start, end): (Tick, Tick), pieces: Vec<(usize, Vec<u8>)>) {
        self.loose.push(Loose {
            part: Part { at: number, len: 1 },
            start,
            end: OPEN,
            leftover: Some(Leftover { since: end, pieces }),
        });
    }

    /// What a dropping left uncertain of a sector is certain again: it was written anew.
    pub(super) fn settle(&mut self, number: u32, (start, now): (Tick, Tick)) {
        let one = Part { at: number, len: 1 };
        for loose in &mut self.loose {
            let leftover = loose.leftover.as_ref();
            let is_after = leftover.is_some_and(|leftover| leftover.since < start);
            if loose.part == one && loose.end == OPEN && is_after {
                loose.end = now;
            }
        }
    }

    /// Begins to drop everything unwritten; `under_way` is on its way to the store.
    pub(crate) fn begin_purge(
        &mut self,
        start: Tick,
        under_way: Vec<(usize, Vec<u8>)>,
    ) -> Dropping {
        self.purged = under_way;
        self.purged.push((0, self.shadow.clone()));
        let part = Part {
            at: 0,
            len: self.space.sectors,
        };
        self.loose.push(Loose {
            part,
            start,
            end: OPEN,
            leftover: None,
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
        let mut pieces = std::mem::take(&mut self.purged);
        pieces.extend(under_way.iter().cloned());
        pieces.push((0, self.shadow.clone()));
        let mut returned: Vec<(u32, Stamp)> = Vec::new();
        let mut uncertain: Vec<u32> = Vec::new();
        for number in 0..self.space.sectors {
            let before = returned.len();
            returned.extend(
                self.entries_of_stored(number)
                    .map(|entry| (number, entry.stamp)),
            );
            if returned.len() == before {
                uncertain.push(number);
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
                    None => uncertain.push(number as u32),
                }
            }
        }
        uncertain.sort_unstable();
        uncertain.dedup();
        for number in uncertain {
            let pieces = self.of_sector(number, &pieces);
            self.leave(number, (start, end), pieces);
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

    /// The parts of pieces that lie in a sector.
    fn of_sector(&self, number: u32, pieces: &[(usize, Vec<u8>)]) -> Vec<(usize, Vec<u8>)> {
        let unit = self.space.unit as usize;
        let (start, end) = (number as usize * unit, (number as usize + 1) * unit);
        let mut parts: Vec<(usize, Vec<u8>)> = pieces
            .iter()
            .filter(|(line, bytes)| *line < end && start < line + bytes.len())
            .map(|(line, bytes)| {
                let (from, to) = (start.max(*line), end.min(line + bytes.len()));
                (from, bytes[from - line..to - line].to_vec())
            })
            .collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Checks the bytes that a read gave of a sector of which nothing certain is known.
    pub(super) fn check_loose(
        &self,
        number: u32,
        bytes: &[u8],
        (asked, answered): (Tick, Tick),
    ) -> Result<(), String> {
        let one = Part { at: number, len: 1 };
        let loose: Vec<&Loose> = self
            .loose
            .iter()
            .filter(|loose| loose.start <= answered && asked <= loose.end)
            .filter(|loose| loose.part.overlaps(one))
            .collect();
        let since = loose.iter().map(|loose| loose.start).min().unwrap_or(0);
        let left: Vec<&Leftover> = loose
            .iter()
            .filter_map(|loose| loose.leftover.as_ref())
            .collect();
        // Amid a dropping the bytes may be of any write that was ever made there, or zero.
        let is_over = left.len() == loose.len() && left.iter().all(|left| left.since < asked);
        let sector = &self.sectors[number as usize];
        let start = number as usize * self.space.unit as usize;
        for (at, byte) in bytes.iter().enumerate() {
            let is_written = sector.entries.iter().any(|entry| {
                entry.start < answered
                    && (!is_over || entry.end >= since)
                    && pattern::byte(entry.stamp, number, at) == *byte
            });
            let is_left = left
                .iter()
                .flat_map(|left| &left.pieces)
                .any(|(line, piece)| {
                    let at = (start + at).checked_sub(*line);
                    at.and_then(|at| piece.get(at)) == Some(byte)
                });
            let is_zero = *byte == 0 && !is_over;
            if !is_written && !is_left && !is_zero && self.shadow[start + at] != *byte {
                let what = format!("amid or after a dropping, a read returned at byte {at}");
                return Err(self.explain(&what, number, bytes, (asked, answered)));
            }
        }
        Ok(())
    }
}

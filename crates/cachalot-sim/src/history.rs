//! What the bytes of one set may be: the model that every read and every store operation is compared with.
//!
//! Each sector keeps all that was ever put into it, each with the time span in which it took effect: from when it was
//! asked for to when it was answered. Of two spans that do not overlap, the later replaces the earlier. A read may
//! return whatever no later span replaced before the read was asked for, and nothing that was asked for after its
//! answer. What was once read has taken effect by then.

mod dropping;

use crate::pattern::{self, NOBODY, Stamp};
use crate::space::{Part, Space};

/// Steps of the simulation, counted.
pub(crate) type Tick = u64;

/// The time span of something that has not ended.
pub(crate) const OPEN: Tick = Tick::MAX;

/// Something put into a sector.
#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    start: Tick,
    end: Tick,
    /// It dropped what was there: also what was put in while it was under way, if that had not yet been stored.
    drops: bool,
}

#[derive(Clone, Debug)]
struct Sector {
    entries: Vec<Entry>,
}

/// Sectors of which nothing certain is known for a while: they are being dropped. Of their bytes each is what somebody
/// wrote there, or zero.
#[derive(Clone, Debug)]
struct Loose {
    part: Part,
    start: Tick,
    end: Tick,
    leftover: Option<Leftover>,
}

/// What a dropping left of a single sector, until somebody who asks after it writes there anew: of each of its bytes one of
/// those that were in the store or on their way there.
#[derive(Clone, Debug)]
struct Leftover {
    /// When the dropping was over.
    since: Tick,
    /// Parts of the sector, by where they start in the line.
    pieces: Vec<(usize, Vec<u8>)>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct History {
    space: Space,
    sectors: Vec<Sector>,
    /// The bytes of the store.
    shadow: Vec<u8>,
    loose: Vec<Loose>,
    /// What was in the store, and on its way there, when a purge began.
    purged: Vec<(usize, Vec<u8>)>,
}

impl Sector {
    /// The latest start of what had ended before `asked`: whatever ended before this has been replaced. What may have
    /// been dropped replaces no more than its dropping does.
    fn floor(&self, asked: Tick) -> Tick {
        let ended = self.entries.iter().filter(|entry| entry.end < asked);
        let start = |entry: &Entry| {
            let dropping = self.entries.iter().filter(|other| {
                other.drops && other.start <= entry.end && entry.start <= other.end
            });
            dropping
                .map(|other| other.start)
                .min()
                .map_or(entry.start, |start| start.min(entry.start))
        };
        ended.map(start).max().unwrap_or(0)
    }

    /// The newest entry that `bytes` may be of, for somebody who asked and was answered at these times.
    fn find(
        &self,
        (asked, answered): (Tick, Tick),
        is_of: impl Fn(Stamp) -> bool,
    ) -> Option<usize> {
        let floor = self.floor(asked);
        self.entries
            .iter()
            .rposition(|entry| entry.start < answered && entry.end >= floor && is_of(entry.stamp))
    }

    /// Whether each byte is of something that ended at `floor` or later: of writes at the same time one may be the later
    /// in one object, and another in the next.
    fn is_mixed_of(&self, number: u32, bytes: &[u8], floor: Tick) -> bool {
        let live = self.entries.iter().filter(|entry| entry.end >= floor);
        bytes.iter().enumerate().all(|(at, byte)| {
            live.clone()
                .any(|entry| pattern::byte(entry.stamp, number, at) == *byte)
        })
    }

    fn is_ambiguous(&self, found: usize, is_of: impl Fn(Stamp) -> bool) -> bool {
        let stamp = self.entries[found].stamp;
        self.entries
            .iter()
            .enumerate()
            .any(|(other, entry)| other != found && (entry.stamp == stamp || is_of(entry.stamp)))
    }
}

impl History {
    /// A set whose store holds `stored`.
    pub(crate) fn new(space: Space, stored: &[(Part, Stamp)]) -> Self {
        let blank = Sector {
            entries: vec![Entry {
                stamp: NOBODY,
                start: 0,
                end: 0,
                drops: false,
            }],
        };
        let mut history = Self {
            sectors: vec![blank; space.sectors as usize],
            shadow: vec![0; space.bytes()],
            loose: Vec::new(),
            purged: Vec::new(),
            space,
        };
        for (part, stamp) in stored {
            for number in part.numbers() {
                let sector = &mut history.sectors[number as usize];
                sector.entries[0].stamp = *stamp;
                let mut bytes = Vec::new();
                pattern::append(&mut bytes, *stamp, number, history.space.unit as usize);
                let at = number as usize * bytes.len();
                history.shadow[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        history
    }

    pub(crate) const fn space(&self) -> &Space {
        &self.space
    }

    /// The droppings of a part that overlap a time span.
    fn loose_in(&self, part: Part, asked: Tick, answered: Tick) -> Vec<Part> {
        self.loose
            .iter()
            .filter(|loose| loose.start <= answered && asked <= loose.end)
            .map(|loose| loose.part)
            .filter(|loose| loose.overlaps(part))
            .collect()
    }

    fn is_loose(&self, number: u32, asked: Tick, answered: Tick) -> bool {
        let one = Part { at: number, len: 1 };
        !self.loose_in(one, asked, answered).is_empty()
    }

    // Writes.

    pub(crate) fn begin_write(&mut self, parts: &[Part], stamp: Stamp, start: Tick) {
        for number in parts.iter().flat_map(|part| part.numbers()) {
            self.sectors[number as usize].entries.push(Entry {
                stamp,
                start,
                end: OPEN,
                drops: false,
            });
        }
    }

    pub(crate) fn end_write(&mut self, parts: &[Part], stamp: Stamp, end: Tick) {
        for number in parts.iter().flat_map(|part| part.numbers()) {
            let entries = &mut self.sectors[number as usize].entries;
            if let Some(entry) = entries.iter_mut().find(|entry| entry.stamp == stamp) {
                entry.end = entry.end.min(end);
                let start = entry.start;
                self.settle(number, (start, end));
            }
        }
    }

    /// The write was refused: nothing of it may ever be seen.
    pub(crate) fn void_write(&mut self, parts: &[Part], stamp: Stamp) {
        for number in parts.iter().flat_map(|part| part.numbers()) {
            let entries = &mut self.sectors[number as usize].entries;
            entries.retain(|entry| entry.stamp != stamp);
        }
    }

    // Reads.

    /// Checks the bytes that a read gave for a part, which starts at `bytes[0]`.
    pub(crate) fn check_read(
        &mut self,
        part: Part,
        bytes: &[u8],
        (asked, answered): (Tick, Tick),
    ) -> Result<(), String> {
        let unit = self.space.unit as usize;
        let mut seen = Vec::with_capacity(part.len as usize);
        let loose = self.loose_in(part, asked, answered);
        for (number, bytes) in part.numbers().zip(bytes.chunks_exact(unit)) {
            if is_in(&loose, number) {
                self.check_loose(number, bytes, (asked, answered))?;
                seen.push(None);
                continue;
            }
            let is_of = |stamp| pattern::is_of(bytes, stamp, number);
            let sector = &self.sectors[number as usize];
            let Some(found) = sector.find((asked, answered), is_of) else {
                return Err(self.explain("a read returned", number, bytes, (asked, answered)));
            };
            let is_certain = !sector.is_ambiguous(found, is_of);
            seen.push(is_certain.then_some(found));
        }
        self.check_whole(part, &seen)?;
        for (number, found) in part.numbers().zip(seen) {
            if let Some(found) = found {
                let entry = &mut self.sectors[number as usize].entries[found];
                entry.end = entry.end.min(answered);
            }
        }
        Ok(())
    }

    /// Checks the bytes that a read of a snapshot gave, which was taken in this time span.
    pub(crate) fn check_snapshot(
        &self,
        part: Part,
        bytes: &[u8],
        taken: (Tick, Tick),
    ) -> Result<(), String> {
        let (from, to) = taken;
        for (number, bytes) in part
            .numbers()
            .zip(bytes.chunks_exact(self.space.unit as usize))
        {
            let is_of = |stamp| pattern::is_of(bytes, stamp, number);
            let sector = &self.sectors[number as usize];
            // What was written while the snapshot was taken may be in it or not, and may have come in late.
            let is_disputed = sector
                .entries
                .iter()
                .any(|entry| entry.start < to && entry.end > from);
            if !is_disputed && sector.find(taken, is_of).is_none() {
                return Err(self.explain("a read of a snapshot returned", number, bytes, taken));
            }
        }
        Ok(())
    }

    /// Checks that of each write that is seen in an extent nothing older is seen beside it.
    fn check_whole(&self, part: Part, seen: &[Option<usize>]) -> Result<(), String> {
        for extent in self.space.extents(part, 0) {
            let entries: Vec<(u32, Entry)> = extent
                .parts
                .iter()
                .flat_map(|part| part.numbers())
                .filter_map(|number| {
                    let found = seen.get((number - part.at) as usize).copied().flatten()?;
                    Some((number, self.sectors[number as usize].entries[found]))
                })
                .collect();
            let mut stamps: Vec<(Stamp, Tick)> = entries
                .iter()
                .map(|(_, entry)| (entry.stamp, entry.start))
                .filter(|(stamp, _)| *stamp != NOBODY)
                .collect();
            stamps.sort_unstable();
            stamps.dedup();
            for (stamp, start) in stamps {
                for (number, entry) in &entries {
                    let is_older = entry.stamp != stamp && entry.end < start;
                    let covers = |entry: &Entry| entry.stamp == stamp;
                    if is_older && self.sectors[*number as usize].entries.iter().any(covers) {
                        return Err(format!(
                            "a read of {part:?} saw a part of write {stamp}, and in sector {number} \
                             the older write {}",
                            entry.stamp
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn explain(
        &self,
        what: &str,
        number: u32,
        bytes: &[u8],
        (asked, answered): (Tick, Tick),
    ) -> String {
        let sector = &self.sectors[number as usize];
        let named = sector
            .entries
            .iter()
            .rfind(|entry| pattern::is_of(bytes, entry.stamp, number));
        let is = match named {
            Some(entry) => format!(
                "write {} of {}..{}",
                entry.stamp,
                entry.start,
                tick(entry.end)
            ),
            None if pattern::is_of(bytes, NOBODY, number) => "zeros".to_owned(),
            None => "bytes that nobody wrote there".to_owned(),
        };
        let known: Vec<String> = sector
            .entries
            .iter()
            .rev()
            .take(6)
            .map(|entry| format!("{} of {}..{}", entry.stamp, entry.start, tick(entry.end)))
            .collect();
        format!(
            "{what} {is} in sector {number} of {}, asked at {asked}, answered at {answered}; the \
             sector's last writes are {}; the store has write {:?}",
            self.space.name,
            known.join(", "),
            self.owner(number)
        )
    }

    // The store.

    /// A sector's bytes in the store.
    fn stored(&self, number: u32) -> &[u8] {
        let unit = self.space.unit as usize;
        let at = number as usize * unit;
        &self.shadow[at..at + unit]
    }

    /// Who may have written a sector's bytes in the store, the newest of them; nobody known, if parts of it are by
    /// several hands.
    fn owner(&self, number: u32) -> Option<Stamp> {
        let bytes = self.stored(number);
        let mut entries = self.sectors[number as usize].entries.iter().rev();
        entries
            .find(|entry| pattern::is_of(bytes, entry.stamp, number))
            .map(|entry| entry.stamp)
    }

    /// Bytes of the line have reached the store.
    pub(crate) fn store(&mut self, line: usize, bytes: &[u8], now: Tick) -> Result<(), String> {
        let unit = self.space.unit as usize;
        let (first, last) = (line / unit, (line + bytes.len() - 1) / unit);
        let oldest: Vec<Option<Tick>> = (first..=last)
            .map(|number| {
                self.entries_of_stored(number as u32)
                    .map(|entry| entry.start)
                    .min()
            })
            .collect();
        self.shadow[line..line + bytes.len()].copy_from_slice(bytes);
        for (number, oldest) in (first..=last).zip(oldest) {
            let start = number * unit;
            let is_all = start >= line && start + unit <= line + bytes.len();
            self.check_store(number as u32, is_all, (oldest, now))?;
        }
        Ok(())
    }

    /// Those that may have written a sector's bytes in the store.
    fn entries_of_stored(&self, number: u32) -> impl Iterator<Item = &Entry> {
        let bytes = self.stored(number);
        let entries = self.sectors[number as usize].entries.iter();
        entries.filter(move |entry| pattern::is_of(bytes, entry.stamp, number))
    }

    /// Checks that somebody wrote what the store now has, and that it is no older than what it had.
    fn check_store(
        &self,
        number: u32,
        is_all: bool,
        (oldest_before, now): (Option<Tick>, Tick),
    ) -> Result<(), String> {
        let newest = self.entries_of_stored(number).map(|entry| entry.end).max();
        let what = match (newest, oldest_before) {
            (Some(end), Some(start)) if end < start && !self.is_loose(number, now, now) => {
                "the store went back to"
            }
            (None, _) if is_all => "the store was given",
            _ => return Ok(()),
        };
        Err(self.explain(what, number, self.stored(number), (now, now)))
    }

    /// The store's bytes of a part have become zeros, by the application's own doing.
    pub(crate) fn zero_store(&mut self, part: Part) {
        let unit = self.space.unit as usize;
        for number in part.numbers() {
            let at = number as usize * unit;
            self.shadow[at..at + unit].fill(0);
        }
    }

    /// Checks that the store has all that was acknowledged before `asked`.
    pub(crate) fn check_stored(&self, part: Part, asked: Tick, now: Tick) -> Result<(), String> {
        let loose = self.loose_in(part, asked, now);
        for number in part.numbers() {
            let (sector, bytes) = (&self.sectors[number as usize], self.stored(number));
            let is_of = |stamp| pattern::is_of(bytes, stamp, number);
            let is_good = sector.find((asked, OPEN), is_of).is_some()
                || sector.is_mixed_of(number, bytes, sector.floor(asked));
            if !is_good && !is_in(&loose, number) {
                return Err(self.explain(
                    "after a flush the store has",
                    number,
                    bytes,
                    (asked, now),
                ));
            }
        }
        Ok(())
    }

    /// Checks that the store has what a write put into a part, or something newer. Of what is newer and was read already
    /// nothing is known as long as it is not acknowledged.
    pub(crate) fn check_written_through(
        &self,
        part: Part,
        stamp: Stamp,
        now: Tick,
    ) -> Result<(), String> {
        for number in part.numbers() {
            let (sector, bytes) = (&self.sectors[number as usize], self.stored(number));
            let written = sector.entries.iter().find(|entry| entry.stamp == stamp);
            let Some(start) = written.map(|entry| entry.start) else {
                continue;
            };
            let is_good = sector
                .entries
                .iter()
                .any(|entry| entry.end >= start && pattern::is_of(bytes, entry.stamp, number))
                || sector.is_mixed_of(number, bytes, start);
            if !is_good && !self.is_loose(number, start, now) {
                let what = "a write through was acknowledged while the store has";
                return Err(self.explain(what, number, bytes, (start, now)));
            }
        }
        Ok(())
    }

    /// Checks that the store's bytes of sectors are those of `stamp`, or newer.
    pub(crate) fn check_committed(
        &self,
        number: u32,
        stamp: Stamp,
        now: Tick,
    ) -> Result<(), String> {
        let sector = &self.sectors[number as usize];
        let Some(written) = sector.entries.iter().find(|entry| entry.stamp == stamp) else {
            return Ok(());
        };
        let mut stored = self.entries_of_stored(number).peekable();
        let is_safe = stored.peek().is_none() || stored.any(|entry| entry.end >= written.start);
        if is_safe || self.is_loose(number, written.start, now) {
            return Ok(());
        }
        let what = format!("the journal was told that write {stamp} is stored, and the store has");
        Err(self.explain(&what, number, self.stored(number), (now, now)))
    }
}

fn is_in(parts: &[Part], number: u32) -> bool {
    parts.iter().any(|part| part.numbers().contains(&number))
}

fn tick(tick: Tick) -> String {
    if tick == OPEN {
        "open".to_owned()
    } else {
        tick.to_string()
    }
}

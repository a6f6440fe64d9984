//! The judge: what was done, what was answered, what reached the store, and whether that may be.

mod fences;

use std::collections::BTreeMap;

use cachalot::backend::{BackendWrite, JournalNotice};
use cachalot::{ByteRange, JournalTid, ObjectName};

use crate::digest::Digest;
use crate::history::{History, Tick};
use crate::pattern::Stamp;
use crate::space::{Extent, Part, Segment};

/// A write with a journal entry.
#[derive(Debug)]
struct Entry {
    set: usize,
    extents: Vec<(ObjectName, Extent, Stamp)>,
    /// What the journal was told of, by object.
    noticed: BTreeMap<ObjectName, Vec<ByteRange>>,
    is_acknowledged: bool,
}

/// A backend write that has been started and has not ended.
#[derive(Debug)]
struct UnderWay {
    set: usize,
    pieces: Vec<(usize, Vec<u8>)>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) sets: Vec<History>,
    objects: BTreeMap<ObjectName, (usize, Vec<Segment>)>,
    tick: Tick,
    last_stamp: Stamp,
    journal: BTreeMap<u64, Entry>,
    under_way: BTreeMap<u64, UnderWay>,
    last_under_way: u64,
    /// What went wrong first.
    pub(crate) failure: Option<String>,
    pub(crate) digest: Digest,
    /// What happened, for people; `None` when nobody will read it.
    pub(crate) log: Option<Vec<String>>,
    /// Sets whose writes may reach the store no more.
    pub(crate) is_abandoned: bool,
    /// Per set, how it stands with the store.
    pub(crate) fences: Vec<fences::Fence>,
    /// Grows whenever a set is closed or given up.
    pub(crate) generation: u64,
    /// Per set, the newest truncation that was asked for, and the first sector that it cut off.
    pub(crate) truncations: Vec<(u64, u32)>,
}

impl Oracle {
    pub(crate) fn new(sets: Vec<History>, is_logging: bool) -> Self {
        let mut objects = BTreeMap::new();
        for (number, set) in sets.iter().enumerate() {
            for (name, segments) in set.space().objects() {
                objects.insert(name, (number, segments));
            }
        }
        Self {
            fences: vec![fences::Fence::default(); sets.len()],
            generation: 0,
            truncations: sets.iter().map(|set| (0, set.space().sectors)).collect(),
            objects,
            sets,
            tick: 0,
            last_stamp: 1 << 16,
            journal: BTreeMap::new(),
            under_way: BTreeMap::new(),
            last_under_way: 0,
            failure: None,
            digest: Digest::default(),
            log: is_logging.then(Vec::new),
            is_abandoned: false,
        }
    }

    /// The next step.
    pub(crate) const fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    pub(crate) const fn stamp(&mut self) -> Stamp {
        self.last_stamp += 1;
        self.last_stamp
    }

    /// Notes what went wrong, unless something has already.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        if self.failure.is_none() {
            let what = what.into();
            self.note(|| format!("WRONG: {what}"));
            self.failure = Some(what);
        }
    }

    pub(crate) fn judge(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.fail(what);
        }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let tick = self.tick;
        if let Some(log) = &mut self.log {
            log.push(format!("{tick:>7} {}", what()));
        }
    }

    // The store.

    /// The pieces of the line that a range of an object holds, with their places in the range.
    fn lines(&self, object: &ObjectName, start: u64, len: u64) -> Option<(usize, Vec<Line>)> {
        let (set, segments) = self.objects.get(object)?;
        let mut lines = Vec::new();
        for segment in segments {
            let from = segment.offset.max(start);
            let to = (segment.offset + segment.len as u64).min(start + len);
            if from < to {
                lines.push(Line {
                    line: segment.line + (from - segment.offset) as usize,
                    from: (from - start) as usize,
                    len: (to - from) as usize,
                });
            }
        }
        Some((*set, lines))
    }

    fn pieces(&self, write: &BackendWrite) -> Option<UnderWay> {
        let (mut pieces, mut number) = (Vec::new(), 0);
        for run in &write.runs {
            let bytes: Vec<u8> = run.buffers.iter().flatten().copied().collect();
            let (set, lines) = self.lines(&write.object, run.offset, bytes.len() as u64)?;
            number = set;
            let covered: usize = lines.iter().map(|line| line.len).sum();
            if covered < bytes.len() {
                return None;
            }
            for line in lines {
                pieces.push((line.line, bytes[line.from..line.from + line.len].to_vec()));
            }
        }
        Some(UnderWay {
            set: number,
            pieces,
        })
    }

    /// The cache has begun a write.
    pub(crate) fn write_begins(&mut self, write: &BackendWrite) -> u64 {
        self.last_under_way += 1;
        let number = self.last_under_way;
        match self.pieces(write) {
            Some(under_way) => {
                if self.fences[under_way.set].is_told {
                    self.fail(format!(
                        "a write of {} was started after a caller was told that it is fenced",
                        write.object
                    ));
                }
                for (other, before) in &self.under_way {
                    if before.set == under_way.set
                        && before.overlaps(&under_way)
                        && self.failure.is_none()
                    {
                        self.failure = Some(format!(
                            "write {number} of {} was started before write {other} of the same bytes had ended",
                            write.object
                        ));
                    }
                }
                self.under_way.insert(number, under_way);
            }
            None => self.fail(format!(
                "the store was given bytes of {} that nobody wrote",
                write.object
            )),
        }
        number
    }

    pub(crate) fn write_ends(&mut self, number: u64) {
        self.under_way.remove(&number);
    }

    /// What is on its way to the store of a set.
    pub(crate) fn under_way(&self, set: usize) -> Vec<(usize, Vec<u8>)> {
        self.under_way
            .values()
            .filter(|write| write.set == set)
            .flat_map(|write| write.pieces.iter().cloned())
            .collect()
    }

    /// The bytes of a write, if it is one of this set.
    pub(crate) fn pieces_of(&self, set: usize, write: &BackendWrite) -> Vec<(usize, Vec<u8>)> {
        let pieces = self.pieces(write).filter(|write| write.set == set);
        pieces.map(|write| write.pieces).unwrap_or_default()
    }

    /// A write takes effect in the store.
    pub(crate) fn write_lands(&mut self, write: &BackendWrite) {
        let now = self.tick();
        self.note(|| {
            let runs: Vec<_> = write
                .runs
                .iter()
                .map(|run| (run.offset, run.len_bytes()))
                .collect();
            format!("store: {} gets {runs:?}", write.object)
        });
        self.digest.note(("lands", now, write.len_bytes()));
        if self.is_abandoned {
            self.fail("a write reached the store after the cache was abandoned");
        }
        let Some(under_way) = self.pieces(write) else {
            return self.fail(format!(
                "{} was given bytes that nobody wrote",
                write.object
            ));
        };
        let (seq, cut) = self.truncations[under_way.set];
        let unit = self.sets[under_way.set].space().unit as usize;
        for (line, mut bytes) in under_way.pieces {
            if write.truncation.seq < seq {
                // What an older write puts past the truncation is never seen again.
                bytes.truncate((cut as usize * unit).saturating_sub(line));
            }
            if !bytes.is_empty() {
                let verdict = self.sets[under_way.set].store(line, &bytes, now);
                self.judge(verdict);
            }
        }
    }

    // The journal.

    /// A write with a journal entry was asked for.
    pub(crate) fn journal_write(&mut self, tid: u64, set: usize, extents: &[(Extent, Stamp)]) {
        let space = self.sets[set].space();
        let named = extents.iter().filter_map(|(extent, stamp)| {
            let name = space.object_name(&extent.extent.object)?;
            Some((name, extent.clone(), *stamp))
        });
        let entry = Entry {
            set,
            extents: named.collect(),
            noticed: BTreeMap::new(),
            is_acknowledged: false,
        };
        self.journal.insert(tid, entry);
    }

    pub(crate) fn journal_acknowledged(&mut self, tid: u64) {
        if let Some(entry) = self.journal.get_mut(&tid) {
            entry.is_acknowledged = true;
        }
    }

    /// The journal hears of bytes.
    pub(crate) fn notice(&mut self, notice: &JournalNotice) {
        self.note(|| format!("journal: {notice:?}"));
        let now = self.tick();
        let (object, range, tid, is_stored) = match notice {
            JournalNotice::Committed { object, range, tid } => (object, *range, *tid, true),
            JournalNotice::Overwritten {
                object, range, old, ..
            } => (object, *range, *old, false),
        };
        let verdict = self.take_notice((object, range), tid, is_stored, now);
        self.judge(verdict);
    }

    fn take_notice(
        &mut self,
        (object, range): (&ObjectName, ByteRange),
        tid: JournalTid,
        is_stored: bool,
        now: Tick,
    ) -> Result<(), String> {
        let Some(entry) = self.journal.get_mut(&tid.0.get()) else {
            return Err(format!(
                "the journal was told of entry {tid:?}, which no write has"
            ));
        };
        let noticed = entry.noticed.entry(object.clone()).or_default();
        if noticed.iter().any(|before| before.overlaps(range)) {
            return Err(format!(
                "the journal was told twice of {range} of {object} of entry {tid:?}"
            ));
        }
        noticed.push(range);
        let (set, mut left) = (entry.set, range.len());
        let mut touched = Vec::new();
        for (name, extent, stamp) in &entry.extents {
            if name != object {
                continue;
            }
            if let Some(common) = extent.extent.range.intersection(range) {
                left -= common.len();
                touched.push((extent.clone(), *stamp, common));
            }
        }
        if left > 0 {
            return Err(format!(
                "the journal was told of {range} of {object}, which entry {tid:?} lacks"
            ));
        }
        if is_stored {
            let history = &self.sets[set];
            let unit = u64::from(history.space().unit);
            for (extent, stamp, common) in touched {
                let numbers = extent.parts.iter().flat_map(|part| part.numbers());
                let mut offset = extent.extent.range.start();
                for number in numbers {
                    if common.start() <= offset && offset + unit <= common.end() {
                        history.check_committed(number, stamp, now)?;
                    }
                    offset += unit;
                }
            }
        }
        Ok(())
    }

    /// Checks that the journal has heard of every byte of every acknowledged write.
    pub(crate) fn check_journal(&self) -> Result<(), String> {
        for (tid, entry) in &self.journal {
            let noticed: u64 = entry
                .noticed
                .values()
                .flatten()
                .map(|range| range.len())
                .sum();
            let written: u64 = entry
                .extents
                .iter()
                .map(|(_, extent, _)| extent.extent.range.len())
                .sum();
            if entry.is_acknowledged && noticed < written {
                return Err(format!(
                    "the journal was told of {noticed} of the {written} bytes of entry {tid}, though all is stored"
                ));
            }
        }
        Ok(())
    }

    /// Checks that the store has what a write that was just acknowledged put into parts of a set, or something newer.
    pub(crate) fn check_written_through(&mut self, set: usize, parts: &[Part], stamp: Stamp) {
        let now = self.tick;
        for part in parts {
            let verdict = self.sets[set].check_written_through(*part, stamp, now);
            self.judge(verdict);
        }
    }

    /// Checks that the store has all of a set that was acknowledged before `asked`.
    pub(crate) fn check_stored(&mut self, set: usize, part: Option<Part>, asked: Tick) {
        let now = self.tick;
        let history = &self.sets[set];
        let all = Part {
            at: 0,
            len: history.space().sectors,
        };
        let verdict = history.check_stored(part.unwrap_or(all), asked, now);
        self.judge(verdict);
    }
}

struct Line {
    line: usize,
    from: usize,
    len: usize,
}

impl UnderWay {
    fn overlaps(&self, other: &Self) -> bool {
        self.pieces.iter().any(|(line, bytes)| {
            other
                .pieces
                .iter()
                .any(|(start, others)| *line < start + others.len() && *start < line + bytes.len())
        })
    }
}

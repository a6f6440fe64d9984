//! What reads may return: for each byte, the last acknowledged write or one that was under way at the same time.

use std::collections::BTreeMap;

/// Names a write. What it wrote follows from its number and from where it wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Tag(pub(super) usize);

/// Zeros, as they were in the beginning.
pub(super) const ZEROS: Tag = Tag(0);
/// What the store held in the beginning, where it held something.
pub(super) const INITIAL: Tag = Tag(1);

#[derive(Clone, Copy, Debug)]
struct Record {
    is_zeros: bool,
    asked: u64,
    entered: Option<u64>,
    context: u64,
}

/// What a run of bytes may hold.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cell {
    /// Any of these.
    now: Vec<Tag>,
    /// All that was ever written here.
    ever: Vec<Tag>,
}

/// Runs of bytes of one object by where they start. The last one has no end.
#[derive(Clone, Debug)]
pub(super) struct Cells(BTreeMap<u64, Cell>);

impl Cells {
    fn new(initial_len: u64) -> Self {
        let cell = |tag: Tag| Cell {
            now: vec![tag],
            ever: vec![tag],
        };
        let mut cells = BTreeMap::from([(initial_len, cell(ZEROS))]);
        if initial_len > 0 {
            cells.insert(0, cell(INITIAL));
        }
        Self(cells)
    }

    fn cut(&mut self, at: u64) {
        if let Some((start, cell)) = self.0.range(..=at).next_back()
            && *start < at
        {
            let cell = cell.clone();
            self.0.insert(at, cell);
        }
    }

    fn each(&mut self, (start, end): (u64, u64), mut change: impl FnMut(&mut Cell)) {
        self.cut(start);
        self.cut(end);
        self.0
            .range_mut(start..end)
            .for_each(|(_, cell)| change(cell));
    }

    /// The runs inside a range, each with what it may hold.
    fn runs(&self, (start, end): (u64, u64)) -> Vec<(u64, u64, &Cell)> {
        let first = self.0.range(..=start).next_back();
        let rest = self.0.range(start + 1..end.max(start + 1));
        let mut runs: Vec<(u64, u64, &Cell)> = Vec::new();
        for (from, cell) in first.into_iter().chain(rest) {
            if let Some(last) = runs.last_mut() {
                last.1 = *from;
            }
            runs.push(((*from).max(start), end, cell));
        }
        runs
    }
}

/// What one look at the objects may find: the state when it began, and all that happened until it ends.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// By object: the range that it looks at and what that may hold.
    parts: Vec<(usize, (u64, u64), Cells)>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Model {
    pub(super) objects: Vec<Cells>,
    records: Vec<Record>,
    /// In which step each snapshot context began.
    contexts: Vec<u64>,
    pub(super) step: u64,
}

impl Model {
    pub(super) fn new(initial_lens: &[u64]) -> Self {
        let record = |is_zeros| Record {
            is_zeros,
            asked: 0,
            entered: Some(0),
            context: 0,
        };
        Self {
            objects: initial_lens.iter().map(|len| Cells::new(*len)).collect(),
            records: vec![record(true), record(false)],
            contexts: vec![0],
            step: 1,
        }
    }

    pub(super) fn byte(&self, tag: Tag, object: usize, at: u64) -> u8 {
        if self
            .records
            .get(tag.0)
            .is_some_and(|record| record.is_zeros)
        {
            return 0;
        }
        let mixed = at + (at >> 8) * 7 + tag.0 as u64 * 101 + object as u64 * 17;
        (mixed % 251) as u8 + 1
    }

    pub(super) fn bytes(&self, tag: Tag, object: usize, (start, end): (u64, u64)) -> Vec<u8> {
        (start..end).map(|at| self.byte(tag, object, at)).collect()
    }

    /// The number that the next write gets.
    pub(super) fn next_tag(&self) -> Tag {
        Tag(self.records.len())
    }

    fn new_tag(&mut self, is_zeros: bool, context: u64) -> Tag {
        self.records.push(Record {
            is_zeros,
            asked: self.step,
            entered: None,
            context,
        });
        Tag(self.records.len() - 1)
    }

    /// A write is asked for: from now on it may be there.
    pub(super) fn ask(
        &mut self,
        parts: &[(usize, (u64, u64))],
        context: u64,
        looks: &mut [&mut Look],
    ) -> Tag {
        let tag = self.new_tag(false, context);
        self.may_hold(parts, tag, looks);
        tag
    }

    fn may_hold(&mut self, parts: &[(usize, (u64, u64))], tag: Tag, looks: &mut [&mut Look]) {
        for (object, range) in parts {
            self.objects[*object].each(*range, |cell| {
                cell.now.push(tag);
                cell.ever.push(tag);
            });
            for look in looks.iter_mut() {
                look.each(*object, *range, |cell| cell.now.push(tag));
            }
        }
    }

    /// A write has entered: what was there before it was asked for is gone.
    pub(super) fn enter(&mut self, parts: &[(usize, (u64, u64))], tag: Tag) {
        self.records[tag.0].entered = Some(self.step);
        let asked = self.records[tag.0].asked;
        let records = &self.records;
        for (object, range) in parts {
            self.objects[*object].each(*range, |cell| {
                cell.now.retain(|other| {
                    *other == tag
                        || records[other.0]
                            .entered
                            .is_none_or(|entered| entered > asked)
                });
            });
        }
    }

    /// The range reads as zeros from now on.
    pub(super) fn zero(&mut self, parts: &[(usize, (u64, u64))], looks: &mut [&mut Look]) {
        let tag = self.new_tag(true, 0);
        self.may_hold(parts, tag, looks);
        self.enter(parts, tag);
    }

    /// The range may hold zeros or anything that was ever written there: what is in the cache is dropped.
    pub(super) fn lose(&mut self, parts: &[(usize, (u64, u64))], looks: &mut [&mut Look]) {
        for (object, range) in parts {
            self.objects[*object].each(*range, |cell| {
                cell.now = cell.ever.clone();
                cell.now.push(ZEROS);
            });
            let runs: Vec<(u64, u64, Vec<Tag>)> = self.objects[*object]
                .runs(*range)
                .into_iter()
                .map(|(start, end, cell)| (start, end, cell.now.clone()))
                .collect();
            for look in looks.iter_mut() {
                for (start, end, tags) in &runs {
                    look.each(*object, (*start, *end), |cell| cell.now.extend(tags));
                }
            }
        }
    }

    /// The range holds zeros, whatever was under way before.
    pub(super) fn settle_zero(&mut self, parts: &[(usize, (u64, u64))]) {
        for (object, range) in parts {
            self.objects[*object].each(*range, |cell| cell.now = vec![ZEROS]);
        }
    }

    /// Begins to look at ranges.
    pub(super) fn look(&self, parts: &[(usize, (u64, u64))]) -> Look {
        let parts = parts
            .iter()
            .map(|(object, range)| {
                let mut cells = Cells(BTreeMap::new());
                for (start, _, cell) in self.objects[*object].runs(*range) {
                    cells.0.insert(start, cell.clone());
                }
                (*object, *range, cells)
            })
            .collect();
        Look { parts }
    }

    /// Ends a look: `found` tells what byte it found where. Long runs are checked here and there.
    pub(super) fn check(&self, look: &Look, mut found: impl FnMut(usize, usize, u64) -> u8) {
        for (nth, (object, range, cells)) in look.parts.iter().enumerate() {
            for (start, end, cell) in cells.runs(*range) {
                let stride = if end - start > 2048 { 61 } else { 1 };
                let mut at = start;
                while at < end {
                    let byte = found(nth, *object, at);
                    let is_known = cell
                        .now
                        .iter()
                        .any(|tag| self.byte(*tag, *object, at) == byte);
                    let guess = || {
                        (0..self.records.len())
                            .map(Tag)
                            .find(|tag| self.byte(*tag, *object, at) == byte)
                    };
                    assert!(
                        is_known,
                        "object {object} holds {byte} at {at}, perhaps of {:?}, but none of {:?}",
                        guess(),
                        cell.now
                    );
                    at = if at + 1 < end {
                        (at + stride).min(end - 1)
                    } else {
                        end
                    };
                }
            }
        }
    }

    /// Whether all that a look sees may be zeros.
    pub(super) fn may_be_zeros(&self, look: &Look) -> bool {
        look.parts.iter().all(|(_, range, cells)| {
            cells
                .runs(*range)
                .iter()
                .all(|(_, _, cell)| cell.now.iter().any(|tag| self.records[tag.0].is_zeros))
        })
    }

    /// A new snapshot context begins.
    pub(super) fn begin_context(&mut self) {
        self.contexts.push(self.step);
    }

    /// Whether a write may have put this byte here so that it goes to the store under this context: its own, or
    /// one that began before the write had entered.
    pub(super) fn may_go_under(&self, context: u64, object: usize, (at, byte): (u64, u8)) -> bool {
        let began = self.contexts[context as usize];
        let runs = self.objects[object].runs((at, at + 1));
        runs.iter().any(|(_, _, cell)| {
            let mut writes = cell
                .ever
                .iter()
                .filter(|tag| self.byte(**tag, object, at) == byte)
                .map(|tag| self.records[tag.0]);
            writes.any(|write| {
                let is_late = write.entered.is_none_or(|entered| entered >= began);
                write.context == context || (write.context < context && is_late)
            })
        })
    }
}

impl Look {
    fn each(&mut self, object: usize, range: (u64, u64), mut change: impl FnMut(&mut Cell)) {
        for (own, (start, end), cells) in &mut self.parts {
            let common = (range.0.max(*start), range.1.min(*end));
            if *own == object && common.0 < common.1 {
                cells.each(common, &mut change);
            }
        }
    }
}

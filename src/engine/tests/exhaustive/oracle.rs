//! What callers were promised, byte by byte: which writes each byte may hold now, who waits for what, and which bytes
//! must be in the store.
//!
//! Every write has a tag. A set of tags is a bit mask. A byte either holds one of its `held` tags, or, where the cache
//! holds none of the callers' bytes, what the store shows; and besides any write that is asked and not yet answered.

use std::collections::BTreeMap;

use super::looks::{Deletes, DropLook, FlushLook, ReadLook, Sight, View};
use crate::engine::WaiterId;

/// The length of the object under test.
pub(super) const LEN: usize = 12;
/// From one byte of the object to another.
pub(super) type Part = (usize, usize);
/// For each byte a set of tags.
pub(super) type Cells = [u16; LEN];

/// Zeros, as in holes and in objects that don't exist.
pub(super) const ZEROS: usize = 0;
/// What the store, or the object's parent, held in the beginning.
pub(super) const INITIAL: usize = 1;
/// There are fewer writes than this.
pub(super) const TAGS: usize = 16;

pub(super) const fn bit(tag: usize) -> u16 {
    1 << tag
}

/// What a byte looks like that a write put there: no two writes and no two places have one in common.
pub(super) fn byte(tag: usize, at: usize) -> u8 {
    if tag == ZEROS {
        0
    } else {
        (tag * 16 + at) as u8
    }
}

/// Which write put this byte here.
pub(super) fn tag_of(byte: u8, at: usize) -> usize {
    let (tag, place) = (byte as usize / 16, byte as usize % 16);
    assert!(
        byte == 0 || (place == at && tag != ZEROS),
        "byte {byte} at {at} was written at {place}"
    );
    tag
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    pub(super) tags: usize,
    pub(super) acknowledged: u16,
    /// By write: what was acknowledged when it was asked, which is all that it must not give way to.
    pub(super) before: [u16; TAGS],
    pub(super) parts: [Part; TAGS],
    pub(super) contexts: [u64; TAGS],
    /// What was acknowledged and not dropped.
    pub(super) held: Cells,
    /// What was asked and is not answered.
    pub(super) asked: Cells,
    /// Writes whose bytes were dropped at these places while they were unanswered.
    pub(super) cut: Cells,
    /// What may be there as well, where nothing is held.
    pub(super) stale: Cells,
    pub(super) may_seem_absent: bool,
    /// What must not land any more: it was dropped, and the caller was told.
    pub(super) walled: Cells,
    /// Writes that are not acknowledged before the store has them.
    pub(super) through: u16,
    /// What a flush has told to be replaced in the store: a crash at any moment must not find it there again.
    pub(super) flushed: Cells,
    /// By journal entry, which has the number of its write: the places that it still holds.
    pub(super) journal: BTreeMap<usize, u16>,
    pub(super) writes: BTreeMap<WaiterId, usize>,
    pub(super) reads: BTreeMap<WaiterId, ReadLook>,
    pub(super) flushes: BTreeMap<WaiterId, FlushLook>,
    pub(super) drops: BTreeMap<WaiterId, DropLook>,
}

impl Oracle {
    pub(super) fn new() -> Self {
        Self {
            tags: INITIAL + 1,
            acknowledged: bit(ZEROS) | bit(INITIAL),
            before: [0; TAGS],
            parts: [(0, LEN); TAGS],
            contexts: [0; TAGS],
            held: [0; LEN],
            asked: [0; LEN],
            cut: [0; LEN],
            stale: [0; LEN],
            may_seem_absent: false,
            walled: [0; LEN],
            through: 0,
            flushed: [0; LEN],
            journal: BTreeMap::new(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            flushes: BTreeMap::new(),
            drops: BTreeMap::new(),
        }
    }

    fn sight(&self, view: View) -> Sight {
        let mut allowed = self.asked;
        for (at, allowed) in allowed.iter_mut().enumerate() {
            *allowed |= match self.held[at] {
                0 => view.cells[at] | self.stale[at],
                held => held,
            };
        }
        // Who truncates will cut the store's object there once he is answered.
        let tails = self
            .drops
            .values()
            .filter(|look| look.deletes == Deletes::Tail);
        for look in tails {
            for allowed in &mut allowed[look.part.0..look.part.1] {
                *allowed |= bit(ZEROS);
            }
        }
        let nothing_held = self.held == [0; LEN];
        Sight {
            allowed,
            may_be_absent: (view.is_absent && nothing_held) || self.may_seem_absent,
            must_be_absent: view.is_absent
                && view.is_settled
                && nothing_held
                && self.asked == [0; LEN],
        }
    }

    /// Something has changed: those who read now may see it.
    pub(super) fn note(&mut self, view: View) {
        let sight = self.sight(view);
        for look in self.reads.values_mut() {
            look.note(&sight);
        }
    }

    /// Whether anybody waits who wants to know what may be seen.
    pub(super) fn is_watched(&self) -> bool {
        !self.reads.is_empty()
    }

    /// A write is asked; its tag.
    pub(super) fn ask_write(
        &mut self,
        waiter: Option<WaiterId>,
        part: Part,
        context: u64,
    ) -> usize {
        let tag = self.tags;
        self.tags += 1;
        self.before[tag] = self.acknowledged;
        self.parts[tag] = part;
        self.contexts[tag] = context;
        for at in part.0..part.1 {
            self.asked[at] |= bit(tag);
        }
        if let Some(waiter) = waiter {
            self.writes.insert(waiter, tag);
        }
        tag
    }

    pub(super) fn next_tag(&self) -> usize {
        self.tags
    }

    pub(super) fn note_journaled(&mut self, tag: usize) {
        let (start, end) = self.parts[tag];
        let places = (start..end).fold(0, |places, at| places | bit(at));
        self.journal.insert(tag, places);
    }

    /// A write is acknowledged: what was there when it was asked is gone.
    pub(super) fn enter(&mut self, tag: usize) {
        let (start, end) = self.parts[tag];
        for at in start..end {
            self.asked[at] &= !bit(tag);
            if self.cut[at] & bit(tag) != 0 {
                self.stale[at] |= bit(tag);
                if self.held[at] != 0 {
                    self.held[at] |= bit(tag);
                }
            } else {
                self.held[at] = (self.held[at] & !self.before[tag]) | bit(tag);
                self.stale[at] = 0;
            }
        }
        self.acknowledged |= bit(tag);
    }

    /// A write's caller is gone before it entered.
    pub(super) fn give_up_write(&mut self, waiter: WaiterId) {
        let tag = self.writes.remove(&waiter).expect("the write waits");
        for asked in &mut self.asked {
            *asked &= !bit(tag);
        }
        self.journal.remove(&tag);
    }

    pub(super) fn ask_read(&mut self, waiter: WaiterId, part: Part, deliver: bool) {
        let look = ReadLook {
            part,
            deliver,
            seen: Vec::new(),
            may_be_absent: false,
            must_be_absent: true,
        };
        self.reads.insert(waiter, look);
    }

    /// Nobody who asked for the same before has been left waiting.
    pub(super) fn check_order(&self, part: Part, asked: WaiterId) {
        let mut earlier = self.reads.range(..asked);
        let earlier = earlier.find(|(_, known)| known.part == part);
        assert!(
            earlier.is_none(),
            "a read of {part:?} is answered before {earlier:?}"
        );
    }

    pub(super) fn give_up_read(&mut self, waiter: WaiterId) {
        self.reads.remove(&waiter);
    }

    pub(super) fn first_read(&self) -> Option<WaiterId> {
        self.reads.keys().next().copied()
    }

    pub(super) fn ask_flush(&mut self, waiter: WaiterId, part: Part, was_clean: bool) {
        let mut promised = [0; LEN];
        promised[part.0..part.1].copy_from_slice(&self.held[part.0..part.1]);
        let look = FlushLook {
            promised,
            was_clean,
            was_cut: false,
            asked: self
                .asked
                .iter()
                .fold(self.acknowledged, |all, asked| all | asked),
        };
        self.flushes.insert(waiter, look);
    }

    /// Bytes are dropped from the cache: from now on what the store has is seen.
    pub(super) fn drop_part(&mut self, part: Part) {
        let unanswered = self.asked;
        for (at, unanswered) in unanswered.iter().enumerate().take(part.1).skip(part.0) {
            self.held[at] = 0;
            self.cut[at] |= unanswered;
            for flush in self.flushes.values_mut() {
                flush.was_cut |= flush.promised[at] != 0;
                flush.promised[at] = 0;
            }
        }
    }

    pub(super) fn ask_drop(&mut self, waiter: WaiterId, part: Part, deletes: Deletes) {
        self.drop_part(part);
        let look = DropLook {
            part,
            deletes,
            acknowledged: self.acknowledged & !(bit(ZEROS) | bit(INITIAL)),
        };
        self.drops.insert(waiter, look);
    }

    /// A discard is answered: nothing that was acknowledged before it was asked lands any more.
    pub(super) fn end_drop(&mut self, waiter: WaiterId) -> DropLook {
        let look = self.drops.remove(&waiter).expect("the discard waits");
        for at in look.part.0..look.part.1 {
            self.walled[at] |= look.acknowledged;
            if look.deletes != Deletes::Nothing {
                self.stale[at] = 0;
                self.flushed[at] = 0;
            }
        }
        look
    }

    /// A write lands in the store over `old`.
    pub(super) fn check_landing(&self, at: usize, old: usize, new: usize) {
        let (start, end) = self.parts[new];
        assert!(
            new > INITIAL && new < self.tags && start <= at && at < end,
            "the store gets a byte at {at} that nobody wrote there"
        );
        assert!(
            self.before[old] & bit(new) == 0,
            "the store goes back from write {old} to write {new} at {at}"
        );
        assert!(
            self.walled[at] & bit(new) == 0,
            "write {new} comes back at {at} after it was discarded"
        );
    }

    /// A write that was given up long ago lands after all.
    pub(super) fn note_late_landing(&mut self, at: usize, old: usize) {
        self.stale[at] |= bit(old);
        self.may_seem_absent = true;
    }

    /// Whether bytes of this write may go to the store under this context.
    pub(super) fn check_context(&self, tag: usize, context: u64) {
        let own = self.contexts[tag];
        assert!(
            own <= context,
            "write {tag} of context {own} goes under context {context}"
        );
    }

    pub(super) fn end_read(&mut self, waiter: WaiterId, found: Option<&[u8]>) {
        let look = self.reads.remove(&waiter).expect("the read waits");
        self.check_order(look.part, waiter);
        let Some(found) = found else {
            assert!(look.may_be_absent, "the object was said not to exist");
            return;
        };
        let wanted = if look.deliver {
            look.part.1 - look.part.0
        } else {
            0
        };
        assert_eq!(found.len(), wanted, "a read of the wrong length");
        let tags: Vec<u16> = found
            .iter()
            .enumerate()
            .map(|(at, byte)| bit(tag_of(*byte, look.part.0 + at)))
            .collect();
        let is_seen = |seen: &Cells| {
            let allowed = &seen[look.part.0..look.part.1];
            tags.iter()
                .zip(allowed)
                .all(|(tag, allowed)| tag & allowed != 0)
        };
        assert!(
            look.seen.iter().any(is_seen),
            "a read of {:?} found {found:?} where it may see only {:?}",
            look.part,
            look.seen
        );
    }

    /// Whether the object did not exist all the while that the read waited.
    pub(super) fn must_be_absent(&self, waiter: WaiterId) -> bool {
        self.reads[&waiter].must_be_absent
    }

    /// Whether a read may be told now that there is no object.
    pub(super) fn may_be_absent(&self, view: View) -> bool {
        self.sight(view).may_be_absent
    }

    /// What is read at once, without a wait.
    pub(super) fn check_now(&self, part: Part, found: &[u8], view: View) {
        let sight = self.sight(view);
        for (at, byte) in found.iter().enumerate() {
            let at = part.0 + at;
            assert!(
                bit(tag_of(*byte, at)) & sight.allowed[at] != 0,
                "{byte} was read at {at} where only {:b} may be",
                sight.allowed[at]
            );
        }
    }

    /// A flush is answered: what it promised is in the store, or newer bytes are.
    pub(super) fn end_flush(
        &mut self,
        waiter: WaiterId,
        stored: &[usize; LEN],
        flushed: Option<bool>,
    ) {
        let look = self.flushes.remove(&waiter).expect("the flush waits");
        let Some(already_clean) = flushed else {
            return;
        };
        assert!(
            already_clean || !look.was_clean,
            "a flush of nothing says that there was something"
        );
        for (at, promised) in look.promised.iter().enumerate() {
            for tag in (0..self.tags).filter(|tag| promised & bit(*tag) != 0) {
                self.must_be_stored(tag, at, stored);
            }
        }
    }

    /// A write is acknowledged; if it was written through, the store has it.
    pub(super) fn end_through(&mut self, tag: usize, stored: &[usize; LEN]) {
        let (start, end) = self.parts[tag];
        for at in start..end {
            if self.through & bit(tag) != 0 && self.cut[at] & bit(tag) == 0 {
                self.must_be_stored(tag, at, stored);
            }
        }
    }

    fn must_be_stored(&mut self, tag: usize, at: usize, stored: &[usize; LEN]) {
        assert!(
            self.before[tag] & bit(stored[at]) == 0,
            "write {tag} is not in the store at {at} after a flush, but {}",
            stored[at]
        );
        self.flushed[at] |= self.before[tag];
    }

    /// The process ends here: what the store holds is all that is left.
    pub(super) fn check_crash(&self, stored: &[usize; LEN]) {
        for (at, (flushed, stored)) in self.flushed.iter().zip(stored).enumerate() {
            assert!(
                flushed & bit(*stored) == 0,
                "a crash finds write {stored} at {at}, though a later one was flushed"
            );
        }
    }

    /// A journal entry has its bytes in the store.
    pub(super) fn commit(&mut self, tag: usize, part: Part, stored: &[usize; LEN]) {
        for (at, stored) in stored.iter().enumerate().take(part.1).skip(part.0) {
            assert!(
                self.before[tag] & bit(*stored) == 0,
                "entry {tag} is retired at {at}, but {stored} is in the store"
            );
        }
        self.retire(tag, part);
    }

    pub(super) fn retire(&mut self, tag: usize, part: Part) {
        let places = self.journal.get_mut(&tag).expect("an entry that is open");
        for at in part.0..part.1 {
            assert!(*places & bit(at) != 0, "entry {tag} ends twice at {at}");
            *places &= !bit(at);
        }
    }

    /// All is over: nobody waits, and all that is held is in the store.
    pub(super) fn check_end(&self, stored: &[usize; LEN]) {
        assert!(
            self.reads.is_empty()
                && self.writes.is_empty()
                && self.flushes.is_empty()
                && self.drops.is_empty(),
            "some wait for ever: {:?} {:?} {:?} {:?}",
            self.reads.keys(),
            self.writes.keys(),
            self.flushes.keys(),
            self.drops.keys()
        );
        for (at, held) in self.held.iter().enumerate() {
            assert!(
                *held == 0 || held & bit(stored[at]) != 0,
                "the store ends with write {} at {at}, and not with one of {held:b}",
                stored[at]
            );
        }
        for (tag, places) in &self.journal {
            assert_eq!(*places, 0, "entry {tag} is never retired");
        }
    }
}

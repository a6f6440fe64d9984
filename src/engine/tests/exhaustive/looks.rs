//! Who waits for what, and what each of them has been promised since he asked.

use super::oracle::{Cells, LEN, Part};

/// The state of all bytes at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) allowed: Cells,
    pub(super) may_be_absent: bool,
    pub(super) must_be_absent: bool,
}

/// What the store shows to who asks it now.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) cells: Cells,
    pub(super) is_absent: bool,
    /// Nothing is on its way there.
    pub(super) is_settled: bool,
}

/// A read that waits.
#[derive(Clone, Debug)]
pub(super) struct ReadLook {
    pub(super) part: Part,
    pub(super) deliver: bool,
    /// All that was to be seen of its bytes since it was asked, without what other moments show as well.
    pub(super) seen: Vec<Cells>,
    pub(super) may_be_absent: bool,
    pub(super) must_be_absent: bool,
}

impl ReadLook {
    /// Notes what is to be seen now.
    pub(super) fn note(&mut self, sight: &Sight) {
        self.may_be_absent |= sight.may_be_absent;
        self.must_be_absent &= sight.must_be_absent;
        let mut allowed = [0; LEN];
        let (start, end) = self.part;
        allowed[start..end].copy_from_slice(&sight.allowed[start..end]);
        if self.seen.iter().any(|seen| is_within(&allowed, seen)) {
            return;
        }
        self.seen.retain(|seen| !is_within(seen, &allowed));
        self.seen.push(allowed);
    }
}

fn is_within(inner: &Cells, outer: &Cells) -> bool {
    inner
        .iter()
        .zip(outer)
        .all(|(inner, outer)| inner & !outer == 0)
}

/// A flush that waits.
#[derive(Clone, Debug)]
pub(super) struct FlushLook {
    /// What was acknowledged when it was asked, and not dropped since.
    pub(super) promised: Cells,
    pub(super) was_clean: bool,
    /// Whether some of that was dropped since. What was joined with it by then still counts as old.
    pub(super) was_cut: bool,
    /// All writes that were asked before it.
    pub(super) asked: u16,
}

/// A discard or truncation that waits.
#[derive(Clone, Debug)]
pub(super) struct DropLook {
    pub(super) part: Part,
    pub(super) deletes: Deletes,
    pub(super) acknowledged: u16,
}

/// What the caller does in the store when its discard is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deletes {
    Nothing,
    Range,
    Tail,
}

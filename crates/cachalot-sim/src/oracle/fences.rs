//! Which sets another client has taken over, and who knows.

use cachalot::ObjectName;
use cachalot::backend::{Operation, OperationKind};

use super::Oracle;

/// How a set stands with the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fence {
    /// The store refuses its writes, and perhaps its reads.
    refuses: Option<bool>,
    /// It was refused since it was opened, or may have been.
    pub(crate) is_possible: bool,
    /// It was refused at some time.
    pub(crate) was_possible: bool,
    /// A caller was told.
    pub(crate) is_told: bool,
}

impl Oracle {
    /// Another client takes over.
    pub(crate) fn fence(&mut self, set: usize, reads: bool) {
        self.fences[set] = Fence {
            refuses: Some(reads),
            is_possible: true,
            was_possible: true,
            ..self.fences[set]
        };
    }

    /// The store takes what comes from the set again, if it comes from somebody who has just opened it.
    pub(crate) fn lift(&mut self, set: usize) {
        self.fences[set].refuses = None;
    }

    /// The set is being closed or given up, or was: what callers were told who asked before says nothing of it.
    pub(crate) fn renew(&mut self, set: usize) {
        self.generation += 1;
        let fence = &mut self.fences[set];
        fence.is_told = false;
        fence.is_possible = fence.refuses.is_some();
    }

    /// A caller who asked in this generation was told that the set is fenced. Says whether that can be.
    pub(crate) fn told(&mut self, set: usize, generation: u64) -> bool {
        if generation == self.generation {
            self.fences[set].is_told = true;
        }
        self.fences[set].was_possible
    }

    /// Whether the store refuses an operation.
    pub(crate) fn refuses(&self, operation: &Operation) -> bool {
        let set = operation.object().and_then(|object| self.set_of(object));
        match set.and_then(|set| self.fences[set].refuses) {
            None => false,
            Some(reads) => match operation.kind() {
                OperationKind::Write => true,
                OperationKind::Read => reads,
                _ => false,
            },
        }
    }

    /// Whether a limit may be passed by what fenced sets hold.
    pub(crate) fn is_any_fenced(&self) -> bool {
        self.fences.iter().any(|fence| fence.is_possible)
    }

    fn set_of(&self, object: &ObjectName) -> Option<usize> {
        self.objects.get(object).map(|(set, _)| *set)
    }

    /// The number of a set by its name.
    pub(crate) fn set_named(&self, name: &str) -> Option<usize> {
        self.sets.iter().position(|set| set.space().name == name)
    }

    /// The set is given up: its journal entries stay, for somebody to replay.
    pub(crate) fn keep_journal(&mut self, set: usize) {
        self.journal.retain(|_, entry| entry.set != set);
    }
}

//! What a set does once another client has taken over (H-41): it sends nothing any more, and nobody waits for what
//! can't happen. What is unsaved stays as it is until it is dropped.

use super::action::{Action, Reply, WaiterId};
use super::set::SetEngine;
use super::shelf::Shelf;
use super::window::Charge;
use crate::error::{BackendError, CacheError};
use crate::types::Moment;

impl<S: Shelf> SetEngine<S> {
    /// Whether another client has taken over.
    pub(crate) const fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// What callers are told whose writes can't be stored.
    pub(super) fn fenced_error(&self) -> CacheError {
        CacheError::Fenced {
            set: self.options.id.clone(),
            unsaved_bytes: self.shelf.unsaved_bytes(),
        }
    }

    /// Another client has taken over: flushes and writes that wait are answered, writes give up their place in the
    /// queue for room, and pauses end, since nothing is tried again. Writebacks under way end as they end.
    pub(super) fn fence(&mut self, now: Moment) {
        if std::mem::replace(&mut self.is_fenced, true) {
            return;
        }
        self.last_error = Some(BackendError::Fenced);
        self.demand = None;
        self.urgent.clear();
        let error = self.fenced_error();
        let flushes: Vec<WaiterId> = self.flushes.keys().copied().collect();
        for flush in flushes {
            self.fail_flush(flush, &error);
        }
        let writes: Vec<WaiterId> = self.writes.keys().copied().collect();
        for write in writes {
            self.drop_write(write);
            self.reply(write, Reply::Done(Err(error.clone())));
        }
        self.actions.push_back(Action::ForgoWriteRoom);
        self.pausing.clear();
        let numbers: Vec<usize> = self.objects.iter().map(|(number, _)| number).collect();
        for number in numbers {
            if let Some(object) = self.objects.get_mut(number) {
                object.retry = None;
            }
            self.wake_paused_reads(now, number);
        }
    }

    /// What a fenced set holds unsaved, with all that its windows cost: it can neither be stored nor evicted. Nothing
    /// unless the set is fenced.
    pub(crate) fn stranded(&self) -> Charge {
        let mut stranded = Charge::default();
        if self.is_fenced {
            for (_, entry) in &self.windows {
                let charge = S::lock(&entry.slot).settled().charge;
                if charge.dirty > 0 || charge.dirty_buffers > 0 {
                    stranded += charge;
                }
            }
        }
        stranded
    }
}

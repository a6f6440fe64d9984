//! Sets that another client has taken over: given up, and opened again.

use super::World;
use crate::caller::under_way;

impl World {
    /// Gives a set up if it was fenced: what it holds unsaved is lost, and it is opened again as a client that the store
    /// knows. Only one may do this to a set at a time.
    pub(crate) async fn give_up(&self, set: usize) -> String {
        let handle = self.slots.borrow()[set].handle.clone();
        let is_fenced = handle.status().await.is_ok_and(|status| status.is_fenced);
        if !is_fenced {
            return "it is not fenced".to_owned();
        }
        let under_way = under_way(self, set);
        let (start, dropping) = {
            let mut oracle = self.oracle();
            let start = oracle.tick();
            oracle.renew(set);
            (start, oracle.sets[set].begin_purge(start, under_way))
        };
        let answer = handle.abandon().await;
        for (name, _) in self.plan.sets[set].space.objects() {
            self.outer.forget(&name);
        }
        {
            let mut oracle = self.oracle();
            let end = oracle.tick();
            let is_atomic = self.plan.capabilities.atomic_writes;
            oracle.sets[set].end_purge(dropping, (start, end), (&[], is_atomic));
            oracle.lift(set);
            oracle.keep_journal(set);
            oracle.renew(set);
        }
        self.reopen(set).await;
        match answer {
            Ok(lost) => format!("{} bytes were given up", lost.dirty_bytes),
            Err(error) => {
                self.fail(format!("giving up a fenced set: {error}"));
                error.to_string()
            }
        }
    }

    /// Gives up the sets that are fenced, as far as nobody else is at it.
    pub(crate) async fn give_up_fenced(&self) {
        for set in 0..self.plan.sets.len() {
            if !std::mem::replace(&mut self.slots.borrow_mut()[set].is_busy, true) {
                let outcome = self.give_up(set).await;
                self.oracle()
                    .note(|| format!("giving up set {set}: {outcome}"));
                self.slots.borrow_mut()[set].is_busy = false;
            }
        }
    }
}

//! How a volume takes writes, switched while it is served.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::ctl::protocol::Mode;

/// The mode, and the changes that are under way.
///
/// Whoever changes something enters first, and looks at the mode then; whoever switches sets the mode first, and looks
/// at the changes then. So a change either sees the new mode, or is seen by the switch. That holds in one order of all
/// these steps, hence the strongest ordering.
#[derive(Debug)]
pub(super) struct ModeSwitch {
    mode: AtomicU8,
    changes: AtomicUsize,
    ended: Notify,
}

/// A change that is under way.
pub(super) struct Change<'a>(&'a ModeSwitch);

impl ModeSwitch {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode: AtomicU8::new(mode as u8),
            changes: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    pub(super) fn now(&self) -> Mode {
        let mode = self.mode.load(Ordering::SeqCst);
        let all = [Mode::Writeback, Mode::Writethrough];
        let known = all.into_iter().find(|known| *known as u8 == mode);
        known.unwrap_or(Mode::ReadOnly)
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    /// Something is about to be changed; `None` where that is refused.
    pub(super) fn enter(&self) -> Option<Change<'_>> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let change = Change(self);
        (self.now() != Mode::ReadOnly).then_some(change)
    }

    /// How many changes are under way.
    pub(super) fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Waits until no change is under way, while they are refused. Returns whether they still are.
    pub(super) async fn settled(&self) -> bool {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.now() != Mode::ReadOnly {
                return false;
            }
            if self.changes() == 0 {
                return true;
            }
            ended.await;
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if self.0.changes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn read_only_waits_for_the_changes_that_came_before_and_refuses_those_after() {
        let switch = ModeSwitch::new(Mode::Writeback);
        let before = switch.enter().unwrap();
        switch.set(Mode::ReadOnly);
        assert!(switch.enter().is_none());
        let mut settled = Box::pin(switch.settled());
        assert!(settled.as_mut().now_or_never().is_none());
        drop(before);
        assert!(settled.await);
    }

    #[tokio::test]
    async fn a_switch_that_is_taken_back_waits_no_longer() {
        let switch = ModeSwitch::new(Mode::Writeback);
        let _before = switch.enter().unwrap();
        switch.set(Mode::ReadOnly);
        let mut settled = Box::pin(switch.settled());
        assert!(settled.as_mut().now_or_never().is_none());
        switch.set(Mode::Writethrough);
        assert!(!settled.await);
        assert!(switch.enter().is_some());
    }
}

//! A bell: whoever has work for an actor rings it, and only the first to ring sends a message.

use super::sync::atomic::{AtomicBool, Ordering};

/// Whether an actor has been woken and has not looked since.
#[derive(Debug, Default)]
pub(super) struct Bell(AtomicBool);

impl Bell {
    /// Rings. Returns whether the caller has to wake the actor, who otherwise is about to look anyway.
    ///
    /// What there is to see must be there to see before.
    pub(super) fn ring(&self) -> bool {
        // Release: see `answer`.
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The actor looks now, at what it reads after this: whoever finds work later wakes it again.
    pub(super) fn answer(&self) {
        // Acquire, and a swap for the sake of it: one who still found the bell ringing is seen by what is looked at
        // after this.
        self.0.swap(false, Ordering::AcqRel);
    }

    /// Whether it rings: then somebody has woken the actor, or is about to.
    #[cfg(all(test, any(model = "shuttle", model = "loom")))]
    pub(super) fn is_ringing(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

//! Whether a set takes requests: one number, which every write through the door reads.

use super::sync::atomic::{AtomicU8, Ordering};
use crate::error::CacheError;
use crate::types::SetId;

/// Whether a set takes requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetState {
    Open,
    /// It takes everything, and every write is answered by the store until a caller first flushes (H-36).
    Through,
    /// Another client has taken over: it takes no writes (H-41).
    Fenced,
    Closing,
    Closed,
    Failed,
}

const STATES: [SetState; 6] = [
    SetState::Open,
    SetState::Through,
    SetState::Fenced,
    SetState::Closing,
    SetState::Closed,
    SetState::Failed,
];

impl SetState {
    /// Whether the set's actor is there to answer.
    pub(crate) const fn is_live(self) -> bool {
        match self {
            Self::Open | Self::Through | Self::Fenced | Self::Closing => true,
            Self::Closed | Self::Failed => false,
        }
    }

    /// Whether it takes requests; of writes, an open set may take none.
    pub(crate) const fn is_open(self) -> bool {
        match self {
            Self::Open | Self::Through | Self::Fenced => true,
            Self::Closing | Self::Closed | Self::Failed => false,
        }
    }

    /// What a caller is told whose request the set no longer takes.
    pub(crate) const fn refusal(self, set: SetId) -> CacheError {
        match self {
            Self::Open | Self::Through | Self::Fenced | Self::Failed => {
                CacheError::SetFailed { set }
            }
            Self::Closing | Self::Closed => CacheError::Closed { set },
        }
    }
}

/// Where a set's state is kept. Its actor alone changes it.
#[derive(Debug)]
pub(super) struct StateCell(AtomicU8);

impl StateCell {
    pub(super) fn new(state: SetState) -> Self {
        Self(AtomicU8::new(state as u8))
    }

    pub(super) fn get(&self) -> SetState {
        let state = usize::from(self.0.load(Ordering::SeqCst));
        STATES.get(state).copied().unwrap_or(SetState::Failed)
    }

    pub(super) fn set(&self, state: SetState) {
        // SeqCst: a write through the door is acknowledged only if its thread, having listed the window, still
        // finds the set open; closing stores first and then takes the list. One of the two sees the other.
        self.0.store(state as u8, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_kept_as_it_is() {
        for state in STATES {
            let cell = StateCell::new(SetState::Open);
            cell.set(state);
            assert_eq!(cell.get(), state);
        }
    }
}

//! What a fenced set holds unsaved, as callers and the ledger see it (H-41).

use super::shared::SetShared;
use crate::engine::{BufferState, Charge};
use crate::error::CacheError;

impl SetShared {
    /// The bytes that are dirty or in flight to the store.
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        let totals = self.books.totals();
        let unsaved = totals.bytes_in(BufferState::Dirty) + totals.bytes_in(BufferState::Tx);
        u64::try_from(unsaved).unwrap_or_default()
    }

    /// What a caller is told whose write comes after another client has taken over.
    pub(crate) fn fenced(&self) -> CacheError {
        CacheError::Fenced {
            set: self.id.clone(),
            unsaved_bytes: self.unsaved_bytes(),
        }
    }

    /// Tells the ledger what the set holds that it can neither store nor evict.
    pub(crate) fn set_stranded(&self, stranded: Charge) {
        let mut told = self.stranded.lock();
        if *told != stranded {
            let mut change = stranded;
            change -= *told;
            *told = stranded;
            self.common.ledger.strand(change);
        }
    }

    /// Something is about to be given back: of what is stranded, perhaps. The ledger hears of that first, so that the
    /// others never take it twice; what it was told too much is told again in the end of the turn.
    pub(super) fn give_stranded(&self, charge: Charge) {
        let stranded = *self.stranded.lock();
        if stranded != Charge::default() {
            self.set_stranded(Charge {
                room: (stranded.room - charge.room).max(0),
                dirty: (stranded.dirty - charge.dirty).max(0),
                dirty_buffers: (stranded.dirty_buffers - charge.dirty_buffers).max(0),
            });
        }
    }
}

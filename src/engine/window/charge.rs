//! What a window holds and costs, as numbers that add up.

use std::ops::{AddAssign, SubAssign};

use serde::{Deserialize, Serialize};

use crate::engine::extent::BufferState;

/// Bytes and buffers in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes, by [`BufferState`].
    pub bytes: [i64; 6],
    /// Buffers, by [`BufferState`].
    pub buffers: [i64; 6],
}

impl Totals {
    /// The bytes in a state.
    #[must_use]
    pub const fn bytes_in(&self, state: BufferState) -> i64 {
        let [clean, zero, dirty, rx, tx, error] = self.bytes;
        match state {
            BufferState::Clean => clean,
            BufferState::Zero => zero,
            BufferState::Dirty => dirty,
            BufferState::Rx => rx,
            BufferState::Tx => tx,
            BufferState::Error => error,
        }
    }

    /// The buffers in a state.
    #[must_use]
    pub const fn buffers_in(&self, state: BufferState) -> i64 {
        let [clean, zero, dirty, rx, tx, error] = self.buffers;
        match state {
            BufferState::Clean => clean,
            BufferState::Zero => zero,
            BufferState::Dirty => dirty,
            BufferState::Rx => rx,
            BufferState::Tx => tx,
            BufferState::Error => error,
        }
    }

    pub(super) fn count(&mut self, state: BufferState, bytes: u32, sign: i64) {
        let index = state as usize;
        if let (Some(sum), Some(number)) = (self.bytes.get_mut(index), self.buffers.get_mut(index))
        {
            *sum += i64::from(bytes) * sign;
            *number += sign;
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.bytes.iter_mut().zip(other.bytes) {
            *sum += more;
        }
        for (sum, more) in self.buffers.iter_mut().zip(other.buffers) {
            *sum += more;
        }
    }
}

impl SubAssign for Totals {
    fn sub_assign(&mut self, other: Self) {
        for (sum, less) in self.bytes.iter_mut().zip(other.bytes) {
            *sum -= less;
        }
        for (sum, less) in self.buffers.iter_mut().zip(other.buffers) {
            *sum -= less;
        }
    }
}

/// What something costs the cache's limits. Signed, so that it can also be a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Charge {
    /// Bytes held, with overhead.
    pub room: i64,
    /// Bytes dirty or in flight to the store.
    pub dirty: i64,
    /// Buffers dirty or in flight to the store.
    pub dirty_buffers: i64,
}

impl AddAssign for Charge {
    fn add_assign(&mut self, other: Self) {
        self.room += other.room;
        self.dirty += other.dirty;
        self.dirty_buffers += other.dirty_buffers;
    }
}

impl SubAssign for Charge {
    fn sub_assign(&mut self, other: Self) {
        self.room -= other.room;
        self.dirty -= other.dirty;
        self.dirty_buffers -= other.dirty_buffers;
    }
}

/// What changed in a window since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settlement {
    pub(crate) charge: Charge,
    pub(crate) totals: Totals,
}

//! Who waits for room, in order (rules W-05, R-14).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::engine::{Charge, WaiterId};

/// Who is told that its claim has been met.
pub(crate) trait Claimant: Send + Sync + fmt::Debug {
    /// The room is reserved. Must not block.
    fn grant(&self, waiter: WaiterId, charge: Charge);
}

/// Somebody's wait for room.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) claimant: Arc<dyn Claimant>,
    pub(crate) waiter: WaiterId,
    pub(crate) charge: Charge,
}

impl Claim {
    pub(super) const fn is_write(&self) -> bool {
        self.charge.dirty > 0
    }
}

/// Claims in the order in which they were made; one is found by who made it, too.
#[derive(Debug, Default)]
pub(super) struct Queues {
    writes: BTreeMap<u64, Claim>,
    fetches: BTreeMap<u64, Claim>,
    /// By claimant, as an address, and waiter: its numbers, which are places in one of the two.
    places: BTreeSet<(usize, WaiterId, u64)>,
    last_place: u64,
    /// What all of them claim.
    pub(super) claimed: Charge,
}

impl Queues {
    pub(super) fn push(&mut self, claim: Claim) {
        self.claimed += claim.charge;
        self.last_place += 1;
        let place = self.last_place;
        self.places
            .insert((address(&claim.claimant), claim.waiter, place));
        if claim.is_write() {
            self.writes.insert(place, claim);
        } else {
            self.fetches.insert(place, claim);
        }
    }

    pub(super) fn first_write(&self) -> Option<&Claim> {
        self.writes.first_key_value().map(|(_, claim)| claim)
    }

    pub(super) fn first_fetch(&self) -> Option<&Claim> {
        self.fetches.first_key_value().map(|(_, claim)| claim)
    }

    pub(super) fn pop_write(&mut self) -> Option<Claim> {
        let place = *self.writes.first_key_value()?.0;
        self.take(place)
    }

    pub(super) fn pop_fetch(&mut self) -> Option<Claim> {
        let place = *self.fetches.first_key_value()?.0;
        self.take(place)
    }

    pub(super) fn writes(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn fetches(&self) -> usize {
        self.fetches.len()
    }

    fn take(&mut self, place: u64) -> Option<Claim> {
        let claim = self.writes.remove(&place);
        let claim = claim.or_else(|| self.fetches.remove(&place))?;
        self.claimed -= claim.charge;
        self.places
            .remove(&(address(&claim.claimant), claim.waiter, place));
        Some(claim)
    }

    /// Takes out the claims of a claimant: all of them or those of one waiter, and of these the ones that go. Returns
    /// whether there were any.
    pub(super) fn forget(
        &mut self,
        claimant: &Arc<dyn Claimant>,
        waiter: Option<WaiterId>,
        goes: impl Fn(&Claim) -> bool,
    ) -> bool {
        let address = address(claimant);
        let (first, last) = waiter.map_or((WaiterId(0), WaiterId(u64::MAX)), |one| (one, one));
        let of_them = (address, first, 0)..=(address, last, u64::MAX);
        let places: Vec<u64> = self.places.range(of_them).map(|(_, _, at)| *at).collect();
        let mut found = false;
        for place in places {
            let claim = self.writes.get(&place);
            if claim
                .or_else(|| self.fetches.get(&place))
                .is_some_and(&goes)
            {
                found |= self.take(place).is_some();
            }
        }
        found
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len() + self.fetches.len()
    }
}

/// Where a claimant lies: as long as it has claims, nobody else does.
fn address(claimant: &Arc<dyn Claimant>) -> usize {
    Arc::as_ptr(claimant).cast::<()>() as usize
}

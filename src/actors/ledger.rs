//! Room for bytes: reserved before data enters, never passed, waited for in order (decision D3, rules W-05, R-14).
//!
//! Three budgets bound what all sets hold together: *room* for everything with its overhead, *dirty* bytes, and dirty
//! *buffers*. Whoever finds no room makes a claim, which waits in one of two queues, first come first served: writes
//! wait for dirty room and room, fetches for room alone. While claims wait, nobody takes room past them. A claim larger
//! than a whole limit is let through alone: once nothing else is held.

use std::sync::Arc;

use super::budget::Budget;
use super::claims::Queues;
pub(crate) use super::claims::{Claim, Claimant};
use super::sync::Mutex;
use super::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use crate::config::Limits;
use crate::engine::{Charge, EXTENT_OVERHEAD_BYTES, WINDOW_BYTES, WaiterId};

/// The dirty limit in buffers is the one in bytes divided by this, so that tiny writes can't fill memory with
/// their overhead.
pub(super) const DIRTY_BUFFER_BYTES: u64 = 1 << 10;
const DIRTY_BUFFERS_MIN: u64 = 256;
/// One part in this many of the room is kept for bookkeeping that can't wait for room, beside [`split_bytes`].
const HEADROOM_PART: u64 = 64;

/// What waits, for the flusher and the trimmer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Waiting {
    /// Claims.
    pub(crate) claims: usize,
    /// Dirty bytes that writes wait for.
    pub(crate) dirty: u64,
    /// Dirty buffers that they wait for.
    pub(crate) dirty_buffers: u64,
    /// Room that all of them wait for.
    pub(crate) room: u64,
    /// Whether the first in a queue is larger than a whole limit, and so goes alone.
    pub(crate) is_oversized: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Ledger {
    room: Budget,
    dirty: Budget,
    dirty_buffers: Budget,
    queues: Mutex<Queues>,
    /// Writes that wait. Read on every take.
    writes_waiting: AtomicUsize,
    fetches_waiting: AtomicUsize,
    /// Whether the first write waits for room, so that fetches must not take it.
    write_wants_room: AtomicUsize,
    objects: AtomicI64,
    objects_max: AtomicU64,
    stranded: Stranded,
    /// The largest write that the store takes.
    write_bytes_max: u64,
}

/// What fenced sets hold unsaved. It can't be made room of until it is given up, and others are to go on meanwhile: it
/// comes on top of the dirty limits, and what is larger than the rest of the room counts as larger than all of it.
#[derive(Debug, Default)]
struct Stranded {
    /// The limits of dirty bytes and buffers without it; held while they are changed.
    limits: Mutex<(u64, u64)>,
    room: AtomicU64,
    dirty: AtomicU64,
    dirty_buffers: AtomicU64,
}

impl Stranded {
    fn parts(&self) -> [u64; 3] {
        // Relaxed: levels, which those who wait are shown anew after each change.
        [&self.room, &self.dirty, &self.dirty_buffers].map(|part| part.load(Ordering::Relaxed))
    }

    fn add(&self, change: Charge) {
        let parts = [
            (&self.room, change.room),
            (&self.dirty, change.dirty),
            (&self.dirty_buffers, change.dirty_buffers),
        ];
        for (part, by) in parts {
            part.store(
                part.load(Ordering::Relaxed).saturating_add_signed(by),
                Ordering::Relaxed,
            );
        }
    }
}

fn amount(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// What entries cost at most that come of splitting buffers into writes that the store takes, when all of the room is
/// full of large ones. Writing back can't wait for room, so it is kept for that.
fn split_bytes(max_bytes: u64, write_bytes_max: u64) -> u64 {
    if write_bytes_max >= WINDOW_BYTES {
        return 0;
    }
    let entry = u128::from(EXTENT_OVERHEAD_BYTES);
    let piece = entry + u128::from(write_bytes_max);
    u64::try_from((u128::from(max_bytes) * entry).div_ceil(piece)).unwrap_or(max_bytes)
}

fn limits_of(limits: &Limits, write_bytes_max: u64) -> (u64, u64, u64) {
    let splits = split_bytes(limits.max_bytes, write_bytes_max);
    let room = limits.max_bytes - splits - (limits.max_bytes - splits) / HEADROOM_PART;
    // A write-through cache holds bytes as dirty just until the store has them, or while it refuses them.
    let dirty = if limits.is_write_through() {
        room / 2
    } else {
        limits.max_dirty_bytes
    };
    (
        room,
        dirty,
        (dirty / DIRTY_BUFFER_BYTES).max(DIRTY_BUFFERS_MIN),
    )
}

impl Ledger {
    /// Budgets for a store that takes so many bytes in a write.
    pub(crate) fn new(limits: &Limits, write_bytes_max: u64) -> Self {
        let (room, dirty, buffers) = limits_of(limits, write_bytes_max);
        Self {
            room: Budget::new(room),
            dirty: Budget::new(dirty),
            dirty_buffers: Budget::new(buffers),
            queues: Mutex::default(),
            writes_waiting: AtomicUsize::new(0),
            fetches_waiting: AtomicUsize::new(0),
            write_wants_room: AtomicUsize::new(0),
            objects: AtomicI64::new(0),
            objects_max: AtomicU64::new(limits.max_objects),
            stranded: Stranded {
                limits: Mutex::new((dirty, buffers)),
                ..Stranded::default()
            },
            write_bytes_max,
        }
    }

    /// Changes the limits at once; waiting claims that now fit are met.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let (room, dirty, buffers) = limits_of(limits, self.write_bytes_max);
        self.room.set_limit(room);
        self.change_dirty_limits(|limits| *limits = (dirty, buffers));
        self.objects_max
            .store(limits.max_objects, Ordering::Relaxed);
        self.serve();
    }

    /// More, or less, is held by fenced sets that can't store it.
    pub(crate) fn strand(&self, change: Charge) {
        self.change_dirty_limits(|_| self.stranded.add(change));
        self.serve();
    }

    fn change_dirty_limits(&self, change: impl FnOnce(&mut (u64, u64))) {
        let mut limits = self.stranded.limits.lock();
        change(&mut limits);
        let [_, stranded, stranded_buffers] = self.stranded.parts();
        let (dirty, buffers) = *limits;
        self.dirty.set_limit(dirty.saturating_add(stranded));
        self.dirty_buffers
            .set_limit(buffers.saturating_add(stranded_buffers));
    }

    /// Whether writes wait for room. Claims that are being made at this moment may be missed.
    pub(crate) fn has_waiting_writes(&self) -> bool {
        // Relaxed: whoever asks may come before them as well.
        self.writes_waiting.load(Ordering::Relaxed) > 0
    }

    /// Reserves room now, unless there is none or others wait for it.
    pub(crate) fn take(&self, charge: Charge) -> bool {
        // Relaxed: claims that are being made at this moment may be passed or not, either order is fair.
        let is_passed_by_none = if charge.dirty > 0 {
            !self.has_waiting_writes()
        } else {
            self.fetches_waiting.load(Ordering::Relaxed) == 0
                && self.write_wants_room.load(Ordering::Relaxed) == 0
        };
        if !is_passed_by_none {
            return false;
        }
        let is_taken = self.try_take(charge);
        if !is_taken {
            // For a moment a part of it was taken: that may be what a claim was refused for meanwhile.
            self.serve_if_any_waits();
        }
        is_taken
    }

    fn try_take(&self, charge: Charge) -> bool {
        let (room, dirty, buffers) = (
            amount(charge.room),
            amount(charge.dirty),
            amount(charge.dirty_buffers),
        );
        if dirty > 0 && !self.dirty.try_take(dirty) {
            return false;
        }
        if buffers > 0 && !self.dirty_buffers.try_take(buffers) {
            self.dirty.give_back(dirty);
            return false;
        }
        if !self.room.try_take(room) {
            self.dirty_buffers.give_back(buffers);
            self.dirty.give_back(dirty);
            return false;
        }
        true
    }

    /// Takes room above the limit, for bookkeeping that can't wait.
    pub(crate) fn force(&self, charge: Charge) {
        for (budget, part) in self.parts(charge) {
            if part > 0 {
                budget.force(part);
            }
        }
    }

    /// Returns room, and meets the claims that now fit.
    pub(crate) fn give(&self, charge: Charge) {
        for (budget, part) in self.parts(charge) {
            if part > 0 {
                budget.give_back(part);
            }
        }
        self.serve_if_any_waits();
    }

    /// Room has come back. The budget sees to it that a claim which was refused before is seen here.
    fn serve_if_any_waits(&self) {
        if self.has_waiting() {
            self.serve();
        }
    }

    fn parts(&self, charge: Charge) -> [(&Budget, u64); 3] {
        [
            (&self.room, amount(charge.room)),
            (&self.dirty, amount(charge.dirty)),
            (&self.dirty_buffers, amount(charge.dirty_buffers)),
        ]
    }

    /// Waits for room, behind those who already do.
    pub(crate) fn claim(&self, claim: Claim) {
        {
            let mut queues = self.queues.lock();
            queues.push(claim);
            self.note_waiting(&queues);
        }
        self.serve();
    }

    fn note_waiting(&self, queues: &Queues) {
        self.writes_waiting
            .store(queues.writes(), Ordering::Release);
        self.fetches_waiting
            .store(queues.fetches(), Ordering::Release);
        if queues.writes() == 0 {
            self.write_wants_room.store(0, Ordering::Release);
        }
    }

    /// Meets the claims that fit, in order.
    fn serve(&self) {
        let mut met = Vec::new();
        {
            let mut queues = self.queues.lock();
            while queues.first_write().is_some_and(|claim| self.meet(claim)) {
                met.extend(queues.pop_write());
            }
            let write_wants_room = queues
                .first_write()
                .is_some_and(|claim| self.lacks_only_room(claim));
            self.write_wants_room
                .store(usize::from(write_wants_room), Ordering::Release);
            while !write_wants_room && queues.first_fetch().is_some_and(|claim| self.meet(claim)) {
                met.extend(queues.pop_fetch());
            }
            self.note_waiting(&queues);
        }
        for claim in met {
            claim.claimant.grant(claim.waiter, claim.charge);
        }
    }

    fn lacks_only_room(&self, claim: &Claim) -> bool {
        self.dirty.room() >= amount(claim.charge.dirty)
            && self.dirty_buffers.room() >= amount(claim.charge.dirty_buffers)
    }

    /// Reserves a claim's room: within the limits, or, when it is larger than a whole limit, alone.
    fn meet(&self, claim: &Claim) -> bool {
        if self.try_take(claim.charge) {
            return true;
        }
        let parts = self.parts(claim.charge).into_iter();
        let mut is_oversized = false;
        let fits = parts
            .zip(self.stranded.parts())
            .all(|((budget, part), stranded)| {
                let limit = budget.limit().saturating_sub(stranded);
                if part <= limit {
                    return part <= budget.room();
                }
                is_oversized = true;
                // What is held beyond this is the bookkeeping of sets that hold no data.
                budget.used().saturating_sub(stranded) <= budget.limit() / HEADROOM_PART
            });
        let is_alone = is_oversized && fits;
        if is_alone {
            self.force(claim.charge);
        }
        is_alone
    }

    /// Forgets the claims of a claimant that is gone.
    pub(crate) fn forget(&self, claimant: &Arc<dyn Claimant>) {
        self.forget_where(claimant, None, |_| true);
    }

    /// Forgets a claimant's claims of writes; those of its fetches wait on.
    pub(crate) fn forget_writes(&self, claimant: &Arc<dyn Claimant>) {
        self.forget_where(claimant, None, Claim::is_write);
    }

    /// Forgets one claim. Returns whether it still waited; if not, its room was or will be granted.
    pub(crate) fn cancel(&self, claimant: &Arc<dyn Claimant>, waiter: WaiterId) -> bool {
        self.forget_where(claimant, Some(waiter), |_| true)
    }

    /// Forgets claims, and meets those that waited behind them. Returns whether there were any.
    fn forget_where(
        &self,
        claimant: &Arc<dyn Claimant>,
        waiter: Option<WaiterId>,
        goes: impl Fn(&Claim) -> bool,
    ) -> bool {
        if !self.has_waiting() {
            return false;
        }
        let found = {
            let mut queues = self.queues.lock();
            let found = queues.forget(claimant, waiter, goes);
            self.note_waiting(&queues);
            found
        };
        if found {
            self.serve();
        }
        found
    }

    /// Whether any claim waits.
    pub(crate) fn has_waiting(&self) -> bool {
        self.writes_waiting.load(Ordering::Acquire) + self.fetches_waiting.load(Ordering::Acquire)
            > 0
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> Waiting {
        let queues = self.queues.lock();
        let [room, dirty, _] = self.stranded.parts();
        let is_oversized = |claim: &Claim| {
            amount(claim.charge.room) > self.room.limit().saturating_sub(room)
                || amount(claim.charge.dirty) > self.dirty.limit().saturating_sub(dirty)
        };
        Waiting {
            is_oversized: queues.first_write().is_some_and(is_oversized)
                || queues.first_fetch().is_some_and(is_oversized),
            claims: queues.len(),
            dirty: amount(queues.claimed.dirty),
            dirty_buffers: amount(queues.claimed.dirty_buffers),
            room: amount(queues.claimed.room),
        }
    }

    /// Bytes held with their overhead, and the limit.
    pub(crate) fn room(&self) -> (u64, u64) {
        (self.room.used(), self.room.limit())
    }

    /// Buffers dirty or in flight to the store, and their target: the same part of their limit that this many bytes
    /// are of the limit in bytes. What is stranded is not counted.
    pub(crate) fn dirty_buffers(&self, target_bytes: u64) -> (u64, u64) {
        let (bytes, buffers) = *self.stranded.limits.lock();
        let [_, _, stranded] = self.stranded.parts();
        let target = u128::from(buffers) * u128::from(target_bytes) / u128::from(bytes.max(1));
        let target = u64::try_from(target).unwrap_or(buffers).min(buffers);
        (self.dirty_buffers.used().saturating_sub(stranded), target)
    }

    /// What is dirty or in flight to the store, and the limit; what is stranded is not counted.
    pub(crate) fn dirty(&self) -> (u64, u64) {
        let [_, stranded, _] = self.stranded.parts();
        let (limit, _) = *self.stranded.limits.lock();
        (self.dirty.used().saturating_sub(stranded), limit)
    }

    /// The dirty bytes and buffers that fenced sets hold and can't store.
    pub(crate) fn stranded_dirty(&self) -> (u64, u64) {
        let [_, dirty, buffers] = self.stranded.parts();
        (dirty, buffers)
    }

    /// What is held in all.
    pub(crate) fn held(&self) -> Charge {
        let signed = |budget: &Budget| i64::try_from(budget.used()).unwrap_or(i64::MAX);
        Charge {
            room: signed(&self.room),
            dirty: signed(&self.dirty),
            dirty_buffers: signed(&self.dirty_buffers),
        }
    }

    pub(crate) fn add_objects(&self, change: i64) {
        self.objects.fetch_add(change, Ordering::Relaxed);
    }

    /// Objects known, and how many there may be.
    pub(crate) fn objects(&self) -> (u64, u64) {
        let objects = amount(self.objects.load(Ordering::Relaxed));
        (objects, self.objects_max.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CacheConfig;
    use bytesize::ByteSize;

    #[derive(Debug, Default)]
    struct Granted(Mutex<Vec<u64>>);

    impl Claimant for Granted {
        fn grant(&self, waiter: WaiterId, _: Charge) {
            self.0.lock().push(waiter.0);
        }
    }

    fn ledger(max_bytes: u64, max_dirty_bytes: u64) -> Ledger {
        let config = CacheConfig {
            max_bytes: ByteSize(max_bytes),
            max_dirty_bytes: ByteSize(max_dirty_bytes),
            target_dirty_bytes: ByteSize(0),
            ..CacheConfig::default()
        };
        Ledger::new(&Limits::try_from(&config).unwrap(), u64::MAX)
    }

    fn write(bytes: i64) -> Charge {
        Charge {
            room: bytes,
            dirty: bytes,
            dirty_buffers: 1,
        }
    }

    fn fetch(bytes: i64) -> Charge {
        Charge {
            room: bytes,
            ..Charge::default()
        }
    }

    fn claim(claimant: &Arc<Granted>, number: u64, charge: Charge) -> Claim {
        Claim {
            claimant: claimant.clone(),
            waiter: WaiterId(number),
            charge,
        }
    }

    /// W-05, H-26
    #[test]
    fn writers_that_wait_are_met_in_order_and_not_passed() {
        let (ledger, granted) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        assert!(ledger.take(write(900)));
        ledger.claim(claim(&granted, 1, write(500)));
        ledger.claim(claim(&granted, 2, write(50)));
        assert!(
            !ledger.take(write(10)),
            "a small write passes those who wait"
        );
        assert!(ledger.take(fetch(10)), "a fetch waits for dirty room");
        ledger.give(write(400));
        assert_eq!(*granted.0.lock(), [1]);
        ledger.give(write(500));
        assert_eq!(*granted.0.lock(), [1, 2]);
        assert!(ledger.take(write(10)));
        assert_eq!(ledger.held().dirty, 560);
    }

    /// W-05, H-24
    #[test]
    fn a_write_larger_than_the_limit_goes_alone() {
        let (ledger, granted) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        assert!(ledger.take(write(100)));
        ledger.claim(claim(&granted, 1, write(5000)));
        assert!(granted.0.lock().is_empty());
        ledger.give(write(100));
        assert_eq!(*granted.0.lock(), [1]);
        ledger.claim(claim(&granted, 2, write(1)));
        assert_eq!(*granted.0.lock(), [1]);
        ledger.give(write(5000));
        assert_eq!(*granted.0.lock(), [1, 2]);
    }

    /// R-14, H-25
    #[test]
    fn fetches_wait_in_order_for_room() {
        let (ledger, granted) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        let (_, limit) = ledger.room();
        let all = i64::try_from(limit).unwrap();
        assert!(ledger.take(fetch(all)));
        ledger.claim(claim(&granted, 1, fetch(2 * all)));
        ledger.claim(claim(&granted, 2, fetch(1)));
        ledger.give(fetch(all / 2));
        assert!(granted.0.lock().is_empty());
        ledger.give(fetch(all - all / 2));
        assert_eq!(*granted.0.lock(), [1]);
        ledger.give(fetch(2 * all));
        assert_eq!(*granted.0.lock(), [1, 2]);
    }

    /// H-26, H-35
    #[test]
    fn fetches_do_not_starve_a_write_that_waits_for_room() {
        let (ledger, granted) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        let all = i64::try_from(ledger.room().1).unwrap();
        assert!(ledger.take(fetch(all)));
        ledger.claim(claim(&granted, 1, write(500)));
        ledger.give(fetch(400));
        assert!(!ledger.take(fetch(300)));
        ledger.give(fetch(100));
        assert_eq!(*granted.0.lock(), [1]);
    }

    /// W-05, H-26
    #[test]
    fn fetches_that_wait_do_not_pass_a_write_that_waits_for_room() {
        let (ledger, granted) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        let all = i64::try_from(ledger.room().1).unwrap();
        assert!(ledger.take(fetch(all)));
        ledger.claim(claim(&granted, 1, write(500)));
        ledger.claim(claim(&granted, 2, fetch(300)));
        ledger.give(fetch(400));
        assert!(granted.0.lock().is_empty(), "the fetch would fit");
        ledger.give(fetch(100));
        assert_eq!(*granted.0.lock(), [1]);
        ledger.give(fetch(300));
        assert_eq!(*granted.0.lock(), [1, 2]);
    }

    /// L-01
    #[test]
    fn a_raised_limit_lets_waiters_in_at_once() {
        let (ledger, granted) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        assert!(ledger.take(write(1000)));
        ledger.claim(claim(&granted, 1, write(500)));
        let config = CacheConfig {
            max_bytes: ByteSize(1 << 20),
            max_dirty_bytes: ByteSize(2000),
            target_dirty_bytes: ByteSize(0),
            ..CacheConfig::default()
        };
        ledger.set_limits(&Limits::try_from(&config).unwrap());
        assert_eq!(*granted.0.lock(), [1]);
    }

    #[test]
    fn claims_of_a_claimant_that_is_gone_hold_nobody_up() {
        let (ledger, gone) = (ledger(1 << 20, 1000), Arc::new(Granted::default()));
        let granted = Arc::new(Granted::default());
        assert!(ledger.take(write(900)));
        ledger.claim(claim(&gone, 1, write(500)));
        ledger.claim(claim(&granted, 2, write(50)));
        let claimant: Arc<dyn Claimant> = gone.clone();
        ledger.forget(&claimant);
        assert_eq!(*granted.0.lock(), [2]);
        assert!(gone.0.lock().is_empty());
    }
}

//! One bounded quantity, bytes or buffers, that all threads take from: a hard bound that costs a few nanoseconds.
//!
//! Room is *handed out* from a centre behind a lock, and of that each shard keeps a little *spare*, which its
//! threads take from and give back to without meeting anybody. At every moment
//!
//! ```text
//! taken + spare of all shards = handed out <= limit
//! ```
//!
//! so a take from the spare needs no look at the limit. Where forced takes or a lowered limit break the right half,
//! no spare may be spent or kept until it holds again.
//!
//! # Waiting for room
//! Room moves between centre and shards only under the lock, so none is ever on its way where a thread that looks
//! for the last of it can't see it. A refusal means that there was no room, or that somebody was giving back
//! meanwhile, and what the refused thread did before it asked happens before that somebody's `give_back` returns.
//! So no wake-up is lost when takers first make known that they wait and then ask once more, and those who give back
//! or raise the limit do so first and then look for who waits.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::{self, Mutex, thread_local};

const SHARDS_MAX: usize = 16;

/// The most that a shard is given as spare at once; it keeps at most twice that.
const SPARE_MAX: u64 = 256 << 10;

/// The part of the limit that all shards together are given as spare at once, as a power of two: an eighth.
const SPARE_PART_BITS: u32 = 3;

/// A bound on what all threads hold together, which only [`force`](Self::force) passes.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The most that a shard may be given at once; 0 while no spare may be spent or kept. Written under the lock.
    spare_max: Padded<AtomicU64>,
    centre: Padded<Mutex<Centre>>,
    /// As many as there are threads at a time, a power of two; the rest stays empty.
    shards: [Padded<Spare>; SHARDS_MAX],
    shards_bits: u32,
}

/// Keeps its content on cache lines of its own, with the neighbour that processors fetch along.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

#[derive(Debug)]
struct Centre {
    handed_out: u64,
    limit: u64,
}

/// Room that has been handed out and is not taken.
#[derive(Debug, Default)]
struct Spare(AtomicU64);

impl Budget {
    /// A budget of which nothing is taken.
    pub(crate) fn new(limit: u64) -> Self {
        Self::with_shards(limit, sync::threads())
    }

    pub(super) fn with_shards(limit: u64, threads: usize) -> Self {
        let shards = threads.clamp(1, SHARDS_MAX).next_power_of_two();
        let budget = Self {
            spare_max: Padded::default(),
            centre: Padded(Mutex::new(Centre {
                handed_out: 0,
                limit,
            })),
            shards: Default::default(),
            shards_bits: shards.trailing_zeros(),
        };
        budget.allow_spare(&budget.centre.0.lock());
        budget
    }

    /// Takes `amount` if all that is taken then stays within the limit, and says whether it did.
    ///
    /// What the taker does with the room happens after what its former holders did before they gave it back.
    pub(crate) fn try_take(&self, amount: u64) -> bool {
        let own = self.own();
        // Relaxed: spare may be spent because it is handed out, whatever this says. It only has to be seen by
        // those who come after a change of the limit or a forced take, and they see it by coherence.
        if self.spare_max.0.load(Ordering::Relaxed) > 0 && own.spend(amount) {
            return true;
        }
        let mut centre = self.centre.0.lock();
        centre.take_back(own.empty());
        if centre.room_after(amount).is_none() {
            self.collect(&mut centre);
        }
        let room = centre.room_after(amount);
        if let Some(room) = room {
            centre.hand_out(amount);
            let fair = room >> (self.shards_bits + 1);
            let spare = fair.min(self.spare_max_for(&centre));
            centre.hand_out(spare);
            own.add(spare);
        }
        self.allow_spare(&centre);
        room.is_some()
    }

    /// Takes `amount` even where that passes the limit; takes are then refused until enough was given back.
    pub(crate) fn force(&self, amount: u64) {
        let mut centre = self.centre.0.lock();
        centre.hand_out(amount);
        self.allow_spare(&centre);
    }

    /// Gives back `amount`, which this or another thread took.
    pub(crate) fn give_back(&self, amount: u64) {
        // Relaxed: spare that is kept although that has just been forbidden is neither spent nor lost. It is
        // collected by the next take.
        let spare_max = self.spare_max.0.load(Ordering::Relaxed);
        if amount > spare_max {
            let mut centre = self.centre.0.lock();
            centre.take_back(amount);
            self.allow_spare(&centre);
            return;
        }
        let own = self.own();
        if own.add(amount) > spare_max.saturating_mul(2) {
            let mut centre = self.centre.0.lock();
            centre.take_back(own.empty());
            self.allow_spare(&centre);
        }
    }

    /// What is taken now. Exact while nobody takes or gives back, otherwise off by at most what moves meanwhile.
    pub(crate) fn used(&self) -> u64 {
        self.used_of(&self.centre.0.lock())
    }

    /// The limit now.
    pub(crate) fn limit(&self) -> u64 {
        self.centre.0.lock().limit
    }

    /// What can be taken now; as exact as [`used`](Self::used).
    pub(crate) fn room(&self) -> u64 {
        let centre = self.centre.0.lock();
        centre.limit.saturating_sub(self.used_of(&centre))
    }

    /// Sets the limit for every take from now on. What is taken above it stays taken.
    pub(crate) fn set_limit(&self, limit: u64) {
        let mut centre = self.centre.0.lock();
        centre.limit = limit;
        self.allow_spare(&centre);
    }

    fn used_of(&self, centre: &Centre) -> u64 {
        let spare = self
            .shards()
            .map(Spare::amount)
            .fold(0, u64::saturating_add);
        centre.handed_out.saturating_sub(spare)
    }

    /// Takes back what every shard has to spare.
    fn collect(&self, centre: &mut Centre) {
        for shard in self.shards() {
            centre.take_back(shard.empty());
        }
    }

    /// Lets spare be spent and kept just when what is handed out lies within the limit.
    fn allow_spare(&self, centre: &Centre) {
        let allowed = if centre.handed_out > centre.limit {
            0
        } else {
            self.spare_max_for(centre)
        };
        // Relaxed, twice: see `try_take`. Every thread reads this line, so it is written only to change it.
        if self.spare_max.0.load(Ordering::Relaxed) != allowed {
            self.spare_max.0.store(allowed, Ordering::Relaxed);
        }
    }

    fn spare_max_for(&self, centre: &Centre) -> u64 {
        (centre.limit >> (SPARE_PART_BITS + self.shards_bits)).min(SPARE_MAX)
    }

    fn shards(&self) -> impl Iterator<Item = &Spare> {
        self.shards
            .iter()
            .take(1 << self.shards_bits)
            .map(|shard| &shard.0)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder of a division by SHARDS_MAX is an index of SHARDS_MAX shards"
    )]
    fn own(&self) -> &Spare {
        let mask = (1 << self.shards_bits) - 1;
        &self.shards[(thread_number() & mask) % SHARDS_MAX].0
    }
}

impl Centre {
    /// What could still be handed out after `amount`; `None` when that itself is too much.
    fn room_after(&self, amount: u64) -> Option<u64> {
        self.limit.checked_sub(self.handed_out)?.checked_sub(amount)
    }

    fn hand_out(&mut self, amount: u64) {
        self.handed_out = self.handed_out.saturating_add(amount);
    }

    fn take_back(&mut self, amount: u64) {
        debug_assert!(
            amount <= self.handed_out,
            "{amount} given back of {} handed out",
            self.handed_out
        );
        self.handed_out = self.handed_out.saturating_sub(amount);
    }
}

impl Spare {
    /// Takes `amount` if there is as much, and says whether it did.
    fn spend(&self, amount: u64) -> bool {
        let rest = |spare: u64| spare.checked_sub(amount);
        // Acquire: with the Release of `add`, what the former holder did happens before what the taker does. Each
        // change is a read-modify-write, so this meets every earlier `add`, not just the last. Relaxed on failure:
        // the lock is taken next.
        self.0
            .try_update(Ordering::Acquire, Ordering::Relaxed, rest)
            .is_ok()
    }

    /// Adds `amount` and returns what there is then.
    fn add(&self, amount: u64) -> u64 {
        // Release: see `spend`. It passes on the giver's own doings, and what it learnt through the lock.
        // Acquire: see `empty`.
        let before = self.0.fetch_add(amount, Ordering::AcqRel);
        before.saturating_add(amount)
    }

    /// Takes all there is.
    fn empty(&self) -> u64 {
        // Acquire: see `spend`; the lock then passes it on to who is handed this room. Release, and an exchange even
        // where a look would show nothing: an `add` comes either before this, and is found, or after it, and then
        // its thread sees what this one did before.
        self.0.swap(0, Ordering::AcqRel)
    }

    fn amount(&self) -> u64 {
        // Relaxed: a number to show, through which nothing is reached.
        self.0.load(Ordering::Relaxed)
    }
}

/// No thread has this number.
const UNNUMBERED: usize = usize::MAX;

thread_local! {
    /// The thread's number, once it has asked for it.
    static THREAD_NUMBER: Cell<usize> = const { Cell::new(UNNUMBERED) };
}

/// A number for the calling thread, from 0 on, by which it finds its shard.
#[inline]
pub(crate) fn thread_number() -> usize {
    match THREAD_NUMBER.with(Cell::get) {
        UNNUMBERED => number_thread(),
        number => number,
    }
}

#[cold]
fn number_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: the numbers only have to differ.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    THREAD_NUMBER.with(|own| own.set(number));
    number
}

/// Lets the calling thread use another shard.
#[cfg(test)]
pub(super) fn act_as(number: usize) {
    THREAD_NUMBER.with(|own| own.set(number));
}

#[cfg(all(test, not(any(model = "shuttle", model = "loom"))))]
mod tests;

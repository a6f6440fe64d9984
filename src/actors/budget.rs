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

thread_local! {
    /// A number for the thread, from 0 on.
    static THREAD_NUMBER: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: the numbers only have to differ.
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed))
    };
}

/// A number for the calling thread, from 0 on, by which it finds its shard.
pub(crate) fn thread_number() -> usize {
    THREAD_NUMBER.with(Cell::get)
}

/// Lets the calling thread use another shard.
#[cfg(test)]
pub(super) fn act_as(number: usize) {
    THREAD_NUMBER.with(|own| own.set(number));
}

#[cfg(all(test, not(any(model = "shuttle", model = "loom"))))]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Barrier, mpsc};
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: [u64; 9] = [
        0,
        1,
        2,
        100,
        4096,
        1 << 20,
        (100 << 20) + 7,
        1 << 40,
        u64::MAX,
    ];

    #[test]
    fn the_limit_is_exact_to_the_last_byte() {
        for (limit, threads) in LIMITS
            .into_iter()
            .flat_map(|limit| [(limit, 1), (limit, 16)])
        {
            let budget = Budget::with_shards(limit, threads);
            assert!(budget.try_take(limit));
            assert_eq!((budget.used(), budget.room()), (limit, 0));
            assert!(!budget.try_take(1));
            budget.give_back(limit);
            assert_eq!((budget.used(), budget.room()), (0, limit));

            let step = limit / 1000 + 1;
            let (mut taken, mut number) = (0, 0);
            while budget.try_take(step) {
                taken += step;
                act_as(number);
                number += 1;
            }
            assert!(limit - taken < step, "stopped at {taken} of {limit}");
            assert!(budget.try_take(limit - taken));
            assert!(!budget.try_take(1));
            assert_eq!(budget.used(), limit);
        }
    }

    #[test]
    fn a_forced_take_passes_the_limit_and_stops_the_others() {
        for threads in [1, 16] {
            let budget = Budget::with_shards(100 << 20, threads);
            assert!(budget.try_take(10));
            budget.force(200 << 20);
            assert_eq!(budget.used(), (200 << 20) + 10);
            assert_eq!(budget.room(), 0);
            assert!(!budget.try_take(1));
            budget.give_back(100 << 20);
            assert!(!budget.try_take(1));
            budget.give_back(10);
            assert!(!budget.try_take(1));
            budget.give_back(1);
            assert!(budget.try_take(1));
            assert!(!budget.try_take(1));
        }
    }

    #[test]
    fn spare_does_not_pass_a_lowered_limit() {
        let budget = Budget::new(100 << 20);
        for number in 0..4 {
            act_as(number);
            assert!(budget.try_take(100 << 10));
        }
        let used = 400 << 10;
        budget.set_limit(used - 1);
        for number in 0..4 {
            act_as(number);
            assert!(!budget.try_take(1));
        }
        budget.give_back(1);
        assert!(!budget.try_take(1));
        budget.give_back(1);
        assert!(budget.try_take(1));
        assert!(!budget.try_take(1));
        assert_eq!((budget.used(), budget.limit()), (used - 1, used - 1));
        budget.set_limit(0);
        budget.give_back(used - 1);
        assert_eq!((budget.used(), budget.room()), (0, 0));
        assert!(!budget.try_take(1));
    }

    #[test]
    fn little_room_is_kept_as_spare() {
        let budget = Budget::with_shards(1 << 20, 16);
        for number in 0..16 {
            act_as(number);
            for _ in 0..16 {
                assert!(budget.try_take(1 << 10));
            }
            for _ in 0..16 {
                budget.give_back(1 << 10);
            }
        }
        let centre = budget.centre.0.lock();
        assert!(centre.handed_out <= 1 << 18, "{centre:?}");
    }

    #[test]
    fn what_a_finished_thread_gave_back_is_there_for_others() {
        let limit = 10 << 20;
        let budget = Budget::with_shards(limit, 8);
        for _ in 0..8 {
            let giver = || {
                assert!(budget.try_take(limit));
                (0..limit >> 12).for_each(|_| budget.give_back(1 << 12));
                assert!(budget.try_take(1));
                budget.give_back(1);
            };
            thread::scope(|scope| scope.spawn(giver).join()).unwrap();
        }
        assert!(budget.try_take(limit));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        Force(u64),
        GiveBack(prop::sample::Index),
        SetLimit(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let amount = prop_oneof![0_u64..10, 0_u64..5_000, 0_u64..2_000_000];
        let limit = prop_oneof![0_u64..10, 0_u64..100_000, 0_u64..20_000_000];
        let step = prop_oneof![
            8 => amount.clone().prop_map(Step::Take),
            1 => amount.prop_map(Step::Force),
            8 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
            1 => limit.prop_map(Step::SetLimit),
        ];
        prop::collection::vec((0_usize..8, step), 1..200)
    }

    proptest! {
        #[test]
        fn it_counts_as_one_plain_counter_does(
            first in 0_u64..20_000_000, threads in 1_usize..9, steps in steps()
        ) {
            let budget = Budget::with_shards(first, threads);
            let (mut limit, mut held) = (first, Vec::<u64>::new());
            for (number, step) in steps {
                act_as(number);
                let used: u64 = held.iter().sum();
                match step {
                    Step::Take(amount) => {
                        let fits = used + amount <= limit;
                        prop_assert_eq!(budget.try_take(amount), fits);
                        held.extend(fits.then_some(amount));
                    }
                    Step::Force(amount) => {
                        budget.force(amount);
                        held.push(amount);
                    }
                    Step::GiveBack(_) if held.is_empty() => {}
                    Step::GiveBack(which) => {
                        budget.give_back(held.swap_remove(which.index(held.len())));
                    }
                    Step::SetLimit(new) => {
                        budget.set_limit(new);
                        limit = new;
                    }
                }
                let used: u64 = held.iter().sum();
                prop_assert_eq!(budget.used(), used);
                prop_assert_eq!(budget.room(), limit.saturating_sub(used));
                prop_assert_eq!(budget.limit(), limit);
            }
        }
    }

    const THREADS: usize = 4;
    const ROUNDS: u64 = if cfg!(miri) { 400 } else { 40_000 };
    const PHASES: u64 = if cfg!(miri) { 2 } else { 10 };
    const AMOUNT_MAX: u64 = 20_000;

    /// Lets the others run until `wanted` holds; `false` if that takes for ever.
    fn comes_true(wanted: impl Fn() -> bool) -> bool {
        (0..10_000_000).any(|_| {
            thread::yield_now();
            wanted()
        })
    }

    /// Four threads take and hand what they took to the next, which gives it back. `held` counts exactly what lies
    /// between a take and its giving back.
    fn hammer(
        budget: &Budget,
        held: &AtomicU64,
        go_on: impl Fn(u64) -> bool + Sync,
        take: impl Fn(u64) -> bool + Sync,
    ) {
        let (mut senders, receivers): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| mpsc::channel::<u64>()).unzip();
        senders.rotate_left(1);
        let give_back = |amount| {
            held.fetch_sub(amount, Ordering::Relaxed);
            budget.give_back(amount);
        };
        let (go_on, take, give_back) = (&go_on, &take, &give_back);
        thread::scope(|scope| {
            for (number, (sender, receiver)) in senders.into_iter().zip(receivers).enumerate() {
                scope.spawn(move || {
                    act_as(number);
                    for round in (0..).take_while(|round| go_on(*round)) {
                        let amount = 1 + (round * 7919 + number as u64 * 104_729) % AMOUNT_MAX;
                        if take(amount) {
                            let sent = sender.send(amount);
                            assert!(sent.is_ok(), "the receiver outlives its senders");
                        }
                        if round % 16 > 8 {
                            receiver.try_iter().for_each(give_back);
                        }
                    }
                    drop(sender);
                    receiver.iter().for_each(give_back);
                });
            }
        });
        assert_eq!(held.load(Ordering::Relaxed), 0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn threads_together_never_pass_the_limit() {
        for limit in [50_000, 1 << 20, 16 << 20, 1 << 40] {
            let budget = Budget::with_shards(limit, THREADS);
            let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
            let take = |amount| {
                let taken = budget.try_take(amount);
                if taken {
                    let now = held.fetch_add(amount, Ordering::Relaxed) + amount;
                    most.fetch_max(now, Ordering::Relaxed);
                }
                taken
            };
            hammer(&budget, &held, |round| round < ROUNDS, take);
            assert!(most.into_inner() <= limit, "passed {limit}");
            assert!(budget.try_take(limit));
        }
    }

    #[test]
    fn a_limit_set_under_load_holds_at_once() {
        let (low, high) = (4 * AMOUNT_MAX, 8 << 20);
        let budget = Budget::with_shards(high, THREADS);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        // Odd while the low limit is in force and no more than that is held.
        let phase = AtomicU64::new(0);
        let (watched, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let take = |amount| {
            let before = phase.load(Ordering::SeqCst);
            let taken = budget.try_take(amount);
            if taken {
                let now = held.fetch_add(amount, Ordering::Relaxed) + amount;
                if before % 2 == 1 && phase.load(Ordering::SeqCst) == before {
                    most.fetch_max(now, Ordering::Relaxed);
                    watched.fetch_add(1, Ordering::Relaxed);
                }
            }
            taken
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..PHASES {
                    budget.set_limit(low);
                    if !comes_true(|| budget.used() <= low) {
                        break;
                    }
                    phase.fetch_add(1, Ordering::SeqCst);
                    let enough = watched.load(Ordering::Relaxed) + 50;
                    if !comes_true(|| watched.load(Ordering::Relaxed) >= enough) {
                        break;
                    }
                    phase.fetch_add(1, Ordering::SeqCst);
                    budget.set_limit(high);
                    thread::yield_now();
                }
                done.store(true, Ordering::Relaxed);
            });
            hammer(&budget, &held, |_| !done.load(Ordering::Relaxed), take);
        });
        assert_eq!(phase.into_inner(), 2 * PHASES, "the threads did not go on");
        assert!(most.into_inner() <= low, "passed {low}");
    }

    #[test]
    fn threads_that_only_take_are_refused_only_when_all_is_taken() {
        for round in 0..ROUNDS / 100 {
            let limit = 1000 + round * 997;
            let budget = Budget::with_shards(limit, THREADS);
            let (start, taken) = (Barrier::new(THREADS), AtomicU64::new(0));
            thread::scope(|scope| {
                for number in 0..THREADS {
                    let (budget, start, taken) = (&budget, &start, &taken);
                    scope.spawn(move || {
                        act_as(number);
                        start.wait();
                        let amount = limit / 200;
                        while budget.try_take(amount) {
                            taken.fetch_add(amount, Ordering::Relaxed);
                        }
                        // What others took by now lacks at most what they are about to add to `taken`.
                        assert!(
                            budget.room() < amount,
                            "refused with {} to take",
                            budget.room()
                        );
                    });
                }
            });
            assert!(limit - taken.into_inner() < limit / 200);
        }
    }

    #[test]
    fn a_refused_taker_is_seen_by_who_gives_back_after_it_looked() {
        for limit in [100, 100 << 20] {
            let budget = Budget::with_shards(limit, 2);
            let (waits, seen) = (AtomicBool::new(false), AtomicBool::new(false));
            let (both, lost) = (Barrier::new(2), AtomicU64::new(0));
            assert!(budget.try_take(limit));
            let giver = || {
                act_as(0);
                for _ in 0..ROUNDS / 20 {
                    both.wait();
                    budget.give_back(1);
                    seen.store(waits.load(Ordering::Relaxed), Ordering::Relaxed);
                    both.wait();
                    both.wait();
                }
            };
            let taker = || {
                act_as(1);
                for _ in 0..ROUNDS / 20 {
                    waits.store(false, Ordering::Relaxed);
                    both.wait();
                    waits.store(true, Ordering::Relaxed);
                    let taken = budget.try_take(1);
                    both.wait();
                    let told = seen.load(Ordering::Relaxed);
                    lost.fetch_add(u64::from(!taken && !told), Ordering::Relaxed);
                    // The giver is done with this round: what it gave back is there.
                    let again = taken || budget.try_take(1);
                    lost.fetch_add(u64::from(!again), Ordering::Relaxed);
                    both.wait();
                }
            };
            thread::scope(|scope| {
                scope.spawn(giver);
                scope.spawn(taker);
            });
            assert_eq!(lost.into_inner(), 0, "wake-ups or room were lost");
        }
    }
}

//! The budget from one thread, from many, and as its rules say.

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

//! Budgets: never above the limit, nothing lost, and who is refused hears of room that comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{explore_all, part, together};
use crate::actors::budget::Budget;
use crate::actors::sync::atomic::AtomicU64 as Limit;

/// Of this, two shards may keep four each at once.
const LIMIT: u64 = 64;

/// A budget, and what lies between its takes and their giving back.
#[derive(Clone)]
struct Watched {
    budget: Arc<Budget>,
    held: Arc<AtomicU64>,
    /// Seen by the checker: who sees a limit here comes after it.
    limit: Arc<Limit>,
}

impl Watched {
    fn new() -> Self {
        Self {
            budget: Arc::new(Budget::with_shards(LIMIT, 2)),
            held: Arc::default(),
            limit: Arc::new(Limit::new(LIMIT)),
        }
    }

    /// Takes, and looks whether that was allowed: by the limit that was in force when it began, or ended.
    fn take(&self, amount: u64) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        let taken = self.budget.try_take(amount);
        if taken {
            let held = self.held.fetch_add(amount, Ordering::Relaxed) + amount;
            let limit = limit.max(self.limit.load(Ordering::Acquire));
            assert!(held <= limit, "{held} held of {limit}");
        }
        taken
    }

    fn give(&self, amount: u64) {
        self.held.fetch_sub(amount, Ordering::Relaxed);
        self.budget.give_back(amount);
    }

    fn lower(&self, limit: u64) {
        self.budget.set_limit(limit);
        self.limit.store(limit, Ordering::Release);
    }

    /// All that was taken came back: the whole is there, to the last byte.
    fn assert_whole(&self) {
        let limit = self.budget.limit();
        assert_eq!(self.budget.used(), 0);
        assert_eq!(self.budget.room(), limit);
        assert!(self.budget.try_take(limit));
        assert!(!self.budget.try_take(1));
    }
}

/// W-05
#[test]
fn two_threads_that_take_and_give_keep_the_limit_and_lose_nothing() {
    explore_all(|| {
        let budget = Watched::new();
        let (first, second) = (budget.clone(), budget.clone());
        together([
            part(move || {
                if first.take(60) {
                    first.give(60);
                }
            }),
            part(move || {
                if second.take(3) {
                    second.give(3);
                }
            }),
        ]);
        budget.assert_whole();
    });
}

/// W-05
#[test]
fn a_take_is_refused_only_when_too_much_is_held() {
    explore_all(|| {
        let budget = Watched::new();
        // Leaves something with the own shard.
        assert!(budget.take(2));
        let (first, second) = (budget.clone(), budget.clone());
        together([
            part(move || assert!(first.take(31))),
            part(move || assert!(second.take(31))),
        ]);
        assert!(!budget.take(1));
    });
}

/// H-26: what the refused did before it asked is seen by who gave back after it was refused.
#[test]
fn a_refused_take_is_seen_by_who_gives_back() {
    explore_all(|| {
        let budget = Watched::new();
        assert!(budget.take(LIMIT));
        let waits = Arc::new(super::Flag::new(false));
        let outcome = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
        let (taker, giver) = (budget.clone(), budget.clone());
        let (waiting, seeing) = (waits.clone(), waits);
        let (refused, seen) = (outcome.clone(), outcome.clone());
        together([
            part(move || {
                waiting.store(true, Ordering::Relaxed);
                let taken = taker.budget.try_take(1);
                refused.0.store(!taken, Ordering::Relaxed);
            }),
            part(move || {
                giver.budget.give_back(1);
                let sees = seeing.load(Ordering::Relaxed);
                seen.1.store(sees, Ordering::Relaxed);
            }),
        ]);
        let is_refused = outcome.0.load(Ordering::Relaxed);
        assert!(
            !is_refused || outcome.1.load(Ordering::Relaxed),
            "nobody looks again"
        );
    });
}

/// L-01
#[test]
fn a_lowered_limit_holds_for_every_later_take() {
    explore_all(|| {
        let budget = Watched::new();
        assert!(budget.take(20));
        let (lowers, takes) = (budget.clone(), budget.clone());
        together([
            part(move || lowers.lower(21)),
            part(move || {
                for _ in 0..2 {
                    takes.take(1);
                }
            }),
        ]);
        budget.lower(0);
        assert!(!budget.take(1));
    });
}

#[cfg(model = "shuttle")]
mod larger {
    use super::super::explore;
    use super::*;

    /// W-05, L-01
    #[test]
    fn takes_gives_forces_and_limits_add_up_in_the_end() {
        explore(6_000, || {
            let budget = Watched::new();
            let (first, second, third) = (budget.clone(), budget.clone(), budget.clone());
            together([
                part(move || {
                    for amount in [3, 30, 4] {
                        if first.take(amount) {
                            first.give(amount);
                        }
                    }
                }),
                part(move || {
                    for amount in [40, 2] {
                        if second.budget.try_take(amount) {
                            second.budget.give_back(amount);
                        }
                    }
                    second.budget.force(50);
                    second.budget.give_back(46);
                    second.budget.give_back(4);
                }),
                part(move || {
                    third.lower(8);
                    let taken = third.budget.try_take(8);
                    third.limit.store(LIMIT, Ordering::Release);
                    third.budget.set_limit(LIMIT);
                    if taken {
                        third.budget.give_back(8);
                    }
                }),
            ]);
            budget.assert_whole();
        });
    }

    /// W-05
    #[test]
    fn three_threads_keep_the_limit() {
        explore(6_000, || {
            let budget = Watched::new();
            let work = |amounts: [u64; 3]| {
                let budget = budget.clone();
                part(move || {
                    let taken: Vec<u64> = amounts
                        .into_iter()
                        .filter(|amount| budget.take(*amount))
                        .collect();
                    for amount in taken {
                        budget.give(amount);
                    }
                })
            };
            together([work([4, 3, 20]), work([30, 1, 4]), work([2, 2, 40])]);
            budget.assert_whole();
        });
    }

    /// L-01
    #[test]
    fn a_limit_lowered_under_load_holds() {
        explore(6_000, || {
            let budget = Watched::new();
            let work = |amounts: [u64; 3]| {
                let budget = budget.clone();
                part(move || {
                    for amount in amounts {
                        if budget.take(amount) {
                            budget.give(amount);
                        }
                    }
                })
            };
            let lowers = budget.clone();
            together([
                work([4, 3, 2]),
                work([9, 1, 4]),
                part(move || lowers.lower(10)),
            ]);
            budget.assert_whole();
        });
    }
}

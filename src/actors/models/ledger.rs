//! The ledger: claims are met in order, each once or not at all, and by whoever makes room for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::world::limits;
use super::{explore, part, together};
use crate::actors::ledger::{Claim, Claimant, Ledger};
use crate::engine::{Charge, WaiterId};

const MAX_BYTES: u64 = 1 << 20;
const MAX_DIRTY_BYTES: u64 = 1000;

/// Whose claims were met, in order.
#[derive(Debug, Default)]
struct Met(Mutex<Vec<(u64, Charge)>>);

impl Met {
    fn numbers(&self) -> Vec<u64> {
        self.0.lock().iter().map(|(number, _)| *number).collect()
    }
}

impl Claimant for Met {
    fn grant(&self, waiter: WaiterId, charge: Charge) {
        self.0.lock().push((waiter.0, charge));
    }
}

#[derive(Clone)]
struct Room {
    ledger: Arc<Ledger>,
    met: Arc<Met>,
}

impl Room {
    fn new() -> Self {
        Self {
            ledger: Arc::new(Ledger::new(&limits(MAX_BYTES, MAX_DIRTY_BYTES), u64::MAX)),
            met: Arc::default(),
        }
    }

    /// With so many dirty bytes taken.
    fn with_dirty(bytes: i64) -> Self {
        let room = Self::new();
        assert!(room.ledger.take(write(bytes)));
        room
    }

    fn claim(&self, number: u64, charge: Charge) {
        self.ledger.claim(Claim {
            claimant: self.met.clone(),
            waiter: WaiterId(number),
            charge,
        });
    }

    fn cancel(&self, number: u64) -> bool {
        let claimant: Arc<dyn Claimant> = self.met.clone();
        self.ledger.cancel(&claimant, WaiterId(number))
    }

    fn claims(&self, number: u64, charge: Charge) -> Box<dyn FnOnce() + Send> {
        let room = self.clone();
        part(move || room.claim(number, charge))
    }

    fn gives(&self, charge: Charge) -> Box<dyn FnOnce() + Send> {
        let room = self.clone();
        part(move || room.ledger.give(charge))
    }

    /// Nobody waits, and with all that was met given back, nothing is held.
    fn assert_nothing_left(&self, held: Charge) {
        assert!(!self.ledger.has_waiting());
        assert_eq!(
            self.ledger.waiting(),
            crate::actors::ledger::Waiting::default()
        );
        for (_, charge) in self.met.0.lock().drain(..) {
            self.ledger.give(charge);
        }
        self.ledger.give(held);
        assert_eq!(self.ledger.held(), Charge::default());
    }
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

fn room_limit() -> i64 {
    i64::try_from(Room::new().ledger.room().1).unwrap()
}

/// W-05, S-07, H-27
#[test]
fn a_claim_is_met_by_the_room_that_comes_back_as_it_is_made() {
    explore(5_000, || {
        let room = Room::with_dirty(900);
        together([room.claims(1, write(500)), room.gives(write(900))]);
        assert_eq!(room.met.numbers(), [1]);
        room.assert_nothing_left(Charge::default());
    });
}

/// R-14, H-25
#[test]
fn a_fetch_is_met_by_the_room_that_comes_back_as_it_is_asked() {
    explore(5_000, || {
        let (room, all) = (Room::new(), room_limit());
        assert!(room.ledger.take(fetch(all)));
        together([room.claims(1, fetch(500)), room.gives(fetch(all))]);
        assert_eq!(room.met.numbers(), [1]);
        room.assert_nothing_left(Charge::default());
    });
}

/// W-05, H-26: what a taker reserves in part before it is refused is not what another waits for without end.
#[test]
fn a_claim_is_met_though_another_takes_in_part_and_is_refused() {
    explore(5_000, || {
        let (room, all) = (Room::new(), room_limit());
        assert!(room.ledger.take(fetch(all - 600)));
        let takes = room.clone();
        together([
            room.claims(1, write(600)),
            part(move || {
                let more = Charge {
                    room: 700,
                    ..write(900)
                };
                assert!(!takes.ledger.take(more));
            }),
        ]);
        assert_eq!(room.met.numbers(), [1]);
        room.assert_nothing_left(fetch(all - 600));
    });
}

/// W-05, H-26
#[test]
fn of_two_that_wait_the_first_is_met_and_nobody_passes() {
    explore(5_000, || {
        let room = Room::with_dirty(1000);
        room.claim(1, write(500));
        room.claim(2, write(500));
        let half = Charge {
            room: 250,
            dirty: 250,
            dirty_buffers: 0,
        };
        let passes = room.clone();
        together([
            room.gives(half),
            room.gives(half),
            part(move || assert!(!passes.ledger.take(write(10)))),
        ]);
        assert_eq!(room.met.numbers(), [1]);
        room.ledger.give(Charge {
            dirty_buffers: 1,
            ..write(500)
        });
        assert_eq!(room.met.numbers(), [1, 2]);
        room.assert_nothing_left(Charge::default());
    });
}

/// H-26, H-35
#[test]
fn writes_and_fetches_that_wait_for_the_same_room_are_all_met() {
    explore(5_000, || {
        let (room, all) = (Room::new(), room_limit());
        assert!(room.ledger.take(fetch(all)));
        together([
            room.claims(1, write(600)),
            room.claims(2, fetch(400)),
            room.gives(fetch(all)),
        ]);
        let mut met = room.met.numbers();
        met.sort_unstable();
        assert_eq!(met, [1, 2]);
        room.assert_nothing_left(Charge::default());
    });
}

/// H-24
#[test]
fn a_claim_above_the_limit_is_met_when_the_last_bytes_come_back() {
    explore(5_000, || {
        let room = Room::with_dirty(100);
        assert!(room.ledger.take(write(200)));
        together([
            room.claims(1, write(5000)),
            room.gives(write(100)),
            room.gives(write(200)),
        ]);
        assert_eq!(room.met.numbers(), [1]);
        room.assert_nothing_left(Charge::default());
    });
}

/// H-46
#[test]
fn a_claim_that_is_taken_back_is_met_or_not_and_the_next_is_met() {
    explore(5_000, || {
        let room = Room::with_dirty(900);
        room.claim(1, write(500));
        room.claim(2, write(100));
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let (cancels, says) = (room.clone(), is_cancelled.clone());
        together([
            part(move || says.store(cancels.cancel(1), Ordering::Relaxed)),
            room.gives(Charge {
                dirty_buffers: 0,
                ..write(400)
            }),
        ]);
        let met = room.met.numbers();
        let expected: &[u64] = if is_cancelled.load(Ordering::Relaxed) {
            &[2]
        } else {
            &[1]
        };
        assert_eq!(met.get(..1), Some(&expected[..1]));
        room.ledger.give(Charge {
            dirty_buffers: 1,
            ..write(500)
        });
        assert!(room.met.numbers().contains(&2));
        assert_eq!(
            room.met.numbers().contains(&1),
            !is_cancelled.load(Ordering::Relaxed)
        );
        room.assert_nothing_left(Charge::default());
    });
}

/// H-46
#[test]
fn those_behind_a_claim_that_is_taken_back_are_met() {
    explore(5_000, || {
        let room = Room::with_dirty(900);
        room.claim(1, write(600));
        room.claim(2, write(100));
        let cancels = room.clone();
        together([
            part(move || assert!(cancels.cancel(1))),
            room.gives(Charge {
                dirty_buffers: 0,
                ..write(400)
            }),
        ]);
        assert_eq!(room.met.numbers(), [2]);
        room.assert_nothing_left(write(500));
    });
}

/// L-07, H-46
#[test]
fn a_claimant_that_goes_leaves_nothing_behind() {
    explore(5_000, || {
        let room = Room::with_dirty(900);
        let other = Room {
            ledger: room.ledger.clone(),
            met: Arc::default(),
        };
        room.claim(1, write(400));
        other.claim(2, write(50));
        let goes = room.clone();
        together([
            part(move || {
                let claimant: Arc<dyn Claimant> = goes.met.clone();
                goes.ledger.forget(&claimant);
            }),
            room.gives(Charge {
                dirty_buffers: 0,
                ..write(400)
            }),
        ]);
        assert_eq!(other.met.numbers(), [2]);
        other.ledger.give(Charge {
            dirty_buffers: 1,
            ..write(500)
        });
        for (_, charge) in other.met.0.lock().drain(..) {
            room.ledger.give(charge);
        }
        room.assert_nothing_left(Charge::default());
    });
}

/// L-01
#[test]
fn a_claim_hears_of_a_raised_limit() {
    explore(5_000, || {
        let room = Room::with_dirty(1000);
        let raises = room.clone();
        together([
            room.claims(1, write(500)),
            part(move || raises.ledger.set_limits(&limits(MAX_BYTES, 2000))),
        ]);
        assert_eq!(room.met.numbers(), [1]);
        room.assert_nothing_left(write(1000));
    });
}

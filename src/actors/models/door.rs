//! The door: writes and reads in their callers' threads, while the set's actor flushes, drops and closes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use shuttle::thread;

use super::world::set_over;
use super::{explore, part, together};
use crate::actors::ledger::Claimant;
use crate::actors::shared::SetShared;
use crate::actors::shelf::SetShelf;
use crate::actors::state::SetState;
use crate::actors::{DoorExtent, DoorWrite, Entered};
use crate::backend::{Backend, MemoryBackend};
use crate::buf::ReadBuf;
use crate::engine::{
    Action, Charge, EngineLimits, EngineOptions, OpId, Reply, SetEngine, Totals, WaiterId,
};
use crate::io::BackendWrite;
use crate::options::SetOptions;
use crate::types::{ByteRange, Hints, Moment, ObjectKey, Place, SnapId};

/// The edge between the first two windows of an object.
const EDGE: u64 = 256 << 10;

/// A set over a store, and what was acknowledged of the writes to each of its places.
#[derive(Clone)]
struct World {
    set: Arc<SetShared>,
    store: Arc<MemoryBackend>,
    acknowledged: Arc<[AtomicU8; 3]>,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryBackend::new());
        Self {
            set: set_over(&store),
            store,
            acknowledged: Arc::default(),
        }
    }

    fn actor(&self) -> Actor {
        let options = SetOptions::new("set");
        let limits = EngineLimits::from(&self.set.common.limits());
        let engine = EngineOptions {
            shape: options.shape(),
            layout: options.layout,
            capabilities: self.store.capabilities(),
            truncation: options.truncation,
            context: options.context,
            id: options.id,
            write_through_until_flush: options.write_through_until_flush,
        };
        Actor {
            world: self.clone(),
            engine: SetEngine::new(SetShelf(self.set.clone()), engine, limits),
            under_way: VecDeque::new(),
            flushed: 0,
        }
    }

    /// Writes `data` at `offset` of the one object; whether that was acknowledged.
    fn put(&self, offset: u64, data: &[u8]) -> bool {
        let extent = DoorExtent {
            object: &ObjectKey::Number(0),
            range: ByteRange::new(offset, data.len() as u64).unwrap(),
            places: &[Place {
                offset: 0,
                len: data.len() as u64,
            }],
        };
        let write = DoorWrite {
            extents: &[extent],
            context: None,
            modified: None,
            hints: Hints::default(),
        };
        let mut data = Bytes::copy_from_slice(data);
        self.set.write_hit(&write, &mut data) == Entered::All
    }

    /// A byte in a place of its own: two of them in the first window, one in the second.
    const PLACES: [u64; 3] = [0, 10, EDGE];

    /// Writes values to a place, one after the other, and notes which was acknowledged last.
    fn puts(&self, place: usize, values: std::ops::RangeInclusive<u8>) -> Box<dyn FnOnce() + Send> {
        let world = self.clone();
        part(move || {
            for value in values {
                if world.put(Self::PLACES[place], &[value]) {
                    world.acknowledged[place].store(value, Ordering::Relaxed);
                }
            }
        })
    }

    fn acknowledged(&self) -> [u8; 3] {
        [0, 1, 2].map(|place: usize| self.acknowledged[place].load(Ordering::Relaxed))
    }

    /// What the cache serves of a range, if all of it is in memory.
    fn hit(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let mut out = ReadBuf::default();
        let range = ByteRange::new(offset, len).unwrap();
        let object = (&ObjectKey::Number(0), SnapId::HEAD);
        let is_hit = self.set.read_hit(object, range, Hints::default(), &mut out);
        is_hit.then(|| out.to_vec())
    }

    fn stored(&self) -> [u8; 3] {
        let name = self.set.shape.name_of(&ObjectKey::Number(0)).unwrap();
        let content = self.store.content(&name).unwrap_or_default();
        Self::PLACES.map(|at| {
            let at = usize::try_from(at).unwrap();
            content.get(at).copied().unwrap_or(0)
        })
    }

    /// What is stored is at least as new as what was acknowledged then.
    fn assert_stored(&self, acknowledged: [u8; 3]) {
        let stored = self.stored();
        for (stored, acknowledged) in stored.iter().zip(acknowledged) {
            assert!(*stored >= acknowledged, "{stored} stored of {acknowledged}");
        }
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.set.books.totals(), Totals::default());
        assert_eq!(self.set.common.books.totals(), Totals::default());
        assert_eq!(self.set.common.ledger.held(), Charge::default());
    }
}

/// Plays the set's actor: does what its engine wants, ends operations in order, and closes as it does.
struct Actor {
    world: World,
    engine: SetEngine<SetShelf>,
    under_way: VecDeque<(OpId, BackendWrite)>,
    flushed: usize,
}

impl Actor {
    fn act(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::WriteBack { op, write } => self.under_way.push_back((op, write)),
                Action::Reply {
                    reply: Reply::Flushed(flushed),
                    ..
                } => {
                    flushed.unwrap();
                    self.flushed += 1;
                }
                Action::Clean => {}
                other => panic!("{other:?}"),
            }
        }
        self.engine.answered();
    }

    /// Ends one operation.
    fn end_one(&mut self) -> bool {
        let Some((op, write)) = self.under_way.pop_front() else {
            return false;
        };
        let stored = self.world.store.write(write).now_or_never().unwrap();
        thread::yield_now();
        self.engine.handle_write_back(Moment::default(), op, stored);
        self.act();
        true
    }

    fn begin_flush(&mut self) {
        let waiter = self.world.set.enrol();
        self.engine.flush(Moment::default(), waiter, None);
        self.act();
    }

    /// Flushes, and returns when that is answered.
    fn flush(&mut self) {
        let answers = self.flushed + 1;
        self.begin_flush();
        while self.flushed < answers {
            assert!(self.end_one(), "a flush waits for nothing");
        }
    }

    /// Flushes, and finds all that was acknowledged before in the store.
    fn flush_and_compare(&mut self) {
        let acknowledged = self.world.acknowledged();
        self.flush();
        self.world.assert_stored(acknowledged);
    }

    /// Drops what is clean, which closes windows.
    fn release(&mut self) {
        self.engine.release();
        self.act();
    }

    fn trim(&mut self) {
        self.engine.trim(Moment::default(), u64::MAX);
        self.act();
    }

    fn audit(&mut self) {
        assert!(self.engine.audit().is_ok());
        self.act();
    }

    /// Closes the set in the order in which its actor does.
    fn close(mut self) {
        let set = self.world.set.clone();
        set.set_state(SetState::Closing);
        self.begin_flush();
        loop {
            while self.end_one() {}
            assert!(self.engine.is_quiet());
            if !self.engine.holdings().is_dirty_or_committing {
                break;
            }
            self.begin_flush();
        }
        self.engine.release();
        self.engine.close_idle(u64::MAX);
        set.set_state(SetState::Closed);
        self.go();
    }

    /// What dropping an actor does.
    fn go(self) {
        let set = &self.world.set;
        if set.state() != SetState::Closed {
            set.set_state(SetState::Failed);
        }
        let claimant: Arc<dyn Claimant> = set.clone();
        set.common.ledger.forget(&claimant);
        set.give_up_everything(self.engine.held_charge());
    }
}

/// Runs the actor beside others, then flushes, compares, and closes.
fn beside<const N: usize>(
    world: &World,
    others: [Box<dyn FnOnce() + Send>; N],
    acts: impl FnOnce(&mut Actor) + Send + 'static,
) {
    let mut actor = world.actor();
    let threads: Vec<_> = others
        .into_iter()
        .enumerate()
        .map(|(number, other)| {
            thread::spawn(move || {
                super::act_as(number + 1);
                other();
            })
        })
        .collect();
    acts(&mut actor);
    for thread in threads {
        thread.join().unwrap();
    }
    actor.flush_and_compare();
    assert!(!actor.engine.holdings().is_dirty_or_committing);
    actor.audit();
    actor.close();
    world.assert_nothing_left();
}

/// F-06, W-01: the smallest case, for the most orders.
#[test]
fn a_flush_misses_neither_of_two_writers_of_one_window() {
    explore(20_000, || {
        let world = World::new();
        let mut actor = world.actor();
        together([
            world.puts(0, 1..=1),
            world.puts(1, 1..=1),
            part(move || actor.flush_and_compare()),
        ]);
    });
}

/// F-06, W-01
#[test]
fn a_flush_stores_what_was_acknowledged_before_it() {
    explore(1_500, || {
        let world = World::new();
        let others = [world.puts(0, 1..=2), world.puts(1, 1..=2)];
        beside(&world, others, |actor| {
            actor.flush_and_compare();
            actor.flush_and_compare();
        });
    });
}

/// F-06, W-01
#[test]
fn a_flush_stores_what_was_acknowledged_in_several_windows() {
    explore(1_500, || {
        let world = World::new();
        let others = [world.puts(0, 1..=2), world.puts(2, 1..=2)];
        beside(&world, others, |actor| {
            actor.flush_and_compare();
            actor.flush_and_compare();
        });
    });
}

/// W-03, F-03
#[test]
fn bytes_written_while_they_are_stored_are_stored_again() {
    explore(1_500, || {
        let world = World::new();
        assert!(world.put(World::PLACES[0], &[1]));
        let others = [world.puts(0, 2..=4)];
        beside(&world, others, |actor| {
            actor.flush_and_compare();
            actor.flush_and_compare();
        });
    });
}

/// W-01, F-06: a window that closes takes no write with it.
#[test]
fn a_write_into_a_window_that_closes_is_kept() {
    explore(1_500, || {
        let world = World::new();
        assert!(world.put(World::PLACES[0], &[1]));
        let others = [world.puts(0, 2..=3), world.puts(1, 1..=2)];
        beside(&world, others, |actor| {
            actor.flush_and_compare();
            actor.release();
            actor.flush_and_compare();
            actor.release();
        });
    });
}

/// W-01, R-02: what was acknowledged is read until it is dropped as clean, and then it is in the store.
#[test]
fn a_read_after_a_write_sees_it_or_finds_it_in_the_store() {
    explore(1_500, || {
        let world = World::new();
        let both = world.clone();
        let writes_and_reads = part(move || {
            for value in 1..=3 {
                assert!(both.put(World::PLACES[0], &[value]));
                match both.hit(World::PLACES[0], 1) {
                    Some(bytes) => assert_eq!(bytes, [value]),
                    None => assert_eq!(both.stored()[0], value),
                }
                both.acknowledged[0].store(value, Ordering::Relaxed);
            }
        });
        beside(&world, [writes_and_reads], |actor| {
            actor.flush_and_compare();
            actor.trim();
            actor.flush_and_compare();
            actor.release();
        });
    });
}

/// W-01: over the edge of two windows, too.
#[test]
fn a_read_is_never_torn() {
    explore(1_500, || {
        let world = World::new();
        assert!(world.put(EDGE - 2, &[1; 4]));
        let (writes, reads) = (world.clone(), world.clone());
        let others = [
            part(move || {
                for tag in [2, 3] {
                    assert!(writes.put(EDGE - 2, &[tag; 4]));
                }
            }),
            part(move || {
                let mut last = 0;
                for _ in 0..3 {
                    let Some(bytes) = reads.hit(EDGE - 2, 4) else {
                        continue;
                    };
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{bytes:?}");
                    assert!(bytes[0] >= last, "{} after {last}", bytes[0]);
                    last = bytes[0];
                }
            }),
        ];
        beside(&world, others, |actor| {
            actor.flush();
            actor.trim();
        });
    });
}

/// L-03, H-42
#[test]
fn a_set_that_closes_stores_what_it_acknowledges() {
    explore(1_500, || {
        let world = World::new();
        let closes = world.actor();
        together([
            world.puts(0, 1..=2),
            world.puts(2, 1..=2),
            part(move || closes.close()),
        ]);
        world.assert_stored(world.acknowledged());
        world.assert_nothing_left();
    });
}

/// L-07, S-07
#[test]
fn a_set_that_fails_gives_back_what_writers_still_put_in() {
    explore(1_500, || {
        let world = World::new();
        assert!(world.put(World::PLACES[0], &[1]));
        let fails = world.actor();
        together([
            world.puts(0, 2..=3),
            world.puts(2, 1..=1),
            part(move || fails.go()),
        ]);
        world.assert_nothing_left();
    });
}

/// L-07: a claim that is met after its set has gone gives its room back.
#[test]
fn room_that_is_granted_to_a_set_that_goes_comes_back() {
    explore(1_500, || {
        let world = World::new();
        let fails = world.actor();
        let set = world.set.clone();
        let charge = Charge {
            room: 100,
            dirty: 100,
            dirty_buffers: 1,
        };
        together([
            part(move || {
                assert!(set.common.ledger.take(charge));
                set.grant(WaiterId(1), charge);
            }),
            part(move || fails.go()),
        ]);
        world.assert_nothing_left();
    });
}

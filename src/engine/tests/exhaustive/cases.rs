//! What is searched: sets of every kind, what is cached in the beginning, and what callers may ask.

use super::callers::Op;
use super::oracle::{LEN, Part};
use super::world::{History, World};
use crate::engine::tests::shelf::Bounds;
use crate::engine::window::WINDOW_BYTES;
use crate::error::BackendError;
use crate::request::Missing;

/// Where most things happen, and ranges around it.
const MAIN: Part = (4, 8);
const LEFT_EDGE: Part = (2, 5);
const RIGHT_EDGE: Part = (7, 10);
const INSIDE: Part = (5, 7);
const AROUND: Part = (3, 9);
const ADJOINING: Part = (8, 10);
/// The end of a short object: it lies inside [`MAIN`].
pub(super) const SHORT: usize = 6;

/// A kind of set and of store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) name: &'static str,
    pub(super) scattered_writes: bool,
    pub(super) copies_on_write: bool,
    pub(super) has_parent: bool,
    pub(super) missing: Missing,
    pub(super) write_through: bool,
    pub(super) write_bytes_max: u64,
    pub(super) writebacks_in_flight: usize,
    pub(super) bounds: Bounds,
    /// Where the cells lie in the object.
    pub(super) base: u64,
    /// Whether three things are asked of it.
    is_core: bool,
}

const NO_BOUNDS: Bounds = Bounds {
    room: 1 << 40,
    dirty: 1 << 40,
    dirty_buffers: 1 << 40,
};

const PLAIN: Setup = Setup {
    name: "plain",
    scattered_writes: false,
    copies_on_write: false,
    has_parent: false,
    missing: Missing::Zeros,
    write_through: false,
    write_bytes_max: 4 << 20,
    writebacks_in_flight: 8,
    bounds: NO_BOUNDS,
    base: 0,
    is_core: false,
};

/// The kinds of sets and stores.
pub(super) const SETUPS: [Setup; 9] = [
    Setup {
        is_core: true,
        ..PLAIN
    },
    Setup {
        name: "scattered",
        is_core: true,
        scattered_writes: true,
        missing: Missing::NotFound,
        ..PLAIN
    },
    Setup {
        name: "over a parent",
        is_core: true,
        copies_on_write: true,
        has_parent: true,
        missing: Missing::NotFound,
        ..PLAIN
    },
    Setup {
        name: "may copy",
        copies_on_write: true,
        scattered_writes: true,
        ..PLAIN
    },
    Setup {
        name: "little in flight",
        write_bytes_max: 3,
        writebacks_in_flight: 1,
        ..PLAIN
    },
    Setup {
        name: "little dirty",
        scattered_writes: true,
        bounds: Bounds {
            dirty: 6,
            ..NO_BOUNDS
        },
        ..PLAIN
    },
    Setup {
        name: "little room",
        bounds: Bounds {
            room: 8700,
            ..NO_BOUNDS
        },
        ..PLAIN
    },
    Setup {
        name: "write-through",
        write_through: true,
        ..PLAIN
    },
    Setup {
        name: "across windows",
        scattered_writes: true,
        base: WINDOW_BYTES - 6,
        ..PLAIN
    },
];

/// What is cached, or under way, in the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cached {
    Nothing,
    Clean,
    Dirty,
    /// On its way to the store.
    Tx,
    /// On its way to the store, and partly overwritten since.
    Overtaken,
    /// On its way from the store; a reader waits.
    Rx,
    Error,
    /// Known not to exist; only where it does not.
    Absent,
    /// Clean bytes beside those of two journal entries.
    Mixed,
    /// Dirty bytes that the store did not take.
    Paused,
}

/// Where a search begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) setup: Setup,
    pub(super) stored: Option<usize>,
    pub(super) cached: Cached,
}

/// All places to begin at.
pub(super) fn starts() -> Vec<Start> {
    use Cached::{Absent, Clean, Dirty, Error, Mixed, Nothing, Overtaken, Paused, Rx, Tx};
    let mut starts = Vec::new();
    for setup in SETUPS {
        for stored in [None, Some(SHORT), Some(LEN)] {
            for cached in [
                Nothing, Clean, Dirty, Tx, Overtaken, Rx, Error, Absent, Mixed, Paused,
            ] {
                if cached != Absent || stored.is_none() {
                    starts.push(Start {
                        setup,
                        stored,
                        cached,
                    });
                }
            }
        }
    }
    starts
}

/// From what callers choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vocabulary {
    All,
    Core,
}

impl Vocabulary {
    pub(super) const ALL: [Self; 2] = [Self::All, Self::Core];

    pub(super) const fn ops(self) -> &'static [Op] {
        match self {
            Self::All => &OPS,
            Self::Core => &CORE,
        }
    }
}

/// What is asked three times.
const CORE: [Op; 11] = [
    Op::Read(AROUND),
    Op::Write(MAIN),
    Op::Flush,
    Op::Discard(MAIN),
    Op::Release,
    Op::Write(RIGHT_EDGE),
    Op::Read(MAIN),
    Op::FlushPart(MAIN),
    Op::Truncate(SHORT),
    Op::Forsake,
    Op::ClearNonexistence,
];

/// All that may be asked.
const OPS: [Op; 28] = [
    Op::Read(AROUND),
    Op::Write(MAIN),
    Op::Flush,
    Op::Discard(MAIN),
    Op::Release,
    Op::Write(INSIDE),
    Op::Read(MAIN),
    Op::Purge,
    Op::DoorWrite(MAIN),
    Op::Trim,
    Op::Delete(INSIDE),
    Op::Snapshot,
    Op::Journaled(MAIN),
    Op::Write(LEFT_EDGE),
    Op::Truncate(SHORT),
    Op::Through,
    Op::ClearNonexistence,
    Op::Forsake,
    Op::FlushPart(MAIN),
    Op::Prefetch(AROUND),
    Op::DoorRead(MAIN),
    Op::Write(RIGHT_EDGE),
    Op::Write(AROUND),
    Op::Write(ADJOINING),
    Op::Journaled(RIGHT_EDGE),
    Op::Discard(LEFT_EDGE),
    Op::FlushPart(ADJOINING),
    Op::CloseIdle,
];

impl Start {
    /// Whether the same kind of set lies over the same store.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.setup.name, self.stored) == (other.setup.name, other.stored)
    }

    /// Whether three things are asked from here on.
    pub(super) fn is_core(&self) -> bool {
        self.setup.is_core
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} set, {:?} bytes stored, {:?} cached",
            self.setup.name, self.stored, self.cached
        )
    }

    /// The world in which the search begins.
    pub(super) fn world(&self, faults: usize, history: Option<History>) -> World {
        let mut world = World::new(self.setup, self.stored, faults);
        world.history = history;
        let then = &mut world;
        match self.cached {
            Cached::Nothing => {}
            Cached::Clean => {
                then.ask(Op::Read(MAIN));
                then.end_all();
            }
            Cached::Dirty => then.ask(Op::Write(MAIN)),
            Cached::Tx => {
                then.ask(Op::Write(MAIN));
                then.demand();
            }
            Cached::Overtaken => {
                then.ask(Op::Write(MAIN));
                then.demand();
                then.ask(Op::Write(INSIDE));
            }
            Cached::Rx => then.ask(Op::Read(AROUND)),
            Cached::Error => {
                then.ask(Op::Read(MAIN));
                if let Some(op) = then.fetches.keys().next().copied() {
                    then.end_fetch(op, Err(BackendError::Unavailable));
                }
            }
            Cached::Absent => {
                then.ask(Op::Read(AROUND));
                then.end_all();
            }
            Cached::Mixed => {
                then.ask(Op::Read((2, 5)));
                then.end_all();
                then.ask(Op::Journaled((5, 7)));
                then.ask(Op::Journaled((7, 9)));
            }
            Cached::Paused => {
                then.ask(Op::Write(MAIN));
                then.demand();
                if let Some(op) = then.writes.keys().next().copied() {
                    then.end_write(op, Err(BackendError::Unavailable));
                }
            }
        }
        world
    }
}

impl World {
    /// Ends all fetches under way with what the store holds.
    fn end_all(&mut self) {
        while let Some(op) = self.fetches.keys().next().copied() {
            let version = self.fetches[&op].versions.last().unwrap().clone();
            self.end_fetch(op, Ok(version));
        }
    }
}

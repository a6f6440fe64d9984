//! A number for everything that decides how a world goes on, so that a search looks at equal worlds once.
//!
//! The engine is taken as it shows itself for debugging, which leaves nothing out. Numbers that only grow, such as those
//! of operations, are replaced by their order.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hash, Hasher};

use super::world::World;

/// What the next number stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    Op,
    Stamp,
    Counter,
}

struct Sink<H> {
    hasher: H,
    next: Next,
    ops: BTreeMap<u64, u64>,
    stamps: Vec<u64>,
}

impl<H: Hasher> Write for Sink<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.next != Next::Plain
            && let Ok(number) = text.parse::<u64>()
        {
            let number = match std::mem::replace(&mut self.next, Next::Plain) {
                Next::Plain => number,
                Next::Counter => 0,
                Next::Op => self.ops.get(&number).copied().unwrap_or(1000 + number),
                Next::Stamp => self.place_of(number),
            };
            number.hash(&mut self.hasher);
            return Ok(());
        }
        match text {
            "OpId" => self.next = Next::Op,
            "stamp" => self.next = Next::Stamp,
            "last_op" | "last_stamp" | "last_idle" => self.next = Next::Counter,
            "(" | ": " => {}
            _ => self.next = Next::Plain,
        }
        self.hasher.write(text.as_bytes());
        Ok(())
    }
}

impl<H> Sink<H> {
    fn place_of(&mut self, stamp: u64) -> u64 {
        if stamp == 0 {
            return 0;
        }
        let known = self.stamps.iter().position(|known| *known == stamp);
        let place = known.unwrap_or_else(|| {
            self.stamps.push(stamp);
            self.stamps.len() - 1
        });
        place as u64 + 1
    }
}

impl World {
    pub(super) fn digest(&self) -> u64 {
        let ops = self.engine.ops.keys().zip(0..);
        let mut sink = Sink {
            hasher: foldhash::fast::FixedState::default().build_hasher(),
            next: Next::Plain,
            ops: ops.map(|(op, place)| (op.0, place)).collect(),
            stamps: Vec::new(),
        };
        write!(sink, "{:?}", self.engine).expect("hashing does not fail");
        let mut hasher = sink.hasher;
        self.shelf.windows().hash(&mut hasher);
        self.store.hash(&mut hasher);
        self.oracle.hash(&mut hasher);
        (self.now.as_nanos(), self.faults, self.was_unstored).hash(&mut hasher);
        for fetch in self.fetches.values() {
            fetch.versions.hash(&mut hasher);
        }
        for write in self.writes.values().chain(&self.given_up) {
            write.cells.hash(&mut hasher);
            write.has_landed.hash(&mut hasher);
        }
        hasher.finish()
    }
}

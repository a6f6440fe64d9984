//! Going through all orders of events, depth first.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::callers::Op;
use super::cases::{Start, Vocabulary};
use super::seen::{Seen, Visit};
use super::world::{History, World};
use crate::engine::BufferState;
use crate::engine::extent::OpId;
use crate::error::BackendError;

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// How many operations are asked.
    pub(super) asked: usize,
    /// Out of which.
    pub(super) vocabulary: Vocabulary,
    /// How many things may go wrong, at most one.
    pub(super) faults: usize,
}

/// What a search went through.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    /// Worlds, no two of them equal.
    pub(super) worlds: u64,
    /// Worlds met again with more left to ask, and so gone on from again.
    pub(super) again: u64,
    /// Events, each made in one of them.
    pub(super) events: u64,
    /// Ways through from the beginning to where all is at rest.
    pub(super) ends: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.again += other.again;
        self.events += other.events;
        self.ends += other.ends;
    }
}

/// One thing that may happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A fetch ends with one of the versions that the store held since it began.
    Fetched(OpId, usize),
    FetchFails(OpId),
    Stored(OpId),
    NotStored(OpId),
    /// The write fails, but half of it was stored.
    HalfStored(OpId),
    /// The store has it; the answer is still to come.
    Lands(OpId),
    /// What was given up lands.
    LandsLate(usize),
    /// The flusher asks for everything.
    Demand,
    /// The trimmer asks for everything.
    Trim,
    /// The next deadline passes.
    Time,
    Ask(Op),
    /// All is at rest, and stays so.
    End,
}

/// One way through.
struct Run {
    world: World,
    asked: usize,
    depth: Depth,
}

impl Run {
    fn new(start: &Start, depth: Depth, history: Option<History>) -> Self {
        Self {
            world: start.world(depth.faults, history),
            asked: 0,
            depth,
        }
    }

    fn events(&self) -> Vec<Event> {
        let world = &self.world;
        let may_fail = world.faults > 0;
        let may_ask = self.asked < self.depth.asked;
        let mut events = Vec::new();
        if world.is_at_rest() {
            events.push(Event::End);
        }
        for (op, fetch) in &world.fetches {
            events.extend(
                (0..fetch.versions.len())
                    .rev()
                    .map(|version| Event::Fetched(*op, version)),
            );
            if may_fail {
                events.push(Event::FetchFails(*op));
            }
        }
        let is_watched = may_ask || may_fail || !world.fetches.is_empty();
        for (op, write) in &world.writes {
            events.push(Event::Stored(*op));
            if may_fail {
                events.push(Event::NotStored(*op));
            }
            if may_fail && !write.has_landed && write.cells.len() > 1 {
                events.push(Event::HalfStored(*op));
            }
            if is_watched && !write.has_landed {
                events.push(Event::Lands(*op));
            }
        }
        events.extend((0..world.given_up.len()).map(Event::LandsLate));
        if world.shelf.totals().bytes_in(BufferState::Dirty) > 0 {
            events.push(Event::Demand);
        }
        if world.shelf.waiting().is_some() {
            events.push(Event::Trim);
        }
        let is_paused = !world.engine.pausing.is_empty();
        if is_paused || (may_fail && world.engine.poll_deadline().is_some()) {
            events.push(Event::Time);
        }
        if may_ask {
            let ops = self.depth.vocabulary.ops();
            events.extend(ops.iter().map(|op| Event::Ask(*op)));
        }
        events
    }

    fn apply(&mut self, event: Event) {
        let world = &mut self.world;
        world.tell(|| format!("{event:?}"));
        match event {
            Event::Fetched(op, version) => {
                let version = world.fetches[&op].versions[version].clone();
                world.end_fetch(op, Ok(version));
            }
            Event::FetchFails(op) => {
                world.faults -= 1;
                world.end_fetch(op, Err(BackendError::Unavailable));
            }
            Event::Stored(op) => {
                let write = world.writes[&op].clone();
                if !write.has_landed {
                    world.writes.get_mut(&op).unwrap().has_landed = true;
                    world.land(&write.cells, false);
                }
                drop(write);
                world.end_write(op, Ok(()));
            }
            Event::NotStored(op) => {
                world.faults -= 1;
                world.end_write(op, Err(BackendError::Unavailable));
            }
            Event::HalfStored(op) => {
                world.faults -= 1;
                let cells = world.writes[&op].cells.clone();
                world.writes.get_mut(&op).unwrap().has_landed = true;
                world.land(&cells[..cells.len() / 2], false);
                world.end_write(op, Err(BackendError::Unavailable));
            }
            Event::Lands(op) => {
                let cells = world.writes[&op].cells.clone();
                world.writes.get_mut(&op).unwrap().has_landed = true;
                world.land(&cells, false);
            }
            Event::LandsLate(nth) => {
                let write = world.given_up.remove(nth);
                world.land(&write.cells, true);
            }
            Event::Demand => world.demand(),
            Event::Trim => {
                world.step(|engine, now| engine.trim(now, u64::MAX));
            }
            Event::Time => {
                world.now = world.engine.poll_deadline().unwrap();
                if world
                    .engine
                    .pausing
                    .first()
                    .is_none_or(|(end, _)| *end > world.now)
                {
                    world.faults -= 1;
                }
                world.step(|engine, now| engine.handle_deadline(now));
            }
            Event::Ask(op) => {
                self.asked += 1;
                world.ask(op);
            }
            Event::End => world.check_end(),
        }
    }

    /// Whether nobody was here before with as much left to ask and to go wrong.
    fn is_new_to(&self, seen: &mut Seen, tally: &mut Tally) -> bool {
        let left = (self.depth.asked - self.asked, self.world.faults);
        let visit = seen.visit(self.world.digest(), left);
        tally.worlds += u64::from(visit == Visit::First);
        tally.again += u64::from(visit == Visit::Further);
        visit != Visit::Known
    }
}

/// A world that is gone on from.
struct Frame {
    events: Vec<Event>,
    /// How many of them were made.
    made: usize,
}

/// Goes through everything that may follow `start` but what was `seen`, up to the first failure, of which it gives the
/// history.
pub(super) fn search(
    number: usize,
    start: &Start,
    depth: Depth,
    seen: &mut Seen,
) -> Result<Tally, String> {
    let mut frames = Vec::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        go_through(start, depth, seen, &mut frames)
    }));
    match outcome {
        Ok(tally) => Ok(tally),
        Err(_) => {
            let path = frames.iter().map(|frame| (frame.made - 1).to_string());
            let path: Vec<String> = path.collect();
            Err(replay(number, start, depth, &path.join(",")))
        }
    }
}

fn go_through(start: &Start, depth: Depth, seen: &mut Seen, frames: &mut Vec<Frame>) -> Tally {
    let mut tally = Tally::default();
    let first = Run::new(start, depth, None);
    if !first.is_new_to(seen, &mut tally) {
        return tally;
    }
    frames.push(Frame {
        events: first.events(),
        made: 0,
    });
    let mut at_hand = Some(first);
    while let Some(top) = frames.last_mut() {
        let Some(event) = top.events.get(top.made).copied() else {
            frames.pop();
            at_hand = None;
            continue;
        };
        top.made += 1;
        let mut run = at_hand.take().unwrap_or_else(|| {
            let mut run = Run::new(start, depth, None);
            let (_, before) = frames.split_last().expect("a frame");
            for frame in before {
                run.apply(frame.events[frame.made - 1]);
            }
            run
        });
        run.world.checks = true;
        run.apply(event);
        tally.events += 1;
        if matches!(event, Event::End) {
            tally.ends += 1;
        } else if run.is_new_to(seen, &mut tally) {
            frames.push(Frame {
                events: run.events(),
                made: 0,
            });
            at_hand = Some(run);
        }
    }
    tally
}

/// Makes one path again, checking each step, and tells all that happened.
pub(super) fn replay(number: usize, start: &Start, depth: Depth, choices: &str) -> String {
    let choices = choices.split(',').filter(|choice| !choice.is_empty());
    let path: Vec<u8> = choices.map(|choice| choice.parse().unwrap()).collect();
    let mut made = 0;
    let history = History::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(start, depth, Some(history.clone()));
        run.world.checks = true;
        for choice in &path {
            made += 1;
            let event = run.events()[usize::from(*choice)];
            run.apply(event);
        }
    }));
    let text = outcome.err().map(|failure| {
        let text = failure.downcast_ref::<String>().cloned();
        text.or_else(|| {
            failure
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_default()
    });
    let path: Vec<String> = path.iter().take(made).map(u8::to_string).collect();
    format!(
        "{}\n{}\n{}\nreplay with CACHALOT_PATH={number}/{}/{}/{}:{} cargo test exhaustive",
        start.describe(),
        history.borrow().join("\n"),
        text.unwrap_or_else(|| "all is well".to_owned()),
        depth.asked,
        depth.vocabulary as usize,
        depth.faults,
        path.join(",")
    )
}

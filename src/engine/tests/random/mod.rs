//! Random runs: many callers, a store that answers late, wrongly, twice or never, tiny limits, and a model that
//! knows for every byte what a read may return. A failure prints its seed; `CACHALOT_SEED=n` runs that one alone,
//! `CACHALOT_SEEDS=n` as many as that.

mod around;
mod callers;
mod dice;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

pub(super) use dice::Dice;

use super::model::{INITIAL, Look, Model, Tag};
use super::rig::{Rig, RigOptions, name};
use super::shelf::Bounds;
use crate::engine::extent::OpId;
use crate::engine::{Layout, Reply, WaiterId};
use crate::error::BackendError;
use crate::fuzz::Choices;
use crate::io::JournalNotice;
use crate::request::{Missing, ObjectExtent};
use crate::types::{SnapId, Truncation};

const OBJECTS: usize = 3;
const SIZE: u64 = 600 << 10;
const STEPS: usize = 150;
const INITIAL_LENS: [u64; OBJECTS] = [SIZE, 300_001, 0];

type Parts = Vec<(usize, (u64, u64))>;

/// A caller that waits.
#[derive(Debug)]
enum Waiting {
    Read {
        look: Look,
        parts: Parts,
        deliver: bool,
    },
    Write {
        tag: Tag,
        parts: Parts,
        /// What had entered of it may have been purged before it was answered.
        is_purged: bool,
    },
    /// Looks at what the store holds of everything when it is answered.
    Flush {
        look: Look,
        is_whole: bool,
    },
    Drop,
}

/// A discard or truncation with the caller's own change to the store, in their order.
#[derive(Debug)]
struct Drop {
    waiter: WaiterId,
    parts: Parts,
    truncates_to: Option<u64>,
    is_second: bool,
}

#[derive(Debug)]
struct Run {
    dice: Dice,
    rig: Rig,
    model: Model,
    waiting: BTreeMap<WaiterId, Waiting>,
    dropping: Option<Drop>,
    /// What the store has read for fetches that have not yet ended.
    fetched: BTreeMap<OpId, Result<Bytes, BackendError>>,
    ended: Vec<OpId>,
    /// By journal entry: where it was written, as far as its end was not told.
    journal: BTreeMap<u64, Parts>,
    truncation: Truncation,
    truncating: Option<WaiterId>,
    faults: bool,
    options: RigOptions,
}

fn options(dice: &mut Dice) -> RigOptions {
    let mut options = RigOptions::default();
    options.capabilities.scattered_writes = dice.one_in(2);
    options.capabilities.write_bytes_max = dice.of(&[4 << 20, 4 << 20, 64 << 10, 8 << 10, 1000]);
    options.capabilities.write_pieces_max = dice.of(&[1024, 1024, 3, 1]);
    options.limits.writebacks_in_flight = dice.of(&[32, 32, 2, 1]);
    if dice.one_in(10) {
        options.until_flush = dice.one_in(2);
        options.limits.write_through = !options.until_flush;
    }
    options.layout = Some(Layout::new(64 << 10, 3, 640 << 10).unwrap());
    if dice.one_in(5) {
        options.missing = Missing::NotFound;
    }
    let any = 1 << 40;
    options.bounds = Bounds {
        room: dice.of(&[any, any, 400 << 10, 64 << 10]),
        dirty: dice.of(&[any, any, 100 << 10, 20 << 10]),
        dirty_buffers: dice.of(&[any, any, 40, 7]),
    };
    options
}

impl Run {
    fn new(mut dice: Dice) -> Self {
        let options = options(&mut dice);
        let model = Model::new(&INITIAL_LENS);
        let mut rig = Rig::with(options.clone());
        for (object, len) in INITIAL_LENS.into_iter().enumerate() {
            if len > 0 {
                rig.store_object(object as u64, model.bytes(INITIAL, object, (0, len)));
            }
        }
        rig.serves_room = dice.one_in(2);
        Self {
            dice,
            rig,
            model,
            waiting: BTreeMap::new(),
            dropping: None,
            fetched: BTreeMap::new(),
            ended: Vec::new(),
            journal: BTreeMap::new(),
            truncation: Truncation::default(),
            truncating: None,
            faults: true,
            options,
        }
    }

    fn looks(waiting: &mut BTreeMap<WaiterId, Waiting>) -> Vec<&mut Look> {
        waiting
            .values_mut()
            .filter_map(|waiting| match waiting {
                Waiting::Read { look, .. } | Waiting::Flush { look, .. } => Some(look),
                Waiting::Write { .. } | Waiting::Drop => None,
            })
            .collect()
    }

    fn everything() -> Parts {
        (0..OBJECTS).map(|object| (object, (0, SIZE))).collect()
    }

    /// Whether a discard or truncation of these bytes is under way.
    fn is_dropping(&self, parts: &[(usize, (u64, u64))]) -> bool {
        self.dropping
            .as_ref()
            .is_some_and(|drop| overlap(&drop.parts, parts))
    }

    /// Looks at who was answered.
    fn settle(&mut self) {
        self.model.step += 1;
        let answered: Vec<WaiterId> = self
            .waiting
            .keys()
            .copied()
            .filter(|waiter| self.rig.is_answered(*waiter))
            .collect();
        for waiter in answered {
            let Some(waiting) = self.waiting.remove(&waiter) else {
                continue;
            };
            match waiting {
                Waiting::Read {
                    look,
                    parts,
                    deliver,
                } => self.check_read(waiter, &look, &parts, deliver),
                Waiting::Write {
                    tag,
                    parts,
                    is_purged,
                } => {
                    let result = self.rig.done(waiter);
                    let through = self.options.limits.write_through || self.options.until_flush;
                    let may_fail = through && self.faults;
                    assert!(result.is_ok() || may_fail, "{result:?}");
                    let parts = if is_purged { Parts::new() } else { parts };
                    self.model.enter(&parts, tag);
                }
                Waiting::Flush { look, is_whole } => {
                    let result = self.rig.flushed(waiter);
                    assert!(result.is_ok() || self.faults, "{result:?}");
                    if result.is_ok() && is_whole {
                        self.check_store(&look);
                    }
                }
                Waiting::Drop => assert_eq!(self.rig.done(waiter), Ok(())),
            }
        }
        self.go_on_dropping();
        self.take_notices();
    }

    /// Compares what the store gives to a reader who knows of the last truncation.
    fn check_store(&self, look: &Look) {
        let objects: Vec<_> = (0..OBJECTS)
            .map(|object| (name(object as u64), self.truncation_of(object)))
            .collect();
        self.model.check(look, |_, object, at| {
            let (name, truncation) = &objects[object];
            self.rig.store.byte(name, at, *truncation)
        });
    }

    fn truncation_of(&self, object: usize) -> Truncation {
        let layout = self.options.layout.unwrap();
        Truncation {
            seq: self.truncation.seq,
            size_bytes: layout.object_size_for(self.truncation.size_bytes, object as u64),
        }
    }

    fn check_read(&self, waiter: WaiterId, look: &Look, parts: &Parts, deliver: bool) {
        match self.rig.answer(waiter) {
            Reply::Read(Ok(bytes)) if deliver => {
                let bytes = bytes.to_vec();
                let total: u64 = parts.iter().map(|(_, (start, end))| end - start).sum();
                assert_eq!(bytes.len() as u64, total, "a read of the wrong length");
                let before = |nth: usize| -> u64 {
                    parts[..nth]
                        .iter()
                        .map(|(_, (start, end))| end - start)
                        .sum()
                };
                self.model.check(look, |nth, _, at| {
                    bytes[(before(nth) + at - parts[nth].1.0) as usize]
                });
            }
            Reply::Read(Ok(bytes)) => assert!(bytes.is_empty()),
            Reply::Read(Err(crate::CacheError::NotFound { .. })) => {
                assert_eq!(self.options.missing, Missing::NotFound);
                assert!(
                    self.model.may_be_zeros(look),
                    "bytes were said not to exist"
                );
            }
            Reply::Read(Err(error)) => assert!(self.faults, "{error:?}"),
            other => panic!("a read is answered with {other:?}"),
        }
    }

    /// After a discard the caller changes the store, and discards once more what reads brought back meanwhile.
    fn go_on_dropping(&mut self) {
        let is_over = |drop: &Drop| self.rig.is_answered(drop.waiter);
        if !self.dropping.as_ref().is_some_and(is_over) {
            return;
        }
        let Some(drop) = self.dropping.take() else {
            return;
        };
        if drop.is_second {
            self.model.settle_zero(&drop.parts);
            return;
        }
        for (object, (start, end)) in &drop.parts {
            let name = name(*object as u64);
            match drop.truncates_to {
                Some(size) => self.rig.store.truncate(&name, size),
                None => self.rig.store.discard(&name, *start, *end),
            }
        }
        // The fetches under way may have read before that.
        let waiter = self.rig.next_waiter();
        self.waiting.insert(waiter, Waiting::Drop);
        let extents = extents(&drop.parts);
        self.rig
            .step(|engine, now| engine.discard(now, waiter, &extents));
        self.dropping = Some(Drop {
            waiter,
            is_second: true,
            ..drop
        });
        self.settle();
    }

    fn take_notices(&mut self) {
        for notice in std::mem::take(&mut self.rig.notices) {
            let (object, range, tid) = match notice {
                JournalNotice::Committed { object, range, tid } => (object, range, tid),
                JournalNotice::Overwritten {
                    object, range, old, ..
                } => (object, range, old),
            };
            let open = self
                .journal
                .get_mut(&tid.0.get())
                .expect("a notice of an entry that is open");
            let object = (0..OBJECTS)
                .find(|number| name(*number as u64) == object)
                .unwrap();
            let mut told = 0;
            for (own, (start, end)) in std::mem::take(open) {
                let common = (start.max(range.start()), end.min(range.end()));
                if own != object || common.0 >= common.1 {
                    open.push((own, (start, end)));
                    continue;
                }
                told += common.1 - common.0;
                for rest in [(start, common.0), (common.1, end)] {
                    if rest.0 < rest.1 {
                        open.push((own, rest));
                    }
                }
            }
            assert_eq!(told, range.len(), "{range} of entry {tid:?} ends twice");
        }
    }

    fn step(&mut self) {
        match self.dice.below(160) {
            0..=24 => self.read(true),
            25..=28 => self.read(false),
            29..=38 => self.door_read(),
            39..=52 => self.write(false),
            53..=58 => self.write(true),
            59..=73 => self.door_write(),
            74..=77 => self.flush(true),
            78..=80 => self.flush(false),
            81..=85 => self.demand(),
            86..=105 => self.fetch_advances(),
            106..=127 => self.write_advances(),
            128..=131 => {
                let bytes = self.dice.of(&[1, 5000, 100_000, u64::MAX]);
                self.rig.trim(bytes);
            }
            132..=138 => self.advance(),
            139..=141 => self.drop_bytes(),
            142 => self.truncate_file(),
            143 if self.dice.one_in(3) => self.purge(),
            144 => {
                self.rig.release();
            }
            145 => self.rig.step(|engine, _| engine.clear_nonexistence()),
            146 => self.change_context(),
            147 => self.change_limits(),
            148..=150 => self.cancel(),
            151 => {
                self.rig.step(|engine, _| engine.close_idle(1));
            }
            152..=153 => self.stray_end(),
            154..=158 => self.serve_room(),
            _ => {
                let (object, range) = self.dice.part();
                let wanted = extents(&[(object, range)]);
                self.rig
                    .step(|engine, _| engine.is_cached(&wanted, SnapId::HEAD));
            }
        }
        self.settle();
    }

    /// Faults stop, and everything is driven to its end.
    fn finish(&mut self) {
        self.faults = false;
        self.rig.serves_room = true;
        let mut limits = self.options.limits;
        limits.writebacks_in_flight = 4;
        self.rig.step(|engine, now| engine.set_limits(now, limits));
        // What failed before may still be told.
        self.faults = true;
        self.drive();
        self.faults = false;
        self.flush(true);
        self.drive();
        assert!(self.rig.engine.is_quiet());
        assert_eq!(self.rig.shelf.used().dirty, 0);
        let everything = Self::everything();
        let look = self.model.look(&everything);
        self.check_store(&look);
        for (tid, open) in &self.journal {
            assert!(open.is_empty(), "entry {tid} is never retired: {open:?}");
        }
        self.rig.release();
        self.rig.purge();
        assert_eq!(self.rig.shelf.used(), crate::engine::Charge::default());
        assert_eq!(self.rig.shelf.objects(), 0);
        assert_eq!(self.rig.shelf.windows(), 0);
    }

    fn drive(&mut self) {
        for _ in 0..10_000 {
            while !self.rig.fetches.is_empty() || !self.rig.write_backs.is_empty() {
                let faults = std::mem::replace(&mut self.faults, false);
                self.fetch_advances();
                self.write_advances();
                self.faults = faults;
                self.settle();
            }
            if !self.rig.is_anybody_waiting() {
                return;
            }
            self.rig.trim(u64::MAX);
            self.rig.write_back_all();
            self.rig.advance(Duration::from_millis(400));
            self.settle();
        }
        panic!("some wait for ever: {:?}", self.rig.waiting());
    }
}

fn extents(parts: &[(usize, (u64, u64))]) -> Vec<ObjectExtent> {
    parts
        .iter()
        .map(|(object, (start, end))| {
            ObjectExtent::new(*object as u64, *start, end - start).unwrap()
        })
        .collect()
}

fn overlap(a: &[(usize, (u64, u64))], b: &[(usize, (u64, u64))]) -> bool {
    a.iter().any(|(object, range)| {
        b.iter()
            .any(|(other, known)| object == other && range.0 < known.1 && known.0 < range.1)
    })
}

fn run(seed: u64) {
    let mut run = Run::new(Dice::Seed(seed));
    for _ in 0..STEPS {
        run.step();
    }
    run.finish();
}

/// Steps as the bytes say, then the end that every run takes.
pub(crate) fn fuzz(input: &[u8]) {
    let mut run = Run::new(Dice::Given(Choices::new(input)));
    for _ in 0..STEPS {
        if run.dice.is_over() {
            break;
        }
        run.step();
    }
    run.finish();
}

/// B-02, R-01, R-05, W-01, W-04, F-05, F-06, J-02, S-03, S-05, H-02, H-03, H-04, H-10, H-11, H-13, H-26, H-27, H-39
#[test]
fn random_runs_agree_with_the_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("CACHALOT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CACHALOT_SEEDS").unwrap_or(60),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(failure) = outcome {
            let text = failure
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| failure.downcast_ref::<&str>().copied());
            panic!(
                "{}\nreplay with CACHALOT_SEED={seed} cargo test random_runs_agree_with_the_model",
                text.unwrap_or("it failed")
            );
        }
    }
}

//! Rule T-03: hit ratios on traces, against an exact LRU that holds as many blocks, and against the optimum, which knows
//! the future (Belady, IBM Systems Journal 1966).

use std::collections::BTreeMap;

use super::random::Dice;
use super::rig::*;
use crate::engine::BufferState;

const BLOCK: u64 = 4096;
/// How many blocks fit into the cache.
const ROOM: usize = 256;
/// How many blocks there are.
const BLOCKS: u64 = 2560;
const BLOCKS_PER_OBJECT: u64 = 512;

#[derive(Clone, Copy)]
enum Access {
    Read(u64),
    Write(u64),
}

/// The least recently used block goes.
#[derive(Default)]
struct Lru {
    by_age: BTreeMap<u64, u64>,
    ages: BTreeMap<u64, u64>,
    now: u64,
}

impl Lru {
    fn hits(&mut self, block: u64) -> bool {
        self.now += 1;
        let before = self.ages.insert(block, self.now);
        if let Some(age) = before {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.now, block);
        if self.ages.len() > ROOM
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.ages.remove(&oldest);
        }
        before.is_some()
    }
}

/// How many accesses hit when the block goes that is wanted last.
fn best_hits(blocks: &[u64]) -> u32 {
    let mut next_use = vec![u64::MAX; blocks.len()];
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for (nth, block) in blocks.iter().enumerate().rev() {
        next_use[nth] = seen.insert(*block, nth as u64).unwrap_or(u64::MAX);
    }
    // By when they are wanted again; what never is, is told apart by its block.
    let (mut held, mut by_use): (BTreeMap<u64, u64>, BTreeMap<(u64, u64), ()>) = Default::default();
    let mut hits = 0;
    for (nth, block) in blocks.iter().enumerate() {
        if let Some(wanted) = held.insert(*block, next_use[nth]) {
            by_use.remove(&(wanted, *block));
            hits += 1;
        }
        by_use.insert((next_use[nth], *block), ());
        if held.len() > ROOM
            && let Some(((_, last), ())) = by_use.pop_last()
        {
            held.remove(&last);
        }
    }
    hits
}

/// The engine as a cache of blocks.
struct Ours(Rig);

impl Ours {
    fn new() -> Self {
        let mut rig = Rig::new();
        for object in 0..BLOCKS / BLOCKS_PER_OBJECT {
            rig.store_object(object, vec![1; (BLOCKS_PER_OBJECT * BLOCK) as usize]);
        }
        Self(rig)
    }

    fn hits(&mut self, access: Access) -> bool {
        let rig = &mut self.0;
        let (Access::Read(block) | Access::Write(block)) = access;
        let (object, offset) = (block / BLOCKS_PER_OBJECT, block % BLOCKS_PER_OBJECT * BLOCK);
        let is_hit = rig.door_read(object, offset, BLOCK).is_some();
        let waiter = rig.next_waiter();
        match access {
            Access::Read(_) if is_hit => {
                rig.forget(waiter);
                return true;
            }
            Access::Read(_) => {
                let shape = &rig.engine.options().shape;
                let request = shape.checked_read(read_of(object, offset, BLOCK)).unwrap();
                rig.engine.read(rig.now, waiter, request, true);
                rig.take_actions();
                while let Some((op, read)) = rig.fetches.pop_first() {
                    let result = rig.store.read(&read);
                    rig.engine.handle_fetch(rig.now, op, result);
                    rig.take_actions();
                }
            }
            Access::Write(_) => {
                rig.forget(waiter);
                rig.engine_write(object, offset, &[1; BLOCK as usize]);
                let waiter = rig.next_waiter();
                rig.engine.flush(rig.now, waiter, None);
                rig.take_actions();
                while let Some((op, _)) = rig.write_backs.pop_first() {
                    rig.engine.handle_write_back(rig.now, op, Ok(()));
                    rig.take_actions();
                }
                rig.sent.clear();
            }
        }
        while rig.bytes_in(BufferState::Clean) > (ROOM as u64 * BLOCK) as i64 {
            assert!(rig.engine.trim(rig.now, 1) > 0, "the trimmer is stuck");
        }
        is_hit
    }
}

/// Part of the accesses that hit: ours, and LRU's.
fn ratios(trace: impl Iterator<Item = Access>) -> (f64, f64) {
    let (mut ours, mut lru) = (Ours::new(), Lru::default());
    let (mut accesses, mut our_hits, mut lru_hits) = (0u32, 0u32, 0u32);
    for access in trace {
        let (Access::Read(block) | Access::Write(block)) = access;
        accesses += 1;
        our_hits += u32::from(ours.hits(access));
        lru_hits += u32::from(lru.hits(block));
    }
    ours.0.check();
    let part = |hits: u32| f64::from(hits) / f64::from(accesses);
    (part(our_hits), part(lru_hits))
}

/// Blocks by Zipf's law, scattered over the objects.
fn zipf(skew: f64) -> impl FnMut(&mut Dice) -> u64 {
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=BLOCKS {
        sum += (rank as f64).powf(-skew);
        sums.push(sum);
    }
    move |dice| {
        let at = dice.below(1 << 52) as f64 / (1u64 << 52) as f64 * sum;
        let rank = sums.partition_point(|known| *known <= at) as u64;
        rank * 1_103 % BLOCKS
    }
}

/// T-03: of what could be hit by one who knows the future, at least so much is. `--nocapture` shows the figures.
#[test]
#[expect(clippy::print_stdout, reason = "shows how near")]
fn hits_come_near_the_optimum() {
    let mut dice = Dice::Seed(5);
    let mut skewed = zipf(0.99);
    let zipf: Vec<u64> = (0..12_000).map(|_| skewed(&mut dice)).collect();
    let scan = (0..12_000).map(|nth| match nth % 2 {
        0 => dice.below(200),
        _ => 300 + nth / 2 % 2200,
    });
    let scan: Vec<u64> = scan.collect();
    let looped: Vec<u64> = (0..6_000).map(|nth| nth % 300).collect();
    let moving = (0..12_000).map(|nth| (nth / 2000 * 400 + dice.below(200)) % BLOCKS);
    let moving: Vec<u64> = moving.collect();
    let traces = [
        ("zipf 0.99", zipf, 0.8),
        ("scan over a hot set", scan, 0.9),
        ("loop", looped, 0.1),
        ("moving hot set", moving, 0.95),
    ];
    for (name, trace, least) in traces {
        let (ours, lru) = ratios(trace.iter().map(|block| Access::Read(*block)));
        let best = f64::from(best_hits(&trace)) / trace.len() as f64;
        println!("{name}: {ours:.3}, LRU {lru:.3}, optimum {best:.3}");
        assert!(ours >= least * best, "{name}: {ours:.3} of {best:.3}");
    }
}

/// T-03
#[test]
fn zipf_hits_as_often_as_with_lru() {
    for skew in [0.7, 0.99, 1.2] {
        let (mut dice, mut next) = (Dice::Seed(1), zipf(skew));
        let (ours, lru) = ratios((0..12_000).map(|_| Access::Read(next(&mut dice))));
        assert!(
            ours >= lru - 0.01,
            "skew {skew}: {ours:.3} against {lru:.3}"
        );
    }
}

/// T-03
#[test]
fn zipf_with_writes_hits_as_often_as_with_lru() {
    let (mut dice, mut next) = (Dice::Seed(2), zipf(0.99));
    let (ours, lru) = ratios((0..8_000).map(|_| {
        let block = next(&mut dice);
        if dice.one_in(3) {
            Access::Write(block)
        } else {
            Access::Read(block)
        }
    }));
    assert!(ours >= lru - 0.01, "{ours:.3} against {lru:.3}");
}

/// T-03
#[test]
fn a_hot_set_that_moves_is_followed() {
    for every in [1000, 2000, 4000] {
        let mut dice = Dice::Seed(3);
        let trace = (0..16_000u64).map(|nth| {
            let base = nth / every * 400;
            let block = if dice.one_in(10) {
                dice.below(BLOCKS)
            } else {
                (base + dice.below(150)) % BLOCKS
            };
            Access::Read(block)
        });
        let (ours, lru) = ratios(trace);
        assert!(
            ours >= lru - 0.01,
            "every {every}: {ours:.3} against {lru:.3}"
        );
    }
}

/// T-03
#[test]
fn a_loop_a_little_too_large_hits_no_less_than_with_lru() {
    let (ours, lru) = ratios((0..6_000).map(|nth| Access::Read(nth % 300)));
    assert!(ours >= lru, "{ours:.3} against {lru:.3}");
}

/// T-03
#[test]
fn a_scan_does_not_wash_out_a_hot_set() {
    let mut dice = Dice::Seed(4);
    let mut ours = Ours::new();
    let mut hits = |ours: &mut Ours, accesses: u64, scans: bool| {
        let mut hits = 0;
        for nth in 0..accesses {
            let hot = Access::Read(dice.below(200));
            hits += u64::from(ours.hits(hot));
            if scans {
                ours.hits(Access::Read(300 + nth % 2200));
            }
        }
        hits
    };
    hits(&mut ours, 2000, false);
    let before = hits(&mut ours, 2200, false);
    let during = hits(&mut ours, 2200, true);
    assert!(during * 10 >= before * 9, "{during} against {before}");
    // A second scan of the same blocks does no more harm.
    let again = hits(&mut ours, 2200, true);
    assert!(again * 10 >= before * 9, "{again} against {before}");
}

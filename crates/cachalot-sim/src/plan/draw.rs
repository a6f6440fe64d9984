//! Drawing a plan from a seed.

use std::time::Duration;

use bytesize::ByteSize;
use cachalot::backend::{Capabilities, FaultPlan, StoreCondition};
use cachalot::{CacheConfig, Hints, Layout, OFFSET_BYTES_MAX};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Op, Patience, Plan, SetPlan, Step, Way, Ways};
use crate::space::{Part, Space, Spread};

struct Draw {
    dice: StdRng,
    last_step: u32,
}

impl Plan {
    /// Draws a run of about `steps` operations.
    #[must_use]
    pub fn draw(seed: u64, steps: u32) -> Self {
        let mut draw = Draw {
            dice: StdRng::seed_from_u64(seed),
            last_step: 0,
        };
        let capabilities = draw.capabilities();
        let is_faulty = draw.one_in(4, 3);
        let sets: Vec<SetPlan> = (0..draw.dice.random_range(1..=3))
            .map(|number| draw.set(number, capabilities.snapshots))
            .collect();
        let bytes = sets.iter().map(|set| set.space.bytes() as u64).sum();
        let config = draw.config(bytes);
        let callers = draw.dice.random_range(1..=6u32);
        let callers = (0..callers)
            .map(|_| {
                let style = draw.style();
                let steps = steps.div_ceil(callers);
                (0..steps).map(|_| draw.step(&sets, style)).collect()
            })
            .collect();
        let operator = draw.operator(&sets, (bytes, is_faulty));
        let mut plan = Self {
            seed,
            config,
            capabilities,
            copy_on_write: draw.one_in(4, 1),
            is_faulty,
            late_stores: if draw.one_in(2, 1) { 0.5 } else { 0.0 },
            sets,
            callers,
            operator,
            is_abandoned: draw.one_in(10, 1),
        };
        plan.draw_fencing(draw.last_step);
        plan
    }
}

/// How a caller goes about it.
#[derive(Clone, Copy, Debug)]
struct Style {
    pause_max: Duration,
    /// Sectors in an operation.
    len_max: u32,
    /// Reads in ten reads and writes.
    reads: u32,
    /// Futures dropped in a hundred.
    drops: u32,
}

impl Draw {
    fn one_in(&mut self, of: u32, times: u32) -> bool {
        self.dice.random_range(0..of) < times
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.dice.random_range(0..from.len())]
    }

    fn capabilities(&mut self) -> Capabilities {
        let (scattered_writes, atomic_writes) = (self.dice.random(), self.dice.random());
        let ordered_writes = self.dice.random();
        Capabilities {
            scattered_writes,
            atomic_writes,
            ordered_writes,
            // Not drawn for itself, so that a seed goes on to mean what it meant. The cache makes nothing of the order.
            keepable_reads: ordered_writes,
            snapshots: self.dice.random(),
            write_bytes_max: self.pick(&[4 << 10, 64 << 10, 4 << 20]),
            write_pieces_max: self.pick(&[1, 2, 7, 64, 1024]),
            write_granularity: 1,
        }
    }

    fn set(&mut self, number: usize, snapshots: bool) -> SetPlan {
        let unit = self.pick(&[1_u32, 3, 16, 100, 512, 512, 4096, 4096]);
        let sectors_max = (1_500_000 / unit).min(1024);
        let sectors: u32 = self.dice.random_range(16..=sectors_max);
        let ways = [
            Ways::Plain,
            Ways::Discards,
            Ways::Purges,
            Ways::Truncations,
            Ways::Snapshots,
        ];
        let ways = self.pick(if snapshots { &ways } else { &ways[..4] });
        let is_file = ways == Ways::Truncations || self.one_in(2, 1);
        let spread = if is_file {
            let stripe_unit = u64::from(unit) * self.dice.random_range(1..=64u64);
            let object_size = stripe_unit * self.dice.random_range(1..=32u64);
            let abreast = self.dice.random_range(1..=4);
            let layout = Layout::new(stripe_unit, abreast, object_size);
            Spread::File(layout.unwrap_or_default())
        } else {
            let per_object = sectors.div_ceil(self.dice.random_range(1..=5));
            let bytes = u64::from(per_object) * u64::from(unit);
            let window = 256 << 10;
            let middle = window - (bytes / 2).min(window);
            let base = self.pick(&[0, middle, 7 * window - 1, OFFSET_BYTES_MAX - bytes]);
            Spread::Objects {
                base,
                sectors: per_object,
            }
        };
        let space = Space {
            name: format!("set-{number}"),
            unit,
            sectors,
            spread,
        };
        let parts = self.dice.random_range(0..=3);
        let mut stored: Vec<Part> = Vec::new();
        for _ in 0..parts {
            let part = self.part(sectors, sectors);
            if stored.iter().all(|other| !other.overlaps(part)) {
                stored.push(part);
            }
        }
        SetPlan {
            space,
            stored,
            not_found: self.one_in(6, 1),
            until_flush: false,
            ways,
        }
    }

    fn config(&mut self, bytes: u64) -> CacheConfig {
        let parts_of = |dice: &mut StdRng, all: u64| all * dice.random_range(1..=16u64) / 8;
        let max_bytes = parts_of(&mut self.dice, bytes).clamp(20_000, 8 << 20);
        let max_dirty_bytes = match self.dice.random_range(0..8) {
            0 => 0,
            1 => self.dice.random_range(1..=max_bytes / 4),
            _ => max_bytes * self.dice.random_range(1..=7u64) / 8,
        };
        let retry_delay_min = Duration::from_millis(self.pick(&[1, 10, 100]));
        CacheConfig {
            max_bytes: ByteSize(max_bytes),
            max_objects: self.pick(&[1, 3, 20, 1 << 20]),
            max_dirty_bytes: ByteSize(max_dirty_bytes),
            target_dirty_bytes: ByteSize(max_dirty_bytes * self.dice.random_range(0..=8u64) / 8),
            max_dirty_age: Duration::from_millis(self.pick(&[0, 100, 1000, 5000])),
            block_writes_upfront: self.dice.random(),
            arbiters: 1,
            writebacks_in_flight: self.pick(&[1, 2, 8, 32]),
            retry_delay_min,
            retry_delay_max: retry_delay_min * self.pick(&[1, 4, 50]),
            backend_timeout: Duration::from_millis(self.pick(&[300, 2000, 20_000])),
        }
    }

    fn part(&mut self, sectors: u32, len_max: u32) -> Part {
        let len = self.dice.random_range(1..=len_max.min(sectors));
        Part {
            at: self.dice.random_range(0..=sectors - len),
            len,
        }
    }

    fn parts(&mut self, sectors: u32, len_max: u32) -> Vec<Part> {
        let several = if self.one_in(6, 1) {
            self.dice.random_range(2..=5)
        } else {
            1
        };
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..several {
            let part = self.part(sectors, len_max);
            if parts.iter().all(|other| !other.overlaps(part)) {
                parts.push(part);
            }
        }
        parts
    }

    fn style(&mut self) -> Style {
        Style {
            pause_max: Duration::from_millis(self.pick(&[0, 0, 3, 50, 1000])),
            len_max: self.pick(&[1, 4, 32, 300]),
            reads: self.dice.random_range(1..=8),
            drops: self.pick(&[0, 0, 3, 20]),
        }
    }

    fn hints(&mut self) -> Hints {
        if self.one_in(4, 3) {
            return Hints::default();
        }
        Hints {
            dont_need: self.dice.random(),
            no_cache: self.dice.random(),
            sequential: self.dice.random(),
            random: false,
            will_need: self.dice.random(),
        }
    }

    fn pause(&mut self, max: Duration) -> Duration {
        if max.is_zero() || self.one_in(2, 1) {
            return Duration::ZERO;
        }
        if self.one_in(100, 1) {
            return Duration::from_secs(self.dice.random_range(1..10));
        }
        max.mul_f64(self.dice.random())
    }

    fn step(&mut self, sets: &[SetPlan], style: Style) -> Step {
        let number = self.dice.random_range(0..sets.len());
        let set = &sets[number];
        let op = self.op(number, set, style);
        let can_drop = matches!(
            op,
            Op::Read { .. }
                | Op::Prefetch { .. }
                | Op::Write { .. }
                | Op::Flush { .. }
                | Op::FlushAll
                | Op::Release { .. }
                | Op::IsCached { .. }
                | Op::Status { .. }
                | Op::Dump
        );
        let patience = if can_drop && self.dice.random_range(0..100) < style.drops {
            match self.dice.random_range(0..3) {
                0 => Patience::Polls(1),
                1 => Patience::Polls(self.dice.random_range(1..4)),
                _ => Patience::Time(Duration::from_millis(self.dice.random_range(0..500))),
            }
        } else {
            Patience::Endless
        };
        self.last_step += 1;
        Step {
            id: self.last_step,
            pause: self.pause(style.pause_max),
            op,
            patience,
        }
    }

    fn op(&mut self, number: usize, plan: &SetPlan, style: Style) -> Op {
        let (set, sectors) = (number, plan.space.sectors);
        let roll = self.dice.random_range(0..1000);
        if roll < 850 {
            let parts = self.parts(sectors, style.len_max);
            let way = self.pick(&[Way::Request, Way::Offset, Way::Offset, Way::Message]);
            let hints = self.hints();
            if self.dice.random_range(0..10) < style.reads {
                let snap = self.one_in(3, 1).then(|| self.dice.random());
                return Op::Read {
                    set,
                    parts,
                    way,
                    hints,
                    snap,
                };
            }
            let journal = self.one_in(12, 1);
            return Op::Write {
                set,
                parts,
                way,
                hints,
                journal,
            };
        }
        match roll {
            850..870 => {
                let (parts, hints) = (self.parts(sectors, style.len_max), self.hints());
                Op::Prefetch { set, parts, hints }
            }
            870..890 => Op::Flush { set, part: None },
            890..910 => Op::Flush {
                set,
                part: Some(self.part(sectors, sectors)),
            },
            910..915 => Op::FlushAll,
            915..925 => Op::Release { set },
            925..930 => Op::ReleaseAll,
            930..935 => Op::ClearNonexistence { set },
            935..945 => Op::IsCached {
                set,
                part: self.part(sectors, style.len_max),
            },
            945..950 => Op::Status { set },
            950..953 => Op::Dump,
            953..956 => Op::Audit,
            956..960 => Op::Close { set },
            _ => match plan.ways {
                Ways::Plain => Op::Flush { set, part: None },
                Ways::Purges => Op::Purge { set },
                Ways::Snapshots => Op::Snapshot { set },
                Ways::Truncations => Op::TruncateFile {
                    set,
                    at: self.dice.random_range(0..=sectors),
                },
                Ways::Discards => {
                    if self.one_in(4, 1) && matches!(plan.space.spread, Spread::Objects { .. }) {
                        let at = self.dice.random_range(0..sectors);
                        Op::Truncate { set, at }
                    } else {
                        Op::Discard {
                            set,
                            part: self.part(sectors, style.len_max),
                        }
                    }
                }
            },
        }
    }

    fn faults(&mut self) -> FaultPlan {
        let delay_max = Duration::from_millis(self.pick(&[1, 20, 200, 3000]));
        let mut likelihood = |max: f64| {
            if self.dice.random_range(0..3) == 0 {
                0.0
            } else {
                max * self.dice.random::<f64>()
            }
        };
        FaultPlan {
            fail: likelihood(0.3),
            lose_reply: likelihood(0.2),
            never_reply: likelihood(0.05),
            delay: likelihood(1.0),
            delay_max,
            double: likelihood(0.3),
            partial_store: likelihood(0.2),
            short_read: likelihood(1.0),
        }
    }

    /// Delays alone: a store that is well, and slow.
    fn slowness(&mut self) -> FaultPlan {
        FaultPlan {
            delay: self.dice.random(),
            delay_max: Duration::from_millis(self.pick(&[1, 5, 20])),
            short_read: self.dice.random(),
            double: self.dice.random::<f64>() * 0.3,
            ..FaultPlan::default()
        }
    }

    fn operator(&mut self, sets: &[SetPlan], (bytes, is_faulty): (u64, bool)) -> Vec<Step> {
        let mut steps = Vec::new();
        for turn in 0..self.dice.random_range(1..=8) {
            let op = match self.dice.random_range(0..6) {
                _ if turn == 0 => self.store(is_faulty),
                0 | 1 => self.store(is_faulty),
                2 => Op::SetLimits(self.config(bytes)),
                3 => Op::Audit,
                4 => Op::Dump,
                _ => Op::Status {
                    set: self.dice.random_range(0..sets.len()),
                },
            };
            let pause = if turn == 0 {
                Duration::ZERO
            } else {
                Duration::from_millis(self.pick(&[1, 10, 100, 1000, 5000]))
            };
            self.last_step += 1;
            steps.push(Step {
                id: self.last_step,
                pause,
                op,
                patience: Patience::Endless,
            });
        }
        steps
    }

    fn store(&mut self, is_faulty: bool) -> Op {
        let condition = if is_faulty && self.one_in(3, 1) {
            self.pick(&[
                StoreCondition::Down,
                StoreCondition::Full,
                StoreCondition::ReadOnly,
            ])
        } else {
            StoreCondition::Up
        };
        let faults = if is_faulty {
            self.faults()
        } else {
            self.slowness()
        };
        Op::Store { condition, faults }
    }
}

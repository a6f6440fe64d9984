//! Which cases there are, and what exactly each of them measures: sizes, threads, limits.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bench::args::BenchArgs;
use crate::error::CliError;
use crate::output::human_bytes;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// A footprint that stays in the processor's caches, more or less.
const HOT_BYTES: u64 = 4 * MIB;
/// One that does not.
const WARM_BYTES: u64 = 256 * MIB;

/// A case, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Case {
    /// Reads of 4 KiB that are in memory, which came in large pieces.
    #[serde(rename = "read_hit_4k")]
    #[value(name = "read_hit_4k")]
    ReadHit,
    /// The same over data that came in small pieces: 4 KiB in random order, 512 bytes, or reads of 64 KiB.
    #[serde(rename = "read_hit_4k_fragmented")]
    #[value(name = "read_hit_4k_fragmented")]
    ReadHitFragmented,
    /// Writes of 4 KiB over dirty buffers of 4 KiB; nothing is written back.
    #[serde(rename = "write_absorb_4k")]
    #[value(name = "write_absorb_4k")]
    WriteAbsorb,
    /// The same over data that came in other pieces than those that are written.
    #[serde(rename = "write_absorb_4k_fragmented")]
    #[value(name = "write_absorb_4k_fragmented")]
    WriteAbsorbFragmented,
    /// 1 GiB written in order with a dirty limit of 32 MiB, then flushed; the flush counts.
    WriteFlushSeq,
    /// The same in random order.
    WriteFlushRand,
    /// Reads of 64 KiB, none of them in memory, with evictions.
    #[serde(rename = "read_miss_64k")]
    #[value(name = "read_miss_64k")]
    ReadMiss,
    /// 70 % reads and 30 % writes of 4 KiB, zipf 0.99, over four times what the cache holds and a store of 200 µs.
    MixedZipf,
    /// Writes of 128 bytes in order, absorbed, then flushed; the flush does not count.
    TinyWrites,
    /// Hits by one thread while another writes 256 MiB in buffers of 4 KiB and flushes them.
    FlushUnderLoad,
    /// A read of 4 MiB over 1024 fetches of 4 KiB that are in flight in the same object.
    ReadOverFetches,
    /// All of them, with the threads, footprints and fills that matter, each in a process of its own.
    All,
}

/// How data came into the cache before it is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Fill {
    /// Writes of 4 MiB, each from memory of its own.
    Whole,
    /// Writes of 4 KiB in order.
    Seq4k,
    /// Writes of 4 KiB in random order.
    Rand4k,
    /// Writes of 512 bytes in random order.
    #[serde(rename = "rand512")]
    #[value(name = "rand512")]
    Rand512,
    /// Reads of 64 KiB from the store, in order.
    Read64k,
}

/// The store beneath a case.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct StorePlan {
    pub(crate) delay_ns: u64,
    /// Whether each read is answered with memory of its own.
    pub(crate) fresh_buffers: bool,
    /// Whether one write may hold several runs.
    pub(crate) scattered: bool,
}

impl StorePlan {
    pub(crate) const fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay_ns)
    }
}

/// One measurement, to the last number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) case: Case,
    pub(crate) threads: usize,
    pub(crate) sets: usize,
    /// How many operations are under way at once, over all threads.
    pub(crate) in_flight: usize,
    pub(crate) fill: Fill,
    /// The bytes that are touched, over all sets.
    pub(crate) footprint_bytes: u64,
    pub(crate) block_bytes: u64,
    /// The bytes of all writes, where a case ends by its work.
    pub(crate) total_bytes: u64,
    pub(crate) limits: LimitsPlan,
    pub(crate) store: StorePlan,
    pub(crate) pace: Pace,
}

/// The cache's limits.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct LimitsPlan {
    pub(crate) cache_bytes: u64,
    pub(crate) dirty_bytes: u64,
    /// Above this many dirty bytes they are written back.
    pub(crate) target_bytes: u64,
}

/// How long and how often to measure, and what a hit does with its bytes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    pub(crate) runs: usize,
    pub(crate) seconds: f64,
    pub(crate) copy_out: bool,
    pub(crate) seed: u64,
}

impl Case {
    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it measures.
    pub(crate) fn about(self) -> String {
        self.to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string))
            .unwrap_or_default()
    }

    /// The single cases that a word stands for.
    fn singles(self) -> Vec<Self> {
        if self != Self::All {
            return vec![self];
        }
        let all = Self::value_variants().iter().copied();
        all.filter(|case| *case != Self::All).collect()
    }

    /// Threads, sets, footprints and fills that are measured unless others are asked for.
    fn usual(self) -> Vec<Shape> {
        let fragments = [Fill::Rand4k, Fill::Rand512, Fill::Read64k];
        let shape = |threads, sets, footprint_bytes, fill| Shape {
            threads,
            sets,
            footprint_bytes,
            fill,
        };
        let hot_and_warm = |fill| {
            let both = [HOT_BYTES, WARM_BYTES].into_iter();
            both.flat_map(move |bytes| [1, 2].map(|threads| shape(threads, 1, bytes, fill)))
                .chain([shape(2, 10, WARM_BYTES, fill)])
                .collect::<Vec<Shape>>()
        };
        match self {
            Self::ReadHit => hot_and_warm(Fill::Whole),
            Self::WriteAbsorb => hot_and_warm(Fill::Seq4k),
            Self::ReadHitFragmented | Self::WriteAbsorbFragmented => {
                let in_order = (self == Self::ReadHitFragmented).then_some(Fill::Seq4k);
                let fragments = fragments.into_iter().chain(in_order);
                fragments
                    .flat_map(|fill| [HOT_BYTES, WARM_BYTES].map(|bytes| shape(1, 1, bytes, fill)))
                    .collect()
            }
            Self::WriteFlushSeq | Self::WriteFlushRand => {
                vec![
                    shape(1, 1, KIB * MIB, Fill::Whole),
                    shape(2, 10, KIB * MIB, Fill::Whole),
                ]
            }
            Self::ReadMiss => vec![
                shape(1, 1, WARM_BYTES, Fill::Whole),
                shape(2, 1, WARM_BYTES, Fill::Whole),
                shape(2, 10, WARM_BYTES, Fill::Whole),
            ],
            Self::MixedZipf => {
                let all = [(1, 1), (2, 1), (1, 10), (2, 10)];
                all.map(|(threads, sets)| shape(threads, sets, KIB * MIB, Fill::Whole))
                    .to_vec()
            }
            Self::TinyWrites => vec![
                shape(1, 1, 64 * MIB, Fill::Whole),
                shape(2, 10, 64 * MIB, Fill::Whole),
            ],
            Self::FlushUnderLoad => vec![shape(1, 1, WARM_BYTES, Fill::Rand4k)],
            Self::ReadOverFetches => vec![shape(1, 1, HOT_BYTES, Fill::Whole)],
            Self::All => Vec::new(),
        }
    }

    const fn block_bytes(self) -> u64 {
        if matches!(self, Self::ReadMiss) {
            64 * KIB
        } else if matches!(self, Self::TinyWrites) {
            128
        } else {
            4 * KIB
        }
    }

    const fn in_flight(self, threads: usize) -> usize {
        if matches!(self, Self::ReadMiss | Self::MixedZipf) {
            32
        } else {
            threads
        }
    }

    /// Whether the case is about data that is in the cache all the time and written back at no time of its own.
    pub(crate) const fn is_resident(self) -> bool {
        !matches!(
            self,
            Self::WriteFlushSeq
                | Self::WriteFlushRand
                | Self::ReadMiss
                | Self::MixedZipf
                | Self::ReadOverFetches
        )
    }

    fn limits(self, footprint_bytes: u64) -> LimitsPlan {
        let of = |cache_bytes, dirty_bytes, target_bytes| LimitsPlan {
            cache_bytes,
            dirty_bytes,
            target_bytes,
        };
        if self.is_resident() {
            // Room for the overhead of the smallest pieces too.
            let bytes = footprint_bytes * 4 + 256 * MIB;
            return of(bytes, bytes, bytes);
        }
        if self == Self::MixedZipf {
            of(256 * MIB, 128 * MIB, 64 * MIB)
        } else {
            of(64 * MIB, 32 * MIB, 16 * MIB)
        }
    }
}

/// What varies within one case.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Shape {
    threads: usize,
    sets: usize,
    footprint_bytes: u64,
    fill: Fill,
}

/// Every value that was asked for in place of the usual ones.
fn shapes(case: Case, args: &BenchArgs) -> Vec<Shape> {
    let mut shapes = case.usual();
    let replace = |shapes: Vec<Shape>, change: &dyn Fn(Shape) -> Vec<Shape>| {
        let mut all: Vec<Shape> = Vec::new();
        for shape in shapes.into_iter().flat_map(change) {
            if !all.contains(&shape) {
                all.push(shape);
            }
        }
        all
    };
    if !args.threads.is_empty() {
        let of = |threads: &usize, shape| Shape {
            threads: *threads,
            ..shape
        };
        shapes = replace(shapes, &|shape| {
            args.threads
                .iter()
                .map(|threads| of(threads, shape))
                .collect()
        });
    }
    if !args.sets.is_empty() {
        let of = |sets: &usize, shape| Shape {
            sets: *sets,
            ..shape
        };
        shapes = replace(shapes, &|shape| {
            args.sets.iter().map(|sets| of(sets, shape)).collect()
        });
    }
    if !args.working_set.is_empty() {
        let of = |bytes: &u64, shape| Shape {
            footprint_bytes: *bytes,
            ..shape
        };
        shapes = replace(shapes, &|shape| {
            args.working_set
                .iter()
                .map(|bytes| of(bytes, shape))
                .collect()
        });
    }
    if !args.cases.fill.is_empty() {
        let of = |fill: &Fill, shape| Shape {
            fill: *fill,
            ..shape
        };
        shapes = replace(shapes, &|shape| {
            args.cases.fill.iter().map(|fill| of(fill, shape)).collect()
        });
    }
    shapes
}

/// All measurements that were asked for.
pub(crate) fn plans(args: &BenchArgs) -> Result<Vec<Plan>, CliError> {
    let cases = args.cases.cases.iter().flat_map(|case| case.singles());
    let mut plans = Vec::new();
    for case in cases {
        for shape in shapes(case, args) {
            plans.push(plan(case, shape, args)?);
        }
    }
    Ok(plans)
}

/// How long the store takes to answer, and how many seconds a run takes.
const fn usual_times(case: Case) -> (Duration, f64) {
    match case {
        Case::MixedZipf => (Duration::from_micros(200), 2.0),
        // All of its fetches must be in flight at once.
        Case::ReadOverFetches => (Duration::from_millis(50), 0.5),
        Case::ReadHit
        | Case::ReadHitFragmented
        | Case::WriteAbsorb
        | Case::WriteAbsorbFragmented
        | Case::WriteFlushSeq
        | Case::WriteFlushRand
        | Case::ReadMiss
        | Case::TinyWrites
        | Case::FlushUnderLoad
        | Case::All => (Duration::ZERO, 0.5),
    }
}

fn plan(case: Case, shape: Shape, args: &BenchArgs) -> Result<Plan, CliError> {
    let block_bytes = args.block_size.unwrap_or_else(|| case.block_bytes());
    if block_bytes == 0 || block_bytes * shape.sets as u64 > shape.footprint_bytes {
        return Err(CliError::Usage(format!(
            "--working-set must hold at least one block of each set: {} of {} in {} sets",
            human_bytes(shape.footprint_bytes),
            human_bytes(block_bytes),
            shape.sets
        )));
    }
    let mut limits = case.limits(shape.footprint_bytes);
    if let Some(cache) = args.cache.cache {
        limits.cache_bytes = cache;
        limits.dirty_bytes = limits.dirty_bytes.min(cache);
    }
    limits.dirty_bytes = args.cache.dirty.unwrap_or(limits.dirty_bytes);
    let target = limits.target_bytes.min(if case.is_resident() {
        limits.dirty_bytes
    } else {
        limits.dirty_bytes / 2
    });
    limits.target_bytes = args.cache.target_dirty.unwrap_or(target);
    let (usual_delay, usual_seconds) = usual_times(case);
    let delay = args.store_delay.unwrap_or(usual_delay);
    let usual_total = if case == Case::TinyWrites {
        64 * MIB
    } else {
        KIB * MIB
    };
    Ok(Plan {
        case,
        threads: shape.threads,
        sets: shape.sets,
        in_flight: args
            .in_flight
            .unwrap_or_else(|| case.in_flight(shape.threads))
            .max(shape.threads),
        fill: shape.fill,
        footprint_bytes: shape.footprint_bytes,
        block_bytes,
        total_bytes: args.cases.total.unwrap_or(usual_total),
        limits,
        store: StorePlan {
            delay_ns: u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX),
            fresh_buffers: args.cases.fresh_buffers,
            scattered: args.cases.scattered,
        },
        pace: Pace {
            runs: args.cases.runs.unwrap_or(5),
            seconds: args.cases.seconds.unwrap_or(usual_seconds),
            copy_out: args.cases.copy_out,
            seed: args.seed.unwrap_or(1),
        },
    })
}

impl Plan {
    /// What tells it apart from others of its case.
    pub(crate) fn label(&self) -> String {
        let mut label = format!("{} {}", self.case.name(), human_bytes(self.footprint_bytes));
        if self.case.is_resident() && self.case != Case::TinyWrites {
            let fill = self.fill.to_possible_value();
            label.push(' ');
            label.push_str(fill.as_ref().map_or("", |fill| fill.get_name()));
        }
        let threads = if self.threads == 1 { "" } else { "s" };
        let sets = if self.sets == 1 { "" } else { "s" };
        label.push_str(&format!(
            " {} thread{threads} {} set{sets}",
            self.threads, self.sets
        ));
        label
    }

    /// The options that measure just this, for a process of its own.
    pub(crate) fn options(&self) -> Vec<String> {
        let fill = self.fill.to_possible_value();
        let fill = fill.as_ref().map_or("", |fill| fill.get_name()).to_owned();
        let mut options = vec!["bench".to_owned(), "--json".to_owned()];
        let delay = format!("{}ns", self.store.delay_ns);
        for (option, value) in [
            ("--case", self.case.name()),
            ("--threads", self.threads.to_string()),
            ("--sets", self.sets.to_string()),
            ("--in-flight", self.in_flight.to_string()),
            ("--fill", fill),
            ("--working-set", self.footprint_bytes.to_string()),
            ("--block-size", self.block_bytes.to_string()),
            ("--total", self.total_bytes.to_string()),
            ("--cache", self.limits.cache_bytes.to_string()),
            ("--dirty", self.limits.dirty_bytes.to_string()),
            ("--target-dirty", self.limits.target_bytes.to_string()),
            ("--store-delay", delay),
            ("--runs", self.pace.runs.to_string()),
            ("--seconds", self.pace.seconds.to_string()),
            ("--seed", self.pace.seed.to_string()),
        ] {
            options.push(option.to_owned());
            options.push(value);
        }
        for (option, is_set) in [
            ("--fresh-buffers", self.store.fresh_buffers),
            ("--scattered", self.store.scattered),
            ("--copy-out", self.pace.copy_out),
        ] {
            if is_set {
                options.push(option.to_owned());
            }
        }
        options
    }

    /// The blocks of each set.
    pub(crate) const fn blocks_per_set(&self) -> u64 {
        let blocks = self.footprint_bytes / self.block_bytes / self.sets as u64;
        if blocks == 0 { 1 } else { blocks }
    }
}

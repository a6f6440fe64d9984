//! `cachalot bench --scale`: what single steps cost as there is more of what they go over: nothing may grow with its
//! square.
//!
//! Each measurement is one step over `n` of something, in a process of its own, over a store that costs nothing. Its
//! figure is the processor time of all threads; `scripts/scale.sh` counts instructions instead.

mod report;
mod steps;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use cachalot::{Cache, CacheConfig, Layout, ObjectSet, SetOptions};
use clap::ValueEnum;
use futures::executor::block_on;
use serde::{Deserialize, Serialize};

use crate::bench::apart::run_apart;
use crate::bench::args::BenchArgs;
use crate::error::CliError;
use crate::output;

use report::{ScaleReport, StepReport};
use store::GatedStore;

/// How many times as many are measured.
const FACTORS: [u64; 3] = [1, 4, 16];

/// A step, and what it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Step {
    /// The flusher stores what n sets have dirty, 100 KiB each.
    FlushSets,
    /// The flusher stores 1 MiB while n sets have 100 KiB dirty each.
    FlushFewOfSets,
    /// Room is made for one read by dropping the data of n sets, 100 KiB each.
    TrimSets,
    /// Room is made for one read by dropping n objects of 100 bytes.
    TrimObjects,
    /// One read over n fetches of 4 KiB that are in flight.
    ReadOverFetches,
    /// n reads of one block that is being fetched.
    WaitingReads,
    /// n flushes that wait for one writeback.
    WaitingFlushes,
    /// n writes that wait for room.
    WaitingWrites,
    /// n writes that wait for room are given up.
    GivenUpWrites,
    /// n writes to one object, each of which is answered when it is stored.
    WritesThrough,
    /// A flush of one object with n dirty blocks that do not touch.
    FlushExtents,
    /// A flush of a range that n dirty objects lie in.
    FlushObjects,
    /// A discard of one object over n blocks that do not touch.
    DiscardExtents,
    /// n discards, each of one of n blocks of an object.
    DiscardEach,
    /// All of them.
    All,
}

impl Step {
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Over how many it goes at a factor of one.
    const fn base(self) -> u64 {
        match self {
            Self::FlushSets | Self::FlushFewOfSets | Self::TrimSets => 625,
            Self::TrimObjects | Self::FlushObjects => 4096,
            Self::FlushExtents | Self::DiscardExtents | Self::DiscardEach => 1024,
            Self::ReadOverFetches
            | Self::WaitingReads
            | Self::WaitingFlushes
            | Self::WaitingWrites
            | Self::GivenUpWrites
            | Self::WritesThrough
            | Self::All => 256,
        }
    }
}

/// What a step works on.
struct Scene {
    step: Step,
    n: u64,
    cache: Cache,
    store: Arc<GatedStore>,
    config: CacheConfig,
    set: ObjectSet,
}

/// Measures the steps that are asked for.
pub(crate) fn scale(args: &BenchArgs) -> Result<(), CliError> {
    let factors = if args.scaling.factors.is_empty() {
        FACTORS.to_vec()
    } else {
        args.scaling.factors.clone()
    };
    let mut report = ScaleReport { steps: Vec::new() };
    let steps = singles(&args.scaling.scale);
    if let ([step], [factor]) = (steps.as_slice(), factors.as_slice()) {
        report.steps.push(measure(*step, *factor)?);
    } else {
        for step in steps {
            for factor in &factors {
                let label = format!("{} {factor}", step.name());
                let options = ["bench", "--json", "--scale"].map(str::to_owned);
                let of = [step.name(), "--factors".to_owned(), factor.to_string()];
                let options = [options, of].concat();
                let mut apart: ScaleReport = run_apart(&label, &options)?;
                report.steps.append(&mut apart.steps);
            }
        }
    }
    if args.json {
        return output::print_json(&report);
    }
    output::print(&report.table())
}

fn singles(asked: &[Step]) -> Vec<Step> {
    let all = Step::value_variants().iter().copied();
    let is_asked = |step: &Step| asked.contains(&Step::All) || asked.contains(step);
    all.filter(|step| *step != Step::All && is_asked(step))
        .collect()
}

fn measure(step: Step, factor: u64) -> Result<StepReport, CliError> {
    let n = step.base() * factor;
    let room = ByteSize::gib(4);
    let dirty = if matches!(step, Step::WaitingWrites | Step::GivenUpWrites) {
        // It is filled before the step, so that writes wait.
        ByteSize::mib(1)
    } else {
        room
    };
    let config = CacheConfig {
        max_bytes: room,
        max_dirty_bytes: dirty,
        target_dirty_bytes: dirty,
        max_dirty_age: Duration::from_secs(3600),
        arbiters: 1,
        ..CacheConfig::default()
    };
    let store = Arc::new(GatedStore::default());
    let cache = Cache::builder(Arc::clone(&store) as _)
        .config(config.clone())
        .start()
        .map_err(CliError::cache("start the cache"))?;
    let mut options = SetOptions::new("scale");
    if !matches!(step, Step::FlushObjects) {
        // One object is to hold all that many blocks take.
        let layout = Layout::new(1 << 30, 1, 1 << 30);
        let layout = layout.map_err(|error| CliError::Failed(error.to_string()))?;
        options = options.layout(layout);
    }
    let set = block_on(cache.open(options)).map_err(CliError::cache("open a set"))?;
    let scene = Scene {
        step,
        n,
        cache,
        store,
        config,
        set,
    };
    let took = block_on(scene.run()).map_err(CliError::cache("take the step"))?;
    let report = StepReport {
        step,
        factor,
        n,
        cpu_ns: u64::try_from(took.cpu.as_nanos()).unwrap_or(u64::MAX),
        store_operations: took.store_operations,
        bytes: took.bytes,
    };
    block_on(scene.cache.abandon());
    Ok(report)
}

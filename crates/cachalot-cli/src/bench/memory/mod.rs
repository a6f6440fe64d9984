//! `cachalot bench --memory`: what the process holds when the cache is filled in ways that are bad for it, beside the
//! bound: a tenth and 16 MiB more than `max_bytes`.
//!
//! Each case runs in a process of its own, since a process has only one peak.

mod fills;
mod report;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use cachalot::{Cache, CacheConfig, SetOptions};
use clap::ValueEnum;
use futures::executor::block_on;
use serde::{Deserialize, Serialize};

use crate::bench::apart::run_apart;
use crate::bench::args::BenchArgs;
use crate::bench::cases::memory::{peak_bytes, program_bytes, resident_bytes};
use crate::error::CliError;
use crate::output;

use report::{MemoryCaseReport, MemoryCasesReport, Overhead};
use store::{Answers, PlainStore};

/// The limit of the cache unless another is asked for.
const CACHE_BYTES: u64 = 256 << 20;
/// What sequential writes write.
const TOTAL_BYTES: u64 = 1 << 30;
/// What is written byte by byte unless more is asked for: a GiB takes minutes.
const TOTAL_BYTES_BY_ONE: u64 = 32 << 20;

/// A way to fill the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Filling {
    /// Reads of 4 MiB, of which nine in ten blocks of 4 KiB are dropped, of a store that answers with parts of larger buffers.
    Slices,
    /// As many clean bytes as fit, all written over in blocks of 4 KiB, and again in blocks of 64 KiB.
    Overwrite,
    /// Writes of 512 bytes in order.
    #[serde(rename = "writes_512")]
    #[value(name = "writes_512")]
    Writes512,
    /// Writes of one byte in order.
    #[serde(rename = "writes_1")]
    #[value(name = "writes_1")]
    Writes1,
    /// Writes of 4 KiB at random to a store of 1 ms, so that the dirty limit is where they stand.
    DirtyLimit,
    /// Objects of 100 bytes, each read once.
    TinyObjects,
    /// Objects of 100 bytes, each written once.
    TinyObjectsWritten,
    /// Writes of 512 bytes at random, then of 4 KiB at random over the same range, nothing written back.
    #[serde(rename = "writes_4k_over_512")]
    #[value(name = "writes_4k_over_512")]
    Writes4kOver512,
    /// Writes of 4 KiB in order by two threads over ten sets, with flushes.
    TwoThreads,
    /// Reads of 64 KiB with 32 under way, none of them in memory.
    Misses,
    /// Clean buffers of 4 KiB up to two thirds of the limit: what each takes beyond its bytes.
    Buffers,
    /// The same, dirty.
    DirtyBuffers,
    /// All of them, each in a process of its own.
    All,
}

impl Filling {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    const fn total_bytes(self, asked: Option<u64>) -> u64 {
        match (self, asked) {
            (_, Some(bytes)) => bytes,
            (Self::Writes1, None) => TOTAL_BYTES_BY_ONE,
            (_, None) => TOTAL_BYTES,
        }
    }

    const fn answers(self) -> Answers {
        if matches!(self, Self::Slices) {
            Answers::Slices
        } else {
            Answers::Fresh
        }
    }

    const fn delay(self) -> Duration {
        if matches!(self, Self::DirtyLimit) {
            Duration::from_millis(1)
        } else {
            Duration::ZERO
        }
    }

    /// The limit of dirty bytes, and their target.
    const fn dirty_bytes(self, cache_bytes: u64) -> (u64, u64) {
        if matches!(self, Self::Writes4kOver512 | Self::DirtyBuffers) {
            // Nothing is to be written back by itself.
            (cache_bytes, cache_bytes)
        } else if matches!(self, Self::DirtyLimit) {
            (cache_bytes / 2, cache_bytes / 2)
        } else {
            (cache_bytes / 2, cache_bytes / 4)
        }
    }
}

/// What a case works with.
struct Fill {
    cache: Cache,
    cache_bytes: u64,
    total_bytes: u64,
}

/// Runs the cases that are asked for.
///
/// # Errors
/// Among others where a process has held more than the bound, after the figures were printed.
pub(crate) fn memory(args: &BenchArgs) -> Result<(), CliError> {
    let cache_bytes = args.cache.cache.unwrap_or(CACHE_BYTES);
    let mut report = MemoryCasesReport { cases: Vec::new() };
    match args.memory.as_slice() {
        [one] if *one != Filling::All => {
            let total_bytes = one.total_bytes(args.cases.total);
            report.cases.push(measure(*one, cache_bytes, total_bytes)?);
        }
        several => {
            for filling in singles(several) {
                let total_bytes = filling.total_bytes(args.cases.total);
                output::note(&filling.name());
                let options = [
                    "bench".to_owned(),
                    "--json".to_owned(),
                    "--memory".to_owned(),
                    filling.name(),
                    "--cache".to_owned(),
                    cache_bytes.to_string(),
                    "--total".to_owned(),
                    total_bytes.to_string(),
                ];
                let mut apart: MemoryCasesReport = run_apart(&filling.name(), &options)?;
                report.cases.append(&mut apart.cases);
            }
        }
    }
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.table())?;
    }
    match report.cases.iter().find(|case| !case.is_within()) {
        // The process that started this one looks for itself.
        Some(case) if !args.json => Err(CliError::Failed(format!(
            "{} held more than its bound",
            case.filling.name()
        ))),
        Some(_) | None => Ok(()),
    }
}

fn singles(asked: &[Filling]) -> Vec<Filling> {
    let all = Filling::value_variants().iter().copied();
    let is_asked = |filling: &Filling| asked.contains(&Filling::All) || asked.contains(filling);
    all.filter(|filling| *filling != Filling::All && is_asked(filling))
        .collect()
}

fn measure(
    filling: Filling,
    cache_bytes: u64,
    total_bytes: u64,
) -> Result<MemoryCaseReport, CliError> {
    let never = Duration::from_secs(3600);
    let (dirty, target) = filling.dirty_bytes(cache_bytes);
    let config = CacheConfig {
        max_bytes: ByteSize(cache_bytes),
        max_dirty_bytes: ByteSize(dirty),
        target_dirty_bytes: ByteSize(target),
        max_dirty_age: never,
        ..CacheConfig::default()
    };
    let store = Arc::new(PlainStore::new(filling.answers(), filling.delay()));
    let cache = Cache::builder(store)
        .config(config)
        .start()
        .map_err(CliError::cache("start the cache"))?;
    let fill = Fill {
        cache,
        cache_bytes,
        total_bytes,
    };
    // What the threads and the first set take is not the buffers'.
    let set = block_on(fill.cache.open(SetOptions::new("filled")))
        .map_err(CliError::cache("open a set"))?;
    let resident_before = resident_bytes();
    let operations = fill.run(filling, &set)?;
    let overhead = matches!(filling, Filling::Buffers | Filling::DirtyBuffers).then(|| {
        Overhead::of(
            &fill.cache,
            resident_bytes().saturating_sub(resident_before),
        )
    });
    let charged = fill.cache.stats().charged.room;
    let report = MemoryCaseReport {
        filling,
        cache_bytes,
        operations,
        charged_bytes: u64::try_from(charged).unwrap_or(0),
        resident_bytes: resident_bytes(),
        program_bytes: program_bytes(),
        peak_bytes: peak_bytes(),
        bound_bytes: cache_bytes + cache_bytes / 10 + (16 << 20),
        overhead,
    };
    block_on(fill.cache.abandon());
    Ok(report)
}

//! What `cachalot bench` is asked for, in the words of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::cases::plan::{Case, Fill};
use super::memory::Filling;
use super::scale::Step;
use crate::cli::{
    CacheArgs, LayoutArgs, parse_count, parse_exponent, parse_share, parse_size, parse_time,
};
use crate::store::StoreUrl;
use crate::volume::VolumeName;

/// Which blocks the benchmark touches how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum PatternArg {
    /// A few often, most seldom.
    Zipf,
    /// All alike.
    Uniform,
    /// One after the other, by all threads together.
    Sequential,
}

/// Which sides the benchmark measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ModeArg {
    /// Through the cache.
    Cache,
    /// Straight to the store.
    Direct,
    /// One after the other.
    Both,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cachalot bench                                        a file store in a temporary directory
  cachalot bench --store memory: --store-delay 500us    a store that takes half a millisecond to answer
  cachalot bench --read-share 0.95 --pattern uniform --working-set 1GiB --cache 256MiB
  cachalot bench --json --duration 2s | jq .cache.ops_per_second
  cachalot bench --pattern sequential --read-share 0 --operations 65536     256 MiB, once and in order
  cachalot bench --store file:/srv/store --volume disk --read-share 1 --warm
  cachalot bench --case read_hit_4k --threads 1,2       the cache alone, over a store that costs nothing
  cachalot bench --case all --json > figures.json
  cachalot bench --memory all --cache 64MiB             does the process keep to the limit?
  cachalot bench --scale all                            what grows faster than what it is over?")]
pub(crate) struct BenchArgs {
    /// The threads that ask [default: 2].
    #[arg(long, value_delimiter = ',', value_parser = parse_count, value_name = "N")]
    pub(crate) threads: Vec<usize>,
    /// How many operations are under way at once, over all threads [default: 32].
    #[arg(long, value_parser = parse_count, value_name = "N")]
    pub(crate) in_flight: Option<usize>,
    /// How many object sets the blocks are spread over [default: 4; a volume is one].
    #[arg(long, value_delimiter = ',', value_parser = parse_count, value_name = "N")]
    pub(crate) sets: Vec<usize>,
    /// The size of each operation [default: 4KiB].
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) block_size: Option<u64>,
    /// How much data is touched, over all sets [default: 256MiB; all of a volume].
    #[arg(long, value_delimiter = ',', value_parser = parse_size, value_name = "SIZE")]
    pub(crate) working_set: Vec<u64>,
    /// The share of reads, from 0 to 1.
    #[arg(long, default_value_t = 0.7, value_parser = parse_share)]
    pub(crate) read_share: f64,
    /// Which blocks are touched how often.
    #[arg(long, value_enum, default_value = "zipf")]
    pub(crate) pattern: PatternArg,
    /// How steeply the shares of the blocks fall.
    #[arg(long, default_value_t = 0.99, value_parser = parse_exponent)]
    pub(crate) zipf_exponent: f64,
    /// How long each side is measured.
    #[arg(long, default_value = "8s", value_parser = parse_time)]
    pub(crate) duration: Duration,
    /// Measure so many operations in all, however long they take, instead of those in a time.
    #[arg(long, value_parser = parse_operations, value_name = "N", conflicts_with = "duration")]
    pub(crate) operations: Option<u64>,
    /// How long each side runs before that [default: 1s, 0s with --operations].
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    pub(crate) warm_up: Option<Duration>,
    /// Read all that is touched once in order before the warm-up, through the side that is measured: what fits is then held.
    #[arg(long)]
    pub(crate) warm: bool,
    /// Where the randomness starts; chosen and printed if not given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The store [default: a file store in a temporary directory].
    #[arg(long)]
    pub(crate) store: Option<StoreUrl>,
    /// Make the store take this much longer to answer [default: 0s].
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    pub(crate) store_delay: Option<Duration>,
    /// Which sides to measure [default: both, cache for a volume].
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeArg>,
    /// Print the state every second, and what the cache holds at the end.
    #[arg(long)]
    pub(crate) stats: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Fill the cache in ways that are bad for it, and compare what the process held at most with the bound.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "NAME",
        conflicts_with = "cases"
    )]
    pub(crate) memory: Vec<Filling>,
    #[command(flatten)]
    pub(crate) scaling: ScaleArgs,
    #[command(flatten)]
    pub(crate) volume: VolumeArgs,
    #[command(flatten)]
    pub(crate) cases: CaseArgs,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

impl BenchArgs {
    /// Whether parts of the cache are asked for, and not a workload.
    pub(crate) const fn is_of_parts(&self) -> bool {
        self.cases.is_asked() || !self.memory.is_empty() || !self.scaling.scale.is_empty()
    }
}

fn parse_operations(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(operations @ 1..) => Ok(operations),
        _ => Err(format!("`{text}` is no number from 1 on")),
    }
}

/// A volume that is there, in the place of data of the benchmark's own.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Volume")]
pub(crate) struct VolumeArgs {
    /// Measure a volume of --store through what `cachalot serve` serves it with, asked in this process. Nothing is prepared
    /// and nothing is removed; what is written goes into the volume, so that its contents are lost.
    #[arg(
        long,
        value_name = "NAME",
        requires = "store",
        conflicts_with_all = [
            "cases", "list_cases", "from", "memory", "scale", "object_size", "stripe_unit", "stripe_count",
        ]
    )]
    pub(crate) volume: Option<VolumeName>,
    /// How far ahead of reads in sequence the store is read, as in `cachalot serve` [default: 2MiB, 0 for `file:` and
    /// `memory:`].
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "volume")]
    pub(crate) read_ahead: Option<u64>,
    /// Take the volume over from whoever writes it, once that one can write no more. What it has not stored is lost.
    #[arg(long, requires = "volume")]
    pub(crate) break_lock: bool,
}

/// Steps over more and more.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ScaleArgs {
    /// Take single steps over n of something, four times n and sixteen times n.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "NAME",
        conflicts_with_all = ["cases", "memory"]
    )]
    pub(crate) scale: Vec<Step>,
    /// How many times n for --scale [default: 1,4,16].
    #[arg(long, value_delimiter = ',', value_parser = parse_factor, value_name = "N")]
    pub(crate) factors: Vec<u64>,
}

fn parse_factor(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(factor) if (1..=256).contains(&factor) => Ok(factor),
        _ => Err(format!("`{text}` is no factor from 1 to 256")),
    }
}

/// Single cases over a store that costs nothing.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cases")]
pub(crate) struct CaseArgs {
    /// Measure single cases of the cache instead of a workload: a name of --list-cases, several, or `all`.
    #[arg(long = "case", value_delimiter = ',', value_parser = parse_case, value_name = "NAME")]
    pub(crate) cases: Vec<Case>,
    /// List the cases, and what each of them measures.
    #[arg(long)]
    pub(crate) list_cases: bool,
    /// How often each is measured; the figures are medians over these [default: 5].
    #[arg(long, value_parser = parse_count, value_name = "N")]
    pub(crate) runs: Option<usize>,
    /// How long each run of a case takes that ends by the clock [default: 0.5, 2 for `mixed_zipf`].
    #[arg(long, value_parser = parse_seconds, value_name = "S")]
    pub(crate) seconds: Option<f64>,
    /// How the data came into the cache that is then read or overwritten.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) fill: Vec<Fill>,
    /// How much a case writes that ends by its work, such as `write_flush_seq` [default: 1GiB].
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) total: Option<u64>,
    /// Measure nothing, and show the figures that an earlier run printed with --json into this file.
    #[arg(long, value_name = "FILE", conflicts_with = "cases")]
    pub(crate) from: Option<PathBuf>,
    /// Draw the figures beside their goals into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) chart: Option<PathBuf>,
    /// Print the table of goals, as Markdown.
    #[arg(long)]
    pub(crate) goals: bool,
    /// Answer each read of the store with memory of its own instead of zeros that all reads share.
    #[arg(long)]
    pub(crate) fresh_buffers: bool,
    /// Let one write to the store hold several runs that don't touch.
    #[arg(long)]
    pub(crate) scattered: bool,
    /// Copy out what hits return, as a caller does who needs it in a buffer of its own.
    #[arg(long)]
    pub(crate) copy_out: bool,
}

impl CaseArgs {
    /// Whether cases are asked for, and not a workload.
    pub(crate) const fn is_asked(&self) -> bool {
        self.list_cases || self.from.is_some() || !self.cases.is_empty()
    }
}

fn parse_case(text: &str) -> Result<Case, String> {
    Case::from_str(text, false)
        .map_err(|_said| format!("there is no case `{text}`: see --list-cases"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!(
            "`{text}` is no number of seconds from 0.001 to 3600"
        )),
    }
}

//! The command line: what can be asked for, in the words of `--help`.

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(all(fuzzing, not(test)))]
pub(crate) mod fuzz;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use cachalot::{CacheConfig, Layout, Limits, OFFSET_BYTES_MAX};
use clap::{Args, Parser, Subcommand};

use crate::bench::args::BenchArgs;
use crate::ctl::args::CtlArgs;
use crate::error::CliError;
use crate::output::one_line;
use crate::serve::ServeArgs;
use crate::store::{STORES, StoreUrl};
use crate::volume::VolumeName;

const EXAMPLES: &str = "\
Examples:
  cachalot bench                                     the cache beside the bare store, in 20 s
  cachalot simulate --seconds 60                     whole caches over failing stores, with fresh seeds
  cachalot volume create file:/srv/store disk --size 10GiB
  cachalot import disk.img file:/srv/store disk2     a file into a new volume; holes stay holes
  cachalot export file:/srv/store disk2 copy.img     and out again
  cachalot serve file:/srv/store disk                as a network block device at 127.0.0.1:10809
  cachalot ctl stats                                 what it holds and did
  zcat disk.img.gz | cachalot import - file:/srv/store disk3";

const UNITS_AND_CODES: &str = "\
Sizes are written as 4096, 64KiB, 10GiB; times as 500ms, 5s, 2min.

Exit codes:
  0    done
  1    the operation failed
  2    the command line or the configuration makes no sense
  3    the store is missing, unreachable, read-only, full or refuses access
  4    the volume does not exist, exists already, or is not complete
  5    what the store holds is damaged
  130  interrupted from the keyboard";

/// What `--help` says behind the commands and options. It names the stores that were built in.
fn after_help() -> String {
    let stores = STORES.iter();
    let stores: String = stores
        .map(|(address, what)| format!("  {address:<24}{what}\n"))
        .collect();
    format!("{EXAMPLES}\n\nStores:\n{stores}\n{UNITS_AND_CODES}")
}

/// Volumes on slow or distant stores, through a write-back cache.
#[derive(Debug, Parser)]
#[command(name = "cachalot", version, after_help = after_help(), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, list, describe, resize and remove volumes.
    Volume {
        #[command(subcommand)]
        command: VolumeCommand,
    },
    /// Copy a file into a new volume.
    Import(ImportArgs),
    /// Copy a volume into a file.
    Export(ExportArgs),
    /// Serve volumes as network block devices.
    Serve(Box<ServeArgs>),
    /// Ask a running `cachalot serve` how it is, or tell it what to do.
    Ctl(CtlArgs),
    /// List a store's objects and their sizes.
    Ls(LsArgs),
    /// Measure the cache beside the bare store.
    Bench(Box<BenchArgs>),
    /// Search for faults of the cache: whole caches in virtual time over failing stores, every byte checked.
    Simulate(SimulateArgs),
}

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Run this seed alone, or from this one on with --runs or --seconds; drawn from the time of day unless given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long)]
    pub(crate) runs: Option<u64>,
    /// Run seeds for so long; 10 where nothing else is said.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// On so many threads; one for each processor unless given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) jobs: Option<u32>,
    /// Operations in a run. A seed does the same only with the same number.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) steps: u32,
    /// Of a single run, take only these steps, as a failure's report lists them: 3,17,20, or none.
    #[arg(long, requires = "seed")]
    pub(crate) only: Option<StepList>,
    /// Of a single run, print everything that happens.
    #[arg(long, requires = "seed")]
    pub(crate) log: bool,
}

/// The numbers of steps, as `3,17,20`, or `none`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StepList(pub(crate) BTreeSet<u32>);

impl FromStr for StepList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(BTreeSet::new()));
        }
        let number = |text: &str| {
            text.parse()
                .map_err(|error| format!("`{text}` is no step ({error}): write 3,17,20 or none"))
        };
        text.split(',')
            .map(number)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for StepList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(if list.is_empty() { "none" } else { "" })?;
        f.write_str(&list.join(","))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make an empty volume; it reads as zeros and takes no room until it is written.
    Create {
        /// The store, such as `file:/srv/store`. A directory that does not exist is made.
        store: StoreUrl,
        /// The volume's name.
        volume: VolumeName,
        /// The volume's size, such as 10GiB.
        #[arg(long, value_parser = parse_size)]
        size: u64,
        #[command(flatten)]
        layout: LayoutArgs,
        #[command(flatten)]
        lock: LockArgs,
    },
    /// List the volumes of a store.
    List {
        /// The store.
        store: StoreUrl,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Describe a volume.
    Info {
        /// The store.
        store: StoreUrl,
        /// The volume.
        volume: VolumeName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change a volume's size; what is grown reads as zeros.
    Resize {
        /// The store.
        store: StoreUrl,
        /// The volume.
        volume: VolumeName,
        /// The new size.
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// Allow a smaller size: what lies above it is lost.
        #[arg(long)]
        shrink: bool,
        #[command(flatten)]
        lock: LockArgs,
    },
    /// Remove a volume and its data, without asking. What an interrupted removal left is removed too.
    Remove {
        /// The store.
        store: StoreUrl,
        /// The volume.
        volume: VolumeName,
        #[command(flatten)]
        lock: LockArgs,
    },
}

/// How a new volume is spread over objects.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LayoutArgs {
    /// The bytes of a full object.
    #[arg(long, value_parser = parse_size, default_value = "4MiB")]
    object_size: u64,
    /// The bytes that go to one object before the next gets some; a divisor of the object size, and by default that.
    #[arg(long, value_parser = parse_size)]
    stripe_unit: Option<u64>,
    /// How many objects are filled abreast.
    #[arg(long, default_value_t = 1)]
    stripe_count: u32,
}

impl LayoutArgs {
    /// The layout, if its numbers fit each other.
    pub(crate) fn layout(&self) -> Result<Layout, CliError> {
        let stripe_unit = self.stripe_unit.unwrap_or(self.object_size);
        Ok(Layout::new(
            stripe_unit,
            self.stripe_count,
            self.object_size,
        )?)
    }
}

/// The cache's limits.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// A TOML file of limits, such as `max_bytes = "256MiB"`; the options here override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The memory for cached data, clean and dirty [default: 64MiB]
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) cache: Option<u64>,
    /// How much may wait to be written back; 0 writes through [default: half the cache].
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) dirty: Option<u64>,
    /// Above how much writing back starts at once [default: half of --dirty].
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) target_dirty: Option<u64>,
    /// After how long written data is written back [default: 5s].
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    dirty_age: Option<Duration>,
    /// The threads of the cache [default: half the processors].
    #[arg(long, value_name = "N")]
    arbiters: Option<usize>,
    /// How many writebacks are under way at once [default: 32].
    #[arg(long, value_name = "N")]
    writebacks: Option<usize>,
}

impl CacheArgs {
    /// The configuration: the file or the defaults, then the options, then a check.
    pub(crate) fn config(&self) -> Result<CacheConfig, CliError> {
        let mut config = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(CliError::file("read", path))?;
                config_of(&text).map_err(|message| {
                    CliError::Usage(format!("{} is no configuration: {message}", path.display()))
                })?
            }
            None => halved(ByteSize::mib(64)),
        };
        if let Some(cache) = self.cache {
            config.max_bytes = ByteSize(cache);
        }
        if self.dirty.is_some() || self.cache.is_some() {
            let dirty = self.dirty.unwrap_or(config.max_bytes.as_u64() / 2);
            config.max_dirty_bytes = ByteSize(dirty);
            config.target_dirty_bytes = ByteSize(dirty / 2);
        }
        if let Some(target) = self.target_dirty {
            config.target_dirty_bytes = ByteSize(target);
        }
        config.max_dirty_age = self.dirty_age.unwrap_or(config.max_dirty_age);
        config.arbiters = self.arbiters.unwrap_or(config.arbiters);
        config.writebacks_in_flight = self.writebacks.unwrap_or(config.writebacks_in_flight);
        Limits::try_from(&config)?;
        Ok(config)
    }
}

/// The configuration that a file's text holds, or what is wrong with it, in one line.
fn config_of(text: &str) -> Result<CacheConfig, String> {
    toml::from_str(text).map_err(|error| one_line(error.message().trim_end()))
}

/// The library's defaults for a cache of this size.
fn halved(max_bytes: ByteSize) -> CacheConfig {
    CacheConfig {
        max_bytes,
        max_dirty_bytes: ByteSize(max_bytes.as_u64() / 2),
        target_dirty_bytes: ByteSize(max_bytes.as_u64() / 4),
        ..CacheConfig::default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file or device to read, or - for the standard input.
    pub(crate) file: PathBuf,
    /// The store. A directory that does not exist is made.
    pub(crate) store: StoreUrl,
    /// The new volume's name.
    pub(crate) volume: VolumeName,
    /// The volume's size, if it should be larger than the data.
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// Remove a volume of this name first.
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// How many blocks of 256 KiB wait for the cache to take them; it writes back more at once.
    #[arg(long, default_value_t = 4, value_parser = parse_count)]
    pub(crate) in_flight: usize,
    /// Print nothing but errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The store.
    pub(crate) store: StoreUrl,
    /// The volume.
    pub(crate) volume: VolumeName,
    /// The file or device to write, or - for the standard output. A file appears only when it is whole.
    pub(crate) file: PathBuf,
    /// Replace a file that exists.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Export what there is of a volume that is not complete.
    #[arg(long)]
    pub(crate) incomplete: bool,
    /// How many blocks of 256 KiB are being read at once.
    #[arg(long, default_value_t = 8, value_parser = parse_count)]
    pub(crate) in_flight: usize,
    /// Print nothing but errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

/// What to do where somebody else writes the volume.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LockArgs {
    /// Take a volume over from whoever writes it, once that one can write no more. What it has not stored is lost.
    #[arg(long)]
    pub(crate) break_lock: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The store.
    pub(crate) store: StoreUrl,
    /// Only objects whose names start with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size = ByteSize::from_str(text)
        .map_err(|error| format!("`{text}` is no size ({error}): write 4096, 64KiB or 10GiB"))?
        .as_u64();
    if size > OFFSET_BYTES_MAX {
        return Err(format!("`{text}` is above the largest size, 2^63 - 1"));
    }
    Ok(size)
}

pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no time ({error}): write 500ms, 5s or 2min"))
}

pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=65_536) => Ok(count),
        _ => Err(format!("`{text}` is no number from 1 to 65536")),
    }
}

pub(crate) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share from 0 to 1")),
    }
}

pub(crate) fn parse_exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(exponent),
        _ => Err(format!("`{text}` is no exponent from 0 to 10")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(arguments: &[&str]) -> Result<(u64, u64, u64), CliError> {
        let line = ["cachalot", "bench"].iter().chain(arguments);
        let Command::Bench(bench) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command was read");
        };
        let config = bench.cache.config()?;
        Ok((
            config.max_bytes.as_u64(),
            config.max_dirty_bytes.as_u64(),
            config.target_dirty_bytes.as_u64(),
        ))
    }

    #[test]
    fn limits_that_are_not_given_follow_those_that_are() {
        const MIB: u64 = 1 << 20;
        for (arguments, expected) in [
            (&[][..], (64 * MIB, 32 * MIB, 16 * MIB)),
            (&["--cache", "8MiB"], (8 * MIB, 4 * MIB, 2 * MIB)),
            (&["--dirty", "2MiB"], (64 * MIB, 2 * MIB, MIB)),
            (&["--dirty", "0"], (64 * MIB, 0, 0)),
            (&["--target-dirty", "1MiB"], (64 * MIB, 32 * MIB, MIB)),
        ] {
            assert_eq!(limits(arguments).unwrap(), expected, "{arguments:?}");
        }
        assert!(limits(&["--dirty", "65MiB"]).is_err());
        assert!(limits(&["--target-dirty", "33MiB"]).is_err());
    }

    #[test]
    fn options_override_the_configuration_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            &file,
            "max_bytes = \"10MiB\"\nmax_dirty_bytes = \"4MiB\"\ntarget_dirty_bytes = \"1MiB\"\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let (ten, four, one) = (10 << 20, 4 << 20, 1 << 20);
        assert_eq!(limits(&["--config", path]).unwrap(), (ten, four, one));
        let more = limits(&["--config", path, "--target-dirty", "2MiB"]);
        assert_eq!(more.unwrap(), (ten, four, 2 << 20));
    }
}

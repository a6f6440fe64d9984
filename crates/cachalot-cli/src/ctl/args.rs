//! The command line of `cachalot ctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::protocol::{LimitsChange, Mode, Request, millis};
use crate::cli::{parse_count, parse_size, parse_time};
use crate::serve::ListenAddress;
use crate::volume::VolumeName;

/// Which server, and what it is asked.
#[derive(Debug, Args)]
pub(crate) struct CtlArgs {
    /// The server's admin socket; found by --listen unless given.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Where the server listens, as it was told.
    #[arg(long, global = true, default_value = "127.0.0.1:10809")]
    pub(crate) listen: ListenAddress,
    /// Print the server's answers as they are: a line of JSON each.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// All counters and gauges, and how long requests take.
    Stats {
        #[command(flatten)]
        of: VolumeArg,
    },
    /// What is cached: objects, their buffers, and the state of these.
    Dump {
        #[command(flatten)]
        of: VolumeArg,
        /// How many objects of each volume to list.
        #[arg(long, default_value_t = 20)]
        objects: usize,
    },
    /// Store what is dirty, and sync the store.
    Flush {
        #[command(flatten)]
        of: VolumeArg,
    },
    /// Show the cache's limits, and change those that are given.
    Limits(LimitsArgs),
    /// End the server as SIGTERM does, and show how far it is until all is stored.
    Drain,
    /// Drop what is clean.
    Release {
        #[command(flatten)]
        of: VolumeArg,
    },
    /// Show how volumes take writes, and switch it if a mode is given.
    Mode {
        /// The new mode.
        mode: Option<Mode>,
        #[command(flatten)]
        of: VolumeArg,
    },
}

/// A volume, or all of them.
#[derive(Debug, Args)]
pub(crate) struct VolumeArg {
    /// This volume alone.
    #[arg(long)]
    volume: Option<VolumeName>,
}

impl VolumeArg {
    fn name(&self) -> Option<String> {
        self.volume.as_ref().map(VolumeName::to_string)
    }
}

/// Limits to change.
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    /// The memory for cached data, clean and dirty.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    cache: Option<u64>,
    /// How much may wait to be written back; 0 writes through.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    dirty: Option<u64>,
    /// Above how much writing back starts at once [default: half of --dirty, where that is given].
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    target_dirty: Option<u64>,
    /// After how long written data is written back.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    dirty_age: Option<Duration>,
    /// Of how many objects something is remembered.
    #[arg(long, value_name = "N")]
    objects: Option<u64>,
    /// How many writebacks are under way at once.
    #[arg(long, value_parser = parse_count, value_name = "N")]
    writebacks: Option<usize>,
}

impl CtlCommand {
    /// What to ask the server.
    pub(crate) fn request(&self) -> Request {
        match self {
            Self::Stats { of } => Request::Stats { volume: of.name() },
            Self::Dump { of, objects } => Request::Dump {
                volume: of.name(),
                objects: Some(*objects),
            },
            Self::Flush { of } => Request::Flush { volume: of.name() },
            Self::Limits(limits) => Request::Limits {
                change: LimitsChange {
                    max_bytes: limits.cache,
                    max_objects: limits.objects,
                    max_dirty_bytes: limits.dirty,
                    target_dirty_bytes: limits.target_dirty,
                    max_dirty_age_millis: limits.dirty_age.map(millis),
                    writebacks_in_flight: limits.writebacks,
                },
            },
            Self::Drain => Request::Drain {},
            Self::Release { of } => Request::Release { volume: of.name() },
            Self::Mode { mode, of } => Request::Mode {
                volume: of.name(),
                set: *mode,
            },
        }
    }
}

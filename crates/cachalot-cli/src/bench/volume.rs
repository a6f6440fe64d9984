//! A volume that is there, measured as the gateway serves it and asked without a network between.

use std::sync::Arc;

use cachalot::Cache;
use cachalot::backend::Backend;

use super::args::{BenchArgs, ModeArg};
use crate::error::CliError;
use crate::serve::{DEFAULT_PATIENCE, Opening, VolumeExport, check, read_ahead};
use crate::store::StoreUrl;
use crate::volume::{Header, VolumeName, Volumes};

/// A volume that may be written by nobody else meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct OpenVolume {
    pub(crate) name: VolumeName,
    header: Header,
    opening: Opening,
}

impl OpenVolume {
    /// Reads the header of a volume that is locked.
    pub(crate) async fn load(
        volumes: &Volumes,
        name: &VolumeName,
        (store, args): (&StoreUrl, &BenchArgs),
    ) -> Result<Self, CliError> {
        let header = volumes.load(name).await?;
        check(name, &header, None)?;
        Ok(Self {
            name: name.clone(),
            header,
            opening: Opening {
                is_read_only: false,
                patience: DEFAULT_PATIENCE,
                read_ahead: read_ahead(args.volume.read_ahead, store),
            },
        })
    }

    /// How large it is.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    /// The volume in a cache over its store.
    pub(crate) async fn export(
        &self,
        store: &Arc<dyn Backend>,
        cache: &Cache,
    ) -> Result<VolumeExport, CliError> {
        let volume = (&self.name, &self.header);
        self.opening.open(store, cache, volume).await
    }
}

/// Refuses what can't be asked of a volume, before any is opened.
pub(crate) fn check_args(args: &BenchArgs) -> Result<(), CliError> {
    let refused = |what: &str| Err(CliError::Usage(what.to_owned()));
    match (args.mode, args.sets.as_slice()) {
        (Some(ModeArg::Direct | ModeArg::Both), _) => refused(
            "--volume measures the cache alone: leave --mode out, or --volume to measure the bare store",
        ),
        (Some(ModeArg::Cache) | None, [] | [1]) => Ok(()),
        (Some(ModeArg::Cache) | None, _) => {
            refused("--volume is one set: leave --sets out, or say --sets 1")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use cachalot::Layout;
    use clap::Parser;

    use super::super::run::Stop;
    use super::super::{measure_volume, workload_of};
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::error::exit_code;
    use crate::serve::tests::locks::Shared;

    fn parsed(more: &str) -> Result<BenchArgs, clap::Error> {
        let words = "cachalot bench --store memory:".split(' ');
        let cli = Cli::try_parse_from(words.chain(more.split_whitespace()))?;
        let Command::Bench(args) = cli.command else {
            panic!("another command");
        };
        Ok(*args)
    }

    fn args(more: &str) -> BenchArgs {
        parsed(&format!("--volume disk {more}")).unwrap()
    }

    #[test]
    fn a_volume_is_one_set_through_the_cache() {
        for good in ["", "--mode cache", "--sets 1"] {
            check_args(&args(good)).unwrap();
        }
        for (bad, advice) in [
            ("--mode direct", "leave --mode out"),
            ("--mode both", "leave --mode out"),
            ("--sets 2", "leave --sets out"),
            ("--sets 1,2", "leave --sets out"),
        ] {
            let refused = check_args(&args(bad)).unwrap_err();
            assert_eq!(refused.exit_code(), exit_code::USAGE, "{bad}");
            assert!(refused.to_string().contains(advice), "{bad}: {refused}");
        }
    }

    #[test]
    fn what_is_touched_lies_inside_the_volume_and_is_all_of_it_by_default() {
        const SIZE: u64 = 1 << 20;
        let touched = |more: &str| workload_of(&args(more), Some(SIZE));
        let whole = touched("").unwrap();
        assert_eq!((whole.sets, whole.set_bytes()), (1, SIZE));
        assert_eq!(touched("--working-set 64KiB").unwrap().set_bytes(), 65_536);
        assert_eq!(touched("--working-set 1MiB").unwrap().set_bytes(), SIZE);
        let refused = touched("--working-set 1025KiB").unwrap_err();
        assert_eq!(refused.exit_code(), exit_code::USAGE);
        let text = refused.to_string();
        assert!(text.contains("1048576 bytes: lower it"), "{text}");
        // Without one nothing has changed.
        let own = workload_of(&parsed("").unwrap(), None).unwrap();
        assert_eq!((own.sets, own.working_set_bytes), (4, 256 << 20));
    }

    #[tokio::test]
    async fn the_right_to_write_the_volume_is_given_back_however_the_run_ends() {
        let store = Shared::default();
        let (taken, held) = (Arc::clone(&store.taken), Arc::clone(&store.held));
        let volumes = Volumes::of(Arc::new(store));
        let name: VolumeName = "disk".parse().unwrap();
        let measured = async |more: &str, stop: Stop| {
            let url = StoreUrl::Memory;
            let args = args(&format!("--json --operations 9 {more}"));
            let before = taken.load(Ordering::SeqCst);
            let measured = measure_volume(&args, (&url, &volumes), &name, stop).await;
            assert_eq!(taken.load(Ordering::SeqCst), before + 1);
            assert_eq!(held.load(Ordering::SeqCst), 0);
            measured.map(drop)
        };
        let absent = measured("", Stop::default()).await.unwrap_err();
        assert_eq!(absent.exit_code(), exit_code::VOLUME);
        let layout = Layout::default();
        volumes.create(&name, 1 << 20, layout).await.unwrap();
        let refused = measured("--working-set 2MiB", Stop::default()).await;
        assert_eq!(refused.unwrap_err().exit_code(), exit_code::USAGE);
        measured("", Stop::default()).await.unwrap();
        let stopped = Stop::default();
        stopped.set();
        let interrupted = measured("--warm", stopped).await;
        assert!(matches!(interrupted, Err(CliError::Interrupted)));
    }

    #[test]
    fn options_that_a_volume_leaves_no_room_for_are_refused() {
        for bad in [
            "--volume disk --case all",
            "--volume disk --memory all",
            "--volume disk --scale all",
            "--volume disk --object-size 1MiB",
            "--read-ahead 1MiB",
            "--break-lock",
            "--operations 0",
            "--operations 5 --duration 1s",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        let words = ["cachalot", "bench", "--volume", "disk"];
        let error = Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(error.contains("--store"), "{error}");
    }
}

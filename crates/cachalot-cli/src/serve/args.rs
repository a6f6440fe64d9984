//! The command line of `cachalot serve`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::ListenAddress;
use crate::cli::{CacheArgs, LayoutArgs, LockArgs, parse_size};
use crate::store::StoreUrl;
use crate::volume::VolumeName;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The store.
    pub(crate) store: StoreUrl,
    /// The volumes, each an export of its name.
    #[arg(required = true)]
    pub(crate) volumes: Vec<VolumeName>,
    /// The size of volumes that are made; those that exist must have it.
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// Make volumes that do not exist.
    #[arg(long, requires = "size", conflicts_with = "read_only")]
    pub(crate) create: bool,
    /// Where to listen: HOST:PORT, or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:10809")]
    pub(crate) listen: ListenAddress,
    /// The socket for `cachalot ctl`, or `none` [default: PATH.ctl beside a unix socket, or cachalot-PORT.ctl in
    /// the runtime directory].
    #[arg(long, value_name = "PATH")]
    pub(crate) admin: Option<AdminPath>,
    /// Where to show numbers: `/metrics` for Prometheus, `/stats.json`, and a page. HOST:PORT, or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<ListenAddress>,
    /// Let clients read only.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Listen where other machines can connect, though nothing is encrypted and nobody is asked who they are.
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

/// Where the admin socket is, if anywhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AdminPath {
    /// Nowhere.
    None,
    /// There.
    At(PathBuf),
}

impl FromStr for AdminPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a socket needs a path, as in /run/disk.ctl".to_owned()),
            "none" => Ok(Self::None),
            path => Ok(Self::At(path.into())),
        }
    }
}

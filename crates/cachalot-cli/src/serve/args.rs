//! The command line of `cachalot serve`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use cachalot_nbd::Tls;
use clap::Args;

use super::ListenAddress;
use crate::cli::{CacheArgs, LayoutArgs, LockArgs, parse_size};
use crate::error::CliError;
use crate::store::StoreUrl;
use crate::volume::VolumeName;

/// For how long requests wait for a store that is away.
pub(crate) const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

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
    /// Listen where other machines can connect, though nothing is encrypted and nobody is asked who they are. For --metrics,
    /// which is never encrypted, this is needed with certificates too.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// For how long a client waits for a store that is away, before it is told of an error [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) patience: Option<Duration>,
    /// How far ahead of clients that read in sequence the store is read, at most an eighth of the cache; 0 is not at
    /// all [default: 2MiB, 0 for `file:` and `memory:`].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) read_ahead: Option<u64>,
    /// How long to poll for the next request of a client that is alone and asked again soon before, instead of sleeping.
    /// It spares the time of waking up and takes a processor meanwhile; at most 1ms, and 0s is not at all.
    #[arg(long, value_name = "TIME", default_value = "50us", value_parser = parse_busy_poll)]
    pub(crate) busy_poll: Duration,
    /// Have the store fail, delay and go away on purpose, as this seed says, to see what stands on top of it bear that.
    #[arg(long, value_name = "SEED")]
    pub(crate) rehearse: Option<u64>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

/// The thread that polls does nothing else, and does not hear of an order to end.
const BUSY_POLL_MAX: Duration = Duration::from_millis(1);

fn parse_busy_poll(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > BUSY_POLL_MAX {
        return Err("longer than 1ms, which a sleep takes far less than: try 50us".to_owned());
    }
    Ok(time)
}

/// Encryption, which every client must then use.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// The server's certificates in PEM, its own first. With them every client must use TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The server's private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authorities in PEM of which one must have signed a client's certificate.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_clients: Option<PathBuf>,
}

impl TlsArgs {
    /// Reads the files.
    pub(super) fn load(&self) -> Result<Option<Tls>, CliError> {
        let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) else {
            return Ok(None);
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                CliError::Failed(format!("cannot read {}: {error}", path.display()))
            })
        };
        let clients = self.tls_clients.as_ref().map(read).transpose()?;
        let tls = Tls::from_pem(&read(certificate)?, &read(key)?, clients.as_deref());
        tls.map(Some)
            .map_err(|error| CliError::Failed(format!("cannot encrypt: {error}")))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_would_hold_a_thread_for_long_is_refused() {
        assert_eq!(parse_busy_poll("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_busy_poll("1ms"), Ok(BUSY_POLL_MAX));
        for refused in ["1001us", "1year", "50"] {
            assert!(parse_busy_poll(refused).is_err(), "{refused}");
        }
    }
}

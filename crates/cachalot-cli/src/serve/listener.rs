//! Where the gateway listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};

use crate::error::CliError;

/// What the system holds of answers for a client on a Unix socket; over TCP it finds that out by itself.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// An address to listen at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ListenAddress {
    /// `HOST:PORT`.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` needs a path, as in `unix:/run/disk.sock`".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Ok(Self::Tcp(text.to_owned()))
            }
            None => Err(format!(
                "`{text}` is no address: write 127.0.0.1:10809 or unix:PATH"
            )),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A client's stream of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + AsFd + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + AsFd + Unpin + Send> Stream for S {}

/// A connection that no runtime drives yet.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Has the current runtime drive it.
    pub(super) fn into_stream(self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(stream) => Box::new(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Box::new(UnixStream::from_std(stream)?),
        })
    }
}

/// A socket that takes connections. A unix socket's file goes with it.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens; beyond this machine only where that is said to be wanted.
    pub(super) async fn bind(address: &ListenAddress, insecure: bool) -> Result<Self, CliError> {
        let failed =
            |error: io::Error| CliError::Failed(format!("cannot listen at {address}: {error}"));
        match address {
            ListenAddress::Unix(path) => {
                remove_stale(path).await;
                let listener = UnixListener::bind(path).map_err(failed)?;
                Ok(Self::Unix(listener, path.clone()))
            }
            ListenAddress::Tcp(name) => {
                let found: Vec<SocketAddr> = lookup_host(name).await.map_err(failed)?.collect();
                if !insecure && found.iter().any(|address| !address.ip().is_loopback()) {
                    return Err(CliError::Usage(format!(
                        "{name} can be reached from other machines, and nothing here encrypts or asks who it is: add --tls-certificate and --tls-key, or --insecure to listen there all the same"
                    )));
                }
                Ok(Self::Tcp(
                    TcpListener::bind(found.as_slice()).await.map_err(failed)?,
                ))
            }
        }
    }

    /// Where it listens, with the port that it got.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(
                |error| error.to_string(),
                |address| format!("http://{address}/"),
            ),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The next connection, at no runtime yet.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream.into_std()?))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // The usual 208 KiB have no room for a second answer of 128 KiB while a client takes the first. As much
                // as the system allows; less does no harm.
                set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES).unwrap_or_default();
                Ok(Accepted::Unix(stream.into_std()?))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            std::fs::remove_file(path).unwrap_or_default();
        }
    }
}

/// Removes a socket that a killed server has left: one at which nobody answers.
pub(super) async fn remove_stale(path: &Path) {
    if let Err(error) = UnixStream::connect(path).await
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        std::fs::remove_file(path).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for text in ["127.0.0.1:10809", "[::1]:1", "unix:/run/a:b"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "host", "host:port", ":1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn other_machines_are_let_in_only_where_that_is_said() {
        let everywhere = ListenAddress::Tcp("0.0.0.0:0".to_owned());
        let refused = Listener::bind(&everywhere, false).await.unwrap_err();
        assert!(refused.to_string().contains("--insecure"), "{refused}");
        Listener::bind(&everywhere, true).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_server_left_is_taken_over_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(directory.path().join("socket"));
        let killed = std::os::unix::net::UnixListener::bind(directory.path().join("socket"));
        drop(killed.unwrap());
        let live = Listener::bind(&address, false).await.unwrap();
        assert!(Listener::bind(&address, false).await.is_err());
        drop(live);
        assert!(!directory.path().join("socket").exists());
    }
}

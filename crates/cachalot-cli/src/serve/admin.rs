//! The admin socket: what `cachalot ctl` talks to. Only its owner may.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode as FileMode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::gateway::{Gateway, Stage};
use super::listener::{ListenAddress, remove_stale};
use crate::ctl::protocol::{Answer, ControlError, ErrorKind, REQUEST_BYTES_MAX, Request};
use crate::error::CliError;

/// How many are answered at once; more are told so and sent away.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may be silent, or leave an answer untaken.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How many wait to be accepted.
const BACKLOG: i32 = 64;

/// Where the admin socket of a server is that listens there, unless it is told otherwise.
pub(crate) fn default_admin_path(listen: &ListenAddress) -> Option<PathBuf> {
    match listen {
        ListenAddress::Unix(path) => {
            let mut path = path.clone().into_os_string();
            path.push(".ctl");
            Some(path.into())
        }
        ListenAddress::Tcp(address) => {
            let (_, port) = address.rsplit_once(':')?;
            let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
                Some(directory) if !directory.is_empty() => PathBuf::from(directory),
                _ if rustix::process::geteuid().is_root() => PathBuf::from("/run"),
                _ => return None,
            };
            Some(directory.join(format!("cachalot-{port}.ctl")))
        }
    }
}

/// The socket's file, which goes with this.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}

/// Listens at a path, as a file that only its owner can connect to, from the first moment on.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), CliError> {
    remove_stale(path).await;
    let bound = bind_private(path).and_then(UnixListener::from_std);
    let listener = bound.map_err(|error| {
        CliError::Failed(format!(
            "cannot open the admin socket {}: {error} (--admin says where, or none)",
            path.display()
        ))
    })?;
    Ok((listener, SocketFile(path.to_owned())))
}

fn bind_private(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file gets the mode that the socket has when it is bound.
    rustix::fs::fchmod(&socket, FileMode::RUSR | FileMode::WUSR)?;
    let address = SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Answers whoever connects, until it is dropped.
pub(super) async fn answer_all(listener: UnixListener, gateway: Arc<Gateway>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    let pause = std::future::pending::<()>();
                    tokio::time::timeout(super::ACCEPT_PAUSE, pause).await.unwrap_or_default();
                    continue;
                };
                let (input, output) = stream.into_split();
                let connection = Connection { input: BufReader::new(input), output };
                if connections.len() < CONNECTIONS_MAX {
                    connections.spawn(connection.serve(Arc::clone(&gateway)));
                } else {
                    connection.turn_away();
                }
            }
        }
    }
}

/// Why no answer could be sent: whoever asked has gone, or does not listen.
struct Gone;

/// Somebody who asks.
struct Connection {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
}

impl Connection {
    async fn serve(mut self, gateway: Arc<Gateway>) {
        loop {
            let request = match tokio::time::timeout(SILENCE_MAX, self.request()).await {
                Ok(Ok(Some(request))) => request,
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    let ends = error.kind != ErrorKind::Malformed;
                    if self.say(&Answer::Failed(error)).await.is_err() || ends {
                        return;
                    }
                    continue;
                }
                Err(_late) => {
                    let error = ControlError::new(ErrorKind::Slow, "no request came in time");
                    // It ends, whether it hears why or not.
                    self.say(&Answer::Failed(error)).await.unwrap_or(());
                    return;
                }
            };
            if request == (Request::Drain {}) {
                // Whoever asked may have gone: the server ends all the same.
                return self.watch_the_end(&gateway).await.unwrap_or(());
            }
            let answer = perform(request, &gateway).await;
            let said = self.say(&answer.unwrap_or_else(Answer::Failed)).await;
            if said.is_err() {
                return;
            }
        }
    }

    /// Tells in one go that there are too many, and ends.
    fn turn_away(self) {
        let error = ControlError::new(
            ErrorKind::Busy,
            format!("{CONNECTIONS_MAX} others are being answered: try again"),
        );
        if let Ok(mut line) = serde_json::to_vec(&Answer::Failed(error)) {
            line.push(b'\n');
            // A new connection has room for it.
            self.output.try_write(&line).unwrap_or_default();
        }
    }

    /// The next request; `None` at the end.
    async fn request(&mut self) -> Result<Option<Request>, ControlError> {
        let mut line = Vec::new();
        let read = (&mut self.input)
            .take(REQUEST_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .await;
        if read.is_err() || line.is_empty() {
            return Ok(None);
        }
        if line.len() > REQUEST_BYTES_MAX {
            let message = format!("a request has {REQUEST_BYTES_MAX} bytes at most");
            return Err(ControlError::new(ErrorKind::TooLong, message));
        }
        let request = serde_json::from_slice(&line);
        request.map(Some).map_err(|error| {
            ControlError::new(ErrorKind::Malformed, format!("no request: {error}"))
        })
    }

    async fn say(&mut self, answer: &Answer) -> Result<(), Gone> {
        let mut line = serde_json::to_vec(answer).map_err(|_not_json| Gone)?;
        line.push(b'\n');
        let mut left = line.as_slice();
        while !left.is_empty() {
            let written = tokio::time::timeout(SILENCE_MAX, self.output.write(left)).await;
            let Ok(Ok(written @ 1..)) = written else {
                return Err(Gone);
            };
            left = left.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Has the server end, and tells how far it is until it has. The connection then ends with the process, so that
    /// whoever waits for that can start another server on the same store.
    async fn watch_the_end(mut self, gateway: &Gateway) -> Result<(), Gone> {
        let mut stage = gateway.stage.subscribe();
        gateway.ask_to_end();
        let last = loop {
            let now = stage.borrow_and_update().clone();
            match now {
                Stage::Serving | Stage::Ending => {}
                Stage::Draining(progress) => self.say(&Answer::Draining(progress)).await?,
                Stage::Drained => break Answer::Drained {},
                Stage::Lost(reason) => {
                    break Answer::Failed(ControlError::new(ErrorKind::Lost, reason));
                }
            }
            stage.changed().await.map_err(|_ended| Gone)?;
        };
        self.say(&last).await?;
        std::mem::forget(self);
        Ok(())
    }
}

async fn perform(request: Request, gateway: &Gateway) -> Result<Answer, ControlError> {
    Ok(match request {
        Request::Stats { volume } => {
            Answer::Stats(Box::new(gateway.stats(volume.as_deref()).await?))
        }
        Request::Dump { volume, objects } => Answer::Dump {
            volumes: gateway.dump(volume.as_deref(), objects).await?,
        },
        Request::Flush { volume } => Answer::Flushed {
            volumes: gateway.flush(volume.as_deref()).await?,
        },
        Request::Limits { change } => Answer::Limits(gateway.limits(change).await?),
        Request::Release { volume } => Answer::Released {
            volumes: gateway.release(volume.as_deref()).await?,
        },
        Request::Mode { volume, set } => Answer::Modes {
            volumes: gateway.mode(volume.as_deref(), set).await?,
        },
        // It is answered more than once, elsewhere.
        Request::Drain {} => Answer::Drained {},
    })
}

//! A client from its first byte to its last: the handshake, then its requests, in room that is shared with others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::connection::Connection;
use crate::handshake::{Agreed, Exports, Negotiated, negotiate, options};
use crate::tls::Tls;
use crate::wire::{self, Garbage};

/// How long a client may take over the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// What room is counted in.
const ROOM_UNIT: u32 = 4096;

/// Why a connection ended before its client said so.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The transport failed, or ended in the middle.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client does not speak the protocol.
    #[error(transparent)]
    Garbage(#[from] Garbage),
    /// The client could not be agreed with about encryption, or may not come in.
    #[error("no encryption: {0}")]
    Tls(#[source] io::Error),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    Slow,
    /// The client stopped in the middle of a write, or took nothing of its answers.
    #[error("the client stalls")]
    Stalled,
}

/// How many bytes of data all connections of a server together may have under way, on top of what each may.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// So much, and at least what one request may carry.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let least = (wire::PAYLOAD_BYTES_MAX / ROOM_UNIT) as usize;
        let units = bytes / ROOM_UNIT as usize;
        Self(Arc::new(Semaphore::new(
            units.clamp(least, Semaphore::MAX_PERMITS),
        )))
    }

    /// Room for so many bytes, if it is there and nobody waits.
    pub(crate) fn try_take(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(ROOM_UNIT);
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }

    /// Room for so many bytes, in turn.
    pub(crate) fn take(&self, bytes: u32) -> BoxFuture<'static, OwnedSemaphorePermit> {
        let room = Arc::clone(&self.0);
        async move {
            match room.acquire_many_owned(bytes.div_ceil(ROOM_UNIT)).await {
                Ok(permit) => permit,
                // It is never closed.
                Err(_closed) => std::future::pending().await,
            }
        }
        .boxed()
    }
}

/// How a connection waits for its client's next request, when all is answered.
pub trait Pause: Send {
    /// The wait begins, after so many requests since the one before. The thread sleeps when this returns, unless something has
    /// come by then: looking for it here, for a moment, spares the time that waking a thread takes.
    fn begin(&mut self, done: usize);
    /// Something has come.
    fn end(&mut self);
}

/// Sleeps at once.
impl Pause for () {
    fn begin(&mut self, _: usize) {}
    fn end(&mut self) {}
}

/// Serves a client until it goes, or until `stop` becomes true: then what is in flight is answered first. With `tls`
/// nobody gets further than to ask for encryption without it.
///
/// # Errors
/// [`ConnectionError`]; nobody else notices.
pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    (stream, pause): (S, impl Pause),
    (exports, room): (&Exports, &Room),
    tls: Option<&Tls>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let come_in = tokio::select! {
        done = timeout(HANDSHAKE_MAX, come_in(stream, exports, tls)) => {
            done.unwrap_or(Err(ConnectionError::Slow))?
        }
        _ = stop.wait_for(|stop| *stop) => None,
    };
    match come_in {
        Some(Client::Plain(stream, agreed)) => {
            Connection::new((stream, pause), (&agreed, room), stop)
                .serve()
                .await
        }
        Some(Client::Encrypted(stream, agreed)) => {
            Connection::new((stream, pause), (&agreed, room), stop)
                .serve()
                .await
        }
        None => Ok(()),
    }
}

/// A client that has chosen an export.
enum Client<S> {
    Plain(S, Agreed),
    Encrypted(Box<TlsStream<S>>, Agreed),
}

/// The handshake; `None` when the client ended it.
async fn come_in<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut stream: S,
    exports: &Exports,
    tls: Option<&Tls>,
) -> Result<Option<Client<S>>, ConnectionError> {
    match (negotiate(&mut stream, exports, tls.is_some()).await?, tls) {
        (Negotiated::Transmission(agreed), _) => Ok(Some(Client::Plain(stream, agreed))),
        (Negotiated::Tls { no_zeroes }, Some(tls)) => {
            let stream = tls.0.accept(stream).await.map_err(ConnectionError::Tls)?;
            let mut stream = Box::new(stream);
            match options(&mut stream, exports, (false, no_zeroes)).await? {
                Negotiated::Transmission(agreed) => Ok(Some(Client::Encrypted(stream, agreed))),
                Negotiated::Tls { .. } | Negotiated::Ended => Ok(None),
            }
        }
        (Negotiated::Tls { .. } | Negotiated::Ended, _) => Ok(None),
    }
}

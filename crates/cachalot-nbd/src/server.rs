//! A client from its first byte to its last: the handshake, then its requests, in room that is shared with others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection::Connection;
use crate::handshake::{Exports, negotiate};
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

/// Serves a client until it goes, or until `stop` becomes true: then what is in flight is answered first.
///
/// # Errors
/// [`ConnectionError`]; nobody else notices.
pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut stream: S,
    (exports, room): (&Exports, &Room),
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let agreed = tokio::select! {
        agreed = tokio::time::timeout(HANDSHAKE_MAX, negotiate(&mut stream, exports)) => {
            agreed.unwrap_or(Err(ConnectionError::Slow))?
        }
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let Some(agreed) = agreed else {
        return Ok(());
    };
    Connection::new(stream, (&agreed, room), stop).serve().await
}

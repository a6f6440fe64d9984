//! Calls of librados that block: each on a thread of its own. They are rare: listings, locks, snapshots.

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use crate::error::BackendError;

/// Runs a call to its end, whatever becomes of the future.
pub(super) fn on_a_thread<T, E>(
    call: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> BoxFuture<'static, Result<T, E>>
where
    T: Send + 'static,
    E: From<BackendError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let started = cachalot_librados::spawn("cachalot-rados", move || {
        // Nobody may be left to tell.
        drop(reply.send(call()));
    });
    if let Err(error) = started {
        let error = BackendError::from_io("start a thread", &error);
        return std::future::ready(Err(error.into())).boxed();
    }
    async {
        answer
            .await
            .unwrap_or_else(|_gone| Err(BackendError::Unavailable.into()))
    }
    .boxed()
}

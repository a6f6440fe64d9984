//! A thread for each client. What a client's requests wait for wakes that thread and no other, and a client that is looked out
//! for, or encrypted, holds up nobody else.

use std::convert::Infallible;
use std::io;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Serves a client on a thread of its own, which drives whatever `serve` makes there.
///
/// # Cancel safety
/// Dropping the future ends the client; its thread goes soon after.
pub(super) async fn on_its_own_thread<F: Future<Output = ()>>(
    serve: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut here, ended) = oneshot::channel::<Infallible>();
    thread::Builder::new()
        .name("cachalot-client".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve() => {}
                    () = here.closed() => {}
                }
            });
        })?;
    // Ends in an error, since nothing is sent.
    drop(ended.await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_lasts_as_long_as_the_client() {
        let ((here, there), (go, gone)) = (oneshot::channel(), oneshot::channel::<()>());
        let serve = move || async move {
            here.send(thread::current().id()).unwrap();
            drop(gone.await);
        };
        let mut client = std::pin::pin!(on_its_own_thread(serve));
        let there = tokio::select! {
            _ = &mut client => panic!("it has ended"),
            there = there => there.unwrap(),
        };
        assert_ne!(there, thread::current().id());
        assert!(futures::poll!(&mut client).is_pending());
        go.send(()).unwrap();
        client.await.unwrap();
    }

    #[tokio::test]
    async fn dropped_it_ends_the_client() {
        let (witness, (held, holds)) = (Arc::new(()), oneshot::channel::<()>());
        let weak = Arc::downgrade(&witness);
        let mut client = Box::pin(on_its_own_thread(move || async move {
            let _witness = witness;
            held.send(()).unwrap();
            std::future::pending::<()>().await;
        }));
        tokio::select! {
            _ = &mut client => panic!("it has ended"),
            held = holds => held.unwrap(),
        }
        drop(client);
        let ended = async {
            while weak.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        ended.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_panics_is_over() {
        on_its_own_thread(|| async { panic!("on purpose") })
            .await
            .unwrap();
    }
}

//! Threads of the backend's own for its requests, so that callers need no runtime, and so that what they give up
//! still comes to an orderly end.

use std::fmt;
use std::io;

use futures::future::Future;
use tokio::runtime::{Builder, Handle, Runtime as Tokio};

/// The threads. Dropping it gives up what is under way, without waiting.
pub(super) struct Runtime(Option<Tokio>);

/// A way to start tasks that does not keep the threads alive.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Handle);

impl Runtime {
    /// Starts so many threads, at least one.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .max_blocking_threads(4)
            .thread_name("cachalot-object-store")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn spawner(&self) -> Option<Spawner> {
        self.0
            .as_ref()
            .map(|runtime| Spawner(runtime.handle().clone()))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

impl Spawner {
    /// Runs a task to its end, or until the backend goes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(task));
    }
}

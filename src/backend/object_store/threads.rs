//! Where requests are made: on threads of the backend's own, so that callers need no runtime, and so that what they give up
//! still comes to an orderly end; or, if that is asked for, a lone read on the thread that waits for it.
//!
//! Each thread has a client, and thus connections, of its own: an answer wakes the thread that is to look at it and no
//! other. Such a read takes no wake-up of another thread at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use ::object_store::ObjectStore;
use futures::channel::oneshot as answers;
use futures::future::Future;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::error::ObjectStoreError;

/// Requests and their connections.
pub(super) type Client = Arc<dyn ObjectStore>;
/// Makes a client.
pub(super) type Connect = dyn Fn() -> Result<Client, ObjectStoreError> + Send + Sync;

/// Of so many threads that ask, clients are kept.
const CALLERS_MAX: usize = 64;

/// A way to start tasks that does not keep the threads alive.
#[derive(Clone, Debug)]
pub(super) struct Spawner(Handle);

impl Spawner {
    /// Runs a task to its end, or until the backend goes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(task));
    }
}

/// How many operations are under way somewhere.
#[derive(Clone, Debug, Default)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Visit {
        self.0.fetch_add(1, Ordering::Relaxed);
        Visit(Arc::clone(&self.0))
    }
}

/// One of them.
#[derive(Debug)]
struct Visit(Arc<AtomicUsize>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where one operation is carried out.
pub(super) struct Place {
    spawner: Spawner,
    pub(super) client: Client,
    visit: Visit,
}

impl Place {
    /// Carries out the operation. It is no longer under way when its answer can be seen.
    pub(super) fn spawn<T: Send + 'static>(
        self,
        operation: impl Future<Output = T> + Send + 'static,
        reply: answers::Sender<T>,
    ) {
        let visit = self.visit;
        self.spawner.spawn(async move {
            let answer = operation.await;
            drop(visit);
            // Nobody may be left to tell.
            drop(reply.send(answer));
        });
    }
}

/// One of the backend's threads.
struct Own {
    spawner: Spawner,
    client: Client,
    under_way: UnderWay,
    /// Nothing is sent: the thread ends with it.
    _end: oneshot::Sender<Infallible>,
}

impl Own {
    fn start(client: Client) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(4)
            .enable_all()
            .build()?;
        let spawner = Spawner(runtime.handle().clone());
        let (end, ended) = oneshot::channel::<Infallible>();
        std::thread::Builder::new()
            .name("cachalot-object-store".to_owned())
            .spawn(move || {
                // Ends in an error, since nothing is sent.
                drop(runtime.block_on(ended));
                // Not even a name that is being resolved is waited for.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            spawner,
            client,
            under_way: UnderWay::default(),
            _end: end,
        })
    }

    fn place(&self) -> Place {
        Place {
            spawner: self.spawner.clone(),
            client: Arc::clone(&self.client),
            visit: self.under_way.enter(),
        }
    }
}

/// The threads that ask, and their clients once these are made.
#[derive(Default)]
struct Callers {
    clients: Mutex<HashMap<ThreadId, Arc<OnceLock<Client>>>>,
    under_way: UnderWay,
}

/// All threads. Dropping it gives up what is under way on the backend's own, without waiting.
pub(super) struct Threads {
    own: Vec<Own>,
    callers: Option<Callers>,
    connect: Arc<Connect>,
}

impl Threads {
    /// Starts so many threads of the backend's own, at least one. With `on_callers`, a read that is alone is made on the
    /// thread that asks, if that drives a runtime of its own.
    pub(super) fn start(
        count: usize,
        on_callers: bool,
        connect: Arc<Connect>,
    ) -> Result<Self, ObjectStoreError> {
        let own: Result<Vec<Own>, ObjectStoreError> = (0..count.max(1))
            .map(|_| Ok(Own::start(connect()?)?))
            .collect();
        Ok(Self {
            own: own?,
            callers: on_callers.then(Callers::default),
            connect,
        })
    }

    /// The first thread and its client: for what is not part of an operation.
    pub(super) fn first(&self) -> Option<(Spawner, Client)> {
        let first = self.own.first()?;
        Some((first.spawner.clone(), Arc::clone(&first.client)))
    }

    /// Where a change is carried out: on the backend's own threads, whatever becomes of the caller's.
    pub(super) fn for_change(&self) -> Option<Place> {
        let idlest = self.own.iter().min_by_key(|own| own.under_way.count());
        idlest.map(Own::place)
    }

    /// How many threads that ask have a client, or are about to.
    #[cfg(test)]
    pub(super) fn callers(&self) -> usize {
        self.callers
            .as_ref()
            .map_or(0, |callers| callers.clients.lock().len())
    }

    /// Where a read is carried out.
    pub(super) fn for_read(&self) -> Option<Place> {
        self.at_caller().or_else(|| self.for_change())
    }

    /// The thread that asks, if nothing else is under way: several are faster side by side.
    fn at_caller(&self) -> Option<Place> {
        let callers = self.callers.as_ref()?;
        let is_idle = |under_way: &UnderWay| under_way.count() == 0;
        if !is_idle(&callers.under_way) || !self.own.iter().all(|own| is_idle(&own.under_way)) {
            return None;
        }
        let handle = Handle::try_current().ok()?;
        if handle.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return None;
        }
        let client = self.client_of(&callers.clients, std::thread::current().id())?;
        Some(Place {
            spawner: Spawner(handle),
            client,
            visit: callers.under_way.enter(),
        })
    }

    /// The client of a thread, once it is made: that may take long, as certificates are read, and the thread has other work.
    fn client_of(
        &self,
        clients: &Mutex<HashMap<ThreadId, Arc<OnceLock<Client>>>>,
        thread: ThreadId,
    ) -> Option<Client> {
        let mut clients = clients.lock();
        let is_full = clients.len() >= CALLERS_MAX;
        match clients.entry(thread) {
            Entry::Occupied(known) => known.get().get().cloned(),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(new) => {
                let slot = Arc::clone(new.insert(Arc::default()));
                let connect = Arc::clone(&self.connect);
                let Spawner(maker) = &self.own.first()?.spawner;
                drop(maker.spawn_blocking(move || match connect() {
                    Ok(client) => drop(slot.set(client)),
                    Err(error) => tracing::debug!(%error, "no client for a thread that asks"),
                }));
                None
            }
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

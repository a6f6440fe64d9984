//! Where the judge listens: between the cache and the faulty store, and between that and the true one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cachalot::backend::{
    Answer, AnswerFuture, Backend, BackendWrite, Capabilities, Decorator, JournalNotice, Operation,
};
use cachalot::{BackendError, ObjectName};
use futures::FutureExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::VirtualClock;
use crate::oracle::Oracle;

/// What the cache speaks to. Once time [stands still](VirtualClock::is_stuck) it answers nothing more. Writes that it gives up may still be stored: just before the next operation on their
/// object, as a request that was stuck on its way is.
pub(crate) struct Outer {
    inner: Arc<dyn Backend>,
    shared: Arc<Shared>,
    clock: Arc<VirtualClock>,
}

struct Shared {
    store: Arc<dyn Backend>,
    oracle: Arc<Mutex<Oracle>>,
    given_up: Mutex<GivenUp>,
}

struct GivenUp {
    dice: StdRng,
    likelihood: f64,
    writes: BTreeMap<ObjectName, Vec<(u64, BackendWrite)>>,
}

/// A write of the cache, until it ends.
struct UnderWay {
    number: u64,
    write: Option<BackendWrite>,
    shared: Arc<Shared>,
}

impl UnderWay {
    /// It was answered.
    fn end(mut self) {
        self.write = None;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let write = self.write.take();
        let mut given_up = self.shared.given_up.lock();
        let likelihood = given_up.likelihood;
        match write {
            Some(write) if given_up.dice.random::<f64>() < likelihood => {
                let writes = given_up.writes.entry(write.object.clone()).or_default();
                writes.push((self.number, write));
            }
            Some(_) | None => {}
        }
        drop(given_up);
        self.shared.oracle.lock().write_ends(self.number);
    }
}

impl Outer {
    /// `store` is the true store, `inner` is it with its faults.
    pub(crate) fn new(
        (inner, store): (Arc<dyn Backend>, Arc<dyn Backend>),
        oracle: Arc<Mutex<Oracle>>,
        clock: Arc<VirtualClock>,
        (seed, likelihood): (u64, f64),
    ) -> Self {
        let given_up = GivenUp {
            dice: StdRng::seed_from_u64(seed),
            likelihood,
            writes: BTreeMap::new(),
        };
        let shared = Shared {
            store,
            oracle,
            given_up: Mutex::new(given_up),
        };
        Self {
            inner,
            shared: Arc::new(shared),
            clock,
        }
    }

    /// Nothing that was given up on this object will ever be stored, if it was not yet.
    pub(crate) fn forget(&self, object: &ObjectName) {
        self.shared.given_up.lock().writes.remove(object);
    }

    /// Nothing that was given up will ever be stored.
    pub(crate) fn forget_all(&self) {
        self.shared.given_up.lock().writes.clear();
    }

    /// Writes that were given up and may still be stored.
    pub(crate) fn given_up(&self) -> Vec<BackendWrite> {
        let given_up = self.shared.given_up.lock();
        let writes = given_up.writes.values().flatten();
        writes.map(|(_, write)| write.clone()).collect()
    }
}

impl Shared {
    /// What was given up on an object is stored now, if at all.
    fn land_given_up(&self, object: &ObjectName) {
        let writes = self.given_up.lock().writes.remove(object);
        for (_, write) in writes.into_iter().flatten() {
            // The true store answers at once.
            let _ = self.store.write(write).now_or_never();
        }
    }
}

impl fmt::Debug for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outer")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Decorator for Outer {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        if self.clock.is_stuck() {
            let object = operation.object();
            self.shared.oracle.lock().fail(format!(
                "a livelock: the time stands still, and the store is asked for {object:?}"
            ));
            return futures::future::pending().boxed();
        }
        if let Some(object) = operation.object() {
            self.shared.land_given_up(object);
        }
        let Operation::Write(write) = &operation else {
            return operation.start(&*self.inner);
        };
        let number = self.shared.oracle.lock().write_begins(write);
        let under_way = UnderWay {
            number,
            write: Some(write.clone()),
            shared: self.shared.clone(),
        };
        let writing = operation.start(&*self.inner);
        async move {
            let answer = writing.await;
            under_way.end();
            answer
        }
        .boxed()
    }

    fn notice(&self, notice: JournalNotice) {
        self.shared.oracle.lock().notice(&notice);
    }
}

/// The true store's door: what passes here takes effect.
pub(crate) struct Inner {
    inner: Arc<dyn Backend>,
    oracle: Arc<Mutex<Oracle>>,
    /// A store whose reads may be kept keeps them too, so that nobody is their only holder.
    last_read: Mutex<Bytes>,
}

impl Inner {
    pub(crate) fn new(inner: Arc<dyn Backend>, oracle: Arc<Mutex<Oracle>>) -> Self {
        let last_read = Mutex::default();
        Self {
            inner,
            oracle,
            last_read,
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Decorator for Inner {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        let write = if let Operation::Write(write) = &operation {
            Some(write.clone())
        } else {
            None
        };
        if self.oracle.lock().refuses(&operation) {
            return futures::future::ready(Err(BackendError::Fenced)).boxed();
        }
        let answer: Result<Answer, BackendError> = operation
            .start(&*self.inner)
            .now_or_never()
            .unwrap_or(Err(BackendError::Unavailable));
        if let (Some(write), Ok(_)) = (write, &answer) {
            self.oracle.lock().write_lands(&write);
        }
        if let (true, Ok(Answer::Bytes(bytes))) = (self.promises().keepable_reads, &answer) {
            *self.last_read.lock() = bytes.clone();
        }
        futures::future::ready(answer).boxed()
    }

    fn promises(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cachalot::backend::{BackendRead, MemoryBackend};
    use cachalot::{ByteRange, Clock, Hints, SnapId, Truncation};

    use super::*;
    use crate::clock::{LOOKS_MAX, pause};

    /// A store that answers at once, and somebody who asks it for ever: the run ends as a failure, it does not hang.
    #[tokio::test(start_paused = true)]
    async fn a_loop_in_which_no_time_passes_is_a_failure() {
        let oracle = Arc::new(Mutex::new(Oracle::new(Vec::new(), false)));
        let clock = Arc::new(VirtualClock::new());
        let store: Arc<dyn Backend> = Arc::new(MemoryBackend::builder().build());
        let outer = Outer::new(
            (store.clone(), store),
            oracle.clone(),
            clock.clone(),
            (1, 0.0),
        );
        let read = BackendRead {
            object: ObjectName::new("object").unwrap(),
            snap: SnapId::HEAD,
            range: ByteRange::new(0, 1).unwrap(),
            hints: Hints::default(),
            truncation: Truncation::default(),
        };
        while outer.read(read.clone()).now_or_never().is_some() {
            clock.now();
        }
        let failure = oracle.lock().failure.clone();
        assert!(failure.is_some_and(|failure| failure.contains("livelock")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_moves_is_not_stuck() {
        let clock = VirtualClock::new();
        for look in 0..5 * LOOKS_MAX {
            if look % (LOOKS_MAX / 2) == 0 {
                pause(Duration::from_millis(1)).await;
            }
            clock.now();
        }
        assert!(!clock.is_stuck());
    }
}

//! A store behind a gate: while that is shut nothing is answered, so that much can wait at once.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use cachalot::backend::{Backend, BackendRead, BackendWrite, Capabilities, ListPage, ObjectStat};
use cachalot::{BackendError, ByteRange, ObjectName};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use futures::task::AtomicWaker;

/// What reads are answered with.
static ZEROS: [u8; 4 << 20] = [0; 4 << 20];

/// Who waits at the gate while it is shut.
#[derive(Debug, Default)]
struct Gate {
    is_shut: bool,
    waiting: Vec<Waker>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct GatedStore {
    gate: Arc<Mutex<Gate>>,
    reads: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    watcher: AtomicWaker,
}

impl GatedStore {
    /// From now on nothing is answered.
    pub(super) fn shut(&self) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.is_shut = true;
    }

    /// Answers all that waits, and what comes.
    pub(super) fn open(&self) {
        let waiting = {
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            gate.is_shut = false;
            std::mem::take(&mut gate.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// Reads and writes so far.
    pub(super) fn operations(&self) -> u64 {
        self.reads.load(Ordering::Relaxed) + self.writes.load(Ordering::Relaxed)
    }

    /// The bytes written so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Acquire)
    }

    /// Waits until so many bytes have been written; one may wait at a time.
    pub(super) async fn until_written(&self, bytes: u64) {
        poll_fn(|context| {
            self.watcher.register(context.waker());
            if self.written_bytes() >= bytes {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn answer<T: Send + 'static>(&self, answer: T) -> BoxFuture<'static, T> {
        let gate = self.gate.clone();
        let opened = poll_fn(move |context| {
            let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
            if !gate.is_shut {
                return Poll::Ready(());
            }
            gate.waiting.push(context.waker().clone());
            Poll::Pending
        });
        opened.map(move |()| answer).boxed()
    }
}

impl Backend for GatedStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let len = usize::try_from(read.range.len()).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..len);
        let bytes = zeros.map_or_else(|| Bytes::from(vec![0; len]), Bytes::from_static);
        self.answer(Ok(bytes))
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes
            .fetch_add(write.len_bytes(), Ordering::Release);
        self.watcher.wake();
        self.answer(Ok(()))
    }

    fn discard(
        &self,
        _object: ObjectName,
        _range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        ready(Ok(())).boxed()
    }

    fn truncate(
        &self,
        _object: ObjectName,
        _size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        ready(Ok(())).boxed()
    }

    fn remove(&self, _object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        ready(Ok(())).boxed()
    }

    fn stat(&self, _object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        ready(Err(BackendError::NotFound)).boxed()
    }

    fn list(
        &self,
        _prefix: String,
        _after: Option<ObjectName>,
        _names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        ready(Ok(ListPage::default())).boxed()
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        ready(Ok(())).boxed()
    }
}

//! A store that costs next to nothing: it forgets writes and reads as zeros, so that the cache is what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cachalot::backend::{
    Backend, BackendRead, BackendWrite, Capabilities, Delayer, ListPage, ObjectStat, TimerThread,
};
use cachalot::{BackendError, ByteRange, ObjectName};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use serde::{Deserialize, Serialize};

use super::plan::StorePlan;

/// What reads are answered with, unless they get memory of their own.
static ZEROS: [u8; 4 << 20] = [0; 4 << 20];

/// What reached the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StoreCounts {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) write_runs: u64,
    pub(crate) write_bytes: u64,
}

impl StoreCounts {
    /// What came after `before`.
    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            writes: self.writes - before.writes,
            write_runs: self.write_runs - before.write_runs,
            write_bytes: self.write_bytes - before.write_bytes,
        }
    }
}

/// The store. It answers at once where it has no delay, and after its delay otherwise, however much is asked.
pub(crate) struct NullStore {
    plan: StorePlan,
    timer: TimerThread,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_runs: AtomicU64,
    write_bytes: AtomicU64,
}

impl std::fmt::Debug for NullStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NullStore")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl NullStore {
    pub(crate) fn new(plan: StorePlan) -> Arc<Self> {
        Arc::new(Self {
            plan,
            timer: TimerThread::new(),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            write_runs: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
        })
    }

    /// What reached it so far.
    pub(crate) fn counts(&self) -> StoreCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreCounts {
            reads: of(&self.reads),
            read_bytes: of(&self.read_bytes),
            writes: of(&self.writes),
            write_runs: of(&self.write_runs),
            write_bytes: of(&self.write_bytes),
        }
    }

    fn answer<T: Send + 'static>(&self, answer: T) -> BoxFuture<'static, T> {
        if self.plan.delay_ns == 0 {
            return ready(answer).boxed();
        }
        let delay = self.timer.delay(self.plan.delay());
        delay.map(move |()| answer).boxed()
    }
}

impl Backend for NullStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            scattered_writes: self.plan.scattered,
            keepable_reads: true,
            ..Capabilities::default()
        }
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        let len = read.range.len();
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(len, Ordering::Relaxed);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let shared = ZEROS.get(..len).filter(|_| !self.plan.fresh_buffers);
        let bytes = shared.map_or_else(|| Bytes::from(vec![0; len]), Bytes::from_static);
        self.answer(Ok(bytes))
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_runs
            .fetch_add(write.runs.len() as u64, Ordering::Relaxed);
        self.write_bytes
            .fetch_add(write.len_bytes(), Ordering::Relaxed);
        drop(write);
        self.answer(Ok(()))
    }

    fn discard(
        &self,
        _object: ObjectName,
        _range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.answer(Ok(()))
    }

    fn truncate(
        &self,
        _object: ObjectName,
        _size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.answer(Ok(()))
    }

    fn remove(&self, _object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        self.answer(Ok(()))
    }

    fn stat(&self, _object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        self.answer(Err(BackendError::NotFound))
    }

    fn list(
        &self,
        _prefix: String,
        _after: Option<ObjectName>,
        _names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        self.answer(Ok(ListPage::default()))
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        self.answer(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(len: u64) -> BackendRead {
        BackendRead {
            object: ObjectName::new("x").unwrap(),
            snap: cachalot::SnapId::HEAD,
            range: ByteRange::new(4096, len).unwrap(),
            hints: cachalot::Hints::default(),
            truncation: cachalot::Truncation::default(),
        }
    }

    #[test]
    fn without_a_delay_it_answers_at_once_and_counts() {
        for fresh_buffers in [false, true] {
            let store = NullStore::new(StorePlan {
                delay_ns: 0,
                fresh_buffers,
                scattered: false,
            });
            for len in [1, 4096, 8 << 20] {
                let answer = store.read(read(len)).now_or_never().unwrap().unwrap();
                assert_eq!(answer.len() as u64, len);
                assert!(answer.iter().all(|byte| *byte == 0));
            }
            let counts = store.counts();
            assert_eq!((counts.reads, counts.read_bytes), (3, 4097 + (8 << 20)));
        }
    }

    #[test]
    fn with_a_delay_it_answers_later() {
        let delayed_by = |delay_ns| {
            NullStore::new(StorePlan {
                delay_ns,
                fresh_buffers: false,
                scattered: false,
            })
        };
        // However slow this thread is, an hour is not over when it looks.
        let hour = delayed_by(3_600_000_000_000);
        assert!(hour.read(read(1)).now_or_never().is_none());
        assert!(futures::executor::block_on(delayed_by(1_000_000).read(read(1))).is_ok());
    }
}

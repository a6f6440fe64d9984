//! A store that forgets, and answers reads with memory that is theirs alone, as stores do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::{
    Backend, BackendRead, BackendWrite, Capabilities, Delayer, ListPage, ObjectStat, TimerThread,
};
use cachalot::{BackendError, ByteRange, ObjectName};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

/// What a part of a larger buffer is a part of.
const LARGER_BYTES: usize = 4 << 20;

/// What reads are answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answers {
    /// Just as many bytes.
    Fresh,
    /// A part of a buffer of 4 MiB, which reads near each other share and all of which lives as long as any part.
    Slices,
}

/// See the [module](self).
pub(super) struct PlainStore {
    answers: Answers,
    delay: Duration,
    timer: TimerThread,
    /// The last larger buffer, and the number of the 4 MiB that it stands for.
    larger: Mutex<(u64, Bytes)>,
}

impl std::fmt::Debug for PlainStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainStore")
            .field("answers", &self.answers)
            .finish_non_exhaustive()
    }
}

impl PlainStore {
    pub(super) fn new(answers: Answers, delay: Duration) -> Self {
        let timer = TimerThread::new();
        Self {
            answers,
            delay,
            timer,
            larger: Mutex::new((0, Bytes::new())),
        }
    }

    /// As many bytes of the larger buffer that lies around `start`.
    fn slice(&self, start: u64, len: usize) -> Bytes {
        let number = start / LARGER_BYTES as u64;
        let mut larger = self.larger.lock().unwrap_or_else(PoisonError::into_inner);
        if larger.0 != number || larger.1.len() < len {
            *larger = (number, Bytes::from(vec![1; LARGER_BYTES.max(len)]));
        }
        larger.1.slice(..len)
    }

    fn answer<T: Send + 'static>(&self, answer: T) -> BoxFuture<'static, T> {
        if self.delay.is_zero() {
            return ready(answer).boxed();
        }
        self.timer.delay(self.delay).map(move |()| answer).boxed()
    }
}

impl Backend for PlainStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        let len = usize::try_from(read.range.len()).unwrap_or(usize::MAX);
        // Ones, so that every page is touched.
        let bytes = match self.answers {
            Answers::Fresh => Bytes::from(vec![1; len]),
            Answers::Slices => self.slice(read.range.start(), len),
        };
        self.answer(Ok(bytes))
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        if self.delay.is_zero() {
            return ready(Ok(())).boxed();
        }
        // What is on its way is held until it has arrived.
        let delay = self.timer.delay(self.delay);
        delay
            .map(move |()| {
                drop(write);
                Ok(())
            })
            .boxed()
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

//! The calls of a [`Backend`] as values, so that a decorator handles all of them in one place.

use std::fmt;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{
    Backend, BackendRead, BackendWrite, Capabilities, JournalNotice, ListPage, LockError,
    LockRequest, ObjectStat, WriterLock,
};
use crate::error::BackendError;
use crate::types::{ByteRange, ObjectName, SnapId};

/// One call of a [`Backend`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// [`Backend::read`].
    Read(BackendRead),
    /// [`Backend::write`].
    Write(BackendWrite),
    /// [`Backend::discard`].
    Discard {
        /// The object.
        object: ObjectName,
        /// What becomes zeros.
        range: ByteRange,
    },
    /// [`Backend::truncate`].
    Truncate {
        /// The object.
        object: ObjectName,
        /// Its new size.
        size_bytes: u64,
    },
    /// [`Backend::remove`].
    Remove(ObjectName),
    /// [`Backend::stat`].
    Stat(ObjectName),
    /// [`Backend::list`].
    List {
        /// What the names start with.
        prefix: String,
        /// What the names come after.
        after: Option<ObjectName>,
        /// How many at most.
        names_max: usize,
    },
    /// [`Backend::sync`].
    Sync,
}

/// Which call of a [`Backend`] an [`Operation`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum OperationKind {
    /// [`Backend::read`].
    Read,
    /// [`Backend::write`].
    Write,
    /// [`Backend::discard`].
    Discard,
    /// [`Backend::truncate`].
    Truncate,
    /// [`Backend::remove`].
    Remove,
    /// [`Backend::stat`].
    Stat,
    /// [`Backend::list`].
    List,
    /// [`Backend::sync`].
    Sync,
}

/// What a successful [`Operation`] gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The bytes of a read.
    Bytes(Bytes),
    /// An object's stat.
    Stat(ObjectStat),
    /// A part of a listing.
    Page(ListPage),
    /// Nothing but success: all other operations.
    Done,
}

/// An operation under way.
pub type AnswerFuture = BoxFuture<'static, Result<Answer, BackendError>>;

const WRONG_KIND: BackendError = BackendError::Unsupported {
    operation: "answers of another operation",
};

impl Answer {
    /// How many bytes a read gave; 0 for all else.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Stat(_) | Self::Page(_) | Self::Done => 0,
        }
    }

    fn into_bytes(self) -> Result<Bytes, BackendError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Stat(_) | Self::Page(_) | Self::Done => Err(WRONG_KIND),
        }
    }

    fn into_stat(self) -> Result<ObjectStat, BackendError> {
        match self {
            Self::Stat(stat) => Ok(stat),
            Self::Bytes(_) | Self::Page(_) | Self::Done => Err(WRONG_KIND),
        }
    }

    fn into_page(self) -> Result<ListPage, BackendError> {
        match self {
            Self::Page(page) => Ok(page),
            Self::Bytes(_) | Self::Stat(_) | Self::Done => Err(WRONG_KIND),
        }
    }

    fn into_done(self) -> Result<(), BackendError> {
        match self {
            Self::Done => Ok(()),
            Self::Bytes(_) | Self::Stat(_) | Self::Page(_) => Err(WRONG_KIND),
        }
    }
}

impl Operation {
    /// Makes the call.
    #[must_use]
    pub fn start(self, backend: &dyn Backend) -> AnswerFuture {
        let done = |outcome: Result<(), BackendError>| outcome.map(|()| Answer::Done);
        match self {
            Self::Read(read) => backend
                .read(read)
                .map(|answer| answer.map(Answer::Bytes))
                .boxed(),
            Self::Write(write) => backend.write(write).map(done).boxed(),
            Self::Discard { object, range } => backend.discard(object, range).map(done).boxed(),
            Self::Truncate { object, size_bytes } => {
                backend.truncate(object, size_bytes).map(done).boxed()
            }
            Self::Remove(object) => backend.remove(object).map(done).boxed(),
            Self::Stat(object) => backend
                .stat(object)
                .map(|answer| answer.map(Answer::Stat))
                .boxed(),
            Self::List {
                prefix,
                after,
                names_max,
            } => backend
                .list(prefix, after, names_max)
                .map(|answer| answer.map(Answer::Page))
                .boxed(),
            Self::Sync => backend.sync().map(done).boxed(),
        }
    }

    /// Which call it is.
    #[must_use]
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Read(_) => OperationKind::Read,
            Self::Write(_) => OperationKind::Write,
            Self::Discard { .. } => OperationKind::Discard,
            Self::Truncate { .. } => OperationKind::Truncate,
            Self::Remove(_) => OperationKind::Remove,
            Self::Stat(_) => OperationKind::Stat,
            Self::List { .. } => OperationKind::List,
            Self::Sync => OperationKind::Sync,
        }
    }

    /// The object it names, if it names one.
    #[must_use]
    pub const fn object(&self) -> Option<&ObjectName> {
        match self {
            Self::Read(read) => Some(&read.object),
            Self::Write(write) => Some(&write.object),
            Self::Discard { object, .. }
            | Self::Truncate { object, .. }
            | Self::Remove(object)
            | Self::Stat(object) => Some(object),
            Self::List { .. } | Self::Sync => None,
        }
    }

    /// The bytes it names, if it names any: of a write, from its first run's start to its last run's end.
    #[must_use]
    pub fn range(&self) -> Option<ByteRange> {
        match self {
            Self::Read(read) => Some(read.range),
            Self::Discard { range, .. } => Some(*range),
            Self::Write(write) => {
                let last = write.runs.last()?;
                let end = last.offset.checked_add(last.len_bytes())?;
                ByteRange::between(write.runs.first()?.offset, end)
            }
            Self::Truncate { .. }
            | Self::Remove(_)
            | Self::Stat(_)
            | Self::List { .. }
            | Self::Sync => None,
        }
    }

    /// Whether it changes what is stored.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Write(_) | Self::Discard { .. } | Self::Truncate { .. } | Self::Remove(_) => true,
            Self::Read(_) | Self::Stat(_) | Self::List { .. } | Self::Sync => false,
        }
    }
}

impl Capabilities {
    /// Checks that a write keeps the contract and asks for no more than is promised.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`], which names what is wrong.
    pub fn admit(&self, write: &BackendWrite) -> Result<(), BackendError> {
        let refusal = |operation| Err(BackendError::Unsupported { operation });
        let mut end_before = 0;
        for run in &write.runs {
            let Ok(range) = ByteRange::new(run.offset, run.len_bytes()) else {
                return refusal("runs that are empty or pass the last offset");
            };
            if range.start() < end_before || run.buffers.iter().any(Bytes::is_empty) {
                return refusal("runs that overlap or descend, or empty buffers");
            }
            end_before = range.end();
        }
        let pieces: usize = write.runs.iter().map(|run| run.buffers.len()).sum();
        match write.runs.len() {
            0 => refusal("writes without runs"),
            2.. if !self.scattered_writes => refusal("scattered writes"),
            _ if write.len_bytes() > self.write_bytes_max => refusal("writes of so many bytes"),
            _ if pieces > self.write_pieces_max => refusal("writes of so many pieces"),
            _ if write.context.seq != 0 && !self.snapshots => refusal("snapshots"),
            _ => Ok(()),
        }
    }
}

/// A backend made of another: whoever implements this has a [`Backend`].
pub trait Decorator: Send + Sync + fmt::Debug + 'static {
    /// The backend within.
    fn inner(&self) -> &dyn Backend;

    /// Does an operation, most often by [`Operation::start`] on the backend within.
    fn operate(&self, operation: Operation) -> AnswerFuture;

    /// What the decorated backend promises: as much as the one within, unless the decorator takes some away.
    fn promises(&self) -> Capabilities {
        self.inner().capabilities()
    }

    /// Passes a journal notice on.
    fn notice(&self, notice: JournalNotice) {
        self.inner().journal(notice);
    }
}

impl<D: Decorator> Backend for D {
    fn capabilities(&self) -> Capabilities {
        self.promises()
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        self.operate(Operation::Read(read))
            .map(|answer| answer.and_then(Answer::into_bytes))
            .boxed()
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        done(self.operate(Operation::Write(write)))
    }

    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        done(self.operate(Operation::Discard { object, range }))
    }

    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        done(self.operate(Operation::Truncate { object, size_bytes }))
    }

    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        done(self.operate(Operation::Remove(object)))
    }

    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        self.operate(Operation::Stat(object))
            .map(|answer| answer.and_then(Answer::into_stat))
            .boxed()
    }

    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        let operation = Operation::List {
            prefix,
            after,
            names_max,
        };
        self.operate(operation)
            .map(|answer| answer.and_then(Answer::into_page))
            .boxed()
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        done(self.operate(Operation::Sync))
    }

    fn lock(&self, request: LockRequest) -> BoxFuture<'static, Result<WriterLock, LockError>> {
        self.inner().lock(request)
    }

    fn may_copy_on_write(&self, object: &ObjectName, range: ByteRange, snap: SnapId) -> bool {
        self.inner().may_copy_on_write(object, range, snap)
    }

    fn journal(&self, notice: JournalNotice) {
        self.notice(notice);
    }
}

fn done(answering: AnswerFuture) -> BoxFuture<'static, Result<(), BackendError>> {
    answering
        .map(|answer| answer.and_then(Answer::into_done))
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::WriteRun;
    use crate::types::{SnapContext, Timestamp, Truncation};

    fn write_of(runs: &[(u64, &[&'static [u8]])]) -> BackendWrite {
        let run = |(offset, buffers): &(u64, &[&'static [u8]])| WriteRun {
            offset: *offset,
            buffers: buffers.iter().copied().map(Bytes::from_static).collect(),
            journal_tid: None,
        };
        BackendWrite {
            object: ObjectName::new("o").unwrap(),
            runs: runs.iter().map(run).collect(),
            context: SnapContext::default(),
            modified: Timestamp::default(),
            truncation: Truncation::default(),
        }
    }

    /// H-08, H-28, W-10
    #[test]
    fn writes_beyond_what_is_promised_are_refused() {
        let scattered = Capabilities {
            scattered_writes: true,
            ..Capabilities::default()
        };
        assert_eq!(
            scattered.admit(&write_of(&[(0, &[b"a"]), (1, &[b"b"])])),
            Ok(())
        );
        assert_eq!(
            Capabilities::default().admit(&write_of(&[(5, &[b"a"])])),
            Ok(())
        );
        for (what, capabilities, write) in [
            ("no runs", scattered, write_of(&[])),
            (
                "overlap",
                scattered,
                write_of(&[(0, &[b"ab"]), (1, &[b"c"])]),
            ),
            (
                "descent",
                scattered,
                write_of(&[(5, &[b"a"]), (0, &[b"b"])]),
            ),
            ("empty buffer", scattered, write_of(&[(0, &[b"a", b""])])),
            ("empty run", scattered, write_of(&[(0, &[])])),
            ("overflow", scattered, write_of(&[(u64::MAX, &[b"a"])])),
            (
                "scattered",
                Capabilities::default(),
                write_of(&[(0, &[b"a"]), (9, &[b"b"])]),
            ),
            (
                "bytes",
                Capabilities {
                    write_bytes_max: 1,
                    ..scattered
                },
                write_of(&[(0, &[b"ab"])]),
            ),
            (
                "pieces",
                Capabilities {
                    write_pieces_max: 1,
                    ..scattered
                },
                write_of(&[(0, &[b"a", b"b"])]),
            ),
        ] {
            let outcome = capabilities.admit(&write);
            assert!(
                matches!(outcome, Err(BackendError::Unsupported { .. })),
                "{what}: {outcome:?}"
            );
        }
    }

    #[test]
    fn a_write_spans_from_its_first_run_to_its_last() {
        let operation = Operation::Write(write_of(&[(3, &[b"a"]), (9, &[b"b", b"c"])]));
        assert_eq!(operation.range(), ByteRange::between(3, 11));
        assert_eq!(operation.kind(), OperationKind::Write);
        assert!(operation.is_change());
        assert_eq!(Operation::Sync.range(), None);
    }
}

//! What can go wrong, as types, and what a caller can do about it.

use std::io;

use crate::types::{ByteRange, ObjectKey, ObjectName, SetId};

/// What a caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Advice {
    /// The same call may succeed later; nothing was lost.
    Retry,
    /// The request itself is wrong: change it.
    FixRequest,
    /// The set or cache is gone: open it again.
    Reopen,
    /// Somebody must look at the store: it is full, read-only, damaged or refuses us.
    AskOperator,
    /// Another client has taken over, for good: give up what is unsaved, and open the set again once it is ours.
    GiveUp,
}

/// An error of the cache.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The request makes no sense; nothing was changed.
    #[error("invalid request: {0}")]
    InvalidRequest(#[from] RequestError),
    /// The configuration makes no sense; nothing was changed.
    #[error("invalid configuration: {0}")]
    InvalidConfig(#[from] ConfigError),
    /// The object does not exist and the set was opened with `Missing::NotFound`.
    #[error("object {object} does not exist")]
    NotFound {
        /// The object that was asked for.
        object: ObjectKey,
    },
    /// A fetch failed; the range will be fetched again when it is next read.
    #[error("cannot read bytes {range} of object {object}")]
    Read {
        /// The object's name in the backend.
        object: ObjectName,
        /// What could not be fetched.
        range: ByteRange,
        /// Why.
        source: BackendError,
    },
    /// A writeback failed; its data stays dirty and will be sent again.
    #[error("cannot write back bytes {range} of object {object}")]
    WriteBack {
        /// The object's name in the backend.
        object: ObjectName,
        /// From the first to the last byte that could not be stored.
        range: ByteRange,
        /// Why.
        source: BackendError,
    },
    /// A call to the backend other than a fetch or writeback failed.
    #[error("the backend failed")]
    Backend(#[from] BackendError),
    /// Another client has taken over the set: nothing of it is sent to the store any more, and what is unsaved stays
    /// readable until it is given up ([`ObjectSet::abandon`](crate::ObjectSet::abandon)).
    #[error("another client has taken over object set {set}: {unsaved_bytes} bytes are not saved")]
    Fenced {
        /// The set.
        set: SetId,
        /// What it held then that was dirty or on its way to the store.
        unsaved_bytes: u64,
    },
    /// The set or the cache is closed or closing. Of a write that was under way when closing began, some may have
    /// entered.
    #[error("object set {set} is closed")]
    Closed {
        /// The set, or the cache's own name when all of it is closed.
        set: SetId,
    },
    /// The set's actor stopped after a broken invariant; its cached data is lost, other sets go on.
    #[error("object set {set} failed")]
    SetFailed {
        /// The set.
        set: SetId,
    },
    /// A set of this name is open with other options.
    #[error("object set {set} is open with other options")]
    AlreadyOpen {
        /// The set.
        set: SetId,
    },
    /// The threads of the cache could not be started.
    #[error("cannot start the cache's threads")]
    Start,
}

impl CacheError {
    /// What the caller can do.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::InvalidRequest(_)
            | Self::InvalidConfig(_)
            | Self::NotFound { .. }
            | Self::AlreadyOpen { .. } => Advice::FixRequest,
            Self::Read { source, .. } | Self::WriteBack { source, .. } | Self::Backend(source) => {
                if matches!(source, BackendError::Fenced) {
                    Advice::GiveUp
                } else if source.is_transient() {
                    Advice::Retry
                } else {
                    Advice::AskOperator
                }
            }
            Self::Fenced { .. } => Advice::GiveUp,
            Self::Closed { .. } | Self::SetFailed { .. } => Advice::Reopen,
            Self::Start => Advice::AskOperator,
        }
    }
}

/// Why a request makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A range of no bytes.
    #[error("the range at offset {offset} is empty")]
    EmptyRange {
        /// Where it starts.
        offset: u64,
    },
    /// A range that ends past the largest offset.
    #[error("{len} bytes at offset {offset} end past the largest offset, 2^63 - 1")]
    OffsetOverflow {
        /// Where the range starts.
        offset: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// A range that ends past the object's size.
    #[error("{range} ends past the object size of {object_bytes_max} bytes")]
    PastObject {
        /// The range.
        range: ByteRange,
        /// The object size of the set's layout.
        object_bytes_max: u64,
    },
    /// A range that ends past the set's file.
    #[error("{range} ends past the file size of {file_bytes} bytes")]
    PastFile {
        /// The range.
        range: ByteRange,
        /// The size that the set was opened with.
        file_bytes: u64,
    },
    /// A request that names no extent.
    #[error("the request names no extent")]
    NoExtents,
    /// Two extents of one request that share a byte of an object.
    #[error("two extents share bytes of {range}")]
    ExtentsOverlap {
        /// The second of the two.
        range: ByteRange,
    },
    /// An extent whose places do not add up to its length, or lie outside the data.
    #[error("the places of extent {range} do not cover it within the data of {data_bytes} bytes")]
    BadPlaces {
        /// The extent.
        range: ByteRange,
        /// The length of the data in bytes.
        data_bytes: u64,
    },
    /// Several extents in a set whose missing objects are errors.
    #[error("a set that reports missing objects reads one extent at a time, not {extents}")]
    SeveralExtents {
        /// How many were asked for.
        extents: usize,
    },
    /// A write, discard or truncate of a snapshot.
    #[error("a snapshot can't be changed")]
    SnapshotIsReadOnly,
    /// A snapshot context whose numbers are out of order.
    #[error("the snapshots of context {seq} do not fall strictly below it")]
    BadSnapContext {
        /// The context's number.
        seq: u64,
    },
    /// An object name that no backend takes.
    #[error("an object name has 1 to 1024 bytes and no NUL; this one has {len}")]
    BadObjectName {
        /// Its length in bytes.
        len: usize,
    },
    /// A truncation with an older number than the last.
    #[error("truncation {seq} is older than the set's, {current}")]
    StaleTruncation {
        /// The number asked for.
        seq: u64,
        /// The set's own.
        current: u64,
    },
    /// A layout whose numbers do not fit each other.
    #[error("bad layout: {reason}")]
    BadLayout {
        /// What is wrong and what to do.
        reason: &'static str,
    },
    /// A file-offset call on a set that was opened without a layout.
    #[error("this set has no layout: open it with one, or name objects")]
    NoLayout,
}

/// Why a configuration makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size, number or time that must not be zero.
    #[error("{field} must be above zero")]
    Zero {
        /// The field of the configuration.
        field: &'static str,
    },
    /// A value above the one that bounds it.
    #[error(
        "{field} is {value}, above {bound} which is {bound_value}: lower the one or raise the other"
    )]
    Above {
        /// The field that is too large.
        field: &'static str,
        /// Its value.
        value: String,
        /// The field that bounds it.
        bound: &'static str,
        /// That one's value.
        bound_value: String,
    },
    /// A value that can't be changed while the cache runs.
    #[error("{field} can't be changed while the cache runs: restart it")]
    Fixed {
        /// The field.
        field: &'static str,
    },
}

/// Why a backend could not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The object does not exist.
    #[error("no such object")]
    NotFound,
    /// The store can't be reached or is down.
    #[error("the store is unavailable")]
    Unavailable,
    /// No answer came in time: the operation may or may not have been done.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The store has no room left.
    #[error("the store is full")]
    Full,
    /// The store takes no writes.
    #[error("the store is read-only")]
    ReadOnly,
    /// We are not allowed to.
    #[error("the store refuses access")]
    PermissionDenied,
    /// Another client has taken over what the operation's set holds, for good. At the first such answer, to whatever
    /// operation, the cache stops all writes of that set.
    #[error("another writer has fenced this one off")]
    Fenced,
    /// What the store holds is not what was written.
    #[error("the stored object is damaged: {what}")]
    Corrupt {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store can't do this at all.
    #[error("the store does not support {operation}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
    },
    /// Any other failure of the operating system.
    #[error("{operation}: {kind}{}", os_suffix(*.os_code))]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The class of the failure.
        kind: io::ErrorKind,
        /// The operating system's number for it.
        os_code: Option<i32>,
    },
}

fn os_suffix(code: Option<i32>) -> String {
    code.map_or_else(String::new, |code| format!(" (os error {code})"))
}

impl BackendError {
    /// Classifies what the operating system said while doing `operation`.
    #[must_use]
    pub fn from_io(operation: &'static str, error: &io::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "io::ErrorKind is open-ended"
        )]
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full,
            io::ErrorKind::TimedOut => Self::TimedOut,
            kind => Self::Io {
                operation,
                kind,
                os_code: error.raw_os_error(),
            },
        }
    }

    /// Whether the same operation may succeed later without anybody's help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable | Self::TimedOut | Self::Io { .. } => true,
            Self::NotFound
            | Self::Full
            | Self::ReadOnly
            | Self::PermissionDenied
            | Self::Fenced
            | Self::Corrupt { .. }
            | Self::Unsupported { .. } => false,
        }
    }
}

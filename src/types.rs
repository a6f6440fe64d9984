//! The plain values that every layer speaks: ranges, names, snapshots, hints, moments.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::RequestError;

/// The first byte offset that no object can hold: offsets and ends are at most this (2^63 - 1, as in POSIX).
pub const OFFSET_BYTES_MAX: u64 = i64::MAX as u64;

/// A range of bytes that is never empty: `start..end`, both in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RangeAsWritten")]
pub struct ByteRange {
    start: u64,
    end: u64,
}

#[derive(Deserialize)]
#[serde(rename = "ByteRange", deny_unknown_fields)]
struct RangeAsWritten {
    start: u64,
    end: u64,
}

impl TryFrom<RangeAsWritten> for ByteRange {
    type Error = RequestError;

    fn try_from(written: RangeAsWritten) -> Result<Self, RequestError> {
        Self::new(written.start, written.end.saturating_sub(written.start))
    }
}

impl ByteRange {
    /// The range of `len` bytes at `offset`.
    ///
    /// # Errors
    /// [`RequestError::EmptyRange`] when `len` is zero, [`RequestError::OffsetOverflow`] when the end lies
    /// past [`OFFSET_BYTES_MAX`].
    pub const fn new(offset: u64, len: u64) -> Result<Self, RequestError> {
        if len == 0 {
            return Err(RequestError::EmptyRange { offset });
        }
        match offset.checked_add(len) {
            Some(end) if end <= OFFSET_BYTES_MAX => Ok(Self { start: offset, end }),
            Some(_) | None => Err(RequestError::OffsetOverflow { offset, len }),
        }
    }

    /// The range `start..end`, or `None` when that is empty.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        if start < end {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The offset of the first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The offset behind the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// The number of bytes, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a ByteRange is never empty")]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// What this range and `other` have in common.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether every byte of `other` lies inside this range.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a piece of an extent lies in the caller's buffer. An extent that has several of them is filled from (or
/// read into) them in order, and their lengths add up to its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The position of the first byte in the buffer, in bytes.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

/// Names an object set, the unit that one actor owns: the objects of one file or volume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SetId(Arc<str>);

impl SetId {
    /// A set's name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SetId {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// Names an object within its set: by number, as striped volumes do, or by a name of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ObjectKey {
    /// The object with this number. Its name in the backend is `PREFIX.` and 16 hexadecimal digits.
    Number(u64),
    /// The object with just this name in the backend.
    Name(Arc<str>),
}

impl From<u64> for ObjectKey {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for ObjectKey {
    fn from(name: &str) -> Self {
        Self::Name(Arc::from(name))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "#{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// An object's name in the backend: any text of 1 to 1024 bytes without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>")]
pub struct ObjectName(Arc<str>);

impl TryFrom<Arc<str>> for ObjectName {
    type Error = RequestError;

    fn try_from(name: Arc<str>) -> Result<Self, RequestError> {
        Self::new(name)
    }
}

impl ObjectName {
    /// The longest name in bytes.
    pub const LEN_MAX: usize = 1024;

    /// A name.
    ///
    /// # Errors
    /// [`RequestError::BadObjectName`] when it is empty, longer than [`Self::LEN_MAX`] bytes or holds a NUL.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, RequestError> {
        let name = name.into();
        if name.is_empty() || name.len() > Self::LEN_MAX || name.contains('\0') {
            return Err(RequestError::BadObjectName { len: name.len() });
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A snapshot of an object, or its head, which alone can be written.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SnapId(Option<u64>);

impl SnapId {
    /// The live object.
    pub const HEAD: Self = Self(None);

    /// The snapshot with this number, as the backend gave it.
    #[must_use]
    pub const fn snapshot(number: u64) -> Self {
        Self(Some(number))
    }

    /// The snapshot's number, or `None` for the head.
    #[must_use]
    pub const fn number(self) -> Option<u64> {
        self.0
    }
}

/// Under which snapshots a write is made: the newest one's number and all that exist, newest first.
///
/// A backend with snapshots keeps what an object held when `seq` was taken before it lets the write change it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "ContextAsWritten")]
pub struct SnapContext {
    /// The newest snapshot's number; 0 before the first.
    pub seq: u64,
    /// The snapshots that exist, newest first.
    pub snaps: Arc<[u64]>,
}

#[derive(Deserialize)]
#[serde(rename = "SnapContext", deny_unknown_fields)]
struct ContextAsWritten {
    seq: u64,
    snaps: Arc<[u64]>,
}

impl TryFrom<ContextAsWritten> for SnapContext {
    type Error = RequestError;

    fn try_from(written: ContextAsWritten) -> Result<Self, RequestError> {
        Self::new(written.seq, written.snaps)
    }
}

impl SnapContext {
    /// A context with these snapshots.
    ///
    /// # Errors
    /// [`RequestError::BadSnapContext`] unless `snaps` falls strictly and none is above `seq`.
    pub fn new(seq: u64, snaps: impl Into<Arc<[u64]>>) -> Result<Self, RequestError> {
        let snaps = snaps.into();
        let falling = snaps.windows(2).all(|pair| pair.first() > pair.last());
        if !falling || snaps.first().is_some_and(|newest| *newest > seq) {
            return Err(RequestError::BadSnapContext { seq });
        }
        Ok(Self { seq, snaps })
    }
}

/// How far an object was last truncated: bytes past `size_bytes` that are older than `seq` read as zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Truncation {
    /// Grows with each truncation of the set; 0 before the first.
    pub seq: u64,
    /// The size of the object (or, on a set, of the file) at that truncation.
    pub size_bytes: u64,
}

/// What a caller knows about how data will be used; each is advice, none changes what is read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hints {
    /// Buffers wholly inside the access become the first to go.
    pub dont_need: bool,
    /// Buffers brought in by this access are the first to go, and this access does not promote any.
    pub no_cache: bool,
    /// Neighbouring bytes will be wanted next; passed to the backend.
    pub sequential: bool,
    /// No order can be expected; passed to the backend.
    pub random: bool,
    /// The bytes will be wanted soon; passed to the backend.
    pub will_need: bool,
}

/// A point in time: nanoseconds since the cache's clock started.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment moved on by `duration`; the last moment there is when that overflows.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment moved back by `duration`; the clock's start when that underflows.
    #[must_use]
    pub fn before(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// When data was last modified, in nanoseconds since the Unix epoch, as the backend will record it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// The number of a journal entry that already made a write durable elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JournalTid(pub std::num::NonZeroU64);

#[cfg(test)]
mod tests {
    use super::*;

    /// H-08, W-10
    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        assert_eq!(
            ByteRange::new(7, 0),
            Err(RequestError::EmptyRange { offset: 7 })
        );
        assert!(ByteRange::new(u64::MAX, 2).is_err());
        assert!(ByteRange::new(OFFSET_BYTES_MAX, 1).is_err());
        assert!(ByteRange::new(OFFSET_BYTES_MAX - 1, 1).is_ok());
    }

    #[test]
    fn a_snap_context_falls_strictly() {
        assert!(SnapContext::new(5, [5, 3, 1]).is_ok());
        assert!(SnapContext::new(5, [3, 3]).is_err());
        assert!(SnapContext::new(5, [6]).is_err());
    }

    /// W-10
    #[test]
    fn what_is_read_from_text_is_checked_as_what_is_made() {
        let range = ByteRange::new(3, 4).unwrap();
        let text = serde_json::to_string(&range).unwrap();
        assert_eq!(serde_json::from_str::<ByteRange>(&text).unwrap(), range);
        for bad in [
            r#"{"start":4,"end":3}"#,
            r#"{"start":4,"end":4}"#,
            r#"{"start":4,"end":18446744073709551615}"#,
        ] {
            assert!(serde_json::from_str::<ByteRange>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ObjectName>(r#""""#).is_err());
        assert_eq!(
            serde_json::from_str::<ObjectName>(r#""a""#).unwrap(),
            ObjectName::new("a").unwrap()
        );
        let context = SnapContext::new(5, [5, 3]).unwrap();
        let text = serde_json::to_string(&context).unwrap();
        assert_eq!(serde_json::from_str::<SnapContext>(&text).unwrap(), context);
        let bad = r#"{"seq":5,"snaps":[3,4]}"#;
        assert!(serde_json::from_str::<SnapContext>(bad).is_err());
    }
}

//! What the operations of the contract are in RADOS.
//!
//! An object is a RADOS object of the same name. The number of the newest truncation that a write brought (rule R-17) is
//! an attribute of it, as 16 hexadecimal digits, so that the cluster compares it within the operation itself; librados'
//! C interface does not offer RADOS' own. Most objects never have it.

use std::collections::BinaryHeap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use bytes::Bytes;
use cachalot_librados::{Compare, Errno, Pending, Pool, Read, ReadAnswer, When, Write};
use futures::executor::block_on;
use futures::future::try_join_all;

use super::error::{at, backend_error};
use crate::backend::{BackendRead, BackendWrite, ListPage, WriteRun};
use crate::error::BackendError;
use crate::types::{ByteRange, Hints, ObjectName, Truncation};

/// The attribute with the number of the newest truncation.
const TRUNCATION: &CStr = c"cachalot.truncation";
/// Longer reads look at the object's size first, for what they take memory for is what they ask for.
const READ_BLINDLY_MAX: u64 = 4 << 20;
/// How often a change begins anew because others changed the object meanwhile.
const TRIES_MAX: usize = 64;

/// A name as librados takes it.
pub(super) fn c_name(name: &ObjectName) -> Result<CString, BackendError> {
    CString::new(name.as_str()).map_err(|_nul| BackendError::Unsupported {
        operation: "names with a NUL",
    })
}

fn digits(truncation: Truncation) -> [u8; 16] {
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        let four = (truncation.seq >> (4 * place)) & 0xF;
        *digit = b"0123456789abcdef"
            .get(usize::try_from(four).unwrap_or(0))
            .copied()
            .unwrap_or(b'0');
    }
    digits
}

fn compare(value: &[u8], when: When) -> Compare<'_> {
    Compare {
        name: TRUNCATION,
        when,
        value,
    }
}

const fn flags(hints: Hints) -> i32 {
    let mut flags = 0;
    if hints.sequential {
        flags |= Read::SEQUENTIAL;
    }
    if hints.random {
        flags |= Read::RANDOM;
    }
    if hints.will_need {
        flags |= Read::WILL_NEED;
    }
    if hints.dont_need {
        flags |= Read::DONT_NEED;
    }
    flags
}

/// A read under way, perhaps in several steps.
pub(super) struct Reading {
    pub(super) pool: Arc<Pool>,
    pub(super) name: CString,
    pub(super) read: BackendRead,
}

impl Reading {
    fn ask(&self, range: ByteRange, condition: Option<Compare<'_>>) -> Pending<ReadAnswer> {
        let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
        let read = Read {
            compare: condition,
            range: Some((range.start(), len)),
            flags: flags(self.read.hints),
            stat: false,
        };
        self.pool.read(&self.name, &read)
    }

    fn ask_size(&self) -> Pending<ReadAnswer> {
        let read = Read {
            stat: true,
            ..Read::default()
        };
        self.pool.read(&self.name, &read)
    }

    /// The read's first request where one is enough for nearly all reads; sent at once.
    pub(super) fn begin(&self) -> Option<Pending<ReadAnswer>> {
        let is_plain = self.read.truncation.seq == 0 && self.read.range.len() <= READ_BLINDLY_MAX;
        is_plain.then(|| self.ask(self.read.range, None))
    }

    /// All of it.
    pub(super) async fn run(
        self,
        begun: Option<Pending<ReadAnswer>>,
    ) -> Result<Bytes, BackendError> {
        if let Some(begun) = begun {
            return begun
                .await
                .map(|answer| owned(answer.bytes))
                .map_err(at("read"));
        }
        self.in_steps().await.map_err(at("read"))
    }

    async fn in_steps(&self) -> Result<Bytes, Errno> {
        let Truncation { seq, size_bytes } = self.read.truncation;
        let value = digits(self.read.truncation);
        let size = self.ask_size().await?.size_bytes;
        let whole = self.read.range;
        let cut = |end: u64| ByteRange::between(whole.start(), whole.end().min(end));
        let Some(stored) = cut(size) else {
            return Ok(Bytes::new());
        };
        if seq == 0 {
            return self
                .ask(stored, None)
                .await
                .map(|answer| owned(answer.bytes));
        }
        for _ in 0..TRIES_MAX {
            let condition = compare(&value, When::NotAbove);
            match self.ask(stored, Some(condition)).await {
                Err(Errno::CANCELED) => {}
                answer => return answer.map(|answer| owned(answer.bytes)),
            }
            let Some(kept) = cut(size.min(size_bytes)) else {
                return Ok(Bytes::new());
            };
            let condition = compare(&value, When::Above);
            match self.ask(kept, Some(condition)).await {
                Err(Errno::CANCELED) => {}
                answer => return answer.map(|answer| owned(answer.bytes)),
            }
        }
        Err(Errno::BUSY)
    }
}

/// Bytes that own about as much memory as they are long.
fn owned(mut bytes: Vec<u8>) -> Bytes {
    if bytes.len() < bytes.capacity() / 2 {
        bytes.shrink_to_fit();
    }
    Bytes::from(bytes)
}

/// Adds the runs to a change.
fn add_runs(change: &mut Write, runs: &[WriteRun]) {
    for run in runs {
        match run.buffers.as_slice() {
            [only] => change.store(run.offset, only),
            several => change.store(run.offset, &several.concat()),
        }
    }
}

/// A write under way, perhaps in several steps.
pub(super) struct Writing {
    pub(super) pool: Arc<Pool>,
    pub(super) name: CString,
    pub(super) write: BackendWrite,
}

impl Writing {
    fn send(&self, mut change: Write) -> Pending<()> {
        add_runs(&mut change, &self.write.runs);
        let modified = Some(self.write.modified.0).filter(|nanos| *nanos > 0);
        self.pool.write(&self.name, change, modified)
    }

    /// The write's first request, which is enough where the object has its truncation already; sent at once.
    pub(super) fn begin(&self) -> Pending<()> {
        let mut change = self.pool.change();
        if self.write.truncation.seq > 0 {
            let value = digits(self.write.truncation);
            change.compare(&compare(&value, When::NotAbove));
        }
        self.send(change)
    }

    /// All of it.
    pub(super) async fn run(self, begun: Pending<()>) -> Result<(), BackendError> {
        match begun.await {
            Err(Errno::CANCELED | Errno::NOT_FOUND) if self.write.truncation.seq > 0 => {
                self.in_steps().await.map_err(at("write"))
            }
            done => done.map_err(at("write")),
        }
    }

    /// Cuts and writes in one operation, which holds only if nobody changed the object since it was looked at.
    async fn in_steps(&self) -> Result<(), Errno> {
        let Truncation { size_bytes, .. } = self.write.truncation;
        let value = digits(self.write.truncation);
        for _ in 0..TRIES_MAX {
            let look = Read {
                compare: Some(compare(&value, When::Above)),
                stat: true,
                ..Read::default()
            };
            let mut change = self.pool.change();
            match self.pool.read(&self.name, &look).await {
                Ok(found) => {
                    change.assert_version(found.version);
                    if found.size_bytes > size_bytes {
                        change.truncate(size_bytes);
                    }
                    change.set_attribute(TRUNCATION, &value);
                }
                Err(Errno::NOT_FOUND) => {
                    change.create();
                    change.set_attribute(TRUNCATION, &value);
                }
                Err(Errno::CANCELED) => change.compare(&compare(&value, When::NotAbove)),
                Err(error) => return Err(error),
            }
            match self.send(change).await {
                Err(
                    Errno::CANCELED
                    | Errno::NOT_FOUND
                    | Errno::EXISTS
                    | Errno::NEWER
                    | Errno::OLDER,
                ) => {}
                done => return done,
            }
        }
        Err(Errno::BUSY)
    }
}

/// Zeros a range. The cluster would take a range that reaches the object's end for a cut, so its size is kept by
/// growing it again within the same operation, which holds only if nobody changed the object since it was looked at.
pub(super) async fn discard(
    pool: Arc<Pool>,
    name: CString,
    range: ByteRange,
) -> Result<(), BackendError> {
    let look = Read {
        stat: true,
        ..Read::default()
    };
    for _ in 0..TRIES_MAX {
        let found = match pool.read(&name, &look).await {
            Err(Errno::NOT_FOUND) => return Ok(()),
            found => found.map_err(at("discard"))?,
        };
        let size = found.size_bytes;
        let Some(range) = ByteRange::between(range.start(), range.end().min(size)) else {
            return Ok(());
        };
        let mut change = pool.change();
        change.assert_version(found.version);
        if range.end() == size {
            change.truncate(range.start());
            change.truncate(size);
        } else {
            change.zero(range.start(), range.len());
        }
        match pool.write(&name, change, None).await {
            Err(Errno::NEWER | Errno::OLDER | Errno::NOT_FOUND) => {}
            done => return done.map_err(at("discard")),
        }
    }
    Err(backend_error("discard", Errno::BUSY))
}

/// What is asked of a listing.
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) after: Option<ObjectName>,
    pub(super) names_max: usize,
}

/// How many listed objects are looked at together.
const LOOKS: usize = 256;

/// One page of the names in order. The cluster lists in an order of its own, so each page goes through all names. It
/// lists removed objects too, for as long as a snapshot holds them, so each name of the page is looked at.
pub(super) fn list(pool: &Arc<Pool>, mut query: Query) -> Result<ListPage, BackendError> {
    loop {
        let mut page = listed(pool, &query)?;
        query.after = page.names.last().cloned();
        let mut names = Vec::new();
        for some in page.names.chunks(LOOKS) {
            let looks = some.iter().map(|name| exists(pool, name));
            let there = block_on(try_join_all(looks))?;
            let pairs = some.iter().zip(there);
            names.extend(
                pairs
                    .filter(|(_, there)| *there)
                    .map(|(name, _)| name.clone()),
            );
        }
        if !(names.is_empty() && page.more) {
            page.names = names;
            return Ok(page);
        }
    }
}

async fn exists(pool: &Arc<Pool>, name: &ObjectName) -> Result<bool, BackendError> {
    let look = Read {
        stat: true,
        ..Read::default()
    };
    match pool.read(&c_name(name)?, &look).await {
        Ok(_) => Ok(true),
        Err(Errno::NOT_FOUND) => Ok(false),
        Err(error) => Err(backend_error("list", error)),
    }
}

fn listed(pool: &Pool, query: &Query) -> Result<ListPage, BackendError> {
    let kept_max = query.names_max.saturating_add(1);
    // The smallest names so far, the largest of them on top.
    let mut kept = BinaryHeap::new();
    let listed = pool.list(|name| {
        // What is no text is none of ours.
        let Ok(name) = std::str::from_utf8(name) else {
            return;
        };
        let is_after = query
            .after
            .as_ref()
            .is_none_or(|after| after.as_str() < name);
        if !name.starts_with(&query.prefix) || !is_after {
            return;
        }
        if kept.len() >= kept_max {
            if kept
                .peek()
                .is_some_and(|top: &ObjectName| top.as_str() <= name)
            {
                return;
            }
            kept.pop();
        }
        kept.extend(ObjectName::new(name).ok());
    });
    listed.map_err(at("list"))?;
    let more = kept.len() > query.names_max;
    let mut names = kept.into_sorted_vec();
    names.truncate(query.names_max);
    Ok(ListPage { names, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_truncations_compare_as_their_digits_do() {
        let digits_of = |seq| digits(Truncation { seq, size_bytes: 0 });
        assert_eq!(&digits_of(0x1F), b"000000000000001f");
        let seqs = [0, 1, 9, 10, 15, 16, 255, 1 << 40, u64::MAX];
        for pair in seqs.windows(2) {
            assert!(digits_of(pair[0]) < digits_of(pair[1]), "{pair:?}");
        }
    }
}

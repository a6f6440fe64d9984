//! What each operation does to the files. Everything here blocks; the [pool](super::pool) sees to the order.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};
use smallvec::SmallVec;

use super::header::{self, HEADER_BYTES, Header};
use super::listing::{Listing, Query};
use super::naming::NameHash;
use super::open_files::{OpenFiles, OpenObject};
use super::sync_book::SyncBook;
use super::tree::{Draft, Found, Tree, Vacancy, failed};
use crate::backend::{BackendWrite, ListPage, ObjectStat, WriteRun};
use crate::error::BackendError;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectName, Truncation};

/// The most buffers that one system call takes.
const SLICES_MAX: usize = 1024;
/// Reads longer than this look at the size first, so that a buffer is never much larger than its object.
const UNSEEN_READ_BYTES_MAX: u64 = 4 << 20;
/// For file systems that can't punch holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An open store, without the threads.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) tree: Tree,
    pub(super) open_files: OpenFiles,
    pub(super) sync_book: SyncBook,
    pub(super) listing: Listing,
    pub(super) hash: NameHash,
}

/// An object and the hash of its name.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: ObjectName,
    pub(super) hash: u128,
}

enum Lookup {
    Open(Arc<OpenObject>),
    Absent(Vacancy),
}

impl Store {
    pub(super) fn read(
        &self,
        target: &Target,
        range: ByteRange,
        truncation: Truncation,
    ) -> Result<Bytes, BackendError> {
        let Lookup::Open(object) = self.look_up(target)? else {
            return Err(BackendError::NotFound);
        };
        let mut end = range.end();
        if truncation.seq > object.truncation_seq.load(Ordering::Acquire) {
            end = end.min(truncation.size_bytes);
        }
        let mut end = end.min(OFFSET_BYTES_MAX - HEADER_BYTES);
        if end.saturating_sub(range.start()) > UNSEEN_READ_BYTES_MAX {
            end = end.min(size_bytes(&object.file)?);
        }
        let Some(range) = ByteRange::between(range.start(), end) else {
            return Ok(Bytes::new());
        };
        read_range(&object.file, range)
    }

    pub(super) fn write(&self, target: &Target, write: &BackendWrite) -> Result<(), BackendError> {
        self.refuse_read_only()?;
        if write.runs.iter().all(|run| run.len_bytes() == 0) {
            return Err(BackendError::Unsupported {
                operation: "writes without bytes",
            });
        }
        let ranges = write.runs.iter().filter(|run| run.len_bytes() > 0);
        let ranges = ranges.map(run_range);
        let mut ranges = ranges.collect::<Result<SmallVec<[ByteRange; 8]>, _>>()?;
        let object = match self.look_up(target)? {
            Lookup::Open(object) => object,
            Lookup::Absent(vacancy) => return self.create(vacancy, write, ranges),
        };
        if write.truncation.seq > object.truncation_seq.load(Ordering::Acquire) {
            self.cut(&object, write.truncation)?;
            ranges.extend(ByteRange::between(0, HEADER_BYTES));
        }
        write_runs(&object.file, &write.runs)?;
        self.changed(&object, &ranges, false)
    }

    /// Makes an object with its first write. It gets its name when it is whole.
    fn create(
        &self,
        vacancy: Vacancy,
        write: &BackendWrite,
        mut ranges: SmallVec<[ByteRange; 8]>,
    ) -> Result<(), BackendError> {
        let draft = self.with_descriptors(|| self.tree.draft())?;
        let header = Header {
            name: write.object.clone(),
            truncation_seq: write.truncation.seq,
        };
        let placed =
            fill(&draft, &header, &write.runs).and_then(|()| self.tree.place(&draft, vacancy));
        let placed = match placed {
            Ok(placed) => placed,
            Err(error) => {
                draft.abandon();
                return Err(error);
            }
        };
        let object = open_object(header, draft.into_file());
        ranges.extend(ByteRange::between(0, HEADER_BYTES));
        self.sync_book.placed(placed);
        self.listing.created(&object.name);
        let outcome = self.changed(&object, &ranges, true);
        self.open_files.keep(object);
        outcome
    }

    /// Brings an object under a newer truncation.
    ///
    /// The cut is durable before its number is recorded: were it the other way round, a loss of power could
    /// leave old bytes under the new number. With the old number, the next write cuts again, and finds nothing
    /// that was written since.
    fn cut(&self, object: &Arc<OpenObject>, truncation: Truncation) -> Result<(), BackendError> {
        let size = size_bytes(&object.file)?;
        let kept = size.min(truncation.size_bytes);
        // An unsynced object may be larger on disk than it looks.
        if kept < size || self.sync_book.is_unsynced(&object.name) {
            set_size(&object.file, HEADER_BYTES + kept)?;
            if let Some(cut_off) = ByteRange::between(HEADER_BYTES + kept, u64::MAX) {
                self.changed(object, &[cut_off], true)?;
                self.sync_book
                    .sync_range(object, cut_off, &self.open_files)?;
            }
        }
        rewrite_header(object, truncation.seq)?;
        object
            .truncation_seq
            .store(truncation.seq, Ordering::Release);
        Ok(())
    }

    pub(super) fn discard(&self, target: &Target, range: ByteRange) -> Result<(), BackendError> {
        self.refuse_read_only()?;
        let Lookup::Open(object) = self.look_up(target)? else {
            return Ok(());
        };
        let size = size_bytes(&object.file)?;
        let range = ByteRange::between(range.start(), range.end().min(size));
        let Some(range) = range.and_then(in_file) else {
            return Ok(());
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punch = || rustix::fs::fallocate(&object.file, flags, range.start(), range.len());
        match retry_on_intr(punch) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&object.file, range)?,
            Err(errno) => return Err(failed("discard", errno)),
        }
        self.changed(&object, &[range], true)
    }

    pub(super) fn truncate(&self, target: &Target, size_bytes: u64) -> Result<(), BackendError> {
        self.refuse_read_only()?;
        let end = size_bytes
            .checked_add(HEADER_BYTES)
            .ok_or(BackendError::Full)?;
        let Lookup::Open(object) = self.look_up(target)? else {
            return Ok(());
        };
        set_size(&object.file, end)?;
        let behind = ByteRange::between(end, u64::MAX);
        self.changed(&object, behind.as_slice(), true)
    }

    pub(super) fn remove(&self, target: &Target) -> Result<(), BackendError> {
        self.refuse_read_only()?;
        let find = || self.tree.find(&target.name, target.hash);
        let Found::Object { slot, .. } = self.with_descriptors(find)? else {
            return Err(BackendError::NotFound);
        };
        let moved = self.tree.unlink(slot)?;
        // In this order: a failing sync puts what the book holds among the open files.
        self.sync_book.removed(&target.name, slot.leaf());
        self.open_files.forget(&target.name);
        self.listing.removed(&target.name);
        if moved {
            self.listing.moved();
        }
        Ok(())
    }

    pub(super) fn stat(&self, target: &Target) -> Result<ObjectStat, BackendError> {
        let Lookup::Open(object) = self.look_up(target)? else {
            return Err(BackendError::NotFound);
        };
        let size_bytes = size_bytes(&object.file)?;
        Ok(ObjectStat { size_bytes })
    }

    pub(super) fn list(&self, query: &Query) -> Result<ListPage, BackendError> {
        self.listing.page(&self.tree, self.hash, query)
    }

    pub(super) fn sync(&self) -> Result<(), BackendError> {
        if !self.tree.is_writable() {
            return Ok(());
        }
        self.sync_book.sync(&self.tree, &self.open_files)
    }

    fn look_up(&self, target: &Target) -> Result<Lookup, BackendError> {
        if let Some(object) = self.open_files.find(&target.name) {
            return Ok(Lookup::Open(object));
        }
        if let Some(object) = self.sync_book.open_object(&target.name) {
            self.open_files.keep(Arc::clone(&object));
            return Ok(Lookup::Open(object));
        }
        match self.with_descriptors(|| self.tree.find(&target.name, target.hash))? {
            Found::Absent(vacancy) => Ok(Lookup::Absent(vacancy)),
            Found::Object { file, header, .. } => {
                let object = open_object(header, file);
                self.open_files.keep(Arc::clone(&object));
                Ok(Lookup::Open(object))
            }
        }
    }

    /// Opens something; when the process has no descriptor left, closes those kept in reserve and tries again.
    fn with_descriptors<T>(
        &self,
        open: impl Fn() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        match open() {
            Err(BackendError::Io {
                os_code: Some(code),
                ..
            }) if code == Errno::MFILE.raw_os_error() => {
                self.open_files.clear();
                open()
            }
            outcome => outcome,
        }
    }

    /// Enters a change as unsynced, and writes a header again that a failed sync lost.
    fn changed(
        &self,
        object: &Arc<OpenObject>,
        ranges: &[ByteRange],
        metadata: bool,
    ) -> Result<(), BackendError> {
        if !self.sync_book.changed(object, ranges, metadata) {
            return Ok(());
        }
        rewrite_header(object, object.truncation_seq.load(Ordering::Acquire))?;
        let header = ByteRange::between(0, HEADER_BYTES);
        if self.sync_book.changed(object, header.as_slice(), false) {
            return Err(BackendError::Corrupt {
                what: "its header can't be made durable",
            });
        }
        Ok(())
    }

    const fn refuse_read_only(&self) -> Result<(), BackendError> {
        if self.tree.is_writable() {
            Ok(())
        } else {
            Err(BackendError::ReadOnly)
        }
    }
}

fn open_object(header: Header, file: OwnedFd) -> Arc<OpenObject> {
    Arc::new(OpenObject {
        name: header.name,
        file,
        truncation_seq: Arc::new(AtomicU64::new(header.truncation_seq)),
    })
}

fn fill(draft: &Draft<'_>, header: &Header, runs: &[WriteRun]) -> Result<(), BackendError> {
    let block = header::encode(header);
    write_slices(draft.file(), &mut [IoSlice::new(&block)], 0)?;
    write_runs(draft.file(), runs)
}

fn rewrite_header(object: &OpenObject, truncation_seq: u64) -> Result<(), BackendError> {
    let name = object.name.clone();
    let block = header::encode(&Header {
        name,
        truncation_seq,
    });
    write_slices(&object.file, &mut [IoSlice::new(&block)], 0)
}

/// A range of an object as one of its file.
fn in_file(range: ByteRange) -> Option<ByteRange> {
    let start = range.start().checked_add(HEADER_BYTES)?;
    ByteRange::new(start, range.len()).ok()
}

/// The range of a run in the object's file.
fn run_range(run: &WriteRun) -> Result<ByteRange, BackendError> {
    let range = ByteRange::new(run.offset, run.len_bytes()).ok();
    // An offset that no file has is one for which there is no room, as the kernel sees it too.
    range.and_then(in_file).ok_or(BackendError::Full)
}

fn size_bytes(file: &OwnedFd) -> Result<u64, BackendError> {
    let stat = rustix::fs::fstat(file).map_err(|errno| failed("look at an object", errno))?;
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(len.saturating_sub(HEADER_BYTES))
}

fn set_size(file: &OwnedFd, len: u64) -> Result<(), BackendError> {
    if len > OFFSET_BYTES_MAX {
        return Err(BackendError::Full);
    }
    retry_on_intr(|| rustix::fs::ftruncate(file, len)).map_err(|errno| failed("truncate", errno))
}

fn read_range(file: &OwnedFd, range: ByteRange) -> Result<Bytes, BackendError> {
    let out_of_memory = BackendError::Io {
        operation: "read",
        kind: io::ErrorKind::OutOfMemory,
        os_code: None,
    };
    let mut bytes = Vec::new();
    let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
    if bytes.try_reserve_exact(len).is_err() {
        return Err(out_of_memory);
    }
    let mut at = HEADER_BYTES + range.start();
    while bytes.len() < len {
        let rest = rustix::buffer::spare_capacity(&mut bytes);
        let read = rustix::io::pread(file, rest, at);
        match read {
            Ok(0) => break,
            Ok(read) => at += read as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("read", errno)),
        }
    }
    bytes.truncate(len);
    bytes.shrink_to_fit();
    Ok(Bytes::from(bytes))
}

fn write_runs(file: &OwnedFd, runs: &[WriteRun]) -> Result<(), BackendError> {
    for run in runs {
        let buffers = run.buffers.iter().filter(|buffer| !buffer.is_empty());
        let mut slices: SmallVec<[IoSlice<'_>; 16]> =
            buffers.map(|buffer| IoSlice::new(buffer)).collect();
        write_slices(file, &mut slices, HEADER_BYTES + run.offset)?;
    }
    Ok(())
}

fn write_zeros(file: &OwnedFd, range: ByteRange) -> Result<(), BackendError> {
    let mut at = range.start();
    while at < range.end() {
        let len = usize::try_from(range.end() - at).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..len).unwrap_or(&ZEROS);
        write_slices(file, &mut [IoSlice::new(zeros)], at)?;
        at += zeros.len() as u64;
    }
    Ok(())
}

/// Writes all of `slices`, none of which is empty.
fn write_slices(
    file: &OwnedFd,
    mut slices: &mut [IoSlice<'_>],
    mut at: u64,
) -> Result<(), BackendError> {
    while !slices.is_empty() {
        let batch = slices.get(..SLICES_MAX).unwrap_or(slices);
        match rustix::io::pwritev(file, batch, at) {
            Ok(0) => {
                let error = io::Error::from(io::ErrorKind::WriteZero);
                return Err(BackendError::from_io("write", &error));
            }
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("write", errno)),
        }
    }
    Ok(())
}

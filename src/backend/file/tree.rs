//! The objects' files: how they are found, how a new one gets its place and how one goes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use super::header::{self, Decoded, HEADER_USED_BYTES, Header};
use super::naming::{Leaf, Slot};
use crate::error::BackendError;
use crate::types::ObjectName;

pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
pub(super) const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);
/// A chain of names with one hash that is longer than this is taken for damage.
const CHAIN_MAX: u32 = 4096;

/// The open directories of a store, and the lock that keeps other processes out as long as this lives.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) objects: OwnedFd,
    pub(super) mode: Opened,
    /// Holds the lock.
    pub(super) _marker: File,
}

/// What the store was opened for.
#[derive(Debug)]
pub(super) enum Opened {
    Reading,
    Writing {
        temporary: OwnedFd,
        next_name: AtomicU64,
    },
}

/// Where the search for an object's file ended.
#[derive(Debug)]
pub(super) enum Found {
    Object {
        slot: Slot,
        file: OwnedFd,
        header: Header,
    },
    Absent(Vacancy),
}

/// Where the file of an absent object may be put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancy {
    slot: Slot,
    /// A file without content, left by a loss of power, lies there.
    blank: bool,
}

/// A new file that has no place in the tree yet.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    temporary: &'a OwnedFd,
    name: String,
    file: OwnedFd,
}

/// What the tree's directories went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placed {
    InLeaf(Leaf),
    InNewLeaf(Leaf),
}

impl Tree {
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn objects(&self) -> BorrowedFd<'_> {
        self.objects.as_fd()
    }

    pub(super) const fn is_writable(&self) -> bool {
        matches!(self.mode, Opened::Writing { .. })
    }

    /// Opens one of the directories with objects; `None` when it was never needed.
    pub(super) fn open_leaf(&self, leaf: Leaf) -> io::Result<Option<OwnedFd>> {
        match open_directory(&self.objects, &leaf.file_name()) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Looks for an object's file along the chain of its hash.
    pub(super) fn find(&self, name: &ObjectName, hash: u128) -> Result<Found, BackendError> {
        let mut slot = Slot::first(hash);
        let mut blank = None;
        while slot.number < CHAIN_MAX {
            let Some(file) = self.open_slot(slot)? else {
                let vacancy = Vacancy { slot, blank: false };
                return Ok(Found::Absent(blank.unwrap_or(vacancy)));
            };
            match read_header(&file)? {
                Decoded::Whole(header) if header.name == *name => {
                    return Ok(Found::Object { slot, file, header });
                }
                Decoded::Whole(_) => {}
                Decoded::Blank => {
                    blank = blank.or(Some(Vacancy { slot, blank: true }));
                }
            }
            slot = slot.next();
        }
        Err(corrupt("too many names have its hash"))
    }

    /// Opens the file in a slot; `None` when there is none.
    pub(super) fn open_slot(&self, slot: Slot) -> Result<Option<OwnedFd>, BackendError> {
        let access = match self.mode {
            Opened::Reading => OFlags::RDONLY,
            Opened::Writing { .. } => OFlags::RDWR,
        };
        // A pipe or device in the place of a file must neither block nor be read.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.objects, slot.path(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR) => return Err(corrupt("a file lies in place of its directory")),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
                return Err(corrupt("its file is not a regular file"));
            }
            Err(errno) => return Err(failed("open an object", errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("open an object", errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(corrupt("its file is not a regular file"));
        }
        Ok(Some(file))
    }

    /// Starts a new file away from the tree, where a crash does no harm.
    pub(super) fn draft(&self) -> Result<Draft<'_>, BackendError> {
        let Opened::Writing {
            temporary,
            next_name,
        } = &self.mode
        else {
            return Err(BackendError::ReadOnly);
        };
        let name = next_name.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(temporary, &*name, flags, FILE_MODE).map_err(creation)?;
        Ok(Draft {
            temporary,
            name,
            file,
        })
    }

    /// Gives a finished draft its place. Over a crash of the process it is there whole or not at all.
    pub(super) fn place(
        &self,
        draft: &Draft<'_>,
        vacancy: Vacancy,
    ) -> Result<Placed, BackendError> {
        let Vacancy { slot, blank } = vacancy;
        let (leaf, to) = (slot.leaf(), slot.path());
        let place = || {
            if blank {
                rustix::fs::renameat(draft.temporary, &*draft.name, &self.objects, &*to)
            } else {
                place_new(draft.temporary, &draft.name, &self.objects, &to)
            }
        };
        match place() {
            Ok(()) => return Ok(Placed::InLeaf(leaf)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(creation(errno)),
        }
        match rustix::fs::mkdirat(&self.objects, leaf.file_name(), DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => place().map_err(creation)?,
            Err(errno) => return Err(creation(errno)),
        }
        Ok(Placed::InNewLeaf(leaf))
    }

    /// Takes a file out of its chain; the last of the chain moves into the gap, in the same step. Tells whether one
    /// did.
    ///
    /// Nothing else may be done in the chain meanwhile.
    pub(super) fn unlink(&self, slot: Slot) -> Result<bool, BackendError> {
        let fail = |errno| failed("remove an object", errno);
        let mut last = slot;
        while last.number < CHAIN_MAX {
            let next = last.next();
            match rustix::fs::statat(&self.objects, next.path(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => last = next,
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(fail(errno)),
            }
        }
        if last == slot {
            rustix::fs::unlinkat(&self.objects, slot.path(), AtFlags::empty()).map_err(fail)?;
            return Ok(false);
        }
        rustix::fs::renameat(&self.objects, last.path(), &self.objects, slot.path())
            .map_err(fail)?;
        Ok(true)
    }
}

impl Draft<'_> {
    pub(super) const fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Keeps the file, which has its place.
    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }

    /// Removes the file, which will not get a place. One that can't be removed goes when the store is next opened.
    pub(super) fn abandon(self) {
        rustix::fs::unlinkat(self.temporary, &*self.name, AtFlags::empty()).ok();
    }
}

/// Reads the header of an object's file.
pub(super) fn read_header(file: &OwnedFd) -> Result<Decoded, BackendError> {
    let mut block = Vec::with_capacity(HEADER_USED_BYTES);
    while block.len() < HEADER_USED_BYTES {
        let at = block.len() as u64;
        let read = retry_on_intr(|| {
            rustix::io::pread(file, rustix::buffer::spare_capacity(&mut block), at)
        })
        .map_err(|errno| failed("read an object's header", errno))?;
        if read == 0 {
            break;
        }
    }
    let decoded = header::decode(&block)?;
    // Zeros in front of data are no trace of a lost creation, they are damage.
    if decoded == Decoded::Blank && rustix::fs::seek(file, SeekFrom::Data(0)) != Err(Errno::NXIO) {
        return Err(corrupt("its header is all zeros"));
    }
    Ok(decoded)
}

const fn corrupt(what: &'static str) -> BackendError {
    BackendError::Corrupt { what }
}

/// The error of a creation: where nothing is missing but the store's own directories, that is not "not found".
fn creation(errno: Errno) -> BackendError {
    match errno {
        Errno::NOENT => corrupt("a directory of the store is gone"),
        _ => failed("create an object", errno),
    }
}

/// The backend's error for a failed system call.
pub(super) fn failed(operation: &'static str, errno: Errno) -> BackendError {
    BackendError::from_io(operation, &errno.into())
}

pub(super) fn open_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Renames without replacing what has the name already.
pub(super) fn place_new(
    from_directory: &OwnedFd,
    from: &str,
    to_directory: &OwnedFd,
    to: &str,
) -> rustix::io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(from_directory, from, to_directory, to, flags) {
        // Not every file system can: there, a second link does the same in two steps.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(from_directory, from, to_directory, to, AtFlags::empty())?;
            rustix::fs::unlinkat(from_directory, from, AtFlags::empty())
        }
        other => other,
    }
}

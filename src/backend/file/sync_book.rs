//! What would not survive a loss of power yet, and the way to make it.
//!
//! # Failed syncs
//! When the kernel fails to write something back, it says so once, and drops or keeps the bytes as it likes; the
//! next `fsync` succeeds. So the book remembers what a failed one was about, and every sync fails until those bytes
//! are written again, cut off or discarded, or their object is removed. A file stays open from its first unsynced
//! write to its sync, because the kernel tells of a failure only those who had the file open.
//!
//! # Memory
//! Above a number of files, the book no longer tells them apart and syncs the whole file system. When that fails,
//! there is no telling what was lost: every sync fails until the store is opened anew. A failed sync of a directory
//! counts the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::header::HEADER_BYTES;
use super::naming::Leaf;
use super::open_files::{OpenFiles, OpenObject};
use super::range_set::RangeSet;
use super::tree::{Placed, Tree};
use crate::error::BackendError;
use crate::types::{ByteRange, ObjectName};

/// The system calls that make things durable; tests put failures in their place.
pub(super) trait Durability: Send + Sync + fmt::Debug {
    /// Syncs a file: its data, and with `metadata` all that is known about it.
    fn sync_file(&self, file: BorrowedFd<'_>, metadata: bool) -> io::Result<()>;
    /// Syncs the names in a directory.
    fn sync_directory(&self, directory: BorrowedFd<'_>) -> io::Result<()>;
    /// Syncs everything in the file system that holds a directory.
    fn sync_file_system(&self, directory: BorrowedFd<'_>) -> io::Result<()>;
}

/// The kernel's own.
#[derive(Debug)]
pub(super) struct KernelDurability;

impl Durability for KernelDurability {
    fn sync_file(&self, file: BorrowedFd<'_>, metadata: bool) -> io::Result<()> {
        if metadata {
            rustix::fs::fsync(file)?;
        } else {
            rustix::fs::fdatasync(file)?;
        }
        Ok(())
    }

    fn sync_directory(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::fs::fsync(directory)?)
    }

    fn sync_file_system(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::fs::syncfs(directory)?)
    }
}

/// Changes of one file, in bytes of the file, header included.
#[derive(Default, Debug)]
struct Changes {
    ranges: RangeSet,
    /// Whether more than data changed, such as the size.
    metadata: bool,
}

/// What a failed sync was about, less what was written since.
#[derive(Debug)]
struct Lost {
    ranges: RangeSet,
    error: BackendError,
}

#[derive(Debug)]
struct Unsynced {
    /// Tells apart two objects that had the name one after the other.
    id: u64,
    object: Arc<OpenObject>,
    /// What changed since a pass last took it.
    changes: Changes,
    lost: Option<Lost>,
}

/// What a pass works on.
#[derive(Debug)]
struct Taken {
    id: u64,
    object: Arc<OpenObject>,
    changes: Changes,
}

#[derive(Default, Debug)]
struct Book {
    files: BTreeMap<ObjectName, Unsynced>,
    next_id: u64,
    leaves: BTreeSet<Leaf>,
    /// A leaf is new in the directory of objects.
    leaf_made: bool,
    /// Files changed that are not in `files`.
    overflowed: bool,
    /// A pass works on these.
    overflow_in_pass: bool,
    /// A failure of which nobody knows what it hit.
    doubt: Option<BackendError>,
}

/// The book of what is unsynced. Changes are entered when they are made and before they are acknowledged.
#[derive(Debug)]
pub(super) struct SyncBook {
    book: Mutex<Book>,
    /// Held over a pass, so that two do not share the answers of one descriptor.
    pass: Mutex<()>,
    files_max: usize,
    durability: Box<dyn Durability>,
}

const HEADER: Option<ByteRange> = ByteRange::between(0, HEADER_BYTES);

impl SyncBook {
    pub(super) fn new(files_max: usize, durability: Box<dyn Durability>) -> Self {
        Self {
            book: Mutex::default(),
            pass: Mutex::default(),
            files_max,
            durability,
        }
    }

    /// Enters changes of a file; tells whether its header was lost and must be written again.
    #[must_use]
    pub(super) fn changed(
        &self,
        object: &Arc<OpenObject>,
        ranges: &[ByteRange],
        metadata: bool,
    ) -> bool {
        let mut book = self.book.lock();
        let Some(entry) = book.entry(object, self.files_max) else {
            return false;
        };
        entry.changes.metadata |= metadata;
        for range in ranges {
            entry.changes.ranges.insert(*range);
        }
        let Some(lost) = &mut entry.lost else {
            return false;
        };
        for range in ranges {
            lost.ranges.remove(*range);
        }
        let header_lost = HEADER.is_some_and(|header| lost.ranges.overlaps(header));
        if lost.ranges.is_empty() {
            entry.lost = None;
        }
        header_lost
    }

    /// Enters that a name was made.
    pub(super) fn placed(&self, placed: Placed) {
        let mut book = self.book.lock();
        match placed {
            Placed::InLeaf(leaf) => {
                book.leaves.insert(leaf);
            }
            Placed::InNewLeaf(leaf) => {
                book.leaves.insert(leaf);
                book.leaf_made = true;
            }
        }
    }

    /// Enters that an object was removed, and with it all that was unsynced or lost of it.
    pub(super) fn removed(&self, name: &ObjectName, leaf: Leaf) {
        let mut book = self.book.lock();
        book.leaves.insert(leaf);
        let gone = book.files.remove(name);
        drop(book);
        drop(gone);
    }

    /// The file of an object that has unsynced or lost changes.
    pub(super) fn open_object(&self, name: &ObjectName) -> Option<Arc<OpenObject>> {
        let book = self.book.lock();
        Some(Arc::clone(&book.files.get(name)?.object))
    }

    /// Whether anything of an object may be unsynced.
    pub(super) fn is_unsynced(&self, name: &ObjectName) -> bool {
        let book = self.book.lock();
        book.overflowed || book.overflow_in_pass || book.files.contains_key(name)
    }

    /// Makes a changed range of an object durable, and what else has changed in it.
    pub(super) fn sync_range(
        &self,
        object: &Arc<OpenObject>,
        range: ByteRange,
        open_files: &OpenFiles,
    ) -> Result<(), BackendError> {
        let _pass = self.pass.lock();
        let taken = {
            let mut book = self.book.lock();
            let entry = book.files.get_mut(&object.name);
            entry.map(Unsynced::take)
        };
        let Some(taken) = taken else {
            let synced = self.durability.sync_file(object.file.as_fd(), true);
            return synced.map_err(|error| self.doubt("sync an object", &error));
        };
        let outcome = self.sync_taken(taken, open_files);
        // What was lost elsewhere in the object is no concern of this range.
        let book = self.book.lock();
        let entry = book.files.get(&object.name);
        match entry.and_then(|entry| entry.lost.as_ref()) {
            Some(lost) if lost.ranges.overlaps(range) => outcome,
            Some(_) | None => Ok(()),
        }
    }

    /// Makes everything entered before the call durable.
    pub(super) fn sync(&self, tree: &Tree, open_files: &OpenFiles) -> Result<(), BackendError> {
        let _pass = self.pass.lock();
        let mut book = self.book.lock();
        let overflowed = std::mem::take(&mut book.overflowed);
        book.overflow_in_pass = overflowed;
        let leaves = std::mem::take(&mut book.leaves);
        let leaf_made = std::mem::take(&mut book.leaf_made);
        let files: Vec<Taken> = book.files.values_mut().map(Unsynced::take).collect();
        drop(book);

        let mut outcome = Ok(());
        if overflowed {
            // It also writes what the files below wait for; they are still asked, for errors of their own.
            let synced = self.durability.sync_file_system(tree.root());
            outcome = synced.map_err(|error| self.doubt("sync the file system", &error));
            self.book.lock().overflow_in_pass = false;
        }
        for taken in files {
            outcome = outcome.and(self.sync_taken(taken, open_files));
        }
        if !overflowed {
            outcome = outcome.and(self.sync_directories(tree, leaf_made, &leaves));
        }
        let book = self.book.lock();
        outcome.and(book.doubt.clone().map_or(Ok(()), Err))
    }

    /// Syncs one file; fails when this fails, or something that was lost earlier has not been made good.
    fn sync_taken(&self, taken: Taken, open_files: &OpenFiles) -> Result<(), BackendError> {
        let Taken {
            id,
            object,
            changes,
        } = taken;
        let outcome = if changes.ranges.is_empty() && !changes.metadata {
            Ok(())
        } else {
            self.durability
                .sync_file(object.file.as_fd(), changes.metadata)
                .map_err(|error| BackendError::from_io("sync an object", &error))
        };
        let reopened = outcome.is_err().then(|| object.reopen());
        let mut book = self.book.lock();
        let Some(entry) = book.files.get_mut(&object.name) else {
            return Ok(());
        };
        if entry.id != id {
            return Ok(());
        }
        if let Err(error) = outcome {
            let mut ranges = changes.ranges;
            if let Some(lost) = entry.lost.take() {
                ranges.insert_all(lost.ranges);
            }
            entry.lost = Some(Lost { ranges, error });
        }
        // A descriptor that was open before the failure may report it once more.
        if let Some(Ok(reopened)) = reopened {
            entry.object = Arc::new(reopened);
            open_files.keep(Arc::clone(&entry.object));
        }
        if let Some(lost) = &entry.lost {
            return Err(lost.error.clone());
        }
        if entry.changes.ranges.is_empty() && !entry.changes.metadata {
            book.files.remove(&object.name);
        }
        Ok(())
    }

    fn sync_directories(
        &self,
        tree: &Tree,
        leaf_made: bool,
        leaves: &BTreeSet<Leaf>,
    ) -> Result<(), BackendError> {
        let sync = || {
            for leaf in leaves {
                if let Some(directory) = tree.open_leaf(*leaf)? {
                    self.durability.sync_directory(directory.as_fd())?;
                }
            }
            if leaf_made {
                self.durability.sync_directory(tree.objects())?;
            }
            Ok(())
        };
        sync().map_err(|error| self.doubt("sync a directory", &error))
    }

    fn doubt(&self, operation: &'static str, error: &io::Error) -> BackendError {
        let error = BackendError::from_io(operation, error);
        self.book.lock().doubt.get_or_insert(error.clone());
        error
    }
}

impl Book {
    /// The entry of a file that changes; `None` when there are too many.
    fn entry(&mut self, object: &Arc<OpenObject>, files_max: usize) -> Option<&mut Unsynced> {
        if !self.files.contains_key(&object.name) && self.files.len() >= files_max {
            self.overflowed = true;
            return None;
        }
        let entry = self.files.entry(object.name.clone());
        Some(entry.or_insert_with(|| {
            self.next_id += 1;
            Unsynced {
                id: self.next_id,
                object: Arc::clone(object),
                changes: Changes::default(),
                lost: None,
            }
        }))
    }
}

impl Unsynced {
    fn take(&mut self) -> Taken {
        Taken {
            id: self.id,
            object: Arc::clone(&self.object),
            changes: std::mem::take(&mut self.changes),
        }
    }
}

//! The embedded default: a store in a directory, with one sparse file for each object.
//!
//! ```text
//! ROOT/cachalot-store    the marker: format and version; locked while the store is open
//!     /objects/3f2/      one of 4096 directories, made when needed
//!         3f2…           one object: a header of 4096 bytes, then its data
//!     /tmp/              objects that have no name yet; emptied when the store is opened
//! ```
//!
//! `naming` says which file is whose, `header` what stands in front of the data, `sync_book` what a sync does.

mod error;
mod header;
mod listing;
mod naming;
mod open_files;
mod pool;
mod range_set;
mod root;
mod store;
mod sync_book;
mod tree;

#[cfg(test)]
pub(super) mod fuzz;
#[cfg(all(fuzzing, not(test)))]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, ready};

pub use self::error::FileStoreError;
use self::listing::{KEPT_BYTES_MAX, Listing, Query};
use self::naming::{NameHash, name_hash};
use self::open_files::OpenFiles;
use self::pool::{Access, Pool};
use self::store::{Store, Target};
use self::sync_book::{Durability, KernelDurability, SyncBook};
use super::{Backend, BackendRead, BackendWrite, Capabilities, ListPage, ObjectStat};
use crate::error::BackendError;
use crate::types::{ByteRange, ObjectName, SnapId};

/// How a file store uses the machine.
///
/// It holds at most `threads + open_files_max + unsynced_files_max` file descriptors, and a few for itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStoreOptions {
    /// How many operations run at a time. Higher uses more of a fast disk, lower costs less switching between
    /// threads. Default: 4.
    pub threads: usize,
    /// How many objects' files stay open. Higher opens files less often, lower leaves descriptors to others.
    /// Default: 512.
    pub open_files_max: usize,
    /// How many files are synced one by one; when more were written, [`Backend::sync`] syncs the whole file
    /// system, with what others wrote to it. Higher holds more descriptors between syncs. Default: 256.
    pub unsynced_files_max: usize,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            open_files_max: 512,
            unsynced_files_max: 256,
        }
    }
}

impl FileStoreOptions {
    /// Makes a store in a directory that is empty or absent, and opens it.
    ///
    /// Blocks for some system calls, as all that opens a store does.
    ///
    /// # Errors
    /// [`FileStoreError::AlreadyExists`] when it holds a store, [`FileStoreError::NotAStore`] when it holds
    /// something else, or what keeps the directory from being used.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<FileBackend, FileStoreError> {
        root::create(path.as_ref())?;
        self.open(path)
    }

    /// Opens a store for reading and writing, alone, and removes what a crash left behind.
    ///
    /// # Errors
    /// [`FileStoreError::Locked`] when somebody has it open, or what is wrong with the directory.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<FileBackend, FileStoreError> {
        self.start(path.as_ref(), true, Parts::default())
    }

    /// Opens a store, or makes it where there is nothing.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::create`].
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<FileBackend, FileStoreError> {
        match root::create(path.as_ref()) {
            Ok(()) | Err(FileStoreError::AlreadyExists { .. }) => self.open(path),
            Err(error) => Err(error),
        }
    }

    /// Opens a store for reading. Several may do so at a time, but nobody may have it open for writing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_read_only(&self, path: impl AsRef<Path>) -> Result<FileBackend, FileStoreError> {
        self.start(path.as_ref(), false, Parts::default())
    }

    fn start(
        &self,
        path: &Path,
        writable: bool,
        parts: Parts,
    ) -> Result<FileBackend, FileStoreError> {
        let store = Arc::new(Store {
            tree: root::open(path, writable)?,
            open_files: OpenFiles::new(self.open_files_max),
            sync_book: SyncBook::new(self.unsynced_files_max, parts.durability),
            listing: Listing::new(parts.listing_bytes_max),
            hash: parts.hash,
        });
        let pool = |name, threads| {
            Pool::start(name, threads)
                .map_err(|error| FileStoreError::from_io(path, "start a thread", error))
        };
        Ok(FileBackend {
            pool: pool("cachalot-file", self.threads)?,
            sync_pool: pool("cachalot-sync", 1)?,
            list_pool: pool("cachalot-list", 1)?,
            store,
        })
    }
}

/// What tests replace.
struct Parts {
    hash: NameHash,
    durability: Box<dyn Durability>,
    listing_bytes_max: usize,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            hash: name_hash,
            durability: Box::new(KernelDurability),
            listing_bytes_max: KEPT_BYTES_MAX,
        }
    }
}

/// A [`Backend`] that keeps each object in a sparse file below one directory.
///
/// It works under any runtime or none: its own threads do what blocks. Operations of one object take place in the
/// order of the calls, reads beside each other. Dropping a future gives its operation up if it has not started;
/// one that has started runs to its end, before any later one of its object.
///
/// A write is in the kernel's memory when it resolves. [`Backend::sync`] takes it to the disk; when that fails, it
/// goes on failing until what was lost is written again, or the store is opened anew.
///
/// [`Backend::list`] reads every object's name from disk, and keeps what it can for the pages that follow. It
/// fails with [`BackendError::Corrupt`] when one of the objects is damaged. Modification times and hints are not
/// kept. Snapshots are not supported.
///
/// Dropping it waits for the operations that are queued, and syncs nothing.
#[derive(Debug)]
pub struct FileBackend {
    pool: Pool,
    /// Syncs and listings take long, and must not hold up the others.
    sync_pool: Pool,
    list_pool: Pool,
    store: Arc<Store>,
}

impl FileBackend {
    /// [`FileStoreOptions::create`] with the defaults.
    ///
    /// # Errors
    /// As there.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, FileStoreError> {
        FileStoreOptions::default().create(path)
    }

    /// [`FileStoreOptions::open`] with the defaults.
    ///
    /// # Errors
    /// As there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileStoreError> {
        FileStoreOptions::default().open(path)
    }

    /// [`FileStoreOptions::open_or_create`] with the defaults.
    ///
    /// # Errors
    /// As there.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, FileStoreError> {
        FileStoreOptions::default().open_or_create(path)
    }

    /// [`FileStoreOptions::open_read_only`] with the defaults.
    ///
    /// # Errors
    /// As there.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, FileStoreError> {
        FileStoreOptions::default().open_read_only(path)
    }

    /// Queues an operation on an object.
    fn run<T: Send + 'static>(
        &self,
        name: ObjectName,
        access: Access,
        operation: impl FnOnce(&Store, &Target) -> Result<T, BackendError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, BackendError>> {
        let hash = (self.store.hash)(name.as_str().as_bytes());
        let target = Target { name, hash };
        let store = Arc::clone(&self.store);
        let operation = move || operation(&store, &target);
        self.pool.run(hash, access, operation)
    }
}

fn unsupported<T: Send + 'static>(
    operation: &'static str,
) -> BoxFuture<'static, Result<T, BackendError>> {
    Box::pin(ready(Err(BackendError::Unsupported { operation })))
}

impl Backend for FileBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            scattered_writes: true,
            atomic_writes: false,
            ordered_writes: true,
            snapshots: false,
            write_granularity: 4096,
            ..Capabilities::default()
        }
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        if read.snap != SnapId::HEAD {
            return unsupported("reads of snapshots");
        }
        let (range, truncation) = (read.range, read.truncation);
        self.run(read.object, Access::Shared, move |store, target| {
            store.read(target, range, truncation)
        })
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        if !write.context.snaps.is_empty() {
            return unsupported("writes under snapshots");
        }
        let name = write.object.clone();
        self.run(name, Access::Exclusive, move |store, target| {
            store.write(target, &write)
        })
    }

    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.run(object, Access::Exclusive, move |store, target| {
            store.discard(target, range)
        })
    }

    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.run(object, Access::Exclusive, move |store, target| {
            store.truncate(target, size_bytes)
        })
    }

    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        self.run(object, Access::Exclusive, Store::remove)
    }

    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        self.run(object, Access::Shared, Store::stat)
    }

    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        let store = Arc::clone(&self.store);
        let query = Query {
            prefix,
            after,
            names_max,
        };
        self.list_pool
            .run(0, Access::Exclusive, move || store.list(&query))
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        let store = Arc::clone(&self.store);
        self.sync_pool
            .run(0, Access::Exclusive, move || store.sync())
    }
}

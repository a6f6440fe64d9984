//! A store in memory: the reference for what a backend does, and the model in tests.

mod object;
mod sparse;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::{Mutex, RwLock};

use self::object::Object;
use super::counting::{Counters, bump};
use super::{
    Backend, BackendRead, BackendWrite, Capabilities, JournalNotice, ListPage, ObjectStat,
    OperationCounts,
};
use crate::error::BackendError;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectName, SnapId, Truncation};

/// Objects whose names fall into one shard share a lock.
const SHARDS: usize = 64;

type Shard = RwLock<BTreeMap<ObjectName, Object>>;

/// A [`Backend`] that keeps everything in memory and is done with each operation when its method returns.
///
/// It takes scattered writes, and stores each write whole and in the order of the calls. Writes that break the
/// contract (no runs, runs that overlap or descend, more than its [`Capabilities`] allow) are refused.
///
/// Snapshots work as in RADOS. A write under a newer context first keeps a clone of the object for the
/// snapshots taken since the last one. A read at a snapshot finds the oldest clone that covers it, else the
/// head. Discard, truncate and remove carry no context: they change the head and keep no clone.
///
/// With a parent, an object that is absent here and present there reads as absent until its first write, which
/// copies the parent's bytes up before it stores its own.
pub struct MemoryBackend {
    shards: Vec<Shard>,
    capabilities: Capabilities,
    copy_on_write: Option<bool>,
    parent: Option<Arc<Self>>,
    counters: Counters,
    notices: Mutex<Vec<JournalNotice>>,
}

/// Makes a [`MemoryBackend`].
#[derive(Clone, Debug)]
pub struct MemoryBuilder {
    capabilities: Capabilities,
    copy_on_write: Option<bool>,
    parent: Option<Arc<MemoryBackend>>,
}

impl MemoryBuilder {
    /// Promises only this much; the store itself stays as capable as ever, but refuses what is not promised.
    #[must_use]
    pub const fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Fixes the answer of [`Backend::may_copy_on_write`]. By default it tells the truth: whether the parent
    /// holds an object that is absent here.
    #[must_use]
    pub const fn copy_on_write(mut self, answer: bool) -> Self {
        self.copy_on_write = Some(answer);
        self
    }

    /// Makes the first write of an absent object copy up what `parent` holds of it.
    #[must_use]
    pub fn with_parent(mut self, parent: Arc<MemoryBackend>) -> Self {
        self.parent = Some(parent);
        self
    }

    /// The store, empty.
    #[must_use]
    pub fn build(self) -> MemoryBackend {
        MemoryBackend {
            shards: std::iter::repeat_with(Shard::default)
                .take(SHARDS)
                .collect(),
            capabilities: self.capabilities,
            copy_on_write: self.copy_on_write,
            parent: self.parent,
            counters: Counters::default(),
            notices: Mutex::default(),
        }
    }
}

impl Default for MemoryBuilder {
    fn default() -> Self {
        Self {
            capabilities: Capabilities {
                scattered_writes: true,
                atomic_writes: true,
                ordered_writes: true,
                snapshots: true,
                keepable_reads: false,
                write_bytes_max: 64 << 20,
                write_pieces_max: 1 << 16,
                write_granularity: 1,
            },
            copy_on_write: None,
            parent: None,
        }
    }
}

impl MemoryBackend {
    /// An empty store with every capability.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Sets a store up.
    #[must_use]
    pub fn builder() -> MemoryBuilder {
        MemoryBuilder::default()
    }

    /// What was asked so far.
    #[must_use]
    pub fn operations(&self) -> OperationCounts {
        self.counters.load()
    }

    /// The journal notices so far, in the order in which they came.
    #[must_use]
    pub fn journal_notices(&self) -> Vec<JournalNotice> {
        self.notices.lock().clone()
    }

    /// The bytes of memory that the stored data takes; chunks shared by clones count for each.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.read().values().map(Object::held_bytes).sum::<u64>())
            .sum()
    }

    /// The whole content of an object's head, holes as zeros; `None` when it is absent. Not counted as a read.
    #[must_use]
    pub fn content(&self, object: &ObjectName) -> Option<Bytes> {
        let shard = self.shard(object)?.read();
        let size_bytes = shard.get(object)?.size_bytes()?;
        let Some(range) = ByteRange::between(0, size_bytes) else {
            return Some(Bytes::new());
        };
        shard
            .get(object)?
            .read(SnapId::HEAD, range, Truncation::default())
            .ok()
    }

    fn shard(&self, object: &ObjectName) -> Option<&Shard> {
        let hash = FixedState::default().hash_one(object);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards.get(index)
    }

    fn holds(&self, object: &ObjectName) -> bool {
        self.shard(object).is_some_and(|shard| {
            let objects = shard.read();
            objects.get(object).is_some_and(Object::exists)
        })
    }

    fn finish<T: Send + 'static>(
        &self,
        outcome: Result<T, BackendError>,
    ) -> BoxFuture<'static, Result<T, BackendError>> {
        if outcome.is_err() {
            bump(&self.counters.errors);
        }
        ready(outcome).boxed()
    }

    fn read_now(&self, read: &BackendRead) -> Result<Bytes, BackendError> {
        let shard = self.shard(&read.object).ok_or(BackendError::NotFound)?;
        let objects = shard.read();
        let object = objects.get(&read.object).ok_or(BackendError::NotFound)?;
        object.read(read.snap, read.range, read.truncation)
    }

    fn write_now(&self, write: &BackendWrite) -> Result<(), BackendError> {
        self.capabilities.admit(write)?;
        // A store under this one is never locked while a shard of this one is.
        let parent = self.parent.as_ref();
        let copied_up = parent.and_then(|parent| parent.head_of(&write.object));
        let shard = self.shard(&write.object).ok_or(BackendError::NotFound)?;
        let mut objects = shard.write();
        let object = objects.entry(write.object.clone()).or_default();
        object.write(write, copied_up);
        drop(objects);
        Ok(())
    }

    /// A copy of an object's head that shares its chunks.
    fn head_of(&self, object: &ObjectName) -> Option<sparse::SparseBytes> {
        let objects = self.shard(object)?.read();
        objects.get(object)?.head_bytes().cloned()
    }

    fn change(&self, object: &ObjectName, change: impl FnOnce(&mut Object)) {
        if let Some(shard) = self.shard(object)
            && let Some(object) = shard.write().get_mut(object)
        {
            change(object);
        }
    }

    fn remove_now(&self, name: &ObjectName) -> Result<(), BackendError> {
        let shard = self.shard(name).ok_or(BackendError::NotFound)?;
        let mut objects = shard.write();
        let object = objects.get_mut(name).filter(|object| object.exists());
        let object = object.ok_or(BackendError::NotFound)?;
        if object.remove() {
            objects.remove(name);
        }
        drop(objects);
        Ok(())
    }

    fn list_now(&self, prefix: &str, after: Option<&ObjectName>, names_max: usize) -> ListPage {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let start = ObjectName::new(prefix).ok();
        let start = match (start.as_ref(), after) {
            (Some(prefix), Some(after)) if after < prefix => Included(prefix),
            (_, Some(after)) => Excluded(after),
            (Some(prefix), None) => Included(prefix),
            (None, None) => Unbounded,
        };
        let mut names = Vec::new();
        for shard in &self.shards {
            let objects = shard.read();
            let found = objects
                .range::<ObjectName, _>((start, Unbounded))
                .take_while(|(name, _)| name.as_str().starts_with(prefix))
                .filter(|(_, object)| object.exists())
                .map(|(name, _)| name.clone());
            names.extend(found.take(names_max.saturating_add(1)));
        }
        names.sort_unstable();
        let more = names.len() > names_max;
        names.truncate(names_max);
        ListPage { names, more }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("capabilities", &self.capabilities)
            .field("operations", &self.operations())
            .finish_non_exhaustive()
    }
}

impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        let outcome = self.read_now(&read);
        let len_bytes = outcome.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.counters.reads.start(len_bytes);
        self.finish(outcome)
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        self.counters.start_write(&write);
        let outcome = self.write_now(&write);
        self.finish(outcome)
    }

    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.counters.discards.start(range.len());
        self.change(&object, |object| object.discard(range));
        self.finish(Ok(()))
    }

    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        bump(&self.counters.truncates);
        if size_bytes > OFFSET_BYTES_MAX {
            let operation = "sizes past the last offset";
            return self.finish(Err(BackendError::Unsupported { operation }));
        }
        self.change(&object, |object| object.truncate(size_bytes));
        self.finish(Ok(()))
    }

    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        bump(&self.counters.removes);
        let outcome = self.remove_now(&object);
        self.finish(outcome)
    }

    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        bump(&self.counters.stats);
        let size_bytes = self.shard(&object).and_then(|shard| {
            let objects = shard.read();
            objects.get(&object).and_then(Object::size_bytes)
        });
        let stat = size_bytes.map(|size_bytes| ObjectStat { size_bytes });
        self.finish(stat.ok_or(BackendError::NotFound))
    }

    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        bump(&self.counters.lists);
        let page = self.list_now(&prefix, after.as_ref(), names_max);
        self.finish(Ok(page))
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        bump(&self.counters.syncs);
        self.finish(Ok(()))
    }

    fn may_copy_on_write(&self, object: &ObjectName, _range: ByteRange, _snap: SnapId) -> bool {
        self.copy_on_write.unwrap_or_else(|| {
            let parent = self.parent.as_ref();
            parent.is_some_and(|parent| parent.holds(object)) && !self.holds(object)
        })
    }

    fn journal(&self, notice: JournalNotice) {
        bump(&self.counters.journal_notices);
        self.notices.lock().push(notice);
    }
}

#[cfg(test)]
pub(super) mod fuzz;
#[cfg(all(fuzzing, not(test)))]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;

//! Counts what is asked of a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use serde::{Deserialize, Serialize};

use super::operation::{AnswerFuture, Decorator, Operation};
use super::{Backend, BackendWrite, JournalNotice};

/// A decorator that counts and changes nothing.
#[derive(Debug)]
pub struct CountingBackend {
    inner: Arc<dyn Backend>,
    counters: Arc<Counters>,
}

impl CountingBackend {
    /// Counts what is asked of `inner` through this one.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        let counters = Arc::default();
        Self { inner, counters }
    }

    /// What was asked so far.
    #[must_use]
    pub fn operations(&self) -> OperationCounts {
        self.counters.load()
    }
}

impl Decorator for CountingBackend {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        self.counters.start(&operation);
        let counters = Arc::clone(&self.counters);
        let counted = operation
            .start(&*self.inner)
            .inspect(move |answer| match answer {
                Ok(answer) => counters.reads.add_bytes(answer.len_bytes()),
                Err(_) => bump(&counters.errors),
            });
        counted.boxed()
    }

    fn notice(&self, notice: JournalNotice) {
        bump(&self.counters.journal_notices);
        self.inner.journal(notice);
    }
}

/// How often something was done, and to how many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OperationCount {
    /// Operations started.
    pub operations: u64,
    /// Their bytes: answered by reads, sent by writes, named by discards.
    pub bytes: u64,
}

/// What was asked of a backend since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OperationCounts {
    /// Reads.
    pub reads: OperationCount,
    /// Writes.
    pub writes: OperationCount,
    /// Runs within the writes.
    pub write_runs: u64,
    /// Discards.
    pub discards: OperationCount,
    /// Truncates.
    pub truncates: u64,
    /// Removes.
    pub removes: u64,
    /// Stats.
    pub stats: u64,
    /// Listings.
    pub lists: u64,
    /// Syncs.
    pub syncs: u64,
    /// Journal notices.
    pub journal_notices: u64,
    /// Operations answered with an error.
    pub errors: u64,
}

/// The live form of [`OperationCounts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: Counter,
    pub(crate) writes: Counter,
    pub(crate) write_runs: AtomicU64,
    pub(crate) discards: Counter,
    pub(crate) truncates: AtomicU64,
    pub(crate) removes: AtomicU64,
    pub(crate) stats: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) journal_notices: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// The live form of [`OperationCount`].
#[derive(Debug, Default)]
pub(crate) struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// Counts one operation.
    pub(crate) fn start(&self, bytes: u64) {
        bump(&self.operations);
        self.add_bytes(bytes);
    }

    /// Counts bytes of an operation that was counted already.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn load(&self) -> OperationCount {
        OperationCount {
            operations: self.operations.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Adds one.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Counts an operation; the bytes of a read are known only with its answer.
    fn start(&self, operation: &Operation) {
        match operation {
            Operation::Read(_) => self.reads.start(0),
            Operation::Write(write) => self.start_write(write),
            Operation::Discard { range, .. } => self.discards.start(range.len()),
            Operation::Truncate { .. } => bump(&self.truncates),
            Operation::Remove(_) => bump(&self.removes),
            Operation::Stat(_) => bump(&self.stats),
            Operation::List { .. } => bump(&self.lists),
            Operation::Sync => bump(&self.syncs),
        }
    }

    pub(crate) fn start_write(&self, write: &BackendWrite) {
        self.writes.start(write.len_bytes());
        self.write_runs
            .fetch_add(write.runs.len() as u64, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> OperationCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OperationCounts {
            reads: self.reads.load(),
            writes: self.writes.load(),
            write_runs: of(&self.write_runs),
            discards: self.discards.load(),
            truncates: of(&self.truncates),
            removes: of(&self.removes),
            stats: of(&self.stats),
            lists: of(&self.lists),
            syncs: of(&self.syncs),
            journal_notices: of(&self.journal_notices),
            errors: of(&self.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{MemoryBackend, contract};

    /// L-04
    #[tokio::test]
    async fn the_decorator_counts_as_the_store_does() -> Result<(), contract::Violations> {
        let memory = Arc::new(MemoryBackend::new());
        let counting = Arc::new(CountingBackend::new(Arc::clone(&memory) as _));
        contract::check(async || Arc::clone(&counting) as _).await?;
        let counts = counting.operations();
        assert_eq!(counts, memory.operations());
        assert!(counts.write_runs > counts.writes.operations);
        assert!(counts.reads.bytes > 0 && counts.discards.bytes > 0 && counts.errors > 0);
        assert_eq!(counts.journal_notices, 2);
        Ok(())
    }
}

//! Counts what is asked of a backend.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

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
    pub(crate) fn add_write_runs(&self, runs: usize) {
        self.write_runs.fetch_add(runs as u64, Ordering::Relaxed);
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

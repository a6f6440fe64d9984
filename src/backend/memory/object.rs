//! One object of the store in memory: its head, the clones its snapshots see, its truncation.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::sparse::SparseBytes;
use crate::backend::BackendWrite;
use crate::error::BackendError;
use crate::types::{ByteRange, SnapContext, SnapId, Truncation};

/// What the object holds at one time.
#[derive(Clone, Debug, Default)]
struct Version {
    bytes: SparseBytes,
    /// The number of the last truncation applied.
    truncation_seq: u64,
}

/// What the head held when some snapshots were taken.
#[derive(Debug)]
struct SnapClone {
    /// The oldest snapshot that sees it; the newest is its key.
    oldest: u64,
    version: Version,
}

/// An object; without a head it is absent, though snapshots may still see it.
#[derive(Debug, Default)]
pub(super) struct Object {
    head: Option<Version>,
    /// By the newest snapshot that sees each.
    clones: BTreeMap<u64, SnapClone>,
    /// The newest snapshot context that the object was written under.
    snap_seq: u64,
}

impl Object {
    pub(super) const fn exists(&self) -> bool {
        self.head.is_some()
    }

    pub(super) fn size_bytes(&self) -> Option<u64> {
        self.head_bytes().map(SparseBytes::len)
    }

    pub(super) fn head_bytes(&self) -> Option<&SparseBytes> {
        self.head.as_ref().map(|version| &version.bytes)
    }

    pub(super) fn held_bytes(&self) -> u64 {
        let clones = self.clones.values().map(|clone| &clone.version);
        let versions = self.head.iter().chain(clones);
        versions.map(|version| version.bytes.held_bytes()).sum()
    }

    pub(super) fn read(
        &self,
        snap: SnapId,
        range: ByteRange,
        truncation: Truncation,
    ) -> Result<Bytes, BackendError> {
        let version = self.version_at(snap).ok_or(BackendError::NotFound)?;
        let end = if truncation.seq > version.truncation_seq {
            range.end().min(truncation.size_bytes)
        } else {
            range.end()
        };
        match ByteRange::between(range.start(), end) {
            Some(range) => version.bytes.read(range),
            None => Ok(Bytes::new()),
        }
    }

    fn version_at(&self, snap: SnapId) -> Option<&Version> {
        match snap.number() {
            Some(number) if number <= self.snap_seq => {
                let (_, clone) = self.clones.range(number..).next()?;
                (clone.oldest <= number).then_some(&clone.version)
            }
            Some(_) | None => self.head.as_ref(),
        }
    }

    /// Stores a write; a head that it creates starts from `copied_up`.
    pub(super) fn write(&mut self, write: &BackendWrite, copied_up: Option<SparseBytes>) {
        self.keep_clone(&write.context);
        let head = self.head.get_or_insert_with(|| Version {
            bytes: copied_up.unwrap_or_default(),
            truncation_seq: 0,
        });
        if write.truncation.seq > head.truncation_seq {
            head.truncation_seq = write.truncation.seq;
            if write.truncation.size_bytes < head.bytes.len() {
                head.bytes.set_len(write.truncation.size_bytes);
            }
        }
        for run in &write.runs {
            let mut offset = run.offset;
            for buffer in &run.buffers {
                head.bytes.write(offset, buffer);
                offset += buffer.len() as u64;
            }
        }
    }

    /// Keeps the head for the snapshots that were taken since the last write.
    fn keep_clone(&mut self, context: &SnapContext) {
        if context.seq <= self.snap_seq {
            return;
        }
        let newer = context.snaps.iter().filter(|snap| **snap > self.snap_seq);
        if let Some(head) = &self.head
            && let Some(newest) = newer.clone().max()
            && let Some(oldest) = newer.min()
        {
            let (newest, oldest) = (*newest, *oldest);
            let version = head.clone();
            self.clones.insert(newest, SnapClone { oldest, version });
        }
        self.snap_seq = context.seq;
    }

    pub(super) fn discard(&mut self, range: ByteRange) {
        if let Some(head) = &mut self.head {
            head.bytes.zero(range);
        }
    }

    pub(super) fn truncate(&mut self, size_bytes: u64) {
        if let Some(head) = &mut self.head {
            head.bytes.set_len(size_bytes);
        }
    }

    /// Makes the object absent; tells whether nothing is left that a snapshot could see.
    pub(super) fn remove(&mut self) -> bool {
        self.head = None;
        self.clones.is_empty()
    }
}

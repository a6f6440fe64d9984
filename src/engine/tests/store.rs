//! The store beneath the tests: objects as plain bytes, changed at once.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::BackendError;
use crate::io::{BackendRead, BackendWrite};
use crate::types::{ObjectName, Truncation};

#[derive(Clone, Debug, Default)]
struct Stored {
    bytes: Vec<u8>,
    truncation_seq: u64,
}

impl Stored {
    fn cut(&mut self, truncation: Truncation) {
        if truncation.seq > self.truncation_seq {
            self.truncation_seq = truncation.seq;
            let size = usize::try_from(truncation.size_bytes).unwrap();
            self.bytes.truncate(size);
        }
    }
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<ObjectName, Stored>,
    /// What an object's first write copies before it changes anything.
    parents: BTreeMap<ObjectName, Vec<u8>>,
}

impl Store {
    pub(super) fn insert(&mut self, name: ObjectName, bytes: Vec<u8>) {
        let stored = Stored {
            bytes,
            truncation_seq: 0,
        };
        self.objects.insert(name, stored);
    }

    pub(super) fn insert_parent(&mut self, name: ObjectName, bytes: Vec<u8>) {
        self.parents.insert(name, bytes);
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&[u8]> {
        self.objects.get(name).map(|stored| stored.bytes.as_slice())
    }

    /// A byte of an object as a reader sees it who knows of a truncation; zero where there is none.
    pub(super) fn byte(&self, name: &ObjectName, at: u64, truncation: Truncation) -> u8 {
        let Some(stored) = self.objects.get(name) else {
            return 0;
        };
        if truncation.seq > stored.truncation_seq && at >= truncation.size_bytes {
            return 0;
        }
        let at = usize::try_from(at).unwrap();
        stored.bytes.get(at).copied().unwrap_or(0)
    }

    /// The answer is short at the end of the object.
    pub(super) fn read(&self, read: &BackendRead) -> Result<Bytes, BackendError> {
        let stored = self
            .objects
            .get(&read.object)
            .ok_or(BackendError::NotFound)?;
        let mut end = stored.bytes.len() as u64;
        if read.truncation.seq > stored.truncation_seq {
            end = end.min(read.truncation.size_bytes);
        }
        let start = read.range.start().min(end);
        let end = read.range.end().min(end);
        let (start, end) = (start as usize, end as usize);
        Ok(Bytes::copy_from_slice(&stored.bytes[start..end]))
    }

    pub(super) fn write(&mut self, write: &BackendWrite) {
        self.write_runs(write, write.runs.len());
    }

    /// Stores only the first runs, as a write that failed halfway may have done.
    pub(super) fn write_runs(&mut self, write: &BackendWrite, runs: usize) {
        let parent = self.parents.get(&write.object).cloned();
        let stored = self
            .objects
            .entry(write.object.clone())
            .or_insert_with(|| Stored {
                bytes: parent.unwrap_or_default(),
                truncation_seq: 0,
            });
        stored.cut(write.truncation);
        for run in write.runs.iter().take(runs) {
            let mut at = usize::try_from(run.offset).unwrap();
            for buffer in &run.buffers {
                let end = at + buffer.len();
                if stored.bytes.len() < end {
                    stored.bytes.resize(end, 0);
                }
                stored.bytes[at..end].copy_from_slice(buffer);
                at = end;
            }
        }
    }

    /// Makes a range zeros without growing the object.
    pub(super) fn discard(&mut self, name: &ObjectName, start: u64, end: u64) {
        if let Some(stored) = self.objects.get_mut(name) {
            let len = stored.bytes.len();
            let (start, end) = (start as usize, end as usize);
            stored.bytes[start.min(len)..end.min(len)].fill(0);
        }
    }

    /// Carries out a truncation of the file, as its owner does before the next one.
    pub(super) fn cut(&mut self, name: &ObjectName, truncation: Truncation) {
        if let Some(stored) = self.objects.get_mut(name) {
            stored.cut(truncation);
        }
    }

    pub(super) fn truncate(&mut self, name: &ObjectName, size: u64) {
        if let Some(stored) = self.objects.get_mut(name) {
            let size = usize::try_from(size).unwrap();
            stored.bytes.truncate(size);
        }
    }
}

//! The cache as the commands use it: the one place that calls its interface.

#![expect(clippy::unused_async, reason = "the calls of a cache wait")]
use std::sync::Arc;

use bytes::Bytes;
use cachalot::backend::Backend;
use cachalot::{CacheConfig, Layout};

use crate::error::CliError;
use crate::striped::StripedFile;

/// A running cache over a store.
#[derive(Debug)]
pub(crate) struct Session {
    backend: Arc<dyn Backend>,
}

impl Session {
    /// Starts a cache.
    pub(crate) fn start(backend: Arc<dyn Backend>, config: &CacheConfig) -> Result<Self, CliError> {
        cachalot::Limits::try_from(config)?;
        Ok(Self { backend })
    }

    /// Opens a file of at most `file_bytes` bytes whose objects are called `prefix` with a dot and their number.
    pub(crate) async fn open(
        &self,
        _name: &str,
        prefix: &str,
        layout: Layout,
        _file_bytes: u64,
    ) -> Result<CachedFile, CliError> {
        Ok(CachedFile {
            file: StripedFile::new(Arc::clone(&self.backend), prefix, layout),
        })
    }

    /// Nothing to tell.
    pub(crate) async fn listing(&self) -> Result<String, CliError> {
        Ok(String::new())
    }
    /// Nothing to tell.
    pub(crate) async fn status(&self) -> Result<String, CliError> {
        Ok(String::new())
    }
    /// Nothing to tell.
    pub(crate) async fn hits_and_misses(&self) -> Result<(u64, u64), CliError> {
        Ok((0, 0))
    }

    /// Ends the cache after the work on it: with everything written back when that went well, at once otherwise.
    pub(crate) async fn close_after<T>(self, work: Result<T, CliError>) -> Result<T, CliError> {
        work
    }
}

/// A file whose reads and writes go through the cache.
#[derive(Clone, Debug)]
pub(crate) struct CachedFile {
    file: StripedFile,
}

impl CachedFile {
    /// Reads `len` bytes; what was never written is zeros.
    pub(crate) async fn read(&self, offset: u64, len: u64) -> Result<Bytes, CliError> {
        self.file.read(offset, len).await
    }

    /// Reads `len` bytes and looks at none of them.
    pub(crate) async fn read_only(&self, offset: u64, len: u64) -> Result<(), CliError> {
        self.file.read(offset, len).await.map(drop)
    }

    /// Writes `data`.
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> Result<(), CliError> {
        self.file.write(offset, data).await
    }

    /// Waits until everything written so far is in the store.
    pub(crate) async fn flush(&self) -> Result<(), CliError> {
        Ok(())
    }
}

//! A volume as the gateway exports it: through the cache, safe on the store's disks where the client asks for that.

use std::sync::Arc;

use bytes::Bytes;
use cachalot::backend::Backend;
use cachalot::{BackendError, ByteRange, CacheError, Layout, ObjectName, ObjectSet, Piece};
use cachalot_nbd::wire::NbdError;
use cachalot_nbd::{Export, Pieces, Status, ZeroHow};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

/// How many bytes of zeros are written at once.
const ZEROS: &[u8] = &[0; 256 << 10];
/// How many of a store's calls for one request are under way at once.
const CALLS_IN_FLIGHT: usize = 16;
/// How many objects the answer about a range tells of; the client asks again for the rest.
const OBJECTS_TOLD: usize = 1024;
/// The block size that clients are told to prefer.
const PREFERRED_BLOCK: u32 = 4096;

/// A volume.
#[derive(Debug)]
pub(crate) struct VolumeExport {
    pub(crate) set: ObjectSet,
    pub(crate) backend: Arc<dyn Backend>,
    /// The volume's name, which its objects' names begin with.
    pub(crate) name: String,
    pub(crate) layout: Layout,
    pub(crate) size_bytes: u64,
    pub(crate) is_read_only: bool,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
fn of_store(error: &BackendError) -> NbdError {
    match error {
        BackendError::Full => NbdError::NoSpace,
        BackendError::ReadOnly | BackendError::PermissionDenied => NbdError::NotPermitted,
        BackendError::Unsupported { .. } => NbdError::NotSupported,
        BackendError::Fenced => NbdError::Shutdown,
        _ => NbdError::Io,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::needless_pass_by_value,
    reason = "the library's errors are open-ended; for `map_err`"
)]
fn of_cache(error: CacheError) -> NbdError {
    match &error {
        CacheError::InvalidRequest(_) => NbdError::Invalid,
        CacheError::Read { source, .. }
        | CacheError::WriteBack { source, .. }
        | CacheError::Backend(source) => of_store(source),
        CacheError::Fenced { .. } | CacheError::Closed { .. } => NbdError::Shutdown,
        _ => NbdError::Io,
    }
}

impl VolumeExport {
    fn runs(&self, offset: u64, len: u64) -> Result<Vec<(ObjectName, ByteRange)>, NbdError> {
        let range = ByteRange::new(offset, len).map_err(|_refused| NbdError::Invalid)?;
        let name = |run: cachalot::Run| {
            ObjectName::new(format!("{}.{:016x}", self.name, run.object))
                .map(|name| (name, run.range))
        };
        let runs = self.layout.runs(range).map(name);
        runs.collect::<Result<_, _>>()
            .map_err(|_refused| NbdError::Invalid)
    }

    async fn sync(&self) -> Result<(), NbdError> {
        self.backend.sync().await.map_err(|error| of_store(&error))
    }

    /// Makes a range zeros in the store. Nothing of it is in the cache then: what a read brought in meanwhile is
    /// dropped as well.
    async fn discard(&self, offset: u64, len: u64) -> Result<(), NbdError> {
        let dropped = self.set.discard_range(offset, len).await;
        dropped.map_err(of_cache)?;
        let runs = self.runs(offset, len)?;
        let done = stream::iter(runs)
            .map(|(object, range)| self.backend.discard(object, range))
            .buffer_unordered(CALLS_IN_FLIGHT)
            .try_collect::<()>()
            .await;
        done.map_err(|error| of_store(&error))?;
        let dropped = self.set.discard_range(offset, len).await;
        dropped.map_err(of_cache)
    }

    async fn write_zeros(&self, offset: u64, len: u64) -> Result<(), NbdError> {
        let mut at = offset;
        while at < offset + len {
            let step = (offset + len - at).min(ZEROS.len() as u64);
            let zeros =
                Bytes::from_static(ZEROS).slice(..usize::try_from(step).unwrap_or_default());
            self.set.write_at(at, zeros).await.map_err(of_cache)?;
            at += step;
        }
        Ok(())
    }

    async fn statuses(&self, offset: u64, len: u64) -> Result<Vec<Status>, NbdError> {
        // What is only in the cache is nothing that the store could tell of.
        let flushed = self.set.flush_range(offset, len).await;
        flushed.map_err(of_cache)?;
        let mut runs = self.runs(offset, len)?;
        runs.truncate(OBJECTS_TOLD);
        let mut told = stream::iter(runs)
            .map(
                async |(object, range)| match self.backend.stat(object).await {
                    Ok(stat) => Ok((range, stat.size_bytes)),
                    Err(BackendError::NotFound) => Ok((range, 0)),
                    Err(error) => Err(of_store(&error)),
                },
            )
            .buffered(CALLS_IN_FLIGHT);
        let mut statuses: Vec<Status> = Vec::new();
        while let Some(run) = told.next().await {
            let (range, size_bytes) = run?;
            let data = size_bytes.saturating_sub(range.start()).min(range.len());
            for (len, is_hole) in [(data, false), (range.len() - data, true)] {
                match statuses.last_mut() {
                    _ if len == 0 => {}
                    Some(last) if last.is_hole == is_hole => last.len += len,
                    Some(_) | None => statuses.push(Status { len, is_hole }),
                }
            }
        }
        Ok(statuses)
    }
}

impl Export for VolumeExport {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn preferred_block(&self) -> u32 {
        PREFERRED_BLOCK
    }

    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Pieces, NbdError>> {
        async move {
            let read = self.set.read_at(offset, len).await.map_err(of_cache)?;
            Ok(read
                .pieces()
                .iter()
                .cloned()
                .map(Piece::into_bytes)
                .collect())
        }
        .boxed()
    }

    fn write(
        &self,
        offset: u64,
        data: Bytes,
        durable: bool,
    ) -> BoxFuture<'_, Result<(), NbdError>> {
        async move {
            let len = data.len() as u64;
            self.set.write_at(offset, data).await.map_err(of_cache)?;
            if durable {
                let flushed = self.set.flush_range(offset, len).await;
                flushed.map_err(of_cache)?;
                self.sync().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), NbdError>> {
        async move {
            self.set.flush().await.map_err(of_cache)?;
            if self.is_read_only {
                return Ok(());
            }
            self.sync().await
        }
        .boxed()
    }

    fn trim(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>> {
        self.zero(offset, len, ZeroHow::default())
    }

    fn zero(&self, offset: u64, len: u64, how: ZeroHow) -> BoxFuture<'_, Result<(), NbdError>> {
        async move {
            if how.no_hole {
                if how.fast_only {
                    return Err(NbdError::NotSupported);
                }
                return self.write_zeros(offset, len).await;
            }
            match self.discard(offset, len).await {
                Err(NbdError::NotSupported) if !how.fast_only => {
                    self.write_zeros(offset, len).await
                }
                done => done,
            }
        }
        .boxed()
    }

    fn cache(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>> {
        async move { self.set.prefetch_at(offset, len).await.map_err(of_cache) }.boxed()
    }

    fn status(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Vec<Status>, NbdError>> {
        self.statuses(offset, len).boxed()
    }
}

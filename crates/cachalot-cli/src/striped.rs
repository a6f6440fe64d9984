//! A striped file straight over the store, without a cache.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cachalot::backend::Backend;
use cachalot::{BackendError, ByteRange, Layout, ObjectName, ObjectRuns};
use futures::future::{BoxFuture, FutureExt, TryFutureExt, try_join_all};

use crate::error::CliError;
use crate::store::{object_name, read_object, write_object, zeros};

/// A file whose every read and write is the store's.
#[derive(Clone, Debug)]
pub(crate) struct StripedFile {
    backend: Arc<dyn Backend>,
    prefix: Arc<str>,
    layout: Layout,
}

impl StripedFile {
    /// The file whose objects are called `prefix` with a dot and their number.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        prefix: impl Into<Arc<str>>,
        layout: Layout,
    ) -> Self {
        Self {
            backend,
            prefix: prefix.into(),
            layout,
        }
    }

    /// Reads `len` bytes; what was never written is zeros.
    pub(crate) async fn read(&self, offset: u64, len: u64) -> Result<Bytes, CliError> {
        let extents = self.layout.extents(ByteRange::new(offset, len)?);
        let reads = extents.iter().map(|extent| self.read_extent(extent));
        let parts = try_join_all(reads).await?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match parts.as_slice() {
            [whole] if whole.len() == len => return Ok(whole.clone()),
            [] => return Ok(zeros(len)),
            _ => {}
        }
        let mut joined = BytesMut::zeroed(len);
        for (extent, mut part) in extents.iter().zip(parts) {
            for place in &extent.places {
                let start = usize::try_from(place.offset).unwrap_or(usize::MAX);
                let piece = part.split_to(part.len().min(clamped(place.len)));
                if let Some(target) = joined.get_mut(start..start.saturating_add(piece.len())) {
                    target.copy_from_slice(&piece);
                }
            }
        }
        Ok(joined.freeze())
    }

    /// Writes `data`.
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> Result<(), CliError> {
        let extents = self
            .layout
            .extents(ByteRange::new(offset, data.len() as u64)?);
        let writes = extents.into_iter().map(|extent| {
            let pieces = extent.places.iter().map(|place| {
                let start = clamped(place.offset).min(data.len());
                let end = start.saturating_add(clamped(place.len)).min(data.len());
                data.slice(start..end)
            });
            self.write_extent(&extent, pieces.collect())
        });
        try_join_all(writes).await?;
        Ok(())
    }

    /// Removes the objects numbered below `objects`.
    pub(crate) async fn remove(&self, objects: u64) -> Result<(), CliError> {
        for number in 0..objects {
            let object = self.object(number)?;
            match self.backend.remove(object.clone()).await {
                Ok(()) | Err(BackendError::NotFound) => {}
                Err(error) => {
                    return Err(CliError::store(format!("remove object {object}"))(error));
                }
            }
        }
        Ok(())
    }

    fn object(&self, number: u64) -> Result<ObjectName, CliError> {
        object_name(format!("{}.{number:016x}", self.prefix))
    }

    fn read_extent(&self, extent: &ObjectRuns) -> BoxFuture<'_, Result<Bytes, CliError>> {
        let (object, range) = (self.object(extent.object), extent.range);
        async move {
            let object = object?;
            let bytes = read_object(&*self.backend, object.clone(), range)
                .await
                .map_err(CliError::store(format!("read object {object}")))?;
            Ok(bytes.unwrap_or_default())
        }
        .boxed()
    }

    fn write_extent(
        &self,
        extent: &ObjectRuns,
        pieces: Vec<Bytes>,
    ) -> BoxFuture<'_, Result<(), CliError>> {
        let (object, offset) = (self.object(extent.object), extent.range.start());
        async move {
            let object = object?;
            write_object(&*self.backend, object.clone(), offset, pieces)
                .map_err(CliError::store(format!("write object {object}")))
                .await
        }
        .boxed()
    }
}

fn clamped(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

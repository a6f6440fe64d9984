//! A striped file straight over the store, without a cache.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cachalot::backend::Backend;
use cachalot::{BackendError, ByteRange, Layout, ObjectName, ObjectRuns, Place};
use futures::future::try_join_all;

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
        let parts = match extents.as_slice() {
            [extent] => vec![self.read_extent(extent).await?],
            _ => try_join_all(extents.iter().map(|extent| self.read_extent(extent))).await?,
        };
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
        if let [extent] = extents.as_slice() {
            return self.write_extent(extent, pieces_of(&data, extent)).await;
        }
        let writes = extents
            .iter()
            .map(|extent| self.write_extent(extent, pieces_of(&data, extent)));
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

    async fn read_extent(&self, extent: &ObjectRuns) -> Result<Bytes, CliError> {
        let object = self.object(extent.object)?;
        let bytes = read_object(&*self.backend, object, extent.range)
            .await
            .map_err(|source| self.failed("read", extent.object, source))?;
        Ok(bytes.unwrap_or_default())
    }

    async fn write_extent(&self, extent: &ObjectRuns, pieces: Vec<Bytes>) -> Result<(), CliError> {
        let object = self.object(extent.object)?;
        write_object(&*self.backend, object, extent.range.start(), pieces)
            .await
            .map_err(|source| self.failed("write", extent.object, source))
    }

    fn failed(&self, doing: &str, number: u64, source: BackendError) -> CliError {
        CliError::Store {
            doing: format!("{doing} object {}.{number:016x}", self.prefix),
            source,
        }
    }
}

/// The parts of a file range's data that go to one object, in its order.
fn pieces_of(data: &Bytes, extent: &ObjectRuns) -> Vec<Bytes> {
    let piece = |place: &Place| {
        let start = clamped(place.offset).min(data.len());
        let end = start.saturating_add(clamped(place.len)).min(data.len());
        data.slice(start..end)
    };
    extent.places.iter().map(piece).collect()
}

fn clamped(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use cachalot::backend::MemoryBackend;

    use super::*;

    #[tokio::test]
    async fn a_striped_file_reads_back_what_was_written_at_any_offset() {
        let layout = Layout::new(1000, 3, 4000).unwrap();
        let file = StripedFile::new(Arc::new(MemoryBackend::new()), "f", layout);
        let mut model = vec![0_u8; 60_000];
        let mut fill = 0_u8;
        for (offset, len) in [
            (0, 1),
            (999, 2),
            (5, 30_000),
            (41_234, 777),
            (12_000, 12_000),
        ] {
            fill += 1;
            model[offset..offset + len].fill(fill);
            let data = Bytes::from(vec![fill; len]);
            file.write(offset as u64, data).await.unwrap();
        }
        for (offset, len) in [
            (0, 60_000),
            (998, 5),
            (29_999, 20),
            (59_999, 1),
            (41_000, 5_000),
        ] {
            let read = file.read(offset as u64, len as u64).await.unwrap();
            assert!(read == model[offset..offset + len], "{len} at {offset}");
        }
    }
}

//! What the benchmark asks: the cache, a volume as the gateway serves it, or the bare store.

use std::sync::Arc;

use bytes::Bytes;
use cachalot_nbd::Export;
use futures::{StreamExt, TryStreamExt, stream};

use super::workload::{Op, OpKind, Workload};
use crate::cached::CachedFile;
use crate::error::CliError;
use crate::serve::VolumeExport;
use crate::striped::StripedFile;

/// How much is read at once to warm up.
const WARM_BYTES: u64 = 128 << 10;
/// How many such reads, and how many writes that prepare, are under way at once.
const IN_FLIGHT: usize = 8;

/// One file for each object set, or a volume.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Through the cache.
    Cache(Vec<CachedFile>),
    /// A volume, which is one set.
    Volume(Arc<VolumeExport>),
    /// Straight to the store.
    Direct(Vec<StripedFile>),
}

impl Target {
    /// Carries out one operation; `block` is what a write writes.
    pub(crate) async fn run(&self, op: Op, block: &Bytes) -> Result<(), CliError> {
        match op.kind {
            OpKind::Read => self.read(op.set, op.offset, block.len() as u64).await,
            OpKind::Write => self.write(op.set, op.offset, block).await,
        }
    }

    async fn read(&self, set: usize, offset: u64, len: u64) -> Result<(), CliError> {
        match self {
            Self::Cache(files) => match files.get(set) {
                Some(file) => file.read_only(offset, len).await,
                None => Ok(()),
            },
            Self::Volume(export) => {
                let read = export.read(offset, len).await;
                read.map(drop).map_err(export.failed_to("read"))
            }
            Self::Direct(files) => match files.get(set) {
                Some(file) => file.read(offset, len).await.map(drop),
                None => Ok(()),
            },
        }
    }

    async fn write(&self, set: usize, offset: u64, block: &Bytes) -> Result<(), CliError> {
        match self {
            Self::Cache(files) => match files.get(set) {
                Some(file) => file.write(offset, block.clone()).await,
                None => Ok(()),
            },
            Self::Volume(export) => {
                let written = export.write(offset, block.clone(), false).await;
                written.map_err(export.failed_to("write"))
            }
            Self::Direct(files) => match files.get(set) {
                Some(file) => file.write(offset, block.clone()).await,
                None => Ok(()),
            },
        }
    }

    /// Waits until everything written so far is in the store.
    pub(crate) async fn flush(&self) -> Result<(), CliError> {
        match self {
            Self::Cache(files) => {
                futures::future::try_join_all(files.iter().map(CachedFile::flush)).await?;
                Ok(())
            }
            Self::Volume(export) => export.flush().await.map_err(export.failed_to("flush")),
            Self::Direct(_) => Ok(()),
        }
    }

    /// Reads every set once, in order.
    pub(crate) async fn warm(
        &self,
        workload: &Workload,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), CliError> {
        let set_bytes = workload.set_bytes();
        let pieces = (0..workload.sets).flat_map(|set| {
            let starts = (0..set_bytes.div_ceil(WARM_BYTES)).map(|number| number * WARM_BYTES);
            starts.map(move |start| (set, start))
        });
        stream::iter(pieces)
            .take_while(|_| std::future::ready(goes_on()))
            .map(|(set, start)| self.read(set, start, (set_bytes - start).min(WARM_BYTES)))
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }
}

/// Writes every block of every set once, so that reads find something.
pub(crate) async fn prefill(
    files: &[StripedFile],
    workload: &Workload,
    goes_on: impl Fn() -> bool,
) -> Result<(), CliError> {
    const PIECE_BYTES: u64 = 1 << 20;
    let set_bytes = workload.set_bytes();
    let piece = Bytes::from(vec![0xA5; usize::try_from(PIECE_BYTES).unwrap_or(0)]);
    let pieces = files.iter().flat_map(|file| {
        let starts = (0..set_bytes.div_ceil(PIECE_BYTES)).map(|number| number * PIECE_BYTES);
        starts.map(move |start| (file, start))
    });
    stream::iter(pieces)
        .take_while(|_| std::future::ready(goes_on()))
        .map(|(file, start)| {
            let len = usize::try_from((set_bytes - start).min(PIECE_BYTES)).unwrap_or(0);
            file.write(start, piece.slice(..len))
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

//! The two things that the benchmark asks: the cache, and the bare store.

use bytes::Bytes;

use super::workload::{Op, OpKind, Workload};
use crate::cached::CachedFile;
use crate::error::CliError;
use crate::striped::StripedFile;

/// One file for each object set.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Through the cache.
    Cache(Vec<CachedFile>),
    /// Straight to the store.
    Direct(Vec<StripedFile>),
}

impl Target {
    /// Carries out one operation; `block` is what a write writes.
    pub(crate) async fn run(&self, op: Op, block: &Bytes) -> Result<(), CliError> {
        let len = block.len() as u64;
        match self {
            Self::Cache(files) => match (files.get(op.set), op.kind) {
                (Some(file), OpKind::Read) => file.read_only(op.offset, len).await,
                (Some(file), OpKind::Write) => file.write(op.offset, block.clone()).await,
                (None, _) => Ok(()),
            },
            Self::Direct(files) => match (files.get(op.set), op.kind) {
                (Some(file), OpKind::Read) => file.read(op.offset, len).await.map(drop),
                (Some(file), OpKind::Write) => file.write(op.offset, block.clone()).await,
                (None, _) => Ok(()),
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
            Self::Direct(_) => Ok(()),
        }
    }
}

/// Writes every block of every set once, so that reads find something.
pub(crate) async fn prefill(
    files: &[StripedFile],
    workload: &Workload,
    goes_on: impl Fn() -> bool,
) -> Result<(), CliError> {
    use futures::{StreamExt, TryStreamExt, stream};

    const PIECE_BYTES: u64 = 1 << 20;
    const IN_FLIGHT: usize = 8;
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

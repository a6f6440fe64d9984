//! A file or the standard input into a fresh volume.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cachalot::{CacheConfig, Clock, Layout, OFFSET_BYTES_MAX, SystemClock};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::sparse::{data_runs, next_data};
use super::{BLOCK_BYTES, BLOCKS_QUEUED, progress, summary};
use crate::cached::{CachedFile, Session};
use crate::cli::ImportArgs;
use crate::error::CliError;
use crate::output;
use crate::store::OpenFor;
use crate::volume::Volumes;

/// Where the bytes come from.
struct Input {
    path: PathBuf,
    kind: InputKind,
}

enum InputKind {
    /// A regular file: its size is known and its holes can be skipped.
    File { file: File, size_bytes: u64 },
    /// Anything that can only be read from front to end.
    Stream(Box<dyn Read + Send>),
}

/// A run of data and its place in the volume.
struct Chunk {
    offset: u64,
    data: Bytes,
}

/// Runs `cachalot import`.
pub(crate) async fn import(args: ImportArgs) -> Result<(), CliError> {
    let config = args.cache.config()?;
    let clock = SystemClock::new();
    let input = Input::open(&args.file)?;
    let planned = planned_size(&input, args.size)?;
    let layout = args.layout.layout()?;
    let volumes = Volumes::open(&args.store, OpenFor::Adding)?;
    let work = async |volumes: &Volumes| {
        Box::pin(import_into(
            volumes,
            &args,
            (input, planned, layout),
            &config,
        ))
        .await
    };
    let (size_bytes, data_bytes) = volumes
        .alone(&args.volume, args.lock.break_lock, work)
        .await?;
    if !args.quiet {
        let took = clock.now().since(cachalot::Moment::default());
        output::note(&summary("imported", size_bytes, data_bytes, took));
    }
    Ok(())
}

/// Makes the volume and fills it; returns its size, and how many bytes of it are data.
async fn import_into(
    volumes: &Volumes,
    args: &ImportArgs,
    (input, planned, layout): (Input, Option<u64>, Layout),
    config: &CacheConfig,
) -> Result<(u64, u64), CliError> {
    if args.overwrite {
        match volumes.remove(&args.volume).await {
            Ok(_) | Err(CliError::NoVolume { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let header = volumes
        .begin_import(&args.volume, planned.unwrap_or(0), layout)
        .await?;

    let session = Session::start(Arc::clone(volumes.backend()), config)?;
    let bar = progress(planned, args.quiet);
    let copied = copy_through(&session, args, input, planned, &bar).await;
    let (read_bytes, data_bytes) = session.close_after(copied).await?;
    let size_bytes = planned.unwrap_or(read_bytes);
    volumes.complete(&args.volume, &header, size_bytes).await?;
    bar.finish_and_clear();
    Ok((size_bytes, data_bytes))
}

/// The volume's size, where it is known before the data has been read.
fn planned_size(input: &Input, asked: Option<u64>) -> Result<Option<u64>, CliError> {
    match (&input.kind, asked) {
        (InputKind::File { size_bytes, .. }, Some(asked)) if asked < *size_bytes => {
            Err(CliError::Usage(format!(
                "{} has {size_bytes} bytes, more than --size {asked}: raise that or leave it out",
                input.path.display()
            )))
        }
        (InputKind::File { size_bytes, .. }, None) => Ok(Some(*size_bytes)),
        (_, asked) => Ok(asked),
    }
}

/// Copies everything through the cache into the store.
async fn copy_through(
    session: &Session,
    args: &ImportArgs,
    input: Input,
    planned: Option<u64>,
    bar: &ProgressBar,
) -> Result<(u64, u64), CliError> {
    let room = planned.unwrap_or(OFFSET_BYTES_MAX);
    let name = args.volume.as_str();
    let file = session
        .open(name, name, args.layout.layout()?, room)
        .await?;
    let work = async {
        let copied = copy(input, &file, room, args.in_flight, bar).await?;
        file.flush().await?;
        Ok(copied)
    };
    tokio::select! {
        copied = work => copied,
        error = file.failure() => Err(error),
    }
}

/// Copies everything, and returns how many bytes the input had and how many of them went to the volume.
async fn copy(
    input: Input,
    file: &CachedFile,
    room: u64,
    in_flight: usize,
    bar: &ProgressBar,
) -> Result<(u64, u64), CliError> {
    let (sender, receiver) = mpsc::channel(BLOCKS_QUEUED);
    let reader = tokio::task::spawn_blocking(move || input.send_to(&sender, room));
    let chunks = stream::unfold(receiver, async |mut receiver| {
        let chunk: Chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    let written = chunks
        .map(|chunk| async move {
            let (end, len) = (
                chunk.offset + chunk.data.len() as u64,
                chunk.data.len() as u64,
            );
            file.write(chunk.offset, chunk.data).await?;
            Ok::<(u64, u64), CliError>((end, len))
        })
        .buffer_unordered(in_flight)
        .try_fold(0, async |written: u64, (end, len)| {
            bar.set_position(bar.position().max(end));
            Ok(written + len)
        })
        .await;
    // A failed write comes first: it is why the reader was stopped.
    let written = written?;
    let read = reader
        .await
        .map_err(|error| CliError::Failed(format!("the reading thread failed: {error}")))??;
    Ok((read, written))
}

impl Input {
    fn open(path: &Path) -> Result<Self, CliError> {
        if path.as_os_str() == "-" {
            return Ok(Self {
                path: "the standard input".into(),
                kind: InputKind::Stream(Box::new(io::stdin())),
            });
        }
        let file = File::open(path).map_err(CliError::file("open", path))?;
        let metadata = file.metadata().map_err(CliError::file("look at", path))?;
        if metadata.is_dir() {
            return Err(CliError::Usage(format!(
                "{} is a directory: name a file, a device or - for the standard input",
                path.display()
            )));
        }
        let kind = if metadata.is_file() {
            InputKind::File {
                file,
                size_bytes: metadata.len(),
            }
        } else {
            InputKind::Stream(Box::new(file))
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
        })
    }

    /// Sends all data and returns the input's size; ends early when nobody takes it any more.
    fn send_to(self, chunks: &mpsc::Sender<Chunk>, room: u64) -> Result<u64, CliError> {
        let Self { path, kind } = self;
        match kind {
            InputKind::File { file, size_bytes } => {
                send_file(&file, size_bytes, chunks).map_err(CliError::file("read", &path))?;
                let size_after = file
                    .metadata()
                    .map_err(CliError::file("look at", &path))?
                    .len();
                if size_after != size_bytes {
                    return Err(CliError::Failed(format!(
                        "{} changed from {size_bytes} to {size_after} bytes while it was read: import it again with --overwrite",
                        path.display()
                    )));
                }
                Ok(size_bytes)
            }
            InputKind::Stream(mut stream) => {
                let size = send_stream(&mut *stream, room, chunks)
                    .map_err(CliError::file("read", &path))?;
                if size > room {
                    return Err(CliError::Failed(format!(
                        "{} has more than the {room} bytes of --size: import it again with --overwrite and a larger one",
                        path.display()
                    )));
                }
                Ok(size)
            }
        }
    }
}

fn send_file(file: &File, size_bytes: u64, chunks: &mpsc::Sender<Chunk>) -> io::Result<()> {
    let mut at = 0;
    let mut buffer = Vec::new();
    while let Some(data) = next_data(file, at, size_bytes)? {
        at = data.start;
        while at < data.end {
            // Blocks end where their multiples lie, so that no block meets more objects than it must.
            let block_end = (at / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64;
            let len = usize::try_from(block_end.min(data.end) - at).unwrap_or(BLOCK_BYTES);
            buffer.resize(len, 0);
            file.read_exact_at(&mut buffer, at)?;
            if send_block(chunks, at, &mut buffer).is_none() {
                return Ok(());
            }
            at += len as u64;
        }
    }
    Ok(())
}

/// Reads up to one byte past `room`, and returns how many there were.
fn send_stream(stream: &mut dyn Read, room: u64, chunks: &mpsc::Sender<Chunk>) -> io::Result<u64> {
    let mut at = 0;
    let mut buffer = Vec::new();
    while at < room {
        let wanted = (room - at).min(BLOCK_BYTES as u64);
        buffer.clear();
        buffer.reserve_exact(BLOCK_BYTES);
        let len = stream.take(wanted).read_to_end(&mut buffer)? as u64;
        if len == 0 || send_block(chunks, at, &mut buffer).is_none() {
            return Ok(at);
        }
        at += len;
    }
    Ok(at + stream.take(1).read(&mut [0])? as u64)
}

/// Sends what a block holds besides zeros; `None` when nobody takes it any more.
///
/// A block without zeros is handed on as it is; from others the data is copied, so that no chunk keeps more
/// memory than it has bytes.
fn send_block(chunks: &mpsc::Sender<Chunk>, at: u64, buffer: &mut Vec<u8>) -> Option<()> {
    for run in data_runs(buffer) {
        let offset = at + run.start as u64;
        let data = if run.len() == buffer.len() && buffer.len() == buffer.capacity() {
            Bytes::from(std::mem::take(buffer))
        } else {
            Bytes::copy_from_slice(buffer.get(run)?)
        };
        chunks.blocking_send(Chunk { offset, data }).ok()?;
    }
    Some(())
}

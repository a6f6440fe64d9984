//! A volume into a file or the standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cachalot::{ByteRange, Clock, Layout, SystemClock};
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::sparse::data_runs;
use super::{BLOCK_BYTES, BLOCKS_QUEUED, progress, summary};
use crate::cached::{CachedFile, Session};
use crate::cli::ExportArgs;
use crate::error::CliError;
use crate::output;
use crate::store::OpenFor;
use crate::volume::{Header, VolumeName, Volumes, require_complete};

/// Where the bytes go.
#[derive(Debug)]
enum Output {
    /// A new file, which gets its name when it is whole, and vanishes if it does not get that far.
    File {
        hidden: NamedTempFile,
        path: PathBuf,
        replace: bool,
    },
    /// A device that keeps its size: zeros are written there too.
    Device { file: File, path: PathBuf },
    /// Anything that takes bytes only in order.
    Stream { file: File, path: PathBuf },
    /// The standard output.
    Stdout,
}

/// The writing side of an [`Output`].
enum Sink {
    /// Holes may be left.
    Sparse(File),
    /// Every byte is written, then synced.
    Device(File),
    /// Every byte is written.
    Stream(Box<dyn Write + Send>),
}

/// What the reading side tells the writing side.
enum Message {
    /// The next block; those left out hold zeros.
    Block { offset: u64, data: Bytes },
    /// That was all.
    End,
}

/// The writing side's end of the queue.
struct Blocks {
    receiver: mpsc::Receiver<Message>,
}

impl Blocks {
    /// The next block, `None` behind the last, an error when the reading side gave up before that.
    fn next(&mut self) -> io::Result<Option<(u64, Bytes)>> {
        match self.receiver.blocking_recv() {
            Some(Message::Block { offset, data }) => Ok(Some((offset, data))),
            Some(Message::End) => Ok(None),
            None => Err(io::Error::other("the volume was not read to its end")),
        }
    }
}

/// Runs `cachalot export`.
pub(crate) async fn export(args: ExportArgs) -> Result<(), CliError> {
    let config = args.cache.config()?;
    let clock = SystemClock::new();
    let volumes = Volumes::open(&args.store, OpenFor::Reading)?;
    let header = volumes.load(&args.volume).await?;
    if !args.incomplete {
        require_complete(&args.volume, &header)?;
    }
    let output = Output::open(&args.file, args.overwrite)?;
    let numbers = volumes.data_numbers(&args.volume).await?;

    let session = Session::start(Arc::clone(volumes.backend()), &config)?;
    let size_bytes = header.size_bytes;
    let bar = progress(Some(size_bytes), args.quiet);
    let (sender, receiver) = mpsc::channel(BLOCKS_QUEUED);
    let blocks = Blocks { receiver };
    let sink = output.sink()?;
    let writer = tokio::task::spawn_blocking(move || sink.receive(blocks, size_bytes));
    let reading = read_all(
        &session,
        &args.volume,
        &header,
        &numbers,
        (&sender, &bar, args.in_flight),
    );
    let read = reading.await;
    drop(sender);
    session.close_after(read).await?;
    let data_bytes = writer
        .await
        .map_err(|error| CliError::Failed(format!("the writing thread failed: {error}")))?
        .map_err(CliError::file("write to", output.path()))?;
    output.finish(size_bytes)?;
    bar.finish_and_clear();
    if !args.quiet {
        let took = clock.now().since(cachalot::Moment::default());
        output::note(&summary("exported", size_bytes, data_bytes, took));
    }
    Ok(())
}

/// Reads the blocks that exist through the cache, and hands them to the writing side in order.
async fn read_all(
    session: &Session,
    name: &VolumeName,
    header: &Header,
    numbers: &[u64],
    (to, bar, in_flight): (&mpsc::Sender<Message>, &ProgressBar, usize),
) -> Result<(), CliError> {
    let name = name.as_str();
    let file = session
        .open(name, name, header.layout, header.size_bytes)
        .await?;
    let mut reads = stream::iter(present_blocks(&header.layout, numbers, header.size_bytes))
        .map(|range| read_block(&file, range))
        .buffered(in_flight);
    while let Some(read) = reads.next().await {
        let (range, data) = read?;
        bar.set_position(range.end());
        let block = Message::Block {
            offset: range.start(),
            data,
        };
        if to.send(block).await.is_err() {
            // The writer has gone, and says itself why.
            return Ok(());
        }
    }
    to.send(Message::End).await.unwrap_or_default();
    Ok(())
}

async fn read_block(file: &CachedFile, range: ByteRange) -> Result<(ByteRange, Bytes), CliError> {
    Ok((range, file.read(range.start(), range.len()).await?))
}

/// The blocks of the volume that meet an object which exists, ascending. `numbers` are those objects', ascending.
///
/// The objects that are filled abreast cover one stretch of the volume: only the stretches of objects that exist are
/// walked, however large the volume is.
fn present_blocks(
    layout: &Layout,
    numbers: &[u64],
    size_bytes: u64,
) -> impl Iterator<Item = ByteRange> {
    let abreast = u64::from(layout.stripe_count());
    let stretch_bytes = layout.object_size().saturating_mul(abreast);
    let mut stretches: Vec<u64> = numbers.iter().map(|number| number / abreast).collect();
    stretches.dedup();
    stretches
        .into_iter()
        .filter_map(move |stretch| {
            let start = stretch.checked_mul(stretch_bytes)?;
            ByteRange::between(start, start.saturating_add(stretch_bytes).min(size_bytes))
        })
        .flat_map(blocks_of)
        .filter(move |block| {
            layout
                .runs(*block)
                .any(|run| numbers.binary_search(&run.object).is_ok())
        })
}

/// A range cut at the multiples of the block size.
fn blocks_of(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let mut at = range.start();
    std::iter::from_fn(move || {
        let next = (at / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64;
        let block = ByteRange::between(at, next.min(range.end()))?;
        at = block.end();
        Some(block)
    })
}

impl Output {
    fn open(path: &Path, overwrite: bool) -> Result<Self, CliError> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let kind = fs::metadata(&path)
            .ok()
            .map(|metadata| metadata.file_type());
        match kind {
            Some(kind) if kind.is_dir() => Err(CliError::Usage(format!(
                "{} is a directory: name a file, or - for the standard output",
                path.display()
            ))),
            Some(kind) if kind.is_file() && !overwrite => Err(CliError::Usage(format!(
                "{} exists already: name another file, or add --overwrite",
                path.display()
            ))),
            Some(kind) if !kind.is_file() => {
                let file = OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(CliError::file("open", &path))?;
                Ok(if kind.is_block_device() {
                    Self::Device { file, path }
                } else {
                    Self::Stream { file, path }
                })
            }
            Some(_) | None => Ok(Self::File {
                hidden: hidden_beside(&path)
                    .map_err(CliError::file("make a file beside", &path))?,
                path,
                replace: overwrite,
            }),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Device { path, .. } | Self::Stream { path, .. } => path,
            Self::Stdout => Path::new("the standard output"),
        }
    }

    fn sink(&self) -> Result<Sink, CliError> {
        let clone = |file: &File| {
            file.try_clone()
                .map_err(CliError::file("open", self.path()))
        };
        Ok(match self {
            Self::File { hidden, .. } => Sink::Sparse(clone(hidden.as_file())?),
            Self::Device { file, .. } => Sink::Device(clone(file)?),
            Self::Stream { file, .. } => Sink::Stream(Box::new(clone(file)?)),
            Self::Stdout => Sink::Stream(Box::new(io::stdout())),
        })
    }

    /// Gives a new file its name, once all is written and safe.
    fn finish(self, size_bytes: u64) -> Result<(), CliError> {
        if let Self::File {
            hidden,
            path,
            replace,
        } = self
        {
            check_size(hidden.as_file(), &path, size_bytes)?;
            persist(hidden, &path, replace).map_err(CliError::file("make", &path))?;
        }
        Ok(())
    }
}

impl Sink {
    /// Writes what arrives, in ascending order, and makes it safe. Returns how many bytes of data there were.
    fn receive(self, mut blocks: Blocks, size_bytes: u64) -> io::Result<u64> {
        match self {
            Self::Sparse(file) => write_sparse(&file, &mut blocks, size_bytes),
            Self::Device(mut file) => {
                let data = write_in_order(&mut file, &mut blocks, size_bytes)?;
                file.sync_all()?;
                Ok(data)
            }
            Self::Stream(mut stream) => {
                let data = write_in_order(&mut *stream, &mut blocks, size_bytes)?;
                stream.flush()?;
                Ok(data)
            }
        }
    }
}

/// A file beside `path` that vanishes unless it is given that name.
fn hidden_beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".cachalot-export-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
}

fn persist(file: NamedTempFile, path: &Path, replace: bool) -> io::Result<()> {
    let directory = file.path().parent().map(Path::to_owned);
    if replace {
        file.persist(path)?;
    } else {
        file.persist_noclobber(path)?;
    }
    directory.map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn check_size(file: &File, path: &Path, size_bytes: u64) -> Result<(), CliError> {
    let written = file
        .metadata()
        .map_err(CliError::file("look at", path))?
        .len();
    if written == size_bytes {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "{} has {written} bytes instead of {size_bytes}: export it again",
        path.display()
    )))
}

fn write_sparse(file: &File, blocks: &mut Blocks, size_bytes: u64) -> io::Result<u64> {
    let mut data_bytes = 0;
    file.set_len(size_bytes)?;
    while let Some((offset, block)) = blocks.next()? {
        for run in data_runs(&block) {
            let data = block.get(run.clone()).unwrap_or_default();
            file.write_all_at(data, offset + run.start as u64)?;
            data_bytes += data.len() as u64;
        }
    }
    file.sync_all()?;
    Ok(data_bytes)
}

fn write_in_order(target: &mut dyn Write, blocks: &mut Blocks, size_bytes: u64) -> io::Result<u64> {
    let (mut at, mut data_bytes) = (0, 0);
    while let Some((offset, block)) = blocks.next()? {
        write_zeros(target, offset - at)?;
        target.write_all(&block)?;
        at = offset + block.len() as u64;
        data_bytes += block.len() as u64;
    }
    write_zeros(target, size_bytes - at)?;
    Ok(data_bytes)
}

fn write_zeros(target: &mut dyn Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), len), target).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_an_object_that_exists_is_read_and_no_block_without_one() {
        let block = BLOCK_BYTES as u64;
        let layouts = [
            Layout::unstriped(block / 2).unwrap(),
            Layout::unstriped(block * 3).unwrap(),
            Layout::new(block / 4, 3, block).unwrap(),
            Layout::new(block * 2, 2, block * 4).unwrap(),
            Layout::new(100_000, 2, 300_000).unwrap(),
        ];
        for layout in layouts {
            let size = block * 40 + 12_345;
            for numbers in [
                &[][..],
                &[0],
                &[1, 2, 7],
                &[3, 5, 11, 1_000_000],
                &[u64::MAX],
            ] {
                let blocks: Vec<ByteRange> = present_blocks(&layout, numbers, size).collect();
                let ascending = blocks
                    .windows(2)
                    .all(|pair| pair[0].end() <= pair[1].start());
                assert!(ascending, "{layout:?} {numbers:?}");
                let exists = |object: &u64| numbers.contains(object);
                for found in &blocks {
                    assert!(
                        layout.runs(*found).any(|run| exists(&run.object)),
                        "{found}"
                    );
                }
                let whole = ByteRange::between(0, size).unwrap();
                for run in layout.runs(whole).filter(|run| exists(&run.object)) {
                    let range = ByteRange::between(run.at, run.at + run.range.len()).unwrap();
                    let covered: u64 = blocks
                        .iter()
                        .filter_map(|found| found.intersection(range))
                        .map(ByteRange::len)
                        .sum();
                    assert_eq!(covered, range.len(), "{layout:?} {numbers:?} {range}");
                }
            }
        }
    }

    #[test]
    fn a_huge_volume_with_one_object_is_walked_at_once() {
        let layout = Layout::default();
        let blocks = present_blocks(&layout, &[1 << 40], (1 << 62) + (8 << 20)).count();
        assert_eq!(blocks, (4 << 20) / BLOCK_BYTES);
    }
}

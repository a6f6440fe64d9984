//! What each case asks of the cache.

use bytes::Bytes;
use cachalot::{CacheError, ObjectSet, SetOptions};
use futures::executor::block_on;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Fill, Filling};
use crate::bench::cases::timing::{Dice, on_threads};
use crate::error::CliError;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// A large read.
const LARGE_BYTES: u64 = 4 * MIB;
/// Where random writes go.
const FILE_BYTES: u64 = 1 << 30;
const SETS: usize = 10;
/// An object that is smaller than what is charged for it.
const TINY_BYTES: u64 = 100;

impl Fill {
    /// Fills the cache; returns after how many operations it was done.
    pub(super) fn run(&self, filling: Filling, set: &ObjectSet) -> Result<u64, CliError> {
        if filling == Filling::TwoThreads {
            return self.two_threads();
        }
        let limit = self.cache_bytes;
        let total = self.total_bytes;
        let done = block_on(async {
            match filling {
                Filling::Slices => slices(set, total).await,
                Filling::Overwrite => overwrite(set, limit / 4 * 3).await,
                Filling::Writes512 => in_order(set, total, 512).await,
                Filling::Writes1 => in_order(set, total, 1).await,
                Filling::DirtyLimit => at_dirty_limit(set, total / 4).await,
                Filling::TinyObjects => {
                    // More than fit, by far.
                    let objects = limit / KIB * 2;
                    for object in 0..objects {
                        set.read_object(object, 0, TINY_BYTES).await?;
                    }
                    Ok(objects)
                }
                Filling::TinyObjectsWritten => {
                    let objects = limit / KIB * 2;
                    for object in 0..objects {
                        set.write_object(object, 0, data(TINY_BYTES)).await?;
                    }
                    Ok(objects)
                }
                Filling::Writes4kOver512 => over_512(set, limit / 4 * 3).await,
                Filling::Misses => misses(set, limit * 4).await,
                Filling::Buffers => {
                    let bytes = limit / 3 * 2;
                    for offset in (0..bytes).step_by(4 << 10) {
                        set.read_at(offset, 4 * KIB).await?;
                    }
                    Ok(bytes / (4 * KIB))
                }
                Filling::DirtyBuffers => in_order(set, limit / 3 * 2, 4 * KIB).await,
                Filling::TwoThreads | Filling::All => Ok(0),
            }
        });
        done.map_err(CliError::cache("fill the cache"))
    }

    fn two_threads(&self) -> Result<u64, CliError> {
        let open = |number: usize| {
            let options = SetOptions::new(format!("set-{number}").as_str());
            block_on(self.cache.open(options))
        };
        let sets: Result<Vec<ObjectSet>, CacheError> = (0..SETS).map(open).collect();
        let sets = sets.map_err(CliError::cache("open a set"))?;
        let blocks = self.total_bytes / (4 * KIB) / 2;
        let flushed = CliError::cache("write and flush");
        for _ in 0..2 {
            on_threads(2, |thread, barrier| {
                let (first, block) = (thread as u64 * blocks, data(4 * KIB));
                barrier.wait();
                block_on(async {
                    for number in first..first + blocks {
                        let index = usize::try_from(number).unwrap_or(0) % SETS;
                        if let Some(set) = sets.get(index) {
                            let offset = number / SETS as u64 * 4 * KIB;
                            set.write_at(offset, block.clone()).await?;
                        }
                    }
                    Ok(())
                })
                .map_err(CliError::cache("write through the cache"))
            })?;
            if let Err(error) = block_on(self.cache.flush_all()) {
                return Err(flushed(error));
            }
        }
        Ok(blocks * 4)
    }
}

/// Bytes that are not zeros, in memory of their own.
fn data(len: u64) -> Bytes {
    Bytes::from(vec![1; usize::try_from(len).unwrap_or(0)])
}

async fn slices(set: &ObjectSet, total: u64) -> Result<u64, CacheError> {
    let mut operations = 0;
    for start in (0..total).step_by(4 << 20) {
        set.read_at(start, LARGE_BYTES).await?;
        for block in 0..LARGE_BYTES / (4 * KIB) {
            if block % 10 != 0 {
                set.discard_range(start + block * 4 * KIB, 4 * KIB).await?;
            }
        }
        operations += 1;
    }
    Ok(operations)
}

async fn overwrite(set: &ObjectSet, bytes: u64) -> Result<u64, CacheError> {
    for start in (0..bytes).step_by(4 << 20) {
        set.read_at(start, LARGE_BYTES).await?;
    }
    let written = in_order(set, bytes, 4 * KIB).await?;
    Ok(written + in_order(set, bytes, 64 * KIB).await?)
}

async fn in_order(set: &ObjectSet, bytes: u64, block: u64) -> Result<u64, CacheError> {
    let (blocks, block_data) = (bytes / block, data(block));
    for number in 0..blocks {
        set.write_at(number * block, block_data.clone()).await?;
    }
    Ok(blocks)
}

async fn at_dirty_limit(set: &ObjectSet, total: u64) -> Result<u64, CacheError> {
    let blocks = total / (4 * KIB);
    let block = data(4 * KIB);
    let lanes = (0..32).map(async |lane| {
        let mut dice = Dice::new(1, lane);
        for _ in 0..blocks / 32 {
            let offset = dice.below(FILE_BYTES / (4 * KIB)) * 4 * KIB;
            set.write_at(offset, block.clone()).await?;
        }
        Ok::<(), CacheError>(())
    });
    try_join_all(lanes).await?;
    Ok(blocks)
}

async fn over_512(set: &ObjectSet, bytes: u64) -> Result<u64, CacheError> {
    let mut dice = Dice::new(1, 0);
    let (small, large) = (data(512), data(4 * KIB));
    // Each sector once, in an order in which neighbours seldom touch.
    let sectors = bytes / 512;
    let stride = crate::bench::workload::scattering_stride(sectors);
    for number in 0..sectors {
        let sector = crate::bench::workload::scatter(number, stride, sectors);
        set.write_at(sector * 512, small.clone()).await?;
    }
    let blocks = bytes / (4 * KIB) * 2;
    for _ in 0..blocks {
        let offset = dice.below(bytes / (4 * KIB)) * 4 * KIB;
        set.write_at(offset, large.clone()).await?;
    }
    Ok(sectors + blocks)
}

async fn misses(set: &ObjectSet, total: u64) -> Result<u64, CacheError> {
    stream::iter((0..total).step_by(64 << 10))
        .map(|offset| set.read_at(offset, 64 * KIB))
        .buffer_unordered(32)
        .try_for_each(async |_| Ok(()))
        .await?;
    Ok(total / (64 * KIB))
}

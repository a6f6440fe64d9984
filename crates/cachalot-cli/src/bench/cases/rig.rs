//! The cache under test: over the null store, with its sets open and filled.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::{Cache, CacheConfig, CacheError, ObjectSet, SetOptions};
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt, stream};

use super::memory;
use super::null_store::NullStore;
use super::plan::{Fill, Plan};
use super::report::MemoryReport;
use super::timing::Dice;
use crate::bench::workload::{scatter, scattering_stride};
use crate::error::CliError;

/// How many reads of a fill are under way at once.
const FILL_READS: usize = 16;

/// A cache with its sets.
pub(crate) struct Rig {
    pub(crate) plan: Plan,
    pub(crate) cache: Cache,
    pub(crate) store: Arc<NullStore>,
    pub(crate) sets: Vec<ObjectSet>,
    resident_before: u64,
}

/// Where an operation goes, drawn anew for each.
pub(crate) struct Target<'a> {
    sets: &'a [ObjectSet],
    set_count: u64,
    blocks: u64,
    block_bytes: u64,
    dice: Dice,
}

impl<'a> Target<'a> {
    /// A set and an offset in it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a set's number is below a usize"
    )]
    pub(crate) fn next(&mut self) -> Option<(&'a ObjectSet, u64)> {
        let set = match self.set_count {
            1 => 0,
            sets => self.dice.below(sets) as usize,
        };
        let block = self.dice.below(self.blocks);
        Some((self.sets.get(set)?, block * self.block_bytes))
    }
}

impl Rig {
    pub(crate) fn start(plan: &Plan) -> Result<Self, CliError> {
        let resident_before = memory::resident_bytes();
        let store = NullStore::new(plan.store);
        let mut config = CacheConfig {
            max_bytes: ByteSize(plan.limits.cache_bytes),
            max_dirty_bytes: ByteSize(plan.limits.dirty_bytes),
            target_dirty_bytes: ByteSize(plan.limits.target_bytes),
            ..CacheConfig::default()
        };
        if plan.case.is_resident() {
            config.max_dirty_age = Duration::from_secs(3600);
        }
        let cache = Cache::builder(Arc::clone(&store) as _)
            .config(config)
            .start()
            .map_err(CliError::cache("start the cache"))?;
        let open = |number| block_on(cache.open(SetOptions::new(format!("set-{number}").as_str())));
        let sets = (0..plan.sets).map(open).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            plan: plan.clone(),
            sets: sets.map_err(CliError::cache("open a set"))?,
            cache,
            store,
            resident_before,
        })
    }

    /// Random blocks of the footprint, others for each thread.
    pub(crate) fn target(&self, thread: usize) -> Target<'_> {
        Target {
            sets: &self.sets,
            set_count: self.sets.len() as u64,
            blocks: self.plan.blocks_per_set(),
            block_bytes: self.plan.block_bytes,
            dice: Dice::new(self.plan.pace.seed, thread),
        }
    }

    /// Where the block of this number lies when blocks go to the sets in turn.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a set's number is below a usize"
    )]
    pub(crate) fn place(&self, block: u64) -> Option<(&ObjectSet, u64)> {
        let sets = self.sets.len() as u64;
        let set = self.sets.get((block % sets) as usize)?;
        Some((set, block / sets * self.plan.block_bytes))
    }

    /// What is written, one block of it.
    pub(crate) fn block(&self) -> Bytes {
        data(self.plan.block_bytes)
    }

    /// Brings the whole footprint in, as the plan says.
    pub(crate) fn fill(&self) -> Result<(), CliError> {
        let set_bytes = self.plan.blocks_per_set() * self.plan.block_bytes;
        for set in &self.sets {
            block_on(fill(set, set_bytes, self.plan.fill))
                .map_err(CliError::cache("fill the cache"))?;
        }
        Ok(())
    }

    /// Flushes every set.
    pub(crate) fn flush(&self) -> Result<(), CliError> {
        let flushed = block_on(self.cache.flush_all());
        flushed
            .map(drop)
            .map_err(CliError::cache("write back what the cache holds"))
    }

    /// Drops everything, dirty bytes too.
    pub(crate) fn purge(&self) -> Result<(), CliError> {
        for set in &self.sets {
            block_on(set.purge()).map_err(CliError::cache("empty the cache"))?;
        }
        Ok(())
    }

    /// What the cache holds and what that takes.
    pub(crate) fn memory(&self) -> MemoryReport {
        let stats = self.cache.stats();
        let gauges = stats.gauges;
        let data = gauges.clean_bytes + gauges.dirty_bytes + gauges.tx_bytes;
        let charged = u64::try_from(stats.charged.room).unwrap_or(0);
        let grown = memory::resident_bytes().saturating_sub(self.resident_before);
        MemoryReport::new(data, charged, grown)
    }

    /// Ends the cache; what is dirty is lost.
    pub(crate) fn end(self) {
        block_on(self.cache.abandon());
    }
}

/// Bytes in memory of their own.
fn data(len: u64) -> Bytes {
    Bytes::from(vec![0x5A; usize::try_from(len).unwrap_or(0)])
}

async fn fill(set: &ObjectSet, set_bytes: u64, fill: Fill) -> Result<(), CacheError> {
    let (piece, is_random) = match fill {
        Fill::Whole => (4 << 20, false),
        Fill::Seq4k => (4 << 10, false),
        Fill::Rand4k => (4 << 10, true),
        Fill::Rand512 => (512, true),
        Fill::Read64k => {
            return stream::iter((0..set_bytes).step_by(64 << 10))
                .map(|offset| set.read_at(offset, (64 << 10).min(set_bytes - offset)))
                .buffer_unordered(FILL_READS)
                .try_for_each(async |_| Ok(()))
                .await;
        }
    };
    let (pieces, block) = (set_bytes.div_ceil(piece), data(piece));
    let stride = if is_random {
        scattering_stride(pieces)
    } else {
        1
    };
    for number in 0..pieces {
        let offset = scatter(number, stride, pieces) * piece;
        let len = piece.min(set_bytes - offset);
        let block = if fill == Fill::Whole {
            data(len)
        } else {
            block.slice(..usize::try_from(len).unwrap_or(0))
        };
        set.write_at(offset, block).await?;
    }
    Ok(())
}

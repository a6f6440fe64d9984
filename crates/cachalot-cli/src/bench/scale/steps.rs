//! The steps: each prepares what it goes over, and is measured from then on.

use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::{CacheConfig, CacheError, ObjectExtent, ObjectSet, SetOptions};
use futures::future::{join, select, try_join_all};

use super::{Scene, Step};
use crate::bench::cases::timing::process_cpu;

const BLOCK: u64 = 4 << 10;
/// What each of many sets holds.
const SET_BYTES: u64 = 100 << 10;
/// An object that holds next to nothing.
const TINY_BYTES: u64 = 100;

/// What a step took.
pub(super) struct Took {
    pub(super) cpu: Duration,
    pub(super) store_operations: u64,
    pub(super) bytes: u64,
}

/// Where the measuring begins.
struct Begun {
    cpu: Duration,
    store_operations: u64,
}

impl Scene {
    /// Takes the step.
    pub(super) async fn run(&self) -> Result<Took, CacheError> {
        match self.step {
            Step::FlushSets => self.flush_sets().await,
            Step::FlushFewOfSets => self.flush_few_of_sets(1 << 20).await,
            Step::TrimSets => self.trim_sets().await,
            Step::TrimObjects => self.trim_objects().await,
            Step::ReadOverFetches => self.read_over_fetches().await,
            Step::WaitingReads => self.waiting_reads().await,
            Step::WaitingFlushes => self.waiting_flushes().await,
            Step::WaitingWrites => self.waiting_writes(true).await,
            Step::GivenUpWrites => self.waiting_writes(false).await,
            Step::WritesThrough => self.writes_through().await,
            Step::FlushExtents => self.flush_extents().await,
            Step::FlushObjects => self.flush_objects().await,
            Step::DiscardExtents => self.discard_extents().await,
            Step::DiscardEach => self.discard_each().await,
            Step::All => Ok(self.end(&self.begin(), 0)),
        }
    }

    fn begin(&self) -> Begun {
        Begun {
            cpu: process_cpu(),
            store_operations: self.store.operations(),
        }
    }

    fn end(&self, begun: &Begun, bytes: u64) -> Took {
        Took {
            cpu: process_cpu().saturating_sub(begun.cpu),
            store_operations: self.store.operations() - begun.store_operations,
            bytes,
        }
    }

    async fn open_sets(&self) -> Result<Vec<ObjectSet>, CacheError> {
        let open = |number| {
            let options = SetOptions::new(format!("set-{number}").as_str());
            self.cache.open(options)
        };
        try_join_all((0..self.n).map(open)).await
    }

    /// Has all that n sets hold stored: the flusher is told that nothing may be dirty.
    async fn flush_sets(&self) -> Result<Took, CacheError> {
        let _sets = self.dirty_sets().await?;
        let bytes = self.n * SET_BYTES;
        let begun = self.begin();
        self.set_target(0).await?;
        self.store.until_written(bytes).await;
        Ok(self.end(&begun, bytes))
    }

    /// Writes so much above what may be dirty, until as much is stored.
    async fn flush_few_of_sets(&self, bytes: u64) -> Result<Took, CacheError> {
        let _sets = self.dirty_sets().await?;
        self.set_target(self.n * SET_BYTES).await?;
        let begun = self.begin();
        let written = self.store.written_bytes();
        for offset in (0..bytes).step_by(4 << 10) {
            self.set.write_object(0, offset, block()).await?;
        }
        // What came since the flusher last looked waits for its next look.
        self.store.until_written(written + bytes / 16 * 15).await;
        Ok(self.end(&begun, bytes))
    }

    async fn set_target(&self, dirty_bytes: u64) -> Result<(), CacheError> {
        let config = CacheConfig {
            target_dirty_bytes: ByteSize(dirty_bytes),
            ..self.config.clone()
        };
        self.cache.set_limits(&config).await
    }

    async fn dirty_sets(&self) -> Result<Vec<ObjectSet>, CacheError> {
        let sets = self.open_sets().await?;
        for set in &sets {
            for offset in (0..SET_BYTES).step_by(4 << 10) {
                set.write_at(offset, block()).await?;
            }
        }
        Ok(sets)
    }

    async fn trim_sets(&self) -> Result<Took, CacheError> {
        let sets = self.open_sets().await?;
        for set in &sets {
            for offset in (0..SET_BYTES).step_by(20 << 10) {
                set.read_at(offset, 20 << 10).await?;
            }
        }
        self.trim(self.n * SET_BYTES).await
    }

    async fn trim_objects(&self) -> Result<Took, CacheError> {
        for object in 0..self.n {
            self.set.read_object(object, 0, TINY_BYTES).await?;
        }
        self.trim(self.n * TINY_BYTES).await
    }

    /// Leaves no room for what is cached, and waits for room.
    async fn trim(&self, bytes: u64) -> Result<Took, CacheError> {
        let begun = self.begin();
        let config = CacheConfig {
            max_bytes: ByteSize::kib(64),
            max_dirty_bytes: ByteSize::kib(32),
            target_dirty_bytes: ByteSize::kib(32),
            ..self.config.clone()
        };
        self.cache.set_limits(&config).await?;
        self.set.read_at(1 << 40, BLOCK).await?;
        Ok(self.end(&begun, bytes))
    }

    async fn read_over_fetches(&self) -> Result<Took, CacheError> {
        self.store.shut();
        let read = |number| self.set.read_object(0, number * BLOCK, BLOCK);
        let small = try_join_all((0..self.n).map(read));
        let large = async {
            // What comes after the small ones is taken after them.
            self.all_are_taken().await?;
            let begun = self.begin();
            let read = self.set.read_object(0, 0, self.n * BLOCK);
            let (read, opened) = join(read, self.open_gate()).await;
            read?;
            opened?;
            Ok::<Begun, CacheError>(begun)
        };
        let (small, begun) = join(small, large).await;
        small?;
        Ok(self.end(&begun?, self.n * BLOCK))
    }

    async fn waiting_reads(&self) -> Result<Took, CacheError> {
        self.store.shut();
        let begun = self.begin();
        let read = |_| self.set.read_object(0, 0, BLOCK);
        let (read, opened) = join(try_join_all((0..self.n).map(read)), self.open_gate()).await;
        read?;
        opened?;
        Ok(self.end(&begun, BLOCK))
    }

    async fn waiting_flushes(&self) -> Result<Took, CacheError> {
        self.set.write_object(0, 0, block()).await?;
        self.store.shut();
        let begun = self.begin();
        let flushes = try_join_all((0..self.n).map(|_| self.set.flush()));
        let (flushed, opened) = join(flushes, self.open_gate()).await;
        flushed?;
        opened?;
        Ok(self.end(&begun, BLOCK))
    }

    async fn waiting_writes(&self, are_made: bool) -> Result<Took, CacheError> {
        let all_dirty = self.config.max_dirty_bytes.as_u64();
        for offset in (0..all_dirty).step_by(4 << 10) {
            self.set.write_object(0, offset, block()).await?;
        }
        self.store.shut();
        let begun = self.begin();
        let write = |number| self.set.write_object(1, number * BLOCK, block());
        let writes = try_join_all((0..self.n).map(write));
        if are_made {
            let (written, opened) = join(writes, self.open_gate()).await;
            written?;
            opened?;
        } else {
            let taken = Box::pin(self.all_are_taken());
            // Their callers go.
            drop(select(Box::pin(writes), taken).await);
            self.all_are_taken().await?;
            self.store.open();
        }
        Ok(self.end(&begun, self.n * BLOCK))
    }

    async fn writes_through(&self) -> Result<Took, CacheError> {
        let config = CacheConfig {
            max_dirty_bytes: ByteSize(0),
            target_dirty_bytes: ByteSize(0),
            ..self.config.clone()
        };
        self.cache.set_limits(&config).await?;
        self.store.shut();
        let begun = self.begin();
        let write = |number| self.set.write_object(0, number * BLOCK * 2, block());
        let (written, opened) = join(try_join_all((0..self.n).map(write)), self.open_gate()).await;
        written?;
        opened?;
        Ok(self.end(&begun, self.n * BLOCK))
    }

    async fn flush_extents(&self) -> Result<Took, CacheError> {
        self.write_apart().await?;
        let begun = self.begin();
        self.set.flush().await?;
        Ok(self.end(&begun, self.n * BLOCK))
    }

    async fn flush_objects(&self) -> Result<Took, CacheError> {
        for object in 0..self.n {
            let data = Bytes::from(vec![1; 100]);
            self.set.write_object(object, 0, data).await?;
        }
        let begun = self.begin();
        let layout_bytes = self
            .set
            .layout()
            .map_or(4 << 20, |layout| layout.object_size());
        self.set.flush_range(0, self.n * layout_bytes).await?;
        Ok(self.end(&begun, self.n * TINY_BYTES))
    }

    async fn discard_extents(&self) -> Result<Took, CacheError> {
        self.write_apart().await?;
        let begun = self.begin();
        self.set.discard(extent(0, self.n * BLOCK * 2)).await?;
        Ok(self.end(&begun, self.n * BLOCK))
    }

    async fn discard_each(&self) -> Result<Took, CacheError> {
        self.write_apart().await?;
        let begun = self.begin();
        for number in 0..self.n {
            self.set.discard(extent(number * BLOCK * 2, BLOCK)).await?;
        }
        Ok(self.end(&begun, self.n * BLOCK))
    }

    /// Writes n blocks of one object with gaps between them.
    async fn write_apart(&self) -> Result<(), CacheError> {
        for number in 0..self.n {
            self.set
                .write_object(0, number * BLOCK * 2, block())
                .await?;
        }
        Ok(())
    }

    /// Opens the gate when the set has taken all that was asked before.
    async fn open_gate(&self) -> Result<(), CacheError> {
        let taken = self.all_are_taken().await;
        self.store.open();
        taken
    }

    async fn all_are_taken(&self) -> Result<(), CacheError> {
        self.set.is_cached_at(1 << 40, 1).await.map(drop)
    }
}

/// What is written.
fn block() -> Bytes {
    Bytes::from_static(&[1; 4 << 10])
}

/// A range of the first object.
fn extent(offset: u64, len: u64) -> Vec<ObjectExtent> {
    ObjectExtent::new(0, offset, len).into_iter().collect()
}

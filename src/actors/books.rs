//! Counters and gauges that many threads add to: each on a line of its own, summed when somebody looks.

use serde::{Deserialize, Serialize};

use super::budget::{Padded, thread_number};
use super::sync::atomic::{AtomicI64, Ordering};
use crate::engine::{BufferState, Counter, Totals};

/// How many lines the threads of a set or cache share.
const SHARDS: usize = 4;
const GAUGES: usize = 12;
const NUMBERS: usize = GAUGES + COUNTERS;
const COUNTERS: usize = Counter::COUNT;

/// The books of one set, or of all of them.
#[derive(Debug)]
pub(crate) struct Books {
    shards: [Padded<[AtomicI64; NUMBERS]>; SHARDS],
}

impl Default for Books {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Padded(std::array::from_fn(|_| AtomicI64::new(0)))),
        }
    }
}

impl Books {
    /// Numbers only have to add up, and are read one by one: relaxed order is enough.
    fn add_to(shard: &[AtomicI64; NUMBERS], number: usize, by: i64) {
        if let Some(number) = shard.get(number) {
            number.fetch_add(by, Ordering::Relaxed);
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the remainder of a division by SHARDS is an index of SHARDS shards"
    )]
    fn own(&self) -> &[AtomicI64; NUMBERS] {
        &self.shards[thread_number() % SHARDS].0
    }

    fn sum(&self, number: usize) -> i64 {
        self.shards
            .iter()
            .filter_map(|shard| shard.0.get(number))
            .map(|number| number.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn count(&self, counter: Counter, by: u64) {
        self.count_all([(counter, by)]);
    }

    /// Adds to several counters.
    #[inline]
    pub(crate) fn count_all<const N: usize>(&self, counts: [(Counter, u64); N]) {
        let shard = self.own();
        for (counter, by) in counts {
            let by = i64::try_from(by).unwrap_or(i64::MAX);
            Self::add_to(shard, GAUGES + counter as usize, by);
        }
    }

    pub(crate) fn add_totals(&self, change: &Totals) {
        let (bytes, rest) = self.own().split_at(change.bytes.len());
        let add = |(sum, by): (&AtomicI64, &i64)| {
            if *by != 0 {
                sum.fetch_add(*by, Ordering::Relaxed);
            }
        };
        bytes.iter().zip(&change.bytes).for_each(add);
        rest.iter().zip(&change.buffers).for_each(add);
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (index, bytes) in totals.bytes.iter_mut().enumerate() {
            *bytes = self.sum(index);
        }
        for (index, buffers) in totals.buffers.iter_mut().enumerate() {
            *buffers = self.sum(index + GAUGES / 2);
        }
        totals
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        u64::try_from(self.sum(GAUGES + counter as usize)).unwrap_or_default()
    }

    pub(crate) fn counters(&self) -> Counters {
        let sum = |counter: Counter| self.counter(counter);
        Counters {
            read_ops_hit: sum(Counter::ReadOpsHit),
            read_ops_missed: sum(Counter::ReadOpsMissed),
            read_bytes_hit: sum(Counter::ReadBytesHit),
            read_bytes_missed: sum(Counter::ReadBytesMissed),
            read_bytes: sum(Counter::ReadBytesHit) + sum(Counter::ReadBytesMissed),
            write_ops: sum(Counter::WriteOps),
            write_bytes: sum(Counter::WriteBytes),
            overwritten_while_flushing_bytes: sum(Counter::OverwrittenWhileFlushingBytes),
            blocked_write_ops: sum(Counter::BlockedWriteOps),
            blocked_write_bytes: sum(Counter::BlockedWriteBytes),
            blocked_write_nanos: sum(Counter::BlockedWriteNanos),
            fetch_ops: sum(Counter::FetchOps),
            fetch_bytes: sum(Counter::FetchBytes),
            fetch_errors: sum(Counter::FetchErrors),
            write_back_ops: sum(Counter::WriteBackOps),
            write_back_bytes: sum(Counter::WriteBackBytes),
            write_back_errors: sum(Counter::WriteBackErrors),
            evicted_bytes: sum(Counter::EvictedBytes),
        }
    }
}

/// What happened since the set or cache was opened (rule L-04). Each field is the [`Counter`] of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each field is documented on the counter of its name"
)]
pub struct Counters {
    pub read_ops_hit: u64,
    pub read_ops_missed: u64,
    pub read_bytes_hit: u64,
    pub read_bytes_missed: u64,
    pub read_bytes: u64,
    pub write_ops: u64,
    pub write_bytes: u64,
    pub overwritten_while_flushing_bytes: u64,
    pub blocked_write_ops: u64,
    pub blocked_write_bytes: u64,
    pub blocked_write_nanos: u64,
    pub fetch_ops: u64,
    pub fetch_bytes: u64,
    pub fetch_errors: u64,
    pub write_back_ops: u64,
    pub write_back_bytes: u64,
    pub write_back_errors: u64,
    pub evicted_bytes: u64,
}

impl Counters {
    /// The part of reads that were served from memory, from 0 to 1; 0 before the first.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more")]
    pub fn hit_ratio(&self) -> f64 {
        let reads = self.read_ops_hit + self.read_ops_missed;
        if reads == 0 {
            0.0
        } else {
            self.read_ops_hit as f64 / reads as f64
        }
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.read_ops_hit += other.read_ops_hit;
        self.read_ops_missed += other.read_ops_missed;
        self.read_bytes_hit += other.read_bytes_hit;
        self.read_bytes_missed += other.read_bytes_missed;
        self.read_bytes += other.read_bytes;
        self.write_ops += other.write_ops;
        self.write_bytes += other.write_bytes;
        self.overwritten_while_flushing_bytes += other.overwritten_while_flushing_bytes;
        self.blocked_write_ops += other.blocked_write_ops;
        self.blocked_write_bytes += other.blocked_write_bytes;
        self.blocked_write_nanos += other.blocked_write_nanos;
        self.fetch_ops += other.fetch_ops;
        self.fetch_bytes += other.fetch_bytes;
        self.fetch_errors += other.fetch_errors;
        self.write_back_ops += other.write_back_ops;
        self.write_back_bytes += other.write_back_bytes;
        self.write_back_errors += other.write_back_errors;
        self.evicted_bytes += other.evicted_bytes;
    }
}

/// What is held now (rule L-04).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Gauges {
    /// Bytes as in the store.
    pub clean_bytes: u64,
    /// Known zeros, which take no memory.
    pub zero_bytes: u64,
    /// Bytes newer than the store.
    pub dirty_bytes: u64,
    /// Bytes being fetched: reads in flight.
    pub rx_bytes: u64,
    /// Bytes being written back.
    pub tx_bytes: u64,
    /// Bytes whose last fetch failed.
    pub error_bytes: u64,
    /// Buffers as in the store.
    pub clean_buffers: u64,
    /// Buffers of known zeros.
    pub zero_buffers: u64,
    /// Buffers newer than the store.
    pub dirty_buffers: u64,
    /// Buffers being fetched.
    pub rx_buffers: u64,
    /// Buffers being written back.
    pub tx_buffers: u64,
    /// Buffers whose last fetch failed.
    pub error_buffers: u64,
}

impl From<Totals> for Gauges {
    fn from(totals: Totals) -> Self {
        // While threads add and subtract, a sum may be below zero for a moment.
        let bytes = |state| u64::try_from(totals.bytes_in(state)).unwrap_or_default();
        let buffers = |state| u64::try_from(totals.buffers_in(state)).unwrap_or_default();
        Self {
            clean_bytes: bytes(BufferState::Clean),
            zero_bytes: bytes(BufferState::Zero),
            dirty_bytes: bytes(BufferState::Dirty),
            rx_bytes: bytes(BufferState::Rx),
            tx_bytes: bytes(BufferState::Tx),
            error_bytes: bytes(BufferState::Error),
            clean_buffers: buffers(BufferState::Clean),
            zero_buffers: buffers(BufferState::Zero),
            dirty_buffers: buffers(BufferState::Dirty),
            rx_buffers: buffers(BufferState::Rx),
            tx_buffers: buffers(BufferState::Tx),
            error_buffers: buffers(BufferState::Error),
        }
    }
}

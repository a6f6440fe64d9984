//! How long requests take: counted by doubling times in eight steps each, by any thread, without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cachalot::{Clock, Moment, SystemClock};

use crate::ctl::protocol::RequestStats;

/// Steps between a time and twice that, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Longer than 2^28 microseconds, four minutes, is counted as that.
const DOUBLINGS: usize = 25;
const BUCKETS: usize = STEPS * (DOUBLINGS + 1);

/// The kinds of requests that are timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    Zero,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Read, Self::Write, Self::Flush, Self::Trim, Self::Zero];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::Zero => "zero",
        }
    }
}

/// The requests of one kind.
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total_nanos: AtomicU64,
    failed: AtomicU64,
    under_way: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            total_nanos: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
        }
    }
}

/// The bucket of a time.
fn bucket_of(micros: u64) -> usize {
    let Some(doubling) = micros.checked_ilog2().filter(|log| *log >= STEP_BITS) else {
        return usize::try_from(micros).unwrap_or_default();
    };
    let up = doubling - STEP_BITS;
    let step = (micros >> up) & (STEPS as u64 - 1);
    let bucket = STEPS * (up as usize + 1) + usize::try_from(step).unwrap_or_default();
    bucket.min(BUCKETS - 1)
}

/// Every time in the bucket is below this many microseconds.
const fn bound_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64 + 1;
    }
    let (up, step) = (bucket / STEPS - 1, bucket % STEPS);
    ((STEPS + step + 1) as u64) << up
}

impl Histogram {
    fn stats(&self) -> RequestStats {
        let counts = self.buckets.iter().enumerate();
        let buckets: Vec<(u64, u64)> = counts
            .map(|(bucket, count)| (bound_of(bucket), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        RequestStats {
            done: buckets.iter().map(|(_, count)| count).sum(),
            failed: self.failed.load(Ordering::Relaxed),
            under_way: self.under_way.load(Ordering::Relaxed),
            total_nanos: self.total_nanos.load(Ordering::Relaxed),
            p50_micros: quantile(&buckets, 50),
            p99_micros: quantile(&buckets, 99),
            buckets,
        }
    }
}

/// The bound below which so many of a hundred are.
fn quantile(buckets: &[(u64, u64)], percent: u64) -> u64 {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let wanted = all.saturating_mul(percent).div_ceil(100);
    let mut below = 0;
    for (bound, count) in buckets {
        below += count;
        if below >= wanted {
            return *bound;
        }
    }
    0
}

/// The requests of a volume.
#[derive(Debug, Default)]
pub(super) struct Timings {
    clock: SystemClock,
    kinds: [Histogram; Kind::ALL.len()],
}

/// A request that is under way.
pub(super) struct Timed<'a> {
    clock: &'a SystemClock,
    histogram: &'a Histogram,
    started: Moment,
}

impl Timings {
    /// A request begins.
    pub(super) fn start(&self, kind: Kind) -> Timed<'_> {
        let [read, write, flush, trim, zero] = &self.kinds;
        let histogram = match kind {
            Kind::Read => read,
            Kind::Write => write,
            Kind::Flush => flush,
            Kind::Trim => trim,
            Kind::Zero => zero,
        };
        histogram.under_way.fetch_add(1, Ordering::Relaxed);
        Timed {
            clock: &self.clock,
            histogram,
            started: self.clock.now(),
        }
    }

    /// What was counted, by kind.
    pub(super) fn stats(&self) -> BTreeMap<String, RequestStats> {
        let kinds = Kind::ALL.iter().zip(&self.kinds);
        kinds
            .map(|(kind, histogram)| (kind.name().to_owned(), histogram.stats()))
            .collect()
    }
}

impl Timed<'_> {
    /// It has its answer.
    pub(super) fn end<T, E>(self, answer: Result<T, E>) -> Result<T, E> {
        self.histogram
            .count(self.clock.now().since(self.started), answer.is_err());
        answer
    }
}

impl Histogram {
    fn count(&self, took: Duration, has_failed: bool) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(nanos / 1000)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.total_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.failed
            .fetch_add(u64::from(has_failed), Ordering::Relaxed);
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.histogram.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_between_its_bounds() {
        let times = (0..4000).chain([1 << 20, (1 << 27) - 1, 1 << 27, (1 << 28) - 1]);
        for micros in times {
            let bucket = bucket_of(micros);
            assert!(micros < bound_of(bucket), "{micros}");
            assert!(bucket == 0 || micros >= bound_of(bucket - 1), "{micros}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn half_and_nearly_all_are_told() {
        let histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.count(Duration::from_micros(micros), micros == 7);
        }
        let stats = histogram.stats();
        assert_eq!((stats.done, stats.failed), (1000, 1));
        assert_eq!(stats.total_nanos, 1000 * (1 + 1000) / 2 * 1000);
        assert!((500..=563).contains(&stats.p50_micros), "{stats:?}");
        assert!((990..=1114).contains(&stats.p99_micros), "{stats:?}");
        assert_eq!(Histogram::default().stats().p99_micros, 0);
    }

    #[test]
    fn a_request_is_under_way_until_its_answer_or_until_nobody_waits_for_it() {
        let timings = Timings::default();
        let (answered, left) = (timings.start(Kind::Read), timings.start(Kind::Read));
        assert_eq!(timings.stats()["read"].under_way, 2);
        answered.end(Ok::<_, ()>(())).unwrap();
        drop(left);
        let read = &timings.stats()["read"];
        assert_eq!((read.under_way, read.done), (0, 1));
    }
}

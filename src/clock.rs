//! The one file that reads the time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};

use crate::types::{Moment, Timestamp};

/// Where the cache gets its time from.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time since this clock started; never runs backwards.
    fn now(&self) -> Moment;

    /// As [`now`](Self::now), but may be a few milliseconds behind it where that costs less. Writes are stamped with it, as
    /// a file system stamps its files.
    fn now_coarse(&self) -> Moment {
        self.now()
    }

    /// The time of day, for modification times.
    fn timestamp(&self) -> Timestamp;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    #[cfg(target_os = "linux")]
    started_monotonic: Duration,
    epoch: Timestamp,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the time"
    )]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        Self {
            started: Instant::now(),
            #[cfg(target_os = "linux")]
            started_monotonic: read(ClockId::Monotonic),
            epoch: Timestamp(nanos),
        }
    }
}

#[cfg(target_os = "linux")]
fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::default().after(self.started.elapsed())
    }

    /// The kernel's time of its last tick, 1 to 10 ms ago: a fifth of what reading the clock costs.
    #[cfg(target_os = "linux")]
    fn now_coarse(&self) -> Moment {
        let elapsed = read(ClockId::MonotonicCoarse).saturating_sub(self.started_monotonic);
        Moment::default().after(elapsed)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.epoch.0.saturating_add(self.now().as_nanos()))
    }
}

/// A clock that stands still until it is told to move, for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// A clock at its start.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_time_moves_on_behind_the_other_and_never_runs_backwards() {
        let clock = SystemClock::new();
        let mut last = Moment::default();
        // Until several ticks of the kernel have gone by.
        while last.as_nanos() < 50_000_000 {
            let coarse = clock.now_coarse();
            let now = clock.now();
            assert!(
                last <= coarse && coarse <= now,
                "{last:?} {coarse:?} {now:?}"
            );
            last = coarse;
        }
    }
}

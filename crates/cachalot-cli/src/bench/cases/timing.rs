//! How a case is timed: loops of many operations as one block, and a pass of its own that times every operation.

use std::sync::Barrier;
use std::time::Duration;

use cachalot::{CacheError, Clock, SystemClock};
use hdrhistogram::Histogram;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::time::ClockId;

use crate::error::CliError;

/// After how many operations a loop looks at the clock.
pub(crate) const OPS_AT_ONCE: u64 = 256;
/// Latencies above this are counted as this.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// Operations that were timed as one block.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Lap {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    /// The processor time of the thread that asked.
    pub(crate) cpu: Duration,
}

impl Lap {
    /// The time of one of them.
    pub(crate) fn nanos_per_op(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.operations.max(1) as f64
    }

    /// How many there were in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// The processor time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// The processor time that all threads have used.
pub(crate) fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    let nanos = |part: i64| u64::try_from(part).unwrap_or_default();
    Duration::from_secs(nanos(time.tv_sec)) + Duration::from_nanos(nanos(time.tv_nsec))
}

/// An empty histogram of nanoseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>, CliError> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3)
        .map_err(|error| CliError::Failed(format!("cannot make a histogram: {error}")))
}

/// Several histograms as one.
pub(crate) fn merged(parts: &[Histogram<u64>]) -> Result<Histogram<u64>, CliError> {
    let mut all = histogram()?;
    for part in parts {
        all.add(part)
            .map_err(|error| CliError::Failed(format!("cannot add histograms: {error}")))?;
    }
    Ok(all)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Does `op` again and again for so long, and reads the clock seldom.
pub(crate) async fn lap(
    clock: &SystemClock,
    time: Duration,
    mut op: impl AsyncFnMut() -> Result<(), CacheError>,
) -> Result<Lap, CacheError> {
    let mut operations = 0;
    let (begun, cpu_before) = (clock.now(), thread_cpu());
    loop {
        for _ in 0..OPS_AT_ONCE {
            op().await?;
        }
        operations += OPS_AT_ONCE;
        let elapsed = clock.now().since(begun);
        if elapsed >= time {
            return Ok(Lap {
                operations,
                elapsed,
                cpu: thread_cpu().saturating_sub(cpu_before),
            });
        }
    }
}

/// Does `op` again and again for so long, and times every one of them.
pub(crate) async fn sampled(
    clock: &SystemClock,
    time: Duration,
    into: &mut Histogram<u64>,
    mut op: impl AsyncFnMut() -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let end = clock.now().after(time);
    loop {
        let begun = clock.now();
        if begun >= end {
            return Ok(());
        }
        op().await?;
        into.saturating_record(nanos(clock.now().since(begun)));
    }
}

/// What reading the clock once costs, in nanoseconds: every single latency has about that in it.
pub(crate) fn clock_read_nanos() -> f64 {
    const READS: u32 = 100_000;
    let clock = SystemClock::new();
    let begun = clock.now();
    for _ in 0..READS {
        std::hint::black_box(clock.now());
    }
    clock.now().since(begun).as_nanos() as f64 / f64::from(READS)
}

/// Runs `work` on so many threads. Each makes itself ready, waits at the barrier, and then measures.
pub(crate) fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn(usize, &Barrier) -> Result<T, CliError> + Sync,
) -> Result<Vec<T>, CliError> {
    let barrier = Barrier::new(threads);
    let (work, barrier) = (&work, &barrier);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || work(number, barrier)))
            .collect();
        let ends = threads.into_iter().map(|thread| {
            let panicked = || CliError::Failed("a thread of the benchmark panicked".to_owned());
            thread.join().unwrap_or_else(|_| Err(panicked()))
        });
        // All are joined before the first failure is told.
        let ends: Vec<Result<T, CliError>> = ends.collect();
        ends.into_iter().collect()
    })
}

/// Random numbers that cost a nanosecond or two.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// Another row of numbers for each seed and number.
    pub(crate) fn new(seed: u64, number: usize) -> Self {
        let number = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_add(number)))
    }

    /// A number below `bound`, which is above zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_counts_what_it_did() {
        let clock = SystemClock::new();
        let mut done = 0;
        let work = lap(&clock, Duration::from_millis(1), async || {
            done += 1;
            Ok(())
        });
        let lap = futures::executor::block_on(work).unwrap();
        assert_eq!(lap.operations, done);
        assert!(lap.elapsed >= Duration::from_millis(1));
    }

    #[test]
    fn every_thread_works_and_a_failure_is_told() {
        let numbers = on_threads(3, |number, barrier| {
            barrier.wait();
            Ok(number)
        });
        assert_eq!(numbers.unwrap(), [0, 1, 2]);
        let failed = on_threads(2, |number, _| match number {
            0 => Ok(()),
            _ => Err(CliError::Interrupted),
        });
        assert!(failed.is_err());
    }
}

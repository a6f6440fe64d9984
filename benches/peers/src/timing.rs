//! Loops of many operations, timed as blocks, on one or several threads.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use bytes::Bytes;
use cachalot::{Clock, SystemClock};
use rustix::time::ClockId;

use crate::caches::{BLOCK_BYTES, BlockCache};

/// After how many operations a loop looks at the clock.
const OPS_AT_ONCE: u32 = 256;

/// What a loop does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Hit,
    Write,
}

/// What to do it to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) blocks: u64,
    pub(crate) threads: usize,
    pub(crate) time: Duration,
}

/// A loop that has ended, over all its threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lap {
    pub(crate) per_second: f64,
    /// The processor time of one operation.
    pub(crate) cpu_nanos: f64,
    /// Reads that found nothing: there should be none.
    pub(crate) missed: u64,
}

/// Runs the loop on all its threads at once.
pub(crate) fn lap(cache: &dyn BlockCache, work: Work) -> Lap {
    let barrier = Barrier::new(work.threads);
    let barrier = &barrier;
    let laps: Vec<Lap> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..work.threads)
            .map(|number| scope.spawn(move || one(cache, work, number, barrier)))
            .collect();
        let laps = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        laps.filter_map(Result::ok).collect()
    });
    let threads = laps.len().max(1) as f64;
    Lap {
        per_second: laps.iter().map(|lap| lap.per_second).sum(),
        cpu_nanos: laps.iter().map(|lap| lap.cpu_nanos).sum::<f64>() / threads,
        missed: laps.iter().map(|lap| lap.missed).sum(),
    }
}

fn one(cache: &dyn BlockCache, work: Work, number: usize, barrier: &Barrier) -> Lap {
    let data = Bytes::from(vec![7; usize::try_from(BLOCK_BYTES).unwrap_or(0)]);
    let mut state = number as u64 + 1;
    let (mut operations, mut missed) = (0_u64, 0);
    barrier.wait();
    let (clock, cpu_before) = (SystemClock::new(), thread_cpu());
    loop {
        for _ in 0..OPS_AT_ONCE {
            let block = below(&mut state, work.blocks);
            match work.kind {
                Kind::Hit => missed += u64::from(black_box(cache.read(block)).is_none()),
                Kind::Write => cache.write(block, &data),
            }
        }
        operations += u64::from(OPS_AT_ONCE);
        let elapsed = clock.now().since(cachalot::Moment::default());
        if elapsed >= work.time {
            let cpu = thread_cpu().saturating_sub(cpu_before);
            return Lap {
                per_second: operations as f64 / elapsed.as_secs_f64(),
                cpu_nanos: cpu.as_nanos() as f64 / operations as f64,
                missed,
            };
        }
    }
}

/// Puts every block in.
pub(crate) fn fill(cache: &dyn BlockCache, blocks: u64) {
    let data = Bytes::from(vec![7; usize::try_from(BLOCK_BYTES).unwrap_or(0)]);
    for block in 0..blocks {
        cache.write(block, &data);
    }
}

/// The next number below `bound`, by the step of `SplitMix64` (Steele et al., OOPSLA 2014).
fn below(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64) as u64
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

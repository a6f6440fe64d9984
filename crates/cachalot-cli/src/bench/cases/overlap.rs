//! One large read over many small fetches that are in flight: what it costs must grow with them, and no faster.

use std::time::Duration;

use cachalot::{CacheError, Clock, SystemClock};
use futures::executor::block_on;
use futures::future::{join, try_join_all};

use super::figures::Figures;
use super::plan::Plan;
use super::report::CaseReport;
use super::rig::Rig;
use super::timing::{Lap, histogram, nanos, process_cpu, thread_cpu};
use crate::error::CliError;

/// How many blocks are being fetched when the large read comes.
pub(super) const FETCHES: u64 = 1024;

/// How many rounds of each kind a run takes.
const ROUNDS: usize = 4;

/// Measures the large read's share of the work.
pub(super) fn over_fetches(plan: &Plan) -> Result<CaseReport, CliError> {
    let rig = Rig::start(plan)?;
    round(&rig, true)?;
    let mut figures = Figures::begin(&rig);
    for _ in 0..plan.pace.runs {
        figures.begin_run();
        let with = round(&rig, true)?;
        figures.run(&[with.lap], 1);
        // The least of several tells two that differ by little apart; one round's wake-ups cost more than that.
        let (mut least_with, mut least_without) = (with.all_cpu, Duration::MAX);
        for _ in 0..ROUNDS {
            least_without = least_without.min(round(&rig, false)?.all_cpu);
            least_with = least_with.min(round(&rig, true)?.all_cpu);
        }
        let extra = least_with.as_secs_f64() - least_without.as_secs_f64();
        figures.more("CPU of the large read, us", extra * 1e6);
        let mut latency = histogram()?;
        latency.saturating_record(nanos(with.lap.elapsed));
        figures.latencies("operation", &[latency])?;
    }
    let report = figures.end(&rig);
    rig.end();
    Ok(report)
}

/// What one round took.
struct Round {
    /// The large read, or all of the small ones where there is none.
    lap: Lap,
    all_cpu: Duration,
}

fn round(rig: &Rig, has_large: bool) -> Result<Round, CliError> {
    let Some((set, _)) = rig.place(0) else {
        return Err(CliError::Failed("there is no set".to_owned()));
    };
    block_on(set.release()).map_err(CliError::cache("empty the cache"))?;
    let (clock, block) = (SystemClock::new(), rig.plan.block_bytes);
    let (cpu_before, own_before) = (process_cpu(), thread_cpu());
    // Polled in this order, so that all small reads are asked before the large one.
    let small = try_join_all((0..FETCHES).map(|number| set.read_at(number * block, block)));
    let large = async {
        let begun = clock.now();
        if has_large {
            set.read_at(0, FETCHES * block).await?;
        }
        Ok::<Duration, CacheError>(clock.now().since(begun))
    };
    let (small, large) = block_on(join(small, large));
    small.map_err(CliError::cache("read through the cache"))?;
    let elapsed = large.map_err(CliError::cache("read through the cache"))?;
    Ok(Round {
        lap: Lap {
            operations: 1,
            elapsed,
            cpu: thread_cpu().saturating_sub(own_before),
        },
        all_cpu: process_cpu().saturating_sub(cpu_before),
    })
}

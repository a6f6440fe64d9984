//! The figures of a case while its runs go on.

use std::collections::BTreeMap;
use std::time::Duration;

use cachalot::Counters;
use hdrhistogram::Histogram;

use super::memory;
use super::null_store::StoreCounts;
use super::report::{CaseReport, LatencySpread, MemoryReport, Spread, StoreReport};
use super::rig::Rig;
use super::timing::{Lap, clock_read_nanos, merged, process_cpu};
use crate::error::CliError;

/// Collected from when the cache is ready to be measured.
pub(crate) struct Figures {
    store_before: StoreCounts,
    counters_before: Counters,
    cpu_before: Duration,
    ns_per_op: Vec<f64>,
    cpu_ns_per_op: Vec<f64>,
    all_cpu_ns_per_op: Vec<f64>,
    ops_per_second: Vec<f64>,
    latencies: BTreeMap<String, Vec<Histogram<u64>>>,
    more: BTreeMap<String, Vec<f64>>,
    memory: Option<MemoryReport>,
    allocations_per_op: Option<f64>,
}

impl Figures {
    /// What the store and the cache counted so far does not count.
    pub(crate) fn begin(rig: &Rig) -> Self {
        Self {
            store_before: rig.store.counts(),
            counters_before: rig.cache.stats().counters,
            cpu_before: Duration::ZERO,
            ns_per_op: Vec::new(),
            cpu_ns_per_op: Vec::new(),
            all_cpu_ns_per_op: Vec::new(),
            ops_per_second: Vec::new(),
            latencies: BTreeMap::new(),
            more: BTreeMap::new(),
            memory: None,
            allocations_per_op: None,
        }
    }

    /// What the process did so far is not part of the run that begins.
    pub(crate) fn begin_run(&mut self) {
        self.cpu_before = process_cpu();
    }

    /// Adds a run, which began at the last `begin_run`: what each of its threads did at the same time. With several operations under way a caller sees
    /// each of them take as many times longer.
    pub(crate) fn run(&mut self, laps: &[Lap], in_flight_per_thread: usize) {
        let threads = laps.len().max(1) as f64;
        let nanos: f64 = laps.iter().map(Lap::nanos_per_op).sum::<f64>() / threads;
        self.ns_per_op.push(nanos * in_flight_per_thread as f64);
        let cpu_all = process_cpu().saturating_sub(self.cpu_before).as_nanos() as f64;
        let cpu: u128 = laps.iter().map(|lap| lap.cpu.as_nanos()).sum();
        let operations: u64 = laps.iter().map(|lap| lap.operations).sum();
        let operations = operations.max(1) as f64;
        self.cpu_ns_per_op.push(cpu as f64 / operations);
        self.all_cpu_ns_per_op.push(cpu_all / operations);
        self.ops_per_second
            .push(laps.iter().map(Lap::per_second).sum());
    }

    /// Adds the latencies of a run, of all its threads.
    pub(crate) fn latencies(
        &mut self,
        what: &str,
        threads: &[Histogram<u64>],
    ) -> Result<(), CliError> {
        let runs = self.latencies.entry(what.to_owned()).or_default();
        runs.push(merged(threads)?);
        Ok(())
    }

    /// Adds a figure of this case alone.
    pub(crate) fn more(&mut self, what: &str, figure: f64) {
        self.more.entry(what.to_owned()).or_default().push(figure);
    }

    /// Notes what the cache holds at this moment, in place of the end.
    pub(crate) fn note_memory(&mut self, rig: &Rig) {
        self.memory = Some(rig.memory());
    }

    pub(crate) const fn note_allocations(&mut self, per_op: Option<f64>) {
        self.allocations_per_op = per_op;
    }

    /// The report.
    pub(crate) fn end(self, rig: &Rig) -> CaseReport {
        let now = rig.cache.stats().counters;
        let hits = now.read_ops_hit - self.counters_before.read_ops_hit;
        let misses = now.read_ops_missed - self.counters_before.read_ops_missed;
        let reads = hits + misses;
        let ops_per_second = Spread::of(self.ops_per_second);
        let bytes = rig.plan.block_bytes as f64;
        CaseReport {
            label: rig.plan.label(),
            plan: rig.plan.clone(),
            ns_per_op: Spread::of(self.ns_per_op),
            cpu_ns_per_op: Spread::of(self.cpu_ns_per_op),
            all_cpu_ns_per_op: Spread::of(self.all_cpu_ns_per_op),
            ops_per_second,
            bytes_per_second: ops_per_second.map(|operations| operations * bytes),
            latencies: self
                .latencies
                .iter()
                .map(|(what, runs)| (what.clone(), LatencySpread::of(runs)))
                .collect(),
            clock_read_ns: clock_read_nanos(),
            hit_ratio: (reads > 0).then(|| hits as f64 / reads as f64),
            store: StoreReport::new(rig.store.counts().since(&self.store_before)),
            memory: self.memory.unwrap_or_else(|| rig.memory()),
            peak_rss_bytes: memory::peak_bytes(),
            allocations_per_op: self.allocations_per_op,
            more: self
                .more
                .into_iter()
                .map(|(what, figures)| (what, Spread::of(figures)))
                .collect(),
        }
    }
}

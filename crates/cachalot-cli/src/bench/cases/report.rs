//! What a case found: medians over its runs, as JSON and as a table.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::null_store::StoreCounts;
use super::plan::Plan;
use crate::bench::report::human_nanos;
use crate::output::human_bytes;

/// With less data than this, the process's growth is mostly that of threads and tables.
const RESIDENT_DATA_MIN: u64 = 48 << 20;

/// One figure over several runs.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The middle of the figures, and their ends; all zero when there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self {
            median,
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
        }
    }

    pub(crate) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self {
            median: change(self.median),
            min: change(self.min),
            max: change(self.max),
        }
    }
}

/// Latencies in nanoseconds: each quantile over the runs.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LatencySpread {
    pub(crate) samples: u64,
    pub(crate) p50_ns: Spread,
    pub(crate) p99_ns: Spread,
    pub(crate) p999_ns: Spread,
    pub(crate) max_ns: Spread,
}

impl LatencySpread {
    /// Reads the quantiles off one histogram for each run.
    pub(crate) fn of(runs: &[Histogram<u64>]) -> Self {
        let at = |quantile: f64| {
            let of = |run: &Histogram<u64>| run.value_at_quantile(quantile) as f64;
            Spread::of(runs.iter().filter(|run| !run.is_empty()).map(of))
        };
        Self {
            samples: runs.iter().map(Histogram::len).sum(),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: Spread::of(runs.iter().map(|run| run.max() as f64)),
        }
    }
}

/// What the cache held at the end, and what that took.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct MemoryReport {
    pub(crate) data_bytes: u64,
    /// What the cache says it takes, data and overhead.
    pub(crate) charged_bytes: u64,
    /// By how much the process grew since before the cache was started.
    pub(crate) resident_bytes: u64,
    /// Overhead for each 4 KiB of data, by the cache's own books.
    pub(crate) charged_overhead_per_4k: f64,
    /// Overhead for each 4 KiB of data, by the process's growth; `None` where there is too little data to tell.
    pub(crate) resident_overhead_per_4k: Option<f64>,
}

impl MemoryReport {
    pub(crate) fn new(data_bytes: u64, charged_bytes: u64, resident_bytes: u64) -> Self {
        let blocks = (data_bytes as f64 / 4096.0).max(1.0);
        let over = |bytes: u64| (bytes as f64 - data_bytes as f64) / blocks;
        Self {
            data_bytes,
            charged_bytes,
            resident_bytes,
            charged_overhead_per_4k: over(charged_bytes),
            resident_overhead_per_4k: (data_bytes >= RESIDENT_DATA_MIN)
                .then(|| over(resident_bytes)),
        }
    }
}

/// What reached the store over all measured runs.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StoreReport {
    pub(crate) operations: StoreCounts,
    pub(crate) read_bytes_mean: f64,
    pub(crate) write_bytes_mean: f64,
}

impl StoreReport {
    pub(crate) fn new(operations: StoreCounts) -> Self {
        let mean = |bytes: u64, operations: u64| bytes as f64 / operations.max(1) as f64;
        Self {
            operations,
            read_bytes_mean: mean(operations.read_bytes, operations.reads),
            write_bytes_mean: mean(operations.write_bytes, operations.writes),
        }
    }
}

/// All figures of one measurement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct CaseReport {
    pub(crate) label: String,
    pub(crate) plan: Plan,
    /// The time of an operation as its caller sees it.
    pub(crate) ns_per_op: Spread,
    /// The processor time of an operation in its caller's thread, which other work on the machine disturbs less.
    pub(crate) cpu_ns_per_op: Spread,
    /// The processor time of an operation in all threads of the process: callers, actors, timer.
    pub(crate) all_cpu_ns_per_op: Spread,
    /// Operations of all threads together.
    pub(crate) ops_per_second: Spread,
    pub(crate) bytes_per_second: Spread,
    /// Single latencies by what was timed; `operation` is what the case is about.
    pub(crate) latencies: BTreeMap<String, LatencySpread>,
    /// What each of these latencies has in it for reading the clock.
    pub(crate) clock_read_ns: f64,
    /// Reads answered from memory; `None` where nothing is read.
    pub(crate) hit_ratio: Option<f64>,
    pub(crate) store: StoreReport,
    pub(crate) memory: MemoryReport,
    pub(crate) peak_rss_bytes: u64,
    /// In the caller's thread; `None` unless built with `count-allocations`, or where callers wait for others.
    pub(crate) allocations_per_op: Option<f64>,
    /// Figures of this case alone.
    pub(crate) more: BTreeMap<String, Spread>,
}

/// All measurements of one command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct CasesReport {
    pub(crate) cases: Vec<CaseReport>,
}

type Cell = fn(&CaseReport) -> String;

fn latency(report: &CaseReport, of: fn(&LatencySpread) -> Spread) -> String {
    let operation = report.latencies.get("operation");
    operation.map_or_else(|| "-".to_owned(), |spread| human_nanos(of(spread).median))
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 1e4 => format!("{rate:.0}"),
        rate if rate < 1e6 => format!("{:.0}k", rate / 1e3),
        rate => format!("{:.2}M", rate / 1e6),
    }
}

const COLUMNS: [(&str, Cell); 13] = [
    ("case", |report| report.label.clone()),
    ("an operation", |report| {
        let Spread { median, min, max } = report.ns_per_op;
        let [median, min, max] = [median, min, max].map(human_nanos);
        format!("{median} ({min} .. {max})")
    }),
    ("CPU, all", |report| {
        let [own, all] = [report.cpu_ns_per_op, report.all_cpu_ns_per_op];
        [own, all].map(|cpu| human_nanos(cpu.median)).join(", ")
    }),
    ("op/s", |report| rate(report.ops_per_second.median)),
    ("MiB/s", |report| {
        format!(
            "{:.0}",
            report
                .bytes_per_second
                .map(|bytes| bytes / 1_048_576.0)
                .median
        )
    }),
    ("p50", |report| latency(report, |spread| spread.p50_ns)),
    ("p99", |report| latency(report, |spread| spread.p99_ns)),
    ("p99.9", |report| latency(report, |spread| spread.p999_ns)),
    ("max", |report| latency(report, |spread| spread.max_ns)),
    ("hits", |report| {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        report.hit_ratio.map_or_else(|| "-".to_owned(), percent)
    }),
    ("store r, w (mean)", |report| {
        let store = &report.store;
        let (reads, writes) = (store.operations.reads, store.operations.writes);
        format!(
            "{} ({:.0}), {} ({:.0})",
            rate(reads as f64),
            store.read_bytes_mean,
            rate(writes as f64),
            store.write_bytes_mean
        )
    }),
    ("over 4k", |report| {
        let memory = &report.memory;
        let resident = memory.resident_overhead_per_4k;
        let resident = resident.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}"));
        format!("{:.0}, {resident}", memory.charged_overhead_per_4k)
    }),
    ("peak", |report| human_bytes(report.peak_rss_bytes)),
];

impl CasesReport {
    /// The figures, one measurement a line.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_header(COLUMNS.map(|(name, _)| name));
        for report in &self.cases {
            table.add_row(COLUMNS.map(|(_, cell)| cell(report)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let clock = Spread::of(self.cases.iter().map(|case| case.clock_read_ns)).median;
        let mut text = format!(
            "{table}\n\
             Medians over the runs, in brackets the least and the most. An operation: blocks of many, by the caller's \
             clock. CPU, all: processor time of the caller's thread, and of all threads.\np50 to max: a pass of its own that times each, with {clock:.0} ns in each for reading the clock.\n\
             over 4k: bytes of overhead for each 4 KiB held, as charged, and by the growth of the process.\n"
        );
        for report in &self.cases {
            for (what, spread) in &report.more {
                let Spread { median, min, max } = spread;
                text.push_str(&format!(
                    "{}: {what} {median:.1} ({min:.1} .. {max:.1})\n",
                    report.label
                ));
            }
            for (what, latency) in report
                .latencies
                .iter()
                .filter(|(what, _)| *what != "operation")
            {
                let quantiles = [
                    ("p50", latency.p50_ns),
                    ("p99", latency.p99_ns),
                    ("p99.9", latency.p999_ns),
                    ("max", latency.max_ns),
                ]
                .map(|(name, spread)| format!("{name} {}", human_nanos(spread.median)));
                text.push_str(&format!(
                    "{}: {what} {}\n",
                    report.label,
                    quantiles.join(", ")
                ));
            }
            if let Some(allocations) = report.allocations_per_op {
                text.push_str(&format!(
                    "{}: {allocations:.2} allocations an operation\n",
                    report.label
                ));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        let of = |figures: &[f64]| {
            let Spread { median, min, max } = Spread::of(figures.iter().copied());
            [median, min, max]
                .map(|figure| format!("{figure}"))
                .join(" ")
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), "2 1 3");
        assert_eq!(of(&[4.0, 1.0]), "2.5 1 4");
        assert_eq!(of(&[7.0]), "7 7 7");
        assert_eq!(of(&[]), "0 0 0");
    }

    #[test]
    fn overhead_is_what_is_taken_beyond_the_data() {
        let memory = MemoryReport::new(64 << 20, (64 << 20) + (1 << 20), 128 << 20);
        assert!((memory.charged_overhead_per_4k - 64.0).abs() < 1e-9);
        assert_eq!(memory.resident_overhead_per_4k, Some(4096.0));
        let little = MemoryReport::new(4096, 8192, 1 << 20);
        assert_eq!(little.resident_overhead_per_4k, None);
    }
}

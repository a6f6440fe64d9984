//! What the benchmark found, as numbers, as a table and as bars.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::chart::{Bar, render};
use super::run::Latencies;
use super::workload::{Pattern, Workload};
use crate::output::human_bytes;

const CHART_WIDTH: usize = 40;

/// Latencies in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct LatencyReport {
    pub(crate) operations: u64,
    pub(crate) mean_ns: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) max_ns: u64,
}

impl LatencyReport {
    /// Reads the figures off a histogram; all zero when that is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            operations: histogram.len(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// What the store had to do, per side.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct StoreReport {
    /// The operations asked for since the warm-up ended, by this count.
    pub(crate) operations_asked: u64,
    /// Reads that reached the store.
    pub(crate) reads: u64,
    /// Writes that reached the store, those of the last flush with them.
    pub(crate) writes: u64,
    /// The bytes of these reads.
    pub(crate) read_bytes: u64,
    /// The bytes of these writes.
    pub(crate) write_bytes: u64,
}

impl StoreReport {
    /// The share of operations that never became one of the store's; below zero when there were more.
    pub(crate) fn saved_share(&self) -> f64 {
        if self.operations_asked == 0 {
            return 0.0;
        }
        1.0 - (self.reads + self.writes) as f64 / self.operations_asked as f64
    }
}

/// What one side did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SideReport {
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) ops_per_second: f64,
    pub(crate) mib_per_second: f64,
    /// How long it took after the end until everything was safe on the store's disk.
    pub(crate) settle_seconds: f64,
    /// Operations a second when that time counts too.
    pub(crate) ops_per_second_settled: f64,
    pub(crate) reads: LatencyReport,
    pub(crate) writes: LatencyReport,
    /// The share of reads that were answered from memory; `None` without a cache.
    pub(crate) hit_ratio: Option<f64>,
    pub(crate) store: StoreReport,
    pub(crate) store_operations_saved_share: f64,
}

impl SideReport {
    /// Works out the figures.
    pub(crate) fn new(
        latencies: &Latencies,
        block_bytes: u64,
        (measured, settle): (Duration, Duration),
        hit_ratio: Option<f64>,
        store: StoreReport,
    ) -> Self {
        let operations = latencies.reads.len() + latencies.writes.len();
        let seconds = measured.as_secs_f64().max(1e-9);
        let settle_seconds = settle.as_secs_f64();
        let ops_per_second = operations as f64 / seconds;
        Self {
            operations,
            seconds,
            ops_per_second,
            mib_per_second: ops_per_second * block_bytes as f64 / f64::from(1 << 20),
            settle_seconds,
            ops_per_second_settled: operations as f64 / (seconds + settle_seconds),
            reads: LatencyReport::of(&latencies.reads),
            writes: LatencyReport::of(&latencies.writes),
            hit_ratio,
            store,
            store_operations_saved_share: store.saved_share(),
        }
    }
}

/// What both sides did, and what they were asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchReport {
    pub(crate) store: String,
    /// The volume that was there, if that was measured.
    pub(crate) volume: Option<String>,
    pub(crate) store_delay_ns: u64,
    pub(crate) workload: Workload,
    pub(crate) threads: usize,
    pub(crate) in_flight: usize,
    pub(crate) cache_bytes: u64,
    pub(crate) dirty_bytes_max: u64,
    pub(crate) cache: Option<SideReport>,
    pub(crate) direct: Option<SideReport>,
}

/// What each side promises, so that the figures are read for what they are.
pub(crate) const GUARANTEES: &str = "\
cache:  a write is acknowledged from memory; the store has it after the next flush, or when it has grown old
direct: a write is acknowledged by the store; it survives this process, and after a sync a loss of power
";

type Row = (&'static str, fn(&SideReport) -> String);

const ROWS: [Row; 14] = [
    ("operations/s", |side| format!("{:.0}", side.ops_per_second)),
    ("MiB/s", |side| format!("{:.0}", side.mib_per_second)),
    ("settling (flush, sync)", |side| {
        human_nanos(side.settle_seconds * 1e9)
    }),
    ("operations/s, settling counted", |side| {
        format!("{:.0}", side.ops_per_second_settled)
    }),
    ("read p50", |side| human_nanos(side.reads.p50_ns as f64)),
    ("read p99", |side| human_nanos(side.reads.p99_ns as f64)),
    ("read max", |side| human_nanos(side.reads.max_ns as f64)),
    ("write p50", |side| human_nanos(side.writes.p50_ns as f64)),
    ("write p99", |side| human_nanos(side.writes.p99_ns as f64)),
    ("write max", |side| human_nanos(side.writes.max_ns as f64)),
    ("read hits", |side| {
        side.hit_ratio.map_or_else(|| "-".to_owned(), percent)
    }),
    ("store reads", |side| side.store.reads.to_string()),
    ("store writes", |side| side.store.writes.to_string()),
    ("store operations saved", |side| {
        percent(side.store_operations_saved_share)
    }),
];

impl BenchReport {
    /// The workload in a few words.
    pub(crate) fn headline(&self) -> String {
        let workload = &self.workload;
        let pattern = match workload.pattern {
            Pattern::Uniform => "uniform".to_owned(),
            Pattern::Sequential => "in order".to_owned(),
            Pattern::Zipf { exponent } => format!("zipf {exponent}"),
        };
        let volume = self.volume.as_ref();
        let volume = volume.map_or_else(String::new, |name| format!(", volume {name}"));
        let delay = match self.store_delay_ns {
            0 => String::new(),
            nanos => format!(" slowed by {}", human_nanos(nanos as f64)),
        };
        format!(
            "{} operations, {:.0} % reads, {pattern}, over {} in {} sets; {} threads, {} in flight\n\
             store {}{volume}{delay}; cache {}, dirty up to {}; seed {}\n",
            human_bytes(workload.block_bytes),
            workload.read_share * 100.0,
            human_bytes(workload.set_bytes() * workload.sets as u64),
            workload.sets,
            self.threads,
            self.in_flight,
            self.store,
            human_bytes(self.cache_bytes),
            human_bytes(self.dirty_bytes_max),
            workload.seed,
        )
    }

    fn sides(&self) -> impl Iterator<Item = (&'static str, &SideReport)> {
        let sides = [("cache", &self.cache), ("direct", &self.direct)];
        sides
            .into_iter()
            .filter_map(|(name, side)| Some((name, side.as_ref()?)))
    }

    /// The figures side by side.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        let header = std::iter::once("").chain(self.sides().map(|(name, _)| name));
        table
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_header(header);
        for (label, value) in ROWS {
            let row = std::iter::once(label.to_owned());
            table.add_row(row.chain(self.sides().map(|(_, side)| value(side))));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n")
    }

    /// The figures that matter most, as bars.
    pub(crate) fn charts(&self) -> String {
        let bars = |value: fn(&SideReport) -> f64, text: fn(&SideReport) -> String| {
            let bars = self.sides().map(|(name, side)| Bar {
                label: name.to_owned(),
                value: value(side),
                text: text(side),
            });
            bars.collect::<Vec<Bar>>()
        };
        let speed = bars(
            |side| side.ops_per_second,
            |side| format!("{:.0}", side.ops_per_second),
        );
        let tail = bars(
            |side| side.reads.p99_ns.max(side.writes.p99_ns) as f64,
            |side| human_nanos(side.reads.p99_ns.max(side.writes.p99_ns) as f64),
        );
        let calls = bars(
            |side| 1.0 - side.store_operations_saved_share,
            |side| format!("{:.3}", 1.0 - side.store_operations_saved_share),
        );
        [
            render("operations/s (longer is better)", &speed, CHART_WIDTH),
            render(
                "p99 latency, reads or writes (shorter is better)",
                &tail,
                CHART_WIDTH,
            ),
            render(
                "store calls per operation (shorter is better)",
                &calls,
                CHART_WIDTH,
            ),
        ]
        .concat()
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A time as people write it, with three digits.
pub(crate) fn human_nanos(nanos: f64) -> String {
    let (value, unit) = match nanos {
        nanos if nanos < 1e3 => return format!("{nanos:.0} ns"),
        nanos if nanos < 1e6 => (nanos / 1e3, "µs"),
        nanos if nanos < 1e9 => (nanos / 1e6, "ms"),
        nanos => (nanos / 1e9, "s"),
    };
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::OpKind;

    fn latencies() -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=1000 {
            latencies.record(OpKind::Read, Duration::from_micros(micros));
        }
        latencies.record(OpKind::Write, Duration::from_millis(2));
        latencies
    }

    #[test]
    fn quantiles_are_read_off_to_three_digits() {
        let report = LatencyReport::of(&latencies().reads);
        assert_eq!(report.operations, 1000);
        for (found, expected) in [
            (report.p50_ns, 500_000.0),
            (report.p99_ns, 990_000.0),
            (report.max_ns, 1_000_000.0),
        ] {
            let error = (found as f64 / expected - 1.0).abs();
            assert!(error < 0.002, "{found} instead of {expected}");
        }
        assert_eq!(
            LatencyReport::of(&Latencies::new().unwrap().reads),
            LatencyReport::default()
        );
    }

    #[test]
    fn a_side_counts_its_settling_and_what_the_store_was_spared() {
        let store = StoreReport {
            operations_asked: 1000,
            reads: 50,
            writes: 50,
            ..StoreReport::default()
        };
        let times = (Duration::from_secs(1), Duration::from_secs(1));
        let side = SideReport::new(&latencies(), 4096, times, Some(0.5), store);
        assert_eq!(side.operations, 1001);
        assert!((side.ops_per_second - 1001.0).abs() < 0.01);
        assert!((side.ops_per_second_settled - 500.5).abs() < 0.01);
        assert!((side.store_operations_saved_share - 0.9).abs() < 1e-9);
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (nanos, text) in [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (1234.0, "1.23 µs"),
            (45_600.0, "45.6 µs"),
            (789_000_000.0, "789 ms"),
            (12e9, "12.0 s"),
        ] {
            assert_eq!(human_nanos(nanos), text);
        }
    }

    #[test]
    fn the_table_and_the_charts_show_the_sides_that_ran() {
        let times = (Duration::from_secs(1), Duration::ZERO);
        let side = SideReport::new(&latencies(), 4096, times, None, StoreReport::default());
        let report = BenchReport {
            store: "memory:".to_owned(),
            volume: Some("disk".to_owned()),
            store_delay_ns: 0,
            workload: Workload {
                sets: 1,
                working_set_bytes: 1 << 20,
                block_bytes: 4096,
                read_share: 0.7,
                pattern: Pattern::Uniform,
                seed: 5,
            },
            threads: 1,
            in_flight: 1,
            cache_bytes: 1 << 20,
            dirty_bytes_max: 1 << 19,
            cache: None,
            direct: Some(side),
        };
        let text = report.table() + &report.charts() + &report.headline();
        assert!(
            text.contains("direct") && !text.contains("cache  "),
            "{text}"
        );
        assert!(text.contains("1001") && text.contains("seed 5"), "{text}");
        assert!(text.contains("store memory:, volume disk; "), "{text}");
        assert_eq!(
            report
                .table()
                .lines()
                .filter(|line| line.contains("p99"))
                .count(),
            2
        );
    }
}

//! What the process held, as JSON and as a table.

use cachalot::Cache;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::Filling;
use crate::output::human_bytes;

/// What buffers of 4 KiB take beyond their bytes, each.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Overhead {
    pub(super) buffers: u64,
    /// By the cache's own books.
    pub(super) charged_bytes: f64,
    /// By the growth of the process, which includes what the allocator adds and keeps.
    pub(super) resident_bytes: f64,
}

impl Overhead {
    /// Of all that the cache holds, by which the process has grown so much.
    pub(super) fn of(cache: &Cache, grown_bytes: u64) -> Self {
        let stats = cache.stats();
        let gauges = stats.gauges;
        let data = gauges.clean_bytes + gauges.dirty_bytes + gauges.tx_bytes;
        let buffers = gauges.clean_buffers + gauges.dirty_buffers + gauges.tx_buffers;
        let each = |bytes: f64| (bytes - data as f64) / buffers.max(1) as f64;
        Self {
            buffers,
            charged_bytes: each(stats.charged.room as f64),
            resident_bytes: each(grown_bytes as f64),
        }
    }
}

/// One case.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct MemoryCaseReport {
    pub(super) filling: Filling,
    pub(super) cache_bytes: u64,
    pub(super) operations: u64,
    /// What the cache said at the end that it held.
    pub(super) charged_bytes: u64,
    /// What the process held then.
    pub(super) resident_bytes: u64,
    /// The part of that which is pages of the program and its libraries.
    pub(super) program_bytes: u64,
    /// The most that it ever held.
    pub(super) peak_bytes: u64,
    /// A tenth and 16 MiB more than the limit.
    pub(super) bound_bytes: u64,
    /// Where buffers of one size were all that came in.
    pub(super) overhead: Option<Overhead>,
}

impl MemoryCaseReport {
    pub(super) const fn is_within(&self) -> bool {
        self.peak_bytes <= self.bound_bytes
    }
}

/// All cases of one command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct MemoryCasesReport {
    pub(super) cases: Vec<MemoryCaseReport>,
}

impl MemoryCasesReport {
    /// One case a line.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
            "case",
            "limit",
            "operations",
            "charged at the end",
            "resident at the end",
            "peak",
            "bound",
            "within",
            "a buffer's overhead, charged and grown",
        ]);
        for case in &self.cases {
            let overhead = case.overhead.map_or_else(
                || "-".to_owned(),
                |overhead| {
                    let (charged, grown) = (overhead.charged_bytes, overhead.resident_bytes);
                    format!("{charged:.0}, {grown:.0} bytes")
                },
            );
            table.add_row([
                case.filling.name(),
                human_bytes(case.cache_bytes),
                case.operations.to_string(),
                human_bytes(case.charged_bytes),
                human_bytes(case.resident_bytes),
                human_bytes(case.peak_bytes),
                human_bytes(case.bound_bytes),
                if case.is_within() { "yes" } else { "NO" }.to_owned(),
                overhead,
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n")
    }
}

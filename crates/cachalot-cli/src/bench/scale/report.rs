//! What steps cost, as JSON and as a table.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::Step;
use crate::bench::report::human_nanos;

/// One step over so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StepReport {
    pub(super) step: Step,
    pub(super) factor: u64,
    pub(super) n: u64,
    /// The processor time of all threads, from when all was prepared until the step was done.
    pub(super) cpu_ns: u64,
    /// What reached the store meanwhile.
    pub(super) store_operations: u64,
    /// What was stored or dropped, where it is that which the step is for.
    pub(super) bytes: u64,
}

/// All of one command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct ScaleReport {
    pub(super) steps: Vec<StepReport>,
}

impl ScaleReport {
    /// One measurement a line.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
            "step",
            "n",
            "CPU",
            "of each",
            "store operations",
        ]);
        for step in &self.steps {
            let (cpu, n) = (step.cpu_ns as f64, step.n.max(1) as f64);
            table.add_row([
                step.step.name(),
                step.n.to_string(),
                human_nanos(cpu),
                human_nanos(cpu / n),
                step.store_operations.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\nWhere the time of each stays, the step grows with n, and no faster.\n")
    }
}

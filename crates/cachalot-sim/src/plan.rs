//! What a run does, drawn from its seed before it starts: so that a failing run can be repeated with parts left out.

mod draw;
mod fencing;

use std::collections::BTreeSet;
use std::time::Duration;

use cachalot::backend::{Capabilities, FaultPlan, StoreCondition};
use cachalot::{CacheConfig, Hints};

use crate::space::{Part, Space};

/// Everything that happens in a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it comes from.
    pub seed: u64,
    /// The limits at the start.
    pub config: CacheConfig,
    /// What the store promises.
    pub capabilities: Capabilities,
    /// The store's answer to "may a first write copy from a parent?".
    pub copy_on_write: bool,
    /// Whether the store ever fails.
    pub is_faulty: bool,
    /// How likely a write that was given up is stored later.
    pub late_stores: f64,
    /// The sets.
    pub sets: Vec<SetPlan>,
    /// What each caller does, one after the other.
    pub callers: Vec<Vec<Step>>,
    /// What the operator does.
    pub operator: Vec<Step>,
    /// Whether the cache is abandoned at the end, rather than closed.
    pub is_abandoned: bool,
}

/// A set and how it is used.
#[derive(Clone, Debug)]
pub struct SetPlan {
    /// Its bytes.
    pub space: Space,
    /// What the store holds of it at the start.
    pub stored: Vec<Part>,
    /// Whether absent objects are errors.
    pub not_found: bool,
    /// Whether it writes through until its first flush.
    pub until_flush: bool,
    /// What callers do to it beside reading and writing.
    pub ways: Ways,
}

/// What is done to a set beside reading and writing. Not everything goes together: what is dropped from the store under
/// a snapshot is the application's own affair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ways {
    /// Flushes and drops of clean bytes alone.
    Plain,
    /// Discards and truncations too.
    Discards,
    /// Purges too.
    Purges,
    /// Snapshots are taken and read.
    Snapshots,
    /// The file is truncated.
    Truncations,
}

/// Something that a caller does.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its number in the plan.
    pub id: u32,
    /// How long the caller waits before.
    pub pause: Duration,
    /// What it does.
    pub op: Op,
    /// How long it waits for the answer.
    pub patience: Patience,
}

/// How long a caller waits for an answer before it drops the future.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Until it comes.
    Endless,
    /// So many polls.
    Polls(u32),
    /// So long.
    Time(Duration),
}

/// How a request is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The handle's method that takes requests.
    Request,
    /// The handle's method that takes a file offset, or an object and an offset, where one part is asked for.
    Offset,
    /// A message to the set's actor.
    Message,
}

/// An operation.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is named after the call that it makes")]
pub enum Op {
    Read {
        set: usize,
        parts: Vec<Part>,
        way: Way,
        hints: Hints,
        snap: Option<u32>,
    },
    Prefetch {
        set: usize,
        parts: Vec<Part>,
        hints: Hints,
    },
    Write {
        set: usize,
        parts: Vec<Part>,
        way: Way,
        hints: Hints,
        journal: bool,
    },
    Flush {
        set: usize,
        part: Option<Part>,
    },
    FlushAll,
    Discard {
        set: usize,
        part: Part,
    },
    Truncate {
        set: usize,
        at: u32,
    },
    TruncateFile {
        set: usize,
        at: u32,
    },
    Purge {
        set: usize,
    },
    Release {
        set: usize,
    },
    ReleaseAll,
    ClearNonexistence {
        set: usize,
    },
    IsCached {
        set: usize,
        part: Part,
    },
    Status {
        set: usize,
    },
    Dump,
    Audit,
    Snapshot {
        set: usize,
    },
    Close {
        set: usize,
    },
    /// Another client takes over the set: the store refuses its writes, and its reads too if so.
    Fence {
        set: usize,
        reads: bool,
    },
    /// If the set was fenced, it is abandoned and opened again, as the client that the store knows.
    GiveUp {
        set: usize,
    },
    SetLimits(CacheConfig),
    Store {
        condition: StoreCondition,
        faults: FaultPlan,
    },
}

impl Plan {
    /// The numbers of all steps.
    #[must_use]
    pub fn step_ids(&self) -> Vec<u32> {
        let all = self.callers.iter().flatten().chain(&self.operator);
        let mut ids: Vec<u32> = all.map(|step| step.id).collect();
        ids.sort_unstable();
        ids
    }

    /// The same run with only these steps.
    #[must_use]
    pub fn only(&self, kept: &BTreeSet<u32>) -> Self {
        let mut plan = self.clone();
        for steps in plan.callers.iter_mut().chain([&mut plan.operator]) {
            steps.retain(|step| kept.contains(&step.id));
        }
        plan
    }
}

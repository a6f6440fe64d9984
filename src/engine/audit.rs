//! Checking the set against itself (rule B-02), and listing what it holds (rule L-06).

use serde::{Deserialize, Serialize};

use super::extent::BufferState;
use super::object::{Object, range_of};
use super::set::{Op, SetEngine};
use super::shelf::Shelf;
use super::window::{Charge, Totals};
use crate::types::{ByteRange, JournalTid, Moment, ObjectKey, SnapId};

/// What an audit found wrong first.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("audit of object {object}: {wrong}")]
pub struct AuditFailure {
    /// The object, or the set itself.
    pub object: String,
    /// What is wrong.
    pub wrong: String,
}

/// What an audit recounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Recount {
    /// What the set costs the cache's limits.
    pub charge: Charge,
    /// Bytes and buffers in each state.
    pub totals: Totals,
    /// Objects known.
    pub objects: i64,
}

/// One object as it is cached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectListing {
    /// The object.
    pub object: ObjectKey,
    /// Its snapshot, or the head.
    pub snap: SnapId,
    /// It exists in the store, as far as is known.
    pub exists: bool,
    /// What is not cached of it is zeros.
    pub complete: bool,
    /// The tids of fetches under way.
    pub fetches: Vec<u64>,
    /// The tids of writebacks under way.
    pub writebacks: Vec<u64>,
    /// Failed writebacks since the last success.
    pub failures: u32,
    /// Its buffers in order.
    pub buffers: Vec<BufferListing>,
}

/// One buffer as it is cached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BufferListing {
    /// The bytes of the object that it holds.
    pub range: ByteRange,
    /// Its state.
    pub state: BufferState,
    /// The tid of the fetch or writeback under way.
    pub tid: Option<u64>,
    /// The journal entry that holds its bytes.
    pub journal_tid: Option<JournalTid>,
    /// For how long its bytes have been dirty, in nanoseconds.
    pub dirty_for_nanos: Option<u64>,
}

impl<S: Shelf> SetEngine<S> {
    /// Recounts everything and names the first thing that is wrong.
    pub(crate) fn audit(&mut self) -> Result<Recount, AuditFailure> {
        self.adopt();
        self.finish();
        let mut recount = Recount {
            charge: self.held_by_writes(),
            ..Recount::default()
        };
        for (_, object) in &self.objects {
            recount.objects += 1;
            let fail = |wrong: String| AuditFailure {
                object: object.name.to_string(),
                wrong,
            };
            if self
                .by_ref
                .get(&object.id)
                .and_then(|number| self.objects.get(*number))
                .is_none()
            {
                return Err(fail("it is filed under another name".to_owned()));
            }
            let mut in_flight = 0i64;
            for (index, number) in &object.windows {
                let Some(entry) = self.windows.get(*number) else {
                    return Err(fail(format!("window {index} is gone")));
                };
                let guard = S::lock(&entry.slot);
                guard
                    .audit()
                    .map_err(|wrong| fail(format!("window {index}: {wrong}")))?;
                if guard.settled().charge != guard.charge()
                    || guard.settled().totals != *guard.totals()
                {
                    return Err(fail(format!("window {index} is not settled")));
                }
                if !self.is_watched_rightly(&guard, &entry.watches) {
                    return Err(fail(format!("window {index} is watched wrongly")));
                }
                if guard.closed || entry.index != *index {
                    return Err(fail(format!("window {index} is filed wrongly")));
                }
                for (_, extent) in guard.iter() {
                    self.audit_op(extent.state)
                        .map_err(|wrong| fail(wrong.to_owned()))?;
                }
                recount.charge += guard.charge();
                recount.totals += *guard.totals();
                in_flight += guard.totals().bytes_in(BufferState::Tx);
            }
            let carried: u64 = object
                .writebacks
                .values()
                .flat_map(|flight| flight.ranges.iter().map(|range| range.len()))
                .sum();
            if in_flight > i64::try_from(carried).unwrap_or(i64::MAX) {
                return Err(fail(
                    "more is in flight than its writebacks carry".to_owned(),
                ));
            }
        }
        self.audit_lists().map_err(|(object, wrong)| AuditFailure {
            object: object.map_or_else(|| "none".to_owned(), |object| object.name.to_string()),
            wrong: wrong.to_owned(),
        })?;
        Ok(recount)
    }

    /// Compares the set's lists with what its objects say of themselves.
    fn audit_lists(&self) -> Result<(), (Option<&Object>, &'static str)> {
        let (mut windows, mut writebacks, mut due, mut idle) = (0, 0, 0, 0);
        for (number, object) in &self.objects {
            windows += object.windows.len();
            writebacks += object.writebacks.len();
            due += usize::from(object.due.is_some());
            idle += usize::from(object.idle_since.is_some());
            if let Some(wrong) = self.audit_object(number, object) {
                return Err((Some(object), wrong));
            }
        }
        let pins: u32 = self.windows.iter().map(|(_, entry)| entry.pins).sum();
        let fetches = self.ops.len() - writebacks;
        let pinned = fetches + self.pins_of_reads();
        let watches = self.windows.iter().map(|(_, entry)| entry.watches.len());
        let checks = [
            (windows == self.windows.len(), "a window is lost"),
            (
                writebacks == self.writebacks_in_flight,
                "writebacks are miscounted",
            ),
            (due == self.aging.len(), "ages are miscounted"),
            (
                self.claims_keep_nothing(),
                "a read that waits for room keeps what others may wait for",
            ),
            (idle == self.idle.len(), "idle objects are miscounted"),
            (
                self.objects.len() == self.by_ref.len(),
                "an object has no name",
            ),
            (
                watches.sum::<usize>() == self.reads.len()
                    && self.reads.values().all(|read| read.watch.is_some()),
                "a read waits for nothing that it lacks",
            ),
            (
                self.due.is_empty(),
                "a read for which bytes came in was not looked at",
            ),
            (
                usize::try_from(pins) == Ok(pinned),
                "windows are pinned by nobody",
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, wrong)) => Err((None, wrong)),
            None => Ok(()),
        }
    }

    /// What is wrong with where the object stands on the set's lists.
    fn audit_object(&self, number: usize, object: &Object) -> Option<&'static str> {
        let is_unstored = !object.listed.is_empty() || !object.writebacks.is_empty();
        let is_filed = object.due.is_some() || object.is_parked;
        let is_under_way = |op| self.ops.contains_key(op);
        let checks = [
            (
                is_unstored == self.unstored.contains(&number),
                "the list of what is unstored is wrong",
            ),
            (
                is_filed != object.listed.is_empty(),
                "dirty bytes are filed under no age",
            ),
            (
                object
                    .due
                    .is_none_or(|due| self.aging.contains(&(due, number))),
                "the order of age is wrong",
            ),
            (
                object
                    .idle_since
                    .is_none_or(|since| self.idle.get(&since) == Some(&number)),
                "the list of idle objects is wrong",
            ),
            (
                object
                    .flushes
                    .iter()
                    .all(|flush| self.flushes.contains_key(&flush.waiter)),
                "it keeps a flush that nobody waits for",
            ),
            (
                object.writebacks.keys().all(is_under_way)
                    && object.fetches.iter().all(is_under_way)
                    && object.cut_fetches.keys().all(is_under_way),
                "it waits for an operation that is not under way",
            ),
            (
                !object.holds_nothing() || object.knows_something(),
                "nothing is left of it",
            ),
        ];
        let wrong = checks.into_iter().find(|(holds, _)| !holds);
        wrong.map(|(_, wrong)| wrong)
    }

    fn audit_op(&self, state: &super::extent::ExtentState) -> Result<(), &'static str> {
        use super::extent::ExtentState;
        match state {
            ExtentState::Rx { op } if !matches!(self.ops.get(op), Some(Op::Fetch(_))) => {
                Err("a buffer waits for a fetch that is not under way")
            }
            ExtentState::Tx { op, .. } if !matches!(self.ops.get(op), Some(Op::WriteBack(_))) => {
                Err("a buffer waits for a writeback that is not under way")
            }
            ExtentState::Rx { .. }
            | ExtentState::Tx { .. }
            | ExtentState::Clean
            | ExtentState::Zero
            | ExtentState::Dirty(_)
            | ExtentState::Error(_) => Ok(()),
        }
    }

    /// Lists what is cached, in the order of names.
    pub(crate) fn list(&mut self, now: Moment) -> Vec<ObjectListing> {
        self.adopt();
        self.finish();
        let objects = self
            .by_ref
            .values()
            .filter_map(|number| self.objects.get(*number));
        objects
            .map(|object| ObjectListing {
                object: object.id.key.clone(),
                snap: object.id.snap,
                exists: !object.absent,
                complete: object.complete,
                fetches: object.fetches.iter().map(|op| op.0).collect(),
                writebacks: object.writebacks.keys().map(|op| op.0).collect(),
                failures: object.retry.map_or(0, |retry| retry.failures),
                buffers: self.list_buffers(object, now),
            })
            .collect()
    }

    fn list_buffers(&self, object: &super::object::Object, now: Moment) -> Vec<BufferListing> {
        use super::extent::ExtentState;
        let mut buffers = Vec::new();
        for (index, number) in &object.windows {
            self.look(*number, |window| {
                for (span, extent) in window.iter() {
                    let Some(range) = range_of(*index, span) else {
                        continue;
                    };
                    let written = extent.state.written();
                    let tid = match extent.state {
                        ExtentState::Rx { op } | ExtentState::Tx { op, .. } => Some(op.0),
                        ExtentState::Clean
                        | ExtentState::Zero
                        | ExtentState::Dirty(_)
                        | ExtentState::Error(_) => None,
                    };
                    let age =
                        |since| u64::try_from(now.since(since).as_nanos()).unwrap_or(u64::MAX);
                    buffers.push(BufferListing {
                        range,
                        state: extent.state.kind(),
                        tid,
                        journal_tid: written.and_then(|written| written.journal),
                        dirty_for_nanos: written.map(|written| age(written.since)),
                    });
                }
            });
        }
        buffers
    }
}

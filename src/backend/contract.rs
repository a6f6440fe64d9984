//! The suite that every backend runs: one named check for each promise in [`backend`](super).
//!
//! ```
//! # use std::sync::Arc;
//! use cachalot::backend::{MemoryBackend, contract};
//!
//! # futures::executor::block_on(async {
//! contract::check(async || Arc::new(MemoryBackend::new()) as _).await?;
//! # Ok::<(), contract::Violations>(())
//! # })?;
//! # Ok::<(), contract::Violations>(())
//! ```
//!
//! The suite needs no particular runtime and never waits for time to pass. Its inputs are fixed, so a failure
//! repeats. It asks only for what a backend's [`Capabilities`] promise: a backend without scattered writes
//! is sent single runs, and snapshots are left out where there are none.

mod bytes;
mod concurrency;
mod names;
mod shape;
mod snapshots;
mod truncation;

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ::bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{Backend, BackendRead, BackendWrite, Capabilities, WriteRun};
use crate::error::BackendError;
use crate::types::{ByteRange, Hints, ObjectName, SnapContext, SnapId, Timestamp, Truncation};

type Outcome = Result<(), Broken>;
type CheckFn = for<'a> fn(&'a Bench) -> BoxFuture<'a, Outcome>;

/// Turns async functions into pairs of name and function.
macro_rules! checks {
    ($($module:ident :: $check:ident),* $(,)?) => {
        &[$((stringify!($check), |bench| $module::$check(bench).boxed())),*]
    };
}

/// Ends a check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::backend::contract::Broken(format!($($message)+)));
        }
    };
}
use ensure;

const CHECKS: &[(&str, CheckFn)] = checks![
    bytes::capabilities_make_sense,
    bytes::an_absent_object_is_not_found,
    bytes::the_first_write_creates_the_object,
    bytes::reads_past_the_end_are_short,
    bytes::holes_read_as_zeros,
    bytes::overwrites_replace_exactly_their_range,
    bytes::buffers_of_a_run_are_joined,
    bytes::runs_may_lie_apart,
    bytes::runs_may_touch,
    bytes::a_write_sent_twice_is_stored_once,
    bytes::hints_change_nothing,
    bytes::a_large_write_is_whole,
    bytes::far_offsets_fail_or_are_right,
    bytes::impossible_offsets_fail,
    bytes::small_answers_own_small_buffers,
    shape::discard_zeros_exactly_its_range,
    shape::discard_never_grows,
    shape::truncate_cuts,
    shape::truncate_grows_with_zeros,
    shape::what_was_cut_stays_cut,
    shape::an_absent_object_stays_absent,
    shape::remove_removes,
    shape::stat_tells_the_size,
    shape::sync_keeps_what_is_stored,
    shape::a_journal_notice_does_not_disturb,
    truncation::a_newer_truncation_cuts_before_it_stores,
    truncation::a_newer_truncation_bounds_reads,
    truncation::an_old_truncation_changes_nothing,
    truncation::a_truncation_on_a_new_object_is_kept,
    truncation::a_truncation_above_the_size_takes_nothing,
    truncation::a_truncating_write_sent_twice_is_stored_once,
    names::odd_names_are_kept_apart,
    names::names_that_nest_are_kept_apart,
    names::the_longest_names_are_kept_apart,
    names::list_goes_by_prefix,
    names::list_is_in_byte_order,
    names::list_goes_page_by_page,
    names::list_follows_create_and_remove,
    snapshots::a_newer_context_keeps_the_old_bytes,
    snapshots::one_clone_serves_several_snapshots,
    snapshots::an_object_is_absent_before_its_birth,
    snapshots::an_older_context_keeps_nothing_more,
    snapshots::a_snapshot_keeps_its_size,
    snapshots::changes_of_the_head_spare_snapshots,
    snapshots::a_snapshot_write_sent_twice_is_stored_once,
    concurrency::objects_do_not_disturb_each_other,
    concurrency::ranges_of_an_object_do_not_disturb_each_other,
    concurrency::futures_can_be_polled_on_any_thread,
    concurrency::ordered_writes_land_in_order,
    concurrency::a_write_given_up_never_undoes_a_later_one,
    concurrency::random_operations_match_a_plain_array,
];

/// Longer findings are cut: some checks use names of a thousand letters.
const WHAT_CHARS_MAX: usize = 600;

/// Runs every check, each on a backend of its own from `new`.
///
/// `new` may give the same store each time, and the store need not be empty: each check uses names of its own,
/// removes them before it starts, and removes them when it has passed.
///
/// # Errors
/// Every check that failed, with what it found; a panic inside a check counts as its failure.
pub async fn check<F>(new: F) -> Result<(), Violations>
where
    F: AsyncFn() -> Arc<dyn Backend>,
{
    run(CHECKS, new).await
}

/// Runs the one check with this name, to look closer at a failure.
///
/// # Errors
/// What it found; also when there is no such check.
pub async fn check_only<F>(name: &'static str, new: F) -> Result<(), Violations>
where
    F: AsyncFn() -> Arc<dyn Backend>,
{
    let Some(check) = CHECKS.iter().find(|(check, _)| *check == name) else {
        let what = "there is no such check".to_owned();
        return Err(Violations(vec![Violation { check: name, what }]));
    };
    run(std::slice::from_ref(check), new).await
}

async fn run<F>(checks: &[(&'static str, CheckFn)], new: F) -> Result<(), Violations>
where
    F: AsyncFn() -> Arc<dyn Backend>,
{
    let mut violations = Vec::new();
    for (name, run) in checks {
        let bench = Bench::new(name, new().await);
        let outcome = AssertUnwindSafe(run(&bench)).catch_unwind().await;
        let what = match outcome {
            Ok(Ok(())) => bench.clean_up().await.err().map(|broken| broken.0),
            Ok(Err(Broken(what))) => Some(what),
            Err(payload) => Some(format!("panicked: {}", panic_text(payload.as_ref()))),
        };
        violations.extend(what.map(|what| Violation {
            check: name,
            what: what.chars().take(WHAT_CHARS_MAX).collect(),
        }));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Violations(violations))
    }
}

/// The names of all checks, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// One promise that a backend does not keep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The check that failed.
    pub check: &'static str,
    /// What it found.
    pub what: String,
}

/// The promises that a backend does not keep.
#[derive(Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed checks: {}", self.0.len())?;
        for violation in &self.0 {
            write!(f, "\n  {}: {}", violation.check, violation.what)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violations {}

/// Why a check failed, in words.
struct Broken(String);

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// A backend under test, with calls that turn its answers into words when they are wrong.
struct Bench {
    check: &'static str,
    backend: Arc<dyn Backend>,
    names: Mutex<Vec<ObjectName>>,
}

impl Bench {
    fn new(check: &'static str, backend: Arc<dyn Backend>) -> Self {
        let names = Mutex::default();
        Self {
            check,
            backend,
            names,
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// An absent object whose name starts with the check's.
    async fn object(&self, label: &str) -> Result<ObjectName, Broken> {
        self.object_named(&format!("{}{label}", self.prefix()))
            .await
    }

    fn prefix(&self) -> String {
        format!("contract.{}.", self.check)
    }

    /// An absent object with just this name.
    async fn object_named(&self, name: &str) -> Result<ObjectName, Broken> {
        let object = ObjectName::new(name).map_err(|error| Broken(error.to_string()))?;
        self.clear(&object).await?;
        self.names.lock().push(object.clone());
        Ok(object)
    }

    async fn clear(&self, object: &ObjectName) -> Outcome {
        match self.backend.remove(object.clone()).await {
            Ok(()) | Err(BackendError::NotFound) => Ok(()),
            Err(error) => Err(Broken(format!("remove of {object:?}: {error}"))),
        }
    }

    async fn clean_up(&self) -> Outcome {
        let names = std::mem::take(&mut *self.names.lock());
        for object in names {
            self.clear(&object).await?;
        }
        Ok(())
    }

    async fn send(&self, write: BackendWrite) -> Outcome {
        let what = describe(&write);
        let outcome = self.backend.write(write).await;
        outcome.map_err(|error| Broken(format!("{what}: {error}")))
    }

    /// This length, or less where the backend takes no writes so large.
    fn at_most(&self, len: usize) -> usize {
        usize::try_from(self.capabilities().write_bytes_max).map_or(len, |most| len.min(most))
    }

    /// Stores `data` at `offset` in writes no larger than the backend takes.
    async fn store(&self, object: &ObjectName, offset: u64, data: &[u8]) -> Outcome {
        let mut at = offset;
        for piece in data.chunks(self.at_most(data.len()).max(1)) {
            self.send(write_of(object, at, piece)).await?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn store_owned(&self, object: &ObjectName, offset: u64, data: Vec<u8>) -> Outcome {
        self.store(object, offset, &data).await
    }

    /// Reads, pads with zeros to the length asked, and refuses an answer that is longer.
    async fn load(&self, read: BackendRead) -> Result<Vec<u8>, Broken> {
        let (object, snap, range) = (read.object.clone(), read.snap, read.range);
        let answer = self.backend.read(read).await;
        let bytes = answer
            .map_err(|error| Broken(format!("read of {object:?} at {snap:?}, {range}: {error}")))?;
        ensure!(
            bytes.len() as u64 <= range.len(),
            "read of {object:?} {range} gave {} bytes",
            bytes.len()
        );
        let mut bytes = bytes.to_vec();
        bytes.resize(usize::try_from(range.len()).unwrap_or(usize::MAX), 0);
        Ok(bytes)
    }

    async fn expect_read(&self, read: BackendRead, expected: &[u8]) -> Outcome {
        let what = format!("{:?} at {:?}, {}", read.object, read.snap, read.range);
        let start = read.range.start();
        let found = self.load(read).await?;
        if found == expected {
            return Ok(());
        }
        let mut pairs = found.iter().zip(expected);
        let at = pairs.position(|(found, expected)| found != expected);
        let at = at.unwrap_or(found.len().min(expected.len()));
        let (found, expected) = (found.get(at), expected.get(at));
        Err(Broken(format!(
            "{what}: byte {} is {found:?}, not {expected:?}",
            start + at as u64
        )))
    }

    /// Checks that the head holds `expected` at `offset`, where a short answer stands for zeros.
    async fn expect(&self, object: &ObjectName, offset: u64, expected: &[u8]) -> Outcome {
        let range = range(offset, expected.len() as u64)?;
        self.expect_read(read_of(object, range), expected).await
    }

    async fn expect_size(&self, object: &ObjectName, size_bytes: u64) -> Outcome {
        let stat = self.backend.stat(object.clone()).await;
        let stat = stat.map_err(|error| Broken(format!("stat of {object:?}: {error}")))?;
        ensure!(
            stat.size_bytes == size_bytes,
            "{object:?} has {} bytes, not {size_bytes}",
            stat.size_bytes
        );
        Ok(())
    }

    async fn expect_absent(&self, object: &ObjectName) -> Outcome {
        let answer = self.backend.read(read_of(object, range(0, 1)?)).await;
        ensure!(
            answer == Err(BackendError::NotFound),
            "read of the absent {object:?} gave {answer:?}"
        );
        let answer = self.backend.stat(object.clone()).await;
        ensure!(
            answer == Err(BackendError::NotFound),
            "stat of the absent {object:?} gave {answer:?}"
        );
        Ok(())
    }

    async fn discard(&self, object: &ObjectName, offset: u64, len: u64) -> Outcome {
        let range = range(offset, len)?;
        let outcome = self.backend.discard(object.clone(), range).await;
        outcome.map_err(|error| Broken(format!("discard of {object:?} {range}: {error}")))
    }

    async fn truncate(&self, object: &ObjectName, size_bytes: u64) -> Outcome {
        let outcome = self.backend.truncate(object.clone(), size_bytes).await;
        outcome.map_err(|error| Broken(format!("truncate of {object:?} to {size_bytes}: {error}")))
    }

    async fn remove(&self, object: &ObjectName) -> Outcome {
        let outcome = self.backend.remove(object.clone()).await;
        outcome.map_err(|error| Broken(format!("remove of {object:?}: {error}")))
    }
}

fn describe(write: &BackendWrite) -> String {
    let runs: Vec<_> = write
        .runs
        .iter()
        .map(|run| format!("{} bytes at {}", run.len_bytes(), run.offset))
        .collect();
    format!("write of {:?}, {}", write.object, runs.join(" and "))
}

fn range(offset: u64, len: u64) -> Result<ByteRange, Broken> {
    ByteRange::new(offset, len).map_err(|error| Broken(error.to_string()))
}

fn read_of(object: &ObjectName, range: ByteRange) -> BackendRead {
    BackendRead {
        object: object.clone(),
        snap: SnapId::HEAD,
        range,
        hints: Hints::default(),
        truncation: Truncation::default(),
    }
}

fn run_of(offset: u64, buffers: &[&[u8]]) -> WriteRun {
    WriteRun {
        offset,
        buffers: buffers
            .iter()
            .map(|buffer| Bytes::copy_from_slice(buffer))
            .collect(),
        journal_tid: None,
    }
}

fn write_of(object: &ObjectName, offset: u64, data: &[u8]) -> BackendWrite {
    write_of_runs(object, vec![run_of(offset, &[data])])
}

fn write_of_runs(object: &ObjectName, runs: Vec<WriteRun>) -> BackendWrite {
    BackendWrite {
        object: object.clone(),
        runs,
        context: SnapContext::default(),
        modified: Timestamp(1_700_000_000_000_000_000),
        truncation: Truncation::default(),
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn size_below(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }
}

/// `len` bytes that are never zero and differ by `seed`.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let words = std::iter::repeat_with(|| numbers.next().to_le_bytes());
    let bytes = words.flatten().map(|byte| byte.max(1));
    bytes.take(len).collect()
}

#[cfg(test)]
mod tests;

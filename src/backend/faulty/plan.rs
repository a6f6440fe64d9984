//! Which faults there are, how likely each is, and the dice that decide.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::backend::{BackendWrite, Capabilities, Operation};
use crate::error::BackendError;

/// How likely each fault is, from 0.0 (never, the default) to 1.0 (always).
///
/// The likelihoods are independent: one operation may be delayed, done twice and lose its reply.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// An error, and nothing is done.
    pub fail: f64,
    /// It is done, but answered with [`BackendError::TimedOut`].
    pub lose_reply: f64,
    /// It is done or not, by the toss of a coin, and never answered.
    pub never_reply: f64,
    /// It takes a part of [`Self::delay_max`], before or after it is done: operations overtake each other.
    pub delay: f64,
    /// The longest delay.
    #[serde(with = "humantime_serde")]
    pub delay_max: Duration,
    /// A change is done twice and answered as the second time. Where ordered writes are promised the
    /// two follow each other directly, else the second comes after the first's reply.
    pub double: f64,
    /// A write stores some of its runs, or a part of its only one, and fails.
    /// Does not happen where atomic writes are promised.
    pub partial_store: f64,
    /// A read's answer lacks the zeros at its end.
    pub short_read: f64,
}

/// What state the store is in, for all operations that reach it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum StoreCondition {
    /// All is well.
    #[default]
    Up,
    /// Every operation gives [`BackendError::Unavailable`].
    Down,
    /// Every write gives [`BackendError::Full`]; what frees room still works.
    Full,
    /// Every change gives [`BackendError::ReadOnly`].
    ReadOnly,
    /// Every operation gives [`BackendError::Fenced`].
    Fenced,
}

impl StoreCondition {
    pub(super) const fn refusal(self, operation: &Operation) -> Option<BackendError> {
        match self {
            Self::Full if matches!(operation, Operation::Write(_)) => Some(BackendError::Full),
            Self::ReadOnly if operation.is_change() => Some(BackendError::ReadOnly),
            Self::Up | Self::Full | Self::ReadOnly => None,
            Self::Down => Some(BackendError::Unavailable),
            Self::Fenced => Some(BackendError::Fenced),
        }
    }
}

/// How many faults took effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FaultCounts {
    /// Operations refused by the [`StoreCondition`].
    pub refused: u64,
    /// Operations failed before anything was done, by the plan or by order.
    pub failed: u64,
    /// Operations done whose reply was lost.
    pub replies_lost: u64,
    /// Operations that are never answered.
    pub replies_never: u64,
    /// Operations delayed.
    pub delayed: u64,
    /// Changes done twice.
    pub doubled: u64,
    /// Writes stored in part.
    pub partial_stores: u64,
    /// Reads cut short.
    pub short_reads: u64,
}

/// Where a delay lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delay {
    None,
    Before(Duration),
    After(Duration),
}

/// What becomes of the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    Given,
    Lost,
    Never,
}

/// What the dice decided for one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fate {
    pub(super) fail: bool,
    /// The error, if it comes to one.
    pub(super) error: BackendError,
    /// Nothing is done.
    pub(super) skip: bool,
    pub(super) reply: Reply,
    pub(super) delay: Delay,
    pub(super) double: bool,
    /// Which part of a write is stored, as random bits.
    pub(super) partial: Option<u64>,
    pub(super) short: bool,
}

/// The source of all randomness.
pub(super) struct Dice(StdRng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Decides over an operation. Takes as many numbers whatever the plan, so that changing one likelihood
    /// leaves the other decisions as they are.
    pub(super) fn roll(
        &mut self,
        plan: &FaultPlan,
        promised: &Capabilities,
        operation: &Operation,
    ) -> Fate {
        let change = operation.is_change();
        let write = matches!(operation, Operation::Write(_));
        let fail = self.hits(plan.fail);
        let error = self.error();
        let (lost, never) = (self.hits(plan.lose_reply), self.hits(plan.never_reply));
        let skip = self.0.random::<bool>();
        let delayed = self.hits(plan.delay);
        let time = plan.delay_max.mul_f64(self.0.random::<f64>());
        let before = self.0.random::<bool>() && !(change && promised.ordered_writes);
        let double = self.hits(plan.double);
        let partial = self.hits(plan.partial_store);
        let bits = self.0.next_u64();
        Fate {
            fail,
            error,
            skip: never && skip,
            reply: match (never, lost) {
                (true, _) => Reply::Never,
                (false, true) => Reply::Lost,
                (false, false) => Reply::Given,
            },
            delay: match (delayed, before) {
                (false, _) => Delay::None,
                (true, true) => Delay::Before(time),
                (true, false) => Delay::After(time),
            },
            double: double && change,
            partial: (partial && write && !promised.atomic_writes).then_some(bits),
            short: self.hits(plan.short_read),
        }
    }

    fn hits(&mut self, likelihood: f64) -> bool {
        self.0.random::<f64>() < likelihood
    }

    fn error(&mut self) -> BackendError {
        match self.0.random::<u64>() % 3 {
            0 => BackendError::Unavailable,
            1 => BackendError::TimedOut,
            _ => BackendError::Io {
                operation: "playing a faulty store",
                kind: std::io::ErrorKind::Other,
                os_code: None,
            },
        }
    }
}

/// Some of a write's runs, or the start of its only one; `None` when it has but one byte.
pub(super) fn part_of(mut write: BackendWrite, bits: u64) -> Option<BackendWrite> {
    let runs = write.runs.len();
    if runs > 1 {
        let chosen = |number: usize| (bits >> (number % 64)) & 1 == 1;
        let count = (0..runs).filter(|number| chosen(*number)).count();
        let some = count > 0 && count < runs;
        let mut numbers = 0..runs;
        write.runs.retain(|_| match numbers.next() {
            Some(number) if some => chosen(number),
            number => number == Some(0),
        });
        return Some(write);
    }
    let run = write.runs.first_mut()?;
    let most = run.len_bytes().checked_sub(1).filter(|most| *most > 0)?;
    let mut left = usize::try_from(1 + bits % most).unwrap_or(usize::MAX);
    for buffer in &mut run.buffers {
        buffer.truncate(left);
        left -= buffer.len();
    }
    run.buffers.retain(|buffer| !buffer.is_empty());
    Some(write)
}

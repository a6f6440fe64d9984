//! A decorator that plays a faulty store, by seed or by hand.

mod gate;
mod plan;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join, pending, ready};
use parking_lot::Mutex;

use self::gate::GateState;
pub use self::gate::{Gate, HeldOperation, NotHeld};
use self::plan::{Delay, Dice, Fate, Reply, part_of};
pub use self::plan::{FaultCounts, FaultPlan, StoreCondition};
use super::operation::{Answer, AnswerFuture, Decorator, Operation, OperationKind};
use super::{Backend, Capabilities, Delayer, TimerThread};
use crate::error::BackendError;

/// A decorator that breaks what a store may break, and nothing that it promises.
///
/// Without a [`FaultPlan`] it passes everything on. All randomness comes from its seed, drawn in the order of the
/// calls: the same calls in the same order meet the same faults. Faults that would break a
/// promise do not happen (see [`FaultPlan`]); take the promise away with [`FaultyBuilder::capabilities`] to
/// meet them. Writes that break the contract, or ask more than is promised, are refused.
///
/// The [`FaultControl`] changes the plan and the store's condition at any time, and its [`Gate`] holds operations
/// until a test lets them go.
pub struct FaultyBackend {
    core: Arc<Core>,
}

/// Makes a [`FaultyBackend`].
pub struct FaultyBuilder {
    inner: Arc<dyn Backend>,
    promised: Capabilities,
    delayer: Arc<dyn Delayer>,
    plan: FaultPlan,
    seed: u64,
}

/// Changes what a [`FaultyBackend`] does while it runs; clones change the same one.
#[derive(Clone)]
pub struct FaultControl {
    core: Arc<Core>,
}

struct Core {
    inner: Arc<dyn Backend>,
    promised: Capabilities,
    delayer: Arc<dyn Delayer>,
    seed: u64,
    state: Mutex<State>,
    gate: GateState,
}

struct State {
    dice: Dice,
    plan: FaultPlan,
    plans: BTreeMap<OperationKind, FaultPlan>,
    condition: StoreCondition,
    ordered_failures: VecDeque<(OperationKind, BackendError)>,
    counts: FaultCounts,
}

impl FaultyBackend {
    /// A decorator of `inner` that injects no faults until its control says so.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, seed: u64) -> Self {
        Self::builder(inner, seed).build()
    }

    /// Sets a decorator of `inner` up.
    #[must_use]
    pub fn builder(inner: Arc<dyn Backend>, seed: u64) -> FaultyBuilder {
        FaultyBuilder {
            promised: inner.capabilities(),
            inner,
            delayer: Arc::new(TimerThread::new()),
            plan: FaultPlan::default(),
            seed,
        }
    }

    /// The handle that changes what this decorator does.
    #[must_use]
    pub fn control(&self) -> FaultControl {
        let core = Arc::clone(&self.core);
        FaultControl { core }
    }

    /// The gate that holds operations: short for that of the [`control`](Self::control).
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.control().gate()
    }
}

impl FaultyBuilder {
    /// Injects these faults from the start.
    #[must_use]
    pub const fn plan(mut self, plan: FaultPlan) -> Self {
        self.plan = plan;
        self
    }

    /// Promises only this much, which must not be more than the store within does.
    #[must_use]
    pub const fn capabilities(mut self, promised: Capabilities) -> Self {
        self.promised = promised;
        self
    }

    /// Takes delays from here; by default from a [`TimerThread`].
    #[must_use]
    pub fn delayer(mut self, delayer: Arc<dyn Delayer>) -> Self {
        self.delayer = delayer;
        self
    }

    /// The decorator.
    #[must_use]
    pub fn build(self) -> FaultyBackend {
        let state = State {
            dice: Dice::new(self.seed),
            plan: self.plan,
            plans: BTreeMap::new(),
            condition: StoreCondition::Up,
            ordered_failures: VecDeque::new(),
            counts: FaultCounts::default(),
        };
        let core = Core {
            inner: self.inner,
            promised: self.promised,
            delayer: self.delayer,
            seed: self.seed,
            state: Mutex::new(state),
            gate: GateState::default(),
        };
        FaultyBackend {
            core: Arc::new(core),
        }
    }
}

impl FaultControl {
    /// The seed, to print when a test fails.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    /// Injects these faults into operations of every kind from now on.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut state = self.core.state.lock();
        state.plan = plan;
        state.plans.clear();
    }

    /// Injects these faults into operations of one kind from now on.
    pub fn set_plan_of(&self, kind: OperationKind, plan: FaultPlan) {
        self.core.state.lock().plans.insert(kind, plan);
    }

    /// Fails the next operation of a kind that is called, before it is done; more orders queue up.
    pub fn fail_next(&self, kind: OperationKind, error: BackendError) {
        let mut state = self.core.state.lock();
        state.ordered_failures.push_back((kind, error));
    }

    /// Puts the store into a condition, for all operations that reach it from now on.
    pub fn set_condition(&self, condition: StoreCondition) {
        self.core.state.lock().condition = condition;
    }

    /// The store's condition.
    #[must_use]
    pub fn condition(&self) -> StoreCondition {
        self.core.state.lock().condition
    }

    /// How many faults took effect so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.core.state.lock().counts
    }

    /// The gate that holds operations.
    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate::new(Arc::clone(&self.core))
    }
}

impl Core {
    /// Decides over an operation that is called.
    fn roll(&self, operation: &Operation) -> Fate {
        let mut state = self.state.lock();
        let kind = operation.kind();
        let plan = state.plans.get(&kind).copied().unwrap_or(state.plan);
        let mut fate = state.dice.roll(&plan, &self.promised, operation);
        let mut failures = state.ordered_failures.iter();
        let order = failures.position(|(failing, _)| *failing == kind);
        if let Some(order) = order
            && let Some((_, error)) = state.ordered_failures.remove(order)
        {
            fate.fail = true;
            fate.error = error;
        }
        fate
    }

    fn count(&self, count: impl FnOnce(&mut FaultCounts)) {
        count(&mut self.state.lock().counts);
    }

    /// Starts an operation that nothing holds, after or before its delay.
    fn launch(self: Arc<Self>, operation: Operation, fate: Fate) -> AnswerFuture {
        match fate.delay {
            Delay::None => self.perform(operation, fate),
            Delay::Before(time) => {
                self.count(|counts| counts.delayed += 1);
                let delaying = self.delayer.delay(time);
                async move {
                    delaying.await;
                    self.perform(operation, fate).await
                }
                .boxed()
            }
            Delay::After(time) => {
                self.count(|counts| counts.delayed += 1);
                let answering = self.perform(operation, fate);
                async move {
                    let answer = answering.await;
                    self.delayer.delay(time).await;
                    answer
                }
                .boxed()
            }
        }
    }

    /// Lets an operation reach the store, and its answer get lost on the way back.
    fn perform(self: &Arc<Self>, operation: Operation, fate: Fate) -> AnswerFuture {
        let refusal = self.state.lock().condition.refusal(&operation);
        if let Some(error) = refusal {
            self.count(|counts| counts.refused += 1);
            return ready(Err(error)).boxed();
        }
        if fate.fail {
            self.count(|counts| counts.failed += 1);
            return ready(Err(fate.error)).boxed();
        }
        if fate.skip {
            self.count(|counts| counts.replies_never += 1);
            return pending().boxed();
        }
        let reply = fate.reply.clone();
        let sending = self.send(operation, fate);
        match reply {
            Reply::Given => sending,
            Reply::Lost => {
                self.count(|counts| counts.replies_lost += 1);
                sending.map(|_| Err(BackendError::TimedOut)).boxed()
            }
            Reply::Never => {
                self.count(|counts| counts.replies_never += 1);
                sending.then(|_| pending()).boxed()
            }
        }
    }

    /// Does an operation in part, twice, or as it is.
    fn send(self: &Arc<Self>, operation: Operation, fate: Fate) -> AnswerFuture {
        match (operation, fate.partial) {
            (Operation::Write(write), Some(bits)) => {
                self.count(|counts| counts.partial_stores += 1);
                let failure = ready(Err(fate.error));
                match part_of(write, bits) {
                    Some(part) => self.start(Operation::Write(part)).then(|_| failure).boxed(),
                    None => failure.boxed(),
                }
            }
            (operation, _) if fate.double => self.send_twice(operation),
            (operation @ Operation::Read(_), _) if fate.short => {
                let core = Arc::clone(self);
                self.start(operation)
                    .map(move |answer| answer.map(|answer| core.shorten(answer)))
                    .boxed()
            }
            (operation, _) => self.start(operation),
        }
    }

    fn start(&self, operation: Operation) -> AnswerFuture {
        operation.start(&*self.inner)
    }

    fn send_twice(self: &Arc<Self>, operation: Operation) -> AnswerFuture {
        self.count(|counts| counts.doubled += 1);
        let first = self.start(operation.clone());
        if self.promised.ordered_writes {
            let second = self.start(operation);
            return join(first, second).map(|(_, answer)| answer).boxed();
        }
        let core = Arc::clone(self);
        first.then(move |_| core.start(operation)).boxed()
    }

    /// Takes the zeros off the end of a read's answer.
    fn shorten(&self, answer: Answer) -> Answer {
        let Answer::Bytes(bytes) = answer else {
            return answer;
        };
        let last = bytes.iter().rposition(|byte| *byte != 0);
        let len = last.map_or(0, |last| last + 1);
        match bytes.get(..len) {
            Some(short) if len < bytes.len() => {
                self.count(|counts| counts.short_reads += 1);
                Answer::Bytes(Bytes::copy_from_slice(short))
            }
            Some(_) | None => Answer::Bytes(bytes),
        }
    }
}

impl Decorator for FaultyBackend {
    fn inner(&self) -> &dyn Backend {
        &*self.core.inner
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        if let Operation::Write(write) = &operation
            && let Err(refusal) = self.core.promised.admit(write)
        {
            return ready(Err(refusal)).boxed();
        }
        let fate = self.core.roll(&operation);
        match self.core.gate.admit(operation, fate) {
            Ok((operation, fate)) => Arc::clone(&self.core).launch(operation, fate),
            Err(held) => held,
        }
    }

    fn promises(&self) -> Capabilities {
        self.core.promised
    }
}

impl fmt::Debug for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackend")
            .field("inner", &self.core.inner)
            .field("control", &self.control())
            .finish()
    }
}

impl fmt::Debug for FaultyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBuilder")
            .field("inner", &self.inner)
            .field("seed", &self.seed)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FaultControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.core.state.lock();
        f.debug_struct("FaultControl")
            .field("seed", &self.core.seed)
            .field("plan", &state.plan)
            .field("condition", &state.condition)
            .field("counts", &state.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

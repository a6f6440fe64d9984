//! Holds operations until a test lets them go, in the order it wants.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::ready;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Core;
use super::plan::Fate;
use crate::backend::operation::{AnswerFuture, Operation, OperationKind};
use crate::error::BackendError;

/// Holds the operations of a [`FaultyBackend`](super::FaultyBackend) until they are released or failed.
///
/// Held operations are numbered from 0 in the order in which they were called; a number is never used again. An
/// operation is done when it is released, within that call where the store within answers at once, so
/// the order of releases is the order of storing. It then meets the faults that the plan has for it.
///
/// ```
/// # use std::sync::Arc;
/// use cachalot::backend::{Backend, FaultyBackend, MemoryBackend, OperationKind};
///
/// # futures::executor::block_on(async {
/// let store = FaultyBackend::new(Arc::new(MemoryBackend::new()), 17);
/// let gate = store.gate();
/// gate.hold_kind(OperationKind::Sync);
/// let syncing = store.sync();
/// let held = gate.wait_held(1).await;
/// assert_eq!(held[0].operation.kind(), OperationKind::Sync);
/// gate.release(held[0].number)?;
/// assert_eq!(syncing.await, Ok(()));
/// # Ok::<(), cachalot::backend::NotHeld>(())
/// # })?;
/// # Ok::<(), cachalot::backend::NotHeld>(())
/// ```
#[derive(Clone)]
pub struct Gate {
    core: Arc<Core>,
}

/// An operation that waits at a [`Gate`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldOperation {
    /// Its number, to release it by.
    pub number: u64,
    /// What it would do.
    pub operation: Operation,
    /// Whether its future was dropped. It can still be released: that is a write that lands late.
    pub given_up: bool,
}

/// No operation with this number waits at the gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the gate holds no operation {number}")]
pub struct NotHeld {
    /// The number asked for.
    pub number: u64,
}

type Rule = Arc<dyn Fn(&Operation) -> bool + Send + Sync>;

#[derive(Default)]
pub(super) struct GateState {
    waiting: Mutex<Waiting>,
    /// How many operations were ever held.
    arrivals: watch::Sender<u64>,
}

#[derive(Default)]
struct Waiting {
    rule: Option<Rule>,
    held: BTreeMap<u64, Held>,
    next: u64,
}

struct Held {
    operation: Operation,
    fate: Fate,
    answer: oneshot::Sender<AnswerFuture>,
}

/// How an operation leaves the gate.
#[derive(Clone)]
enum Verdict {
    Proceed,
    Fail(BackendError),
    StoreThenFail(BackendError),
}

impl GateState {
    /// Gives an operation back that may pass, else a future that waits for its release.
    pub(super) fn admit(
        &self,
        operation: Operation,
        fate: Fate,
    ) -> Result<(Operation, Fate), AnswerFuture> {
        // The rule is asked without the lock, since it may use the gate. Who changes it meanwhile has seen all that is held.
        let mut waiting = loop {
            let rule = self.waiting.lock().rule.clone();
            let Some(rule) = rule.filter(|rule| rule(&operation)) else {
                return Ok((operation, fate));
            };
            let waiting = self.waiting.lock();
            if waiting
                .rule
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, &rule))
            {
                break waiting;
            }
        };
        let (answer, answered) = oneshot::channel();
        let number = waiting.next;
        waiting.next += 1;
        let held = Held {
            operation,
            fate,
            answer,
        };
        waiting.held.insert(number, held);
        drop(waiting);
        self.arrivals.send_modify(|arrivals| *arrivals += 1);
        let waited = answered.then(|answer| match answer {
            Ok(answering) => answering,
            // Only the end of the whole store drops a held operation.
            Err(oneshot::Canceled) => ready(Err(BackendError::Unavailable)).boxed(),
        });
        Err(waited.boxed())
    }
}

impl Gate {
    pub(super) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Holds every operation from now on.
    pub fn hold_all(&self) {
        self.hold_where(|_| true);
    }

    /// Holds operations of this kind from now on, others pass.
    pub fn hold_kind(&self, kind: OperationKind) {
        self.hold_where(move |operation| operation.kind() == kind);
    }

    /// Holds operations that `rule` chooses from now on, others pass.
    pub fn hold_where(&self, rule: impl Fn(&Operation) -> bool + Send + Sync + 'static) {
        self.core.gate.waiting.lock().rule = Some(Arc::new(rule));
    }

    /// Lets operations pass from now on; those held stay so.
    pub fn hold_none(&self) {
        self.core.gate.waiting.lock().rule = None;
    }

    /// Lets operations pass from now on, and releases those held.
    pub fn open(&self) -> usize {
        self.hold_none();
        self.release_all()
    }

    /// The operations held, in the order in which they were called.
    #[must_use]
    pub fn held(&self) -> Vec<HeldOperation> {
        let waiting = self.core.gate.waiting.lock();
        let held = waiting.held.iter().map(|(number, held)| HeldOperation {
            number: *number,
            operation: held.operation.clone(),
            given_up: held.answer.is_canceled(),
        });
        held.collect()
    }

    /// Waits until at least `count` operations are held whose futures live, and gives those.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_held(&self, count: usize) -> Vec<HeldOperation> {
        self.wait_held_where(count, |_| true).await
    }

    /// Waits until at least `count` operations are held that `choice` takes and whose futures live, and gives those.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_held_where(
        &self,
        count: usize,
        choice: impl Fn(&Operation) -> bool,
    ) -> Vec<HeldOperation> {
        let mut arrivals = self.core.gate.arrivals.subscribe();
        loop {
            arrivals.mark_unchanged();
            let mut held = self.held();
            held.retain(|held| !held.given_up && choice(&held.operation));
            // The sender lives as long as this gate, so only its end could end the wait early.
            if held.len() >= count || arrivals.changed().await.is_err() {
                return held;
            }
        }
    }

    /// Lets an operation go on to the store.
    ///
    /// # Errors
    /// [`NotHeld`] when no operation with this number is held.
    pub fn release(&self, number: u64) -> Result<(), NotHeld> {
        self.settle(number, Verdict::Proceed)
    }

    /// Fails an operation, with nothing done.
    ///
    /// # Errors
    /// [`NotHeld`] when no operation with this number is held.
    pub fn fail(&self, number: u64, error: BackendError) -> Result<(), NotHeld> {
        self.settle(number, Verdict::Fail(error))
    }

    /// Lets an operation go on to the store, and fails it whatever the store says: its reply is lost.
    ///
    /// # Errors
    /// [`NotHeld`] when no operation with this number is held.
    pub fn store_then_fail(&self, number: u64, error: BackendError) -> Result<(), NotHeld> {
        self.settle(number, Verdict::StoreThenFail(error))
    }

    /// Lets all held operations go on that `choice` takes, in the order of their calls; tells how many.
    pub fn release_where(&self, choice: impl Fn(&Operation) -> bool) -> usize {
        self.settle_where(choice, &Verdict::Proceed)
    }

    /// Fails all held operations that `choice` takes, in the order of their calls; tells how many.
    pub fn fail_where(&self, choice: impl Fn(&Operation) -> bool, error: BackendError) -> usize {
        self.settle_where(choice, &Verdict::Fail(error))
    }

    /// Lets all held operations go on, in the order of their calls; tells how many.
    pub fn release_all(&self) -> usize {
        self.release_where(|_| true)
    }

    fn settle_where(&self, choice: impl Fn(&Operation) -> bool, verdict: &Verdict) -> usize {
        let held = self.held().into_iter();
        held.filter(|held| choice(&held.operation))
            .filter(|held| self.settle(held.number, verdict.clone()).is_ok())
            .count()
    }

    fn settle(&self, number: u64, verdict: Verdict) -> Result<(), NotHeld> {
        let held = self.core.gate.waiting.lock().held.remove(&number);
        let held = held.ok_or(NotHeld { number })?;
        let core = Arc::clone(&self.core);
        let mut answering = match verdict {
            Verdict::Proceed => core.launch(held.operation, held.fate),
            Verdict::Fail(error) => {
                core.count(|counts| counts.failed += 1);
                ready(Err(error)).boxed()
            }
            Verdict::StoreThenFail(error) => {
                core.count(|counts| counts.replies_lost += 1);
                let storing = core.launch(held.operation, held.fate);
                storing.map(|_| Err(error)).boxed()
            }
        };
        // The first poll makes the store do it now. Who waits for the answer polls again, with a waker.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = answering.poll_unpin(&mut context) {
            answering = ready(answer).boxed();
        }
        // An operation that was given up has nobody to answer to.
        drop(held.answer.send(answering));
        Ok(())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

//! `ObjectSetActor`: one engine, its operations under way, its waiters, one timer.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, SpawnHandle};
use tokio::sync::{oneshot, watch};

use super::driver::Driver;
use super::ledger::{Claim, Claimant};
use super::message::{Call, Ended, Lost, Request};
use super::outbox::Outbox;
use super::shared::SetShared;
use super::shelf::SetShelf;
use super::state::SetState;
use crate::buf::ReadBuf;
use crate::engine::{
    Action, BufferState, EngineLimits, EngineOptions, Flushed, OpId, Reply, SetEngine, WaiterId,
};
use crate::error::CacheError;
use crate::types::Moment;

/// How often operations that end at once are followed up before others get their turn.
const ROUNDS_MAX: usize = 64;

/// Whom a turn of the actor wakes.
#[derive(Clone, Copy, Debug)]
struct Wakes {
    /// The flusher and the trimmer, if much is dirty or little room left.
    levels: bool,
    /// Both, if anybody waits for room.
    waiting: bool,
}

impl Wakes {
    /// After a turn that is not taken on their behalf.
    const fn after(has_ended: bool) -> Self {
        Self {
            levels: true,
            waiting: has_ended,
        }
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Waiter {
    Read(oneshot::Sender<Result<ReadBuf, CacheError>>),
    /// A read for the cache's own sake, which is done whether its caller is still there or not.
    Prefetch(oneshot::Sender<Result<ReadBuf, CacheError>>),
    Done(oneshot::Sender<Result<(), CacheError>>),
    Flushed(oneshot::Sender<Result<Flushed, CacheError>>),
    /// The set's own flush before it stops.
    Stopping,
}

/// The actor that owns one set. Its address takes the messages of [`crate::message`].
#[derive(Debug)]
pub struct ObjectSetActor {
    pub(super) shared: Arc<SetShared>,
    pub(super) engine: SetEngine<SetShelf>,
    pub(super) driver: Driver,
    waiters: BTreeMap<WaiterId, Waiter>,
    pub(super) outbox: Outbox,
    timer: Option<(Moment, SpawnHandle)>,
    clean: watch::Sender<u64>,
    /// Who waits for the set to stop.
    pub(super) stoppers: Vec<oneshot::Sender<Result<Lost, CacheError>>>,
    /// The first error of the flush that stopping waits for.
    pub(super) stop_error: Option<CacheError>,
    pub(super) must_store: bool,
}

impl ObjectSetActor {
    pub(crate) fn new(
        shared: Arc<SetShared>,
        options: EngineOptions,
        clean: watch::Sender<u64>,
    ) -> Self {
        let limits = EngineLimits::from(&shared.common.limits());
        let engine = SetEngine::new(SetShelf(shared.clone()), options, limits);
        Self {
            shared,
            engine,
            driver: Driver::default(),
            waiters: BTreeMap::new(),
            outbox: Outbox::default(),
            timer: None,
            clean,
            stoppers: Vec::new(),
            stop_error: None,
            must_store: false,
        }
    }

    /// A number for a caller that waits.
    pub(super) fn enrol(&mut self, waiter: Waiter) -> WaiterId {
        let id = self.shared.enrol();
        self.waiters.insert(id, waiter);
        id
    }

    /// Forgets a caller that is answered otherwise.
    pub(super) fn dismiss(&mut self, waiter: WaiterId) -> Option<Waiter> {
        self.waiters.remove(&waiter)
    }

    pub(super) fn now(&self) -> Moment {
        self.shared.now()
    }

    /// Whether the set takes requests that change it.
    pub(super) fn check_open(&self) -> Result<(), CacheError> {
        if self.shared.state().is_open() {
            Ok(())
        } else {
            Err(self.shared.refusal())
        }
    }

    /// Takes a request. What it starts at once is started within its caller's span.
    pub(super) fn call(&mut self, call: Call, ctx: &mut Context<Self>) {
        let Call {
            waiter,
            request,
            span,
        } = call;
        self.outbox.is_held = self.shared.has_younger(waiter);
        span.in_scope(|| {
            self.accept(waiter, request);
            self.act_on_all(ctx);
        });
        let has_ended = self.run(ctx);
        self.settle(ctx, Wakes::after(has_ended));
        self.outbox.send_later(ctx);
    }

    fn accept(&mut self, waiter: WaiterId, request: Request) {
        let now = self.now();
        // A set that closes waits for the reads that it has, and so takes no more of them.
        let refusal = self.check_open().err();
        match (request, refusal) {
            (
                Request::Read {
                    request,
                    deliver,
                    reply,
                },
                None,
            ) => {
                let caller = if deliver {
                    Waiter::Read(reply)
                } else {
                    Waiter::Prefetch(reply)
                };
                self.waiters.insert(waiter, caller);
                self.engine.read(now, waiter, request, deliver);
            }
            (Request::Write { request, reply }, None) => {
                let modified = request
                    .modified
                    .unwrap_or_else(|| self.shared.common.clock.timestamp());
                self.waiters.insert(waiter, Waiter::Done(reply));
                self.engine.write(now, waiter, request, modified);
            }
            (Request::Read { reply, .. }, Some(refusal)) => answer(reply, Err(refusal)),
            (Request::Write { reply, .. }, Some(refusal)) => answer(reply, Err(refusal)),
        }
    }

    /// The caller is gone. Where it waited for room, it holds up nobody any more.
    pub(super) fn forsake(&mut self, waiter: WaiterId, ctx: &mut Context<Self>) {
        let claimant: Arc<dyn Claimant> = self.shared.clone();
        if self.is_given_up(waiter) && self.shared.common.ledger.cancel(&claimant, waiter) {
            self.waiters.remove(&waiter);
            self.engine.cancel_waiter(waiter);
        }
        self.drive(ctx);
    }

    /// Does what the engine wants until it wants nothing more, then ends the turn.
    pub(super) fn drive(&mut self, ctx: &mut Context<Self>) {
        let has_ended = self.run_and_answer(ctx);
        self.settle(ctx, Wakes::after(has_ended));
    }

    /// As [`drive`](Self::drive), on behalf of the flusher or the trimmer. They are woken only if something has come to
    /// its end, since otherwise they would keep each other awake where nothing can be done.
    pub(super) fn drive_on_demand(&mut self, ctx: &mut Context<Self>) {
        let has_ended = self.run_and_answer(ctx);
        self.settle(
            ctx,
            Wakes {
                levels: has_ended,
                waiting: has_ended,
            },
        );
    }

    /// As [`run`](Self::run), for turns that others than readers and writers may make long: no answer outlasts them.
    fn run_and_answer(&mut self, ctx: &mut Context<Self>) -> bool {
        self.outbox.is_held = true;
        let has_ended = self.run(ctx);
        self.outbox.send();
        has_ended
    }

    /// Returns whether any operation has ended.
    fn run(&mut self, ctx: &mut Context<Self>) -> bool {
        let mut has_ended = false;
        for _ in 0..ROUNDS_MAX {
            self.act_on_all(ctx);
            let granted = self.shared.take_granted();
            let ended = self.driver.take_ended();
            if granted.is_empty() && ended.is_empty() {
                return has_ended;
            }
            has_ended |= !ended.is_empty();
            let now = self.now();
            for (waiter, charge) in granted {
                if self.is_given_up(waiter) {
                    self.waiters.remove(&waiter);
                    self.engine.cancel_waiter(waiter);
                }
                self.engine.handle_room(now, waiter, charge);
            }
            for (op, end) in ended {
                self.end(now, op, end);
            }
        }
        // Others' turn; this goes on right after. What has ended is told now: the set may stop at the end of this turn.
        self.act_on_all(ctx);
        super::tell::tell(&ctx.address(), super::message::Completed);
        has_ended
    }

    fn act_on_all(&mut self, ctx: &mut Context<Self>) {
        // Whoever is answered finds the door as it has become.
        if self.shared.state().is_open() {
            self.open();
        }
        while let Some(action) = self.engine.poll_action() {
            self.act(action, ctx);
        }
        self.engine.answered();
    }

    /// Opens the door as far as the engine takes writes.
    pub(super) fn open(&self) {
        let (before, set) = (self.shared.state(), self.shared.id.as_str());
        let state = if self.engine.is_fenced() {
            SetState::Fenced
        } else if self.engine.awaits_flush() {
            SetState::Through
        } else {
            SetState::Open
        };
        if state == before {
            return;
        }
        self.shared.set_state(state);
        if state == SetState::Fenced {
            let unsaved_bytes = self.shared.unsaved_bytes();
            tracing::error!(
                set,
                unsaved_bytes,
                "another client has taken over the object set"
            );
        } else if before == SetState::Through {
            tracing::info!(
                set,
                "object set flushed for the first time: writes are absorbed"
            );
        }
    }

    fn end(&mut self, now: Moment, op: OpId, end: Ended) {
        match end {
            Ended::Fetch(result) => self.engine.handle_fetch(now, op, result),
            Ended::WriteBack(result) => {
                let failure = result.as_ref().err().cloned();
                self.engine.handle_write_back(now, op, result);
                if let Some(error) = failure.filter(|_| !self.engine.is_fenced()) {
                    let set = self.shared.id.as_str();
                    tracing::warn!(set, op = op.0, %error, "a writeback failed and will be retried");
                }
            }
            Ended::Panicked(error) => {
                self.engine.handle_fetch(now, op, Err(error.clone()));
                self.engine.handle_write_back(now, op, Err(error));
            }
        }
    }

    /// Whether the caller of a request that waits for room has gone, and with it the request. A write that was accepted
    /// at once is made in any case.
    fn is_given_up(&self, waiter: WaiterId) -> bool {
        match self.waiters.get(&waiter) {
            Some(Waiter::Done(reply)) => {
                reply.is_closed() && self.shared.common.limits().block_writes_upfront
            }
            Some(Waiter::Read(reply)) => reply.is_closed(),
            Some(Waiter::Prefetch(_) | Waiter::Flushed(_) | Waiter::Stopping) => false,
            None => true,
        }
    }

    fn act(&mut self, action: Action, ctx: &mut Context<Self>) {
        let backend = &self.shared.common.backend;
        let set = self.shared.id.as_str();
        match action {
            Action::Fetch { op, read } => {
                let span = tracing::debug_span!(
                    "fetch", set, object = %read.object, op = op.0,
                    offset_bytes = read.range.start(), len_bytes = read.range.len()
                );
                let backend = backend.clone();
                let operation = async move { Ended::Fetch(backend.read(read).await) };
                self.driver.start(op, operation, (&ctx.address(), span));
            }
            Action::WriteBack { op, write } => {
                let span = tracing::debug_span!(
                    "write_back", set, object = %write.object, op = op.0,
                    runs = write.runs.len(), len_bytes = write.len_bytes()
                );
                let backend = backend.clone();
                let operation = async move { Ended::WriteBack(backend.write(write).await) };
                self.driver.start(op, operation, (&ctx.address(), span));
            }
            Action::GiveUp { op } => {
                tracing::warn!(set, op = op.0, "the store did not answer in time");
                self.driver.give_up(op);
            }
            Action::Journal(notice) => backend.journal(notice),
            Action::AwaitRoom { waiter, charge } => {
                let claimant: Arc<dyn Claimant> = self.shared.clone();
                self.shared.common.ledger.claim(Claim {
                    claimant,
                    waiter,
                    charge,
                });
                self.shared.common.wake_trimmer();
                self.shared.common.wake_flusher();
            }
            Action::ForgoRoom { waiter } => {
                let claimant: Arc<dyn Claimant> = self.shared.clone();
                self.shared.common.ledger.cancel(&claimant, waiter);
            }
            Action::ForgoWriteRoom => {
                let claimant: Arc<dyn Claimant> = self.shared.clone();
                self.shared.common.ledger.forget_writes(&claimant);
            }
            Action::Reply { waiter, reply } => self.reply(waiter, reply),
            Action::Clean => self.clean.send_modify(|times| *times += 1),
        }
    }

    fn reply(&mut self, waiter: WaiterId, reply: Reply) {
        let Some(waiter) = self.waiters.remove(&waiter) else {
            return;
        };
        match (waiter, reply) {
            (Waiter::Read(caller) | Waiter::Prefetch(caller), Reply::Read(result)) => {
                self.outbox.read(caller, result);
            }
            (Waiter::Done(caller), Reply::Done(result)) => self.outbox.done(caller, result),
            (Waiter::Flushed(caller), Reply::Flushed(result)) => answer(caller, result),
            (Waiter::Stopping, Reply::Flushed(result)) => self.stop_error = result.err(),
            (waiter, reply) => {
                tracing::error!(?waiter, ?reply, "an answer does not fit its question");
            }
        }
    }

    /// Ends a turn: arms the timer, publishes levels, and stops the set if that was asked for and nothing is left.
    fn settle(&mut self, ctx: &mut Context<Self>, wakes: Wakes) {
        #[cfg(any(test, feature = "testkit"))]
        self.audit_turn();
        self.arm_timer(ctx);
        self.shared.set_coldest(self.engine.coldest());
        self.shared.set_idle(self.engine.idle_objects());
        self.shared.set_stranded(self.engine.stranded());
        let common = &self.shared.common;
        if wakes.waiting {
            common.note_progress();
        }
        if wakes.levels {
            common.check_room();
            common.check_dirty();
        }
        if wakes.waiting && common.ledger.has_waiting() {
            common.wake_flusher();
            common.wake_trimmer();
        }
        if !self.stoppers.is_empty() {
            self.try_stop(ctx);
        }
    }

    /// Fails the set if its books are wrong, where tests want that.
    #[cfg(any(test, feature = "testkit"))]
    fn audit_turn(&mut self) {
        let is_wanted = &self.shared.common.audits_each_turn;
        if is_wanted.load(std::sync::atomic::Ordering::Relaxed) {
            let audit = self.engine.audit();
            assert!(audit.is_ok(), "{audit:?}");
        }
    }

    /// Sees to it that a timer ends no later than the engine's deadline. One that ends earlier does no harm.
    fn arm_timer(&mut self, ctx: &mut Context<Self>) {
        let Some(deadline) = self.engine.poll_deadline() else {
            return;
        };
        if self.timer.is_some_and(|(at, _)| at <= deadline) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let timer = ctx.run_later(deadline.since(self.now()), |actor, ctx| {
            actor.timer = None;
            let now = actor.now();
            actor.engine.handle_deadline(now);
            actor.run_and_answer(ctx);
            // What was given up may be what others wait for.
            actor.settle(
                ctx,
                Wakes {
                    levels: true,
                    waiting: true,
                },
            );
        });
        self.timer = Some((deadline, timer));
    }
}

/// Answers a caller, who may have gone: then the answer is not needed.
pub(super) fn answer<T>(caller: oneshot::Sender<T>, answer: T) {
    drop(caller.send(answer));
}

impl Actor for ObjectSetActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        tracing::info!(set = self.shared.id.as_str(), "object set closed");
    }
}

impl Drop for ObjectSetActor {
    /// Whatever ends the actor otherwise than by `try_stop`, a panic or the end of its thread, has failed the set: its
    /// callers are told, and what it held is given back to the others (rule L-07).
    fn drop(&mut self) {
        self.driver.give_up_all();
        let shared = &self.shared;
        if shared.state() != SetState::Closed {
            shared.set_state(SetState::Failed);
            let totals = shared.books.totals();
            let dirty_bytes =
                totals.bytes_in(BufferState::Dirty) + totals.bytes_in(BufferState::Tx);
            let set = shared.id.as_str();
            if dirty_bytes > 0 {
                tracing::error!(set, dirty_bytes, "object set failed with unsaved data");
            } else {
                tracing::error!(set, "object set failed");
            }
        }
        *shared.common.retired.lock() += shared.books.counters();
        let claimant: Arc<dyn Claimant> = shared.clone();
        shared.common.ledger.forget(&claimant);
        shared.give_up_everything(self.engine.held_charge());
    }
}

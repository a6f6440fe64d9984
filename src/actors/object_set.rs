//! `ObjectSetActor`: one engine, its operations under way, its waiters, one timer.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, ActorContext, AsyncContext, Context, SpawnHandle};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};

use super::driver::Driver;
use super::ledger::{Claim, Claimant};
use super::message::{Call, Ended, Lost};
use super::shared::{SetShared, SetShelf, SetState};
use crate::buf::ReadBuf;
use crate::engine::{
    Action, BufferState, EngineLimits, EngineOptions, Flushed, OpId, Reply, SetEngine, WaiterId,
};
use crate::error::CacheError;
use crate::types::Moment;

/// How often operations that end at once are followed up before others get their turn.
const ROUNDS_MAX: usize = 64;

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Waiter {
    Read(oneshot::Sender<Result<ReadBuf, CacheError>>),
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
    driver: Driver,
    waiters: BTreeMap<WaiterId, Waiter>,
    last_waiter: u64,
    timer: Option<(Moment, SpawnHandle)>,
    clean: watch::Sender<u64>,
    /// Who waits for the set to stop.
    pub(super) stoppers: Vec<oneshot::Sender<Result<Lost, CacheError>>>,
    /// The first error of the flush that stopping waits for.
    stop_error: Option<CacheError>,
    must_store: bool,
}

impl ObjectSetActor {
    pub(crate) fn new(
        shared: Arc<SetShared>,
        options: EngineOptions,
        clean: watch::Sender<u64>,
    ) -> Self {
        let limits = EngineLimits::from(&*shared.common.limits.read());
        let engine = SetEngine::new(SetShelf(shared.clone()), options, limits);
        Self {
            shared,
            engine,
            driver: Driver::default(),
            waiters: BTreeMap::new(),
            last_waiter: 0,
            timer: None,
            clean,
            stoppers: Vec::new(),
            stop_error: None,
            must_store: false,
        }
    }

    /// A number for a caller that waits.
    pub(super) fn enrol(&mut self, waiter: Waiter) -> WaiterId {
        self.last_waiter += 1;
        let id = WaiterId(self.last_waiter);
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
        match self.shared.state() {
            SetState::Open => Ok(()),
            SetState::Closing | SetState::Closed | SetState::Failed => Err(self.shared.refusal()),
        }
    }

    pub(super) fn call(&mut self, call: Call, ctx: &mut Context<Self>) {
        let now = self.now();
        match call {
            Call::Read {
                request,
                deliver,
                reply,
            } => {
                let waiter = self.enrol(Waiter::Read(reply));
                self.engine.read(now, waiter, request, deliver);
            }
            Call::Write { request, reply } => match self.check_open() {
                Ok(()) => {
                    let modified = request
                        .modified
                        .unwrap_or_else(|| self.shared.common.clock.timestamp());
                    let waiter = self.enrol(Waiter::Done(reply));
                    self.engine.write(now, waiter, request, modified);
                }
                Err(error) => answer(reply, Err(error)),
            },
        }
        self.drive(ctx);
    }

    /// Does what the engine wants until it wants nothing more, then arms the timer and looks at the levels.
    pub(super) fn drive(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..ROUNDS_MAX {
            while let Some(action) = self.engine.poll_action() {
                self.act(action, ctx);
            }
            let granted = self.shared.take_granted();
            let ended = self.driver.take_ended();
            if granted.is_empty() && ended.is_empty() {
                self.settle(ctx);
                return;
            }
            let now = self.now();
            for (waiter, charge) in granted {
                self.forget_if_gone(waiter);
                self.engine.handle_room(now, waiter, charge);
            }
            for (op, end) in ended {
                self.end(now, op, end);
            }
        }
        // Others' turn; this goes on right after.
        super::tell::tell(&ctx.address(), super::message::Completed);
        self.settle(ctx);
    }

    fn end(&mut self, now: Moment, op: OpId, end: Ended) {
        match end {
            Ended::Fetch(result) => self.engine.handle_fetch(now, op, result),
            Ended::WriteBack(result) => {
                if let Err(error) = &result {
                    let set = self.shared.id.as_str();
                    tracing::warn!(set, op = op.0, %error, "a writeback failed and will be retried");
                }
                self.engine.handle_write_back(now, op, result);
            }
            Ended::Panicked(error) => {
                self.engine.handle_fetch(now, op, Err(error.clone()));
                self.engine.handle_write_back(now, op, Err(error));
            }
        }
    }

    /// A write that waits for room is not made when its caller has gone (unless it was accepted at once).
    fn forget_if_gone(&mut self, waiter: WaiterId) {
        let blocks_upfront = self.shared.common.limits.read().block_writes_upfront;
        let is_gone = match self.waiters.get(&waiter) {
            Some(Waiter::Done(reply)) => reply.is_closed() && blocks_upfront,
            Some(Waiter::Read(reply)) => reply.is_closed(),
            Some(Waiter::Flushed(_) | Waiter::Stopping) => false,
            None => true,
        };
        if is_gone {
            self.waiters.remove(&waiter);
            self.engine.cancel_waiter(waiter);
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
                let future = span
                    .in_scope(|| backend.read(read))
                    .map(Ended::Fetch)
                    .boxed();
                self.driver.start(op, future, (&ctx.address(), span));
            }
            Action::WriteBack { op, write } => {
                let span = tracing::debug_span!(
                    "write_back", set, object = %write.object, op = op.0,
                    runs = write.runs.len(), len_bytes = write.len_bytes()
                );
                let future = span
                    .in_scope(|| backend.write(write))
                    .map(Ended::WriteBack)
                    .boxed();
                self.driver.start(op, future, (&ctx.address(), span));
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
            Action::Reply { waiter, reply } => self.reply(waiter, reply),
            Action::Clean => self.clean.send_modify(|times| *times += 1),
        }
    }

    fn reply(&mut self, waiter: WaiterId, reply: Reply) {
        let Some(waiter) = self.waiters.remove(&waiter) else {
            return;
        };
        match (waiter, reply) {
            (Waiter::Read(caller), Reply::Read(result)) => answer(caller, result),
            (Waiter::Done(caller), Reply::Done(result)) => answer(caller, result),
            (Waiter::Flushed(caller), Reply::Flushed(result)) => answer(caller, result),
            (Waiter::Stopping, Reply::Flushed(result)) => self.stop_error = result.err(),
            (waiter, reply) => {
                tracing::error!(?waiter, ?reply, "an answer does not fit its question");
            }
        }
    }

    /// Ends a turn: arms the timer, publishes levels, and stops the set if that was asked for and nothing is left.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let deadline = self.engine.poll_deadline();
        if self.timer.map(|(at, _)| at) != deadline {
            if let Some((_, timer)) = self.timer.take() {
                ctx.cancel_future(timer);
            }
            if let Some(at) = deadline {
                let timer = ctx.run_later(at.since(self.now()), |actor, ctx| {
                    actor.timer = None;
                    let now = actor.now();
                    actor.engine.handle_deadline(now);
                    actor.drive(ctx);
                });
                self.timer = Some((at, timer));
            }
        }
        self.shared.set_coldest(self.engine.coldest());
        let common = &self.shared.common;
        common.check_room();
        common.check_dirty();
        if common.ledger.has_waiting() {
            common.wake_flusher();
            common.wake_trimmer();
        }
        if !self.stoppers.is_empty() {
            self.try_stop(ctx);
        }
    }

    /// Begins to stop: no new writes; with `must_store` everything dirty is flushed first.
    pub(super) fn begin_stop(
        &mut self,
        must_store: bool,
        reply: oneshot::Sender<Result<Lost, CacheError>>,
        ctx: &mut Context<Self>,
    ) {
        self.stoppers.push(reply);
        self.must_store = must_store;
        self.stop_error = None;
        self.shared.set_state(SetState::Closing);
        let now = self.now();
        if must_store {
            let waiter = self.enrol(Waiter::Stopping);
            self.engine.flush(now, waiter, None);
        }
        self.drive(ctx);
    }

    fn try_stop(&mut self, ctx: &mut Context<Self>) {
        if let Some(error) = self.stop_error.take() {
            // What could not be stored stays dirty and readable: the set goes on.
            self.shared.set_state(SetState::Open);
            for stopper in self.stoppers.drain(..) {
                answer(stopper, Err(error.clone()));
            }
            return;
        }
        let mut lost = Lost::default();
        if !self.must_store {
            let totals = self.shared.books.totals();
            let in_flight = totals.bytes_in(BufferState::Tx);
            lost.in_flight_bytes = u64::try_from(in_flight).unwrap_or_default();
            let now = self.now();
            lost.dirty_bytes = self.engine.purge(now);
        } else if !self.engine.is_quiet() {
            return;
        } else if self.engine.holdings().is_dirty_or_committing {
            // Written by those who were past the door when it closed.
            let waiter = self.enrol(Waiter::Stopping);
            let now = self.now();
            self.engine.flush(now, waiter, None);
            super::tell::tell(&ctx.address(), super::message::Completed);
            return;
        }
        self.engine.release();
        self.engine.close_idle(u64::MAX);
        self.shared.set_state(SetState::Closed);
        for stopper in self.stoppers.drain(..) {
            answer(stopper, Ok(lost));
        }
        ctx.stop();
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
        shared.give_up_everything(self.engine.held_by_writes());
    }
}

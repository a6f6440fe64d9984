//! How a set's actor stops: by storing everything, or by giving it up.

use actix::{ActorContext, AsyncContext, Context};
use tokio::sync::oneshot;

use super::message::{Completed, Lost};
use super::object_set::{ObjectSetActor, Waiter, answer};
use super::state::SetState;
use super::tell::tell;
use crate::engine::{BufferState, Charge};
use crate::error::CacheError;

impl ObjectSetActor {
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
            self.engine.store_all(now, waiter);
        }
        self.drive(ctx);
    }

    pub(super) fn try_stop(&mut self, ctx: &mut Context<Self>) {
        if self.must_store
            && let Some(error) = self.stop_error.take()
        {
            // What could not be stored stays dirty and readable: the set goes on.
            self.open();
            for stopper in self.stoppers.drain(..) {
                answer(stopper, Err(error.clone()));
            }
            return;
        }
        let mut lost = Lost::default();
        if !self.must_store {
            // Nothing of this set reaches the store after those who stop it have their answer.
            self.driver.give_up_all();
            let in_flight = self.shared.books.totals().bytes_in(BufferState::Tx);
            lost.in_flight_bytes = u64::try_from(in_flight).unwrap_or_default();
            let now = self.now();
            lost.dirty_bytes = self.engine.purge(now);
        } else if !self.engine.is_quiet() {
            return;
        } else if self.engine.holdings().is_dirty_or_committing {
            // Written by those who were past the door when it closed.
            let waiter = self.enrol(Waiter::Stopping);
            let now = self.now();
            self.engine.store_all(now, waiter);
            tell(&ctx.address(), Completed);
            return;
        }
        self.engine.release();
        self.engine.close_idle(u64::MAX);
        self.shared.set_stranded(Charge::default());
        self.shared.set_state(SetState::Closed);
        for stopper in self.stoppers.drain(..) {
            answer(stopper, Ok(lost));
        }
        ctx.stop();
    }
}

//! From an engine's action to a backend's future, and from its end to the set's actor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix::Addr;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use tracing::Instrument;

use super::message::{Completed, Ended};
use super::object_set::ObjectSetActor;
use super::tell::tell;
use crate::engine::OpId;
use crate::error::BackendError;

/// The backend operations of one set that are under way, and the ends that its actor has not yet seen.
#[derive(Debug, Default)]
pub(crate) struct Driver {
    under_way: BTreeMap<OpId, AbortHandle>,
    ended: Rc<RefCell<Vec<(OpId, Ended)>>>,
}

impl Driver {
    /// Starts an operation. One that ends at once costs no task; the others tell the actor, several in one message.
    pub(crate) fn start(
        &mut self,
        op: OpId,
        future: BoxFuture<'static, Ended>,
        (addr, span): (&Addr<ObjectSetActor>, tracing::Span),
    ) {
        let mut future = AssertUnwindSafe(future).catch_unwind().instrument(span);
        if let Some(end) = (&mut future).now_or_never() {
            self.ended.borrow_mut().push((op, survived(end)));
            return;
        }
        let (abort, registration) = AbortHandle::new_pair();
        self.under_way.insert(op, abort);
        let (ended, addr) = (self.ended.clone(), addr.clone());
        actix::spawn(async move {
            let Ok(end) = Abortable::new(future, registration).await else {
                return;
            };
            let is_first = {
                let mut ended = ended.borrow_mut();
                ended.push((op, survived(end)));
                ended.len() == 1
            };
            if is_first {
                tell(&addr, Completed);
            }
        });
    }

    /// Lets go of an operation: its future is dropped.
    pub(crate) fn give_up(&mut self, op: OpId) {
        if let Some(abort) = self.under_way.remove(&op) {
            abort.abort();
        }
    }

    /// The ends since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<(OpId, Ended)> {
        let ended = std::mem::take(&mut *self.ended.borrow_mut());
        for (op, _) in &ended {
            self.under_way.remove(op);
        }
        ended
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for abort in self.under_way.values() {
            abort.abort();
        }
    }
}

/// A backend that panics has failed the operation, and only that.
fn survived(end: std::thread::Result<Ended>) -> Ended {
    end.unwrap_or_else(|panic| {
        tracing::error!(?panic, "a backend operation panicked");
        Ended::Panicked(BackendError::Io {
            operation: "run a backend operation that panicked",
            kind: std::io::ErrorKind::Other,
            os_code: None,
        })
    })
}

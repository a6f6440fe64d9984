//! From an engine's action to a backend's future, and from its end to the set's actor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;

use actix::Addr;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tracing::Instrument;

use super::message::{Completed, Ended};
use super::object_set::ObjectSetActor;
use super::tell::tell;
use crate::engine::OpId;
use crate::error::BackendError;

/// An operation under way, until it ends or is given up.
type UnderWay = Rc<RefCell<Option<LocalBoxFuture<'static, Ended>>>>;

/// The backend operations of one set that are under way, and the ends that its actor has not yet seen.
#[derive(Default)]
pub(crate) struct Driver {
    under_way: BTreeMap<OpId, UnderWay>,
    ended: Rc<RefCell<Vec<(OpId, Ended)>>>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("under_way", &self.under_way.keys())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Starts an operation. One that ends at once costs no task; the others tell the actor, several in one message.
    pub(crate) fn start(
        &mut self,
        op: OpId,
        operation: impl Future<Output = Ended> + 'static,
        (addr, span): (&Addr<ObjectSetActor>, tracing::Span),
    ) {
        let mut future = AssertUnwindSafe(operation)
            .catch_unwind()
            .map(survived)
            .instrument(span)
            .boxed_local();
        if let Some(end) = (&mut future).now_or_never() {
            self.ended.borrow_mut().push((op, end));
            return;
        }
        let under_way: UnderWay = Rc::new(RefCell::new(Some(future)));
        self.under_way.insert(op, under_way.clone());
        let (ended, addr) = (self.ended.clone(), addr.clone());
        actix::spawn(async move {
            let end = poll_fn(|context| {
                // Without its future the operation has been given up.
                let mut under_way = under_way.borrow_mut();
                let Some(future) = under_way.as_mut() else {
                    return Poll::Ready(None);
                };
                let end = std::task::ready!(future.poll_unpin(context));
                *under_way = None;
                Poll::Ready(Some(end))
            });
            let Some(end) = end.await else { return };
            let is_first = {
                let mut ended = ended.borrow_mut();
                ended.push((op, end));
                ended.len() == 1
            };
            if is_first {
                tell(&addr, Completed);
            }
        });
    }

    /// Lets go of an operation: when this returns, its future has been dropped.
    pub(crate) fn give_up(&mut self, op: OpId) {
        if let Some(under_way) = self.under_way.remove(&op) {
            let future = under_way.borrow_mut().take();
            drop(future);
        }
    }

    /// Lets go of all operations.
    pub(crate) fn give_up_all(&mut self) {
        while let Some((op, _)) = self.under_way.first_key_value() {
            self.give_up(*op);
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
        self.give_up_all();
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

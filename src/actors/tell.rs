//! Sending to actors without waiting: the one place that does.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

/// Sends a message that may be lost: it repeats a level, or carries the means by which its loss is noticed (a reply
/// channel that is dropped with it). Mailboxes bound no memory here; bytes are bounded by the ledger.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that sends so"
)]
pub(crate) fn tell<A, M>(addr: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send,
    M::Result: Send,
{
    addr.do_send(message);
}

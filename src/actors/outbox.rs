//! Answers on their way out. To wake a caller's thread costs more than to serve a read, so the answers to requests that lie
//! in the mailbox together go out together: before whatever else the actor does, and when nobody younger has asked.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::{AsyncContext, Context};
use tokio::sync::oneshot;

use super::object_set::{ObjectSetActor, answer};
use crate::buf::ReadBuf;
use crate::error::CacheError;

/// So many answers wait for no more: the callers shall have work to do while the actor goes on.
const TOGETHER: usize = 8;

#[derive(Debug)]
enum Answer {
    Read(
        oneshot::Sender<Result<ReadBuf, CacheError>>,
        Result<ReadBuf, CacheError>,
    ),
    Done(
        oneshot::Sender<Result<(), CacheError>>,
        Result<(), CacheError>,
    ),
}

/// Answers that have not been sent, in their order. They are sent at the latest when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    answers: Vec<Answer>,
    /// Whether they wait for one another.
    pub(super) is_held: bool,
    is_scheduled: bool,
}

impl Outbox {
    pub(super) fn read(
        &mut self,
        caller: oneshot::Sender<Result<ReadBuf, CacheError>>,
        result: Result<ReadBuf, CacheError>,
    ) {
        self.push(Answer::Read(caller, result));
    }

    pub(super) fn done(
        &mut self,
        caller: oneshot::Sender<Result<(), CacheError>>,
        result: Result<(), CacheError>,
    ) {
        self.push(Answer::Done(caller, result));
    }

    fn push(&mut self, answer: Answer) {
        self.answers.push(answer);
        if !self.is_held || self.answers.len() >= TOGETHER {
            self.send();
        }
    }

    pub(super) fn send(&mut self) {
        for waiting in self.answers.drain(..) {
            match waiting {
                Answer::Read(caller, result) => answer(caller, result),
                Answer::Done(caller, result) => answer(caller, result),
            }
        }
    }

    /// Sends when the mailbox has been emptied, if not before.
    pub(super) fn send_later(&mut self, ctx: &mut Context<ObjectSetActor>) {
        if !self.answers.is_empty() && !self.is_scheduled {
            self.is_scheduled = true;
            ctx.spawn(Sending);
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.send();
    }
}

/// What an actor's context does once its mailbox is empty.
struct Sending;

impl actix::fut::ActorFuture<ObjectSetActor> for Sending {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut ObjectSetActor,
        _: &mut Context<ObjectSetActor>,
        _: &mut TaskContext<'_>,
    ) -> Poll<()> {
        actor.outbox.is_scheduled = false;
        actor.outbox.send();
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Waiting = oneshot::Receiver<Result<(), CacheError>>;

    fn held() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.is_held = true;
        outbox
    }

    fn ask(outbox: &mut Outbox) -> Waiting {
        let (caller, waiting) = oneshot::channel();
        outbox.done(caller, Ok(()));
        waiting
    }

    fn answered(waiting: &mut [Waiting]) -> usize {
        waiting
            .iter_mut()
            .filter_map(|waiting| waiting.try_recv().ok())
            .count()
    }

    #[test]
    fn held_answers_go_out_together() {
        let mut outbox = held();
        let mut waiting: Vec<Waiting> = (1..TOGETHER).map(|_| ask(&mut outbox)).collect();
        assert_eq!(answered(&mut waiting), 0);
        waiting.push(ask(&mut outbox));
        assert_eq!(answered(&mut waiting), TOGETHER);
    }

    #[test]
    fn an_answer_that_is_not_held_takes_the_others_with_it() {
        let mut outbox = held();
        let mut waiting = vec![ask(&mut outbox)];
        outbox.is_held = false;
        waiting.push(ask(&mut outbox));
        assert_eq!(answered(&mut waiting), 2);
    }

    #[test]
    fn an_actor_that_goes_away_has_answered() {
        let mut outbox = held();
        let mut waiting = vec![ask(&mut outbox)];
        drop(outbox);
        assert_eq!(answered(&mut waiting), 1);
    }
}

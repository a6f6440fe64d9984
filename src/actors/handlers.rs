//! The set actor's handlers: each translates a message, calls the engine and drives it.

use actix::{Context, Handler, ResponseFuture};
use futures::FutureExt;
use tokio::sync::oneshot;

use super::message::{
    Audit, Call, ChangeLimits, ClearNonexistence, Completed, Discard, Flush, Forsake, Freed,
    GetDump, GetStatus, GiveBack, IsCached, Lost, Prefetch, Purge, Read, Release, Request, SetDump,
    SetSnapContext, SetStatus, Stop, Taken, Traced, Truncate, TruncateFile, Write, WriteBack,
};
use super::object_set::{ObjectSetActor, Waiter, answer};
use crate::buf::ReadBuf;
use crate::engine::{AuditFailure, Counter, Flushed, Recount};
use crate::error::CacheError;
use crate::request::{ObjectExtent, ReadRequest};

type Reply<T> = ResponseFuture<Result<T, CacheError>>;

impl ObjectSetActor {
    /// The answer when it comes; an actor that goes away first has failed or closed its set.
    fn await_reply<T: 'static>(&self, reply: oneshot::Receiver<Result<T, CacheError>>) -> Reply<T> {
        let shared = self.shared.clone();
        Box::pin(reply.map(move |reply| reply.unwrap_or_else(|_| Err(shared.refusal()))))
    }

    fn read_message(
        &mut self,
        request: ReadRequest,
        deliver: bool,
        ctx: &mut Context<Self>,
    ) -> Reply<ReadBuf> {
        let (reply, receiver) = oneshot::channel();
        match self.shared.shape.checked_read(request) {
            Ok(request) => {
                let request = Request::Read {
                    request,
                    deliver,
                    reply,
                };
                self.call_here(request, ctx);
            }
            Err(error) => answer(reply, Err(error.into())),
        }
        self.await_reply(receiver)
    }

    /// Takes a request that came as a message.
    fn call_here(&mut self, request: Request, ctx: &mut Context<Self>) {
        let (waiter, span) = (self.shared.enrol(), tracing::Span::current());
        self.call(
            Call {
                waiter,
                request,
                span,
            },
            ctx,
        );
    }

    fn checked_extents(
        &self,
        mut extents: Vec<ObjectExtent>,
    ) -> Result<Vec<ObjectExtent>, CacheError> {
        self.shared.shape.check_extents(&extents)?;
        for extent in &mut extents {
            extent.object = self.shared.shape.canonical(extent.object.clone());
        }
        Ok(extents)
    }
}

impl Handler<Traced> for ObjectSetActor {
    type Result = ();

    fn handle(&mut self, Traced { span, handle }: Traced, ctx: &mut Context<Self>) {
        self.outbox.send();
        // What the message starts at once is started within its caller's span, too.
        span.in_scope(|| handle(self, ctx));
    }
}

impl Handler<Forsake> for ObjectSetActor {
    type Result = ();

    fn handle(&mut self, Forsake(waiter): Forsake, ctx: &mut Context<Self>) {
        self.forsake(waiter, ctx);
    }
}

impl Handler<Call> for ObjectSetActor {
    type Result = ();

    fn handle(&mut self, call: Call, ctx: &mut Context<Self>) {
        self.call(call, ctx);
    }
}

impl Handler<Read> for ObjectSetActor {
    type Result = Reply<ReadBuf>;

    fn handle(&mut self, Read(request): Read, ctx: &mut Context<Self>) -> Self::Result {
        self.read_message(request, true, ctx)
    }
}

impl Handler<Prefetch> for ObjectSetActor {
    type Result = Reply<()>;

    fn handle(&mut self, Prefetch(request): Prefetch, ctx: &mut Context<Self>) -> Self::Result {
        let read = self.read_message(request, false, ctx);
        Box::pin(read.map(|read| read.map(drop)))
    }
}

impl Handler<Write> for ObjectSetActor {
    type Result = Reply<()>;

    fn handle(&mut self, Write(request): Write, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        match self.shared.shape.checked_write(request) {
            Ok(request) => self.call_here(Request::Write { request, reply }, ctx),
            Err(error) => answer(reply, Err(error.into())),
        }
        self.await_reply(receiver)
    }
}

impl Handler<Flush> for ObjectSetActor {
    type Result = Reply<Flushed>;

    fn handle(&mut self, Flush { extents }: Flush, ctx: &mut Context<Self>) -> Self::Result {
        self.outbox.send();
        let (reply, receiver) = oneshot::channel();
        match extents
            .map(|extents| self.checked_extents(extents))
            .transpose()
        {
            Ok(extents) => {
                let waiter = self.enrol(Waiter::Flushed(reply));
                let now = self.now();
                self.engine.flush(now, waiter, extents.as_deref());
                self.drive(ctx);
            }
            Err(error) => answer(reply, Err(error)),
        }
        self.await_reply(receiver)
    }
}

impl Handler<Discard> for ObjectSetActor {
    type Result = Reply<()>;

    fn handle(&mut self, Discard { extents }: Discard, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        let checked = self
            .check_open()
            .and_then(|()| self.checked_extents(extents));
        match checked {
            Ok(extents) => {
                let waiter = self.enrol(Waiter::Done(reply));
                let now = self.now();
                self.engine.discard(now, waiter, &extents);
                self.drive(ctx);
            }
            Err(error) => answer(reply, Err(error)),
        }
        self.await_reply(receiver)
    }
}

impl Handler<Truncate> for ObjectSetActor {
    type Result = Reply<()>;

    fn handle(&mut self, truncate: Truncate, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        match self.check_open() {
            Ok(()) => {
                let object = self.shared.shape.canonical(truncate.object);
                let waiter = self.enrol(Waiter::Done(reply));
                let now = self.now();
                self.engine
                    .truncate(now, waiter, (&object, truncate.size_bytes));
                self.drive(ctx);
            }
            Err(error) => answer(reply, Err(error)),
        }
        self.await_reply(receiver)
    }
}

impl Handler<TruncateFile> for ObjectSetActor {
    type Result = Reply<()>;

    fn handle(
        &mut self,
        TruncateFile(truncation): TruncateFile,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        if let Err(error) = self.check_open() {
            answer(reply, Err(error));
            return self.await_reply(receiver);
        }
        let waiter = self.enrol(Waiter::Done(reply));
        let now = self.now();
        match self.engine.truncate_file(now, waiter, truncation) {
            Ok(()) => self.drive(ctx),
            Err(error) => {
                if let Some(Waiter::Done(reply)) = self.dismiss(waiter) {
                    answer(reply, Err(error.into()));
                }
            }
        }
        self.await_reply(receiver)
    }
}

impl Handler<Purge> for ObjectSetActor {
    type Result = Result<u64, CacheError>;

    fn handle(&mut self, Purge: Purge, ctx: &mut Context<Self>) -> Self::Result {
        let now = self.now();
        let lost = self.engine.purge(now);
        self.drive(ctx);
        Ok(lost)
    }
}

impl Handler<Release> for ObjectSetActor {
    type Result = Result<u64, CacheError>;

    fn handle(&mut self, Release: Release, ctx: &mut Context<Self>) -> Self::Result {
        let kept = self.engine.release();
        self.drive(ctx);
        Ok(kept)
    }
}

impl Handler<ClearNonexistence> for ObjectSetActor {
    type Result = Result<(), CacheError>;

    fn handle(&mut self, _: ClearNonexistence, ctx: &mut Context<Self>) -> Self::Result {
        self.engine.clear_nonexistence();
        self.drive(ctx);
        Ok(())
    }
}

impl Handler<IsCached> for ObjectSetActor {
    type Result = Result<bool, CacheError>;

    fn handle(&mut self, asked: IsCached, ctx: &mut Context<Self>) -> Self::Result {
        let extents = self.checked_extents(asked.extents)?;
        let is_cached = self.engine.is_cached(&extents, asked.snap);
        self.drive(ctx);
        Ok(is_cached)
    }
}

impl Handler<SetSnapContext> for ObjectSetActor {
    type Result = Result<(), CacheError>;

    fn handle(
        &mut self,
        SetSnapContext(context): SetSnapContext,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        self.engine.set_context(context);
        self.shared.set_context(self.engine.options().context.seq);
        self.drive(ctx);
        Ok(())
    }
}

impl Handler<GetStatus> for ObjectSetActor {
    type Result = Result<SetStatus, CacheError>;

    fn handle(&mut self, _: GetStatus, ctx: &mut Context<Self>) -> Self::Result {
        let holdings = self.engine.holdings();
        self.drive(ctx);
        Ok(SetStatus {
            set: self.shared.id.clone(),
            is_empty: holdings.is_empty,
            has_cached: holdings.has_cached,
            is_dirty_or_committing: holdings.is_dirty_or_committing,
            is_write_through: self.engine.is_write_through(),
            is_fenced: self.engine.is_fenced(),
            last_error: self.engine.last_error().map(ToString::to_string),
            gauges: self.shared.books.totals().into(),
            counters: self.shared.books.counters(),
        })
    }
}

impl Handler<GetDump> for ObjectSetActor {
    type Result = Result<SetDump, CacheError>;

    fn handle(&mut self, _: GetDump, ctx: &mut Context<Self>) -> Self::Result {
        let now = self.now();
        let objects = self.engine.list(now);
        self.drive(ctx);
        Ok(SetDump {
            set: self.shared.id.clone(),
            objects,
        })
    }
}

impl Handler<Audit> for ObjectSetActor {
    type Result = Result<Recount, AuditFailure>;

    fn handle(&mut self, _: Audit, ctx: &mut Context<Self>) -> Self::Result {
        let audit = self.engine.audit();
        self.drive(ctx);
        audit
    }
}

impl Handler<ChangeLimits> for ObjectSetActor {
    type Result = ();

    fn handle(&mut self, _: ChangeLimits, ctx: &mut Context<Self>) {
        let now = self.now();
        // The last change is what counts, in whatever order these messages come.
        let limits = self.shared.common.limits();
        self.engine.set_limits(now, (&limits).into());
        self.drive(ctx);
    }
}

impl Handler<Completed> for ObjectSetActor {
    type Result = ();

    fn handle(&mut self, Completed: Completed, ctx: &mut Context<Self>) {
        self.outbox.send();
        self.engine.catch_up();
        self.drive(ctx);
    }
}

impl Handler<WriteBack> for ObjectSetActor {
    type Result = Taken;

    fn handle(&mut self, WriteBack(demand): WriteBack, ctx: &mut Context<Self>) -> Taken {
        self.outbox.send();
        let sent = |actor: &Self| actor.shared.books.counter(Counter::WriteBackBytes);
        let before = sent(self);
        let now = self.now();
        self.engine.write_back(now, demand);
        let sent = sent(self).saturating_sub(before);
        let taken = sent.saturating_add(self.engine.demanded_bytes());
        self.drive_on_demand(ctx);
        Taken {
            bytes: taken,
            oldest: self.engine.oldest_dirty(),
        }
    }
}

impl Handler<GiveBack> for ObjectSetActor {
    type Result = Freed;

    fn handle(&mut self, wanted: GiveBack, ctx: &mut Context<Self>) -> Freed {
        self.outbox.send();
        let now = self.now();
        let bytes = self.engine.trim(now, wanted.bytes);
        let objects = self.engine.close_idle(wanted.objects);
        self.drive_on_demand(ctx);
        Freed { bytes, objects }
    }
}

impl Handler<Stop> for ObjectSetActor {
    type Result = Reply<Lost>;

    fn handle(&mut self, Stop { flush }: Stop, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, receiver) = oneshot::channel();
        self.begin_stop(flush, reply, ctx);
        self.await_reply(receiver)
    }
}

//! Every message beside its reply.
//!
//! The public ones mean the same as the methods of [`ObjectSet`](crate::ObjectSet) of like name; a hit or an absorbed
//! write costs a round trip to the set's thread instead of none. Requests to a set that stops are answered by a
//! `MailboxError`, or by [`CacheError::Closed`].

use actix::dev::MessageResponse as _;
use actix::{Context, Handler, Message, MessageResponse};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::Span;

use super::books::{Counters, Gauges};
use super::object_set::ObjectSetActor;
use crate::buf::ReadBuf;
use crate::engine::{AuditFailure, Demand, Flushed, ObjectListing, Recount, WaiterId};
use crate::error::{BackendError, CacheError};
use crate::request::{ObjectExtent, ReadRequest, WriteRequest};
use crate::types::{Moment, ObjectKey, SetId, SnapContext, SnapId, Truncation};

/// Reads extents.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<ReadBuf, CacheError>")]
pub struct Read(pub ReadRequest);

/// Brings extents into the cache.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct Prefetch(pub ReadRequest);

/// Writes extents.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct Write(pub WriteRequest);

/// Waits until what is dirty now is stored: of the extents, or of the whole set.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "Result<Flushed, CacheError>")]
pub struct Flush {
    /// What to flush; `None` for all of the set.
    pub extents: Option<Vec<ObjectExtent>>,
}

/// Drops extents, dirty bytes too.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct Discard {
    /// What to drop.
    pub extents: Vec<ObjectExtent>,
}

/// Drops what lies past a size of one object.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct Truncate {
    /// The object.
    pub object: ObjectKey,
    /// Its new size.
    pub size_bytes: u64,
}

/// Notes that the set's file was truncated.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct TruncateFile(pub Truncation);

/// Drops everything unwritten; answers with the dirty bytes lost.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, CacheError>")]
pub struct Purge;

/// Drops all that is clean; answers with the bytes kept.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, CacheError>")]
pub struct Release;

/// Forgets which objects don't exist.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct ClearNonexistence;

/// Asks whether every byte of the extents is held in any state.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, CacheError>")]
pub struct IsCached {
    /// What to look for.
    pub extents: Vec<ObjectExtent>,
    /// In which snapshot, or the head.
    pub snap: SnapId,
}

/// Sets the snapshot context of writes that bring none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), CacheError>")]
pub struct SetSnapContext(pub SnapContext);

/// Asks how a set is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<SetStatus, CacheError>")]
pub struct GetStatus;

/// Asks for a listing of what is cached.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<SetDump, CacheError>")]
pub struct GetDump;

/// Asks for a check of everything against a recount.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Recount, AuditFailure>")]
pub struct Audit;

/// How a set is (rules S-02, F-04, L-04).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetStatus {
    /// The set.
    pub set: SetId,
    /// Nothing is cached.
    pub is_empty: bool,
    /// Something is cached that is neither dirty nor in flight to the store.
    pub has_cached: bool,
    /// Something is dirty or in flight to the store.
    pub is_dirty_or_committing: bool,
    /// Every write is answered by the store: by the cache's limits, or since no caller has flushed the set yet.
    pub is_write_through: bool,
    /// Another client has taken over: nothing is sent to the store any more, and writes are refused.
    pub is_fenced: bool,
    /// What the store answered to the last writeback, if that failed, or that another client has taken over.
    pub last_error: Option<String>,
    /// What is held.
    pub gauges: Gauges,
    /// What happened.
    pub counters: Counters,
}

/// What a set holds (rule L-06).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetDump {
    /// The set.
    pub set: SetId,
    /// Its objects, by name.
    pub objects: Vec<ObjectListing>,
}

/// The limits that a set keeps itself have changed; the cache knows what they are now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ChangeLimits;

/// Something waits on the set's shared lists: completions, or room that was granted.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Completed;

/// The caller of a read or write no longer waits for its answer.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Forsake(pub(crate) WaiterId);

/// The cache is closed or gone: the flusher and the trimmer end.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct End;

/// Another message with where its answer goes, within the span of its caller (rule L-05).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Traced {
    pub(crate) span: Span,
    pub(crate) handle: Handling,
}

type Handling = Box<dyn FnOnce(&mut ObjectSetActor, &mut Context<ObjectSetActor>) + Send>;

impl Traced {
    /// Wraps a message, whose answer goes to `reply`.
    pub(crate) fn new<M>(message: M, reply: oneshot::Sender<M::Result>) -> Self
    where
        M: Message + Send + 'static,
        M::Result: Send,
        ObjectSetActor: Handler<M>,
    {
        let handle = |actor: &mut ObjectSetActor, ctx: &mut Context<ObjectSetActor>| {
            actor.handle(message, ctx).handle(ctx, Some(reply));
        };
        Self {
            span: Span::current(),
            handle: Box::new(handle),
        }
    }
}

/// There may be something to do.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// The flusher wants bytes written back.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Taken")]
pub(crate) struct WriteBack(pub(crate) Demand);

/// What a set makes of the flusher's demand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, MessageResponse)]
pub(crate) struct Taken {
    /// Bytes that it sends, now or as soon as less is in flight.
    pub(crate) bytes: u64,
    /// Since when its oldest dirty bytes have been dirty.
    pub(crate) oldest: Option<Moment>,
}

/// The trimmer wants clean bytes given back, and idle objects closed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Freed")]
pub(crate) struct GiveBack {
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
}

/// What was given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, MessageResponse)]
pub(crate) struct Freed {
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
}

/// Stops the set: when everything is stored, or at once.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Lost, CacheError>")]
pub(crate) struct Stop {
    pub(crate) flush: bool,
}

/// What was lost by stopping without a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Bytes that were dirty.
    pub dirty_bytes: u64,
    /// Bytes that were on their way to the store: they may or may not have arrived.
    pub in_flight_bytes: u64,
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.dirty_bytes += other.dirty_bytes;
        self.in_flight_bytes += other.in_flight_bytes;
    }
}

/// A request of a handle, with where its answer goes.
#[derive(Debug)]
pub(crate) enum Request {
    Read {
        request: ReadRequest,
        deliver: bool,
        reply: oneshot::Sender<Result<ReadBuf, CacheError>>,
    },
    Write {
        request: WriteRequest,
        reply: oneshot::Sender<Result<(), CacheError>>,
    },
}

/// A request of a handle, by the number and within the span of its caller.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Call {
    pub(crate) waiter: WaiterId,
    pub(crate) request: Request,
    pub(crate) span: Span,
}

/// The end of a fetch or writeback.
#[derive(Debug)]
pub(crate) enum Ended {
    Fetch(Result<Bytes, BackendError>),
    WriteBack(Result<(), BackendError>),
    /// The backend panicked.
    Panicked(BackendError),
}

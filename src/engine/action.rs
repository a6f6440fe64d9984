//! What an engine wants done, and what it answers.

use serde::{Deserialize, Serialize};

use super::extent::OpId;
use super::window::Charge;
use crate::buf::ReadBuf;
use crate::error::CacheError;
use crate::io::{BackendRead, BackendWrite, JournalNotice};

/// Names a caller that waits for an answer; grows with each one of a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct WaiterId(pub(crate) u64);

/// One thing that the engine wants done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Start a fetch; its end goes to `handle_fetch`.
    Fetch { op: OpId, read: BackendRead },
    /// Start a writeback; its end goes to `handle_write_back`.
    WriteBack { op: OpId, write: BackendWrite },
    /// Stop waiting for this fetch or writeback.
    GiveUp { op: OpId },
    /// Tell the journal.
    Journal(JournalNotice),
    /// Reserve room in order of arrival; then call `handle_room`.
    AwaitRoom { waiter: WaiterId, charge: Charge },
    /// Take back what a read waits for, which needs it no more. Where it was granted meanwhile, `handle_room` is called.
    ForgoRoom { waiter: WaiterId },
    /// Take back what writes wait for: none of them will enter any more.
    ForgoWriteRoom,
    /// Answer a caller.
    Reply { waiter: WaiterId, reply: Reply },
    /// Nothing is dirty or in flight any more (rule F-07).
    Clean,
}

/// An answer to a caller.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Read(Result<ReadBuf, CacheError>),
    /// A write, discard, or whatever else answers only that it is done.
    Done(Result<(), CacheError>),
    Flushed(Result<Flushed, CacheError>),
}

/// What a flush found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Flushed {
    /// Nothing was dirty or in flight.
    pub already_clean: bool,
}

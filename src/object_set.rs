//! `ObjectSet`: a caller's handle of one set. Hits and absorbed writes run in the caller's thread.

mod reads;
mod writes;

use std::sync::Arc;

use actix::{Addr, Handler, Message};
use tokio::sync::{oneshot, watch};

use crate::actors::message::{
    ClearNonexistence, Discard, Flush, Forsake, GetDump, GetStatus, IsCached, Lost, Purge, Release,
    SetDump, SetStatus, Traced, Truncate, TruncateFile,
};
use crate::actors::{Counters, Gauges, ObjectSetActor, SetShared, tell};
use crate::cache::Cache;
use crate::engine::{Flushed, Layout, WaiterId};
use crate::error::{CacheError, RequestError};
use crate::request::ObjectExtent;
use crate::types::{ByteRange, ObjectKey, SetId, SnapId, Truncation};

/// A handle of an open set. Clones are handles of the same set; all may be used from several threads and from any
/// async runtime.
///
/// Reads of what is in memory and writes for which there is room are done when their future is first polled, in the
/// polling thread. Everything else is asked of the set's actor.
#[derive(Clone, Debug)]
pub struct ObjectSet {
    cache: Cache,
    shared: Arc<SetShared>,
    clean: watch::Receiver<u64>,
}

/// The clean events of a set: one whenever it goes from dirty to nothing dirty and nothing in flight (rule F-07).
#[derive(Clone, Debug)]
pub struct CleanEvents {
    events: watch::Receiver<u64>,
}

impl CleanEvents {
    /// Waits for the next event; `None` when the set has been closed. Events that nobody waited for count as one.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<()> {
        self.events.changed().await.ok()
    }
}

/// Somebody who waits for an answer.
struct Caller<'a> {
    shared: &'a SetShared,
    waiter: WaiterId,
    is_answered: bool,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if !self.is_answered
            && let Some(addr) = self.shared.addr().get()
        {
            tell(addr, Forsake(self.waiter));
        }
    }
}

impl ObjectSet {
    pub(crate) const fn new(
        cache: Cache,
        shared: Arc<SetShared>,
        clean: watch::Receiver<u64>,
    ) -> Self {
        Self {
            cache,
            shared,
            clean,
        }
    }

    /// The set's name.
    #[must_use]
    pub fn id(&self) -> &SetId {
        &self.shared.id
    }

    /// The cache that the set is part of.
    #[must_use]
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How the set's file is striped, if it has one.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        self.shared.layout.as_ref()
    }

    /// The set's actor, for messages of [`crate::message`]; they mean the same as the methods here.
    ///
    /// # Errors
    /// [`CacheError::SetFailed`] when the set was never started.
    pub fn addr(&self) -> Result<&Addr<ObjectSetActor>, CacheError> {
        self.shared
            .addr()
            .get()
            .ok_or_else(|| self.shared.refusal())
    }

    async fn ask<M, T>(&self, message: M) -> Result<T, CacheError>
    where
        M: Message<Result = Result<T, CacheError>> + Send + 'static,
        T: Send + 'static,
        ObjectSetActor: Handler<M>,
    {
        let (reply, answer) = oneshot::channel();
        tell::<_, Traced>(self.addr()?, Traced::new(message, reply));
        answer.await.unwrap_or_else(|_| Err(self.shared.refusal()))
    }

    /// Waits for the answer to a request; with the future, the request is taken back as far as it waits for room.
    async fn answered<T>(
        &self,
        waiter: WaiterId,
        answer: oneshot::Receiver<Result<T, CacheError>>,
    ) -> Result<T, CacheError> {
        let mut caller = Caller {
            shared: &self.shared,
            waiter,
            is_answered: false,
        };
        let answer = answer.await;
        caller.is_answered = true;
        answer.unwrap_or_else(|_| Err(self.shared.refusal()))
    }

    // Flushes.

    /// Waits until every byte of the set that was dirty or in flight at the call is stored; later writes are not
    /// waited for.
    ///
    /// # Errors
    /// [`CacheError::WriteBack`] for the first extent that could not be stored; it stays dirty and is tried again.
    /// [`CacheError::Fenced`] once another client has taken over.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, not the writing.
    pub async fn flush(&self) -> Result<Flushed, CacheError> {
        self.ask(Flush { extents: None }).await
    }

    /// As [`flush`](Self::flush), for every buffer that the extents touch.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn flush_extents(&self, extents: Vec<ObjectExtent>) -> Result<Flushed, CacheError> {
        self.ask(Flush {
            extents: Some(extents),
        })
        .await
    }

    /// As [`flush`](Self::flush), for every buffer that a range of the set's file touches.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn flush_range(&self, offset: u64, len: u64) -> Result<Flushed, CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        self.flush_extents(extents_of(layout, range)).await
    }

    /// The set's clean events from now on.
    #[must_use]
    pub fn clean_events(&self) -> CleanEvents {
        let mut events = self.clean.clone();
        events.mark_unchanged();
        CleanEvents { events }
    }

    // Dropping.

    /// Drops extents, dirty bytes too; resolves when no writeback over them is under way, so that what the caller
    /// then does in the store can't be overtaken.
    ///
    /// # Errors
    /// [`CacheError::InvalidRequest`], [`CacheError::Closed`], [`CacheError::SetFailed`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; the bytes are gone.
    pub async fn discard(&self, extents: Vec<ObjectExtent>) -> Result<(), CacheError> {
        self.ask(Discard { extents }).await
    }

    /// As [`discard`](Self::discard), for a range of the set's file.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub async fn discard_range(&self, offset: u64, len: u64) -> Result<(), CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        self.discard(extents_of(layout, range)).await
    }

    /// Drops what lies past `size_bytes` of an object, as [`discard`](Self::discard) does.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub async fn truncate(
        &self,
        object: impl Into<ObjectKey>,
        size_bytes: u64,
    ) -> Result<(), CacheError> {
        self.ask(Truncate {
            object: object.into(),
            size_bytes,
        })
        .await
    }

    /// Notes that the set's file was truncated: what is cached past its end goes, and from now on fetches and
    /// writebacks tell the store, which makes older bytes past the end read as zeros.
    ///
    /// # Errors
    /// As [`discard`](Self::discard); [`RequestError::StaleTruncation`] unless `truncation.seq` is newer than all before.
    pub async fn truncate_file(&self, truncation: Truncation) -> Result<(), CacheError> {
        self.ask(TruncateFile(truncation)).await
    }

    /// Drops everything, dirty bytes too, with no writeback; waiting flushes end. What is in flight may still land.
    /// Returns the dirty bytes lost.
    ///
    /// # Errors
    /// [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn purge(&self) -> Result<u64, CacheError> {
        self.ask(Purge).await
    }

    /// Drops all that is clean, and forgets what is known of objects. Returns the bytes kept.
    ///
    /// # Errors
    /// [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn release(&self) -> Result<u64, CacheError> {
        self.ask(Release).await
    }

    /// Forgets which objects don't exist, as after somebody else made some.
    ///
    /// # Errors
    /// [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn clear_nonexistence(&self) -> Result<(), CacheError> {
        self.ask(ClearNonexistence).await
    }

    // Sight.

    /// Whether every byte of the extents is held in any state.
    ///
    /// # Errors
    /// [`CacheError::InvalidRequest`], [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn is_cached(
        &self,
        extents: Vec<ObjectExtent>,
        snap: SnapId,
    ) -> Result<bool, CacheError> {
        self.ask(IsCached { extents, snap }).await
    }

    /// As [`is_cached`](Self::is_cached), for a range of the set's file.
    ///
    /// # Errors
    /// As [`is_cached`](Self::is_cached).
    pub async fn is_cached_at(&self, offset: u64, len: u64) -> Result<bool, CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        self.is_cached(extents_of(layout, range), SnapId::HEAD)
            .await
    }

    /// How the set is.
    ///
    /// # Errors
    /// [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn status(&self) -> Result<SetStatus, CacheError> {
        self.ask(GetStatus).await
    }

    /// What the set holds and what happened, without asking its actor.
    #[must_use]
    pub fn stats(&self) -> (Gauges, Counters) {
        (
            self.shared.books.totals().into(),
            self.shared.books.counters(),
        )
    }

    /// Lists what the set holds.
    ///
    /// # Errors
    /// [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn dump(&self) -> Result<SetDump, CacheError> {
        self.ask(GetDump).await
    }

    /// Stores everything and closes the set for all its handles.
    ///
    /// # Errors
    /// [`CacheError::WriteBack`] for the first extent that could not be stored: the set stays open, with its data.
    /// [`CacheError::Fenced`] where something is unsaved and another client has taken over; then only
    /// [`abandon`](Self::abandon) closes it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the closing under way.
    pub async fn close(&self) -> Result<(), CacheError> {
        self.cache
            .stop_set(self.shared.clone(), true)
            .await
            .map(drop)
    }

    /// Closes the set for all its handles at once, without storing anything: what is unsaved is lost, and the return
    /// value says how much. The way to close a set that another client has taken over.
    ///
    /// # Errors
    /// [`CacheError::SetFailed`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the closing under way.
    pub async fn abandon(&self) -> Result<Lost, CacheError> {
        let lost = self.cache.stop_set(self.shared.clone(), false).await?;
        if lost != Lost::default() {
            let set = self.shared.id.as_str();
            tracing::error!(
                set,
                lost.dirty_bytes,
                lost.in_flight_bytes,
                "the object set was abandoned"
            );
        }
        Ok(lost)
    }

    fn file_range(&self, offset: u64, len: u64) -> Result<(&Layout, ByteRange), CacheError> {
        let range = ByteRange::new(offset, len)?;
        let layout = self.shared.layout.as_ref().ok_or(RequestError::NoLayout)?;
        match self.shared.file_bytes {
            Some(file_bytes) if range.end() > file_bytes => {
                Err(RequestError::PastFile { range, file_bytes }.into())
            }
            Some(_) | None => Ok((layout, range)),
        }
    }
}

fn extents_of(layout: &Layout, range: ByteRange) -> Vec<ObjectExtent> {
    let runs = layout.extents(range).into_iter();
    runs.map(|run| ObjectExtent {
        object: ObjectKey::Number(run.object),
        range: run.range,
        places: run.places,
    })
    .collect()
}

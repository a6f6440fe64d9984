//! `ObjectSet`: a caller's handle of one set. Hits and absorbed writes run in the caller's thread.

use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Addr, Handler, Message};
use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::{oneshot, watch};

use crate::actors::message::{
    Call, ClearNonexistence, Discard, Flush, GetDump, GetStatus, IsCached, Purge, Release, SetDump,
    SetSnapContext, SetStatus, Truncate, TruncateFile,
};
use crate::actors::{
    Counters, DoorExtent, DoorWrite, Entered, Gauges, ObjectSetActor, SetShared, tell,
};
use crate::buf::ReadBuf;
use crate::cache::{Cache, answered};
use crate::engine::{Flushed, Layout, join_places, split_by_place};
use crate::error::{CacheError, RequestError};
use crate::request::{ObjectExtent, ReadRequest, WriteRequest};
use crate::types::{ByteRange, Hints, ObjectKey, Place, SetId, SnapContext, SnapId, Truncation};

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
        actix::Context<ObjectSetActor>: ToEnvelope<ObjectSetActor, M>,
    {
        let addr = self.addr()?;
        addr.send(message)
            .await
            .unwrap_or_else(|_| Err(self.shared.refusal()))
    }

    // Reads.

    /// Reads extents.
    ///
    /// # Errors
    /// [`CacheError::InvalidRequest`], [`CacheError::NotFound`] (in a set opened so), [`CacheError::Read`] when the
    /// store fails; reading again asks it again.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the answer; what was being fetched still enters the cache.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadBuf, CacheError> {
        let request = self.shared.shape.checked_read(request)?;
        if let Some(bytes) = self.read_hit(&request) {
            return Ok(bytes);
        }
        self.read_slow(request, true).await
    }

    fn read_hit(&self, request: &ReadRequest) -> Option<ReadBuf> {
        let mut parts = Vec::new();
        let mut bytes = 0;
        for extent in &request.extents {
            let mut out = ReadBuf::default();
            let object = (&extent.object, request.snap);
            if !self
                .shared
                .read_hit(object, extent.range, request.hints, &mut out)
            {
                return None;
            }
            bytes += extent.range.len();
            split_by_place(&extent.places, out, &mut parts);
        }
        self.shared.count_hit(bytes);
        Some(join_places(parts))
    }

    async fn read_slow(&self, request: ReadRequest, deliver: bool) -> Result<ReadBuf, CacheError> {
        let (reply, receiver) = oneshot::channel();
        tell(
            self.addr()?,
            Call::Read {
                request,
                deliver,
                reply,
            },
        );
        answered(&self.shared, receiver).await
    }

    /// Reads `len` bytes at `offset` of an object's head.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_object(
        &self,
        object: impl Into<ObjectKey>,
        offset: u64,
        len: u64,
    ) -> Result<ReadBuf, CacheError> {
        let range = ByteRange::new(offset, len)?;
        let object = self.shared.shape.canonical(object.into());
        self.shared.shape.check_range(&object, range)?;
        let mut out = ReadBuf::default();
        if self
            .shared
            .read_hit((&object, SnapId::HEAD), range, Hints::default(), &mut out)
        {
            self.shared.count_hit(len);
            return Ok(out);
        }
        let places = vec![Place { offset: 0, len }];
        let extents = vec![ObjectExtent {
            object,
            range,
            places,
        }];
        self.read_slow(
            ReadRequest {
                extents,
                ..ReadRequest::default()
            },
            true,
        )
        .await
    }

    /// Reads `len` bytes at `offset` of the set's file.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`RequestError::NoLayout`] where the set has no file, [`RequestError::PastFile`]
    /// where the range ends past it.
    ///
    /// # Cancel safety
    /// As [`read`](Self::read).
    pub async fn read_at(&self, offset: u64, len: u64) -> Result<ReadBuf, CacheError> {
        self.read_at_with(offset, len, Hints::default()).await
    }

    /// As [`read_at`](Self::read_at), with hints.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub async fn read_at_with(
        &self,
        offset: u64,
        len: u64,
        hints: Hints,
    ) -> Result<ReadBuf, CacheError> {
        self.read_snap_at(SnapId::HEAD, (offset, len), hints).await
    }

    /// Reads `len` bytes at `offset` of the set's file as it was at a snapshot.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub async fn read_snap_at(
        &self,
        snap: SnapId,
        (offset, len): (u64, u64),
        hints: Hints,
    ) -> Result<ReadBuf, CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        if let Some(bytes) = self.read_runs_hit(layout, range, (snap, hints)) {
            return Ok(bytes);
        }
        let request = ReadRequest {
            extents: extents_of(layout, range),
            snap,
            hints,
        };
        self.read(request).await
    }

    /// The door for file ranges that take one run of each object: allocates nothing for the request.
    fn read_runs_hit(
        &self,
        layout: &Layout,
        range: ByteRange,
        (snap, hints): (SnapId, Hints),
    ) -> Option<ReadBuf> {
        // A longer range may have several runs of one object, which must be read together.
        let row_bytes = layout
            .stripe_unit()
            .saturating_mul(u64::from(layout.stripe_count()));
        if layout.stripe_count() > 1 && range.len() > row_bytes - layout.stripe_unit() {
            return None;
        }
        let mut out = ReadBuf::default();
        for run in layout.runs(range) {
            let object = ObjectKey::Number(run.object);
            if !self
                .shared
                .read_hit((&object, snap), run.range, hints, &mut out)
            {
                return None;
            }
        }
        self.shared.count_hit(range.len());
        Some(out)
    }

    /// Brings a range of the set's file into the cache, and resolves when it is there.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, not the fetching.
    pub async fn prefetch_at(&self, offset: u64, len: u64) -> Result<(), CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        let extents = extents_of(layout, range);
        self.prefetch(ReadRequest {
            extents,
            ..ReadRequest::default()
        })
        .await
    }

    /// Brings extents into the cache, and resolves when they are there.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, not the fetching.
    pub async fn prefetch(&self, request: ReadRequest) -> Result<(), CacheError> {
        let request = self.shared.shape.checked_read(request)?;
        self.read_slow(request, false).await.map(drop)
    }

    // Writes.

    /// Writes extents. When the future resolves, every read asked after it sees the bytes, and every flush asked after
    /// it stores them.
    ///
    /// # Errors
    /// [`CacheError::InvalidRequest`]; in a write-through cache also [`CacheError::WriteBack`].
    ///
    /// # Cancel safety
    /// A write that waits for room is given up with its future, unless the cache accepts writes at once
    /// ([`block_writes_upfront`](crate::CacheConfig::block_writes_upfront)). Otherwise all, some or none of its
    /// extents may have entered, each of them whole or not at all.
    pub async fn write(&self, request: WriteRequest) -> Result<(), CacheError> {
        let mut request = self.shared.shape.checked_write(request)?;
        if request.journal_tid.is_none() {
            let extents: SmallVec<[DoorExtent<'_>; 4]> = request
                .extents
                .iter()
                .map(|extent| DoorExtent {
                    object: &extent.object,
                    range: extent.range,
                    places: &extent.places,
                })
                .collect();
            let write = DoorWrite {
                extents: &extents,
                data: &request.data,
                context: request.context.as_ref().map(|context| context.seq),
                modified: request.modified,
                hints: request.hints,
            };
            match self.shared.write_hit(&write) {
                Entered::All => return Ok(()),
                Entered::Some(entered) => {
                    drop(extents);
                    request.extents.drain(..entered);
                }
            }
        }
        self.write_slow(request).await
    }

    async fn write_slow(&self, request: WriteRequest) -> Result<(), CacheError> {
        let (reply, receiver) = oneshot::channel();
        tell(self.addr()?, Call::Write { request, reply });
        answered(&self.shared, receiver).await
    }

    /// Writes `data` at `offset` of an object.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    /// As [`write`](Self::write).
    pub async fn write_object(
        &self,
        object: impl Into<ObjectKey>,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CacheError> {
        let range = ByteRange::new(offset, data.len() as u64)?;
        let object = self.shared.shape.canonical(object.into());
        self.shared.shape.check_range(&object, range)?;
        self.write_run((object, range), data, Hints::default())
            .await
    }

    /// Writes `data` at `offset` of the set's file.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`RequestError::NoLayout`] where the set has no file, [`RequestError::PastFile`]
    /// where the data ends past it.
    ///
    /// # Cancel safety
    /// As [`write`](Self::write).
    pub async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), CacheError> {
        self.write_at_with(offset, data, Hints::default()).await
    }

    /// As [`write_at`](Self::write_at), with hints.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub async fn write_at_with(
        &self,
        offset: u64,
        data: Bytes,
        hints: Hints,
    ) -> Result<(), CacheError> {
        let (layout, range) = self.file_range(offset, data.len() as u64)?;
        let mut runs = layout.runs(range);
        if let (Some(run), None) = (runs.next(), runs.next()) {
            return self
                .write_run((ObjectKey::Number(run.object), run.range), data, hints)
                .await;
        }
        let extents = extents_of(layout, range);
        self.write(WriteRequest {
            extents,
            data,
            hints,
            ..WriteRequest::default()
        })
        .await
    }

    /// Writes one run of one object; the door's way allocates nothing for the request.
    async fn write_run(
        &self,
        (object, range): (ObjectKey, ByteRange),
        data: Bytes,
        hints: Hints,
    ) -> Result<(), CacheError> {
        let place = Place {
            offset: 0,
            len: range.len(),
        };
        let extent = DoorExtent {
            object: &object,
            range,
            places: &[place],
        };
        let write = DoorWrite {
            extents: &[extent],
            data: &data,
            context: None,
            modified: None,
            hints,
        };
        if self.shared.write_hit(&write) == Entered::All {
            return Ok(());
        }
        let extents = vec![ObjectExtent {
            object,
            range,
            places: vec![place],
        }];
        self.write_slow(WriteRequest {
            extents,
            data,
            hints,
            ..WriteRequest::default()
        })
        .await
    }

    /// Sets the snapshot context of the writes that bring none. Writes acknowledged before keep theirs.
    ///
    /// # Errors
    /// [`CacheError::Closed`], [`CacheError::SetFailed`].
    pub async fn set_snap_context(&self, context: SnapContext) -> Result<(), CacheError> {
        self.ask(SetSnapContext(context)).await
    }

    // Flushes.

    /// Waits until every byte of the set that was dirty or in flight at the call is stored; later writes are not
    /// waited for.
    ///
    /// # Errors
    /// [`CacheError::WriteBack`] for the first extent that could not be stored; it stays dirty and is tried again.
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
    ///
    /// # Cancel safety
    /// Dropping the future leaves the closing under way.
    pub async fn close(&self) -> Result<(), CacheError> {
        self.cache
            .stop_set(self.shared.clone(), true)
            .await
            .map(drop)
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

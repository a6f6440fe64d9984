//! Writes: through the door where there is room, else by the set's actor.

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{ObjectSet, extents_of};
use crate::actors::message::{Call, Request, SetSnapContext};
use crate::actors::{DoorExtent, DoorWrite, Entered, tell};
use crate::error::CacheError;
use crate::request::{ObjectExtent, WriteRequest};
use crate::types::{ByteRange, Hints, ObjectKey, Place, SnapContext};

impl ObjectSet {
    /// Writes extents. When the future resolves, every read asked after it sees the bytes, and every flush asked after
    /// it stores them.
    ///
    /// Data of 16 KiB and more for one object is not copied if nobody else holds it, it crosses no multiple of 256 KiB there,
    /// and it takes the place of whole buffers or of nothing: its memory becomes the cache's own.
    ///
    /// # Errors
    /// [`CacheError::InvalidRequest`]; where the store answers writes also [`CacheError::WriteBack`]; once another
    /// client has taken over, [`CacheError::Fenced`]: what was asked before the set knew may have entered even so.
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
                context: request.context.as_ref().map(|context| context.seq),
                modified: request.modified,
                hints: request.hints,
            };
            match self.shared.write_hit(&write, &mut request.data) {
                Entered::All => return Ok(()),
                Entered::Refused => return Err(self.shared.fenced()),
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
        let waiter = self.shared.enrol();
        let span = tracing::debug_span!("write", set = self.id().as_str());
        let request = Request::Write { request, reply };
        tell(
            self.addr()?,
            Call {
                waiter,
                request,
                span,
            },
        );
        self.answered(waiter, receiver).await
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
        mut data: Bytes,
    ) -> Result<(), CacheError> {
        let range = ByteRange::new(offset, data.len() as u64)?;
        let object = self.shared.shape.canonical(object.into());
        self.shared.shape.check_range(&object, range)?;
        let hints = Hints::default();
        if self.write_run_hit((&object, range), &mut data, hints)? {
            return Ok(());
        }
        Box::pin(self.write_run((object, range), data, hints)).await
    }

    /// Writes `data` at `offset` of the set's file.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`NoLayout`](crate::RequestError::NoLayout) where the set has no file,
    /// [`PastFile`](crate::RequestError::PastFile) where the data ends past it.
    ///
    /// # Cancel safety
    /// As [`write`](Self::write).
    pub async fn write_at(&self, offset: u64, mut data: Bytes) -> Result<(), CacheError> {
        let hints = Hints::default();
        if self.write_file_hit(offset, &mut data, hints)? {
            return Ok(());
        }
        Box::pin(self.write_file(offset, data, hints)).await
    }

    /// As [`write_at`](Self::write_at), with hints.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub async fn write_at_with(
        &self,
        offset: u64,
        mut data: Bytes,
        hints: Hints,
    ) -> Result<(), CacheError> {
        if self.write_file_hit(offset, &mut data, hints)? {
            return Ok(());
        }
        Box::pin(self.write_file(offset, data, hints)).await
    }

    /// Writes what is one run of one object through the door: allocates nothing for the request. Says whether it
    /// could.
    fn write_file_hit(
        &self,
        offset: u64,
        data: &mut Bytes,
        hints: Hints,
    ) -> Result<bool, CacheError> {
        let (layout, range) = self.file_range(offset, data.len() as u64)?;
        let Some((object, range)) = layout.sole_run(range) else {
            return Ok(false);
        };
        self.write_run_hit((&ObjectKey::Number(object), range), data, hints)
    }

    /// Writes what could not be written by [`write_file_hit`](Self::write_file_hit). Who awaits it boxes it: the future of
    /// an absorbed write is moved about by its callers, and should not have all of this in it.
    async fn write_file(&self, offset: u64, data: Bytes, hints: Hints) -> Result<(), CacheError> {
        let (layout, range) = self.file_range(offset, data.len() as u64)?;
        if let Some((object, range)) = layout.sole_run(range) {
            let object = ObjectKey::Number(object);
            return self.write_run((object, range), data, hints).await;
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

    fn write_run_hit(
        &self,
        (object, range): (&ObjectKey, ByteRange),
        data: &mut Bytes,
        hints: Hints,
    ) -> Result<bool, CacheError> {
        let place = Place {
            offset: 0,
            len: range.len(),
        };
        let extent = DoorExtent {
            object,
            range,
            places: &[place],
        };
        let write = DoorWrite {
            extents: &[extent],
            context: None,
            modified: None,
            hints,
        };
        match self.shared.write_hit(&write, data) {
            Entered::All => Ok(true),
            Entered::Refused => Err(self.shared.fenced()),
            // Of one extent, none.
            Entered::Some(_) => Ok(false),
        }
    }

    /// Has the actor write one run of one object.
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
}

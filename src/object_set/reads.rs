//! Reads: at the door where the bytes are in memory, else by the set's actor.

use tokio::sync::oneshot;

use super::{ObjectSet, extents_of};
use crate::actors::message::{Call, Request};
use crate::actors::tell;
use crate::buf::ReadBuf;
use crate::engine::{Layout, Parts, join_places, split_by_place};
use crate::error::CacheError;
use crate::request::{ObjectExtent, ReadRequest};
use crate::types::{ByteRange, Hints, ObjectKey, Place, SnapId};

impl ObjectSet {
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
        let mut parts = Parts::new();
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
        let waiter = self.shared.enrol();
        let span = tracing::debug_span!("read", set = self.id().as_str(), deliver);
        let request = Request::Read {
            request,
            deliver,
            reply,
        };
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
    /// As [`read`](Self::read); [`NoLayout`](crate::RequestError::NoLayout) where the set has no file,
    /// [`PastFile`](crate::RequestError::PastFile) where the range ends past it.
    ///
    /// # Cancel safety
    /// As [`read`](Self::read).
    pub async fn read_at(&self, offset: u64, len: u64) -> Result<ReadBuf, CacheError> {
        let how = (SnapId::HEAD, Hints::default());
        let mut out = ReadBuf::default();
        if self.read_file_hit((offset, len), how, &mut out)? {
            return Ok(out);
        }
        Box::pin(self.read_file((offset, len), how)).await
    }

    /// What [`read_at`](Self::read_at) answers at once because all of it is in memory, else `None`: never waits, and
    /// fetches nothing. Bytes count as a hit; `None` counts as nothing, and is the answer for objects that the
    /// store does not hold.
    ///
    /// # Errors
    /// [`CacheError::InvalidRequest`] for ranges that [`read_at`](Self::read_at) refuses.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    ///
    /// use bytes::Bytes;
    /// use cachalot::backend::MemoryBackend;
    /// use cachalot::{Cache, SetOptions};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::builder(Arc::new(MemoryBackend::new())).start()?;
    /// let set = cache.open(SetOptions::new("disk").file_bytes(1 << 20)).await?;
    /// assert!(set.read_cached_at(0, 5)?.is_none());
    /// set.write_at(0, Bytes::from_static(b"bytes")).await?;
    /// assert_eq!(set.read_cached_at(0, 5)?.map(|read| read.len()), Some(5));
    /// cache.close().await?;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn read_cached_at(&self, offset: u64, len: u64) -> Result<Option<ReadBuf>, CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        let hints = Hints::default();
        if Self::has_one_run_each(layout, range) {
            let mut out = ReadBuf::default();
            let is_hit = self.read_runs_hit(layout, range, (SnapId::HEAD, hints), &mut out);
            return Ok(if is_hit { Some(out) } else { None });
        }
        let request = ReadRequest {
            extents: extents_of(layout, range),
            ..ReadRequest::default()
        };
        Ok(self.read_hit(&self.shared.shape.checked_read(request)?))
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
        let how = (SnapId::HEAD, hints);
        let mut out = ReadBuf::default();
        if self.read_file_hit((offset, len), how, &mut out)? {
            return Ok(out);
        }
        Box::pin(self.read_file((offset, len), how)).await
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
        let mut out = ReadBuf::default();
        if self.read_file_hit((offset, len), (snap, hints), &mut out)? {
            return Ok(out);
        }
        Box::pin(self.read_file((offset, len), (snap, hints))).await
    }

    /// Reads a file range that takes one run of each object into `out`, if all of it is in memory. The answer is put where
    /// the caller wants it, since each move of it costs a hit a few nanoseconds.
    fn read_file_hit(
        &self,
        (offset, len): (u64, u64),
        how: (SnapId, Hints),
        out: &mut ReadBuf,
    ) -> Result<bool, CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        Ok(self.read_runs_hit(layout, range, how, out))
    }

    /// Reads what [`read_file_hit`](Self::read_file_hit) could not. Who awaits it boxes it: the future of a hit is moved
    /// about by its callers, and should not have all of this in it.
    async fn read_file(
        &self,
        (offset, len): (u64, u64),
        (snap, hints): (SnapId, Hints),
    ) -> Result<ReadBuf, CacheError> {
        let (layout, range) = self.file_range(offset, len)?;
        let request = ReadRequest {
            extents: extents_of(layout, range),
            snap,
            hints,
        };
        self.read(request).await
    }

    /// The door for file ranges that take one run of each object: allocates nothing for the request. What is in `out` counts
    /// only if all of it is in memory.
    fn read_runs_hit(
        &self,
        layout: &Layout,
        range: ByteRange,
        (snap, hints): (SnapId, Hints),
        out: &mut ReadBuf,
    ) -> bool {
        let mut read = |object, range| {
            let object = ObjectKey::Number(object);
            self.shared.read_hit((&object, snap), range, hints, out)
        };
        let is_hit = if let Some((object, range)) = layout.sole_run(range) {
            read(object, range)
        } else {
            Self::has_one_run_each(layout, range)
                && layout.runs(range).all(|run| read(run.object, run.range))
        };
        if is_hit {
            self.shared.count_hit(range.len());
        }
        is_hit
    }

    /// A longer range may have several runs of one object, which must be read together.
    fn has_one_run_each(layout: &Layout, range: ByteRange) -> bool {
        let row_bytes = layout
            .stripe_unit()
            .saturating_mul(u64::from(layout.stripe_count()));
        layout.stripe_count() == 1 || range.len() <= row_bytes - layout.stripe_unit()
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
}

//! What each operation does to an object's head and blocks.
//!
//! The order of requests is such that nothing is ever stored past the size that the head says: an object grows in its
//! head first and shrinks there last. So a crash between two requests leaves zeros where bytes were to come or had to
//! go, and bytes that were cut off never come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::head::Head;
use super::lock::Guard;
use super::naming::{Keys, last_part};
use super::objects::{Object, Objects};
use super::requests::{Caller, Requests};
use crate::backend::{BackendRead, BackendWrite, ObjectStat};
use crate::error::BackendError;
use crate::types::{ByteRange, ObjectName};

/// How many keys one listing of blocks brings at most before what it found is removed.
const BLOCKS_LISTED: usize = 10_000;

/// An object within a store, while an operation works on it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: ObjectName,
    pub(super) object: Arc<Object>,
    pub(super) caller: Caller,
}

/// Everything that operations need.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) requests: Requests,
    pub(super) keys: Keys,
    pub(super) objects: Objects,
    pub(super) guards: Mutex<Vec<Arc<Guard>>>,
    pub(super) block_bytes: u64,
    /// How many blocks of one operation are under way together.
    pub(super) blocks_at_once: usize,
}

/// Bytes that belong into one block: where in it, and what. Zeros have no bytes.
#[derive(Debug)]
enum Piece {
    Bytes(usize, Bytes),
    Zeros(usize, usize),
}

impl Piece {
    fn span(&self) -> (usize, usize) {
        match self {
            Self::Bytes(at, bytes) => (*at, at + bytes.len()),
            Self::Zeros(start, end) => (*start, *end),
        }
    }

    fn put_into(&self, block: &mut [u8]) {
        let (start, end) = self.span();
        let Some(place) = block.get_mut(start..end) else {
            return;
        };
        match self {
            Self::Bytes(_, bytes) => place.copy_from_slice(bytes),
            Self::Zeros(..) => place.fill(0),
        }
    }
}

type Pieces = BTreeMap<u64, Vec<Piece>>;

const GIVEN_UP: BackendError = BackendError::TimedOut;
const DAMAGED: BackendError = BackendError::Corrupt {
    what: "a block of another length",
};

impl Store {
    /// A target for an operation of this caller.
    pub(super) fn target(&self, name: ObjectName, caller: Caller) -> Target {
        let object = self.objects.find(&name);
        Target {
            name,
            object,
            caller,
        }
    }

    async fn head(&self, target: &Target) -> Result<Option<Head>, BackendError> {
        if let Some(known) = target.object.head() {
            return Ok(known);
        }
        let changes = target.object.changes();
        let path = self.keys.head(&target.name)?;
        let bytes = self.requests.get(&target.caller, &path, None).await?;
        let found = bytes.map(|bytes| Head::decode(&bytes)).transpose()?;
        if found.as_ref().is_some_and(|(_, name)| *name != target.name) {
            let what = "the head of another object";
            return Err(BackendError::Corrupt { what });
        }
        let head = found.map(|(head, _)| head);
        target.object.learn(changes, head);
        Ok(head)
    }

    async fn put_head(&self, target: &Target, head: Head) -> Result<(), BackendError> {
        target.object.forget();
        let path = self.keys.head(&target.name)?;
        let bytes = head.encode(&target.name);
        self.requests.put(&target.caller, &path, &bytes).await?;
        target.object.set(Some(head));
        Ok(())
    }

    const fn block_of(&self, offset: u64) -> u64 {
        offset / self.block_bytes
    }

    fn within(&self, offset: u64) -> usize {
        usize::try_from(offset % self.block_bytes).unwrap_or(usize::MAX)
    }

    fn block_len(&self) -> usize {
        usize::try_from(self.block_bytes).unwrap_or(usize::MAX)
    }

    pub(super) async fn stat(&self, target: &Target) -> Result<ObjectStat, BackendError> {
        let head = self.head(target).await?.ok_or(BackendError::NotFound)?;
        let size_bytes = head.size_bytes;
        Ok(ObjectStat { size_bytes })
    }

    /// Reads blocks beside each other. A read within one block of an object whose head is not known asks for the
    /// block first: where there is one, there is an object.
    pub(super) async fn read(
        &self,
        target: &Target,
        read: &BackendRead,
    ) -> Result<Bytes, BackendError> {
        let (mut start, mut end) = (read.range.start(), read.range.end());
        let is_within_one = self.block_of(start) == self.block_of(end - 1);
        if target.object.head().is_none() && is_within_one && read.truncation.seq == 0 {
            if let Some(bytes) = self.get_part(target, start, end).await? {
                return Ok(bytes);
            }
            start = end;
        }
        let head = self.head(target).await?.ok_or(BackendError::NotFound)?;
        end = end.min(head.readable_end(read.truncation));
        if start >= end {
            return Ok(Bytes::new());
        }
        if self.block_of(start) == self.block_of(end - 1) {
            let part = self.get_part(target, start, end).await?;
            return Ok(part.unwrap_or_default());
        }
        let parts: Vec<(u64, u64)> = (self.block_of(start)..=self.block_of(end - 1))
            .map(|block| {
                let first = block * self.block_bytes;
                (first.max(start), (first + self.block_bytes).min(end))
            })
            .collect();
        let mut whole = BytesMut::with_capacity(usize::try_from(end - start).unwrap_or(usize::MAX));
        let mut answers = stream::iter(parts)
            .map(async |(start, end)| Ok((end, self.get_part(target, start, end).await?)))
            .buffered(self.blocks_at_once);
        while let Some((end, part)) = answers.try_next().await? {
            whole.extend_from_slice(&part.unwrap_or_default());
            whole.resize(
                usize::try_from(end - read.range.start()).unwrap_or(usize::MAX),
                0,
            );
        }
        Ok(whole.freeze())
    }

    /// Some bytes of one block; `None` when it is absent.
    async fn get_part(
        &self,
        target: &Target,
        start: u64,
        end: u64,
    ) -> Result<Option<Bytes>, BackendError> {
        let path = self.keys.block(&target.name, self.block_of(start))?;
        let at = start % self.block_bytes;
        let range = at..(at + (end - start));
        let len = end - start;
        let range = (len < self.block_bytes).then_some(range);
        let bytes = self.requests.get(&target.caller, &path, range).await?;
        match bytes {
            Some(bytes) if bytes.len() as u64 != len => Err(DAMAGED),
            bytes => Ok(bytes),
        }
    }

    pub(super) async fn write(
        &self,
        target: &Target,
        write: &BackendWrite,
    ) -> Result<(), BackendError> {
        let _lane = self.enter(target).await?;
        let head = self.head(target).await?;
        let old = head.unwrap_or_default();
        let mut kept = old.size_bytes;
        let mut new = old;
        if write.truncation.seq > old.truncation_seq {
            new.truncation_seq = write.truncation.seq;
            if write.truncation.size_bytes < kept {
                kept = write.truncation.size_bytes;
                self.cut(target, kept).await?;
            }
        }
        let ends = write.runs.iter().map(|run| run.offset + run.len_bytes());
        new.size_bytes = ends.fold(kept, u64::max);
        if head != Some(new) {
            self.put_head(target, new).await?;
        }
        let mut pieces = Pieces::new();
        for run in &write.runs {
            let mut offset = run.offset;
            for buffer in &run.buffers {
                self.split(offset, buffer, &mut pieces);
                offset += buffer.len() as u64;
            }
        }
        self.store_pieces(target, kept, pieces).await
    }

    fn split(&self, mut offset: u64, buffer: &Bytes, pieces: &mut Pieces) {
        let mut rest = buffer.clone();
        while !rest.is_empty() {
            let within = self.within(offset);
            let part = rest.split_to(rest.len().min(self.block_len() - within));
            let block = self.block_of(offset);
            offset += part.len() as u64;
            let piece = Piece::Bytes(within, part);
            pieces.entry(block).or_default().push(piece);
        }
    }

    /// Stores pieces of an object that holds nothing past `kept`.
    async fn store_pieces(
        &self,
        target: &Target,
        kept: u64,
        pieces: Pieces,
    ) -> Result<(), BackendError> {
        stream::iter(pieces)
            .map(async |(block, pieces)| self.store_block(target, kept, block, &pieces).await)
            .buffer_unordered(self.blocks_at_once)
            .try_collect()
            .await
    }

    /// Stores pieces of one block: fetches it first if they leave some of what it holds.
    async fn store_block(
        &self,
        target: &Target,
        kept: u64,
        number: u64,
        pieces: &[Piece],
    ) -> Result<(), BackendError> {
        let path = self.keys.block(&target.name, number)?;
        let held = kept.saturating_sub(number * self.block_bytes);
        let held = usize::try_from(held.min(self.block_bytes)).unwrap_or(usize::MAX);
        let mut block = BytesMut::zeroed(self.block_len());
        let mut may_be_there = held > 0;
        if !covers(pieces, held) {
            match self.requests.get(&target.caller, &path, None).await? {
                Some(bytes) if bytes.len() != block.len() => return Err(DAMAGED),
                Some(bytes) => block.copy_from_slice(&bytes),
                None => may_be_there = false,
            }
        }
        for piece in pieces {
            piece.put_into(&mut block);
        }
        if block.iter().any(|byte| *byte != 0) {
            self.requests
                .put(&target.caller, &path, &block.freeze())
                .await
        } else if may_be_there {
            self.requests.delete(&target.caller, &[path]).await
        } else {
            Ok(())
        }
    }

    /// Removes all that is stored past `keep`: whole blocks, and the end of the one that `keep` lies in.
    async fn cut(&self, target: &Target, keep: u64) -> Result<(), BackendError> {
        let edge = self.within(keep);
        let first = keep.div_ceil(self.block_bytes);
        self.delete_blocks(target, first, u64::MAX).await?;
        if edge > 0 {
            let piece = Piece::Zeros(edge, self.block_len());
            let pieces = Pieces::from([(self.block_of(keep), vec![piece])]);
            self.store_pieces(target, u64::MAX, pieces).await?;
        }
        Ok(())
    }

    /// Removes the blocks from `first` up to `end`, those that there are.
    async fn delete_blocks(
        &self,
        target: &Target,
        first: u64,
        end: u64,
    ) -> Result<(), BackendError> {
        let below = self.keys.blocks(&target.name)?;
        let mut after = match first.checked_sub(1) {
            Some(before) => Some(self.keys.block(&target.name, before)?),
            None => None,
        };
        loop {
            let most = usize::try_from(end - first).unwrap_or(usize::MAX);
            let most = most.min(BLOCKS_LISTED);
            let listing = self
                .requests
                .list(&target.caller, &below, after.as_ref(), most);
            let mut found = listing.await?;
            let is_last = found.len() < most;
            let last = found.last().cloned();
            found.retain(|path| {
                let number = u64::from_str_radix(last_part(path), 16);
                number.is_ok_and(|number| number < end)
            });
            let is_last = is_last || found.is_empty();
            self.requests.delete(&target.caller, &found).await?;
            if is_last {
                return Ok(());
            }
            after = last;
        }
    }

    pub(super) async fn discard(
        &self,
        target: &Target,
        range: ByteRange,
    ) -> Result<(), BackendError> {
        let _lane = self.enter(target).await?;
        let Some(head) = self.head(target).await? else {
            return Ok(());
        };
        let Some(held) = ByteRange::between(0, head.size_bytes) else {
            return Ok(());
        };
        let Some(range) = range.intersection(held) else {
            return Ok(());
        };
        // Nothing lies past the end, so a block that ends there goes whole.
        let first = range.start().div_ceil(self.block_bytes);
        let end = if range.end() == head.size_bytes {
            range.end().div_ceil(self.block_bytes)
        } else {
            self.block_of(range.end())
        };
        let mut edges = Pieces::new();
        let (from, to) = (self.within(range.start()), self.within(range.end()));
        if from > 0 {
            let is_last = self.block_of(range.start()) == self.block_of(range.end());
            let to = if is_last { to } else { self.block_len() };
            edges.insert(self.block_of(range.start()), vec![Piece::Zeros(from, to)]);
        }
        if to > 0 && self.block_of(range.end()) == end && end >= first {
            edges.insert(end, vec![Piece::Zeros(0, to)]);
        }
        if first < end {
            self.delete_blocks(target, first, end).await?;
        }
        self.store_pieces(target, head.size_bytes, edges).await
    }

    pub(super) async fn truncate(
        &self,
        target: &Target,
        size_bytes: u64,
    ) -> Result<(), BackendError> {
        let _lane = self.enter(target).await?;
        let Some(head) = self.head(target).await? else {
            return Ok(());
        };
        if size_bytes < head.size_bytes {
            self.cut(target, size_bytes).await?;
        }
        if size_bytes == head.size_bytes {
            return Ok(());
        }
        self.put_head(target, Head { size_bytes, ..head }).await
    }

    pub(super) async fn remove(&self, target: &Target) -> Result<(), BackendError> {
        let _lane = self.enter(target).await?;
        if self.head(target).await?.is_none() {
            return Err(BackendError::NotFound);
        }
        self.cut(target, 0).await?;
        target.object.forget();
        let path = self.keys.head(&target.name)?;
        self.requests.delete(&target.caller, &[path]).await?;
        target.object.set(None);
        Ok(())
    }

    /// Waits until nothing else changes the object. What was given up meanwhile does not begin: so it can't be
    /// stored after what came later.
    async fn enter<'a>(
        &self,
        target: &'a Target,
    ) -> Result<tokio::sync::MutexGuard<'a, ()>, BackendError> {
        let lane = target.object.lane.lock().await;
        if target.caller.is_gone() {
            return Err(GIVEN_UP);
        }
        Ok(lane)
    }
}

/// Whether pieces in ascending order cover the first `held` bytes of a block.
fn covers(pieces: &[Piece], held: usize) -> bool {
    let mut covered = 0;
    for piece in pieces {
        let (start, end) = piece.span();
        if start > covered {
            break;
        }
        covered = covered.max(end);
    }
    covered >= held
}

//! A volume as the gateway exports it: through the cache, safe on the store's disks where the client asks for that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::Backend;
use cachalot::{
    BackendError, ByteRange, CacheError, Layout, ObjectName, ObjectSet, Piece, ReadBuf,
};
use cachalot_nbd::wire::NbdError;
use cachalot_nbd::{Export, Pieces, Status, ZeroHow};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::poll;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::ahead::Ahead;
use super::mode::{Change, ModeSwitch};
use super::patience::Patience;
use super::timings::{Kind, Timings};
use crate::ctl::protocol::{Mode, RequestStats};
use crate::error::CliError;

/// How many bytes of zeros are written at once.
const ZEROS: &[u8] = &[0; 256 << 10];
/// How many of a store's calls for one request are under way at once.
const CALLS_IN_FLIGHT: usize = 16;
/// How many pieces of objects one step of a trim takes, and the answer about a range tells of; the client asks again
/// for the rest of that.
const PIECES_MAX: u64 = 1024;
/// The block size that clients are told to prefer.
const PREFERRED_BLOCK: u32 = 4096;

/// How long a switch to read-only waits for changes that came before it, until it says that it is not complete.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// A volume.
#[derive(Debug)]
pub(crate) struct VolumeExport {
    pub(super) set: ObjectSet,
    pub(super) backend: Arc<dyn Backend>,
    /// The volume's name, which its objects' names begin with.
    pub(super) name: String,
    pub(super) layout: Layout,
    pub(super) size_bytes: u64,
    /// The store was opened for reading: no switch makes the volume writable.
    pub(super) is_fixed: bool,
    pub(super) mode: ModeSwitch,
    pub(super) timings: Timings,
    /// With a store that is away for a while.
    pub(super) patience: Patience,
    pub(super) ahead: Ahead,
}

/// Why a volume could not be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreFailure {
    /// The cache could not write it back.
    #[error("{}", with_reason(.0))]
    Cache(#[from] CacheError),
    /// The store could not be synced.
    #[error("cannot sync the store: {0}")]
    Sync(#[from] BackendError),
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
fn with_reason(error: &CacheError) -> String {
    match error {
        CacheError::WriteBack { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

impl From<StoreFailure> for NbdError {
    fn from(failure: StoreFailure) -> Self {
        match failure {
            StoreFailure::Cache(error) => of_cache(error),
            StoreFailure::Sync(error) => of_store(&error),
        }
    }
}

/// Why a mode is not, or not wholly, what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwitchFailure {
    /// The store is open for reading alone.
    #[error("the server was started with --read-only: start it without to write")]
    Fixed,
    /// Another switch came before the changes under way had ended.
    #[error("the mode was switched again meanwhile")]
    Overtaken,
    /// The mode holds, but changes from before it have not ended.
    #[error(
        "the mode is switched, but writes from before still wait for the store, {changes} of them{}; ask again when it is back",
        .reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    Waiting {
        /// How many.
        changes: usize,
        /// What the store said last, where it failed.
        reason: Option<String>,
    },
    /// The mode holds, but what was dirty before is not stored yet.
    #[error("the mode is switched, but what was written before is not stored yet: {0}")]
    Store(#[from] StoreFailure),
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
fn of_store(error: &BackendError) -> NbdError {
    match error {
        BackendError::Full => NbdError::NoSpace,
        BackendError::ReadOnly | BackendError::PermissionDenied => NbdError::NotPermitted,
        BackendError::Unsupported { .. } => NbdError::NotSupported,
        BackendError::Fenced => NbdError::Shutdown,
        _ => NbdError::Io,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::needless_pass_by_value,
    reason = "the library's errors are open-ended; for `map_err`"
)]
fn of_cache(error: CacheError) -> NbdError {
    match &error {
        CacheError::InvalidRequest(_) => NbdError::Invalid,
        CacheError::Read { source, .. }
        | CacheError::WriteBack { source, .. }
        | CacheError::Backend(source) => of_store(source),
        CacheError::Fenced { .. } | CacheError::Closed { .. } => NbdError::Shutdown,
        _ => NbdError::Io,
    }
}

/// A piece of an object.
type ObjectRange = (ObjectName, ByteRange);

impl VolumeExport {
    /// Stores what is dirty, and has the store make it safe.
    pub(super) async fn store_all(&self) -> Result<(), StoreFailure> {
        self.set.flush().await?;
        if !self.is_fixed {
            self.backend.sync().await?;
        }
        Ok(())
    }

    /// Switches the mode. When this resolves, what was answered in another mode before is stored, and in read-only
    /// mode nothing changes any more. The mode holds from the start, whatever comes of the rest. Changes that wait for a
    /// store that is down are not waited for: they can't be called back, so the switch says that they are there.
    pub(super) async fn switch(&self, mode: Mode) -> Result<(), SwitchFailure> {
        if self.is_fixed && mode != Mode::ReadOnly {
            return Err(SwitchFailure::Fixed);
        }
        self.mode.set(mode);
        if mode == Mode::ReadOnly {
            match tokio::time::timeout(SETTLE_MAX, self.mode.settled()).await {
                Ok(true) => {}
                Ok(false) => return Err(SwitchFailure::Overtaken),
                Err(_late) => return Err(self.waiting().await),
            }
        }
        if mode != Mode::Writeback {
            self.store_all().await?;
        }
        Ok(())
    }

    /// What a switch waits for.
    async fn waiting(&self) -> SwitchFailure {
        let status = tokio::time::timeout(SETTLE_MAX, self.set.status()).await;
        SwitchFailure::Waiting {
            changes: self.mode.changes(),
            reason: status
                .ok()
                .and_then(Result::ok)
                .and_then(|status| status.last_error),
        }
    }

    /// What clients asked.
    pub(super) fn requests(&self) -> std::collections::BTreeMap<String, RequestStats> {
        self.timings.stats()
    }

    /// The error of a request, for `map_err` of whoever asks in this process.
    pub(crate) fn failed_to(&self, doing: &'static str) -> impl FnOnce(NbdError) -> CliError {
        move |told| CliError::Export {
            doing,
            volume: self.name.clone(),
            told,
        }
    }

    fn enter(&self) -> Result<Change<'_>, NbdError> {
        self.mode.enter().ok_or(NbdError::NotPermitted)
    }

    /// The pieces of objects that a range is made of, one after the other.
    fn pieces(
        &self,
        offset: u64,
        len: u64,
    ) -> Result<impl Iterator<Item = Result<ObjectRange, NbdError>> + Send + '_, NbdError> {
        let range = ByteRange::new(offset, len).map_err(|_refused| NbdError::Invalid)?;
        let name = |run: cachalot::Run| {
            ObjectName::new(format!("{}.{:016x}", self.name, run.object))
                .map(|name| (name, run.range))
                .map_err(|_refused| NbdError::Invalid)
        };
        Ok(self.layout.runs(range).map(name))
    }

    /// The length of no more than [`PIECES_MAX`] pieces.
    const fn step_bytes(&self) -> u64 {
        self.layout.stripe_unit().saturating_mul(PIECES_MAX)
    }

    /// Stores all, as long as it may take.
    async fn store_patiently(&self) -> Result<(), NbdError> {
        let stored = self.patience.with(|| self.store_all());
        Ok(stored.await?)
    }

    async fn sync(&self) -> Result<(), NbdError> {
        let synced = self.patience.with(|| self.backend.sync());
        synced.await.map_err(|error| of_store(&error))
    }

    async fn flush_range(&self, offset: u64, len: u64) -> Result<(), NbdError> {
        let flushed = self.patience.with(|| self.set.flush_range(offset, len));
        flushed.await.map(drop).map_err(of_cache)
    }

    async fn drop_range(&self, offset: u64, len: u64) -> Result<(), NbdError> {
        let dropped = self.patience.with(|| self.set.discard_range(offset, len));
        dropped.await.map_err(of_cache)
    }

    /// Makes a range zeros in the store. Nothing of it is in the cache then: what a read brought in meanwhile is
    /// dropped as well.
    async fn discard(&self, offset: u64, len: u64) -> Result<(), NbdError> {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let step = (end - at).min(self.step_bytes());
            self.drop_range(at, step).await?;
            let dropped = stream::iter(self.pieces(at, step)?)
                .map(async |piece| {
                    let (object, range) = piece?;
                    let dropped = self
                        .patience
                        .with(|| self.backend.discard(object.clone(), range));
                    dropped.await.map_err(|error| of_store(&error))
                })
                .buffer_unordered(CALLS_IN_FLIGHT)
                .try_collect::<()>();
            dropped.await?;
            self.drop_range(at, step).await?;
            at += step;
        }
        Ok(())
    }

    async fn write_zeros(&self, offset: u64, len: u64) -> Result<(), NbdError> {
        let mut at = offset;
        while at < offset + len {
            let step = (offset + len - at).min(ZEROS.len() as u64);
            let zeros =
                Bytes::from_static(ZEROS).slice(..usize::try_from(step).unwrap_or_default());
            self.write_through(at, zeros).await?;
            at += step;
        }
        Ok(())
    }

    /// Writes, and stores it where the mode says so when the cache has taken it: a switch that comes later finds it
    /// there.
    async fn write_through(&self, offset: u64, data: Bytes) -> Result<(), NbdError> {
        let len = data.len() as u64;
        self.set.write_at(offset, data).await.map_err(of_cache)?;
        if self.mode.now() == Mode::Writethrough {
            self.flush_range(offset, len).await?;
        }
        Ok(())
    }

    async fn write_now(&self, offset: u64, data: Bytes, durable: bool) -> Result<(), NbdError> {
        let _change = self.enter()?;
        let len = data.len() as u64;
        self.write_through(offset, data).await?;
        if durable {
            self.flush_range(offset, len).await?;
            self.sync().await?;
        }
        Ok(())
    }

    async fn zero_now(&self, offset: u64, len: u64, how: ZeroHow) -> Result<(), NbdError> {
        let _change = self.enter()?;
        if how.no_hole {
            if how.fast_only {
                return Err(NbdError::NotSupported);
            }
            return self.write_zeros(offset, len).await;
        }
        match self.discard(offset, len).await {
            Err(NbdError::NotSupported) if !how.fast_only => self.write_zeros(offset, len).await,
            done => done,
        }
    }

    async fn statuses(&self, offset: u64, len: u64) -> Result<Vec<Status>, NbdError> {
        let len = len.min(self.step_bytes());
        // What is only in the cache is nothing that the store could tell of.
        self.flush_range(offset, len).await?;
        let mut told = stream::iter(self.pieces(offset, len)?)
            .map(async |piece| {
                let (object, range) = piece?;
                let stat = self.patience.with(|| self.backend.stat(object.clone()));
                match stat.await {
                    Ok(stat) => Ok((range, stat.size_bytes)),
                    Err(BackendError::NotFound) => Ok((range, 0)),
                    Err(error) => Err(of_store(&error)),
                }
            })
            .buffered(CALLS_IN_FLIGHT);
        let mut statuses: Vec<Status> = Vec::new();
        while let Some(piece) = told.next().await {
            let (range, size_bytes) = piece?;
            let data = size_bytes.saturating_sub(range.start()).min(range.len());
            for (len, is_hole) in [(data, false), (range.len() - data, true)] {
                match statuses.last_mut() {
                    _ if len == 0 => {}
                    Some(last) if last.is_hole == is_hole => last.len += len,
                    Some(_) | None => statuses.push(Status { len, is_hole }),
                }
            }
        }
        Ok(statuses)
    }

    /// Reads what is not in the cache, and has the whole units of the store fetched that it lies in: they cost no more.
    async fn fetch(&self, offset: u64, len: u64) -> Result<ReadBuf, NbdError> {
        // Asked for before the read, which joins that fetch, is not held up by more of it, and tells of its errors.
        let units = self.ahead.whole_units(offset, len);
        let fetch = |(offset, len)| self.set.prefetch_at(offset, len).boxed().fuse();
        let mut units = units.map(fetch);
        if let Some(units) = &mut units {
            drop(poll!(units));
        }
        let read = self.patience.with(|| self.set.read_at(offset, len));
        let read = read.await.map_err(of_cache)?;
        self.ahead.store_answers();
        if let Some(units) = &mut units {
            // Mostly answered by the same fetch: then nobody has to hear that it is given up.
            drop(poll!(units));
        }
        Ok(read)
    }

    async fn read_now(&self, offset: u64, len: u64) -> Result<Pieces, NbdError> {
        let cached = self.set.read_cached_at(offset, len).map_err(of_cache)?;
        self.ahead.note(&self.set, offset, len);
        let read = match cached {
            Some(read) => read,
            None => self.fetch(offset, len).await?,
        };
        let pieces = read.pieces().iter().cloned();
        Ok(pieces.map(Piece::into_bytes).collect())
    }
}

impl Export for VolumeExport {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn is_read_only(&self) -> bool {
        self.mode.now() == Mode::ReadOnly
    }

    fn preferred_block(&self) -> u32 {
        PREFERRED_BLOCK
    }

    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Pieces, NbdError>> {
        let timed = self.timings.start(Kind::Read);
        async move { timed.end(self.read_now(offset, len).await) }.boxed()
    }

    fn write(
        &self,
        offset: u64,
        data: Bytes,
        durable: bool,
    ) -> BoxFuture<'_, Result<(), NbdError>> {
        let timed = self.timings.start(Kind::Write);
        async move { timed.end(self.write_now(offset, data, durable).await) }.boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), NbdError>> {
        let timed = self.timings.start(Kind::Flush);
        async move { timed.end(self.store_patiently().await) }.boxed()
    }

    fn trim(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>> {
        let timed = self.timings.start(Kind::Trim);
        async move { timed.end(self.zero_now(offset, len, ZeroHow::default()).await) }.boxed()
    }

    fn zero(&self, offset: u64, len: u64, how: ZeroHow) -> BoxFuture<'_, Result<(), NbdError>> {
        let timed = self.timings.start(Kind::Zero);
        async move { timed.end(self.zero_now(offset, len, how).await) }.boxed()
    }

    fn cache(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>> {
        async move { self.set.prefetch_at(offset, len).await.map_err(of_cache) }.boxed()
    }

    fn status(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Vec<Status>, NbdError>> {
        self.statuses(offset, len).boxed()
    }
}

#[cfg(test)]
mod tests {
    use cachalot::backend::{OperationKind, StoreCondition};
    use futures::TryFutureExt;

    use super::super::tests::{Rig, SIZE, data, patient_rig, rig, rig_of};
    use super::*;

    async fn dirtied() -> Rig {
        let rig = rig().await;
        rig.disk.write(0, data(1), false).await.unwrap();
        rig.disk.write(8 << 20, data(2), false).await.unwrap();
        assert_eq!(rig.dirty(), 8192);
        rig
    }

    #[tokio::test]
    async fn a_flush_is_answered_when_all_is_in_the_store_and_the_store_has_synced() {
        let rig = dirtied().await;
        let gate = rig.control.gate();
        gate.hold_all();
        let mut flush = rig.disk.flush();
        futures::select! {
            flushed = flush.as_mut().fuse() => panic!("answered before it was stored: {flushed:?}"),
            held = gate.wait_held(2).fuse() => assert_eq!(held.len(), 2),
        }
        assert_eq!(rig.syncs(), 0);
        gate.hold_kind(OperationKind::Sync);
        gate.release_all();
        futures::select! {
            flushed = flush.as_mut().fuse() => panic!("answered before the sync: {flushed:?}"),
            held = gate.wait_held(1).fuse() => assert_eq!(held.len(), 1),
        }
        assert_eq!((rig.dirty(), rig.syncs()), (0, 1));
        gate.open();
        flush.await.unwrap();
    }

    #[tokio::test]
    async fn a_flush_fails_where_the_store_can_not_sync() {
        let rig = dirtied().await;
        rig.control
            .fail_next(OperationKind::Sync, BackendError::Full);
        assert_eq!(rig.disk.flush().await, Err(NbdError::NoSpace));
        rig.disk.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_durable_write_is_stored_and_synced_alone() {
        let rig = dirtied().await;
        rig.disk.write(16 << 20, data(3), true).await.unwrap();
        assert_eq!((rig.dirty(), rig.syncs()), (8192, 1));
        rig.control
            .fail_next(OperationKind::Sync, BackendError::Unavailable);
        let failed = rig.disk.write(16 << 20, data(3), true).await;
        assert_eq!(failed, Err(NbdError::Io));
    }

    #[tokio::test]
    async fn a_write_alone_is_neither_stored_nor_synced() {
        let rig = dirtied().await;
        assert_eq!(rig.syncs(), 0);
        assert_eq!(rig.counted.operations().writes.operations, 0);
    }

    #[tokio::test]
    async fn clients_wait_for_a_store_that_is_away() {
        let rig = patient_rig().await;
        rig.disk.write(0, data(1), false).await.unwrap();
        let work: [BoxFuture<'_, Result<(), NbdError>>; 5] = [
            rig.disk.read(32 << 20, 4096).map_ok(drop).boxed(),
            rig.disk.flush(),
            rig.disk.write(4096, data(2), true),
            rig.disk.trim(16 << 20, 4096),
            rig.disk.status(40 << 20, 4096).map_ok(drop).boxed(),
        ];
        for mut asked in work {
            rig.control.set_condition(StoreCondition::Down);
            let before = rig.control.counts().refused;
            // Refused more than once, and the client was told nothing.
            while rig.control.counts().refused < before + 3 {
                assert!(poll!(asked.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
            rig.control.set_condition(StoreCondition::Up);
            asked.await.unwrap();
        }
    }

    #[tokio::test]
    async fn errors_of_the_store_are_told_in_the_words_of_the_protocol() {
        for (condition, told) in [
            (StoreCondition::Down, NbdError::Io),
            (StoreCondition::Full, NbdError::NoSpace),
            (StoreCondition::ReadOnly, NbdError::NotPermitted),
            (StoreCondition::Fenced, NbdError::Shutdown),
        ] {
            let rig = dirtied().await;
            rig.control.set_condition(condition);
            assert_eq!(rig.disk.flush().await, Err(told), "{condition:?}");
        }
    }

    /// A disk of objects as small as their stripes.
    async fn of_small_objects() -> Rig {
        rig_of(Layout::new(4096, 1, 4096).unwrap()).await
    }

    #[tokio::test]
    async fn a_trim_takes_its_pieces_step_by_step_however_many_there_are() {
        let rig = of_small_objects().await;
        let gate = rig.control.gate();
        rig.disk.write(SIZE - 4096, data(1), false).await.unwrap();
        gate.hold_kind(OperationKind::Discard);
        let mut trim = rig.disk.trim(0, SIZE);
        assert!(poll!(trim.as_mut()).is_pending());
        futures::select! {
            _ = trim.as_mut().fuse() => panic!("the trim is held"),
            held = gate.wait_held(CALLS_IN_FLIGHT).fuse() => {
                assert_eq!(held.len(), CALLS_IN_FLIGHT);
            }
        }
        // The end of the range is not its turn yet.
        assert_eq!(rig.dirty(), 4096);
        gate.open();
        trim.await.unwrap();
        assert_eq!(rig.dirty(), 0);
        let discards = rig.counted.operations().discards.operations;
        assert_eq!(discards, SIZE / 4096);
        let end = rig.disk.read(SIZE - 4096, 4096).await.unwrap().concat();
        assert!(end.iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn a_range_of_many_objects_is_told_of_from_its_front() {
        let rig = of_small_objects().await;
        rig.disk.write(4096, data(1), false).await.unwrap();
        let statuses = rig.disk.status(0, SIZE).await.unwrap();
        let told: Vec<_> = statuses
            .iter()
            .map(|status| (status.len, status.is_hole))
            .collect();
        let rest = (PIECES_MAX - 2) * 4096;
        assert_eq!(told, [(4096, true), (4096, false), (rest, true)]);
        assert_eq!(rig.counted.operations().stats, PIECES_MAX);
    }
}

//! The door: callers' threads read what is in memory and put in writes for which there is room, under the short lock
//! of a window, without a message (decisions D1 to D3).
//!
//! The protocol between door, dirty list and flush, on which nothing acknowledged is ever lost:
//!
//! 1. A put happens under the window's lock, with the flush epoch read under that lock.
//! 2. A window that was not listed is listed, and its key pushed on the set's list, under the same lock. So whoever
//!    finds a window listed knows that its key is on the list, or has been taken from it.
//! 3. Only then is the write acknowledged, if the set is still open.
//! 4. A flush ends the epoch, takes the list, and waits for all that is dirty in the epochs so far. What was
//!    acknowledged before it was asked is on the list or was taken from it before.
//! 5. The actor closes a window under its lock, only when it is empty and not listed, and takes it off the index first:
//!    who finds a closed window looks it up again.

use std::cell::Cell as LocalCell;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::ledger::DIRTY_BUFFER_BYTES;
use super::message::Completed;
use super::shared::SetShared;
use super::state::SetState;
use super::sync::atomic::Ordering;
use super::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, thread_local};
use super::tell::tell;
use crate::buf::ReadBuf;
use crate::engine::{
    Access, Charge, Counter, Put, Settlement, Source, Span, Window, WindowKey, WindowName, Written,
    extent_charge, put_charge, slices, sole_span, spans,
};
use crate::types::{ByteRange, Hints, Moment, ObjectKey, Place, SnapId, Timestamp};

/// A thread looks whether too much is dirty each time that it has written about this much.
const CHECK_BYTES: u64 = 64 << 10;

/// The actor is woken each time that so many windows wait for it to be marked as not needed.
const COOLED_BATCH: usize = 256;

thread_local! {
    /// Bytes written by this thread since it last looked whether too much is dirty.
    static WRITTEN_BYTES: LocalCell<u64> = const { LocalCell::new(0) };
}

/// A window with its lock, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Cell {
    window: RwLock<Window>,
    /// How often somebody has come for the lock, which tests wait for.
    #[cfg(test)]
    visits: std::sync::atomic::AtomicUsize,
}

impl Cell {
    pub(crate) fn lock(&self) -> RwLockWriteGuard<'_, Window> {
        #[cfg(test)]
        self.visits.fetch_add(1, Ordering::SeqCst);
        self.window.write()
    }

    fn read(&self) -> RwLockReadGuard<'_, Window> {
        self.window.read()
    }
}

/// A range of an object, and where its bytes lie in the data of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoorExtent<'a> {
    pub(crate) object: &'a ObjectKey,
    pub(crate) range: ByteRange,
    pub(crate) places: &'a [Place],
}

/// A checked write without a journal entry, lent to the door beside its data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoorWrite<'a> {
    pub(crate) extents: &'a [DoorExtent<'a>],
    /// The number of its snapshot context, if it brings one.
    pub(crate) context: Option<u64>,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) hints: Hints,
}

impl DoorWrite<'_> {
    fn charge(&self) -> Charge {
        let mut charge = Charge::default();
        for extent in self.extents {
            charge += extent_charge(extent.range, extent.places);
        }
        charge
    }

    /// The only run of a write that has but one, within one window.
    fn sole(&self) -> Option<Sole<'_>> {
        let [extent] = self.extents else {
            return None;
        };
        let ([place], Some((index, span))) = (extent.places, sole_span(extent.range)) else {
            return None;
        };
        let name = WindowName {
            object: extent.object,
            snap: SnapId::HEAD,
            index,
        };
        let from = place.offset;
        Some(Sole { name, span, from })
    }
}

/// A run of bytes within one window, and where in the data of the write it begins.
#[derive(Clone, Copy, Debug)]
struct Sole<'a> {
    name: WindowName<'a>,
    span: Span,
    from: u64,
}

/// How much of a write is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// All of it: it may be acknowledged.
    All,
    /// The first so many extents; the rest needs the actor.
    Some(usize),
    /// Another client has taken over: it is refused.
    Refused,
}

impl SetShared {
    /// The window's cell, made when there is none.
    pub(super) fn open_cell(&self, key: &WindowKey) -> Arc<Cell> {
        self.windows.pin().open(key.name()).clone()
    }

    /// Appends the bytes of a range of an object to `out`, if all of it is in memory.
    #[inline]
    pub(crate) fn read_hit(
        &self,
        (object, snap): (&ObjectKey, SnapId),
        range: ByteRange,
        hints: Hints,
        out: &mut ReadBuf,
    ) -> bool {
        let access = Access::of(hints);
        let Some((index, span)) = sole_span(range) else {
            return self.read_hit_wide((object, snap), range, access, out);
        };
        let name = WindowName {
            object,
            snap,
            index,
        };
        let windows = self.windows.pin();
        let Some(cell) = windows.get(name) else {
            return false;
        };
        let is_hit = cell.read().serve(span, access, out);
        if is_hit && access == Access::DontNeed {
            self.note_cooled([name.into()]);
        }
        is_hit
    }

    /// As [`read_hit`](Self::read_hit), over several windows: their locks are held together, so that no read sees
    /// half of a write.
    fn read_hit_wide(
        &self,
        (object, snap): (&ObjectKey, SnapId),
        range: ByteRange,
        access: Access,
        out: &mut ReadBuf,
    ) -> bool {
        let name = |index| WindowName {
            object,
            snap,
            index,
        };
        let windows = self.windows.pin();
        let mut cells: SmallVec<[_; 16]> = SmallVec::new();
        for (index, span) in spans(range) {
            let Some(cell) = windows.get(name(index)) else {
                return false;
            };
            cells.push((cell, span));
        }
        let guards: SmallVec<[_; 16]> = cells
            .iter()
            .map(|(cell, span)| (cell.read(), *span))
            .collect();
        let pieces = out.piece_count();
        let is_hit = guards
            .iter()
            .all(|(window, span)| window.serve(*span, access, out));
        if !is_hit {
            out.truncate_pieces(pieces);
        } else if access == Access::DontNeed {
            self.note_cooled(spans(range).map(|(index, _)| name(index).into()));
        }
        is_hit
    }

    /// Notes windows in which something is no longer needed, and wakes the actor when there are many.
    fn note_cooled(&self, keys: impl IntoIterator<Item = WindowKey>) {
        let is_due = {
            let mut cooled = self.cooled.lock();
            let before = cooled.len();
            for key in keys {
                if cooled.last() != Some(&key) {
                    cooled.push(key);
                }
            }
            before / COOLED_BATCH < cooled.len() / COOLED_BATCH
        };
        if is_due && let Some(addr) = self.addr().get() {
            tell(addr, Completed);
        }
    }

    /// Counts a read that was served through the door.
    pub(crate) fn count_hit(&self, bytes: u64) {
        let counts = [(Counter::ReadOpsHit, 1), (Counter::ReadBytesHit, bytes)];
        self.books.count_all(counts);
    }

    /// Puts a checked write in, as far as that needs nobody else. `data` shows the same bytes afterwards, though the cache
    /// may have taken over their memory.
    pub(crate) fn write_hit(self: &Arc<Self>, write: &DoorWrite<'_>, data: &mut Bytes) -> Entered {
        let own_context = self.context.load(Ordering::Acquire);
        let context = write.context.unwrap_or(own_context);
        let state = self.state();
        let needs_actor =
            context != own_context || self.common.is_write_through() || state != SetState::Open;
        if needs_actor {
            return if state == SetState::Fenced {
                Entered::Refused
            } else {
                Entered::Some(0)
            };
        }
        let now = self.common.clock.now_coarse();
        let written = Written {
            since: now,
            modified: write
                .modified
                .unwrap_or_else(|| self.common.timestamp_at(now)),
            epoch: 0,
            context,
            journal: None,
        };
        let how = (written, Access::of(write.hints));
        let (entered, is_listed) = match write.sole() {
            Some(sole) => self.put_sole(sole, how, data),
            None => self.put_all(write, how, data),
        };
        let put = write.extents.get(..entered).unwrap_or(write.extents);
        let bytes: u64 = put.iter().map(|extent| extent.range.len()).sum();
        let is_whole = entered == write.extents.len();
        if entered > 0 {
            if is_listed {
                self.note_dirtied();
            }
            self.books.count_all([
                (Counter::WriteBytes, bytes),
                (Counter::WriteOps, u64::from(is_whole)),
            ]);
            // A tiny write costs a buffer all the same.
            let buffers = write.extents.len() as u64;
            self.check_dirty_now_and_then(bytes.max(buffers * DIRTY_BUFFER_BYTES));
        }
        if !is_whole {
            return Entered::Some(entered);
        }
        // The acknowledgement stands only if the set was not closing or fenced before the window was listed.
        match self.state() {
            SetState::Open => Entered::All,
            SetState::Fenced => Entered::Refused,
            SetState::Through | SetState::Closing => Entered::Some(0),
            SetState::Closed | SetState::Failed => {
                self.give_up_everything(Charge::default());
                Entered::Some(0)
            }
        }
    }

    fn check_dirty_now_and_then(&self, bytes: u64) {
        let target = self.common.target_dirty_bytes();
        let is_due = WRITTEN_BYTES.with(|own| {
            let written = own.get() + bytes;
            let is_due = written >= CHECK_BYTES.min(target / 8);
            own.set(if is_due { 0 } else { written });
            is_due
        });
        if is_due {
            self.common.check_dirty();
        }
    }

    /// Puts in a write of one run within one window, if it may enter. Returns how many extents entered, one or none,
    /// and whether that listed the window.
    fn put_sole(
        &self,
        Sole { name, span, from }: Sole<'_>,
        (written, access): (Written, Access),
        data: &mut Bytes,
    ) -> (usize, bool) {
        let ledger = &self.common.ledger;
        let most = put_charge(u64::from(span.len()));
        let windows = self.windows.pin();
        let mut purse = Charge::default();
        let mut outcome = (0, false);
        loop {
            let cell = match windows.get(name) {
                Some(cell) => cell,
                None if purse == most || ledger.take(most) => {
                    purse = most;
                    windows.open(name)
                }
                None => break,
            };
            let mut window = cell.lock();
            if window.closed {
                continue;
            }
            let Some(source) = Source::of(data, from, span.len()) else {
                break;
            };
            let written = self.in_this_epoch(written);
            let put = Put {
                span,
                source,
                written,
                access,
            };
            // It needs no room, but does not pass those who wait for some.
            if !ledger.has_waiting_writes() && window.absorb(&put) {
                outcome = (1, false);
                break;
            }
            if !may_enter(&window, span, written.context) {
                break;
            }
            if purse != most {
                if !ledger.take(most) {
                    break;
                }
                purse = most;
            }
            self.put_locked(&mut window, put);
            let lists = self.list(&mut window, name);
            let settled = window.settle();
            drop(window);
            purse -= settled.charge;
            self.add_totals(&settled.totals);
            outcome = (1, lists);
            break;
        }
        if purse != Charge::default() {
            ledger.give(purse);
        }
        outcome
    }

    /// Puts in the extents of a write, up to the first that may not enter, each whole or not at all. Returns how many
    /// that were, and whether that listed a window.
    fn put_all(
        &self,
        write: &DoorWrite<'_>,
        how: (Written, Access),
        data: &mut Bytes,
    ) -> (usize, bool) {
        let mut purse = write.charge();
        let (mut entered, mut is_listed) = (0, false);
        if !self.common.ledger.take(purse) {
            return (entered, is_listed);
        }
        for extent in write.extents {
            let Some((change, lists)) = self.put_extent(extent, how, data) else {
                break;
            };
            is_listed |= lists;
            purse -= change.charge;
            self.add_totals(&change.totals);
            entered += 1;
        }
        self.common.ledger.give(purse);
        (entered, is_listed)
    }

    /// Puts one extent in whole, or not at all. Returns what that changed, and whether it listed a window.
    fn put_extent(
        &self,
        extent: &DoorExtent<'_>,
        (written, access): (Written, Access),
        data: &mut Bytes,
    ) -> Option<(Settlement, bool)> {
        let slices = slices(extent.range, extent.places);
        let name = |index| WindowName {
            object: extent.object,
            snap: SnapId::HEAD,
            index,
        };
        let open = self.windows.pin();
        loop {
            let cells: SmallVec<[(u64, _); 4]> = spans(extent.range)
                .map(|(index, _)| (index, open.open(name(index))))
                .collect();
            let mut guards: SmallVec<[(u64, RwLockWriteGuard<'_, Window>); 4]> = cells
                .iter()
                .map(|(index, cell)| (*index, cell.lock()))
                .collect();
            if guards.iter().any(|(_, window)| window.closed) {
                continue;
            }
            let first = guards.first().map_or(0, |(index, _)| *index);
            let place = |index: u64| usize::try_from(index - first).unwrap_or(usize::MAX);
            for (index, span, _) in &slices {
                let (_, window) = guards.get(place(*index))?;
                if !may_enter(window, *span, written.context) {
                    return None;
                }
            }
            let written = self.in_this_epoch(written);
            let (mut change, mut lists) = (Settlement::default(), false);
            for (index, span, from) in &slices {
                let (_, window) = guards.get_mut(place(*index))?;
                let put = Put {
                    span: *span,
                    source: Source::of(data, *from, span.len())?,
                    written,
                    access,
                };
                self.put_locked(window, put);
            }
            for (index, window) in &mut guards {
                lists |= self.list(window, name(*index));
                let settled = window.settle();
                change.charge += settled.charge;
                change.totals += settled.totals;
            }
            return Some((change, lists));
        }
    }

    /// As written in the flush epoch of now: to be asked under the locks of the windows.
    fn in_this_epoch(&self, written: Written) -> Written {
        Written {
            epoch: self.epoch.load(Ordering::SeqCst),
            ..written
        }
    }

    fn put_locked(&self, window: &mut Window, put: Put<'_>) {
        if let Ok(outcome) = window.put(put)
            && outcome.overwritten_tx_bytes > 0
        {
            let bytes = outcome.overwritten_tx_bytes;
            self.count(Counter::OverwrittenWhileFlushingBytes, bytes);
        }
    }

    /// Puts a window into which something was written on the list of dirty ones, and says whether it was not there.
    fn list(&self, window: &mut Window, name: WindowName<'_>) -> bool {
        let lists = !window.listed;
        if lists {
            window.listed = true;
            self.listed.lock().push(name.into());
        }
        lists
    }

    /// The time now.
    pub(crate) fn now(&self) -> Moment {
        self.common.clock.now()
    }
}

/// Whether a write may go into a window without the set's actor, which alone answers journals and readers who wait.
fn may_enter(window: &Window, span: Span, context: u64) -> bool {
    !window.is_journaled() && window.may_absorb(span, context)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use actix::Actor;
    use tokio::sync::watch;

    use super::*;
    use crate::actors::{Common, ObjectSetActor};
    use crate::backend::{Backend, MemoryBackend};
    use crate::clock::{Clock, ManualClock};
    use crate::config::{CacheConfig, Limits};
    use crate::engine::{EngineOptions, WINDOW_BYTES};
    use crate::options::SetOptions;

    fn start_set() -> Arc<SetShared> {
        start_set_by(Arc::new(ManualClock::new()))
    }

    fn start_set_by(clock: Arc<dyn Clock>) -> Arc<SetShared> {
        let backend = Arc::new(MemoryBackend::new());
        let capabilities = backend.capabilities();
        let limits = Limits::try_from(&CacheConfig::default()).unwrap();
        let common = Common::new(backend, clock, limits);
        let options = SetOptions::new("set");
        let shared = Arc::new(SetShared::new(
            (options.id.clone(), options.shape()),
            (options.layout, options.file_bytes),
            0,
            Arc::new(common),
        ));
        let engine = EngineOptions {
            shape: options.shape(),
            layout: options.layout,
            capabilities,
            truncation: options.truncation,
            context: options.context,
            id: options.id.clone(),
            write_through_until_flush: options.write_through_until_flush,
        };
        let actor = ObjectSetActor::new(shared.clone(), engine, watch::channel(0).0);
        shared.set_addr(actor.start());
        shared
    }

    ///
    #[actix::test]
    async fn what_is_not_needed_is_noted_in_bounded_memory_though_nothing_else_happens() {
        let set = start_set();
        let (first, second) = (ObjectKey::Number(0), ObjectKey::Number(1));
        let range = ByteRange::new(0, 4096).unwrap();
        let place = Place {
            offset: 0,
            len: 4096,
        };
        for object in [&first, &second] {
            let extent = DoorExtent {
                object,
                range,
                places: &[place],
            };
            let write = DoorWrite {
                extents: &[extent],
                context: None,
                modified: None,
                hints: Hints::default(),
            };
            let mut data = Bytes::from_static(&[1; 4096]);
            assert_eq!(set.write_hit(&write, &mut data), Entered::All);
        }
        let hints = Hints {
            dont_need: true,
            ..Hints::default()
        };
        let mut longest = 0;
        for round in 0..10_000 {
            for object in [&first, &second] {
                let mut out = ReadBuf::default();
                assert!(set.read_hit((object, SnapId::HEAD), range, hints, &mut out));
            }
            longest = longest.max(set.cooled.lock().len());
            if round % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(longest < 4 * COOLED_BATCH, "{longest}");
    }

    /// Changes a set's state when it is asked for the time, which the door does once a write has begun.
    #[derive(Debug, Default)]
    struct Turning(OnceLock<(Arc<SetShared>, SetState)>);

    impl Clock for Turning {
        fn now(&self) -> Moment {
            if let Some((set, state)) = self.0.get() {
                set.set_state(*state);
            }
            Moment::default()
        }

        fn timestamp(&self) -> Timestamp {
            Timestamp::default()
        }
    }

    /// W-01, F-06
    #[actix::test]
    async fn a_write_that_finds_its_window_closed_goes_into_the_one_that_took_its_place() {
        // In one window, and across the edge between two.
        for offset in [0, WINDOW_BYTES - 2] {
            let set = start_set();
            let object = ObjectKey::Number(0);
            let range = ByteRange::new(offset, 4).unwrap();
            let name = WindowName {
                object: &object,
                snap: SnapId::HEAD,
                index: 0,
            };
            let key = WindowKey::from(name);
            let cell = set.open_cell(&key);
            std::thread::scope(|scope| {
                let mut window = cell.lock();
                let visits = || cell.visits.load(Ordering::SeqCst);
                let before = visits();
                let writer = scope.spawn(|| {
                    let extent = DoorExtent {
                        object: &object,
                        range,
                        places: &[Place { offset: 0, len: 4 }],
                    };
                    let write = DoorWrite {
                        extents: &[extent],
                        context: None,
                        modified: None,
                        hints: Hints::default(),
                    };
                    set.write_hit(&write, &mut Bytes::from_static(&[7; 4]))
                });
                // It has looked the window up, and comes for its lock.
                while visits() == before {
                    std::thread::yield_now();
                }
                set.windows.pin().remove(&key);
                window.close();
                drop(window);
                assert_eq!(writer.join().unwrap(), Entered::All);
            });
            let mut out = ReadBuf::default();
            let head = (&object, SnapId::HEAD);
            assert!(set.read_hit(head, range, Hints::default(), &mut out));
            assert_eq!(out.to_vec(), [7; 4]);
        }
    }

    /// What the door says to a write that finds it open, and meets the set in another state once it has entered.
    fn write_into(state: SetState) -> Entered {
        let clock = Arc::new(Turning::default());
        let set = start_set_by(clock.clone());
        clock.0.get_or_init(|| (set.clone(), state));
        let mut data = Bytes::from(vec![1; 64 << 10]);
        let len = data.len() as u64;
        let extent = DoorExtent {
            object: &ObjectKey::Number(0),
            range: ByteRange::new(0, len).unwrap(),
            places: &[Place { offset: 0, len }],
        };
        let write = DoorWrite {
            extents: &[extent],
            context: None,
            modified: None,
            hints: Hints::default(),
        };
        let entered = set.write_hit(&write, &mut data);
        assert_eq!(data, vec![1; 64 << 10], "the actor may have to write it");
        entered
    }

    /// L-03, H-42
    #[actix::test]
    async fn a_write_that_is_met_by_closing_is_not_acknowledged_at_the_door() {
        assert_eq!(write_into(SetState::Closing), Entered::Some(0));
    }

    /// H-41
    #[actix::test]
    async fn a_write_that_is_met_by_the_fence_is_refused_at_the_door() {
        assert_eq!(write_into(SetState::Fenced), Entered::Refused);
        assert_eq!(write_into(SetState::Open), Entered::All);
    }
}

//! Reads: what is in memory is served, what is missing is fetched, what is on its way is waited for.

use smallvec::SmallVec;

use super::action::{Action, Reply, WaiterId};
use super::examine::{MissingPart, Verdict, Wants};
use super::extent::OpId;
use super::object::{ObjectRef, range_of, spans};
use super::places::{Parts, join_places, split_by_place};
use super::set::SetEngine;
use super::shelf::{Counter, Shelf};
use super::watch::{LAST, Watch};
use super::window::{Access, Charge, EXTENT_OVERHEAD_BYTES, Span, WINDOW_OVERHEAD_BYTES};
use crate::buf::ReadBuf;
use crate::error::CacheError;
use crate::request::ReadRequest;
use crate::types::Moment;

/// A read that is not yet answered.
#[derive(Debug)]
pub(super) struct ReadWait {
    pub(super) request: ReadRequest,
    /// Whether the bytes are wanted, or only that they be cached (rule R-15).
    deliver: bool,
    /// Grows each time it begins to wait: what was left behind by earlier waits is void.
    round: u32,
    /// Operations that it still waits for.
    pending: usize,
    /// Whether it has been counted, as a hit or a miss.
    is_counted: bool,
    /// Whether it has waited for the store.
    pub(super) has_waited: bool,
    /// Whether room has been asked for it that has not been granted.
    pub(super) has_claim: bool,
    /// The first byte that it lacks, while it waits.
    pub(super) watch: Option<Watch>,
    /// Windows that must keep what it has found there.
    pins: SmallVec<[usize; 2]>,
}

impl ReadWait {
    pub(super) const fn is_in_round(&self, round: u32) -> bool {
        self.round == round
    }

    /// Whether all that it waited for has ended.
    pub(super) const fn is_due(&self) -> bool {
        self.pending == 0 && !self.has_claim
    }
}

impl<S: Shelf> SetEngine<S> {
    /// Reads. `request` has passed its checks. The answer is a [`Reply::Read`].
    pub(crate) fn read(
        &mut self,
        now: Moment,
        waiter: WaiterId,
        request: ReadRequest,
        deliver: bool,
    ) {
        self.adopt();
        let bytes: u64 = request
            .extents
            .iter()
            .map(|extent| extent.range.len())
            .sum();
        self.shelf.count(Counter::ReadBytes, bytes);
        let wait = ReadWait {
            request,
            deliver,
            round: 0,
            pending: 0,
            is_counted: false,
            has_waited: false,
            has_claim: false,
            watch: None,
            pins: SmallVec::new(),
        };
        self.reads.insert(waiter, wait);
        self.attempt_read(now, waiter, None);
        self.look_at_due(now, LAST);
        self.finish();
    }

    /// Looks at the read's ranges and answers it, or begins to wait for what it lacks. `granted` is the room
    /// that was reserved for it, which is already in the purse. What it finds to be zeros may be due to others.
    pub(super) fn attempt_read(&mut self, now: Moment, waiter: WaiterId, granted: Option<Charge>) {
        let Some(mut wait) = self.reads.remove(&waiter) else {
            return;
        };
        // What still refers to earlier waits is void.
        wait.round += 1;
        wait.pending = 0;
        wait.has_claim &= granted.is_none();
        let has_claim = wait.has_claim;
        let watched = self.take_watch(waiter, &mut wait);
        let pins = std::mem::take(&mut wait.pins);
        let verdict = self.examine_read(now, &wait);
        let is_counted = std::mem::replace(&mut wait.is_counted, true);
        match verdict {
            Verdict::Readable => {
                // They may have waited for the zeros that were found for it.
                self.look_at_due(now, waiter);
                if !is_counted {
                    self.count_read(&wait.request, (0, Counter::ReadOpsHit));
                }
                let result = self.collect_read(&wait);
                self.end_read((waiter, has_claim), Ok(result));
            }
            Verdict::Failed(error) => self.end_read((waiter, has_claim), Err(error)),
            Verdict::Wait(wants) => {
                if !is_counted {
                    let missed = wants
                        .missing
                        .iter()
                        .map(|part| u64::from(part.span.len()))
                        .sum();
                    let op = if wants.is_zeros_only() {
                        Counter::ReadOpsHit
                    } else {
                        Counter::ReadOpsMissed
                    };
                    self.count_read(&wait.request, (missed, op));
                }
                self.wait_or_fetch(now, (waiter, wait), wants, granted);
            }
        }
        for window in pins {
            self.unpin(window);
        }
        if let Some(watched) = watched {
            self.end_watch(watched.window);
        }
    }

    fn wait_or_fetch(
        &mut self,
        now: Moment,
        (waiter, mut wait): (WaiterId, ReadWait),
        wants: Wants,
        granted: Option<Charge>,
    ) {
        let is_for_store = !wants.is_zeros_only();
        let Wants {
            mut ops,
            pauses,
            missing,
            zeros,
        } = wants;
        if !missing.is_empty() || !zeros.is_empty() {
            let mut needed = fetch_charge(&missing);
            needed += self.zero_charge(&zeros);
            // What a fetch gave back that brought nothing is for those who waited for it: with it they hold zeros.
            let is_granted = granted.is_some_and(|charge| charge.room >= needed.room)
                || (wait.has_waited && self.purse.room >= needed.room);
            if !is_granted {
                if !wait.has_claim {
                    self.square();
                    if self.shelf.take_room(needed) {
                        self.purse += needed;
                    } else {
                        let charge = waiting_charge(&wait.request, needed);
                        self.actions.push_back(Action::AwaitRoom { waiter, charge });
                        wait.has_claim = true;
                    }
                }
                if wait.has_claim {
                    self.await_bytes(now, waiter, wait);
                    return;
                }
            }
            for part in &zeros {
                self.zero(now, part);
            }
            for part in &missing {
                ops.extend(self.begin_fetch(now, part, &wait.request));
            }
        }
        if std::mem::take(&mut wait.has_claim) {
            // It keeps what it has found from now on, and must not wait for room that only this may give.
            self.actions.push_back(Action::ForgoRoom { waiter });
        }
        wait.has_waited |= is_for_store;
        wait.pending = ops.len() + pauses.len();
        let reader = (waiter, wait.round);
        for op in &ops {
            if let Some(op) = self.ops.get_mut(op) {
                op.waiters().reads.push(reader);
            }
        }
        for object in &pauses {
            if let Some(object) = self.objects.get_mut(*object) {
                object.paused_reads.push(reader);
            }
        }
        self.pin_all(&mut wait);
        self.await_bytes(now, waiter, wait);
    }

    fn begin_fetch(
        &mut self,
        now: Moment,
        part: &MissingPart,
        request: &ReadRequest,
    ) -> Option<OpId> {
        let window = self.open_window(part.object, part.index)?;
        let op = self.next_op();
        let filled = self.edit(window, |window| window.begin_fetch(part.span, op))?;
        if filled == 0 {
            return None;
        }
        let range = range_of(part.index, part.span)?;
        self.start_fetch(
            now,
            op,
            (part.object, window, part.span),
            (range, request.hints),
        );
        Some(op)
    }

    /// What it costs at most to hold parts as zeros, which take no memory of their own.
    fn zero_charge(&self, zeros: &[MissingPart]) -> Charge {
        let mut charge = Charge::default();
        let mut before = None;
        for part in zeros {
            let is_charged = before.is_some_and(|last: &MissingPart| last.is_in_window_of(part))
                || self.is_charged(part);
            let window = if is_charged { 0 } else { WINDOW_OVERHEAD_BYTES };
            charge.room += i64::try_from(window + EXTENT_OVERHEAD_BYTES).unwrap_or(i64::MAX);
            before = Some(part);
        }
        charge
    }

    /// Whether something is in the part's window, so that the window is charged.
    fn is_charged(&self, part: &MissingPart) -> bool {
        let object = self.objects.get(part.object);
        let window = object.and_then(|object| object.windows.get(&part.index));
        window
            .and_then(|window| self.look(*window, |window| window.charge() != Charge::default()))
            .unwrap_or(false)
    }

    /// One of a waiting read's operations has ended; with the last it is looked at again.
    pub(super) fn read_advances(&mut self, now: Moment, reader: (WaiterId, u32)) {
        if self.is_last_end(reader) {
            self.attempt_read(now, reader.0, None);
            self.look_at_due(now, LAST);
        }
    }

    /// Notes that one of a waiting read's operations has ended, and says whether it was the last.
    pub(super) fn is_last_end(&mut self, (waiter, round): (WaiterId, u32)) -> bool {
        let Some(wait) = self.reads.get_mut(&waiter) else {
            return false;
        };
        if wait.round != round || wait.pending == 0 {
            return false;
        }
        wait.pending -= 1;
        wait.pending == 0
    }

    /// Ends a waiting read with an error.
    pub(super) fn fail_read(&mut self, (waiter, round): (WaiterId, u32), error: &CacheError) {
        let wait = self.reads.get(&waiter);
        let Some(wait) = wait.filter(|wait| wait.round == round) else {
            return;
        };
        let has_claim = wait.has_claim;
        self.drop_read(waiter);
        self.end_read((waiter, has_claim), Err(error.clone()));
    }

    /// Answers a read, which holds up nobody any more who waits for room behind it.
    fn end_read(
        &mut self,
        (waiter, has_claim): (WaiterId, bool),
        result: Result<ReadBuf, CacheError>,
    ) {
        if has_claim {
            self.actions.push_back(Action::ForgoRoom { waiter });
        }
        self.reply(waiter, Reply::Read(result));
    }

    /// Forgets a read whose caller is gone.
    pub(super) fn drop_read(&mut self, waiter: WaiterId) {
        if let Some(mut wait) = self.reads.remove(&waiter) {
            let watched = self.take_watch(waiter, &mut wait);
            for window in wait.pins {
                self.unpin(window);
            }
            if let Some(watched) = watched {
                self.end_watch(watched.window);
            }
        }
    }

    /// Whether no read that waits for room keeps anything: others may wait for that to go.
    pub(super) fn claims_keep_nothing(&self) -> bool {
        let mut claims = self.reads.values().filter(|wait| wait.has_claim);
        claims.all(|wait| wait.pins.is_empty() && wait.pending == 0)
    }

    /// How often waiting reads have pinned windows.
    pub(super) fn pins_of_reads(&self) -> usize {
        self.reads.values().map(|wait| wait.pins.len()).sum()
    }

    fn pin_all(&mut self, wait: &mut ReadWait) {
        for extent in &wait.request.extents {
            let id = ObjectRef {
                key: extent.object.clone(),
                snap: wait.request.snap,
            };
            let Some(object) = self.by_ref.get(&id).copied() else {
                continue;
            };
            for (window, _) in self.windows_in(object, extent.range) {
                self.pin(window);
                wait.pins.push(window);
            }
        }
    }

    fn count_read(&self, request: &ReadRequest, (missed, op): (u64, Counter)) {
        let bytes: u64 = request
            .extents
            .iter()
            .map(|extent| extent.range.len())
            .sum();
        self.shelf.count(op, 1);
        self.shelf
            .count(Counter::ReadBytesHit, bytes.saturating_sub(missed));
        self.shelf
            .count(Counter::ReadBytesMissed, missed.min(bytes));
    }

    fn collect_read(&mut self, wait: &ReadWait) -> ReadBuf {
        let request = &wait.request;
        let mut access = Access::of(request.hints);
        if wait.has_waited && access == Access::Plain {
            access = Access::Arrived;
        } else if wait.has_waited && access == Access::NoCache {
            access = Access::Quiet;
        }
        let mut parts = Parts::new();
        let mut touched: SmallVec<[usize; 4]> = SmallVec::new();
        for extent in &request.extents {
            let id = ObjectRef {
                key: extent.object.clone(),
                snap: request.snap,
            };
            let Some(object) = self.by_ref.get(&id).copied() else {
                continue;
            };
            let windows = self.windows_in(object, extent.range);
            let mut out = ReadBuf::default();
            // All locks of an extent together, so that a read never sees half of a write.
            let guards: SmallVec<[(S::Guard<'_>, Span); 4]> = windows
                .iter()
                .filter_map(|(window, span)| {
                    Some((S::lock(&self.windows.get(*window)?.slot), *span))
                })
                .collect();
            for (window, span) in &guards {
                let is_whole = window.collect(*span, access, &mut out);
                debug_assert!(is_whole, "a read is answered with less than it asked for");
            }
            drop(guards);
            touched.extend(windows.iter().map(|(window, _)| *window));
            if wait.deliver {
                split_by_place(&extent.places, out, &mut parts);
            }
        }
        if access == Access::DontNeed {
            for window in touched {
                self.cool(window);
            }
        }
        join_places(parts)
    }
}

/// What it costs at most to fetch a part of a window, and the window itself if it is not yet charged.
fn part_charge(span: Span, is_first: bool) -> Charge {
    let window = if is_first { WINDOW_OVERHEAD_BYTES } else { 0 };
    let room = u64::from(span.len()) + 2 * EXTENT_OVERHEAD_BYTES + window;
    Charge {
        room: i64::try_from(room).unwrap_or(i64::MAX),
        ..Charge::default()
    }
}

fn fetch_charge(missing: &[MissingPart]) -> Charge {
    let mut charge = Charge::default();
    let mut before = None;
    for part in missing {
        let is_first = !before.is_some_and(|last: &MissingPart| last.is_in_window_of(part));
        charge += part_charge(part.span, is_first);
        before = Some(part);
    }
    charge
}

/// What a read asks for that has to wait for room: enough for all of it, since what it found may be gone until its
/// turn comes, and it must not have to queue again.
fn waiting_charge(request: &ReadRequest, needed: Charge) -> Charge {
    let mut charge = Charge::default();
    for (_, span) in request
        .extents
        .iter()
        .flat_map(|extent| spans(extent.range))
    {
        charge += part_charge(span, true);
    }
    charge.room = charge.room.max(needed.room);
    charge
}

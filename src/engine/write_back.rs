//! Writing back: which dirty bytes go, and in which order (rules F-01, F-02, W-04, W-09).

use super::action::{Action, WaiterId};
use super::batch::{Batch, Load};
use super::extent::{BufferState, OpId};
use super::object::{InFlight, Turn};
use super::set::{Op, OpWaiters, SetEngine};
use super::shelf::{Counter, Shelf};
use super::window::{Cutoff, Span, WINDOW_BYTES};
use crate::io::BackendWrite;
use crate::types::{Moment, SnapContext};

/// What the flusher wants written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demand {
    /// About this many bytes.
    pub(crate) bytes: u64,
    /// Only what has been dirty since then or longer.
    pub(crate) since: Moment,
}

/// A writeback under way.
#[derive(Debug)]
pub(super) struct WriteBack {
    pub(super) object: usize,
    /// Flushes that wait for it.
    pub(super) flushes: Vec<WaiterId>,
    pub(super) started: Moment,
    pub(super) waiters: OpWaiters,
}

impl<S: Shelf> SetEngine<S> {
    /// The flusher wants bytes written back; replaces what it wanted before.
    pub(crate) fn write_back(&mut self, now: Moment, demand: Demand) {
        self.adopt();
        // A demand that is kept counts as taken on: a set that will never meet it leaves it to others.
        self.demand = Some(demand).filter(|_| !self.is_fenced);
        self.pump(now);
        self.finish();
    }

    /// What the flusher asked for and is not yet sent, since enough is in flight.
    pub(crate) fn demanded_bytes(&self) -> u64 {
        self.demand.map_or(0, |demand| demand.bytes)
    }

    /// Since when the oldest dirty bytes have been dirty that nothing holds up.
    pub(crate) fn oldest_dirty(&mut self) -> Option<Moment> {
        self.adopt();
        self.finish();
        let oldest = self.aging.first().filter(|_| !self.is_fenced);
        oldest.map(|(since, _)| *since)
    }

    const fn may_send(&self) -> bool {
        !self.is_fenced && self.writebacks_in_flight < self.limits.writebacks_in_flight
    }

    /// Sends what somebody waits for, then what the flusher wants, as far as the limit in flight allows.
    pub(super) fn pump(&mut self, now: Moment) {
        while self.may_send() {
            let Some(object) = self.urgent.first().copied() else {
                break;
            };
            let cutoff = self.urgent_cutoff(object);
            if !self.send_some(now, object, cutoff) {
                self.urgent.remove(&object);
                self.end_retry(now, object);
            }
        }
        while self.may_send() {
            let Some(demand) = self.demand else { break };
            let due = self
                .aging
                .first()
                .copied()
                .filter(|(since, _)| *since <= demand.since);
            let Some((_, object)) = due.filter(|_| demand.bytes > 0) else {
                self.demand = None;
                break;
            };
            if !self.send_some(now, object, Cutoff::Since(demand.since)) {
                self.file_by_age(object, Some(demand.since));
            }
        }
    }

    /// How far the flushes and writes that wait for the object reach; all of it after a pause.
    fn urgent_cutoff(&self, object: usize) -> Cutoff {
        let Some(object) = self.objects.get(object) else {
            return Cutoff::Epoch(0);
        };
        let waits_for_all = object.retry.is_some() || !object.context_waits.is_empty();
        let epoch = object.flushes.latest_epoch().unwrap_or(0);
        Cutoff::Epoch(if waits_for_all { u64::MAX } else { epoch })
    }

    /// Sends everything dirty of an object at once, whatever the limit in flight.
    pub(super) fn send_all(&mut self, now: Moment, object: usize) {
        let limit = std::mem::replace(&mut self.limits.writebacks_in_flight, usize::MAX);
        self.send_some(now, object, Cutoff::Epoch(u64::MAX));
        self.limits.writebacks_in_flight = limit;
    }

    /// Sends batches of the object until none is left, the limit in flight is reached or the demand is met.
    /// Returns whether there may be more to send.
    fn send_some(&mut self, now: Moment, object: usize, cutoff: Cutoff) -> bool {
        loop {
            let Some(known) = self.objects.get(object) else {
                return false;
            };
            if known.is_paused(now) || known.listed.is_empty() {
                return false;
            }
            let remembered = known.turn;
            let Some(turn) = remembered.or_else(|| self.next_turn(object)) else {
                return false;
            };
            let sent = self.send_turn(now, object, (cutoff, turn));
            if let Some(object) = self.objects.get_mut(object) {
                object.turn = sent.is_some().then_some(turn);
            }
            match sent {
                Some(may_be_more) => return may_be_more,
                None if remembered.is_some() => {}
                None => return false,
            }
        }
    }

    /// Sends batches of one context. Returns whether there may be more, or nothing if none could go.
    fn send_turn(
        &mut self,
        now: Moment,
        object: usize,
        (cutoff, turn): (Cutoff, Turn),
    ) -> Option<bool> {
        // A write that knows nothing of the last truncation must not land behind one that carries it out.
        let truncation = self.options.truncation.seq;
        let is_held_up =
            |flight: &InFlight| flight.context < turn.context || flight.truncation < truncation;
        if self
            .objects
            .get(object)?
            .writebacks
            .values()
            .any(is_held_up)
        {
            return None;
        }
        let mut from = 0;
        while self.may_send() {
            let Some((bytes, next)) = self.send_batch(now, object, (cutoff, turn), from) else {
                return (from > 0).then_some(false);
            };
            from = next;
            if let (Cutoff::Since(_), Some(demand)) = (cutoff, &mut self.demand) {
                demand.bytes = demand.bytes.saturating_sub(bytes);
                if demand.bytes == 0 {
                    break;
                }
            }
        }
        Some(true)
    }

    /// The oldest snapshot context that is dirty.
    fn next_turn(&self, object: usize) -> Option<Turn> {
        let known = self.objects.get(object)?;
        if self.contexts.len() == 1 {
            let context = *self.contexts.keys().next()?;
            return Some(Turn {
                context,
                is_waited_for: false,
            });
        }
        let (mut oldest, mut newest) = (u64::MAX, 0);
        for index in &known.listed {
            let Some(window) = known.windows.get(index) else {
                continue;
            };
            self.look(*window, |window| {
                for (_, written) in window.dirty(Span::ALL) {
                    oldest = oldest.min(written.context);
                    newest = newest.max(written.context);
                }
            });
        }
        (oldest < u64::MAX).then_some(Turn {
            context: oldest,
            is_waited_for: oldest < newest,
        })
    }

    /// Sends one write of the object's dirty bytes at or behind `from`. Returns its length and where the next may
    /// start.
    fn send_batch(
        &mut self,
        now: Moment,
        object: usize,
        what: (Cutoff, Turn),
        from: u64,
    ) -> Option<(u64, u64)> {
        let op = self.next_op();
        let known = self.objects.get(object)?;
        let in_flight = known.writebacks.values().collect();
        let mut batch = Batch::new(op, self.options.capabilities, what, in_flight);
        let mut emptied: Vec<usize> = Vec::new();
        let mut settlements = Vec::new();
        let first = from / WINDOW_BYTES;
        for index in known.listed.range(first..) {
            let Some(window) = known.windows.get(index) else {
                continue;
            };
            let Some(entry) = self.windows.get(*window) else {
                continue;
            };
            let start = if *index == first {
                from % WINDOW_BYTES
            } else {
                0
            };
            let rest = Span {
                start: u32::try_from(start).unwrap_or(0),
                ..Span::ALL
            };
            let mut guard = S::lock(&entry.slot);
            batch.enter_window(*index, guard.has_overtaken());
            let is_full = guard.send(rest, &mut batch);
            if guard.totals().buffers_in(BufferState::Dirty) == 0 {
                guard.listed = false;
                emptied.push(*window);
            }
            settlements.push(guard.settle());
            drop(guard);
            if is_full {
                break;
            }
        }
        let load = batch.load;
        for settlement in settlements {
            self.account(settlement);
        }
        let sent = load.ranges.last().map(|last| (load.bytes, last.end()));
        if sent.is_some() {
            let (_, turn) = what;
            self.start_write_back(now, (op, object), load, turn.context);
        }
        self.unlist(object, &emptied);
        sent
    }

    fn unlist(&mut self, object: usize, windows: &[usize]) {
        for window in windows {
            let Some(entry) = self.windows.get(*window) else {
                continue;
            };
            let index = entry.index;
            if let Some(object) = self.objects.get_mut(object) {
                object.unlist(index);
            }
        }
        self.note_stored(object);
    }

    fn start_write_back(
        &mut self,
        now: Moment,
        (op, object): (OpId, usize),
        load: Load,
        context: u64,
    ) {
        let Some(known) = self.objects.get_mut(object) else {
            return;
        };
        let Load {
            runs,
            ranges,
            bytes,
            modified,
            epoch,
            ..
        } = load;
        let flushes = known.flushes.op_begins(&ranges, epoch);
        let flight = InFlight {
            ranges,
            context,
            truncation: self.options.truncation.seq,
        };
        known.writebacks.insert(op, flight);
        let (name, key) = (known.name.clone(), known.id.key.clone());
        let write_back = WriteBack {
            object,
            flushes,
            started: now,
            waiters: OpWaiters::default(),
        };
        self.ops.insert(op, Op::WriteBack(write_back));
        self.writebacks_in_flight += 1;
        self.shelf.count(Counter::WriteBackOps, 1);
        self.shelf.count(Counter::WriteBackBytes, bytes);
        let known_context = self.contexts.get(&context).cloned();
        let write = BackendWrite {
            object: name,
            runs,
            context: known_context.unwrap_or(SnapContext {
                seq: context,
                snaps: std::sync::Arc::default(),
            }),
            modified,
            truncation: self.truncation_of(&key),
        };
        self.actions.push_back(Action::WriteBack { op, write });
    }
}

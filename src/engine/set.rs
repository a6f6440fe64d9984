//! One set's rules: commands and completions in, actions out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use super::action::{Action, Reply, WaiterId};
use super::eviction::Evictor;
use super::extent::OpId;
use super::fetch::Fetch;
use super::flush::FlushWait;
use super::layout::Layout;
use super::object::{Object, ObjectRef, range_of};
use super::read::ReadWait;
use super::shelf::Shelf;
use super::watch::Watches;
use super::window::{Charge, Settlement, Span, Window};
use super::write::WriteWait;
use super::write_back::WriteBack;
use crate::config::Limits;
use crate::error::BackendError;
use crate::io::{Capabilities, JournalNotice};
use crate::request::Shape;
use crate::types::{JournalTid, Moment, ObjectKey, SetId, SnapContext, Truncation};

/// What a set is opened with.
#[derive(Clone, Debug)]
pub(crate) struct EngineOptions {
    pub(crate) id: SetId,
    pub(crate) shape: Shape,
    pub(crate) layout: Option<Layout>,
    pub(crate) capabilities: Capabilities,
    pub(crate) truncation: Truncation,
    pub(crate) context: SnapContext,
    /// Every write is answered by the store until a caller first flushes (H-36).
    pub(crate) write_through_until_flush: bool,
}

/// The limits that one engine keeps; the shared ones are the ledger's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineLimits {
    pub(crate) write_through: bool,
    pub(crate) writebacks_in_flight: usize,
    pub(crate) retry_delay_min: Duration,
    pub(crate) retry_delay_max: Duration,
    pub(crate) backend_timeout: Duration,
}

impl From<&Limits> for EngineLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            write_through: limits.is_write_through(),
            writebacks_in_flight: limits.writebacks_in_flight,
            retry_delay_min: limits.retry_delay_min,
            retry_delay_max: limits.retry_delay_max,
            backend_timeout: limits.backend_timeout,
        }
    }
}

/// A window on the shelf.
#[derive(Debug)]
pub(super) struct WindowEntry<Slot> {
    pub(super) object: usize,
    pub(super) index: u64,
    pub(super) slot: Slot,
    /// Reads that wait for more and must find here what they already have.
    pub(super) pins: u32,
    /// What waiting reads lack here; keeps it open, too.
    pub(super) watches: Watches,
}

/// A fetch or writeback under way.
#[derive(Debug)]
pub(super) enum Op {
    Fetch(Fetch),
    WriteBack(WriteBack),
}

impl Op {
    pub(super) const fn started(&self) -> Moment {
        match self {
            Self::Fetch(fetch) => fetch.started,
            Self::WriteBack(write) => write.started,
        }
    }

    /// Who is to be looked at again when it ends.
    pub(super) const fn waiters(&mut self) -> &mut OpWaiters {
        match self {
            Self::Fetch(fetch) => &mut fetch.waiters,
            Self::WriteBack(write) => &mut write.waiters,
        }
    }
}

/// Who waits for the end of a fetch or writeback.
#[derive(Debug, Default)]
pub(super) struct OpWaiters {
    /// Reads, in the order in which they were asked, each with the round in which it began to wait.
    pub(super) reads: SmallVec<[(WaiterId, u32); 2]>,
    /// Discards and truncations; they wait for writebacks only.
    pub(super) drops: Vec<WaiterId>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct SetEngine<S: Shelf> {
    pub(super) shelf: S,
    pub(super) options: EngineOptions,
    pub(super) limits: EngineLimits,
    pub(super) objects: Slab<Object>,
    pub(super) by_ref: BTreeMap<ObjectRef, usize>,
    pub(super) windows: Slab<WindowEntry<S::Slot>>,
    pub(super) ops: BTreeMap<OpId, Op>,
    last_op: u64,
    pub(super) reads: BTreeMap<WaiterId, ReadWait>,
    pub(super) writes: BTreeMap<WaiterId, WriteWait>,
    pub(super) flushes: BTreeMap<WaiterId, FlushWait>,
    /// Discards and truncations: how many writebacks each waits for.
    pub(super) drops: BTreeMap<WaiterId, usize>,
    pub(super) actions: VecDeque<Action>,
    pub(super) evictor: Evictor,
    /// Objects with dirty bytes, by the age of the oldest.
    pub(super) aging: BTreeSet<(Moment, usize)>,
    /// Objects that somebody waits for.
    pub(super) urgent: BTreeSet<usize>,
    /// What the flusher asked for and is not yet sent.
    pub(super) demand: Option<super::write_back::Demand>,
    /// Objects that pause after a failed writeback, by the end of the pause.
    pub(super) pausing: BTreeSet<(Moment, usize)>,
    /// Objects with dirty bytes or writebacks under way.
    pub(super) unstored: BTreeSet<usize>,
    /// Whether anything was unstored since the last `Clean`.
    pub(super) was_unstored: bool,
    /// Objects that hold nothing but are known to be absent or complete, by when they came to that.
    pub(super) idle: BTreeMap<u64, usize>,
    pub(super) last_idle: u64,
    /// Objects that were opened or emptied in this call, looked at in its end.
    pub(super) emptied: BTreeSet<usize>,
    pub(super) writebacks_in_flight: usize,
    /// By number: the snapshot contexts that dirty bytes may belong to.
    pub(super) contexts: BTreeMap<u64, SnapContext>,
    /// Reserved and not yet used, less used and not reserved; squared with the ledger after each call.
    pub(super) purse: Charge,
    pub(super) last_error: Option<BackendError>,
    /// Another client has taken over: nothing is sent any more (H-41).
    pub(super) is_fenced: bool,
    /// No caller has flushed yet, and until then every write is answered by the store (H-36).
    pub(super) awaits_flush: bool,
    /// Windows that the door keeps from serving until the answers that are among the actions have been given.
    pub(super) unanswered: Vec<usize>,
    /// Reads for which bytes have come in, to be looked at again in this call.
    pub(super) due: BTreeSet<WaiterId>,
}

impl<S: Shelf> SetEngine<S> {
    pub(crate) fn new(shelf: S, options: EngineOptions, limits: EngineLimits) -> Self {
        let contexts = BTreeMap::from([(options.context.seq, options.context.clone())]);
        let awaits_flush = options.write_through_until_flush;
        Self {
            shelf,
            options,
            limits,
            objects: Slab::new(),
            by_ref: BTreeMap::new(),
            windows: Slab::new(),
            ops: BTreeMap::new(),
            last_op: 0,
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            flushes: BTreeMap::new(),
            drops: BTreeMap::new(),
            actions: VecDeque::new(),
            evictor: Evictor::default(),
            aging: BTreeSet::new(),
            urgent: BTreeSet::new(),
            demand: None,
            pausing: BTreeSet::new(),
            unstored: BTreeSet::new(),
            was_unstored: false,
            idle: BTreeMap::new(),
            last_idle: 0,
            emptied: BTreeSet::new(),
            writebacks_in_flight: 0,
            contexts,
            purse: Charge::default(),
            last_error: None,
            is_fenced: false,
            awaits_flush,
            unanswered: Vec::new(),
            due: BTreeSet::new(),
        }
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// All answers among the actions have been given: the door may serve what they were about (rule R-04).
    pub(crate) fn answered(&mut self) {
        for window in std::mem::take(&mut self.unanswered) {
            if let Some(entry) = self.windows.get(window) {
                S::lock(&entry.slot).unanswered = false;
            }
        }
    }

    /// Takes note of what happened at the door.
    pub(crate) fn catch_up(&mut self) {
        self.adopt();
        self.finish();
    }

    /// How many objects hold nothing and could be forgotten.
    pub(crate) fn idle_objects(&self) -> usize {
        self.idle.len()
    }

    /// When `handle_deadline` wants to be called.
    pub(crate) fn poll_deadline(&self) -> Option<Moment> {
        let pause = self.pausing.first().map(|(end, _)| *end);
        let timeout = self
            .ops
            .values()
            .next()
            .map(|op| op.started().after(self.limits.backend_timeout));
        [pause, timeout].into_iter().flatten().min()
    }

    /// Ends pauses and gives up on operations that have not answered in time.
    pub(crate) fn handle_deadline(&mut self, now: Moment) {
        self.adopt();
        while let Some((end, object)) = self.pausing.first().copied() {
            if end > now {
                break;
            }
            self.end_pause(now, object);
        }
        let late: Vec<OpId> = self
            .ops
            .iter()
            .take_while(|(_, op)| op.started().after(self.limits.backend_timeout) <= now)
            .map(|(op, _)| *op)
            .collect();
        for op in late {
            self.actions.push_back(Action::GiveUp { op });
            match self.ops.get(&op) {
                Some(Op::Fetch(_)) => self.end_fetch(now, op, Err(BackendError::TimedOut)),
                Some(Op::WriteBack(_)) => self.end_write_back(now, op, Err(BackendError::TimedOut)),
                None => {}
            }
        }
        self.pump(now);
        self.finish();
    }

    /// Changes the limits; takes effect at once.
    pub(crate) fn set_limits(&mut self, now: Moment, limits: EngineLimits) {
        self.adopt();
        self.limits = limits;
        self.pump(now);
        self.finish();
    }

    /// Whether nothing is under way and nobody waits: the actor may end.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ops.is_empty()
            && self.reads.is_empty()
            && self.writes.is_empty()
            && self.flushes.is_empty()
            && self.drops.is_empty()
    }

    /// The last error of a writeback, until one succeeds.
    pub(crate) const fn last_error(&self) -> Option<&BackendError> {
        self.last_error.as_ref()
    }

    pub(crate) const fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The snapshot context that writes get which bring none. Those under way keep the one they have.
    pub(crate) fn set_context(&mut self, context: SnapContext) {
        self.contexts.insert(context.seq, context.clone());
        if context.seq >= self.options.context.seq {
            self.options.context = context;
        }
    }

    pub(super) fn reply(&mut self, waiter: WaiterId, reply: Reply) {
        self.actions.push_back(Action::Reply { waiter, reply });
    }

    pub(super) const fn next_op(&mut self) -> OpId {
        self.last_op += 1;
        OpId(self.last_op)
    }

    /// Changes a window under its lock and keeps the books.
    pub(super) fn edit<R>(
        &mut self,
        window: usize,
        change: impl FnOnce(&mut Window) -> R,
    ) -> Option<R> {
        let entry = self.windows.get(window)?;
        let (result, settlement) = {
            let mut guard = S::lock(&entry.slot);
            let result = change(&mut guard);
            (result, guard.settle())
        };
        self.account(settlement);
        Some(result)
    }

    /// Looks into a window under its lock.
    pub(super) fn look<R>(&self, window: usize, view: impl FnOnce(&Window) -> R) -> Option<R> {
        let entry = self.windows.get(window)?;
        let guard = S::lock(&entry.slot);
        Some(view(&guard))
    }

    pub(super) fn account(&mut self, change: Settlement) {
        self.purse -= change.charge;
        if change.totals != super::window::Totals::default() {
            self.shelf.add_totals(&change.totals);
        }
    }

    /// Ends a call: what is empty is closed, the ledger is squared, and news of nothing dirty is told.
    pub(super) fn finish(&mut self) {
        self.close_emptied();
        if self.was_unstored && self.unstored.is_empty() {
            self.adopt();
            self.close_emptied();
            if self.unstored.is_empty() {
                self.was_unstored = false;
                self.actions.push_back(Action::Clean);
            }
        }
        self.square();
    }

    /// What was reserved and not used goes back to the ledger, what was used beyond it is charged.
    pub(super) fn square(&mut self) {
        let purse = std::mem::take(&mut self.purse);
        let part = |sign: i64| Charge {
            room: (purse.room * sign).max(0),
            dirty: (purse.dirty * sign).max(0),
            dirty_buffers: (purse.dirty_buffers * sign).max(0),
        };
        let (spare, owed) = (part(1), part(-1));
        if owed != Charge::default() {
            self.shelf.force_room(owed);
        }
        if spare != Charge::default() {
            self.shelf.give_room(spare);
        }
    }

    /// How far the object was truncated (rules R-17, P-02).
    pub(super) fn truncation_of(&self, key: &ObjectKey) -> Truncation {
        let file = self.options.truncation;
        match (key, &self.options.layout) {
            (ObjectKey::Number(number), Some(layout)) if file.seq > 0 => Truncation {
                seq: file.seq,
                size_bytes: layout.object_size_for(file.size_bytes, *number),
            },
            (ObjectKey::Number(_) | ObjectKey::Name(_), _) => Truncation::default(),
        }
    }

    /// Tells the journal of bytes in a window that will not be written back (rule J-02).
    pub(super) fn report_overwritten(
        &mut self,
        object: usize,
        index: u64,
        displaced: Vec<(Span, JournalTid)>,
        new: Option<JournalTid>,
    ) {
        let Some(name) = self.objects.get(object).map(|object| object.name.clone()) else {
            return;
        };
        for (span, old) in displaced {
            let Some(range) = range_of(index, span) else {
                continue;
            };
            let object = name.clone();
            let notice = JournalNotice::Overwritten {
                object,
                range,
                old,
                new,
            };
            self.actions.push_back(Action::Journal(notice));
        }
    }
}

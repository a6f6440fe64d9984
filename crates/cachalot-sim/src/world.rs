//! A run: the cache, its store, its callers, and who watches over them.

mod end;
mod fencing;
mod limits;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use bytes::Bytes;
use cachalot::backend::{
    Backend, BackendWrite, FaultControl, FaultPlan, FaultyBackend, MemoryBackend, StoreCondition,
    WriteRun,
};
use cachalot::{
    Cache, CacheError, Clock, Moment, ObjectSet, SetOptions, SnapContext, Timestamp, Truncation,
};
use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};

use crate::Outcome;
use crate::clock::{VirtualClock, delay, pause};
use crate::history::{History, Tick};
use crate::oracle::Oracle;
use crate::pattern;
use crate::plan::{Plan, SetPlan};
use crate::space::{Part, Spread};
use crate::tap::{Inner, Outer};
use limits::Bounds;
pub(crate) use limits::Cost;

/// How often the watch looks.
const WATCH: Duration = Duration::from_millis(500);
/// The longest delay that a store plays.
const DELAY_MAX: Duration = Duration::from_secs(3);

/// A snapshot: what was acknowledged before `from` is in it, what was asked for after `to` is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snap {
    pub(crate) id: u64,
    pub(crate) from: Tick,
    pub(crate) to: Tick,
}

/// A set as its callers see it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) handle: ObjectSet,
    pub(crate) truncation: Truncation,
    pub(crate) context: SnapContext,
    pub(crate) snaps: Vec<Snap>,
    /// Somebody does to it what only one may do at a time.
    pub(crate) is_busy: bool,
}

/// A read that has not been answered.
#[derive(Debug)]
struct WaitingRead {
    asked: Tick,
    at: Moment,
    set: usize,
    parts: Vec<Part>,
    snap: Option<u64>,
}

/// See the [module](self).
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) cache: Cache,
    pub(crate) control: FaultControl,
    pub(crate) store: Arc<dyn Backend>,
    pub(crate) outer: Arc<Outer>,
    pub(crate) slots: RefCell<Vec<Slot>>,
    pub(crate) last_journal_tid: Cell<u64>,
    oracle: Arc<Mutex<Oracle>>,
    clock: Arc<VirtualClock>,
    pending: RefCell<BTreeMap<u32, (String, Moment)>>,
    operations: Cell<u64>,
    /// Reads that wait, in the order in which they were asked for.
    reads: RefCell<Vec<WaitingRead>>,
    calm_since: Cell<Option<Moment>>,
    bounds: RefCell<Bounds>,
    longest_timeout: Cell<Duration>,
    /// Per set, whether anybody has ever flushed it.
    pub(crate) is_flushed: RefCell<Vec<bool>>,
}

pub(crate) async fn play(plan: Plan, is_logged: bool) -> Outcome {
    let world = Rc::new(World::start(plan, is_logged).await);
    world.live().await;
    let oracle = world.oracle();
    Outcome {
        digest: oracle.digest.value(),
        failure: oracle.failure.clone(),
        operations: world.operations.get(),
        time: world.now().since(Moment::default()),
        limits_judged: world.limits_judged(),
        log: oracle.log.clone().unwrap_or_default(),
    }
}

impl World {
    async fn start(plan: Plan, is_logged: bool) -> Self {
        let memory = MemoryBackend::builder()
            .capabilities(plan.capabilities)
            .copy_on_write(plan.copy_on_write);
        let memory = Arc::new(memory.build());
        let mut histories = Vec::new();
        for set in &plan.sets {
            let stored: Vec<_> = set.stored.iter().copied().zip(1..).collect();
            for (part, stamp) in &stored {
                fill(&memory, set, *part, *stamp);
            }
            histories.push(History::new(set.space.clone(), &stored));
        }
        let oracle = Arc::new(Mutex::new(Oracle::new(histories, is_logged)));
        let store: Arc<dyn Backend> = Arc::new(Inner::new(memory, oracle.clone()));
        let faulty = FaultyBackend::builder(store.clone(), plan.seed ^ 1)
            .delayer(Arc::new(delay))
            .build();
        let control = faulty.control();
        let clock = Arc::new(VirtualClock::new());
        let outer = Arc::new(Outer::new(
            (Arc::new(faulty), store.clone()),
            oracle.clone(),
            clock.clone(),
            (plan.seed ^ 2, plan.late_stores),
        ));
        #[expect(clippy::expect_used, reason = "a plan's limits make sense")]
        let cache = Cache::builder(outer.clone())
            .config(plan.config.clone())
            .clock(clock.clone())
            .arbiters(vec![Arbiter::current()])
            .audit_each_turn()
            .start()
            .expect("the cache starts");
        let slots = open_all(&cache, &plan).await;
        Self {
            is_flushed: RefCell::new(vec![false; plan.sets.len()]),
            longest_timeout: Cell::new(plan.config.backend_timeout + plan.config.retry_delay_max),
            plan,
            cache,
            control,
            store,
            outer,
            slots: RefCell::new(slots),
            last_journal_tid: Cell::new(0),
            oracle,
            clock,
            pending: RefCell::default(),
            operations: Cell::new(0),
            reads: RefCell::default(),
            calm_since: Cell::new(None),
            bounds: RefCell::default(),
        }
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock()
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.oracle().failure.is_some()
    }

    pub(crate) fn fail(&self, what: impl Into<String>) {
        self.oracle().fail(what);
    }

    pub(crate) fn begin(&self, step: u32, what: String, cost: Cost) {
        self.operations.set(self.operations.get() + 1);
        self.request_begins(step, cost);
        self.pending.borrow_mut().insert(step, (what, self.now()));
    }

    pub(crate) fn end(&self, step: u32, is_answered: bool) {
        self.pending.borrow_mut().remove(&step);
        self.request_ends(step, is_answered);
    }

    pub(crate) fn read_begins(
        &self,
        (asked, at): (Tick, Moment),
        (set, parts): (usize, &[Part]),
        snap: Option<u64>,
    ) {
        self.reads.borrow_mut().push(WaitingRead {
            asked,
            at,
            set,
            parts: parts.to_vec(),
            snap,
        });
    }

    /// A read is over. Returns the equal ones that were asked for before and still wait: none may, if it was answered.
    ///
    /// Where it was served at once, only those count that were asked for at an earlier time: the set's actor has taken
    /// those up, since time moves on only when nobody has anything to do. Before that, a read is on its way to the
    /// actor and waits for nothing.
    pub(crate) fn read_ends(&self, asked: Tick, has_waited: bool) -> Vec<Tick> {
        let mut reads = self.reads.borrow_mut();
        let Some(place) = reads.iter().position(|read| read.asked == asked) else {
            return Vec::new();
        };
        let read = reads.remove(place);
        let is_overtaken = |earlier: &&WaitingRead| {
            (earlier.set, &earlier.parts, earlier.snap) == (read.set, &read.parts, read.snap)
                && (has_waited || earlier.at < read.at)
        };
        let overtaken = reads.iter().take(place).filter(is_overtaken);
        overtaken.map(|earlier| earlier.asked).collect()
    }

    /// A read that was asked for at `asked` was answered, and these were asked for before and not: none may wait now.
    pub(crate) fn check_order(&self, asked: Tick, overtaken: &[Tick]) {
        let reads = self.reads.borrow();
        if let Some(earlier) = reads.iter().find(|read| overtaken.contains(&read.asked)) {
            self.fail(format!(
                "a read of {:?} asked for at {asked} was answered before an equal one of {}",
                earlier.parts, earlier.asked
            ));
        }
    }

    /// Whether what began at `since` may fail for the store's faults.
    pub(crate) fn may_fail(&self, since: Moment) -> bool {
        let Some(calm) = self.calm_since.get() else {
            return self.plan.is_faulty;
        };
        self.plan.is_faulty && since <= calm.after(self.patience())
    }

    /// How long anybody may have to wait once the store is well.
    fn patience(&self) -> Duration {
        self.longest_timeout.get() * 2 + DELAY_MAX * 2 + Duration::from_secs(10)
    }

    pub(crate) fn limits_changed(&self) {
        let limits = self.cache.limits();
        let timeout = limits.backend_timeout + limits.retry_delay_max;
        self.longest_timeout
            .set(self.longest_timeout.get().max(timeout));
        self.relax_limits();
        self.check_limits();
    }

    /// The set's handle, open: somebody may have closed the set.
    pub(crate) async fn reopen(&self, number: usize) {
        let (truncation, context) = {
            let slots = self.slots.borrow();
            (slots[number].truncation, slots[number].context.clone())
        };
        let options = options(&self.plan.sets[number], truncation, &context);
        match self.cache.open(options).await {
            Ok(handle) => self.slots.borrow_mut()[number].handle = handle,
            // It is open already, since before its context or truncation changed; or it is being closed.
            Err(CacheError::AlreadyOpen { .. } | CacheError::Closed { .. }) => {}
            Err(error) => self.fail(format!("reopening a set: {error}")),
        }
    }

    // The run.

    async fn live(self: &Rc<Self>) {
        let mut tasks = Vec::new();
        for steps in self.plan.callers.clone() {
            tasks.push(actix::spawn(crate::caller::act(self.clone(), steps)));
        }
        let operator = actix::spawn(crate::caller::act(self.clone(), self.plan.operator.clone()));
        while !operator.is_finished() && !self.has_failed() {
            self.watch().await;
        }
        self.control.set_plan(FaultPlan::default());
        self.control.set_condition(StoreCondition::Up);
        for set in 0..self.plan.sets.len() {
            self.oracle().lift(set);
        }
        self.calm_since.set(Some(self.now()));
        self.oracle()
            .note(|| "the store is well from now on".to_owned());
        while tasks.iter().any(|task| !task.is_finished()) && !self.has_failed() {
            self.watch().await;
        }
        if !self.has_failed() {
            let end = actix::spawn({
                let world = self.clone();
                async move { world.finish().await }
            });
            while !end.is_finished() && !self.has_failed() {
                self.watch().await;
            }
        }
        for task in tasks {
            task.abort();
        }
    }

    /// Sees that nobody waits for ever, and that nothing is dirty for too long.
    async fn watch(&self) {
        pause(WATCH).await;
        self.forget_forsaken();
        let Some(calm) = self.calm_since.get() else {
            return;
        };
        self.give_up_fenced().await;
        let now = self.now();
        let overdue = self
            .pending
            .borrow()
            .iter()
            .find_map(|(step, (what, since))| {
                let waits = now.since(calm.max(*since));
                (waits > self.patience())
                    .then(|| format!("step {step}, {what}, is not answered after {waits:?}"))
            });
        if let Some(overdue) = overdue {
            self.fail(overdue);
        }
        let limits = self.cache.limits();
        let age_max = limits.max_dirty_age + self.patience();
        if now.since(calm) > age_max {
            for set in self.cache.dump().await.sets {
                let buffers = set.objects.iter().flat_map(|object| &object.buffers);
                let oldest = buffers
                    .filter_map(|buffer| buffer.dirty_for_nanos)
                    .max()
                    .unwrap_or(0);
                if Duration::from_nanos(oldest) > age_max {
                    self.fail(format!("{} has had dirty bytes for {oldest} ns", set.set));
                }
            }
        }
    }
}

async fn open_all(cache: &Cache, plan: &Plan) -> Vec<Slot> {
    let mut slots = Vec::new();
    for set in &plan.sets {
        let (truncation, context) = Default::default();
        #[expect(clippy::expect_used, reason = "a plan's sets make sense")]
        let handle = cache
            .open(options(set, truncation, &context))
            .await
            .expect("sets open");
        slots.push(Slot {
            handle,
            truncation,
            context,
            snaps: Vec::new(),
            is_busy: false,
        });
    }
    slots
}

fn options(set: &SetPlan, truncation: Truncation, context: &SnapContext) -> SetOptions {
    let options = SetOptions::new(set.space.name.as_str())
        .truncation(truncation)
        .snap_context(context.clone())
        .write_through_until_flush(set.until_flush)
        .missing(if set.not_found {
            cachalot::Missing::NotFound
        } else {
            cachalot::Missing::Zeros
        });
    match set.space.spread {
        Spread::File(layout) => options.layout(layout),
        Spread::Objects { .. } => options.no_layout(),
    }
}

/// Puts what the store holds at the start where it belongs.
fn fill(store: &MemoryBackend, set: &SetPlan, part: Part, stamp: pattern::Stamp) {
    for extent in set.space.extents(part, 0) {
        let Some(object) = set.space.object_name(&extent.extent.object) else {
            continue;
        };
        let mut offset = extent.extent.range.start();
        for number in extent.parts.iter().flat_map(|part| part.numbers()) {
            let mut bytes = Vec::new();
            pattern::append(&mut bytes, stamp, number, set.space.unit as usize);
            let len = bytes.len() as u64;
            let write = BackendWrite {
                object: object.clone(),
                runs: vec![WriteRun {
                    offset,
                    buffers: vec![Bytes::from(bytes)],
                    journal_tid: None,
                }],
                context: SnapContext::default(),
                modified: Timestamp(0),
                truncation: Truncation::default(),
            };
            let stored = store.write(write).now_or_never();
            assert_eq!(stored, Some(Ok(())), "the store takes its first content");
            offset += len;
        }
    }
}

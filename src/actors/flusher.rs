//! `FlusherActor`: holds dirty bytes near the target and young, across sets (rule F-01).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, ContextFutureSpawner, Handler,
    WrapFuture,
};

use super::message::{End, Taken, Wake, WriteBack};
use super::plan::{FlushPlan, Levels, target};
use super::shared::{Common, SetShared};
use crate::engine::{BufferState, Demand};

/// How often the flusher looks when nobody wakes it.
const TICK: Duration = Duration::from_secs(1);

/// Watches how much is dirty, and for how long; holds no truth of its own.
#[derive(Debug)]
pub(crate) struct FlusherActor {
    common: Arc<Common>,
    plan: FlushPlan,
    /// The sets that may be dirty, by the number that the plan knows them by.
    sets: BTreeMap<u64, Arc<SetShared>>,
    last_number: u64,
    is_looking: bool,
    looks_again: bool,
}

impl FlusherActor {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            plan: FlushPlan::default(),
            sets: BTreeMap::new(),
            last_number: 0,
            is_looking: false,
            looks_again: false,
        }
    }

    fn levels(&self) -> Levels {
        let totals = self.common.books.totals();
        let dirty = u64::try_from(totals.bytes_in(BufferState::Dirty)).unwrap_or_default();
        let waiting = self.common.ledger.waiting();
        let buffers = u64::try_from(totals.buffers_in(BufferState::Dirty)).unwrap_or_default();
        let limits = self.common.limits();
        let is_waited_for = waiting.dirty > 0 || waiting.dirty_buffers > 0;
        let target = target(&limits, is_waited_for);
        let (_, buffers_target) = self.common.ledger.dirty_buffers(target);
        // No demand brings those down.
        let (stranded, stranded_buffers) = self.common.ledger.stranded_dirty();
        Levels {
            dirty: dirty.saturating_sub(stranded) + waiting.dirty,
            target,
            buffers: buffers.saturating_sub(stranded_buffers) + waiting.dirty_buffers,
            buffers_target,
            wants_all: waiting.is_oversized,
            short: self.common.short(),
            now: self.common.clock.now(),
            age_max: limits.max_dirty_age,
        }
    }

    /// Takes note of the sets that have become dirty.
    fn adopt(&mut self, dirtied: &[Weak<SetShared>]) {
        let now = self.common.clock.now();
        for set in dirtied.iter().filter_map(Weak::upgrade) {
            self.last_number += 1;
            self.sets.insert(self.last_number, set);
            // Its first dirty bytes came in some time since the last look: asking it tells.
            self.plan.note(self.last_number, Some(now.before(TICK)));
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.is_looking {
            self.looks_again = true;
            return;
        }
        let dirtied = self.common.flusher_looks();
        self.adopt(&dirtied);
        let levels = self.levels();
        self.plan.begin(&levels);
        self.is_looking = true;
        self.ask_next(levels, ctx);
    }

    /// Asks one set after the other; between them, others have their turn.
    fn ask_next(&mut self, levels: Levels, ctx: &mut Context<Self>) {
        let Some((number, demand)) = self.plan.next(&levels) else {
            self.end_look(ctx);
            return;
        };
        let Some(set) = self.sets.get(&number) else {
            self.plan.answered(number, 0, None);
            self.ask_next(levels, ctx);
            return;
        };
        ask(set.clone(), demand)
            .into_actor(self)
            .map(move |taken, flusher, ctx| {
                let (bytes, oldest) = taken.map_or((0, None), |taken| (taken.bytes, taken.oldest));
                flusher.plan.answered(number, bytes, oldest);
                if oldest.is_none()
                    && let Some(set) = flusher.sets.remove(&number)
                {
                    set.forget_dirtied();
                }
                flusher.ask_next(levels, ctx);
            })
            .spawn(ctx);
    }

    fn end_look(&mut self, ctx: &mut Context<Self>) {
        self.is_looking = false;
        if std::mem::take(&mut self.looks_again) {
            self.look(ctx);
        }
    }
}

/// Asks a set; `None` when it is gone.
async fn ask(set: Arc<SetShared>, demand: Demand) -> Option<Taken> {
    set.addr().get()?.send(WriteBack(demand)).await.ok()
}

impl Actor for FlusherActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, Self::look);
    }
}

impl Handler<Wake> for FlusherActor {
    type Result = ();

    fn handle(&mut self, Wake: Wake, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Handler<End> for FlusherActor {
    type Result = ();

    fn handle(&mut self, End: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

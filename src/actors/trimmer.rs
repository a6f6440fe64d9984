//! `TrimActor`: holds cached bytes under the limit, and objects under theirs, across sets (rule T-01).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, ContextFutureSpawner, Handler,
    WrapFuture,
};

use super::directory::Directory;
use super::message::{End, Freed, GiveBack, Wake};
use super::plan::RoomLevels;
use super::shared::{Common, SetShared};
use crate::types::{Moment, SetId};

/// A lost wake-up costs at most this long.
const TICK: Duration = Duration::from_secs(1);
/// No set is asked for more than this at a time, so that sets of like age give in turn.
const BATCH_BYTES: u64 = 8 << 20;

/// Watches how much room is left; holds no truth of its own.
#[derive(Debug)]
pub(crate) struct TrimActor {
    common: Arc<Common>,
    directory: Arc<Directory>,
    is_looking: bool,
    looks_again: bool,
}

impl TrimActor {
    pub(crate) const fn new(common: Arc<Common>, directory: Arc<Directory>) -> Self {
        Self {
            common,
            directory,
            is_looking: false,
            looks_again: false,
        }
    }

    fn levels(&self) -> RoomLevels {
        let (used, limit) = self.common.ledger.room();
        let waiting = self.common.ledger.waiting();
        RoomLevels {
            used,
            limit,
            waiting: waiting.room,
            wants_all: waiting.is_oversized,
        }
    }

    fn surplus_objects(&self) -> u64 {
        let (objects, max) = self.common.ledger.objects();
        objects.saturating_sub(max)
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.is_looking {
            self.looks_again = true;
            return;
        }
        self.common.trimmer_looks();
        self.common.note_trimmed(false);
        let wants_objects = self.surplus_objects() > 0;
        if self.levels().surplus() == 0 && !wants_objects {
            self.common.note_short(self.levels().short());
            return;
        }
        let mut known = self.directory.sets();
        known.retain(|set| set.may_give(wants_objects));
        known.sort_by(|left, right| left.id.cmp(&right.id));
        let mut sets = ByAge::default();
        for set in known {
            sets.file(set);
        }
        self.is_looking = true;
        self.ask_next(sets, BTreeSet::new(), ctx);
    }

    /// Asks the set with the coldest bytes, then the next, until enough has gone.
    fn ask_next(
        &mut self,
        mut sets: ByAge,
        mut exhausted: BTreeSet<SetId>,
        ctx: &mut Context<Self>,
    ) {
        let (bytes, objects) = (self.levels().surplus(), self.surplus_objects());
        let wanted = GiveBack {
            bytes: bytes.min(BATCH_BYTES),
            objects,
        };
        let next = sets.pop().filter(|_| bytes > 0 || objects > 0);
        let Some(set) = next else {
            self.end_look(ctx);
            return;
        };
        ask(set.clone(), wanted)
            .into_actor(self)
            .map(move |freed, trimmer, ctx| {
                let freed = freed.unwrap_or(Freed {
                    bytes: 0,
                    objects: 0,
                });
                if freed.bytes == 0 && freed.objects == 0 {
                    exhausted.insert(set.id.clone());
                } else if !exhausted.contains(&set.id) {
                    sets.file(set);
                }
                trimmer.ask_next(sets, exhausted, ctx);
            })
            .spawn(ctx);
    }

    /// What clean bytes could not give must come from dirty ones, once they are stored.
    fn end_look(&mut self, ctx: &mut Context<Self>) {
        self.is_looking = false;
        let levels = self.levels();
        self.common
            .note_trimmed(levels.surplus() > 0 || self.surplus_objects() > 0);
        let short = levels.short();
        self.common.note_short(short);
        if short > 0 {
            self.common.wake_flusher();
        }
        if std::mem::take(&mut self.looks_again) {
            self.look(ctx);
        }
    }
}

/// The sets that may give something, the coldest first. Those that give nothing, but may have idle objects, come last.
#[derive(Debug, Default)]
struct ByAge {
    /// Of like age, who was filed first comes first.
    sets: BTreeMap<(bool, Option<Moment>, u64), Arc<SetShared>>,
    filed: u64,
}

impl ByAge {
    fn file(&mut self, set: Arc<SetShared>) {
        self.filed += 1;
        let coldest = set.coldest();
        self.sets
            .insert((coldest.is_none(), coldest, self.filed), set);
    }

    fn pop(&mut self) -> Option<Arc<SetShared>> {
        self.sets.pop_first().map(|(_, set)| set)
    }
}

/// Asks a set; `None` when it is gone.
async fn ask(set: Arc<SetShared>, wanted: GiveBack) -> Option<Freed> {
    set.addr().get()?.send(wanted).await.ok()
}

impl Actor for TrimActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, Self::look);
    }
}

impl Handler<Wake> for TrimActor {
    type Result = ();

    fn handle(&mut self, Wake: Wake, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Handler<End> for TrimActor {
    type Result = ();

    fn handle(&mut self, End: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

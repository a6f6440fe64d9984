//! `TrimActor`: holds cached bytes under the limit, and objects under theirs, across sets (rule T-01).

use std::collections::BTreeSet;
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
        let mut sets: Vec<(Option<Moment>, Arc<SetShared>)> = self
            .directory
            .sets()
            .into_iter()
            .filter(|set| set.may_give(wants_objects))
            .map(|set| (set.coldest(), set))
            .collect();
        // Those that give nothing, but may have idle objects, come last.
        sets.sort_by(|(a, left), (b, right)| {
            (a.is_none(), a, &left.id).cmp(&(b.is_none(), b, &right.id))
        });
        sets.reverse();
        self.is_looking = true;
        self.ask_next(sets, BTreeSet::new(), ctx);
    }

    /// Asks the set with the coldest bytes, then the next, until enough has gone.
    fn ask_next(
        &mut self,
        mut sets: Vec<(Option<Moment>, Arc<SetShared>)>,
        mut exhausted: BTreeSet<SetId>,
        ctx: &mut Context<Self>,
    ) {
        let (bytes, objects) = (self.levels().surplus(), self.surplus_objects());
        let wanted = GiveBack {
            bytes: bytes.min(BATCH_BYTES),
            objects,
        };
        let next = sets.pop().filter(|_| bytes > 0 || objects > 0);
        let Some((_, set)) = next else {
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
                    file(&mut sets, set);
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

/// Puts a set back in its place by age; the coldest is at the end.
fn file(sets: &mut Vec<(Option<Moment>, Arc<SetShared>)>, set: Arc<SetShared>) {
    let coldest = set.coldest();
    let key = |coldest: &Option<Moment>| (coldest.is_none(), *coldest);
    let place = sets.partition_point(|(other, _)| key(other) > key(&coldest));
    sets.insert(place, (coldest, set));
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

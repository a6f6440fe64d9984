//! A caller: takes its steps one after the other, and tells the judge what it asked and what it got.

mod alone;
mod data;

pub(crate) use alone::under_way;

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use cachalot::{BackendError, CacheConfig, CacheError, Moment, ObjectSet, RequestError, SnapId};

use crate::clock::pause;
use crate::history::Tick;
use crate::plan::{Op, Patience, Step};
use crate::space::{Extent, Part};
use crate::world::{Cost, World};

/// What is noted of a step whose caller did not wait for the answer.
const GIVEN_UP: &str = "given up";

pub(crate) async fn act(world: Rc<World>, steps: Vec<Step>) {
    for step in steps {
        if world.has_failed() {
            return;
        }
        if step.pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            pause(step.pause).await;
        }
        let what = format!("{:?}", step.op);
        world
            .oracle()
            .note(|| format!("step {}: {what}, patience {:?}", step.id, step.patience));
        world.oracle().digest.note(("begins", step.id, world.now()));
        world.begin(step.id, what, Cost::of(&world.plan, &step.op));
        let outcome = take(&world, &step).await;
        world
            .oracle()
            .note(|| format!("step {}: {outcome}", step.id));
        world
            .oracle()
            .digest
            .note(("ends", step.id, &outcome, world.now()));
        world.end(step.id, outcome != GIVEN_UP);
    }
}

/// Waits for an answer as long as the caller's patience lasts.
async fn wait<T>(patience: Patience, answer: impl Future<Output = T>) -> Option<T> {
    match patience {
        Patience::Endless => Some(answer.await),
        Patience::Time(time) => tokio::time::timeout(time, answer).await.ok(),
        Patience::Polls(most) => {
            let mut answer = std::pin::pin!(answer);
            let mut polls = 0;
            poll_fn(|context| {
                polls += 1;
                match answer.as_mut().poll(context) {
                    Poll::Ready(answer) => Poll::Ready(Some(answer)),
                    Poll::Pending if polls >= most => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        }
    }
}

struct Asked {
    tick: Tick,
    at: Moment,
    generation: u64,
    /// The sets of which somebody had been told that they are fenced.
    fenced: Vec<bool>,
}

impl World {
    fn asked(&self) -> Asked {
        let mut oracle = self.oracle();
        Asked {
            tick: oracle.tick(),
            at: self.now(),
            generation: oracle.generation,
            fenced: oracle.fences.iter().map(|fence| fence.is_told).collect(),
        }
    }

    fn handle(&self, set: usize) -> ObjectSet {
        self.slots.borrow()[set].handle.clone()
    }

    /// Judges an error, and opens the set again where it was closed. Returns what to note.
    async fn excuse(&self, set: Option<usize>, error: CacheError, asked: &Asked) -> String {
        let is_allowed = match &error {
            CacheError::Fenced { set, .. } => {
                let mut oracle = self.oracle();
                let set = oracle.set_named(set.as_str());
                set.is_some_and(|set| oracle.told(set, asked.generation))
            }
            CacheError::Read {
                source: BackendError::Fenced,
                ..
            } => set.is_some_and(|set| self.oracle().fences[set].was_possible),
            CacheError::WriteBack {
                source: BackendError::Fenced,
                ..
            } => false,
            CacheError::Read { .. } | CacheError::WriteBack { .. } => self.may_fail(asked.at),
            CacheError::Closed { .. } => true,
            CacheError::InvalidRequest(_)
            | CacheError::InvalidConfig(_)
            | CacheError::NotFound { .. }
            | CacheError::Backend(_)
            | CacheError::SetFailed { .. }
            | CacheError::AlreadyOpen { .. }
            | CacheError::Start
            | _ => false,
        };
        if !is_allowed {
            self.fail(format!("an error that should not be: {error:?}"));
        }
        if let (CacheError::Closed { .. }, Some(set)) = (&error, set) {
            self.reopen(set).await;
        }
        format!("error: {error}")
    }

    async fn note<T>(
        &self,
        set: Option<usize>,
        answer: Option<Result<T, CacheError>>,
        asked: Asked,
    ) -> String {
        match answer {
            None => GIVEN_UP.to_owned(),
            Some(Ok(_)) => "done".to_owned(),
            Some(Err(error)) => self.excuse(set, error, &asked).await,
        }
    }

    /// Whether somebody had been told that the set is fenced when this was asked for, and it still is.
    fn is_known_fenced(&self, set: usize, asked: &Asked) -> bool {
        asked.fenced[set] && asked.generation == self.oracle().generation
    }
}

async fn take(world: &Rc<World>, step: &Step) -> String {
    let patience = step.patience;
    match &step.op {
        Op::Read {
            set,
            parts,
            way,
            hints,
            snap,
        } => data::read(world, (*set, parts), (*way, *hints, *snap), patience).await,
        Op::Write {
            set,
            parts,
            way,
            hints,
            journal,
        } => data::write(world, (*set, parts), (*way, *hints, *journal), patience).await,
        Op::Prefetch { set, parts, hints } => {
            data::prefetch(world, (*set, parts), *hints, patience).await
        }
        Op::Flush { set, part } => flush(world, *set, *part, patience).await,
        Op::FlushAll => flush_all(world, patience).await,
        Op::Discard { .. }
        | Op::Truncate { .. }
        | Op::TruncateFile { .. }
        | Op::Purge { .. }
        | Op::Snapshot { .. }
        | Op::GiveUp { .. }
        | Op::Close { .. } => alone::alone(world, &step.op).await,
        Op::SetLimits(config) => set_limits(world, config).await,
        Op::Fence { set, reads } => {
            world.oracle().fence(*set, *reads);
            "another client has taken over".to_owned()
        }
        Op::Store { condition, faults } => {
            world.control.set_plan(*faults);
            world.control.set_condition(*condition);
            "so be it".to_owned()
        }
        Op::Release { .. }
        | Op::ReleaseAll
        | Op::ClearNonexistence { .. }
        | Op::IsCached { .. }
        | Op::Status { .. }
        | Op::Dump
        | Op::Audit => look(world, step).await,
    }
}

async fn flush(world: &World, set: usize, part: Option<Part>, patience: Patience) -> String {
    let (asked, handle) = (world.asked(), world.handle(set));
    world.is_flushed.borrow_mut()[set] = true;
    let answer = match part {
        None => wait(patience, handle.flush()).await,
        Some(part) => {
            let (extents, _) = extents(world, set, &[part]);
            let extents = extents.into_iter().map(|extent| extent.extent).collect();
            wait(patience, handle.flush_extents(extents)).await
        }
    };
    if let Some(Ok(_)) = answer {
        world.oracle().tick();
        world.oracle().check_stored(set, part, asked.tick);
        if world.is_known_fenced(set, &asked) {
            world.fail("a flush of a fenced set went well");
        }
    }
    world.note(Some(set), answer, asked).await
}

async fn flush_all(world: &World, patience: Patience) -> String {
    let asked = world.asked();
    world.is_flushed.borrow_mut().fill(true);
    let answer = wait(patience, world.cache.flush_all()).await;
    if let Some(Ok(_)) = answer {
        world.oracle().tick();
        for set in 0..world.plan.sets.len() {
            world.oracle().check_stored(set, None, asked.tick);
        }
    }
    world.note(None, answer, asked).await
}

/// Operations that change nothing that a read could tell.
async fn look(world: &World, step: &Step) -> String {
    let patience = step.patience;
    match &step.op {
        Op::Release { set } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            world
                .note(Some(*set), wait(patience, handle.release()).await, asked)
                .await
        }
        Op::ReleaseAll => format!("{} bytes stay", world.cache.release_all().await),
        Op::ClearNonexistence { set } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            world
                .note(Some(*set), Some(handle.clear_nonexistence().await), asked)
                .await
        }
        Op::IsCached { set, part } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            let (extents, _) = extents(world, *set, &[*part]);
            let extents = extents.into_iter().map(|extent| extent.extent).collect();
            let answer = wait(patience, handle.is_cached(extents, SnapId::HEAD)).await;
            world.note(Some(*set), answer, asked).await
        }
        Op::Status { set } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            world
                .note(Some(*set), wait(patience, handle.status()).await, asked)
                .await
        }
        Op::Dump => {
            let sets = wait(patience, world.cache.dump()).await;
            format!("{:?} sets", sets.map(|dump| dump.sets.len()))
        }
        Op::Audit => match world.cache.audit().await {
            Ok(()) => "sound".to_owned(),
            Err(failure) => {
                world.fail(failure.to_string());
                failure.to_string()
            }
        },
        _ => String::new(),
    }
}

async fn set_limits(world: &World, config: &CacheConfig) -> String {
    let change = world.cache.set_limits(config);
    // They take effect at once, whoever still waits for the answer.
    let mut change = std::pin::pin!(change);
    let first = futures::poll!(change.as_mut());
    world.limits_changed();
    let answer = match first {
        Poll::Ready(answer) => answer,
        Poll::Pending => change.await,
    };
    match answer {
        Ok(()) => "changed".to_owned(),
        Err(error) => {
            world.fail(format!("limits were refused: {error}"));
            "refused".to_owned()
        }
    }
}

/// All extents of some parts, and the length of the buffer that they fill.
fn extents(world: &World, set: usize, parts: &[Part]) -> (Vec<Extent>, u64) {
    let space = &world.plan.sets[set].space;
    let (mut all, mut end) = (Vec::new(), 0);
    for part in parts {
        all.extend(space.extents(*part, end));
        end += u64::from(part.len) * u64::from(space.unit);
    }
    (all, end)
}

/// Whether a request had to be refused: some sets read one extent at a time.
fn is_expected(world: &World, set: usize, error: &CacheError) -> bool {
    let is_several = matches!(
        error,
        CacheError::InvalidRequest(RequestError::SeveralExtents { .. })
    );
    let is_absent = matches!(error, CacheError::NotFound { .. });
    world.plan.sets[set].not_found && (is_several || is_absent)
}

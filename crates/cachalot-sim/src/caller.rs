//! A caller: takes its steps one after the other, and tells the judge what it asked and what it got.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use cachalot::message::{Read, Write};
use cachalot::{
    CacheConfig, CacheError, Hints, JournalTid, Moment, ObjectExtent, ObjectSet, ReadBuf,
    ReadRequest, RequestError, SnapContext, SnapId, Truncation, WriteRequest,
};
use futures::FutureExt;

use crate::clock::pause;
use crate::history::Tick;
use crate::pattern::{self, Stamp};
use crate::plan::{Op, Patience, Step, Way};
use crate::space::{Extent, Part, Spread};
use crate::world::{Snap, World};

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
        world.oracle().note(|| format!("step {}: {what}, patience {:?}", step.id, step.patience));
        world.oracle().digest.note(("begins", step.id, world.now()));
        world.begin(step.id, what);
        let outcome = take(&world, &step).await;
        world.oracle().note(|| format!("step {}: {outcome}", step.id));
        world.oracle().digest.note(("ends", step.id, &outcome, world.now()));
        world.end(step.id);
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
}

impl World {
    fn asked(&self) -> Asked {
        Asked {
            tick: self.oracle().tick(),
            at: self.now(),
        }
    }

    fn handle(&self, set: usize) -> ObjectSet {
        self.slots.borrow()[set].handle.clone()
    }

    /// Judges an error, and opens the set again where it was closed. Returns what to note.
    async fn excuse(&self, set: Option<usize>, error: CacheError, asked: &Asked) -> String {
        let is_allowed = match &error {
            CacheError::Read { .. } | CacheError::WriteBack { .. } => self.may_fail(asked.at),
            CacheError::Closed { .. } => true,
            _ => false,
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
            None => "given up".to_owned(),
            Some(Ok(_)) => "done".to_owned(),
            Some(Err(error)) => self.excuse(set, error, &asked).await,
        }
    }
}

async fn take(world: &World, step: &Step) -> String {
    let patience = step.patience;
    match &step.op {
        Op::Read { set, parts, way, hints, snap } => {
            read(world, (*set, parts), (*way, *hints, *snap), patience).await
        }
        Op::Write { set, parts, way, hints, journal } => {
            write(world, (*set, parts), (*way, *hints, *journal), patience).await
        }
        Op::Prefetch { set, parts, hints } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            let (extents, _) = extents(world, *set, parts);
            let request = ReadRequest {
                extents: extents.into_iter().map(|extent| extent.extent).collect(),
                hints: *hints,
                ..ReadRequest::default()
            };
            let answer = wait(patience, handle.prefetch(request)).await;
            match answer {
                Some(Err(error)) if is_expected(world, *set, &error) => "refused".to_owned(),
                answer => world.note(Some(*set), answer, asked).await,
            }
        }
        Op::Flush { set, part } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            let answer = match part {
                None => wait(patience, handle.flush()).await,
                Some(part) => {
                    let (extents, _) = extents(world, *set, &[*part]);
                    let extents = extents.into_iter().map(|extent| extent.extent).collect();
                    wait(patience, handle.flush_extents(extents)).await
                }
            };
            if let Some(Ok(_)) = answer {
                world.oracle().tick();
                world.oracle().check_stored(*set, *part, asked.tick);
            }
            world.note(Some(*set), answer, asked).await
        }
        Op::FlushAll => {
            let asked = world.asked();
            let answer = wait(patience, world.cache.flush_all()).await;
            if let Some(Ok(_)) = answer {
                world.oracle().tick();
                for set in 0..world.plan.sets.len() {
                    world.oracle().check_stored(set, None, asked.tick);
                }
            }
            world.note(None, answer, asked).await
        }
        Op::Discard { .. }
        | Op::Truncate { .. }
        | Op::TruncateFile { .. }
        | Op::Purge { .. }
        | Op::Snapshot { .. }
        | Op::Close { .. } => alone(world, &step.op).await,
        Op::Release { set } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            world.note(Some(*set), wait(patience, handle.release()).await, asked).await
        }
        Op::ReleaseAll => format!("{} bytes stay", world.cache.release_all().await),
        Op::ClearNonexistence { set } => {
            let (asked, handle) = (world.asked(), world.handle(*set));
            world.note(Some(*set), Some(handle.clear_nonexistence().await), asked).await
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
            world.note(Some(*set), wait(patience, handle.status()).await, asked).await
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
        Op::SetLimits(config) => set_limits(world, config).await,
        Op::Store { condition, faults } => {
            world.control.set_plan(*faults);
            world.control.set_condition(*condition);
            "so be it".to_owned()
        }
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

async fn read(
    world: &World,
    (set, parts): (usize, &[Part]),
    (way, hints, snap): (Way, Hints, Option<u32>),
    patience: Patience,
) -> String {
    let snap = snap.and_then(|snap| {
        let slots = world.slots.borrow();
        let snaps = &slots[set].snaps;
        (!snaps.is_empty()).then(|| snaps[snap as usize % snaps.len()])
    });
    let (asked, handle) = (world.asked(), world.handle(set));
    let (extents, len) = extents(world, set, parts);
    let request = ReadRequest {
        extents: extents.iter().map(|extent| extent.extent.clone()).collect(),
        snap: snap.map_or(SnapId::HEAD, |snap| SnapId::snapshot(snap.id)),
        hints,
    };
    let space = &world.plan.sets[set].space;
    let answer: Option<Result<ReadBuf, CacheError>> = match (way, parts, &space.spread) {
        (Way::Message, ..) => match handle.addr() {
            Ok(addr) => wait(patience, addr.send(Read(request))).await.map(|answer| {
                answer.unwrap_or_else(|_| Err(CacheError::Closed { set: handle.id().clone() }))
            }),
            Err(error) => Some(Err(error)),
        },
        (Way::Offset, [part], Spread::File(_)) if snap.is_none() => {
            let (offset, len) = space.file_range(*part);
            wait(patience, handle.read_at_with(offset, len, hints)).await
        }
        (Way::Offset, [_], Spread::Objects { .. }) if snap.is_none() && extents.len() == 1 => {
            let ObjectExtent { object, range, .. } = extents[0].extent.clone();
            wait(patience, handle.read_object(object, range.start(), range.len())).await
        }
        _ => wait(patience, handle.read(request)).await,
    };
    let bytes = match answer {
        None => return "given up".to_owned(),
        Some(Ok(bytes)) => bytes.to_vec(),
        Some(Err(CacheError::NotFound { .. })) if world.plan.sets[set].not_found => {
            vec![0; len as usize]
        }
        Some(Err(error)) if is_expected(world, set, &error) => return "refused".to_owned(),
        Some(Err(error)) => return world.excuse(Some(set), error, &asked).await,
    };
    if bytes.len() as u64 != len {
        world.fail(format!("a read of {len} bytes gave {}", bytes.len()));
        return "too short or too long".to_owned();
    }
    let mut oracle = world.oracle();
    let answered = oracle.tick();
    oracle.digest.note(&bytes);
    let mut at = 0;
    for part in parts {
        let bytes = &bytes[at..at + part.len as usize * space.unit as usize];
        at += bytes.len();
        let verdict = match snap {
            Some(snap) => oracle.sets[set].check_snapshot(*part, bytes, (snap.from, snap.to)),
            None => oracle.sets[set].check_read(*part, bytes, (asked.tick, answered)),
        };
        oracle.judge(verdict);
    }
    "read".to_owned()
}

async fn write(
    world: &World,
    (set, parts): (usize, &[Part]),
    (way, hints, journal): (Way, Hints, bool),
    patience: Patience,
) -> String {
    let (extents, len) = extents(world, set, parts);
    let space = &world.plan.sets[set].space;
    let asked = world.asked();
    let mut data = vec![0; len as usize];
    let mut stamped: Vec<(Extent, Stamp)> = Vec::new();
    for extent in extents {
        let stamp = world.oracle().stamp();
        let mut bytes = Vec::new();
        for number in extent.parts.iter().flat_map(|part| part.numbers()) {
            pattern::append(&mut bytes, stamp, number, space.unit as usize);
        }
        let mut from = 0;
        for place in &extent.extent.places {
            let (to, len) = (place.offset as usize, place.len as usize);
            data[to..to + len].copy_from_slice(&bytes[from..from + len]);
            from += len;
        }
        world.oracle().sets[set].begin_write(&extent.parts, stamp, asked.tick);
        stamped.push((extent, stamp));
    }
    let tid = journal.then(|| {
        world.last_journal_tid.set(world.last_journal_tid.get() + 1);
        let tid = world.last_journal_tid.get();
        world.oracle().journal_write(tid, set, &stamped);
        tid
    });
    let request = WriteRequest {
        extents: stamped.iter().map(|(extent, _)| extent.extent.clone()).collect(),
        data: Bytes::from(data),
        hints,
        journal_tid: tid.and_then(std::num::NonZeroU64::new).map(JournalTid),
        ..WriteRequest::default()
    };
    let handle = world.handle(set);
    let answer = match (way, parts, &space.spread) {
        (Way::Message, ..) => match handle.addr() {
            Ok(addr) => wait(patience, addr.send(Write(request))).await.map(|answer| {
                answer.unwrap_or_else(|_| Err(CacheError::Closed { set: handle.id().clone() }))
            }),
            Err(error) => Some(Err(error)),
        },
        (Way::Offset, [part], Spread::File(_)) if tid.is_none() => {
            let (offset, _) = space.file_range(*part);
            wait(patience, handle.write_at_with(offset, request.data, hints)).await
        }
        (Way::Offset, [_], Spread::Objects { .. }) if tid.is_none() && stamped.len() == 1 => {
            let ObjectExtent { object, range, .. } = stamped[0].0.extent.clone();
            wait(patience, handle.write_object(object, range.start(), request.data)).await
        }
        _ => wait(patience, handle.write(request)).await,
    };
    let mut oracle = world.oracle();
    let end = oracle.tick();
    match &answer {
        Some(Ok(())) => {
            for (extent, stamp) in &stamped {
                oracle.sets[set].end_write(&extent.parts, *stamp, end);
            }
            if let Some(tid) = tid {
                oracle.journal_acknowledged(tid);
            }
        }
        Some(Err(CacheError::InvalidRequest(_))) => {
            for (extent, stamp) in &stamped {
                oracle.sets[set].void_write(&extent.parts, *stamp);
            }
        }
        Some(Err(_)) | None => {}
    }
    drop(oracle);
    world.note(Some(set), answer, asked).await
}

/// What only one caller does to a set at a time.
async fn alone(world: &World, op: &Op) -> String {
    let (Op::Discard { set, .. }
    | Op::Truncate { set, .. }
    | Op::TruncateFile { set, .. }
    | Op::Purge { set }
    | Op::Snapshot { set }
    | Op::Close { set }) = op
    else {
        return String::new();
    };
    if std::mem::replace(&mut world.slots.borrow_mut()[*set].is_busy, true) {
        return "somebody else is at it".to_owned();
    }
    let outcome = match op {
        Op::Discard { set, part } => zero(world, *set, *part, Zeroing::Discard).await,
        Op::Truncate { set, at } => truncate(world, *set, *at).await,
        Op::TruncateFile { set, at } => truncate_file(world, *set, *at).await,
        Op::Purge { set } => purge(world, *set).await,
        Op::Snapshot { set } => snapshot(world, *set).await,
        Op::Close { set } => close(world, *set).await,
        _ => String::new(),
    };
    world.slots.borrow_mut()[*set].is_busy = false;
    outcome
}

/// How a part is made zeros.
#[derive(Clone, Copy)]
enum Zeroing {
    Discard,
    /// The tail of an object from this size on.
    Truncate(u64),
    File(Truncation),
}

/// Drops a part, frees it in the store, and drops what others have brought in meanwhile: as an application does that
/// lets others read on.
async fn zero(world: &World, set: usize, part: Part, how: Zeroing) -> String {
    let extents = world.plan.sets[set].space.extents(part, 0);
    let asked = world.asked();
    let dropping = world.oracle().sets[set].begin_zero(&[part], asked.tick);
    let mut errors = Vec::new();
    for turn in 0..2 {
        let handle = world.handle(set);
        let ranges: Vec<ObjectExtent> = extents.iter().map(|extent| extent.extent.clone()).collect();
        let answer = match how {
            Zeroing::File(truncation) if turn == 0 => handle.truncate_file(truncation).await,
            Zeroing::Truncate(size) => {
                let object = extents.first().map(|extent| extent.extent.object.clone());
                match object {
                    Some(object) => handle.truncate(object, size).await,
                    None => Ok(()),
                }
            }
            Zeroing::Discard | Zeroing::File(_) => handle.discard(ranges.clone()).await,
        };
        if let Err(error) = answer {
            // Closed: then nothing of it is cached.
            errors.push(world.excuse(Some(set), error, &asked).await);
        }
        if turn == 0 {
            for extent in &extents {
                let range = extent.extent.range;
                if let Some(name) = world.plan.sets[set].space.object_name(&extent.extent.object) {
                    world.outer.forget(&name);
                    world.store.discard(name, range).now_or_never();
                }
            }
            world.oracle().sets[set].zero_store(part);
        }
    }
    let mut oracle = world.oracle();
    let end = oracle.tick();
    // Where the set was closed under it, others may have it open with what they read.
    let end = if errors.is_empty() { end } else { crate::history::OPEN };
    oracle.sets[set].end_zero(&[part], dropping, asked.tick, end);
    format!("zeros, {errors:?}")
}

async fn truncate(world: &World, set: usize, at: u32) -> String {
    let space = &world.plan.sets[set].space;
    let Spread::Objects { base, sectors } = space.spread else {
        return "no objects".to_owned();
    };
    let end = ((at / sectors + 1) * sectors).min(space.sectors);
    let size = base + u64::from(at % sectors) * u64::from(space.unit);
    let part = Part { at, len: end - at };
    zero(world, set, part, Zeroing::Truncate(size)).await
}

async fn truncate_file(world: &World, set: usize, at: u32) -> String {
    let space = &world.plan.sets[set].space;
    let truncation = {
        let mut slots = world.slots.borrow_mut();
        let seq = slots[set].truncation.seq + 1;
        slots[set].truncation = Truncation {
            seq,
            size_bytes: u64::from(at) * u64::from(space.unit),
        };
        slots[set].truncation
    };
    let part = Part {
        at,
        len: space.sectors - at,
    };
    world.oracle().truncations[set] = (truncation.seq, at);
    if part.len == 0 {
        return "nothing lies past it".to_owned();
    }
    zero(world, set, part, Zeroing::File(truncation)).await
}

async fn purge(world: &World, set: usize) -> String {
    let (asked, handle) = (world.asked(), world.handle(set));
    let dropping = world.oracle().sets[set].begin_purge(asked.tick);
    let answer = handle.purge().await;
    let given_up = world.outer.given_up();
    let mut oracle = world.oracle();
    let end = oracle.tick();
    let mut under_way = oracle.under_way(set);
    for write in given_up {
        under_way.extend(oracle.pieces_of(set, &write));
    }
    oracle.sets[set].end_purge(dropping, (asked.tick, end), &under_way);
    drop(oracle);
    world.note(Some(set), Some(answer), asked).await
}

async fn snapshot(world: &World, set: usize) -> String {
    let asked = world.asked();
    let context = {
        let slots = world.slots.borrow();
        let old = &slots[set].context;
        let id = old.seq + 1;
        let snaps: Vec<u64> = std::iter::once(id).chain(old.snaps.iter().copied()).collect();
        SnapContext::new(id, snaps)
    };
    let Ok(context) = context else {
        world.fail("a snapshot context that does not fall");
        return String::new();
    };
    let id = context.seq;
    let answer = world.handle(set).set_snap_context(context.clone()).await;
    if let Err(error) = answer {
        return world.excuse(Some(set), error, &asked).await;
    }
    world.slots.borrow_mut()[set].context = context;
    let to = world.oracle().tick();
    for _ in 0..5 {
        if world.handle(set).flush().await.is_ok() {
            world.slots.borrow_mut()[set].snaps.push(Snap {
                id,
                from: asked.tick,
                to,
            });
            return format!("snapshot {id}");
        }
        pause(std::time::Duration::from_millis(100)).await;
    }
    "a snapshot that is not all stored".to_owned()
}

async fn close(world: &World, set: usize) -> String {
    let (asked, handle) = (world.asked(), world.handle(set));
    let answer = handle.close().await;
    if answer.is_ok() {
        world.oracle().tick();
        world.oracle().check_stored(set, None, asked.tick);
        world.reopen(set).await;
    }
    world.note(Some(set), Some(answer), asked).await
}

//! What one caller at a time does to a set: dropping data, taking snapshots, closing.

use cachalot::{ObjectExtent, SnapContext, Truncation};
use futures::FutureExt;

use crate::clock::pause;
use crate::plan::Op;
use crate::space::{Part, Spread};
use crate::world::{Snap, World};

/// What only one caller does to a set at a time.
pub(super) async fn alone(world: &World, op: &Op) -> String {
    let (Op::Discard { set, .. }
    | Op::Truncate { set, .. }
    | Op::TruncateFile { set, .. }
    | Op::Purge { set }
    | Op::Snapshot { set }
    | Op::GiveUp { set }
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
        Op::GiveUp { set } => world.give_up(*set).await,
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
        let ranges: Vec<ObjectExtent> =
            extents.iter().map(|extent| extent.extent.clone()).collect();
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
                if let Some(name) = world.plan.sets[set]
                    .space
                    .object_name(&extent.extent.object)
                {
                    world.outer.forget(&name);
                    world.store.discard(name, range).now_or_never();
                }
            }
            let mut oracle = world.oracle();
            oracle.note(|| format!("{part:?} of set {set} is freed in the store"));
            oracle.sets[set].zero_store(part);
        }
    }
    let mut oracle = world.oracle();
    let end = oracle.tick();
    // Where the set was closed under it, others may have it open with what they read.
    let end = if errors.is_empty() {
        end
    } else {
        crate::history::OPEN
    };
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
    let before = under_way(world, set);
    let dropping = world.oracle().sets[set].begin_purge(asked.tick, before);
    let answer = handle.purge().await;
    let after = under_way(world, set);
    {
        let mut oracle = world.oracle();
        let end = oracle.tick();
        let is_atomic = world.plan.capabilities.atomic_writes;
        oracle.sets[set].end_purge(dropping, (asked.tick, end), (&after, is_atomic));
    }
    world.note(Some(set), Some(answer), asked).await
}

/// What of a set may yet reach the store without being written again.
pub(crate) fn under_way(world: &World, set: usize) -> Vec<(usize, Vec<u8>)> {
    let given_up = world.outer.given_up();
    let oracle = world.oracle();
    let mut under_way = oracle.under_way(set);
    for write in given_up {
        under_way.extend(oracle.pieces_of(set, &write));
    }
    under_way
}

async fn snapshot(world: &World, set: usize) -> String {
    let asked = world.asked();
    let context = {
        let slots = world.slots.borrow();
        let old = &slots[set].context;
        let id = old.seq + 1;
        let snaps: Vec<u64> = std::iter::once(id)
            .chain(old.snaps.iter().copied())
            .collect();
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
    world.is_flushed.borrow_mut()[set] = true;
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
        world.oracle().renew(set);
        world.reopen(set).await;
    }
    world.note(Some(set), Some(answer), asked).await
}

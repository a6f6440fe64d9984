//! Reads and writes, byte by byte.

use std::future::{Future, poll_fn};
use std::rc::Rc;

use bytes::Bytes;
use cachalot::message::{Read, Write};
use cachalot::{
    CacheError, Hints, JournalTid, ObjectExtent, ReadBuf, ReadRequest, SnapId, WriteRequest,
};

use super::{Asked, GIVEN_UP, extents, is_expected, wait};
use crate::history::Tick;
use crate::pattern::{self, Stamp};
use crate::plan::{Patience, Way};
use crate::space::{Extent, Part, Spread};
use crate::world::{Snap, World};

pub(super) async fn read(
    world: &Rc<World>,
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
    let mut has_waited = false;
    let asking = async {
        match (way, parts, &space.spread) {
            (Way::Message, ..) => match handle.addr() {
                Ok(addr) => wait(patience, addr.send(Read(request)))
                    .await
                    .map(|answer| {
                        answer.unwrap_or_else(|_| {
                            Err(CacheError::Closed {
                                set: handle.id().clone(),
                            })
                        })
                    }),
                Err(error) => Some(Err(error)),
            },
            (Way::Offset, [part], Spread::File(_)) if snap.is_none() => {
                let (offset, len) = space.file_range(*part);
                wait(patience, handle.read_at_with(offset, len, hints)).await
            }
            (Way::Offset, [_], Spread::Objects { .. }) if snap.is_none() && extents.len() == 1 => {
                let ObjectExtent { object, range, .. } = extents[0].extent.clone();
                wait(
                    patience,
                    handle.read_object(object, range.start(), range.len()),
                )
                .await
            }
            _ => wait(patience, handle.read(request)).await,
        }
    };
    // The answer to a message takes one more turn of its caller's thread than that to a call.
    if way != Way::Message {
        let snap = snap.map(|snap| snap.id);
        world.read_begins((asked.tick, asked.at), (set, parts), snap);
    }
    let answer: Option<Result<ReadBuf, CacheError>> = {
        let mut asking = std::pin::pin!(asking);
        poll_fn(|context| {
            let polled = asking.as_mut().poll(context);
            has_waited |= polled.is_pending();
            polled
        })
        .await
    };
    judge_order(world, (asked.tick, has_waited), &answer);
    let bytes = match answer {
        None => return GIVEN_UP.to_owned(),
        Some(Ok(bytes)) => bytes.to_vec(),
        Some(Err(CacheError::NotFound { .. })) if world.plan.sets[set].not_found => {
            vec![0; len as usize]
        }
        Some(Err(error)) if is_expected(world, set, &error) => return "refused".to_owned(),
        Some(Err(error)) => return world.excuse(Some(set), error, &asked).await,
    };
    judge_read(world, (set, parts), (&bytes, len), (asked.tick, snap));
    "read".to_owned()
}

/// Fails the run if earlier reads still wait though this one, which is over, was answered. Those that were answered
/// before one that was served at the door may not have seen their answers yet: they do before a new task begins.
fn judge_order(
    world: &Rc<World>,
    (asked, has_waited): (Tick, bool),
    answer: &Option<Result<ReadBuf, CacheError>>,
) {
    let overtaken = world.read_ends(asked, has_waited);
    // An error comes from a fetch of its own, which an earlier read may have yet to ask for.
    let is_told = matches!(answer, Some(Ok(_) | Err(CacheError::NotFound { .. })));
    if overtaken.is_empty() || !is_told {
        return;
    }
    if has_waited {
        world.check_order(asked, &overtaken);
        return;
    }
    let world = world.clone();
    actix::spawn(async move { world.check_order(asked, &overtaken) });
}

/// Shows the judge what a read gave.
fn judge_read(
    world: &World,
    (set, parts): (usize, &[Part]),
    (bytes, len): (&[u8], u64),
    (asked, snap): (Tick, Option<Snap>),
) {
    let unit = world.plan.sets[set].space.unit as usize;
    if bytes.len() as u64 != len {
        world.fail(format!("a read of {len} bytes gave {}", bytes.len()));
        return;
    }
    let mut oracle = world.oracle();
    let answered = oracle.tick();
    oracle.digest.note(bytes);
    let mut at = 0;
    for part in parts {
        let bytes = &bytes[at..at + part.len as usize * unit];
        at += bytes.len();
        let verdict = match snap {
            Some(snap) => oracle.sets[set].check_snapshot(*part, bytes, (snap.from, snap.to)),
            None => oracle.sets[set].check_read(*part, bytes, (asked, answered)),
        };
        oracle.judge(verdict);
    }
}

pub(super) async fn write(
    world: &World,
    (set, parts): (usize, &[Part]),
    (way, hints, journal): (Way, Hints, bool),
    patience: Patience,
) -> String {
    let (extents, len) = extents(world, set, parts);
    let space = &world.plan.sets[set].space;
    let asked = world.asked();
    let (bytes, stamped) = stamp(world, set, (extents, len), &asked);
    let tid = journal.then(|| {
        world.last_journal_tid.set(world.last_journal_tid.get() + 1);
        let tid = world.last_journal_tid.get();
        world.oracle().journal_write(tid, set, &stamped);
        tid
    });
    let request = WriteRequest {
        extents: stamped
            .iter()
            .map(|(extent, _)| extent.extent.clone())
            .collect(),
        data: Bytes::from(bytes),
        hints,
        journal_tid: tid.and_then(std::num::NonZeroU64::new).map(JournalTid),
        ..WriteRequest::default()
    };
    let handle = world.handle(set);
    let answer = match (way, parts, &space.spread) {
        (Way::Message, ..) => match handle.addr() {
            Ok(addr) => wait(patience, addr.send(Write(request)))
                .await
                .map(|answer| {
                    answer.unwrap_or_else(|_| {
                        Err(CacheError::Closed {
                            set: handle.id().clone(),
                        })
                    })
                }),
            Err(error) => Some(Err(error)),
        },
        (Way::Offset, [part], Spread::File(_)) if tid.is_none() => {
            let (offset, _) = space.file_range(*part);
            wait(patience, handle.write_at_with(offset, request.data, hints)).await
        }
        (Way::Offset, [_], Spread::Objects { .. }) if tid.is_none() && stamped.len() == 1 => {
            let ObjectExtent { object, range, .. } = stamped[0].0.extent.clone();
            wait(
                patience,
                handle.write_object(object, range.start(), request.data),
            )
            .await
        }
        _ => wait(patience, handle.write(request)).await,
    };
    tell(world, (set, &stamped), tid, &answer);
    if world.is_known_fenced(set, &asked) {
        judge_refusal(world, (set, &stamped), &answer);
    }
    world.note(Some(set), answer, asked).await
}

pub(super) async fn prefetch(
    world: &World,
    (set, parts): (usize, &[Part]),
    hints: Hints,
    patience: Patience,
) -> String {
    let (asked, handle) = (world.asked(), world.handle(set));
    let (extents, _) = extents(world, set, parts);
    let request = ReadRequest {
        extents: extents.into_iter().map(|extent| extent.extent).collect(),
        hints,
        ..ReadRequest::default()
    };
    match wait(patience, handle.prefetch(request)).await {
        Some(Err(error)) if is_expected(world, set, &error) => "refused".to_owned(),
        answer => world.note(Some(set), answer, asked).await,
    }
}

/// Makes the bytes of a write, and tells the judge that it is asked for.
fn stamp(
    world: &World,
    set: usize,
    (extents, len): (Vec<Extent>, u64),
    asked: &Asked,
) -> (Vec<u8>, Vec<(Extent, Stamp)>) {
    let unit = world.plan.sets[set].space.unit as usize;
    let mut data = vec![0; len as usize];
    let mut stamped: Vec<(Extent, Stamp)> = Vec::new();
    for extent in extents {
        let stamp = world.oracle().stamp();
        let mut bytes = Vec::new();
        for number in extent.parts.iter().flat_map(|part| part.numbers()) {
            pattern::append(&mut bytes, stamp, number, unit);
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
    (data, stamped)
}

/// What becomes of a write that was asked for when the set was known to be fenced: nothing.
fn judge_refusal(
    world: &World,
    (set, stamped): (usize, &[(Extent, Stamp)]),
    answer: &Option<Result<(), CacheError>>,
) {
    match answer {
        Some(Ok(())) => world.fail("a fenced set took a write"),
        Some(Err(CacheError::Fenced { .. })) => {
            for (extent, stamp) in stamped {
                world.oracle().sets[set].void_write(&extent.parts, *stamp);
            }
        }
        Some(Err(_)) | None => {}
    }
}

/// Tells the judge what became of a write.
fn tell(
    world: &World,
    (set, stamped): (usize, &[(Extent, Stamp)]),
    tid: Option<u64>,
    answer: &Option<Result<(), CacheError>>,
) {
    let is_through = world.plan.sets[set].until_flush && !world.is_flushed.borrow()[set];
    let mut oracle = world.oracle();
    let end = oracle.tick();
    match answer {
        Some(Ok(())) => {
            for (extent, stamp) in stamped {
                oracle.sets[set].end_write(&extent.parts, *stamp, end);
            }
            // Nobody has flushed: what is acknowledged is stored.
            for (extent, stamp) in stamped.iter().filter(|_| is_through) {
                oracle.check_written_through(set, &extent.parts, *stamp);
            }
            if let Some(tid) = tid {
                oracle.journal_acknowledged(tid);
            }
        }
        Some(Err(CacheError::InvalidRequest(_))) => {
            for (extent, stamp) in stamped {
                oracle.sets[set].void_write(&extent.parts, *stamp);
            }
        }
        Some(Err(_)) | None => {}
    }
}

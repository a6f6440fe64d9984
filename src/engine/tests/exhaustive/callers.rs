//! What callers and operators ask of the engine.

use bytes::Bytes;

use super::looks::Deletes;
use super::oracle::{LEN, Part, bit, byte};
use super::world::{World, limits};
use crate::engine::tests::make::tid_of;
use crate::engine::{BufferState, Demand, WaiterId};
use crate::request::{ReadRequest, WriteRequest};
use crate::types::{SnapContext, Timestamp};

/// One thing to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Read(Part),
    Prefetch(Part),
    Write(Part),
    Journaled(Part),
    Flush,
    FlushPart(Part),
    /// Drops a range, and leaves the store as it is.
    Discard(Part),
    /// Drops a range, and then takes it out of the store.
    Delete(Part),
    /// Drops what lies behind, and then cuts the store's object there.
    Truncate(usize),
    Purge,
    Release,
    ClearNonexistence,
    /// The caller of the first read that waits, or else of the first write that has not entered, is gone.
    Forsake,
    Trim,
    /// Write-through begins, or ends.
    Through,
    Snapshot,
    DoorWrite(Part),
    DoorRead(Part),
    CloseIdle,
}

impl World {
    pub(super) fn ask(&mut self, op: Op) {
        match op {
            Op::Read(part) => {
                let waiter = self.next_waiter();
                self.read(part, waiter, true);
            }
            Op::Prefetch(part) => {
                let waiter = self.next_waiter();
                self.read(part, waiter, false);
            }
            Op::Write(part) => self.write(part, false),
            Op::Journaled(part) => self.write(part, true),
            Op::Flush => self.flush(None),
            Op::FlushPart(part) => self.flush(Some(part)),
            Op::Discard(part) => self.drop_bytes(part, Deletes::Nothing),
            Op::Delete(part) => self.drop_bytes(part, Deletes::Range),
            Op::Truncate(size) => self.drop_bytes((size, LEN), Deletes::Tail),
            Op::Purge => self.purge(),
            Op::Release => {
                self.step(|engine, _| engine.release());
            }
            Op::ClearNonexistence => self.step(|engine, _| engine.clear_nonexistence()),
            Op::Forsake => self.forsake(),
            Op::Trim => {
                self.step(|engine, now| engine.trim(now, u64::MAX));
            }
            Op::Through => {
                let through = !self.engine.limits.write_through;
                // Writes under way may count as either.
                self.oracle.through = 0;
                let limits = limits(&self.setup, through);
                self.step(|engine, now| engine.set_limits(now, limits));
            }
            Op::Snapshot => {
                let seq = self.engine.options().context.seq + 1;
                let context = SnapContext::new(seq, [seq]).unwrap();
                self.step(|engine, _| engine.set_context(context));
            }
            Op::DoorWrite(part) => self.door_write(part),
            Op::DoorRead(part) => self.door_read(part),
            Op::CloseIdle => {
                self.step(|engine, _| engine.close_idle(1));
            }
        }
    }

    pub(super) fn read(&mut self, part: Part, waiter: WaiterId, deliver: bool) {
        self.oracle.ask_read(waiter, part, deliver);
        let request = ReadRequest {
            extents: vec![self.extent(part)],
            ..ReadRequest::default()
        };
        let shape = &self.engine.options().shape;
        let request = shape.checked_read(request).expect("a sound read");
        self.step(|engine, now| engine.read(now, waiter, request, deliver));
    }

    fn bytes(&self, tag: usize, part: Part) -> Vec<u8> {
        (part.0..part.1).map(|at| byte(tag, at)).collect()
    }

    fn write(&mut self, part: Part, is_journaled: bool) {
        let waiter = self.next_waiter();
        let context = self.engine.options().context.seq;
        let tag = self.oracle.ask_write(Some(waiter), part, context);
        if is_journaled {
            self.oracle.note_journaled(tag);
        }
        if self.engine.limits.write_through {
            self.oracle.through |= bit(tag);
        }
        let request = WriteRequest {
            extents: vec![self.extent(part)],
            data: Bytes::from(self.bytes(tag, part)),
            journal_tid: is_journaled.then(|| tid_of(tag as u64)),
            ..WriteRequest::default()
        };
        let shape = &self.engine.options().shape;
        let request = shape.checked_write(request).expect("a sound write");
        let modified = Timestamp(tag as u64);
        self.step(|engine, now| engine.write(now, waiter, request, modified));
    }

    fn flush(&mut self, part: Option<Part>) {
        let waiter = self.next_waiter();
        let was_clean = self.shelf.used().dirty == 0;
        self.oracle
            .ask_flush(waiter, part.unwrap_or((0, LEN)), was_clean);
        let extents = part.map(|part| [self.extent(part)]);
        self.step(|engine, now| {
            engine.flush(now, waiter, extents.as_ref().map(|extents| &extents[..]));
        });
    }

    fn drop_bytes(&mut self, part: Part, deletes: Deletes) {
        self.discard(part, deletes);
        self.step(|_, _| ());
    }

    fn purge(&mut self) {
        let dirty = self.shelf.totals().bytes_in(BufferState::Dirty);
        self.oracle.drop_part((0, LEN));
        let lost = self.step(|engine, now| engine.purge(now));
        assert!(
            lost >= dirty.cast_unsigned(),
            "a purge tells less than it lost"
        );
        assert!(
            self.oracle.flushes.is_empty(),
            "a flush waits for what a purge dropped"
        );
    }

    fn forsake(&mut self) {
        let write = self.engine.writes.keys().next().copied();
        if let Some(reader) = self.oracle.first_read() {
            self.oracle.give_up_read(reader);
            self.forget_waiter(reader);
            self.step(|engine, _| engine.cancel_waiter(reader));
        } else if let Some(writer) = write {
            self.oracle.give_up_write(writer);
            self.forget_waiter(writer);
            self.step(|engine, _| engine.cancel_waiter(writer));
        }
    }

    /// A write at the door, of which the engine learns later.
    fn door_write(&mut self, part: Part) {
        if self.engine.limits.write_through {
            return;
        }
        let context = self.engine.options().context.seq;
        let bytes = self.bytes(self.oracle.next_tag(), part);
        let offset = self.range_of(part).start();
        if self
            .shelf
            .door_write(self.now, context, (0, offset, &bytes))
        {
            let tag = self.oracle.ask_write(None, part, context);
            self.oracle.enter(tag);
            self.was_unstored = true;
            self.note();
        }
    }

    fn door_read(&mut self, part: Part) {
        let range = self.range_of(part);
        if let Some(found) = self.shelf.door_read(0, range.start(), range.len()) {
            let view = self.view();
            self.oracle.check_order(part, WaiterId(u64::MAX));
            self.oracle.check_now(part, &found, view);
        }
    }

    /// The flusher asks for all that is dirty.
    pub(super) fn demand(&mut self) {
        let before = self.writes.len();
        let demand = Demand {
            bytes: u64::MAX,
            since: self.now,
        };
        self.step(|engine, now| engine.write_back(now, demand));
        let is_held_up = before > 0 || !self.engine.pausing.is_empty();
        let dirty = self.shelf.totals().bytes_in(BufferState::Dirty);
        assert!(
            is_held_up || dirty == 0 || !self.writes.is_empty(),
            "dirty bytes are not sent though nothing holds them up"
        );
    }
}

//! What callers do at the door: without the engine, under the windows' locks.

use super::rig::*;
use super::shelf::{Slot, TestShelf};
use crate::buf::ReadBuf;
use crate::engine::extent::Written;
use crate::engine::write::put_charge;
use crate::engine::{Access, Charge, Put, Shelf, Source, WindowKey, slices};
use crate::types::{Moment, Place, Timestamp};

impl TestShelf {
    /// Writes as a caller does at the door: with room, under the windows' locks, without the engine. Says whether it
    /// could.
    pub(super) fn door_write(
        &self,
        now: Moment,
        context: u64,
        (object, offset, bytes): (u64, u64, &[u8]),
    ) -> bool {
        let range = range(offset, bytes.len() as u64);
        let place = Place {
            offset: 0,
            len: range.len(),
        };
        let slices = slices(range, &[place]);
        let key = |index: u64| WindowKey {
            object: head(object),
            index,
        };
        for (index, span, _) in &slices {
            if let Some(slot) = self.find(&key(*index)) {
                let window = Self::lock(&slot);
                if window.closed || window.is_journaled() || !window.may_absorb(*span, context) {
                    return false;
                }
            }
        }
        let mut charge = Charge::default();
        for (_, span, _) in &slices {
            charge += put_charge(u64::from(span.len()));
        }
        if !self.take_room(charge) {
            return false;
        }
        for (index, span, from) in &slices {
            let slot: Slot = self.open(&key(*index));
            let mut window = Self::lock(&slot);
            let from = usize::try_from(*from).unwrap();
            let written = Written {
                since: now,
                modified: Timestamp(now.as_nanos() + 1_000_000),
                epoch: self.epoch(),
                context,
                journal: None,
            };
            let put = Put {
                span: *span,
                source: Source::Lent(&bytes[from..from + span.len() as usize]),
                written,
                access: Access::Plain,
            };
            let outcome = window.put(put).expect("it may enter");
            assert!(outcome.displaced.journal.is_empty());
            if !std::mem::replace(&mut window.listed, true) {
                self.list(key(*index));
            }
            let change = window.settle();
            self.add_totals(&change.totals);
            charge -= change.charge;
        }
        self.give_room(charge);
        true
    }

    /// Reads as a caller does at the door: only what is in memory, and nothing that earlier readers wait for.
    pub(super) fn door_read(&self, object: u64, offset: u64, len: u64) -> Option<Vec<u8>> {
        let mut out = ReadBuf::default();
        for (index, span) in crate::engine::spans(range(offset, len)) {
            let object = head(object);
            let slot = self.find(&WindowKey { object, index })?;
            if !Self::lock(&slot).serve(span, Access::Plain, &mut out) {
                return None;
            }
        }
        Some(out.to_vec())
    }
}

impl Rig {
    pub(super) fn door_write(&mut self, object: u64, offset: u64, bytes: &[u8]) -> bool {
        let context = self.engine.options().context.seq;
        let has_entered = self
            .shelf
            .door_write(self.now, context, (object, offset, bytes));
        self.was_unstored |= has_entered;
        has_entered
    }

    pub(super) fn door_read(&mut self, object: u64, offset: u64, len: u64) -> Option<Vec<u8>> {
        self.engine.answered();
        self.shelf.door_read(object, offset, len)
    }

    /// As a reader at the door who does not need the bytes again.
    pub(super) fn door_read_unneeded(&mut self, object: u64, offset: u64, len: u64) {
        let mut out = ReadBuf::default();
        for (index, span) in crate::engine::spans(range(offset, len)) {
            let object = head(object);
            let key = WindowKey { object, index };
            let slot = self.shelf.find(&key).expect("it is in memory");
            assert!(TestShelf::lock(&slot).collect(span, Access::DontNeed, &mut out));
            self.shelf.note_cooled(key);
        }
    }
}

//! What callers do at the door: without the engine, under the windows' locks.

use super::rig::*;
use super::shelf::{Slot, TestShelf};
use crate::buf::ReadBuf;
use crate::engine::extent::Written;
use crate::engine::write::put_charge;
use crate::engine::{Access, Charge, Put, Shelf, WindowKey, slices};
use crate::types::{Place, Timestamp};

impl Rig {
    /// Writes as a caller does at the door: with room, under the windows' locks, without the engine.
    pub(super) fn door_write(&mut self, object: u64, offset: u64, bytes: &[u8]) -> bool {
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
        let context = self.engine.options().context.seq;
        for (index, span, _) in &slices {
            if let Some(slot) = self.shelf.find(&key(*index)) {
                let window = TestShelf::lock(&slot);
                if window.closed || window.is_journaled() || !window.may_put(*span, context) {
                    return false;
                }
            }
        }
        let mut charge = Charge::default();
        for (_, span, _) in &slices {
            charge += put_charge(u64::from(span.len()));
        }
        if !self.shelf.take_room(charge) {
            return false;
        }
        for (index, span, from) in &slices {
            let slot: Slot = self.shelf.open(&key(*index));
            let mut window = TestShelf::lock(&slot);
            let from = usize::try_from(*from).unwrap();
            let written = Written {
                since: self.now,
                modified: Timestamp(self.now.as_nanos() + 1_000_000),
                epoch: self.shelf.epoch(),
                context,
                journal: None,
            };
            let put = Put {
                span: *span,
                bytes: &bytes[from..from + span.len() as usize],
                written,
                access: Access::Plain,
            };
            let outcome = window.put(put).expect("it may enter");
            assert!(outcome.displaced.journal.is_empty());
            if !std::mem::replace(&mut window.listed, true) {
                self.shelf.list(key(*index));
            }
            let change = window.settle();
            self.shelf.add_totals(&change.totals);
            charge -= change.charge;
        }
        self.shelf.give_room(charge);
        self.was_unstored = true;
        true
    }

    /// Reads as a caller does at the door: only what is in memory.
    pub(super) fn door_read(&mut self, object: u64, offset: u64, len: u64) -> Option<Vec<u8>> {
        let mut out = ReadBuf::default();
        for (index, span) in crate::engine::spans(range(offset, len)) {
            let object = head(object);
            let slot = self.shelf.find(&WindowKey { object, index })?;
            let is_read = TestShelf::lock(&slot).collect(span, Access::Plain, &mut out);
            if !is_read {
                return None;
            }
        }
        Some(out.to_vec())
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

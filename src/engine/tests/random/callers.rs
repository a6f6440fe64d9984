//! What callers do in a random run.

use bytes::Bytes;

use super::{Drop, OBJECTS, Parts, Run, SIZE, Waiting, extents, overlap};
use crate::engine::WaiterId;
use crate::engine::tests::rig::{name, tid_of};
use crate::request::{Missing, ReadRequest, WriteRequest};
use crate::types::{ObjectKey, SnapId, Truncation};

impl Run {
    pub(super) fn read(&mut self, deliver: bool) {
        let parts = if self.options.missing == Missing::Zeros {
            self.dice.parts()
        } else {
            vec![self.dice.part()]
        };
        let look = self.model.look(&parts);
        let request = ReadRequest {
            extents: extents(&parts),
            snap: SnapId::HEAD,
            hints: self.dice.hints(),
        };
        let waiter = self.rig.read_request(request, deliver);
        self.waiting.insert(
            waiter,
            Waiting::Read {
                look,
                parts,
                deliver,
            },
        );
    }

    pub(super) fn door_read(&mut self) {
        let (object, range) = self.dice.part();
        let look = self.model.look(&[(object, range)]);
        let bytes = self
            .rig
            .door_read(object as u64, range.0, range.1 - range.0);
        if let Some(bytes) = bytes {
            self.model
                .check(&look, |_, _, at| bytes[(at - range.0) as usize]);
        }
    }

    pub(super) fn write(&mut self, is_journaled: bool) {
        let parts = self.dice.parts();
        if self.is_dropping(&parts) {
            return;
        }
        let context = self.rig.engine.options().context.seq;
        let mut looks = Self::looks(&mut self.waiting);
        let tag = self.model.ask(&parts, context, &mut looks);
        let mut data = Vec::new();
        for (object, range) in &parts {
            data.extend(self.model.bytes(tag, *object, *range));
        }
        let tid = tag.0 as u64;
        if is_journaled {
            self.journal.insert(tid, parts.clone());
        }
        let request = WriteRequest {
            extents: extents(&parts),
            data: Bytes::from(data),
            hints: self.dice.hints(),
            journal_tid: is_journaled.then(|| tid_of(tid)),
            ..WriteRequest::default()
        };
        let waiter = self.rig.write_request(request);
        let write = Waiting::Write {
            tag,
            parts,
            is_purged: false,
        };
        self.waiting.insert(waiter, write);
    }

    pub(super) fn door_write(&mut self) {
        let (object, range) = self.dice.part();
        let parts = vec![(object, range)];
        if self.is_dropping(&parts) || self.rig.engine.is_write_through() {
            return;
        }
        let context = self.rig.engine.options().context.seq;
        let bytes = self.model.bytes(self.model.next_tag(), object, range);
        if self.rig.door_write(object as u64, range.0, &bytes) {
            let mut looks = Self::looks(&mut self.waiting);
            let tag = self.model.ask(&parts, context, &mut looks);
            self.model.enter(&parts, tag);
        }
    }

    pub(super) fn flush(&mut self, is_whole: bool) {
        let everything = Self::everything();
        let look = self.model.look(&everything);
        let waiter = if is_whole {
            self.rig.flush()
        } else {
            let (object, range) = self.dice.part();
            self.rig
                .flush_range(object as u64, range.0, range.1 - range.0)
        };
        self.waiting
            .insert(waiter, Waiting::Flush { look, is_whole });
    }

    pub(super) fn drop_bytes(&mut self) {
        let truncates = self.dice.one_in(3);
        let mut parts = self.dice.parts();
        if truncates {
            parts.truncate(1);
            parts[0].1.1 = SIZE;
        }
        let is_met = self.waiting.values().any(|waiting| match waiting {
            Waiting::Write { parts: other, .. } => overlap(other, &parts),
            Waiting::Read { .. } | Waiting::Flush { .. } | Waiting::Drop => false,
        });
        if is_met || self.dropping.is_some() {
            return;
        }
        self.model.lose(&parts, &mut Self::looks(&mut self.waiting));
        let waiter = self.rig.next_waiter();
        self.waiting.insert(waiter, Waiting::Drop);
        let truncates_to = truncates.then(|| parts[0].1.0);
        if let Some(size) = truncates_to {
            let key = ObjectKey::Number(parts[0].0 as u64);
            self.rig
                .step(|engine, now| engine.truncate(now, waiter, (&key, size)));
        } else {
            let extents = extents(&parts);
            self.rig
                .step(|engine, now| engine.discard(now, waiter, &extents));
        }
        self.dropping = Some(Drop {
            waiter,
            parts,
            truncates_to,
            is_second: false,
        });
    }

    pub(super) fn truncate_file(&mut self) {
        let is_open = |waiter: &WaiterId| !self.rig.is_answered(*waiter);
        if self.dropping.is_some() || self.truncating.as_ref().is_some_and(is_open) {
            return;
        }
        for object in 0..OBJECTS {
            let truncation = self.truncation_of(object);
            self.rig.store.cut(&name(object as u64), truncation);
        }
        self.truncation = Truncation {
            seq: self.truncation.seq + 1,
            size_bytes: self.dice.below(3 * SIZE),
        };
        let layout = self.options.layout.unwrap();
        let parts: Parts = (0..OBJECTS)
            .map(|object| {
                let size = layout.object_size_for(self.truncation.size_bytes, object as u64);
                (object, (size.min(SIZE), SIZE))
            })
            .filter(|(_, (start, end))| start < end)
            .collect();
        self.model.zero(&parts, &mut Self::looks(&mut self.waiting));
        let waiter = self.rig.next_waiter();
        self.waiting.insert(waiter, Waiting::Drop);
        self.truncating = Some(waiter);
        let truncation = self.truncation;
        self.rig
            .step(|engine, now| engine.truncate_file(now, waiter, truncation))
            .unwrap();
    }

    pub(super) fn purge(&mut self) {
        if self.dropping.is_some() {
            return;
        }
        let everything = Self::everything();
        self.model
            .lose(&everything, &mut Self::looks(&mut self.waiting));
        for waiting in self.waiting.values_mut() {
            if let Waiting::Write { is_purged, .. } = waiting {
                *is_purged = true;
            }
        }
        self.rig.purge();
    }
}

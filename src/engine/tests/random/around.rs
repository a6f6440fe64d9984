//! What the store, the clock and the operator do in a random run.

use std::time::Duration;

use bytes::Bytes;

use super::{OBJECTS, Run, Waiting};
use crate::engine::Demand;
use crate::engine::WaiterId;
use crate::engine::extent::OpId;
use crate::engine::tests::rig::name;
use crate::error::BackendError;
use crate::io::BackendWrite;
use crate::types::SnapContext;

impl Run {
    pub(super) fn fetch_advances(&mut self) {
        let ops: Vec<OpId> = self.rig.fetches.keys().copied().collect();
        let Some(op) = self.dice.pick(&ops) else {
            return;
        };
        if !self.fetched.contains_key(&op) {
            let result = if self.faults && self.dice.one_in(12) {
                Err(BackendError::Unavailable)
            } else {
                self.rig.store.read(&self.rig.fetches[&op])
            };
            self.fetched.insert(op, result);
        }
        if !self.faults || !self.dice.one_in(4) {
            let result = self.fetched.remove(&op).unwrap();
            self.rig.end_fetch_with(op, result);
            self.ended.push(op);
        }
    }

    pub(super) fn write_advances(&mut self) {
        let ops: Vec<OpId> = self.rig.write_backs.keys().copied().collect();
        let Some(op) = self.dice.pick(&ops) else {
            return;
        };
        let write = self.rig.write_backs[&op].clone();
        self.check_contexts(&write);
        let fails = self.faults && self.dice.one_in(8);
        if fails {
            let stored = self.dice.below(write.runs.len() as u64 + 1) as usize;
            self.rig.store.write_runs(&write, stored);
            self.rig.fail_write(op, BackendError::Unavailable);
        } else {
            self.rig.end_write(op);
        }
        self.ended.push(op);
    }

    /// Rule W-09: no byte is written under another context than that of its write.
    pub(super) fn check_contexts(&self, write: &BackendWrite) {
        let object = (0..OBJECTS)
            .find(|number| name(*number as u64) == write.object)
            .unwrap();
        for run in &write.runs {
            let bytes = run.buffers.concat();
            for at in (0..bytes.len()).step_by(173).chain([bytes.len() - 1]) {
                let position = (run.offset + at as u64, bytes[at]);
                assert!(
                    self.model.may_go_under(write.context.seq, object, position),
                    "byte {position:?} of object {object} goes under context {}",
                    write.context.seq
                );
            }
        }
    }

    /// Ends that come too late or twice.
    pub(super) fn stray_end(&mut self) {
        let Some(op) = self.dice.pick(&self.ended) else {
            return;
        };
        let stray = Bytes::from_static(b"stray");
        self.rig
            .step(|engine, now| engine.handle_fetch(now, op, Ok(stray)));
        self.rig
            .step(|engine, now| engine.handle_fetch(now, op, Err(BackendError::NotFound)));
        let result = if self.dice.one_in(2) {
            Ok(())
        } else {
            Err(BackendError::TimedOut)
        };
        self.rig
            .step(|engine, now| engine.handle_write_back(now, op, result));
    }

    pub(super) fn advance(&mut self) {
        let by = self.dice.of(&[1, 50, 200, 1500]);
        let by = if self.dice.one_in(10) && self.faults {
            61_000
        } else {
            by
        };
        self.rig.advance(Duration::from_millis(by));
        for (op, write) in std::mem::take(&mut self.rig.given_up) {
            self.fetched.remove(&op);
            self.ended.push(op);
            if let Some(write) = write
                && self.dice.one_in(2)
            {
                self.rig.store.write(&write);
            }
        }
    }

    pub(super) fn cancel(&mut self) {
        let callers: Vec<WaiterId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Read { .. } | Waiting::Write { .. }))
            .map(|(waiter, _)| *waiter)
            .collect();
        let Some(waiter) = self.dice.pick(&callers) else {
            return;
        };
        if let Some(Waiting::Write { tag, .. }) = self.waiting.get(&waiter) {
            if self.options.limits.write_through || self.options.until_flush {
                // It may have entered, and waits only for the store.
                return;
            }
            if self.rig.engine.options().context.seq > 0 {
                return;
            }
            self.journal.remove(&(tag.0 as u64));
        }
        self.waiting.remove(&waiter);
        self.rig.cancel(waiter);
    }

    pub(super) fn demand(&mut self) {
        let demand = Demand {
            bytes: self.dice.of(&[u64::MAX, 1, 10_000, 100_000]),
            since: self
                .rig
                .now
                .before(Duration::from_millis(self.dice.below(300))),
        };
        self.rig.step(|engine, now| engine.write_back(now, demand));
    }

    pub(super) fn change_context(&mut self) {
        let seq = self.rig.engine.options().context.seq + 1;
        let context = SnapContext::new(seq, [seq]).unwrap();
        self.model.begin_context();
        self.rig.step(|engine, _| engine.set_context(context));
    }

    pub(super) fn change_limits(&mut self) {
        let mut limits = self.options.limits;
        limits.writebacks_in_flight = self.dice.of(&[1, 3, 32]);
        self.rig.step(|engine, now| engine.set_limits(now, limits));
    }

    pub(super) fn serve_room(&mut self) {
        if let Some((waiter, charge)) = self.rig.shelf.serve_first() {
            self.rig
                .step(|engine, now| engine.handle_room(now, waiter, charge));
        }
    }
}

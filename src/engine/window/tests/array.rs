//! One window against a plain array of bytes with their states.

use bytes::Bytes;

use super::super::*;
use super::{Everything, put, span, written};
use crate::engine::extent::{OpId, Written};
use crate::engine::write::put_charge;
use crate::error::BackendError;
use crate::fuzz::Choices;

/// What one byte is in the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Byte {
    Gap,
    Clean(u8),
    Zero,
    Dirty(u8, Option<u64>),
    Rx(u64),
    Tx(u64, u8, Option<u64>),
    Error,
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, u32, Option<u64>),
    Fetch(u32, u32),
    Fill(usize, u32),
    Fail(usize),
    Cancel(usize),
    Send(Option<u32>),
    End(usize, bool),
    Drop(u32, u32),
    Release,
    Zeros(u32, u32),
    Evict,
}

/// So much of the window is used.
const LEN: u32 = 12_000;

/// The next step that the choices give.
fn chosen_step(choices: &mut Choices) -> Step {
    let at = |choices: &mut Choices| match choices.below(6) {
        0..=2 => choices.below(u64::from(LEN)),
        3 => choices.below(u64::from(LEN / 4096 + 1)) * 4096,
        _ => 5000 + choices.below(40),
    } as u32;
    let len = |choices: &mut Choices| match choices.below(7) {
        0..=3 => 1 + choices.below(40),
        4..=5 => 1 + choices.below(600),
        _ => 1 + choices.below(u64::from(LEN)),
    } as u32;
    let nth = |choices: &mut Choices| choices.below(8) as usize;
    match choices.below(27) {
        0..=7 => {
            let journal = choices.below(4);
            Step::Put(
                at(choices),
                len(choices),
                (journal > 1).then(|| journal - 1),
            )
        }
        8..=10 => Step::Fetch(at(choices), len(choices)),
        11..=13 => Step::Fill(nth(choices), choices.below(u64::from(LEN)) as u32),
        14 => Step::Fail(nth(choices)),
        15 => Step::Cancel(nth(choices)),
        16..=18 => {
            let len = choices.below(3000) as u32;
            Step::Send((len > 0).then_some(len))
        }
        19..=21 => Step::End(nth(choices), choices.one_in(2)),
        22..=23 => Step::Drop(at(choices), len(choices)),
        24 => Step::Release,
        25 => Step::Zeros(at(choices), len(choices)),
        _ => Step::Evict,
    }
}

struct Model {
    window: Window,
    bytes: Vec<Byte>,
    fetches: Vec<(u64, Span)>,
    writes: Vec<(u64, Vec<Span>)>,
    next: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            window: Window::default(),
            bytes: vec![Byte::Gap; LEN as usize],
            fetches: Vec::new(),
            writes: Vec::new(),
            next: 1,
        }
    }

    fn cut(&mut self, at: Span) -> &mut [Byte] {
        &mut self.bytes[at.start as usize..at.end as usize]
    }

    fn put(&mut self, at: Span, journal: Option<u64>) {
        let value = self.next as u8 | 1;
        let charged = self.window.charge();
        let outcome = put(&mut self.window, at, value, written(self.next, journal));
        let mut change = self.window.charge();
        change -= charged;
        let most = put_charge(u64::from(at.len()));
        assert!(change.room <= most.room && change.dirty <= most.dirty);
        assert!(change.dirty_buffers <= most.dirty_buffers, "{change:?}");
        let lost: u64 = outcome
            .displaced
            .journal
            .iter()
            .map(|(at, _)| u64::from(at.len()))
            .sum();
        let mut expected = 0;
        for byte in self.cut(at) {
            if let Byte::Dirty(_, tid) | Byte::Tx(_, _, tid) = byte {
                expected += u64::from(tid.is_some() && *tid != journal);
            }
            *byte = Byte::Dirty(value, journal);
        }
        assert_eq!(lost, expected, "journaled bytes that were displaced");
    }

    fn fetch_bytes(op: u64, len: u32) -> Vec<u8> {
        (0..len)
            .map(|at| (op + u64::from(at) / 3) as u8 | 1)
            .collect()
    }

    fn fill(&mut self, nth: usize, arrived: u32) {
        let (op, at) = self.fetches.swap_remove(nth);
        let bytes = Self::fetch_bytes(op, arrived.min(at.len()));
        let fill = Fill {
            stamp: op as u32,
            access: Access::Plain,
            is_vouched_for: false,
        };
        self.window
            .fill(at, OpId(op), Bytes::from(bytes.clone()), fill);
        self.window.join_clean(at);
        for (nth, byte) in self.cut(at).iter_mut().enumerate() {
            if *byte == Byte::Rx(op) {
                *byte = bytes
                    .get(nth)
                    .map_or(Byte::Zero, |value| Byte::Clean(*value));
            }
        }
    }

    fn send(&mut self, len_max: Option<u32>) {
        let mut sink = Everything {
            op: OpId(self.next),
            blocked: self
                .writes
                .iter()
                .flat_map(|(_, parts)| parts.iter().copied())
                .collect(),
            len_max,
            ..Everything::default()
        };
        self.window.send(Span::ALL, &mut sink);
        let mut parts = Vec::new();
        let op = self.next;
        for (at, sent) in sink.taken {
            for (byte, sent) in self.cut(at).iter_mut().zip(&sent) {
                let Byte::Dirty(value, tid) = *byte else {
                    panic!("{byte:?} is sent");
                };
                assert_eq!(value, *sent);
                *byte = Byte::Tx(op, value, tid);
            }
            parts.push(at);
        }
        if !parts.is_empty() {
            self.writes.push((op, parts));
        }
    }

    fn end(&mut self, nth: usize, is_stored: bool) {
        let (op, parts) = self.writes.swap_remove(nth);
        let end = if is_stored {
            WriteEnd::Stored { stamp: op as u32 }
        } else {
            WriteEnd::Failed
        };
        self.window.end_write_back(&parts, OpId(op), end);
        for byte in &mut self.bytes {
            if let Byte::Tx(under, value, tid) = *byte
                && under == op
            {
                *byte = if is_stored {
                    Byte::Clean(value)
                } else {
                    Byte::Dirty(value, tid)
                };
            }
        }
    }

    fn drop_droppable(&mut self) {
        for byte in &mut self.bytes {
            if matches!(byte, Byte::Clean(_) | Byte::Zero | Byte::Error) {
                *byte = Byte::Gap;
            }
        }
    }

    fn fill_gaps(&mut self, at: Span, with: Byte) {
        for byte in self.cut(at) {
            if matches!(byte, Byte::Gap | Byte::Error) {
                *byte = with;
            }
        }
    }

    fn step(&mut self, step: Step) {
        self.next += 1;
        let clip = |at: u32, len: u32| span(at.min(LEN - 1), (at.min(LEN - 1) + len).min(LEN));
        match step {
            Step::Put(at, len, journal) => self.put(clip(at, len), journal),
            Step::Fetch(at, len) => {
                let (op, at) = (self.next, clip(at, len));
                self.window.begin_fetch(at, OpId(op));
                self.fill_gaps(at, Byte::Rx(op));
                self.fetches.push((op, at));
            }
            Step::Fill(nth, len) if !self.fetches.is_empty() => {
                self.fill(nth % self.fetches.len(), len);
            }
            Step::Fail(nth) if !self.fetches.is_empty() => {
                let (op, at) = self.fetches.swap_remove(nth % self.fetches.len());
                self.window
                    .fail_fetch(at, OpId(op), &BackendError::Unavailable, 1);
                self.replace_rx(op, Byte::Error);
            }
            Step::Cancel(nth) if !self.fetches.is_empty() => {
                let (op, at) = self.fetches.swap_remove(nth % self.fetches.len());
                self.window.cancel_fetch(at, OpId(op));
                self.replace_rx(op, Byte::Gap);
            }
            Step::Send(len_max) => self.send(len_max),
            Step::End(nth, stored) if !self.writes.is_empty() => {
                self.end(nth % self.writes.len(), stored);
            }
            Step::Drop(at, len) => {
                let at = clip(at, len);
                self.window.remove(at, What::All);
                self.cut(at).fill(Byte::Gap);
            }
            Step::Release => {
                self.window.remove(Span::ALL, What::Droppable);
                self.drop_droppable();
            }
            Step::Zeros(at, len) => {
                let at = clip(at, len);
                self.window.put_zeros(at, self.next as u32);
                self.fill_gaps(at, Byte::Zero);
            }
            Step::Evict => {
                let stamps: Vec<u32> = self.window.iter().map(|(_, extent)| extent.stamp).collect();
                for stamp in stamps {
                    self.window.evict(stamp, u32::MAX, |_| ());
                }
                self.window.evict(u32::MAX, u32::MAX, |_| ());
                self.drop_droppable();
            }
            Step::Fill(..) | Step::Fail(_) | Step::Cancel(_) | Step::End(..) => {}
        }
        self.check();
    }

    fn replace_rx(&mut self, op: u64, with: Byte) {
        for byte in &mut self.bytes {
            if *byte == Byte::Rx(op) {
                *byte = with;
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.window.audit(), Ok(()));
        let mut seen = vec![Byte::Gap; LEN as usize];
        for (at, extent) in self.window.iter() {
            let bytes = extent
                .slab
                .as_ref()
                .and_then(|slab| slab.slice(extent.at, extent.len));
            for (nth, position) in (at.start..at.end).enumerate() {
                let value = bytes.map_or(0, |bytes| bytes[nth]);
                let journal = |written: &Written| written.journal.map(|tid| tid.0.get());
                seen[position as usize] = match extent.state {
                    ExtentState::Clean => Byte::Clean(value),
                    ExtentState::Zero => Byte::Zero,
                    ExtentState::Dirty(written) => Byte::Dirty(value, journal(written)),
                    ExtentState::Rx { op } => Byte::Rx(op.0),
                    ExtentState::Tx { op, written } => Byte::Tx(op.0, value, journal(written)),
                    ExtentState::Error(_) => Byte::Error,
                };
            }
        }
        let differs = (0..seen.len()).find(|at| seen[*at] != self.bytes[*at]);
        if let Some(at) = differs {
            panic!("byte {at} is {:?}, not {:?}", seen[at], self.bytes[at]);
        }
        let is_journaled = self
            .bytes
            .iter()
            .any(|byte| matches!(byte, Byte::Dirty(_, Some(_)) | Byte::Tx(_, _, Some(_))));
        assert_eq!(self.window.is_journaled(), is_journaled);
        // A buffer of which less than a quarter is in use is given up, unless a writeback holds it.
        for (slab, live) in self.window.usage() {
            let is_same = |other: &Slab| std::ptr::eq(other, slab);
            let is_held = self.window.overtaken.iter().any(|part| is_same(&part.slab))
                || self.window.iter().any(|(_, extent)| {
                    extent.slab.as_deref().is_some_and(is_same)
                        && extent.state.kind() == BufferState::Tx
                });
            let len = slab.bytes().len();
            assert!(is_held || !slab.is_sparse(), "{live} of {len} in use");
        }
    }

    /// Everything under way ends, and everything is dropped.
    fn finish(mut self) {
        while !self.fetches.is_empty() {
            self.fill(0, LEN);
        }
        while !self.writes.is_empty() {
            self.end(0, true);
        }
        self.check();
        self.window.remove(Span::ALL, What::All);
        assert_eq!(self.window.slabs.allocated_bytes(), 0);
        assert_eq!(self.window.charge().dirty, 0);
    }
}

/// Steps as the bytes say, then the end that every window comes to.
pub(crate) fn fuzz(input: &[u8]) {
    let (mut choices, mut model) = (Choices::new(input), Model::new());
    while !choices.is_over() {
        model.step(chosen_step(&mut choices));
    }
    model.finish();
}

#[cfg(test)]
mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_step() -> impl Strategy<Value = Step> {
        let at = prop_oneof![
            3 => 0..LEN,
            1 => (0..LEN / 4096 + 1).prop_map(|nth| nth * 4096),
            2 => 5000..5040u32,
        ];
        let len = prop_oneof![4 => 1..40u32, 2 => 1..600u32, 1 => 1..LEN];
        let journal = prop_oneof![3 => Just(None), 1 => (1..3u64).prop_map(Some)];
        prop_oneof![
            8 => (at.clone(), len.clone(), journal).prop_map(|(at, len, tid)| Step::Put(at, len, tid)),
            3 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Fetch(at, len)),
            3 => (any::<usize>(), 0..LEN).prop_map(|(nth, len)| Step::Fill(nth, len)),
            1 => any::<usize>().prop_map(Step::Fail),
            1 => any::<usize>().prop_map(Step::Cancel),
            3 => proptest::option::of(1..3000u32).prop_map(Step::Send),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(nth, stored)| Step::End(nth, stored)),
            2 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Drop(at, len)),
            1 => Just(Step::Release),
            1 => (at, len).prop_map(|(at, len)| Step::Zeros(at, len)),
            1 => Just(Step::Evict),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        /// B-02, B-03, B-04, W-02, W-03, R-05, R-06, F-03, S-05, H-02, H-05, J-02
        #[test]
        fn a_window_agrees_with_a_plain_array(steps in proptest::collection::vec(any_step(), 1..80)) {
            let mut model = Model::new();
            for step in steps {
                model.step(step);
            }
            model.finish();
        }
    }
}

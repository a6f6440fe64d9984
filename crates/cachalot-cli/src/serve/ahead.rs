//! What is fetched beside what clients ask for: the rest of the store's blocks, and what comes after in a sequence.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cachalot::ObjectSet;
use futures::future::try_join_all;
use tokio::task::JoinSet;

/// How many sequences of reads are told apart.
const STREAMS: usize = 8;
/// How far ahead of a new sequence is fetched. Each step is twice as far as the one before.
const FIRST_WINDOW: u64 = 128 << 10;
/// How much is asked for at once: who waits for its front does not wait for more than that.
const PART_BYTES: u64 = 256 << 10;
/// How many fetches ahead of clients are under way at once; one more has to wait for a later read.
const FETCHES_MAX: usize = 8;
/// Smaller units are not worth a thought: most clients read pages.
const SMALL_UNIT: u64 = 4096;
/// How far ahead is fetched where requests travel to the store.
pub(super) const DEFAULT_WINDOW: u64 = 2 << 20;

/// A range of the volume: from, to.
type Span = (u64, u64);

/// One sequence of reads.
#[derive(Clone, Copy, Default, Debug)]
struct Stream {
    /// Where its next read is expected.
    next: u64,
    /// Up to where all has been asked for.
    asked: u64,
    /// How far ahead is fetched; none as long as it is one read and no sequence yet.
    window: u64,
    /// When it was last seen.
    seen: u64,
}

/// The sequences that are under way.
#[derive(Default, Debug)]
struct Streams {
    streams: [Stream; STREAMS],
    reads: u64,
}

impl Streams {
    /// Notes a read, and tells what to fetch now. What may not be fetched now stays for the next read of the sequence. A
    /// sequence whose reads overtake each other stays one.
    fn note(
        &mut self,
        (start, end): Span,
        limits: &Limits,
        may_fetch: impl FnOnce() -> bool,
    ) -> Option<Span> {
        self.reads += 1;
        let seen = self.reads;
        let goes_on = |stream: &&mut Stream| {
            stream.seen > 0
                && start >= stream.next.saturating_sub(stream.window)
                && start <= stream.next + stream.window
        };
        let Some(stream) = self.streams.iter_mut().find(goes_on) else {
            let oldest = self.streams.iter_mut().min_by_key(|stream| stream.seen)?;
            *oldest = Stream {
                next: end,
                seen,
                ..Stream::default()
            };
            return None;
        };
        stream.seen = seen;
        stream.next = stream.next.max(end);
        if stream.window == 0 {
            stream.window = FIRST_WINDOW.min(limits.window_max);
        }
        let from = stream.asked.max(limits.up(stream.next));
        if from - stream.next > stream.window / 2 {
            return None;
        }
        let to = limits.up(stream.next + stream.window);
        if from >= to || !may_fetch() {
            return None;
        }
        stream.asked = to;
        stream.window = (stream.window * 2).min(limits.window_max);
        Some((from, to))
    }

    /// Forgets the sequence that a range was fetched for.
    fn stop(&mut self, (_, to): Span) {
        for stream in &mut self.streams {
            if stream.asked >= to && stream.next <= to {
                *stream = Stream::default();
            }
        }
    }
}

/// What is never passed.
#[derive(Clone, Copy, Debug)]
struct Limits {
    unit: u64,
    window_max: u64,
    size_bytes: u64,
}

impl Limits {
    /// The end of a unit, or of the volume.
    fn up(&self, at: u64) -> u64 {
        let up = at.checked_next_multiple_of(self.unit).unwrap_or(at);
        up.min(self.size_bytes)
    }
}

/// What all fetches share.
#[derive(Debug)]
struct Shared {
    streams: Mutex<Streams>,
    /// The store failed to answer the last fetch ahead, and no read since.
    is_failing: AtomicBool,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches ahead of the clients of one volume. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Ahead {
    limits: Limits,
    shared: Arc<Shared>,
    fetches: Mutex<JoinSet<()>>,
}

impl Ahead {
    /// Of a volume in a store that reads units of so many bytes, no farther than `window_max` ahead; 0 is not at all.
    pub(super) fn new(unit: u64, window_max: u64, size_bytes: u64) -> Self {
        Self {
            limits: Limits {
                unit: unit.max(1),
                window_max,
                size_bytes,
            },
            shared: Arc::new(Shared {
                streams: Mutex::default(),
                is_failing: AtomicBool::new(false),
            }),
            fetches: Mutex::default(),
        }
    }

    /// The store's units that a read touches, as offset and length, where these are more than the read.
    pub(super) fn whole_units(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        if self.limits.unit <= SMALL_UNIT {
            return None;
        }
        let end = offset.checked_add(len)?;
        let from = offset - offset % self.limits.unit;
        let to = self.limits.up(end);
        (len > 0 && to >= end && to - from > len).then_some((from, to - from))
    }

    /// Notes that a client reads, and fetches what comes next where it reads in sequence.
    pub(super) fn note(&self, set: &ObjectSet, offset: u64, len: u64) {
        if self.limits.window_max == 0 || self.shared.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let span = (offset, offset.saturating_add(len));
        let mut under_way = None;
        let may_fetch = || {
            let fetches = under_way.insert(self.fetches());
            while fetches.try_join_next().is_some() {}
            fetches.len() < FETCHES_MAX
        };
        let next = self.shared.streams().note(span, &self.limits, may_fetch);
        if let (Some(span), Some(mut fetches)) = (next, under_way) {
            fetches.spawn(self.fetch(set.clone(), span));
        }
    }

    /// Notes that the store has answered.
    pub(super) fn store_answers(&self) {
        self.shared.is_failing.store(false, Ordering::Relaxed);
    }

    fn fetches(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, set: ObjectSet, (from, to): Span) -> impl Future<Output = ()> + 'static {
        let shared = Arc::clone(&self.shared);
        let step = PART_BYTES.max(self.limits.unit);
        async move {
            let parts = (from..to).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            let parts = parts.map(|at| set.prefetch_at(at, step.min(to - at)));
            if try_join_all(parts).await.is_err() {
                shared.is_failing.store(true, Ordering::Relaxed);
                shared.streams().stop((from, to));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cachalot::Layout;
    use cachalot::backend::{OperationKind, StoreCondition};
    use cachalot_nbd::Export;
    use futures::poll;

    use super::super::tests::{Rig, SIZE, rig_ahead};
    use super::*;

    const UNIT: u64 = 64 << 10;

    fn limits() -> Limits {
        Limits {
            unit: UNIT,
            window_max: 1 << 20,
            size_bytes: SIZE,
        }
    }

    /// Of a volume that is full, and a cache that is empty.
    async fn rig(window_max: u64) -> Rig {
        let rig = rig_ahead(Layout::default(), UNIT, window_max).await;
        let full = bytes::Bytes::from(vec![1; 1 << 20]);
        for part in 0..SIZE >> 20 {
            rig.disk
                .write(part << 20, full.clone(), false)
                .await
                .unwrap();
        }
        rig.disk.flush().await.unwrap();
        assert_eq!(rig.disk.set.release().await.unwrap(), 0);
        assert_eq!(rig.fetched(), (0, 0));
        rig
    }

    impl Rig {
        fn fetched(&self) -> (u64, u64) {
            let reads = self.counted.operations().reads;
            (reads.operations, reads.bytes)
        }

        /// Waits until nothing is fetched any more.
        async fn settled(&self) {
            let fetches = std::mem::take(&mut *self.disk.ahead.fetches.lock().unwrap());
            fetches.join_all().await;
        }

        async fn read(&self, offset: u64) {
            self.disk.read(offset, 4096).await.unwrap();
            self.settled().await;
        }
    }

    #[tokio::test]
    async fn a_miss_fetches_its_whole_unit_at_once() {
        let rig = rig(0).await;
        rig.read(3 * UNIT + 8192).await;
        assert_eq!(rig.fetched(), (1, UNIT));
        for page in 0..UNIT / 4096 {
            rig.read(3 * UNIT + page * 4096).await;
        }
        assert_eq!(rig.fetched(), (1, UNIT));
    }

    #[tokio::test]
    async fn a_sequence_finds_what_it_reads_in_the_cache() {
        let rig = rig(1 << 20).await;
        let misses = async {
            for page in 0..(4 << 20) / 4096 {
                rig.read(page * 4096).await;
            }
        };
        misses.await;
        let (operations, bytes) = rig.fetched();
        assert!((2..40).contains(&operations), "{operations}");
        assert!(((4 << 20)..=(5 << 20) + UNIT).contains(&bytes), "{bytes}");
    }

    #[tokio::test]
    async fn random_reads_fetch_nothing_ahead() {
        let rig = rig(1 << 20).await;
        for number in 0..64 {
            rig.read(number * 37 % 64 * (1 << 20) + 4096).await;
        }
        assert_eq!(rig.fetched(), (64, 64 * UNIT));
    }

    #[tokio::test]
    async fn nothing_is_fetched_past_the_end() {
        let rig = rig(1 << 20).await;
        rig.read(SIZE - 2 * UNIT).await;
        rig.read(SIZE - 2 * UNIT + 4096).await;
        assert_eq!(rig.fetched().1, 2 * UNIT);
        rig.read(SIZE - 4096).await;
        assert_eq!(rig.fetched().1, 2 * UNIT);
    }

    #[tokio::test]
    async fn a_store_that_fails_is_asked_for_nothing_ahead_until_it_answers() {
        let rig = rig(1 << 20).await;
        rig.read(0).await;
        rig.control.set_condition(StoreCondition::Down);
        rig.read(4096).await;
        let refused = rig.control.counts().refused;
        assert!(refused > 0, "nothing was asked ahead");
        for page in 2..16 {
            rig.read(page * 4096).await;
        }
        assert_eq!(rig.control.counts().refused, refused);
        rig.control.set_condition(StoreCondition::Up);
        rig.read(UNIT).await;
        rig.read(UNIT + 4096).await;
        rig.read(UNIT + 8192).await;
        // The unit that was missed, and the two behind it, of which one had been asked for in vain.
        assert_eq!(rig.fetched().1, UNIT + 3 * UNIT);
    }

    #[test]
    fn sequences_that_take_turns_are_told_apart() {
        let mut streams = Streams::default();
        let far = 32 << 20;
        assert_eq!(streams.note((0, 4096), &limits(), || true), None);
        assert_eq!(streams.note((far, far + 4096), &limits(), || true), None);
        let first = streams.note((4096, 8192), &limits(), || true);
        assert_eq!(first, Some((UNIT, 3 * UNIT)));
        let second = streams.note((far + 4096, far + 8192), &limits(), || true);
        assert_eq!(second, Some((far + UNIT, far + 3 * UNIT)));
    }

    #[test]
    fn a_read_that_is_only_near_another_is_no_sequence() {
        let mut streams = Streams::default();
        for at in [0, 100 << 10, 220 << 10, 150 << 10] {
            assert_eq!(streams.note((at, at + 4096), &limits(), || true), None);
        }
    }

    #[test]
    fn a_sequence_whose_reads_overtake_each_other_is_one() {
        let mut streams = Streams::default();
        let mut asked = Vec::new();
        for page in [0_u64, 1, 3, 2, 6, 4, 5, 7, 40, 30] {
            asked.extend(streams.note((page * 4096, (page + 1) * 4096), &limits(), || true));
        }
        let known = streams.streams.iter().filter(|stream| stream.seen > 0);
        assert_eq!(known.count(), 1);
        // No byte twice.
        assert!(
            asked.windows(2).all(|two| two[0].1 <= two[1].0),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn what_can_not_be_fetched_ahead_now_is_fetched_later() {
        let rig = rig(1 << 20).await;
        let gate = rig.control.gate();
        gate.hold_kind(OperationKind::Read);
        // As many sequences as there may be fetches, each held up, and the front of one more.
        let starts = (0..=FETCHES_MAX as u64).map(|stream| stream * (4 << 20));
        let mut reads = Vec::new();
        for start in starts {
            for at in [start, start + 4096] {
                let mut read = rig.disk.read(at, 4096);
                assert!(poll!(read.as_mut()).is_pending());
                reads.push(read);
            }
        }
        assert_eq!(rig.disk.ahead.fetches.lock().unwrap().len(), FETCHES_MAX);
        gate.open();
        futures::future::try_join_all(reads).await.unwrap();
        rig.settled().await;
        let last = FETCHES_MAX as u64 * (4 << 20);
        let (_, before) = rig.fetched();
        rig.read(last + 8192).await;
        assert_eq!(rig.fetched().1, before + 2 * UNIT, "the window was skipped");
    }
}

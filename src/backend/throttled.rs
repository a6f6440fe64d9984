//! A decorator that plays a slow store.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::operation::{AnswerFuture, Decorator, Operation, OperationKind};
use super::{Backend, Capabilities, Delayer, TimerThread};
use crate::clock::{Clock, SystemClock};
use crate::types::Moment;

/// How slow a store is; by default not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Throttle {
    /// How long each read, stat and listing takes at least.
    #[serde(with = "humantime_serde")]
    pub read_latency: Duration,
    /// How long each other operation takes at least.
    #[serde(with = "humantime_serde")]
    pub write_latency: Duration,
    /// How many bytes go through in a second, reads and writes together; no bound when `None`.
    pub bytes_per_second: Option<NonZeroU64>,
    /// How many operations go on together, others wait in order; no bound when `None`.
    pub operations_max: Option<NonZeroUsize>,
}

/// A decorator that makes each operation take its time: a latency, and its share of a bandwidth.
///
/// An operation is done at once and answered late: it takes at least as long as the [`Throttle`] says on top of what
/// the store itself takes. All operations share the bandwidth, first come first served, each
/// in one piece. With `operations_max` an operation may wait before it starts, so
/// [`Capabilities::ordered_writes`] is not promised then.
pub struct ThrottledBackend {
    inner: Arc<dyn Backend>,
    throttle: Throttle,
    permits: Option<Arc<Semaphore>>,
    pace: Arc<Pace>,
}

/// When the line to the store is free again.
struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    clock: Arc<dyn Clock>,
    delayer: Arc<dyn Delayer>,
    free_at: Mutex<Moment>,
}

impl ThrottledBackend {
    /// Slows `inner` down, in real time.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, throttle: Throttle) -> Self {
        let (clock, delayer) = (SystemClock::new(), TimerThread::new());
        Self::with_time(inner, throttle, Arc::new(clock), Arc::new(delayer))
    }

    /// Slows `inner` down, in the time of `clock` and `delayer`, which must be the same.
    #[must_use]
    pub fn with_time(
        inner: Arc<dyn Backend>,
        throttle: Throttle,
        clock: Arc<dyn Clock>,
        delayer: Arc<dyn Delayer>,
    ) -> Self {
        let operations_max = throttle.operations_max.map(NonZeroUsize::get);
        let permits = operations_max.map(|most| Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let pace = Arc::new(Pace {
            bytes_per_second: throttle.bytes_per_second,
            clock,
            delayer,
            free_at: Mutex::default(),
        });
        Self {
            inner,
            throttle,
            permits: permits.map(Arc::new),
            pace,
        }
    }

    const fn latency(&self, kind: OperationKind) -> Duration {
        match kind {
            OperationKind::Read | OperationKind::Stat | OperationKind::List => {
                self.throttle.read_latency
            }
            OperationKind::Write
            | OperationKind::Discard
            | OperationKind::Truncate
            | OperationKind::Remove
            | OperationKind::Sync => self.throttle.write_latency,
        }
    }
}

impl Pace {
    /// Takes the line for some bytes; tells how long from now they are through.
    fn claim(&self, bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_second.filter(|_| bytes > 0) else {
            return Duration::ZERO;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let transfer = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = self.clock.now();
        let mut free_at = self.free_at.lock();
        *free_at = now.max(*free_at).after(transfer);
        free_at.since(now)
    }

    /// Answers an operation when its time is over.
    async fn slow_down(self: Arc<Self>, answering: AnswerFuture, cost: Cost) -> AnswerResult {
        let answer = answering.await;
        let read_bytes = answer.as_ref().map_or(0, super::Answer::len_bytes);
        let wait = cost.latency + self.claim(cost.write_bytes + read_bytes);
        if !wait.is_zero() {
            self.delayer.delay(wait).await;
        }
        answer
    }
}

/// What an operation costs, as far as it is known before its answer.
#[derive(Clone, Copy)]
struct Cost {
    latency: Duration,
    write_bytes: u64,
}

type AnswerResult = Result<super::Answer, crate::error::BackendError>;

impl Decorator for ThrottledBackend {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn operate(&self, operation: Operation) -> AnswerFuture {
        let cost = Cost {
            latency: self.latency(operation.kind()),
            write_bytes: if let Operation::Write(write) = &operation {
                write.len_bytes()
            } else {
                0
            },
        };
        let pace = Arc::clone(&self.pace);
        let Some(permits) = self.permits.clone() else {
            return pace.slow_down(operation.start(&*self.inner), cost).boxed();
        };
        let inner = Arc::clone(&self.inner);
        async move {
            // Nobody closes the semaphore, so there is always a permit to wait for.
            let permit = permits.acquire_owned().await.ok();
            let answer = pace.slow_down(operation.start(&*inner), cost).await;
            drop(permit);
            answer
        }
        .boxed()
    }

    fn promises(&self) -> Capabilities {
        let within = self.inner.capabilities();
        Capabilities {
            ordered_writes: within.ordered_writes && self.permits.is_none(),
            ..within
        }
    }
}

impl fmt::Debug for ThrottledBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottledBackend")
            .field("inner", &self.inner)
            .field("throttle", &self.throttle)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::future::{BoxFuture, join_all};

    use super::*;
    use crate::backend::{BackendRead, BackendWrite, MemoryBackend, WriteRun, contract};
    use crate::types::{ByteRange, Hints, ObjectName, SnapContext, SnapId, Timestamp, Truncation};

    /// The paused time of tokio's runtime.
    #[derive(Debug)]
    struct PausedClock(tokio::time::Instant);

    #[expect(clippy::disallowed_methods, reason = "the test's clock is tokio's")]
    fn paused_clock() -> PausedClock {
        PausedClock(tokio::time::Instant::now())
    }

    impl Clock for PausedClock {
        fn now(&self) -> Moment {
            Moment::default().after(self.0.elapsed())
        }

        fn timestamp(&self) -> Timestamp {
            Timestamp(self.now().as_nanos())
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the test's timer is tokio's")]
    fn paused_delay(duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }

    fn slowed(throttle: Throttle) -> ThrottledBackend {
        let (clock, delayer) = (Arc::new(paused_clock()), Arc::new(paused_delay));
        ThrottledBackend::with_time(Arc::new(MemoryBackend::new()), throttle, clock, delayer)
    }

    fn object() -> ObjectName {
        ObjectName::new("o").unwrap()
    }

    fn write_of(len: usize) -> BackendWrite {
        BackendWrite {
            object: object(),
            runs: vec![WriteRun {
                offset: 0,
                buffers: vec![Bytes::from(vec![1; len])],
                journal_tid: None,
            }],
            context: SnapContext::default(),
            modified: Timestamp::default(),
            truncation: Truncation::default(),
        }
    }

    fn read_of(len: u64) -> BackendRead {
        BackendRead {
            object: object(),
            snap: SnapId::HEAD,
            range: ByteRange::new(0, len).unwrap(),
            hints: Hints::default(),
            truncation: Truncation::default(),
        }
    }

    const MILLI: Duration = Duration::from_millis(1);

    async fn assert_takes(expected: Duration, work: impl Future) {
        let clock = paused_clock();
        work.await;
        let taken = clock.now().since(Moment::default());
        assert!(
            taken >= expected && taken < expected + 2 * MILLI,
            "took {taken:?}, not {expected:?}"
        );
    }

    /// In real time, as the suite polls futures on threads without a runtime.
    #[tokio::test]
    async fn a_throttled_store_keeps_the_contract() -> Result<(), contract::Violations> {
        for operations_max in [None, NonZeroUsize::new(3)] {
            let throttle = Throttle {
                read_latency: Duration::from_micros(1),
                write_latency: Duration::from_micros(2),
                bytes_per_second: NonZeroU64::new(1 << 40),
                operations_max,
            };
            let slowed = || ThrottledBackend::new(Arc::new(MemoryBackend::new()), throttle);
            contract::check(async || Arc::new(slowed()) as _).await?;
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn reads_and_writes_have_latencies_of_their_own() {
        let store = slowed(Throttle {
            read_latency: 10 * MILLI,
            write_latency: 70 * MILLI,
            ..Throttle::default()
        });
        assert_takes(70 * MILLI, store.write(write_of(4096))).await;
        assert_takes(10 * MILLI, store.read(read_of(4096))).await;
        let writes = join_all((0..50).map(|_| store.write(write_of(9))));
        assert_takes(70 * MILLI, writes).await;
    }

    #[tokio::test(start_paused = true)]
    async fn all_operations_share_the_bandwidth() {
        let store = slowed(Throttle {
            bytes_per_second: NonZeroU64::new(1_000_000),
            ..Throttle::default()
        });
        let writes = join_all((0..10).map(|_| store.write(write_of(10_000))));
        assert_takes(100 * MILLI, writes).await;
        let reads = join_all((0..10).map(|_| store.read(read_of(20_000))));
        assert_takes(100 * MILLI, reads).await;
        assert_takes(Duration::ZERO, store.sync()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_operations_go_on_together() {
        let store = slowed(Throttle {
            write_latency: 10 * MILLI,
            operations_max: NonZeroUsize::new(4),
            ..Throttle::default()
        });
        assert!(!store.capabilities().ordered_writes);
        let writes = join_all((0..10).map(|_| store.write(write_of(1))));
        assert_takes(30 * MILLI, writes).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_given_up_gives_its_place_back() {
        let store = slowed(Throttle {
            write_latency: 10 * MILLI,
            operations_max: NonZeroUsize::new(1),
            ..Throttle::default()
        });
        let mut first = store.write(write_of(1));
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        assert_takes(10 * MILLI, store.write(write_of(1))).await;
    }

    #[test]
    fn a_throttle_is_written_as_people_do() {
        let text = r#"{"read_latency": "200us", "bytes_per_second": 1000}"#;
        let throttle: Throttle = serde_json::from_str(text).unwrap();
        assert_eq!(throttle.read_latency, Duration::from_micros(200));
        assert_eq!(throttle.write_latency, Duration::ZERO);
        assert!(serde_json::from_str::<Throttle>(r#"{"latency": "1s"}"#).is_err());
    }
}

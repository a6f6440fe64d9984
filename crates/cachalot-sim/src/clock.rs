//! Virtual time: it stands still while anybody has something to do, and then jumps to the next timer.

#![expect(
    clippy::disallowed_methods,
    reason = "the simulated time is that of the paused runtime"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cachalot::{Clock, Moment, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

/// How often anybody may look at the clock before it moves on. In 300 runs that went well it was looked at
/// 22,029 times at most.
pub(crate) const LOOKS_MAX: u64 = 500_000;

/// The clock of a runtime whose time is paused.
///
/// Somebody who always finds something to do keeps the time from moving on, and so the watch from seeing it. Such a
/// loop looks at the clock again and again; from [`LOOKS_MAX`] looks on the clock [is stuck](Self::is_stuck).
#[derive(Debug)]
pub(crate) struct VirtualClock {
    started: Instant,
    /// When anybody last looked, in nanoseconds since the start, and how often since it got so late.
    last: AtomicU64,
    looks: AtomicU64,
}

impl VirtualClock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }
    }

    /// Whether the time stands still though so much happens that nothing useful can be meant.
    pub(crate) fn is_stuck(&self) -> bool {
        self.looks.load(Ordering::Relaxed) >= LOOKS_MAX
    }
}

impl Clock for VirtualClock {
    /// # Panics
    /// Where a loop goes on without the store, which could have ended it.
    fn now(&self) -> Moment {
        let now = Moment::default().after(self.started.elapsed());
        if self.last.swap(now.as_nanos(), Ordering::Relaxed) != now.as_nanos() {
            self.looks.store(0, Ordering::Relaxed);
        }
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(
            looks < 2 * LOOKS_MAX,
            "a livelock at {now:?}, away from the store"
        );
        now
    }

    fn timestamp(&self) -> Timestamp {
        // Some day in 2026.
        Timestamp(1_790_000_000_000_000_000 + self.now().as_nanos())
    }
}

/// Waits in virtual time.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits in virtual time, for stores that play slow ones.
pub(crate) fn delay(time: Duration) -> BoxFuture<'static, ()> {
    tokio::time::sleep(time).boxed()
}

//! Virtual time: it stands still while anybody has something to do, and then jumps to the next timer.

#![expect(
    clippy::disallowed_methods,
    reason = "the simulated time is that of the paused runtime"
)]

use std::time::Duration;

use cachalot::{Clock, Moment, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

/// The clock of a runtime whose time is paused.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    started: Instant,
}

impl VirtualClock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        Moment::default().after(self.started.elapsed())
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

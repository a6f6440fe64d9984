//! Waiting, for backends that play slow ones: on any runtime, and on virtual time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, ready};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock::{Clock, SystemClock};
use crate::types::Moment;

/// Makes futures that resolve after a while.
///
/// Any `Fn(Duration) -> BoxFuture<'static, ()>` is one, so a runtime's own timer, paused or not, is a closure away.
pub trait Delayer: Send + Sync + 'static {
    /// A future that resolves when `duration` has passed since this call.
    fn delay(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

impl<F> Delayer for F
where
    F: Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    fn delay(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self(duration)
    }
}

/// A [`Delayer`] on real time with a thread of its own, so that it needs no runtime.
///
/// The thread starts with the first delay and ends with the timer; delays that are pending then resolve at once.
/// It is our own rather than a crate's because a call wakes the thread only when its delay ends before all others: with
/// equal latencies, as of a slow store, hardly ever, and a wake-up costs the caller more than the rest of the call.
#[derive(Default)]
pub struct TimerThread {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    clock: SystemClock,
    timers: Mutex<Timers>,
    changed: Condvar,
}

#[derive(Default)]
struct Timers {
    /// By end, then by number. A delay is over when its sender is dropped.
    pending: BTreeMap<(Moment, u64), oneshot::Sender<Infallible>>,
    started: u64,
    thread: ThreadState,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum ThreadState {
    #[default]
    NotStarted,
    Running,
    Ending,
}

impl TimerThread {
    /// A timer whose thread has yet to start.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the thread if need be; tells whether it runs.
    fn ensure_running(&self, timers: &mut Timers) -> bool {
        if timers.thread == ThreadState::NotStarted {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name("cachalot-timer".to_owned());
            match builder.spawn(move || shared.run()) {
                Ok(_) => timers.thread = ThreadState::Running,
                Err(error) => tracing::error!(%error, "can't start the timer: delays are skipped"),
            }
        }
        timers.thread == ThreadState::Running
    }
}

impl Delayer for TimerThread {
    fn delay(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return ready(()).boxed();
        }
        let (sender, receiver) = oneshot::channel();
        let end = self.shared.clock.now().after(duration);
        let mut timers = self.shared.timers.lock();
        if self.ensure_running(&mut timers) {
            timers.started += 1;
            let key = (end, timers.started);
            timers.pending.insert(key, sender);
            if timers.pending.keys().next() == Some(&key) {
                self.shared.changed.notify_one();
            }
        }
        drop(timers);
        receiver.map(drop).boxed()
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        let mut timers = self.shared.timers.lock();
        timers.thread = ThreadState::Ending;
        timers.pending.clear();
        drop(timers);
        self.shared.changed.notify_one();
    }
}

impl fmt::Debug for TimerThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerThread").finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self) {
        let mut timers = self.timers.lock();
        while timers.thread != ThreadState::Ending {
            let now = self.clock.now();
            let later = timers.pending.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut timers.pending, later);
            if !due.is_empty() {
                MutexGuard::unlocked(&mut timers, || drop(due));
                continue;
            }
            match timers.pending.keys().next() {
                Some((end, _)) => {
                    let wait = end.since(now);
                    self.changed.wait_for(&mut timers, wait);
                }
                None => self.changed.wait(&mut timers),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;

    #[test]
    fn a_delay_takes_at_least_its_time() {
        let (timer, clock) = (TimerThread::new(), SystemClock::new());
        for millis in [3, 0, 1] {
            let (start, duration) = (clock.now(), Duration::from_millis(millis));
            block_on(timer.delay(duration));
            assert!(clock.now().since(start) >= duration);
        }
    }

    #[test]
    fn a_short_delay_does_not_wait_for_a_long_one() {
        let (timer, clock) = (TimerThread::new(), SystemClock::new());
        let start = clock.now();
        let long = timer.delay(Duration::from_secs(3600));
        let short = (0..1000).map(|number| timer.delay(Duration::from_micros(number)));
        block_on(join_all(short.rev()));
        assert!(clock.now().since(start) < Duration::from_secs(3600));
        assert!(long.now_or_never().is_none());
    }

    #[test]
    fn pending_delays_resolve_when_the_timer_goes() {
        let timer = TimerThread::new();
        let delay = timer.delay(Duration::from_secs(3600));
        drop(timer);
        block_on(delay);
    }
}

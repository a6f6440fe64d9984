//! Busy polling: how the gateway waits for the next request of a client that is alone, awake for a moment where that pays.
//!
//! A thread that sleeps until a client asks takes its time to wake, on virtual machines longer than the request itself. So a
//! client that asks for one thing at a time, and soon again, is looked out for; one that let the server look in vain is not,
//! until it has asked soon again for a while. QEMU's I/O threads do likewise (`poll-max-ns`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cachalot::{Clock, Moment, SystemClock};
use cachalot_nbd::Pause;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many waits in a row must have been short. A client that has several requests under way would be answered one by one,
/// where the sleep lets them gather.
const BRISK_MIN: u32 = 16;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct BusyPoll<C = SystemClock> {
    /// The client's socket; without one there is nothing to look at.
    socket: Option<OwnedFd>,
    /// How many clients there are.
    clients: Arc<AtomicUsize>,
    /// How long it looks.
    longest: Duration,
    clock: C,
    /// When the wait began that goes on.
    begun: Option<Moment>,
    /// How many waits in a row were short, each for one request.
    brisk: u32,
}

impl BusyPoll {
    pub(super) fn over(socket: &impl AsFd, clients: &Arc<AtomicUsize>, longest: Duration) -> Self {
        let socket = socket.as_fd().try_clone_to_owned().ok();
        Self::new(socket, clients, (longest, SystemClock::new()))
    }
}

impl<C: Clock> BusyPoll<C> {
    fn new(
        socket: Option<OwnedFd>,
        clients: &Arc<AtomicUsize>,
        (longest, clock): (Duration, C),
    ) -> Self {
        Self {
            socket,
            clients: Arc::clone(clients),
            longest,
            clock,
            begun: None,
            brisk: 0,
        }
    }

    /// Whether something has come. A socket that can't be asked is left to those who read it.
    fn has_come(&self) -> bool {
        self.socket.as_ref().is_none_or(|socket| {
            let mut polled = [PollFd::new(socket, PollFlags::IN)];
            poll(&mut polled, Some(&Timespec::default())) != Ok(0)
        })
    }

    /// While there are others, their requests are not to wait behind one who stands and looks.
    fn is_alone(&self) -> bool {
        self.clients.load(Ordering::Relaxed) == 1
    }
}

impl<C: Clock> Pause for BusyPoll<C> {
    fn begin(&mut self, done: usize) {
        if self.longest.is_zero() || !self.is_alone() {
            return;
        }
        if done > 1 {
            self.brisk = 0;
        }
        let begun = self.clock.now();
        self.begun = Some(begun);
        while self.brisk >= BRISK_MIN && !self.has_come() {
            if self.clock.now().since(begun) >= self.longest {
                self.brisk = 0;
            }
            // Whoever else has work on this processor goes first.
            std::thread::yield_now();
        }
    }

    fn end(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Asleep one hears of it later than it came.
            let is_short = self.clock.now().since(begun) < 2 * self.longest;
            self.brisk = if is_short {
                self.brisk.saturating_add(1)
            } else {
                0
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::AtomicU64;

    use cachalot::Timestamp;

    use super::*;

    const LONGEST: Duration = Duration::from_micros(50);

    /// Goes on by a microsecond each time that it is asked.
    #[derive(Debug, Default)]
    struct Ticking(AtomicU64);

    impl Clock for Ticking {
        fn now(&self) -> Moment {
            Moment::default().after(Duration::from_micros(
                self.0.fetch_add(1, Ordering::Relaxed),
            ))
        }

        fn timestamp(&self) -> Timestamp {
            Timestamp::default()
        }
    }

    struct Rig {
        polls: BusyPoll<Ticking>,
        client: UnixStream,
    }

    impl Rig {
        fn new(clients: usize) -> Self {
            let (server, client) = UnixStream::pair().unwrap();
            let clients = Arc::new(AtomicUsize::new(clients));
            let timing = (LONGEST, Ticking::default());
            Self {
                polls: BusyPoll::new(Some(server.into()), &clients, timing),
                client,
            }
        }

        /// How many looks at the clock a wait took until the thread slept, when the request came so much later and was
        /// alone, or not.
        fn wait_among(&mut self, done: usize, after: u64) -> u64 {
            let clock = |rig: &Self| rig.polls.clock.0.load(Ordering::Relaxed);
            let before = clock(self);
            self.polls.begin(done);
            let looked = clock(self) - before;
            self.polls.clock.0.fetch_add(after, Ordering::Relaxed);
            self.polls.end();
            looked
        }

        fn wait(&mut self, after: u64) -> u64 {
            self.wait_among(1, after)
        }

        /// After so many short waits the client is looked out for.
        fn hurry(&mut self) {
            for _ in 0..BRISK_MIN {
                assert_eq!(self.wait(60), 1);
            }
        }
    }

    #[test]
    fn a_client_that_asks_again_soon_is_looked_out_for_until_that_is_in_vain() {
        let mut rig = Rig::new(1);
        rig.hurry();
        assert_eq!(rig.wait(0), 51, "as long as it may take, and no longer");
        assert_eq!(rig.wait(200), 1, "that was in vain, so it sleeps at once");
        rig.hurry();
        rig.client.write_all(b"request").unwrap();
        assert_eq!(rig.wait(0), 1, "it has come, so nobody waits");
        let mut rest = [0; 7];
        let mut socket = UnixStream::from(rig.polls.socket.as_ref().unwrap().try_clone().unwrap());
        socket.read_exact(&mut rest).unwrap();
        assert_eq!(rig.wait(200), 51, "it was worth it");
        assert_eq!(rig.wait(0), 1, "it took its time");
    }

    #[test]
    fn a_client_with_several_requests_under_way_is_not_looked_out_for() {
        let mut rig = Rig::new(1);
        rig.hurry();
        assert_eq!(rig.wait_among(2, 60), 1);
        assert_eq!(rig.wait(60), 1, "it has to show itself anew");
    }

    #[test]
    fn a_client_among_others_is_not_looked_out_for() {
        let mut rig = Rig::new(1);
        rig.hurry();
        rig.polls.clients.store(2, Ordering::Relaxed);
        assert_eq!(rig.wait(0), 0);
    }

    #[test]
    fn who_is_told_not_to_does_not_look() {
        let mut rig = Rig::new(1);
        rig.hurry();
        rig.polls.longest = Duration::ZERO;
        assert_eq!(rig.wait(0), 0);
    }
}

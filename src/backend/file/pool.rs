//! Threads that do what blocks, and the order in which they do it.
//!
//! # Order
//! Every operation belongs to a *lane*: the hash of its object's name. In a lane, an exclusive operation starts
//! only when everything queued before it has ended, and nothing queued after it starts before it has ended;
//! shared operations that follow each other run side by side. An operation that has started runs to its end,
//! whether or not somebody still waits for it. So a write that was given up while it ran has ended before any
//! later operation of its object starts, and can't land after it. One that was given up while it was queued finds,
//! when its turn comes, that nobody waits, and does nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex};

use crate::error::BackendError;

/// Whether an operation may run beside its neighbours in its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// It changes nothing: it may.
    Shared,
    /// It may not.
    Exclusive,
}

type Job = Box<dyn FnOnce() + Send>;

struct Task {
    lane: u128,
    access: Access,
    job: Job,
}

/// What a lane that is not idle does.
enum Running {
    Shared(usize),
    Exclusive,
}

struct Lane {
    /// The operations handed to the threads and not yet ended.
    running: Running,
    waiting: VecDeque<Task>,
}

#[derive(Default)]
struct Queue {
    /// What any thread may start at once.
    ready: VecDeque<Task>,
    /// The lanes that are not idle.
    lanes: HashMap<u128, Lane, foldhash::fast::RandomState>,
    threads_idle: usize,
    closing: bool,
}

impl Queue {
    fn push(&mut self, task: Task) {
        let Some(lane) = self.lanes.get_mut(&task.lane) else {
            let running = match task.access {
                Access::Shared => Running::Shared(1),
                Access::Exclusive => Running::Exclusive,
            };
            let waiting = VecDeque::new();
            self.lanes.insert(task.lane, Lane { running, waiting });
            self.ready.push_back(task);
            return;
        };
        match (&mut lane.running, task.access) {
            (Running::Shared(running), Access::Shared) if lane.waiting.is_empty() => {
                *running += 1;
                self.ready.push_back(task);
            }
            (Running::Shared(_) | Running::Exclusive, Access::Shared | Access::Exclusive) => {
                lane.waiting.push_back(task);
            }
        }
    }

    /// An operation of this lane has ended: lets in what may follow.
    fn finish(&mut self, key: u128) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        if let Running::Shared(running) = &mut lane.running
            && *running > 1
        {
            *running -= 1;
            return;
        }
        let Some(next) = lane.waiting.pop_front() else {
            self.lanes.remove(&key);
            return;
        };
        match next.access {
            Access::Exclusive => {
                lane.running = Running::Exclusive;
                self.ready.push_back(next);
            }
            Access::Shared => {
                self.ready.push_back(next);
                let mut running = 1;
                while let Some(next) = lane
                    .waiting
                    .pop_front_if(|next| next.access == Access::Shared)
                {
                    running += 1;
                    self.ready.push_back(next);
                }
                lane.running = Running::Shared(running);
            }
        }
    }
}

#[derive(Default)]
struct Door {
    queue: Mutex<Queue>,
    work: Condvar,
}

/// A fixed number of threads behind one queue of lanes. Dropping it does what is queued, then ends the threads.
pub(super) struct Pool {
    door: Arc<Door>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads of this name, at least one.
    pub(super) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let mut pool = Self {
            door: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..threads.max(1) {
            let door = Arc::clone(&pool.door);
            let thread = thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || door.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues an operation at once; the future resolves with its result. Dropping the future gives the
    /// operation up: see the [module](self).
    pub(super) fn run<T, F>(
        &self,
        lane: u128,
        access: Access,
        operation: F,
    ) -> BoxFuture<'static, Result<T, BackendError>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, BackendError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || {
            if !reply.is_canceled() {
                // Nobody is left to tell when this fails.
                drop(reply.send(operation()));
            }
        });
        self.door.push(Task { lane, access, job });
        Box::pin(async move { answer.await.unwrap_or(Err(BackendError::Unavailable)) })
    }
}

impl Door {
    fn push(&self, task: Task) {
        let mut queue = self.queue.lock();
        queue.push(task);
        let wake = queue.threads_idle > 0 && !queue.ready.is_empty();
        drop(queue);
        if wake {
            self.work.notify_one();
        }
    }

    fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(Task { lane, job, .. }) = queue.ready.pop_front() {
                drop(queue);
                // A panic ends the operation, whose caller sees `Unavailable`, but not the thread or the lane.
                drop(catch_unwind(AssertUnwindSafe(job)));
                queue = self.queue.lock();
                let ready_before = queue.ready.len();
                queue.finish(lane);
                // This thread takes one; whoever queued those before has woken somebody for them.
                let let_in = queue.ready.len() - ready_before.max(1).min(queue.ready.len());
                for _ in 0..let_in.min(queue.threads_idle) {
                    self.work.notify_one();
                }
            } else if queue.closing {
                return;
            } else {
                queue.threads_idle += 1;
                self.work.wait(&mut queue);
                queue.threads_idle -= 1;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.door.queue.lock().closing = true;
        self.door.work.notify_all();
        for thread in self.threads.drain(..) {
            // An answer may wake a task which drops the pool on one of its own threads.
            if thread.thread().id() != thread::current().id() {
                drop(thread.join());
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use std::sync::mpsc;

    type Log = Arc<Mutex<Vec<u32>>>;

    fn noting(
        pool: &Pool,
        access: Access,
        log: &Log,
        number: u32,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        let log = Arc::clone(log);
        pool.run(1, access, move || {
            log.lock().push(number);
            Ok(())
        })
    }

    /// An operation that tells when it has started and ends when it is told.
    fn gated(
        pool: &Pool,
        lane: u128,
        access: Access,
    ) -> (
        BoxFuture<'static, Result<(), BackendError>>,
        mpsc::Receiver<()>,
        mpsc::Sender<()>,
    ) {
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let answer = pool.run(lane, access, move || {
            started.send(()).unwrap();
            assert!(released.recv().is_err());
            Ok(())
        });
        (answer, has_started, release)
    }

    /// H-46
    #[test]
    fn an_operation_given_up_while_it_runs_ends_before_the_next_starts() {
        let pool = Pool::start("test", 4).unwrap();
        let log = Log::default();
        let (answer, started, release) = gated(&pool, 1, Access::Exclusive);
        started.recv().unwrap();
        drop(answer);
        let later = noting(&pool, Access::Exclusive, &log, 1);
        let (elsewhere, started, release_elsewhere) = gated(&pool, 2, Access::Exclusive);
        // Other threads are free and at work, yet the lane waits.
        started.recv().unwrap();
        drop(release_elsewhere);
        block_on(elsewhere).unwrap();
        assert!(log.lock().is_empty());
        drop(release);
        block_on(later).unwrap();
        assert_eq!(*log.lock(), [1]);
    }

    /// H-46
    #[test]
    fn an_operation_given_up_in_the_queue_is_skipped() {
        let pool = Pool::start("test", 2).unwrap();
        let log = Log::default();
        let (first, started, release) = gated(&pool, 1, Access::Exclusive);
        started.recv().unwrap();
        drop(noting(&pool, Access::Exclusive, &log, 1));
        let last = noting(&pool, Access::Exclusive, &log, 2);
        drop(noting(&pool, Access::Shared, &log, 3));
        drop(release);
        block_on(first).unwrap();
        block_on(last).unwrap();
        drop(pool);
        assert_eq!(*log.lock(), [2]);
    }

    #[test]
    fn shared_operations_run_side_by_side_and_exclusive_ones_alone_in_order() {
        let pool = Pool::start("test", 4).unwrap();
        let log = Log::default();
        let (one, one_started, release_one) = gated(&pool, 1, Access::Shared);
        let (two, two_started, release_two) = gated(&pool, 1, Access::Shared);
        one_started.recv().unwrap();
        two_started.recv().unwrap();
        let writes: Vec<_> = (0..10)
            .map(|number| noting(&pool, Access::Exclusive, &log, number))
            .collect();
        let (three, three_started, release_three) = gated(&pool, 1, Access::Shared);
        let (four, four_started, release_four) = gated(&pool, 1, Access::Shared);
        drop(release_one);
        block_on(one).unwrap();
        assert!(log.lock().is_empty());
        assert!(three_started.try_recv().is_err());
        drop(release_two);
        block_on(two).unwrap();
        for write in writes {
            block_on(write).unwrap();
        }
        assert_eq!(*log.lock(), (0..10).collect::<Vec<_>>());
        three_started.recv().unwrap();
        four_started.recv().unwrap();
        drop((release_three, release_four));
        block_on(three).unwrap();
        block_on(four).unwrap();
        assert!(pool.door.queue.lock().lanes.len() <= 1);
    }

    #[test]
    fn a_panic_ends_its_operation_and_nothing_else() {
        let pool = Pool::start("test", 1).unwrap();
        let broken = pool.run(1, Access::Exclusive, || -> Result<(), _> {
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        assert_eq!(block_on(broken), Err(BackendError::Unavailable));
        assert_eq!(block_on(pool.run(1, Access::Exclusive, || Ok(7))), Ok(7));
    }

    #[test]
    fn dropping_does_what_is_queued_even_on_a_thread_of_its_own() {
        let pool = Arc::new(Pool::start("test", 1).unwrap());
        let log = Log::default();
        let (first, started, release) = gated(&pool, 1, Access::Exclusive);
        started.recv().unwrap();
        let last_owner = Arc::clone(&pool);
        let dropping = pool.run(1, Access::Exclusive, move || {
            drop(last_owner);
            Ok(())
        });
        let last = noting(&pool, Access::Exclusive, &log, 1);
        drop(pool);
        drop(release);
        block_on(first).unwrap();
        block_on(dropping).unwrap();
        block_on(last).unwrap();
        assert_eq!(*log.lock(), [1]);
    }

    #[test]
    fn many_callers_are_all_answered() {
        let pool = Pool::start("test", 3).unwrap();
        let sums: Vec<_> = (0..3000_u32)
            .map(|number| {
                let access = if number % 3 == 0 {
                    Access::Exclusive
                } else {
                    Access::Shared
                };
                pool.run(u128::from(number % 7), access, move || Ok(number))
            })
            .collect();
        for (number, sum) in sums.into_iter().enumerate() {
            assert_eq!(block_on(sum), Ok(u32::try_from(number).unwrap()));
        }
    }
}

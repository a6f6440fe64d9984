//! Threads for the calls that block. The end of the process waits for them where they are at their end too.

use std::io;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Those that have not been joined.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Runs a call that blocks on a thread of its own. A process that ends without a cluster waits for it.
///
/// # Errors
/// The system gives no thread; the call is dropped.
pub fn spawn(name: &str, call: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(call)?;
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let (ended, under_way) = mem::take(&mut *threads)
        .into_iter()
        .partition(JoinHandle::is_finished);
    *threads = under_way;
    threads.push(thread);
    drop(threads);
    join_all(ended);
    Ok(())
}

/// Waits until all are gone, with all that they kept for themselves.
pub(crate) fn join() {
    let threads = mem::take(&mut *THREADS.lock().unwrap_or_else(PoisonError::into_inner));
    join_all(threads);
}

fn join_all(threads: Vec<JoinHandle<()>>) {
    let this = thread::current().id();
    for thread in threads {
        if thread.thread().id() != this {
            // A call that panicked has told of it.
            drop(thread.join());
        }
    }
}

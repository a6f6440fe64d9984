//! The end of the process: librados' threads may still run then, and must not meet destroyed C++ statics.
//!
//! Handlers of a process's end run in the reverse of the order in which they were registered, destructors of statics and
//! OpenSSL's cleaning up among them, and OpenSSL registers its own only once a connection is made. So ours is registered
//! anew with each connection that was made and each that is given up: it comes before all of theirs.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Clusters that are not shut down.
static CONNECTED: AtomicUsize = AtomicUsize::new(0);

/// Counts as a cluster that is not shut down until [`Connected::shut_down`]; for good if it is dropped before.
#[derive(Debug)]
#[must_use]
pub(crate) struct Connected(());

impl Connected {
    pub(crate) fn count() -> Self {
        CONNECTED.fetch_add(1, Ordering::SeqCst);
        Self(())
    }

    /// Call when nothing of the cluster is left but the thread that shut it down.
    pub(crate) fn shut_down(self) {
        CONNECTED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Has the end of the process begin with [`meet_threads`], before whatever has been registered by now.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn prepare() {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }
    // SAFETY: the declaration is that of `stdlib.h`; the handler is a function and uses no argument. Where it can't
    // be registered, the process ends as it would without it.
    unsafe {
        on_exit(meet_threads, std::ptr::null_mut());
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn prepare() {}

/// Ends the process at once, with the status that it was ending with, if a cluster is connected or being shut down. If
/// none is, the threads that have called librados may still be giving up what it and OpenSSL keep for each thread: they
/// are waited for, which is short, since there is nothing left that they could call.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn meet_threads(status: std::ffi::c_int, _argument: *mut std::ffi::c_void) {
    if CONNECTED.load(Ordering::SeqCst) == 0 {
        crate::threads::join();
        return;
    }
    // SAFETY: flushing all streams and ending the process are sound at any time; no destructor runs after this.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status)
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::cell::Cell;
    use std::process::{self, Command};
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Sender, channel};
    use std::thread;
    use std::time::Duration;
    use std::{env, io};

    use super::*;
    use crate::threads;

    /// Set in the process that a test starts to see it end.
    const ENDS: &str = "CACHALOT_TEST_ENDS";
    const SKIPPED: i32 = 7;
    const WAITED: i32 = 8;
    const RACED: i32 = 9;

    static ENDING: AtomicBool = AtomicBool::new(false);
    static GONE: AtomicBool = AtomicBool::new(false);

    extern "C" fn ending() {
        ENDING.store(true, Ordering::SeqCst);
    }

    /// What would be a destructor of librados: registered first, so run last.
    extern "C" fn judge() {
        let gone = GONE.load(Ordering::SeqCst);
        // SAFETY: ending the process is sound at any time.
        unsafe { libc::_exit(if gone { WAITED } else { RACED }) }
    }

    fn at_exit(handler: extern "C" fn()) {
        // SAFETY: the handler is a function that may run at any time.
        assert_eq!(unsafe { libc::atexit(handler) }, 0);
    }

    /// Runs one test of this file in a process of its own, and gives the status that it ends with.
    fn status_of(test: &str) -> io::Result<Option<i32>> {
        let mut command = Command::new(env::current_exe()?);
        let name = format!("exit::tests::{test}");
        command.args([&name, "--exact", "--nocapture"]);
        Ok(command.env(ENDS, "1").status()?.code())
    }

    #[test]
    fn destructors_are_skipped_while_a_cluster_is_connected() {
        if env::var_os(ENDS).is_none() {
            let status = status_of("destructors_are_skipped_while_a_cluster_is_connected");
            assert_eq!(status.unwrap(), Some(SKIPPED));
            return;
        }
        at_exit(judge);
        // One that no thread could be found for stays connected.
        drop(Connected::count());
        prepare();
        process::exit(SKIPPED);
    }

    /// Thread-locals of C++ and OpenSSL go after a thread's call has ended.
    #[test]
    fn threads_are_gone_before_destructors_run() {
        struct Last(Sender<()>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
                while !ENDING.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                // Time for a process that does not wait to be seen not to.
                thread::park_timeout(Duration::from_millis(100));
                GONE.store(true, Ordering::SeqCst);
            }
        }
        thread_local!(static LAST: Cell<Option<Last>> = const { Cell::new(None) });

        if env::var_os(ENDS).is_none() {
            let status = status_of("threads_are_gone_before_destructors_run");
            assert_eq!(status.unwrap(), Some(WAITED));
            return;
        }
        at_exit(judge);
        let connected = Connected::count();
        prepare();
        at_exit(ending);
        let (going, gone) = channel();
        threads::spawn("ends late", move || {
            LAST.set(Some(Last(going)));
            connected.shut_down();
        })
        .unwrap();
        gone.recv().unwrap();
        assert_eq!(CONNECTED.load(Ordering::SeqCst), 0);
        process::exit(0);
    }
}

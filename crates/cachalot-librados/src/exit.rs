//! The end of the process: librados' threads may still run then, and must not meet destroyed C++ statics.

use std::ffi::{c_int, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Clusters that are not shut down yet.
static CONNECTED: AtomicUsize = AtomicUsize::new(0);
static PREPARED: Once = Once::new();

/// Counts as a cluster that is not shut down yet.
#[derive(Debug)]
pub(crate) struct Connected(());

impl Connected {
    /// Call after the library is loaded: handlers run in reverse, so ours comes before its destructors.
    pub(crate) fn count() -> Self {
        PREPARED.call_once(prepare);
        CONNECTED.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        CONNECTED.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn prepare() {
    unsafe extern "C" {
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }
    // SAFETY: the declaration is that of `stdlib.h`; the handler is a function and uses no argument. Where it can't
    // be registered, the process ends as it would without it.
    unsafe {
        on_exit(skip_destructors, std::ptr::null_mut());
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn prepare() {}

/// Ends the process at once, with the status that it was ending with, if a cluster is connected or being shut down.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
extern "C" fn skip_destructors(status: c_int, _argument: *mut c_void) {
    if CONNECTED.load(Ordering::SeqCst) == 0 {
        return;
    }
    // SAFETY: flushing all streams and ending the process are sound at any time; no destructor runs after this.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(status)
    }
}

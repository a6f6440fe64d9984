//! The end of a process that is connected to a real cluster. `scripts/rados.sh` starts one and runs this.
//!
//! `CACHALOT_RADOS_CONF` names its `ceph.conf`. Without it this is left out, loudly.

use std::env;
use std::ffi::c_int;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::process::{self, Command};

use cachalot_librados::{Cluster, ConnectOptions};

const CONF: &str = "CACHALOT_RADOS_CONF";
/// Set in the process that a test starts to see it end: whether it gives a connection up before.
const ENDS: &str = "CACHALOT_TEST_ENDS";
const AT_ONCE: c_int = 7;
const CLEANED_UP: c_int = 8;

extern "C" fn cleaned_up() {
    // SAFETY: ending the process is sound at any time.
    unsafe { libc::_exit(CLEANED_UP) }
}

/// OpenSSL registers its cleaning up when a connection is made, and C++ its destructors of a function's statics when that is
/// first called; librados' threads use both to the end.
#[test]
fn nothing_is_cleaned_up_under_threads_that_still_run() {
    let Some(conf) = env::var_os(CONF) else {
        let note = format!("\nSKIPPED: the end of a connected process: {CONF} is not set\n");
        assert!(std::io::stderr().write_all(note.as_bytes()).is_ok());
        return;
    };
    let Some(ends) = env::var_os(ENDS) else {
        for ends in ["connected", "given up"] {
            let mut command = Command::new(env::current_exe().unwrap());
            command.env(ENDS, ends).arg("--nocapture");
            let status = command.status().unwrap();
            assert_eq!(status.code(), Some(AT_ONCE), "{ends}");
        }
        return;
    };
    let options = ConnectOptions {
        conf: Some(conf.into()),
        ..ConnectOptions::default()
    };
    // Stays connected to the end, however long that takes to come.
    let _cluster = ManuallyDrop::new(Cluster::connect(&options).unwrap());
    if ends == "given up" {
        let other = Cluster::connect(&options).unwrap();
        // SAFETY: the handler is a function that may run at any time.
        assert_eq!(unsafe { libc::atexit(cleaned_up) }, 0);
        drop(other);
        process::exit(AT_ONCE);
    }
    // SAFETY: librados has loaded it, and it is not unloaded before the process ends.
    let openssl = unsafe { libloading::Library::new("libcrypto.so.3") }.unwrap();
    // SAFETY: the type is that of `OPENSSL_atexit` in `openssl/crypto.h`.
    let at_cleanup = unsafe {
        openssl.get::<unsafe extern "C" fn(extern "C" fn()) -> c_int>(b"OPENSSL_atexit\0")
    }
    .unwrap();
    // SAFETY: the handler is a function that may run at any time.
    assert_eq!(unsafe { at_cleanup(cleaned_up) }, 1);
    process::exit(AT_ONCE);
}

//! What librados' numbers mean to the cache, and why a store can't be opened.

use std::io;

use cachalot_librados::{ConnectError, Errno};

use crate::error::BackendError;

/// Why a store in a Ceph cluster can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RadosError {
    /// The address makes no sense.
    #[error("bad address of a RADOS store: {what}")]
    BadUrl {
        /// What is wrong and what to write.
        what: String,
    },
    /// The cluster can't be connected: the library is missing, or the configuration, or the cluster.
    #[error("cannot use the cluster: {0}")]
    Connect(#[from] ConnectError),
    /// The cluster has no such pool.
    #[error("the cluster has no pool {pool}: make one, or use another")]
    NoPool {
        /// Its name.
        pool: String,
    },
    /// The cluster failed.
    #[error("cannot use the pool: {0}")]
    Store(#[from] BackendError),
}

/// The error of an operation.
pub(super) fn backend_error(operation: &'static str, errno: Errno) -> BackendError {
    match errno.0 {
        _ if errno == Errno::BLOCKLISTED => BackendError::Fenced,
        ENOTCONN => BackendError::Unavailable,
        EOPNOTSUPP => BackendError::Unsupported { operation },
        code => BackendError::from_io(operation, &io::Error::from_raw_os_error(code)),
    }
}

const ENOTCONN: i32 = rustix::io::Errno::NOTCONN.raw_os_error();
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();

/// For `map_err`.
pub(super) fn at(operation: &'static str) -> impl Fn(Errno) -> BackendError {
    move |errno| backend_error(operation, errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H-41
    #[test]
    fn numbers_of_librados_are_told_apart() {
        for (errno, expected) in [
            (Errno::NOT_FOUND, BackendError::NotFound),
            (Errno::BLOCKLISTED, BackendError::Fenced),
            (Errno(28), BackendError::Full),
            (Errno(122), BackendError::Full),
            (Errno::TOO_LARGE, BackendError::Full),
            (Errno(1), BackendError::PermissionDenied),
            (Errno(13), BackendError::PermissionDenied),
            (Errno(30), BackendError::ReadOnly),
            (Errno(110), BackendError::TimedOut),
            (Errno(107), BackendError::Unavailable),
        ] {
            assert_eq!(backend_error("test", errno), expected, "{errno}");
        }
        assert!(backend_error("test", Errno(5)).is_transient());
    }
}

//! What librados says when it fails.

use std::ffi::c_int;
use std::fmt;
use std::io;

/// A failure of librados: a number as the operating system has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// The object is absent.
    pub const NOT_FOUND: Self = Self(libc::ENOENT);
    /// The object exists.
    pub const EXISTS: Self = Self(libc::EEXIST);
    /// Another client has the lock.
    pub const BUSY: Self = Self(libc::EBUSY);
    /// A comparison did not hold.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// The object's version is above the one asserted.
    pub const NEWER: Self = Self(libc::ERANGE);
    /// The object's version is below the one asserted.
    pub const OLDER: Self = Self(libc::EOVERFLOW);
    /// The object has no such attribute.
    pub const NO_ATTRIBUTE: Self = Self(libc::ENODATA);
    /// This client is blocklisted.
    pub const BLOCKLISTED: Self = Self(libc::ESHUTDOWN);
    /// An offset or size that the cluster does not allow.
    pub const TOO_LARGE: Self = Self(libc::EFBIG);

    /// What a call returned, where negative numbers are failures.
    pub(crate) fn check(returned: c_int) -> Result<usize, Self> {
        usize::try_from(returned).map_err(|_negative| Self(returned.saturating_neg()))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from_raw_os_error(self.0), f)
    }
}

impl std::error::Error for Errno {}

/// Why a cluster can't be connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The library is missing, or lacks something.
    #[error("cannot load librados.so.2 (Debian's package librados2 has it): {what}")]
    Library {
        /// What the loader says.
        what: String,
    },
    /// A name or path that holds a NUL byte.
    #[error("{what} holds a NUL byte")]
    Nul {
        /// Which.
        what: &'static str,
    },
    /// librados failed.
    #[error("cannot {doing}: {source}")]
    Librados {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: Errno,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl ConnectError {
    pub(crate) fn at(doing: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Librados { doing, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_answers_are_failures() {
        assert_eq!(Errno::check(0), Ok(0));
        assert_eq!(Errno::check(7), Ok(7));
        assert_eq!(Errno::check(-2), Err(Errno::NOT_FOUND));
        assert_eq!(Errno::check(c_int::MIN), Err(Errno(i32::MAX)));
        assert!(Errno(libc::EIO).to_string().contains("os error 5"));
    }
}

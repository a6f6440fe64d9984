//! Why a store on disk can't be opened, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file store could not be created or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileStoreError {
    /// The directory does not exist.
    #[error(
        "there is no directory {}: create the store, or check the path and that its file system is mounted",
        path.display()
    )]
    Missing {
        /// The store's directory.
        path: PathBuf,
    },
    /// The path leads to something else.
    #[error("{} is not a directory: name one", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory holds nothing.
    #[error("{} is empty: create a store in it first", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something other than a store.
    #[error(
        "{} holds files but no cachalot store: choose an empty directory, or check the path",
        path.display()
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a store already.
    #[error("{} holds a store already: open it", path.display())]
    AlreadyExists {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store was made by another version of the format.
    #[error(
        "the store in {} has format {found}, this program knows {known}: use the program that made it",
        path.display()
    )]
    UnknownVersion {
        /// The store's directory.
        path: PathBuf,
        /// The version on disk.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },
    /// A part of the store is not what it should be.
    #[error("the store in {} is damaged at {part}: restore it from a copy", path.display())]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// The file or directory within.
        part: &'static str,
    },
    /// Somebody else has the store open.
    #[error(
        "the store in {} is in use: close it there, or open both sides read-only",
        path.display()
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The file system takes no writes.
    #[error(
        "{} lies on a read-only file system: open the store read-only, or remount it",
        path.display()
    )]
    ReadOnly {
        /// The store's directory.
        path: PathBuf,
    },
    /// The operating system refuses access.
    #[error(
        "no permission to {operation} in {}: check its owner and mode",
        path.display()
    )]
    PermissionDenied {
        /// The store's directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
    },
    /// The file system is full.
    #[error("no room left in {}: free some", path.display())]
    Full {
        /// The store's directory.
        path: PathBuf,
    },
    /// Any other failure of the operating system.
    #[error("cannot {operation} in {}", path.display())]
    Io {
        /// The store's directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl FileStoreError {
    /// Classifies what the operating system said while doing `operation` in a store's directory.
    pub(super) fn from_io(path: &Path, operation: &'static str, error: io::Error) -> Self {
        let path = path.to_owned();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "io::ErrorKind is open-ended"
        )]
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path, operation },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io {
                path,
                operation,
                source: error,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn each_failure_of_the_system_has_its_error() {
        let of = |errno: Errno| {
            FileStoreError::from_io(Path::new("/store"), "make the marker", errno.into())
        };
        assert!(matches!(of(Errno::NOSPC), FileStoreError::Full { .. }));
        assert!(matches!(of(Errno::DQUOT), FileStoreError::Full { .. }));
        assert!(matches!(of(Errno::ROFS), FileStoreError::ReadOnly { .. }));
        assert!(matches!(
            of(Errno::ACCESS),
            FileStoreError::PermissionDenied { .. }
        ));
        assert!(matches!(of(Errno::NOENT), FileStoreError::Missing { .. }));
        assert!(matches!(
            of(Errno::NOTDIR),
            FileStoreError::NotADirectory { .. }
        ));
        let io = of(Errno::IO);
        assert_eq!(io.to_string(), "cannot make the marker in /store");
        assert!(std::error::Error::source(&io).is_some());
    }
}

//! What can go wrong in a command: one line for the person, one exit code for the script.

use std::io;
use std::path::PathBuf;

use cachalot::backend::FileStoreError;
#[cfg(feature = "object-store")]
use cachalot::backend::ObjectStoreError;
#[cfg(feature = "rados")]
use cachalot::backend::RadosError;
use cachalot::{BackendError, CacheError, ConfigError, RequestError};
use cachalot_nbd::wire::NbdError;

use crate::ctl::protocol::{ControlError, ErrorKind};

/// The exit codes, as `--help` documents them.
pub(crate) mod exit_code {
    /// The operation failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line or the configuration makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// The store is missing, unreachable, read-only, full or refuses access.
    pub(crate) const STORE: u8 = 3;
    /// The volume does not exist, exists already, or is not complete.
    pub(crate) const VOLUME: u8 = 4;
    /// What the store holds is damaged.
    pub(crate) const DAMAGED: u8 = 5;
    /// Interrupted from the keyboard.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a command failed. Its text is one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line or the configuration makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A store could not be opened.
    #[error("{}", with_source(.0))]
    OpenStore(#[from] FileStoreError),
    /// An object store could not be opened.
    #[cfg(feature = "object-store")]
    #[error("{0}")]
    OpenObjectStore(#[from] ObjectStoreError),
    /// A store in a Ceph cluster could not be opened.
    #[cfg(feature = "rados")]
    #[error("{0}")]
    OpenRados(#[from] RadosError),
    /// A call to the store failed.
    #[error("cannot {doing}: {source}{}", store_advice(.source))]
    Store {
        /// What was being done.
        doing: String,
        /// What the store said.
        source: BackendError,
    },
    /// A call to the cache failed.
    #[error("cannot {doing}: {}", cache_reason(.source))]
    Cache {
        /// What was being done.
        doing: String,
        /// What the cache said.
        source: CacheError,
    },
    /// What a volume was asked for failed.
    #[error("cannot {doing} volume {volume}: {}", export_reason(*.told))]
    Export {
        /// What was being done.
        doing: &'static str,
        /// The volume.
        volume: String,
        /// What a client of the gateway would be told.
        told: NbdError,
    },
    /// A local file or pipe failed.
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A volume is not there.
    #[error(
        "there is no volume {volume} in {store}: `cachalot volume list {store}` shows what there is"
    )]
    NoVolume {
        /// The volume.
        volume: String,
        /// The store's URL.
        store: String,
    },
    /// A volume, its state or its remains stand in the way.
    #[error("volume {volume} {what}")]
    Volume {
        /// The volume.
        volume: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A volume's header is not what was written.
    #[error("the header of volume {volume} is damaged ({what}): remove the volume or restore it")]
    Damaged {
        /// The volume.
        volume: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A running server refused, or could not do what it was told.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// Anything else that the text says in full.
    #[error("{0}")]
    Failed(String),
    /// Whoever reads the standard output has gone: nothing to say, and nobody to say it to.
    #[error("the output was closed")]
    OutputClosed,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// What the process ends with.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit_code::USAGE,
            Self::OpenStore(error) => open_exit_code(error),
            #[cfg(feature = "object-store")]
            Self::OpenObjectStore(ObjectStoreError::UnknownVersion { .. }) => exit_code::DAMAGED,
            #[cfg(feature = "object-store")]
            Self::OpenObjectStore(_) => exit_code::STORE,
            #[cfg(feature = "rados")]
            Self::OpenRados(_) => exit_code::STORE,
            Self::Store { source, .. } => backend_exit_code(source),
            Self::Cache { source, .. } => cache_exit_code(source),
            Self::Export { told, .. } => export_exit_code(*told),
            Self::Control(error) => control_exit_code(error.kind),
            Self::NoVolume { .. } | Self::Volume { .. } => exit_code::VOLUME,
            Self::Damaged { .. } => exit_code::DAMAGED,
            Self::Interrupted => exit_code::INTERRUPTED,
            Self::OutputClosed => 0,
            Self::File { .. } | Self::Failed(_) => exit_code::FAILED,
        }
    }

    /// The error of a store call, for `map_err`.
    pub(crate) fn store(doing: impl Into<String>) -> impl FnOnce(BackendError) -> Self {
        move |source| Self::Store {
            doing: doing.into(),
            source,
        }
    }

    /// The error of a cache call, for `map_err`.
    pub(crate) fn cache(doing: impl Into<String>) -> impl FnOnce(CacheError) -> Self {
        move |source| Self::Cache {
            doing: doing.into(),
            source,
        }
    }

    /// The error of a local file, for `map_err`.
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

impl From<RequestError> for CliError {
    fn from(error: RequestError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(format!("the limits do not fit each other: {error}"))
    }
}

const fn control_exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Malformed | ErrorKind::TooLong | ErrorKind::Limits | ErrorKind::Refused => {
            exit_code::USAGE
        }
        ErrorKind::NoVolume => exit_code::VOLUME,
        ErrorKind::Store => exit_code::STORE,
        ErrorKind::Slow | ErrorKind::Busy | ErrorKind::Lost | ErrorKind::Failed => {
            exit_code::FAILED
        }
    }
}

const fn export_exit_code(error: NbdError) -> u8 {
    match error {
        NbdError::Io | NbdError::NoSpace | NbdError::NotPermitted | NbdError::Shutdown => {
            exit_code::STORE
        }
        NbdError::Invalid | NbdError::Overflow | NbdError::NotSupported => exit_code::FAILED,
    }
}

/// What a client of the gateway is told, in words.
const fn export_reason(error: NbdError) -> &'static str {
    match error {
        NbdError::Io => "the store failed: check that it runs and can be reached, then try again",
        NbdError::NoSpace => "the store is full: make room there, then try again",
        NbdError::NotPermitted => "the store is read-only: make it writable, or use another",
        NbdError::Shutdown => {
            "it may be written no more: make sure that only one client writes to it"
        }
        NbdError::Invalid | NbdError::Overflow | NbdError::NotSupported => {
            "the request makes no sense"
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
const fn backend_exit_code(error: &BackendError) -> u8 {
    match error {
        BackendError::Unavailable
        | BackendError::TimedOut
        | BackendError::Full
        | BackendError::ReadOnly
        | BackendError::PermissionDenied
        | BackendError::Fenced => exit_code::STORE,
        BackendError::Corrupt { .. } => exit_code::DAMAGED,
        _ => exit_code::FAILED,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
const fn cache_exit_code(error: &CacheError) -> u8 {
    match error {
        CacheError::InvalidRequest(_) | CacheError::InvalidConfig(_) => exit_code::USAGE,
        CacheError::Read { source, .. }
        | CacheError::WriteBack { source, .. }
        | CacheError::Backend(source) => backend_exit_code(source),
        CacheError::Fenced { .. } => exit_code::STORE,
        _ => exit_code::FAILED,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
const fn open_exit_code(error: &FileStoreError) -> u8 {
    match error {
        FileStoreError::Damaged { .. } | FileStoreError::UnknownVersion { .. } => {
            exit_code::DAMAGED
        }
        _ => exit_code::STORE,
    }
}

/// An error with what caused it, in one line.
fn with_source(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// What a person can do about a store that does not do as it is told.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
const fn store_advice(error: &BackendError) -> &'static str {
    match error {
        BackendError::Unavailable | BackendError::TimedOut => {
            ": check that it runs and can be reached, then try again"
        }
        BackendError::Full => ": make room there, then try again",
        BackendError::ReadOnly => ": make it writable, or use another",
        BackendError::PermissionDenied => ": check who may read and write it",
        BackendError::Fenced => ": make sure that only one client writes to it",
        _ => "",
    }
}

/// A cache error with the store's reason behind it, in one line.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors are open-ended"
)]
fn cache_reason(error: &CacheError) -> String {
    match error {
        CacheError::Read { source, .. } | CacheError::WriteBack { source, .. } => {
            format!("{error}: {source}{}", store_advice(source))
        }
        CacheError::Backend(source) => format!("{source}{}", store_advice(source)),
        CacheError::Fenced { .. } => format!("{error}{}", store_advice(&BackendError::Fenced)),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fails_is_told_from_a_command_that_makes_no_sense() {
        let full = CliError::store("write x")(BackendError::Full);
        assert_eq!(full.exit_code(), exit_code::STORE);
        assert_eq!(
            full.to_string(),
            "cannot write x: the store is full: make room there, then try again"
        );
        let deep = CliError::cache("flush")(CacheError::Backend(BackendError::ReadOnly));
        assert_eq!(deep.exit_code(), exit_code::STORE);
        assert!(deep.to_string().contains("read-only"), "{deep}");
        let fenced = CacheError::Fenced {
            set: "vol".into(),
            unsaved_bytes: 7,
        };
        let fenced = CliError::cache("flush")(fenced);
        assert_eq!(fenced.exit_code(), exit_code::STORE);
        assert!(fenced.to_string().contains("only one client"), "{fenced}");
        assert_eq!(CliError::Usage(String::new()).exit_code(), exit_code::USAGE);
    }
}

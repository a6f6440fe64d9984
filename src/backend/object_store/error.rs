//! Why an object store can't be opened.

use crate::error::BackendError;

/// Why an object store can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectStoreError {
    /// The address makes no sense.
    #[error("bad address of an object store: {what}")]
    BadUrl {
        /// What is wrong and what to write.
        what: String,
    },
    /// Blocks of a size that no store has.
    #[error("blocks have a power of two from 4 KiB to 16 MiB, not {block_bytes} bytes")]
    BadBlockSize {
        /// What was asked for.
        block_bytes: u64,
    },
    /// There is no store at this place.
    #[error("there is no store at {place}")]
    NotAStore {
        /// The store and the prefix in it.
        place: String,
    },
    /// There is a store at this place already.
    #[error("there is a store at {place} already")]
    AlreadyExists {
        /// The store and the prefix in it.
        place: String,
    },
    /// The marker is not one that this version knows.
    #[error("the store at {place} has a marker of another version, or a damaged one")]
    UnknownVersion {
        /// The store and the prefix in it.
        place: String,
    },
    /// The store has blocks of another size.
    #[error("the store has blocks of {found} bytes, not {asked}")]
    OtherBlockSize {
        /// The size of its blocks.
        found: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The client could not be set up, as without credentials.
    #[error("cannot set up the client: {0}")]
    Client(#[from] ::object_store::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] std::io::Error),
    /// The store failed.
    #[error("cannot reach the store: {0}")]
    Store(#[from] BackendError),
}

//! What a server exports.

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::wire::NbdError;

/// What a read gives, in order.
pub type Pieces = Vec<Bytes>;

/// A stretch of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// How long it is.
    pub len: u64,
    /// Nothing is stored there, and it reads as zeros.
    pub is_hole: bool,
}

/// How zeros are to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZeroHow {
    /// Room must stay taken.
    pub no_hole: bool,
    /// Refuse with [`NbdError::NotSupported`] unless it is faster than writing them.
    pub fast_only: bool,
}

/// A disk. Ranges that it is given lie within its size and are not empty.
pub trait Export: Send + Sync + std::fmt::Debug {
    /// How large it is; stays the same.
    fn size_bytes(&self) -> u64;
    /// Whether all that changes it is refused.
    fn is_read_only(&self) -> bool;
    /// The block size that is best.
    fn preferred_block(&self) -> u32;
    /// Reads.
    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Pieces, NbdError>>;
    /// Writes; with `durable`, what was written survives a loss of power when this resolves.
    fn write(&self, offset: u64, data: Bytes, durable: bool)
    -> BoxFuture<'_, Result<(), NbdError>>;
    /// All that was answered before, on any connection, survives a loss of power when this resolves.
    fn flush(&self) -> BoxFuture<'_, Result<(), NbdError>>;
    /// Gives a range up; it reads as zeros when this resolves.
    fn trim(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>>;
    /// Makes a range read as zeros.
    fn zero(&self, offset: u64, len: u64, how: ZeroHow) -> BoxFuture<'_, Result<(), NbdError>>;
    /// Brings a range near.
    fn cache(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>>;
    /// What a range is made of, from its front; at least one stretch, and no more than the range.
    fn status(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Vec<Status>, NbdError>>;
}

//! The sole right to write: what a store gives to one of several clients that could write the same objects.

use std::fmt;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::BackendError;
use crate::types::ObjectName;

/// A request for the sole right to write some objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockRequest {
    /// The object that carries the lock. It need not exist.
    pub object: ObjectName,
    /// The lock covers the objects whose names start with this.
    pub prefix: String,
    /// Who asks, in one line, for the message that a second writer gets.
    pub holder: String,
    /// How long the lock outlives a holder that renews it no more.
    pub lease: Duration,
    /// Take the lock from whoever has it, once that one can write no more.
    pub breaking: bool,
}

/// Why a lock was not given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another client has it.
    #[error("{holder} is writing there")]
    Held {
        /// That client, in its own words.
        holder: String,
    },
    /// The store failed; whether the lock was taken is not known, and a lock that was goes with its lease.
    #[error(transparent)]
    Store(#[from] BackendError),
}

/// What a store keeps for a lock that it gave.
pub trait HeldLock: Send + Sync + fmt::Debug {
    /// Whether another client has taken the lock, or the lease ran out.
    fn is_lost(&self) -> bool;

    /// Gives the lock back; a lock that is lost stays with its new holder. The lock is renewed no more from the
    /// call on, even where the future is dropped.
    ///
    /// # Errors
    /// Any; then the lock goes with its lease.
    fn release(self: Box<Self>) -> BoxFuture<'static, Result<(), BackendError>>;
}

/// The sole right to write some objects, renewed until it is released. Dropping it ends the renewing, so that it
/// goes with its lease.
#[derive(Debug)]
pub struct WriterLock(Option<Box<dyn HeldLock>>);

impl WriterLock {
    /// A lock that the store keeps.
    #[must_use]
    pub fn new(held: Box<dyn HeldLock>) -> Self {
        Self(Some(held))
    }

    /// The lock of a store that has but one client for as long as it is open.
    #[must_use]
    pub const fn not_needed() -> Self {
        Self(None)
    }

    /// Whether another client has taken the lock, or the lease ran out: writes are answered
    /// [`BackendError::Fenced`] then.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.is_lost())
    }

    /// Gives the lock back, after the last write.
    ///
    /// # Errors
    /// Any; then the lock goes with its lease.
    pub fn release(self) -> BoxFuture<'static, Result<(), BackendError>> {
        match self.0 {
            Some(held) => held.release(),
            None => std::future::ready(Ok(())).boxed(),
        }
    }
}

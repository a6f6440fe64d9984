//! A run in eight bytes: two runs that did the same have the same digest.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A running hash of everything that happened.
#[derive(Clone, Default)]
pub(crate) struct Digest(DefaultHasher);

impl Digest {
    pub(crate) fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.0);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.finish()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.value())
    }
}

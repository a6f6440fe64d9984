//! The sets that are open, by name: the one concurrent map of names. Gives out clones, never guards.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::shared::SetShared;
use crate::types::SetId;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Directory {
    /// Hashed alike in every run and on every machine: the order of sets decides who is asked first.
    sets: DashMap<SetId, Arc<SetShared>, foldhash::fast::FixedState>,
}

/// A power of two.
const SHARDS: usize = 16;

impl Default for Directory {
    fn default() -> Self {
        let hasher = foldhash::fast::FixedState::default();
        Self {
            sets: DashMap::with_hasher_and_shard_amount(hasher, SHARDS),
        }
    }
}

impl Directory {
    /// The set of this name, if it is open.
    pub(crate) fn find(&self, id: &SetId) -> Option<Arc<SetShared>> {
        self.sets.get(id).map(|set| set.value().clone())
    }

    /// Enters a set, unless one of its name is there, which is then returned.
    pub(crate) fn enter(&self, set: &Arc<SetShared>) -> Option<Arc<SetShared>> {
        match self.sets.entry(set.id.clone()) {
            Entry::Occupied(known) => Some(known.get().clone()),
            Entry::Vacant(place) => {
                place.insert(set.clone());
                None
            }
        }
    }

    /// Takes a set out, unless another has taken its name.
    pub(crate) fn remove(&self, set: &Arc<SetShared>) {
        self.sets
            .remove_if(&set.id, |_, known| Arc::ptr_eq(known, set));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// All sets.
    pub(crate) fn sets(&self) -> Vec<Arc<SetShared>> {
        self.sets.iter().map(|set| set.value().clone()).collect()
    }
}

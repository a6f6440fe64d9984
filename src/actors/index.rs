//! Where a set's windows are found: the concurrent index that every hit asks, without a lock.

use std::sync::Arc;

use super::cell::Cell;
use crate::engine::{WindowKey, WindowName};

#[cfg(not(all(test, any(model = "shuttle", model = "loom"))))]
mod shipped {
    use super::{Arc, Cell, WindowKey, WindowName};

    type Map = papaya::HashMap<WindowKey, Arc<Cell>, foldhash::fast::RandomState>;
    type Pin<'a> = papaya::HashMapRef<
        'a,
        WindowKey,
        Arc<Cell>,
        foldhash::fast::RandomState,
        papaya::LocalGuard<'a>,
    >;

    /// See the [module](super).
    #[derive(Debug)]
    pub(in crate::actors) struct Index(Map);

    /// Lends cells, which live on until it is dropped.
    #[derive(Debug)]
    pub(in crate::actors) struct Pinned<'a>(Pin<'a>);

    impl Default for Index {
        fn default() -> Self {
            // Each index has a collector of its own: one that is dropped frees all that its collector holds.
            let map = papaya::HashMap::builder()
                .capacity(0)
                .hasher(foldhash::fast::RandomState::default())
                .build();
            Self(map)
        }
    }

    impl papaya::Equivalent<WindowKey> for WindowName<'_> {
        fn equivalent(&self, key: &WindowKey) -> bool {
            *self == key.name()
        }
    }

    impl Index {
        #[inline]
        pub(in crate::actors) fn pin(&self) -> Pinned<'_> {
            Pinned(self.0.pin())
        }
    }

    impl Pinned<'_> {
        #[inline]
        pub(in crate::actors) fn get(&self, name: WindowName<'_>) -> Option<&Arc<Cell>> {
            self.0.get(&name)
        }

        /// The cell of this name, made when there is none.
        pub(in crate::actors) fn open(&self, name: WindowName<'_>) -> &Arc<Cell> {
            match self.0.get(&name) {
                Some(cell) => cell,
                None => self.0.get_or_insert_with(name.into(), Arc::default),
            }
        }

        pub(in crate::actors) fn remove(&self, key: &WindowKey) {
            self.0.remove(key);
        }

        /// Removes this cell, unless another has taken its place.
        pub(in crate::actors) fn remove_if_same(&self, key: &WindowKey, cell: &Arc<Cell>) {
            self.0
                .remove_if(key, |_, known| Arc::ptr_eq(known, cell))
                .ok();
        }

        /// All that were there before, and some of those that come meanwhile.
        pub(in crate::actors) fn for_each(&self, mut visit: impl FnMut(&WindowKey, &Arc<Cell>)) {
            for (key, cell) in &self.0 {
                visit(key, cell);
            }
        }
    }
}

/// For models: each operation is one step, and iterating meets nothing that comes later.
#[cfg(all(test, any(model = "shuttle", model = "loom")))]
mod modelled {
    use std::collections::BTreeMap;

    use super::{Arc, Cell, WindowKey, WindowName};
    use crate::actors::sync::Mutex;

    /// See the [module](super).
    #[derive(Debug, Default)]
    pub(in crate::actors) struct Index(Mutex<BTreeMap<WindowKey, Arc<Cell>>>);

    #[derive(Debug)]
    pub(in crate::actors) struct Pinned<'a>(&'a Index);

    impl Index {
        pub(in crate::actors) const fn pin(&self) -> Pinned<'_> {
            Pinned(self)
        }
    }

    impl Pinned<'_> {
        pub(in crate::actors) fn get(&self, name: WindowName<'_>) -> Option<Arc<Cell>> {
            self.0.0.lock().get(&name.into()).cloned()
        }

        pub(in crate::actors) fn open(&self, name: WindowName<'_>) -> Arc<Cell> {
            let mut cells = self.0.0.lock();
            cells.entry(name.into()).or_default().clone()
        }

        pub(in crate::actors) fn remove(&self, key: &WindowKey) {
            self.0.0.lock().remove(key);
        }

        pub(in crate::actors) fn remove_if_same(&self, key: &WindowKey, cell: &Arc<Cell>) {
            let mut cells = self.0.0.lock();
            if cells.get(key).is_some_and(|known| Arc::ptr_eq(known, cell)) {
                cells.remove(key);
            }
        }

        pub(in crate::actors) fn for_each(&self, mut visit: impl FnMut(&WindowKey, &Arc<Cell>)) {
            let cells = self.0.0.lock().clone();
            for (key, cell) in &cells {
                visit(key, cell);
            }
        }
    }
}

#[cfg(all(test, any(model = "shuttle", model = "loom")))]
pub(super) use modelled::Index;
#[cfg(not(all(test, any(model = "shuttle", model = "loom"))))]
pub(super) use shipped::Index;

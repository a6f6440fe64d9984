//! What is known of objects: one lane each, in which changes follow each other, and the head as last seen.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::head::Head;
use crate::types::ObjectName;

/// One object, as this client knows it.
#[derive(Debug, Default)]
pub(super) struct Object {
    /// Held by whatever changes the object, to its end.
    pub(super) lane: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// `Some(None)`: the object is known to be absent.
    head: Option<Option<Head>>,
    /// Counts what was learned and forgotten.
    changes: u64,
}

impl Object {
    /// The head, if it is known; `Some(None)` for an object known to be absent.
    pub(super) fn head(&self) -> Option<Option<Head>> {
        self.seen.lock().head
    }

    /// What [`Self::learn`] needs, taken before the head is fetched.
    pub(super) fn changes(&self) -> u64 {
        self.seen.lock().changes
    }

    /// Keeps a head that was fetched, unless something became known or was forgotten meanwhile.
    pub(super) fn learn(&self, changes: u64, head: Option<Head>) {
        let mut seen = self.seen.lock();
        if seen.changes == changes {
            seen.head = Some(head);
            seen.changes += 1;
        }
    }

    /// Keeps a head that was stored.
    pub(super) fn set(&self, head: Option<Head>) {
        let mut seen = self.seen.lock();
        seen.head = Some(head);
        seen.changes += 1;
    }

    /// Forgets the head, because it may have changed.
    pub(super) fn forget(&self) {
        let mut seen = self.seen.lock();
        seen.head = None;
        seen.changes += 1;
    }
}

/// The objects that were used lately.
#[derive(Debug)]
pub(super) struct Objects {
    known: Mutex<HashMap<ObjectName, Arc<Object>, foldhash::fast::RandomState>>,
    objects_max: usize,
}

impl Objects {
    /// Keeps at most so many that nobody uses.
    pub(super) fn new(objects_max: usize) -> Self {
        Self {
            known: Mutex::default(),
            objects_max,
        }
    }

    pub(super) fn find(&self, name: &ObjectName) -> Arc<Object> {
        let mut known = self.known.lock();
        if let Some(object) = known.get(name) {
            return Arc::clone(object);
        }
        if known.len() >= self.objects_max.max(1) {
            let mut surplus = known.len() / 2 + 1;
            known.retain(|_, object| {
                let goes = surplus > 0 && Arc::strong_count(object) == 1;
                surplus -= usize::from(goes);
                !goes
            });
        }
        let object = Arc::new(Object::default());
        known.insert(name.clone(), Arc::clone(&object));
        object
    }

    /// Forgets what is known of the objects whose names start with `prefix`: another may have written them.
    pub(super) fn forget(&self, prefix: &str) {
        let known = self.known.lock();
        let mut ours: Vec<_> = known.iter().collect();
        ours.retain(|(name, _)| name.as_str().starts_with(prefix));
        for (_, object) in ours {
            object.forget();
        }
    }
}

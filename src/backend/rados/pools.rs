//! One view of the pool for each snapshot that is read, and for each set of snapshots that writes are made under.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use cachalot_librados::{Cluster, Errno, Pool, PoolView};
use parking_lot::Mutex;

use crate::types::{SnapContext, SnapId};

/// How many views beside the plain one are kept open of each kind.
const VIEWS_MAX: usize = 16;

/// The views of a pool and namespace.
pub(super) struct Pools {
    cluster: Cluster,
    name: CString,
    namespace: CString,
    /// Reads the head, writes under no snapshots.
    plain: Arc<Pool>,
    /// The one used last comes last.
    reading: Mutex<Vec<(u64, Arc<Pool>)>>,
    writing: Mutex<Vec<(SnapContext, Arc<Pool>)>>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Pools {
    pub(super) fn open(cluster: Cluster, name: CString, namespace: CString) -> Result<Self, Errno> {
        let view = PoolView {
            namespace: namespace.clone(),
            ..PoolView::default()
        };
        let plain = Arc::new(Pool::open(&cluster, &name, &view)?);
        Ok(Self {
            cluster,
            name,
            namespace,
            plain,
            reading: Mutex::default(),
            writing: Mutex::default(),
        })
    }

    pub(super) const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) const fn plain(&self) -> &Arc<Pool> {
        &self.plain
    }

    /// The same pool with another namespace.
    pub(super) fn beside(&self, namespace: CString) -> Result<Arc<Pool>, Errno> {
        self.view(PoolView {
            namespace,
            ..PoolView::default()
        })
    }

    fn view(&self, view: PoolView) -> Result<Arc<Pool>, Errno> {
        Pool::open(&self.cluster, &self.name, &view).map(Arc::new)
    }

    /// The view that reads at a snapshot.
    pub(super) fn at(&self, snap: SnapId) -> Result<Arc<Pool>, Errno> {
        let Some(number) = snap.number() else {
            return Ok(Arc::clone(&self.plain));
        };
        find(&self.reading, &number, || {
            self.view(PoolView {
                namespace: self.namespace.clone(),
                read_snap: Some(number),
                write_under: None,
            })
        })
    }

    /// The view that writes under a context.
    pub(super) fn under(&self, context: &SnapContext) -> Result<Arc<Pool>, Errno> {
        if context.seq == 0 {
            return Ok(Arc::clone(&self.plain));
        }
        find(&self.writing, context, || {
            self.view(PoolView {
                namespace: self.namespace.clone(),
                read_snap: None,
                write_under: Some((context.seq, context.snaps.to_vec())),
            })
        })
    }
}

/// The view for a key, made where it is not open. Those that nobody asked for in a while are closed.
fn find<K: Clone + PartialEq>(
    views: &Mutex<Vec<(K, Arc<Pool>)>>,
    key: &K,
    make: impl FnOnce() -> Result<Arc<Pool>, Errno>,
) -> Result<Arc<Pool>, Errno> {
    let mut views = views.lock();
    let found = match views.iter().rposition(|(other, _)| other == key) {
        Some(at) => views.remove(at),
        None => (key.clone(), make()?),
    };
    let pool = Arc::clone(&found.1);
    if views.len() == VIEWS_MAX {
        views.remove(0);
    }
    views.push(found);
    Ok(pool)
}

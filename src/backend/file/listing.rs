//! Names in order, out of a tree that is ordered by hash.
//!
//! A listing has to read the header of every file: some microseconds each when they are in memory, a disk access
//! each when not. So one scan keeps more names than the page needs, the smallest ones that fit into some MiB, and
//! the pages that follow are served from them. Creating and removing keeps those names up to date.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::fs::Dir;

use super::header::Decoded;
use super::naming::{Leaf, NameHash, Slot};
use super::tree::{Tree, failed, read_header};
use crate::backend::ListPage;
use crate::error::BackendError;
use crate::types::ObjectName;

/// The memory that names kept for the next pages may take.
pub(super) const KEPT_BYTES_MAX: usize = 16 << 20;
/// What a kept name costs beside its text.
const NAME_BYTES: usize = 48;
/// Above this many changes during a scan, its names are not kept.
const CHANGES_MAX: usize = 1 << 16;

/// All names that start with `prefix` and come after `after`, up to the last one held or, if `whole`, to the end.
#[derive(Debug)]
struct Window {
    prefix: String,
    after: Option<ObjectName>,
    names: BTreeSet<ObjectName>,
    names_bytes: usize,
    whole: bool,
}

impl Window {
    const fn new(prefix: String, after: Option<ObjectName>) -> Self {
        Self {
            prefix,
            after,
            names: BTreeSet::new(),
            names_bytes: 0,
            whole: true,
        }
    }

    fn add(&mut self, name: &ObjectName) {
        let beyond = !self.whole && self.names.last().is_none_or(|last| name > last);
        let before = self.after.as_ref().is_some_and(|after| name <= after);
        let wanted = !beyond && !before && name.as_str().starts_with(&self.prefix);
        if wanted && self.names.insert(name.clone()) {
            self.names_bytes += NAME_BYTES + name.as_str().len();
        }
    }

    fn remove(&mut self, name: &ObjectName) {
        if self.names.remove(name) {
            self.names_bytes -= NAME_BYTES + name.as_str().len();
        }
    }

    /// Gives up the largest names until the rest fits, but keeps `names_min`.
    fn shrink(&mut self, bytes_max: usize, names_min: usize) {
        while self.names_bytes > bytes_max && self.names.len() > names_min {
            if let Some(last) = self.names.pop_last() {
                self.names_bytes -= NAME_BYTES + last.as_str().len();
                self.whole = false;
            }
        }
    }

    /// The page after `after`; `None` when it reaches beyond this window.
    fn page(&self, after: Option<&ObjectName>, names_max: usize) -> Option<ListPage> {
        let start = after.map_or(Unbounded, Excluded);
        let names = self.names.range::<ObjectName, _>((start, Unbounded));
        let mut names: Vec<ObjectName> = names.take(names_max.saturating_add(1)).cloned().collect();
        let more = names.len() > names_max;
        names.truncate(names_max);
        (more || self.whole).then_some(ListPage { names, more })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Created,
    Removed,
}

/// What happened while a scan ran.
#[derive(Default, Debug)]
struct Changes {
    names: Vec<(ObjectName, Change)>,
    too_many: bool,
    /// A file changed its place: the scan may have missed it.
    moved: bool,
}

#[derive(Default, Debug)]
struct State {
    window: Option<Window>,
    scan: Option<Changes>,
}

/// The listings of a store.
#[derive(Debug)]
pub(super) struct Listing {
    state: Mutex<State>,
    kept_bytes_max: usize,
}

impl Listing {
    pub(super) fn new(kept_bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            kept_bytes_max,
        }
    }

    /// A name now exists.
    pub(super) fn created(&self, name: &ObjectName) {
        self.change(name, Change::Created);
    }

    /// A name no longer exists.
    pub(super) fn removed(&self, name: &ObjectName) {
        self.change(name, Change::Removed);
    }

    fn change(&self, name: &ObjectName, change: Change) {
        let mut state = self.state.lock();
        if let Some(window) = &mut state.window {
            match change {
                Change::Created => window.add(name),
                Change::Removed => window.remove(name),
            }
            window.shrink(self.kept_bytes_max, 0);
        }
        if let Some(scan) = &mut state.scan {
            if scan.names.len() < CHANGES_MAX {
                scan.names.push((name.clone(), change));
            } else {
                scan.too_many = true;
            }
        }
    }

    /// A file went to another place in the tree.
    pub(super) fn moved(&self) {
        if let Some(scan) = &mut self.state.lock().scan {
            scan.moved = true;
        }
    }

    /// One page. Only one thread may be in here.
    pub(super) fn page(
        &self,
        tree: &Tree,
        hash: NameHash,
        query: &Query,
    ) -> Result<ListPage, BackendError> {
        let Query {
            prefix,
            after,
            names_max,
        } = query;
        loop {
            {
                let mut state = self.state.lock();
                if let Some(window) = &state.window
                    && window.prefix == *prefix
                    && window.after <= *after
                    && let Some(page) = window.page(after.as_ref(), *names_max)
                {
                    return Ok(page);
                }
                state.window = None;
                state.scan = Some(Changes::default());
            }
            let names_min = names_max.saturating_add(1);
            let mut window = Window::new(prefix.clone(), after.clone());
            let scanned = scan(tree, hash, |name| {
                window.add(&name);
                window.shrink(self.kept_bytes_max, names_min);
            });
            let mut state = self.state.lock();
            let changes = state.scan.take().unwrap_or_default();
            scanned?;
            if changes.moved {
                continue;
            }
            for (name, change) in &changes.names {
                match change {
                    Change::Created => window.add(name),
                    Change::Removed => window.remove(name),
                }
            }
            if let Some(page) = window.page(after.as_ref(), *names_max) {
                window.shrink(self.kept_bytes_max, 0);
                state.window = (page.more && !changes.too_many).then_some(window);
                return Ok(page);
            }
        }
    }
}

/// What is asked of a listing.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) after: Option<ObjectName>,
    pub(super) names_max: usize,
}

/// Reads every object's name, in no order.
fn scan(
    tree: &Tree,
    hash: NameHash,
    mut found: impl FnMut(ObjectName),
) -> Result<(), BackendError> {
    for entry in Dir::read_from(tree.objects()).map_err(|errno| failed("list objects", errno))? {
        let entry = entry.map_err(|errno| failed("list objects", errno))?;
        let Some(leaf) = Leaf::parse(entry.file_name().to_bytes()) else {
            continue;
        };
        let directory = tree.open_leaf(leaf);
        let directory = directory.map_err(|error| BackendError::from_io("list objects", &error))?;
        if let Some(directory) = directory {
            scan_leaf(tree, leaf, directory, |slot, name| {
                if hash(name.as_str().as_bytes()) != slot.hash {
                    return Err(BackendError::Corrupt {
                        what: "its file lies in the place of another",
                    });
                }
                found(name);
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn scan_leaf(
    tree: &Tree,
    leaf: Leaf,
    directory: OwnedFd,
    mut found: impl FnMut(Slot, ObjectName) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    for entry in Dir::new(directory).map_err(|errno| failed("list objects", errno))? {
        let entry = entry.map_err(|errno| failed("list objects", errno))?;
        if let Some(slot) = Slot::parse(leaf, entry.file_name().to_bytes())
            && let Some(file) = tree.open_slot(slot)?
            && let Decoded::Whole(header) = read_header(&file)?
        {
            found(slot, header.name)?;
        }
    }
    Ok(())
}

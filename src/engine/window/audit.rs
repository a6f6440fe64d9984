//! Checking a window against itself (rule B-02).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Totals, WINDOW_BYTES, Window};
use crate::buf::Slab;
use crate::engine::extent::ExtentState;

impl Window {
    /// The slabs, each with how many of its bytes are pointed at.
    pub(super) fn usage(&self) -> Vec<(&Slab, u64)> {
        let mut usage: BTreeMap<*const Slab, (&Slab, u64)> = BTreeMap::new();
        let extents = self
            .extents
            .from(0)
            .iter()
            .filter_map(|extent| Some((extent.slab.as_ref()?, extent.len)));
        let overtaken = self.overtaken.iter().map(|part| (&part.slab, part.bytes));
        for (slab, bytes) in extents.chain(overtaken) {
            usage.entry(Arc::as_ptr(slab)).or_insert((slab, 0)).1 += u64::from(bytes);
        }
        usage.into_values().collect()
    }

    /// Recounts everything and names the first thing that is wrong (rule B-02).
    pub(crate) fn audit(&self) -> Result<(), &'static str> {
        if !self.extents.is_whole() {
            return Err("the window's arrays differ in length");
        }
        let mut end = 0;
        let mut totals = Totals::default();
        let mut journaled = 0;
        for (span, extent) in self.iter() {
            if extent.len == 0 || span.start < end || u64::from(span.end) > WINDOW_BYTES {
                return Err("extents are empty, overlap or leave their window");
            }
            end = span.end;
            totals.count(extent.state.kind(), extent.len, 1);
            journaled += u32::from(extent.state.is_journaled());
            let wants_bytes =
                extent.state.written().is_some() || *extent.state == ExtentState::Clean;
            if wants_bytes != extent.slab.is_some() {
                return Err("an extent has bytes that its state does not allow, or none");
            }
            if let Some(slab) = &extent.slab
                && slab.slice(extent.at, extent.len).is_none()
            {
                return Err("an extent points outside its memory");
            }
            if matches!(extent.state, ExtentState::Dirty(_)) && !self.listed {
                return Err("a window with dirty bytes is not listed");
            }
        }
        let mut allocated = 0;
        for (slab, pointed) in self.usage() {
            if pointed != u64::from(slab.live()) {
                return Err("a slab's live bytes differ from what points at it");
            }
            allocated += slab.bytes().len() as u64;
        }
        if allocated != self.slabs.allocated_bytes() {
            return Err("the allocated bytes differ from a recount");
        }
        let carried: u64 = self
            .overtaken
            .iter()
            .map(|part| u64::from(part.bytes))
            .sum();
        if carried != self.overtaken_bytes {
            return Err("the count of overtaken bytes differs from a recount");
        }
        if totals != self.totals || journaled != self.journaled {
            return Err("the window's counts differ from a recount");
        }
        Ok(())
    }
}

//! Checking a window against itself (rule B-02).

use std::collections::BTreeMap;

use super::{Totals, WINDOW_BYTES, Window};
use crate::engine::extent::ExtentState;
use crate::engine::slab::SlabId;

impl Window {
    /// Recounts everything and names the first thing that is wrong (rule B-02).
    pub(crate) fn audit(&self) -> Result<(), &'static str> {
        if self.starts.len() != self.extents.len() {
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
            journaled += u32::from(extent.state.written().is_some_and(|w| w.journal.is_some()));
            let wants_bytes =
                extent.state.written().is_some() || extent.state == ExtentState::Clean;
            if wants_bytes != extent.slab.is_some() {
                return Err("an extent has bytes that its state does not allow, or none");
            }
            if let Some(slab) = extent.slab
                && self.slabs.slice(slab, extent.at, extent.len).is_none()
            {
                return Err("an extent points outside its memory");
            }
            if matches!(extent.state, ExtentState::Dirty(_)) && !self.listed {
                return Err("a window with dirty bytes is not listed");
            }
        }
        let mut pointed: BTreeMap<SlabId, u64> = BTreeMap::new();
        for extent in &self.extents {
            if let Some(slab) = extent.slab {
                *pointed.entry(slab).or_default() += u64::from(extent.len);
            }
        }
        for part in &self.overtaken {
            *pointed.entry(part.slab).or_default() += u64::from(part.bytes);
        }
        for (id, live, _) in self.slabs.usage() {
            if pointed.get(&id) != Some(&u64::from(live)) {
                return Err("a slab's live bytes differ from what points at it");
            }
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

//! From a run that fails to a short one that still does.

use std::collections::BTreeSet;

use crate::plan::Plan;
use crate::run;

/// Leaves out as many steps as it can, in at most so many runs, so that the run still fails. Returns those that stay.
#[must_use]
pub fn shrink(plan: &Plan, runs_max: u32) -> BTreeSet<u32> {
    let mut kept: Vec<u32> = plan.step_ids();
    let mut runs = 0;
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 && runs < runs_max {
        let (mut at, mut has_shrunk) = (0, false);
        while at < kept.len() && runs < runs_max {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + chunk).min(fewer.len()));
            runs += 1;
            if run(&plan.only(&fewer.iter().copied().collect()), false)
                .failure
                .is_some()
            {
                kept = fewer;
                has_shrunk = true;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 && !has_shrunk {
            break;
        }
        chunk = if chunk == 1 { 1 } else { chunk.div_ceil(2) };
    }
    kept.into_iter().collect()
}

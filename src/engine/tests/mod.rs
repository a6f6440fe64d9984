//! The engine under test: every rule that it decides, every scenario that lives at its level, and random runs against
//! a model.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    reason = "tests reckon with small numbers and panic on what they don't expect"
)]
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        unused_imports,
        missing_docs,
        reason = "the fuzz target needs only some of it"
    )
)]

#[cfg(test)]
mod absence;
mod door;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod eviction;
#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod fence;
#[cfg(test)]
mod flushes;
#[cfg(test)]
mod hints;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod limits;
mod make;
mod model;
#[cfg(test)]
mod order;
mod random;
#[cfg(test)]
mod reads;
mod rig;
mod shelf;
#[cfg(test)]
mod snapshots;
mod store;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod until_flush;
#[cfg(test)]
mod write_back;
#[cfg(test)]
mod writes;

pub(crate) use random::fuzz;

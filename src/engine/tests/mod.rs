//! The engine under test: every rule that it decides, every scenario that lives at its level, and random runs against
//! a model.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    reason = "tests reckon with small numbers and panic on what they don't expect"
)]

mod absence;
mod door;
mod drops;
mod eviction;
mod exhaustive;
mod flushes;
mod hints;
mod journal;
mod limits;
mod make;
mod model;
mod random;
mod reads;
mod rig;
mod shelf;
mod snapshots;
mod store;
mod traces;
mod write_back;
mod writes;

//! The engine under test: every rule that it decides, every scenario that lives at its level, and random runs against
//! a model.

#![expect(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "tests reckon with small numbers and panic on what they don't expect"
)]

mod door;
mod make;
mod model;
mod random;
mod rig;
mod shelf;
mod store;

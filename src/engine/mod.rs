//! The cache's rules as plain code: commands and completions go in, actions come out.
//!
//! The law of this layer: no async, no I/O, no clock, no lock, no randomness, no log. Time and ids are arguments. The
//! same calls give the same actions. What several sets or callers share (windows, room, gauges) is reached through
//! the [`Shelf`]. The one atomic is an extent's recency mark, since hits set it under a shared lock.
//!
//! One [`SetEngine`] serves one set. It knows *objects*, each cut into *windows* of 256 KiB, each with
//! its *extents*: byte ranges in one state. A window is what one lock guards: callers enter it through the door for
//! hits and absorbed writes, the engine for everything else.
//!
//! # States of an extent and all transitions
//!
//! | from \ event | write | fetch starts | fetch ends | absent | writeback starts | stored | not stored | discard, purge, truncate | release, eviction |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | gap | Dirty | Rx | | Zero when the object is complete and read | | | | | |
//! | Clean | Dirty | | | | | | | gap | gap |
//! | Zero | Dirty | | | gap (1) | | | | gap | gap |
//! | Dirty | Dirty | | stays (2) | stays | Tx | | | gap (3) | stays |
//! | Rx | Dirty | | Clean, Zero past the answer's end, Error | gap | | | | gap (4) | stays |
//! | Tx | Dirty (5) | | | stays | | Clean | Dirty, after a pause | gap (5) | stays |
//! | Error | Dirty | Rx | | gap | | | | gap | gap |
//!
//! 1. Only if nothing but Zero and Rx is cached of the object.
//! 2. A fetch fills only what is still Rx under its own tid. Reads that lacked no more than was written are answered then.
//! 3. Journal entries of bytes that go are reported as overwritten.
//! 4. Reads that wait are looked at again when the fetch ends, and fetch anew.
//! 5. The writeback carries the older bytes to its end; they stay charged until then, and no other writeback or fetch of
//!    the range starts before it.
//!
//! Parts of an extent take a transition by splitting it at the edges. Ends of fetches and writebacks name their tid;
//! a tid that is no longer under way changes nothing.

#![deny(clippy::disallowed_types, clippy::iter_over_hash_type)]

mod action;
mod audit;
mod batch;
mod discard;
mod eviction;
mod examine;
mod extent;
mod fence;
mod fetch;
mod flush;
mod flush_list;
mod ghost;
mod keep;
mod layout;
mod object;
mod places;
mod read;
mod set;
mod shelf;
mod slab;
#[cfg(test)]
mod tests;
#[cfg(all(fuzzing, not(test)))]
mod tests;
mod trim;
mod watch;
mod window;
mod write;
mod write_back;
mod write_end;

pub use action::Flushed;
pub(crate) use action::{Action, Reply, WaiterId};
pub use audit::{AuditFailure, BufferListing, ObjectListing, Recount};
pub use extent::BufferState;
pub(crate) use extent::{OpId, Written};
pub use layout::{FileRanges, Layout, ObjectRuns, Run, Runs};
pub(crate) use object::{WindowKey, WindowName, sole_span, spans};
pub(crate) use places::{Parts, join_places, split_by_place};
pub(crate) use set::{EngineLimits, EngineOptions, SetEngine};
pub use shelf::Counter;
pub(crate) use shelf::Shelf;
pub(crate) use window::{
    Access, EXTENT_OVERHEAD_BYTES, Put, Settlement, Source, Span, WINDOW_BYTES, Window,
};
pub use window::{Charge, Totals};
pub(crate) use write::{extent_charge, put_charge, slices};
pub(crate) use write_back::Demand;

#[cfg(any(test, fuzzing))]
pub(crate) use tests::fuzz as fuzz_engine;
#[cfg(any(test, fuzzing))]
pub(crate) use window::fuzz as fuzz_window;

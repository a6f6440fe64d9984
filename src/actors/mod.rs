//! The actors, and what their threads share with those of the callers.
//!
//! ```text
//! callers ──door──> SetShared: windows, lists, books          Common: ledger, clock, backend
//!    │                   ▲                                        ▲
//!    └──messages──> ObjectSetActor (engine, driver) ──────────────┤
//!                        ▲ write back, give back                  │
//!                   FlusherActor, TrimActor ──────────────────────┘
//! ```
//!
//! Each [`ObjectSetActor`] owns one set and lives on one of the cache's arbiters. The
//! flusher and the trimmer live on the first of them and hold no truth: they read levels and send demands, which may
//! be lost and are then repeated.
//!
//! **Shutdown.** [`Cache::close`](crate::Cache::close) asks every set to stop: it takes no new writes and no reads that miss,
//! flushes, waits for every fetch and writeback, and only then ends its context; after the sets, the flusher and the
//! trimmer are told to end. Nothing else stops an actor; one that ends otherwise has failed, and its `Drop` answers for
//! it.

mod bell;
mod books;
mod budget;
mod cell;
mod claims;
mod directory;
mod driver;
mod flusher;
mod handlers;
mod index;
mod ledger;
pub(crate) mod message;
#[cfg(all(test, any(model = "shuttle", model = "loom")))]
mod models;
mod object_set;
mod outbox;
mod plan;
mod shared;
mod shelf;
mod state;
mod stopping;
mod stranded;
mod sync;
mod tell;
mod trimmer;

pub use books::{Counters, Gauges};
pub(crate) use cell::{DoorExtent, DoorWrite, Entered};
pub(crate) use directory::Directory;
pub(crate) use flusher::FlusherActor;
pub use object_set::ObjectSetActor;
pub(crate) use shared::{Common, SetShared};
pub(crate) use state::SetState;
pub(crate) use tell::tell;
pub(crate) use trimmer::TrimActor;

//! Cachalot: a client-side write-back object cache built of actors.
//!
//! A file or disk image is striped over objects of a slow or distant store. A [`Cache`] keeps parts of those objects
//! in memory, absorbs writes, joins them, and writes them back in the background.
//!
//! ```text
//!                     your threads and tasks
//!                               │
//!               Cache ── ObjectSet handles ──────────────┐
//!                               │                        │ hits and absorbed writes: in your
//!          all that waits: messages                      │ thread, through the door
//!                               ▼                        ▼
//!   flusher ──"write back"──▶ actor of set 1 ──── windows of set 1
//!   trimmer ──"give back"───▶ actor of set 2 ──── windows of set 2
//!                               │    ▲
//!             fetch, write back ▼    │ ends
//!                             Backend: memory, files, your own
//! ```
//!
//! # Example
//! ```
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use cachalot::backend::MemoryBackend;
//! use cachalot::{Cache, CacheError, SetOptions};
//!
//! # futures::executor::block_on(async {
//! let cache = Cache::builder(Arc::new(MemoryBackend::new())).start()?;
//! let volume = cache.open(SetOptions::new("volume")).await?;
//! volume.write_at(1 << 20, Bytes::from_static(b"call me Ishmael")).await?;
//!
//! assert!(volume.status().await?.is_dirty_or_committing);
//! assert_eq!(volume.read_at((1 << 20) + 8, 7).await?.into_bytes(), "Ishmael");
//!
//! volume.flush().await?;
//! assert!(!volume.status().await?.is_dirty_or_committing);
//! cache.close().await?;
//! # Ok::<(), CacheError>(())
//! # })?;
//! # Ok::<(), CacheError>(())
//! ```
//!
//! # Words
//! - **Object**: a named string of bytes in the store, cached piecewise.
//! - **Set**: the objects of one file or volume, opened under a name. One actor owns it.
//! - **Layout**: how a set's file is striped over its numbered objects.
//! - **Extent**: a range of bytes of one object; what requests are made of.
//! - **Buffer**: a cached range in one [state](BufferState).
//! - **Window**: 256 KiB of an object, with the lock that guards them.
//! - **Door**: the way in which callers' threads enter windows, for hits and absorbed writes.
//! - **Room**: what the limits bound, reserved before data enters.
//! - **Fetch**: a read from the store. **Writeback**: a write to it. **Tid**: the number of one of them.
//! - **Flush**: a caller's wait for writebacks. **Trim**: dropping clean bytes. **Discard**: dropping bytes unwritten.
//!
//! Numbers such as "rule R-07" are those of the table in `docs/TESTING.md`; `docs/SEMANTICS.md` says what they add up
//! to, `docs/ARCHITECTURE.md` how it is done.

mod actors;
pub mod backend;
mod buf;
mod cache;
mod clock;
mod config;
mod engine;
mod error;
#[cfg(test)]
mod fuzz;
#[cfg(all(fuzzing, not(test)))]
#[doc(hidden)]
pub mod fuzz;
mod io;
mod object_set;
mod options;
mod request;
mod types;

pub use actors::{Counters, Gauges, ObjectSetActor};
pub use buf::{Piece, ReadBuf};
pub use cache::{Cache, CacheBuilder, CacheDump, CacheStats, CloseProgress};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{CacheConfig, Limits};
pub use engine::{
    AuditFailure, BufferListing, BufferState, Charge, Counter, FileRanges, Flushed, Layout,
    ObjectListing, ObjectRuns, Recount, Run, Runs, Totals,
};
pub use error::{Advice, BackendError, CacheError, ConfigError, RequestError};
pub use object_set::{CleanEvents, ObjectSet};
pub use options::SetOptions;
pub use request::{Missing, ObjectExtent, ReadRequest, WriteRequest};
pub use types::{
    ByteRange, Hints, JournalTid, Moment, OFFSET_BYTES_MAX, ObjectKey, ObjectName, Place, SetId,
    SnapContext, SnapId, Timestamp, Truncation,
};

/// The messages that a set's actor takes, for use within actix: `set.addr()?.send(message).await`.
pub mod message {
    pub use crate::actors::message::{
        Audit, ClearNonexistence, Discard, Flush, GetDump, GetStatus, IsCached, Lost, Prefetch,
        Purge, Read, Release, SetDump, SetSnapContext, SetStatus, Truncate, TruncateFile, Write,
    };
}

/// The examples of the front page, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod front_page {}

//! Cachalot: a client-side write-back object cache built of actors.

mod actors;
pub mod backend;
mod buf;
mod cache;
mod clock;
mod config;
mod engine;
mod error;
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

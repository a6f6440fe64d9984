//! Cachalot: a client-side write-back object cache built of actors.

mod actors;
pub mod backend;
mod buf;
mod clock;
mod config;
mod engine;
mod error;
mod request;
mod types;

pub use buf::{Piece, ReadBuf};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{CacheConfig, Limits};
pub use engine::{
    AuditFailure, BufferListing, BufferState, Charge, Counter, FileRanges, Flushed, Layout,
    ObjectListing, ObjectRuns, Recount, Run, Runs, Totals,
};
pub use error::{Advice, BackendError, CacheError, ConfigError, RequestError};
pub use request::{Missing, ObjectExtent, ReadRequest, WriteRequest};
pub use types::{
    ByteRange, Hints, JournalTid, Moment, OFFSET_BYTES_MAX, ObjectKey, ObjectName, Place, SetId,
    SnapContext, SnapId, Timestamp, Truncation,
};

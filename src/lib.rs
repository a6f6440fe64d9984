//! Cachalot: a client-side write-back object cache built of actors.

mod actors;
pub mod backend;
mod clock;
mod config;
mod engine;
mod error;
mod types;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{CacheConfig, Limits};
pub use engine::{FileRanges, Layout, ObjectRuns, Run, Runs};
pub use error::{Advice, BackendError, CacheError, ConfigError, RequestError};
pub use types::{
    ByteRange, Hints, JournalTid, Moment, OFFSET_BYTES_MAX, ObjectKey, ObjectName, Place, SetId,
    SnapContext, SnapId, Timestamp, Truncation,
};

//! Cachalot: a client-side write-back object cache built of actors.

pub mod backend;
mod clock;
mod config;
mod error;
mod types;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{CacheConfig, Limits};
pub use error::{Advice, BackendError, CacheError, ConfigError, RequestError};
pub use types::{
    ByteRange, Hints, JournalTid, Moment, OFFSET_BYTES_MAX, ObjectKey, ObjectName, SetId,
    SnapContext, SnapId, Timestamp, Truncation,
};

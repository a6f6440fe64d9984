//! What is said over the admin socket: a request is a line of JSON, and so is each of its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use cachalot::{CacheConfig, CacheStats, Counters, Gauges, ObjectListing};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// No request is longer.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 10;

/// How a volume takes writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Writes are answered when the cache has them.
    Writeback,
    /// Writes are answered when the store has them.
    Writethrough,
    /// Writes are refused.
    ReadOnly,
}

impl Mode {
    /// As it is said and read.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Writeback => "writeback",
            Self::Writethrough => "writethrough",
            Self::ReadOnly => "read-only",
        }
    }
}

/// What is asked. Where no volume is named, all are meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// All counters and gauges.
    Stats {
        #[serde(default)]
        volume: Option<String>,
    },
    /// What is cached.
    Dump {
        #[serde(default)]
        volume: Option<String>,
        /// How many objects of each volume are listed at most.
        #[serde(default)]
        objects: Option<usize>,
    },
    /// Store what is dirty, and sync the store.
    Flush {
        #[serde(default)]
        volume: Option<String>,
    },
    /// Change the limits that are given, and tell what they are.
    Limits {
        #[serde(default)]
        change: LimitsChange,
    },
    /// End the server as SIGTERM does. Answered by how far it is, again and again, and then by how it ended.
    Drain {},
    /// Drop what is clean.
    Release {
        #[serde(default)]
        volume: Option<String>,
    },
    /// Switch the mode if one is given, and tell what it is.
    Mode {
        #[serde(default)]
        volume: Option<String>,
        #[serde(default)]
        set: Option<Mode>,
    },
}

/// Limits to change; what is not given stays, but a target follows its maximum to half of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsChange {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_objects: Option<u64>,
    pub(crate) max_dirty_bytes: Option<u64>,
    pub(crate) target_dirty_bytes: Option<u64>,
    pub(crate) max_dirty_age_millis: Option<u64>,
    pub(crate) writebacks_in_flight: Option<usize>,
}

impl LimitsChange {
    /// A configuration with these changes, which need not fit each other.
    pub(crate) fn applied_to(self, config: &CacheConfig) -> CacheConfig {
        let dirty = self.max_dirty_bytes;
        let target = self.target_dirty_bytes.or(dirty.map(|dirty| dirty / 2));
        let size = |new: Option<u64>, old| new.map_or(old, ByteSize);
        CacheConfig {
            max_bytes: size(self.max_bytes, config.max_bytes),
            max_objects: self.max_objects.unwrap_or(config.max_objects),
            max_dirty_bytes: size(dirty, config.max_dirty_bytes),
            target_dirty_bytes: size(target, config.target_dirty_bytes),
            max_dirty_age: self
                .max_dirty_age_millis
                .map_or(config.max_dirty_age, Duration::from_millis),
            writebacks_in_flight: self
                .writebacks_in_flight
                .unwrap_or(config.writebacks_in_flight),
            ..config.clone()
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    Stats(Box<GatewayStats>),
    Dump { volumes: Vec<VolumeDump> },
    Flushed { volumes: Vec<String> },
    Limits(LimitsNow),
    Draining(DrainProgress),
    Drained {},
    Released { volumes: Vec<Released> },
    Modes { volumes: Vec<VolumeMode> },
    Failed(ControlError),
}

/// Why a request was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ControlError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl ControlError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ErrorKind {
    /// The request is none.
    Malformed,
    /// The request is too long; the connection ends.
    TooLong,
    /// No request came in time; the connection ends.
    Slow,
    /// Too many connections; this one ends.
    Busy,
    /// No such volume is served.
    NoVolume,
    /// The limits do not fit each other.
    Limits,
    /// It can't be done with this volume or server.
    Refused,
    /// The store failed; what is dirty stays so, and is tried again.
    Store,
    /// The server ended with unstored data.
    Lost,
    /// Anything else.
    Failed,
}

/// The limits of a running cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LimitsNow {
    pub(crate) max_bytes: u64,
    pub(crate) max_objects: u64,
    pub(crate) max_dirty_bytes: u64,
    pub(crate) target_dirty_bytes: u64,
    pub(crate) max_dirty_age_millis: u64,
    pub(crate) writebacks_in_flight: usize,
}

impl From<cachalot::Limits> for LimitsNow {
    fn from(limits: cachalot::Limits) -> Self {
        Self {
            max_bytes: limits.max_bytes,
            max_objects: limits.max_objects,
            max_dirty_bytes: limits.max_dirty_bytes,
            target_dirty_bytes: limits.target_dirty_bytes,
            max_dirty_age_millis: millis(limits.max_dirty_age),
            writebacks_in_flight: limits.writebacks_in_flight,
        }
    }
}

/// A time in whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The numbers of a struct by the names of its fields.
pub(crate) fn numbers<T: Serialize>(of: &T) -> Vec<(String, u64)> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields
            .into_iter()
            .filter_map(|(name, number)| Some((name, number.as_u64()?)))
            .collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// How a server is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct GatewayStats {
    /// For how long it serves.
    pub(crate) uptime_seconds: f64,
    /// Clients that are connected.
    pub(crate) clients: usize,
    /// The cache, over all volumes.
    pub(crate) cache: CacheStats,
    pub(crate) limits: LimitsNow,
    pub(crate) volumes: Vec<VolumeStats>,
}

/// How a volume is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct VolumeStats {
    pub(crate) volume: String,
    pub(crate) size_bytes: u64,
    pub(crate) mode: Mode,
    /// What the store answered to the last writeback, if that failed.
    pub(crate) last_error: Option<String>,
    pub(crate) gauges: Gauges,
    pub(crate) counters: Counters,
    /// What clients asked, by kind.
    pub(crate) requests: BTreeMap<String, RequestStats>,
}

/// The requests of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RequestStats {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) under_way: u64,
    /// The time that all that were done took.
    pub(crate) total_nanos: u64,
    /// Half took no longer, give or take an eighth.
    pub(crate) p50_micros: u64,
    pub(crate) p99_micros: u64,
    /// How many took less than so many microseconds, and no less than the bound before.
    pub(crate) buckets: Vec<(u64, u64)>,
}

/// What is cached of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct VolumeDump {
    pub(crate) volume: String,
    pub(crate) objects: usize,
    pub(crate) buffers: usize,
    /// The first of them.
    pub(crate) listed: Vec<ObjectListing>,
}

/// A volume whose clean bytes were dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Released {
    pub(crate) volume: String,
    /// What stayed: dirty, or on its way.
    pub(crate) kept_bytes: u64,
}

/// A volume and its mode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct VolumeMode {
    pub(crate) volume: String,
    pub(crate) mode: Mode,
}

/// How far the end of a server is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DrainProgress {
    pub(crate) left_bytes: u64,
    pub(crate) bytes_per_second: f64,
    /// Unless nothing moves.
    pub(crate) seconds_left: Option<f64>,
    /// What stands in the way.
    pub(crate) stall: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_documented() {
        for (text, request) in [
            (r#"{"do":"stats"}"#, Request::Stats { volume: None }),
            (r#"{"do":"drain"}"#, Request::Drain {}),
            (
                r#"{"do":"mode","volume":"disk","set":"read-only"}"#,
                Request::Mode {
                    volume: Some("disk".to_owned()),
                    set: Some(Mode::ReadOnly),
                },
            ),
            (
                r#"{"do":"limits","change":{"max_dirty_bytes":4096}}"#,
                Request::Limits {
                    change: LimitsChange {
                        max_dirty_bytes: Some(4096),
                        ..LimitsChange::default()
                    },
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
            let back = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&back).unwrap(), request);
        }
        for text in [
            r#"{"do":"stop"}"#,
            r#"{"do":"stats","volumes":"disk"}"#,
            r#"{"do":"limits","change":{"max_byte":1}}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}

//! The configuration as users write it, and the limits as the code trusts them.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// What a user can set. Sizes read and print as `"256MiB"`, times as `"5s"`.
///
/// ```
/// use cachalot::{CacheConfig, Limits};
///
/// let config = CacheConfig { max_dirty_age: std::time::Duration::from_secs(2), ..CacheConfig::default() };
/// let limits = Limits::try_from(&config)?;
/// assert_eq!(limits.max_bytes, 256 << 20);
/// # Ok::<(), cachalot::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Bounds the memory for all cached data with its overhead: clean, dirty and in flight. Higher costs
    /// memory, lower costs hits. Default: `256MiB`.
    #[serde(with = "exact")]
    pub max_bytes: ByteSize,
    /// Bounds the objects of which something is remembered; objects with data are closed when their data
    /// goes. Higher costs memory, lower forgets absence sooner. Default: 1048576.
    pub max_objects: u64,
    /// Bounds the bytes that are not yet in the store, dirty or on their way; what is lost if the machine
    /// fails. Writers wait at this limit. `0` makes the cache write-through. Default: `128MiB`.
    #[serde(with = "exact")]
    pub max_dirty_bytes: ByteSize,
    /// Above this many dirty bytes, writing back starts at once. Higher joins more writes, lower leaves
    /// more room for a burst. While writers wait, at least an eighth of `max_dirty_bytes` is on its way. Default: `64MiB`.
    #[serde(with = "exact")]
    pub target_dirty_bytes: ByteSize,
    /// Bytes are written back when they have been dirty for this long, give or take a second. Higher joins
    /// more overwrites, lower loses less when the machine fails. Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub max_dirty_age: Duration,
    /// Whether a write that finds no room waits before it is accepted (it can then still be cancelled by
    /// dropping its future), or is accepted at once and reports when its data has entered. Default: `true`.
    pub block_writes_upfront: bool,
    /// The number of threads that the sets' actors are spread over; `0` means half the processors.
    /// Default: 0.
    pub arbiters: usize,
    /// How many writebacks a set has in flight at most. Higher uses more of the store, lower leaves more to
    /// others. Default: 32.
    pub writebacks_in_flight: usize,
    /// The wait before a failed writeback is tried again; it doubles with each failure. Default: `100ms`.
    #[serde(with = "humantime_serde")]
    pub retry_delay_min: Duration,
    /// The longest wait before a failed writeback is tried again. Default: `30s`.
    #[serde(with = "humantime_serde")]
    pub retry_delay_max: Duration,
    /// A backend operation that has not answered for this long counts as failed. Default: `60s`.
    #[serde(with = "humantime_serde")]
    pub backend_timeout: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::mib(256),
            max_objects: 1 << 20,
            max_dirty_bytes: ByteSize::mib(128),
            target_dirty_bytes: ByteSize::mib(64),
            max_dirty_age: Duration::from_secs(5),
            block_writes_upfront: true,
            arbiters: 0,
            writebacks_in_flight: 32,
            retry_delay_min: Duration::from_millis(100),
            retry_delay_max: Duration::from_secs(30),
            backend_timeout: Duration::from_secs(60),
        }
    }
}

/// The limits that a running cache holds to: checked, in bytes, all but `arbiters` changeable while running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each field means what the one of CacheConfig does"
)]
pub struct Limits {
    pub max_bytes: u64,
    pub max_objects: u64,
    pub max_dirty_bytes: u64,
    pub target_dirty_bytes: u64,
    pub max_dirty_age: Duration,
    pub block_writes_upfront: bool,
    pub arbiters: usize,
    pub writebacks_in_flight: usize,
    pub retry_delay_min: Duration,
    pub retry_delay_max: Duration,
    pub backend_timeout: Duration,
}

impl Limits {
    /// Whether a write is acknowledged only when the backend has it.
    #[must_use]
    pub const fn is_write_through(&self) -> bool {
        self.max_dirty_bytes == 0
    }
}

impl TryFrom<&CacheConfig> for Limits {
    type Error = ConfigError;

    fn try_from(config: &CacheConfig) -> Result<Self, ConfigError> {
        let sizes = [
            ("max_bytes", config.max_bytes.as_u64()),
            ("max_objects", config.max_objects),
            ("writebacks_in_flight", config.writebacks_in_flight as u64),
        ];
        let times = [
            ("retry_delay_min", config.retry_delay_min),
            ("retry_delay_max", config.retry_delay_max),
            ("backend_timeout", config.backend_timeout),
        ];
        for (field, value) in sizes {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        for (field, value) in times {
            if value.is_zero() {
                return Err(ConfigError::Zero { field });
            }
        }
        at_most(
            ("max_dirty_bytes", config.max_dirty_bytes),
            ("max_bytes", config.max_bytes),
            ByteSize::to_string,
        )?;
        at_most(
            ("target_dirty_bytes", config.target_dirty_bytes),
            ("max_dirty_bytes", config.max_dirty_bytes),
            ByteSize::to_string,
        )?;
        at_most(
            ("retry_delay_min", config.retry_delay_min),
            ("retry_delay_max", config.retry_delay_max),
            |delay| format!("{delay:?}"),
        )?;
        Ok(Self {
            max_bytes: config.max_bytes.as_u64(),
            max_objects: config.max_objects,
            max_dirty_bytes: config.max_dirty_bytes.as_u64(),
            target_dirty_bytes: config.target_dirty_bytes.as_u64(),
            max_dirty_age: config.max_dirty_age,
            block_writes_upfront: config.block_writes_upfront,
            arbiters: arbiters_or_default(config.arbiters),
            writebacks_in_flight: config.writebacks_in_flight,
            retry_delay_min: config.retry_delay_min,
            retry_delay_max: config.retry_delay_max,
            backend_timeout: config.backend_timeout,
        })
    }
}

/// Sizes in serialized text: read as people write them, and written to the byte.
mod exact {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];

    pub(super) fn serialize<S: Serializer>(size: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
        if !to.is_human_readable() {
            return size.serialize(to);
        }
        let bytes = size.as_u64();
        let unit = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
        match unit.filter(|_| bytes > 0) {
            Some((name, unit)) => to.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => to.collect_str(&bytes),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        ByteSize::deserialize(from)
    }
}

fn arbiters_or_default(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors / 2).max(1)
}

fn at_most<T: PartialOrd>(
    (field, value): (&'static str, T),
    (bound, bound_value): (&'static str, T),
    show: impl Fn(&T) -> String,
) -> Result<(), ConfigError> {
    if value <= bound_value {
        return Ok(());
    }
    Err(ConfigError::Above {
        field,
        value: show(&value),
        bound,
        bound_value: show(&bound_value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L-02
    #[test]
    fn bad_limits_are_refused() {
        let bad = [
            CacheConfig {
                max_bytes: ByteSize(0),
                ..CacheConfig::default()
            },
            CacheConfig {
                max_objects: 0,
                ..CacheConfig::default()
            },
            CacheConfig {
                max_dirty_bytes: ByteSize::gib(1),
                ..CacheConfig::default()
            },
            CacheConfig {
                target_dirty_bytes: ByteSize::mib(129),
                ..CacheConfig::default()
            },
            CacheConfig {
                max_dirty_bytes: ByteSize(0),
                ..CacheConfig::default()
            },
            CacheConfig {
                retry_delay_min: Duration::from_secs(31),
                ..CacheConfig::default()
            },
            CacheConfig {
                backend_timeout: Duration::ZERO,
                ..CacheConfig::default()
            },
        ];
        for config in bad {
            assert!(Limits::try_from(&config).is_err(), "{config:?}");
        }
    }

    #[test]
    fn sizes_and_times_are_written_as_people_do() {
        let text = r#"{"max_bytes": "64MiB", "max_dirty_bytes": "16MiB", "target_dirty_bytes": "8MiB", "max_dirty_age": "500ms"}"#;
        let config: CacheConfig = serde_json::from_str(text).unwrap();
        let limits = Limits::try_from(&config).unwrap();
        assert_eq!(limits.max_bytes, 64 << 20);
        assert_eq!(limits.max_dirty_age, Duration::from_millis(500));
        assert!(serde_json::from_str::<CacheConfig>(r#"{"max_byte": "1MiB"}"#).is_err());
    }

    #[test]
    fn a_serialized_configuration_reads_back_to_the_byte() {
        for bytes in [0, 1, 1023, 1 << 20, 1_000_001, 3 << 40, u64::MAX] {
            let config = CacheConfig {
                max_bytes: ByteSize(bytes),
                target_dirty_bytes: ByteSize(bytes / 2),
                ..CacheConfig::default()
            };
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<CacheConfig>(&text).unwrap(), config);
        }
        let text = serde_json::to_string(&CacheConfig::default()).unwrap();
        assert!(text.contains(r#""max_bytes":"256MiB""#), "{text}");
    }
}

//! Opening a volume as it is served: by the gateway, and by whoever asks it in the same process.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::Backend;
use cachalot::{Cache, SetOptions};

use super::ahead::{Ahead, DEFAULT_WINDOW};
use super::export::VolumeExport;
use super::mode::ModeSwitch;
use super::patience::Patience;
use super::timings::Timings;
use crate::ctl::protocol::Mode;
use crate::error::CliError;
use crate::store::StoreUrl;
use crate::volume::{Header, VolumeName, require_complete};

/// How volumes are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// The store was opened for reading: nothing makes the volume writable.
    pub(crate) is_read_only: bool,
    /// For how long a request waits for a store that is away.
    pub(crate) patience: Duration,
    /// How far ahead of reads in sequence the store is read, if an eighth of the cache is that much.
    pub(crate) read_ahead: u64,
}

impl Opening {
    /// Opens a volume in a cache over its store.
    pub(crate) async fn open(
        &self,
        backend: &Arc<dyn Backend>,
        cache: &Cache,
        (name, header): (&VolumeName, &Header),
    ) -> Result<VolumeExport, CliError> {
        let options = SetOptions::new(name.as_str())
            .prefix(name.as_str())
            .layout(header.layout)
            .file_bytes(header.size_bytes);
        let set = cache
            .open(options)
            .await
            .map_err(CliError::cache(format!("open {name} in the cache")))?;
        let mode = if self.is_read_only {
            Mode::ReadOnly
        } else {
            Mode::Writeback
        };
        Ok(VolumeExport {
            set,
            backend: Arc::clone(backend),
            name: name.to_string(),
            layout: header.layout,
            size_bytes: header.size_bytes,
            is_fixed: self.is_read_only,
            mode: ModeSwitch::new(mode),
            timings: Timings::default(),
            patience: Patience(self.patience),
            ahead: self.ahead(backend, cache, header),
        })
    }

    /// What is fetched ahead of the clients of a volume.
    fn ahead(&self, backend: &Arc<dyn Backend>, cache: &Cache, header: &Header) -> Ahead {
        let cache_share = cache.limits().max_bytes / 8;
        let unit = u64::from(backend.capabilities().write_granularity);
        // Units of which a stripe is no multiple are none of the volume.
        let is_whole = header.layout.stripe_unit().is_multiple_of(unit.max(1));
        let unit = if is_whole { unit } else { 1 };
        Ahead::new(unit, self.read_ahead.min(cache_share), header.size_bytes)
    }
}

/// How far ahead a store is read. By default it is not where requests do not travel.
pub(crate) fn read_ahead(asked: Option<u64>, store: &StoreUrl) -> u64 {
    let default = if store.is_remote() { DEFAULT_WINDOW } else { 0 };
    asked.unwrap_or(default)
}

/// Refuses a volume that is not whole, that shrinks, or whose size is another than what was said.
pub(crate) fn check(name: &VolumeName, header: &Header, size: Option<u64>) -> Result<(), CliError> {
    require_complete(name, header)?;
    let what = match size {
        _ if header.residue_end > header.size_bytes => {
            "is being shrunk, which was interrupted: resize it again to end that".to_owned()
        }
        Some(size) if size != header.size_bytes => format!(
            "has {} bytes and not {size}: leave --size out, or use `cachalot volume resize`",
            header.size_bytes
        ),
        Some(_) | None => return Ok(()),
    };
    Err(CliError::Volume {
        volume: name.to_string(),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_requests_travel_to_is_read_ahead_unless_something_else_is_asked() {
        assert_eq!(read_ahead(None, &StoreUrl::Memory), 0);
        assert_eq!(read_ahead(Some(7), &StoreUrl::Memory), 7);
        #[cfg(feature = "object-store")]
        {
            let far = "s3://bucket".parse().unwrap();
            assert_eq!(read_ahead(None, &far), DEFAULT_WINDOW);
            assert_eq!(read_ahead(Some(0), &far), 0);
        }
    }
}

//! A cache with one set, whose actor is played by the model.

use std::sync::Arc;

use bytesize::ByteSize;

use crate::actors::shared::{Common, SetShared};
use crate::backend::MemoryBackend;
use crate::clock::ManualClock;
use crate::config::{CacheConfig, Limits};
use crate::options::SetOptions;

pub(super) fn limits(max_bytes: u64, max_dirty_bytes: u64) -> Limits {
    let config = CacheConfig {
        max_bytes: ByteSize(max_bytes),
        max_dirty_bytes: ByteSize(max_dirty_bytes),
        target_dirty_bytes: ByteSize(0),
        ..CacheConfig::default()
    };
    Limits::try_from(&config).unwrap()
}

pub(super) fn set() -> Arc<SetShared> {
    set_over(&Arc::new(MemoryBackend::new()))
}

pub(super) fn set_over(store: &Arc<MemoryBackend>) -> Arc<SetShared> {
    let limits = limits(1 << 30, 1 << 29);
    let common = Common::new(store.clone(), Arc::new(ManualClock::new()), limits);
    let options = SetOptions::new("set");
    Arc::new(SetShared::new(
        (options.id.clone(), options.shape()),
        (options.layout, options.file_bytes),
        0,
        Arc::new(common),
    ))
}

//! Limits change while the cache runs; gauges and counters show what that does.
//!
//! `cargo run --example tuning`
#![expect(clippy::print_stdout, reason = "examples show what happens")]

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;
use cachalot::backend::MemoryBackend;
use cachalot::{Cache, CacheConfig, CacheError, SetOptions};

const BLOCK_BYTES: u64 = 64 << 10;

fn show(when: &str, cache: &Cache) {
    let stats = cache.stats();
    println!(
        "{when}: {} clean, {} dirty, {} charged, {} writebacks, {} evicted",
        ByteSize(stats.gauges.clean_bytes),
        ByteSize(stats.gauges.dirty_bytes),
        ByteSize(u64::try_from(stats.charged.room).unwrap_or(0)),
        stats.counters.write_back_ops,
        ByteSize(stats.counters.evicted_bytes),
    );
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let generous = CacheConfig {
        max_bytes: ByteSize::mib(64),
        max_dirty_bytes: ByteSize::mib(32),
        target_dirty_bytes: ByteSize::mib(32),
        ..CacheConfig::default()
    };
    let cache = Cache::builder(Arc::new(MemoryBackend::new()))
        .config(generous.clone())
        .start()?;
    let volume = cache.open(SetOptions::new("volume")).await?;
    let write = async |from: u64, to: u64| {
        for nth in from..to {
            let data = Bytes::from(vec![1; usize::try_from(BLOCK_BYTES).unwrap_or(0)]);
            volume.write_at(nth * BLOCK_BYTES, data).await?;
        }
        Ok::<(), CacheError>(())
    };

    write(0, 256).await?;
    show("16 MiB written", &cache);
    assert_eq!(cache.stats().gauges.dirty_bytes, 256 * BLOCK_BYTES);

    // Less may be dirty: writing back starts, and later writes wait where there is no room.
    let strict = CacheConfig {
        max_bytes: ByteSize::mib(8),
        max_dirty_bytes: ByteSize::mib(2),
        target_dirty_bytes: ByteSize::mib(1),
        ..generous.clone()
    };
    cache.set_limits(&strict).await?;
    write(256, 512).await?;
    show("16 MiB more, under lower limits", &cache);
    let stats = cache.stats();
    assert!(stats.gauges.dirty_bytes + stats.gauges.tx_bytes <= 2 << 20);
    assert!(stats.counters.evicted_bytes > 0);

    // A limit of zero is write-through: each write is answered by the store.
    let write_through = CacheConfig {
        max_dirty_bytes: ByteSize(0),
        target_dirty_bytes: ByteSize(0),
        ..strict
    };
    cache.set_limits(&write_through).await?;
    volume.flush().await?;
    write(0, 4).await?;
    show("written through", &cache);
    assert_eq!(cache.stats().gauges.dirty_bytes, 0);

    // Limits that make no sense are refused, and change nothing.
    let nonsense = CacheConfig {
        max_dirty_bytes: ByteSize::gib(1),
        ..generous
    };
    let refused = cache.set_limits(&nonsense).await;
    println!(
        "refused: {}",
        refused
            .as_ref()
            .err()
            .map_or_else(String::new, ToString::to_string)
    );
    assert!(refused.is_err() && cache.limits().is_write_through());
    cache.close().await?;
    Ok(())
}

//! Many sets are written and flushed at once: flushes are futures that join like any other.
//!
//! `cargo run --example join_flushes`
#![expect(clippy::print_stdout, reason = "examples show what happens")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachalot::backend::{CountingBackend, MemoryBackend, Throttle, ThrottledBackend};
use cachalot::{Cache, CacheError, SetOptions};
use futures::future::try_join_all;

const SETS: usize = 32;
const BLOCKS: u64 = 64;
const BLOCK_BYTES: u64 = 4 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A store that takes five milliseconds for each write.
    let throttle = Throttle {
        write_latency: Duration::from_millis(5),
        ..Throttle::default()
    };
    let slow = Arc::new(ThrottledBackend::new(
        Arc::new(MemoryBackend::new()),
        throttle,
    ));
    let store = Arc::new(CountingBackend::new(slow));
    let cache = Cache::builder(store.clone()).start()?;

    let opened = (0..SETS).map(|nth| cache.open(SetOptions::new(format!("file-{nth}").as_str())));
    let sets = try_join_all(opened).await?;

    let writes = sets.iter().map(|set| async move {
        for nth in 0..BLOCKS {
            let data = Bytes::from(vec![7; usize::try_from(BLOCK_BYTES).unwrap_or(0)]);
            set.write_at(nth * BLOCK_BYTES, data).await?;
        }
        Ok::<(), CacheError>(())
    });
    try_join_all(writes).await?;
    let dirty_bytes = cache.stats().gauges.dirty_bytes;
    println!(
        "{} writes absorbed, {dirty_bytes} bytes dirty",
        SETS as u64 * BLOCKS
    );
    assert_eq!(dirty_bytes, SETS as u64 * BLOCKS * BLOCK_BYTES);

    // Each flush waits for its own set; together they take about as long as one.
    let flushed = try_join_all(sets.iter().map(|set| set.flush())).await?;
    assert!(flushed.iter().all(|flushed| !flushed.already_clean));
    let sent = cache.stats().counters.write_back_ops;
    println!("{SETS} flushes, {sent} writebacks in all, since neighbours travel together");
    assert!(sent < SETS as u64 * BLOCKS);
    assert_eq!(store.operations().writes.operations, sent);

    // The same in one call, over all sets. Nothing is left to do.
    let flushed = cache.flush_all().await?;
    println!("all clean already: {}", flushed.already_clean);
    assert!(flushed.already_clean);
    cache.close().await?;
    Ok(())
}

//! Starts a cache over a store in a directory, writes, reads, flushes and closes it.
//!
//! `cargo run --example quickstart`
#![expect(clippy::print_stdout, reason = "examples show what happens")]

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use cachalot::backend::{Backend, FileBackend};
use cachalot::{Cache, SetOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = Arc::new(FileBackend::create(directory.path().join("store"))?);
    let cache = Cache::builder(store.clone()).start()?;
    let volume = cache.open(SetOptions::new("volume")).await?;

    // Both writes are absorbed: they are in memory, and the store has not been asked for anything.
    volume.write_at(0, Bytes::from_static(b"written ")).await?;
    volume.write_at(8, Bytes::from_static(b"twice")).await?;
    let text = volume.read_at(0, 13).await?.into_bytes();
    println!("read through the cache: {text:?}");
    assert_eq!(text, "written twice");

    let before = cache.stats();
    println!("dirty: {} bytes", before.gauges.dirty_bytes);
    assert_eq!(before.counters.read_ops_hit, 1);
    assert_eq!(before.counters.fetch_ops, 0);

    // A flush resolves when the store has everything that was dirty; a sync makes that survive a loss of power.
    volume.flush().await?;
    store.sync().await?;
    let after = cache.stats();
    println!("dirty after the flush: {} bytes", after.gauges.dirty_bytes);
    assert_eq!(after.gauges.dirty_bytes, 0);

    cache.close().await?;

    // Another cache over the same store finds the bytes.
    let cache = Cache::builder(store).start()?;
    let volume = cache.open(SetOptions::new("volume")).await?;
    let text = volume.read_at(0, 13).await?.into_bytes();
    println!("read from the store: {text:?}");
    assert_eq!(text, "written twice");
    assert_eq!(cache.stats().counters.read_ops_missed, 1);
    cache.close().await?;
    Ok(())
}

//! A striped volume with snapshots: what was written before a snapshot stays readable in it.
//!
//! `cargo run --example striped_snapshots`
#![expect(clippy::print_stdout, reason = "examples show what happens")]

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use cachalot::backend::{Backend, MemoryBackend};
use cachalot::{Cache, Hints, Layout, ObjectSet, SetOptions, SnapContext, SnapId};

const UNIT_BYTES: u64 = 64 << 10;
const FILE_BYTES: u64 = 64 << 20;
/// A range over all four objects that a stripe lies on.
const RANGE: (u64, u64) = (UNIT_BYTES / 2, 4 * UNIT_BYTES);

async fn fill(volume: &ObjectSet, byte: u8) -> Result<(), Box<dyn Error>> {
    let (offset, len) = RANGE;
    volume
        .write_at(offset, Bytes::from(vec![byte; usize::try_from(len)?]))
        .await?;
    Ok(())
}

/// The byte that all of the range holds, if it holds one alone.
async fn held(volume: &ObjectSet, snap: SnapId) -> Result<Option<u8>, Box<dyn Error>> {
    let bytes = volume
        .read_snap_at(snap, RANGE, Hints::default())
        .await?
        .into_bytes();
    Ok(bytes
        .first()
        .copied()
        .filter(|first| bytes.iter().all(|byte| byte == first)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Arc::new(MemoryBackend::new());
    let cache = Cache::builder(store.clone()).start()?;
    let layout = Layout::new(UNIT_BYTES, 4, 4 << 20)?;
    let options = SetOptions::new("disk")
        .layout(layout)
        .file_bytes(FILE_BYTES);
    let disk = cache.open(options).await?;

    fill(&disk, 1).await?;

    // A snapshot is a number that the store knows, and a context that later writes are made under. The cache keeps
    // bytes of different contexts apart, so nothing has to be flushed for that; a flush before makes the snapshot
    // complete in the store from its first moment.
    disk.flush().await?;
    disk.set_snap_context(SnapContext::new(1, [1])?).await?;
    fill(&disk, 2).await?;
    disk.set_snap_context(SnapContext::new(2, [2, 1])?).await?;
    fill(&disk, 3).await?;
    disk.flush().await?;

    for (name, snap, expected) in [
        ("snapshot 1", SnapId::snapshot(1), 1),
        ("snapshot 2", SnapId::snapshot(2), 2),
        ("the head", SnapId::HEAD, 3),
    ] {
        let found = held(&disk, snap).await?;
        println!("{name} holds {found:?}");
        assert_eq!(found, Some(expected));
    }

    let page = store.list("disk.".to_owned(), None, 100).await?;
    println!("the stripe lies on {} objects", page.names.len());
    assert_eq!(page.names.len(), 4);
    cache.close().await?;
    Ok(())
}

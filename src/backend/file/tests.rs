//! Tests of the whole store. Helpers for all of them are here.

mod hostile;
mod listing;
mod model;
mod opening;
mod ordering;
mod syncing;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::executor::block_on;
use tempfile::TempDir;

use super::*;
use crate::backend::{WriteRun, contract};
use crate::types::{Hints, SnapContext, Timestamp, Truncation};

/// A hash under which all names collide.
const fn worst_hash(_: &[u8]) -> u128 {
    0xabc << 116
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len).unwrap()
}

fn write_of(object: &str, offset: u64, data: &[u8]) -> BackendWrite {
    BackendWrite {
        object: name(object),
        runs: vec![WriteRun {
            offset,
            buffers: vec![Bytes::copy_from_slice(data)],
            journal_tid: None,
        }],
        context: SnapContext::default(),
        modified: Timestamp(0),
        truncation: Truncation::default(),
    }
}

fn read_of(object: &str, range: ByteRange) -> BackendRead {
    BackendRead {
        object: name(object),
        snap: SnapId::HEAD,
        range,
        hints: Hints::default(),
        truncation: Truncation::default(),
    }
}

fn write(
    backend: &FileBackend,
    object: &str,
    offset: u64,
    data: &[u8],
) -> Result<(), BackendError> {
    block_on(backend.write(write_of(object, offset, data)))
}

fn read(backend: &FileBackend, object: &str, len: u64) -> Result<Bytes, BackendError> {
    block_on(backend.read(read_of(object, range(0, len))))
}

fn list(
    backend: &FileBackend,
    prefix: &str,
    after: Option<&str>,
    names_max: usize,
) -> Result<(Vec<String>, bool), BackendError> {
    let page = block_on(backend.list(prefix.to_owned(), after.map(name), names_max))?;
    let names = page.names.iter().map(|name| name.as_str().to_owned());
    Ok((names.collect(), page.more))
}

fn is_corrupt<T>(outcome: &Result<T, BackendError>) -> bool {
    matches!(outcome, Err(BackendError::Corrupt { .. }))
}

fn store() -> (TempDir, FileBackend) {
    let directory = TempDir::new().unwrap();
    let backend = FileBackend::create(directory.path()).unwrap();
    (directory, backend)
}

fn store_with(options: &FileStoreOptions, parts: Parts) -> (TempDir, FileBackend) {
    let directory = TempDir::new().unwrap();
    root::create(directory.path()).unwrap();
    let backend = options.start(directory.path(), true, parts).unwrap();
    (directory, backend)
}

/// Where an object's file lies when no other name has its hash.
fn file_of(root: &Path, object: &str) -> PathBuf {
    let slot = naming::Slot::first(name_hash(object.as_bytes()));
    root.join("objects").join(slot.path())
}

#[test]
fn the_contract_is_kept() {
    let (_directory, backend) = store();
    let backend: Arc<dyn Backend> = Arc::new(backend);
    block_on(contract::check(async || Arc::clone(&backend))).unwrap();
}

#[test]
fn the_contract_is_kept_when_all_names_collide_and_nothing_fits() {
    let options = FileStoreOptions {
        threads: 3,
        open_files_max: 2,
        unsynced_files_max: 1,
    };
    let parts = Parts {
        hash: worst_hash,
        listing_bytes_max: 200,
        ..Parts::default()
    };
    let (_directory, backend) = store_with(&options, parts);
    let backend: Arc<dyn Backend> = Arc::new(backend);
    block_on(contract::check(async || Arc::clone(&backend))).unwrap();
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let (directory, backend) = store();
    write(&backend, "a", 5000, b"five").unwrap();
    write(&backend, "../b", 0, b"zero").unwrap();
    drop(backend);
    let backend = FileBackend::open(directory.path()).unwrap();
    assert_eq!(&read(&backend, "a", 6000).unwrap()[5000..], b"five");
    assert_eq!(read(&backend, "../b", 4).unwrap(), "zero");
    assert_eq!(
        list(&backend, "", None, 9).unwrap(),
        (vec!["../b".into(), "a".into()], false)
    );
}

///
#[test]
fn a_truncation_is_remembered_after_reopening() {
    let (directory, backend) = store();
    write(&backend, "a", 0, b"old and long").unwrap();
    let cutting = BackendWrite {
        truncation: Truncation {
            seq: 7,
            size_bytes: 3,
        },
        ..write_of("a", 0, b"new")
    };
    block_on(backend.write(cutting.clone())).unwrap();
    write(&backend, "a", 3, b"er").unwrap();
    drop(backend);
    let backend = FileBackend::open(directory.path()).unwrap();
    block_on(backend.write(cutting)).unwrap();
    assert_eq!(read(&backend, "a", 20).unwrap(), "newer");
}

#[test]
fn colliding_names_are_kept_apart_whichever_goes() {
    for gone in 0..4 {
        let parts = || Parts {
            hash: worst_hash,
            ..Parts::default()
        };
        let options = FileStoreOptions::default();
        let (directory, backend) = store_with(&options, parts());
        let names = ["a", "b", "c", "d"];
        for name in names {
            write(&backend, name, 0, name.as_bytes()).unwrap();
        }
        block_on(backend.remove(name(names[gone]))).unwrap();
        let check = |backend: &FileBackend| {
            for (at, name) in names.into_iter().enumerate() {
                let expected = if at == gone {
                    Err(BackendError::NotFound)
                } else {
                    Ok(Bytes::from_static(name.as_bytes()))
                };
                assert_eq!(read(backend, name, 1), expected, "{name} without {gone}");
            }
            assert_eq!(list(backend, "", None, 9).unwrap().0.len(), 3);
        };
        check(&backend);
        drop(backend);
        check(&options.start(directory.path(), true, parts()).unwrap());
    }
}

#[test]
fn discarding_frees_the_room() {
    use std::os::unix::fs::MetadataExt;
    let (directory, backend) = store();
    write(&backend, "a", 0, &vec![1; 1 << 20]).unwrap();
    block_on(backend.sync()).unwrap();
    let file = file_of(directory.path(), "a");
    let before = fs::metadata(&file).unwrap();
    block_on(backend.discard(name("a"), range(4096, 1 << 19))).unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!(after.len(), before.len());
    assert!(
        after.blocks() * 512 <= before.blocks() * 512 - (1 << 18),
        "{} blocks of {}",
        after.blocks(),
        before.blocks()
    );
}

#[test]
fn snapshots_are_refused() {
    let (_directory, backend) = store();
    let mut under_snapshots = write_of("a", 0, b"a");
    under_snapshots.context = SnapContext::new(3, vec![3, 1]).unwrap();
    assert!(matches!(
        block_on(backend.write(under_snapshots)),
        Err(BackendError::Unsupported { .. })
    ));
    let mut of_snapshot = read_of("a", range(0, 1));
    of_snapshot.snap = SnapId::snapshot(3);
    assert!(matches!(
        block_on(backend.read(of_snapshot)),
        Err(BackendError::Unsupported { .. })
    ));
    assert_eq!(read(&backend, "a", 1), Err(BackendError::NotFound));
}

#[test]
fn writes_without_bytes_are_refused() {
    let (_directory, backend) = store();
    let refused = |outcome| matches!(outcome, Err(BackendError::Unsupported { .. }));
    assert!(refused(write(&backend, "a", 0, b"")));
    let mut without_runs = write_of("a", 0, b"a");
    without_runs.runs.clear();
    assert!(refused(block_on(backend.write(without_runs))));
    assert_eq!(read(&backend, "a", 1), Err(BackendError::NotFound));
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let (directory, backend) = store();
    let leaf = file_of(directory.path(), "a").parent().unwrap().to_owned();
    std::os::unix::fs::symlink("nowhere", leaf).unwrap();
    assert!(is_corrupt(&write(&backend, "a", 0, b"a")));
    assert_eq!(read(&backend, "a", 1), Err(BackendError::NotFound));
    let drafts = fs::read_dir(directory.path().join("tmp")).unwrap();
    assert_eq!(drafts.count(), 0);
}

//! Operations that are given up.

use std::sync::mpsc;

use super::*;

/// Occupies the store's only thread until both parts go.
fn occupy(backend: &FileBackend) -> (mpsc::Sender<()>, impl Sized) {
    let (release, released) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let occupied = backend.pool.run(u128::MAX, Access::Exclusive, move || {
        started.send(()).unwrap();
        assert!(released.recv().is_err());
        Ok(())
    });
    has_started.recv().unwrap();
    (release, occupied)
}

fn store_with_one_thread() -> (TempDir, FileBackend) {
    let options = FileStoreOptions {
        threads: 1,
        ..FileStoreOptions::default()
    };
    store_with(&options, Parts::default())
}

/// H-46
#[test]
fn a_write_given_up_in_the_queue_is_never_done() {
    let (_directory, backend) = store_with_one_thread();
    let release = occupy(&backend);
    drop(backend.write(write_of("given up", 0, b"old")));
    drop(backend.write(write_of("overtaken", 0, b"old and long")));
    let kept = backend.write(write_of("overtaken", 0, b"new"));
    drop(release);
    block_on(kept).unwrap();
    assert_eq!(read(&backend, "given up", 9), Err(BackendError::NotFound));
    assert_eq!(read(&backend, "overtaken", 99).unwrap(), "new");
}

/// H-46
#[test]
fn futures_outlive_the_store() {
    let (directory, backend) = store_with_one_thread();
    let release = occupy(&backend);
    let write = backend.write(write_of("a", 0, b"late"));
    drop(release);
    drop(backend);
    block_on(write).unwrap();
    let backend = FileBackend::open(directory.path()).unwrap();
    assert_eq!(read(&backend, "a", 9).unwrap(), "late");
}

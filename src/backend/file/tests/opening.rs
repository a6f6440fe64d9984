//! Making stores, opening them, and what keeps one from it.

use std::os::fd::AsFd;

use rustix::fs::IFlags;

use super::*;

#[test]
fn a_store_is_made_where_nothing_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("some/where");
    let backend = FileBackend::open_or_create(&path).unwrap();
    write(&backend, "a", 0, b"a").unwrap();
    drop(backend);
    let backend = FileBackend::open_or_create(&path).unwrap();
    assert_eq!(read(&backend, "a", 1).unwrap(), "a");
}

#[test]
fn what_a_crash_while_creating_leaves_is_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    for part in ["lost+found", "objects", "tmp"] {
        fs::create_dir(path.join(part)).unwrap();
    }
    fs::write(path.join("cachalot-store.new"), "cach").unwrap();
    FileBackend::create(path).unwrap();
    FileBackend::open(path).unwrap();
}

#[test]
fn a_directory_with_other_things_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("objects")).unwrap();
    fs::write(directory.path().join("objects/thesis"), "chapter 1").unwrap();
    for outcome in [
        FileBackend::create(directory.path()),
        FileBackend::open(directory.path()),
        FileBackend::open_or_create(directory.path()),
        FileBackend::open_read_only(directory.path()),
    ] {
        assert!(matches!(outcome, Err(FileStoreError::NotAStore { .. })));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn each_wrong_place_has_its_error() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let absent = path.join("absent");
    let file = path.join("file");
    fs::write(&file, "").unwrap();
    let empty = path.join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(
        FileBackend::open(&absent),
        Err(FileStoreError::Missing { .. })
    ));
    for outcome in [
        FileBackend::open(&file),
        FileBackend::create(&file),
        FileBackend::create(file.join("below")),
    ] {
        assert!(matches!(outcome, Err(FileStoreError::NotADirectory { .. })));
    }
    assert!(matches!(
        FileBackend::open(&empty),
        Err(FileStoreError::Empty { .. })
    ));
    FileBackend::create(&empty).unwrap();
    assert!(matches!(
        FileBackend::create(&empty),
        Err(FileStoreError::AlreadyExists { .. })
    ));
}

#[test]
fn a_marker_that_is_not_ours_is_refused() {
    let (directory, backend) = store();
    drop(backend);
    let marker = directory.path().join("cachalot-store");
    for text in [&b""[..], b"\xff\xfe", b"cachalot file store\nversion \n"] {
        fs::write(&marker, text).unwrap();
        assert!(matches!(
            FileBackend::open(directory.path()),
            Err(FileStoreError::Damaged { .. })
        ));
    }
    fs::write(&marker, "cachalot file store\nversion 2\n").unwrap();
    let error = FileBackend::open(directory.path()).unwrap_err();
    assert!(matches!(
        error,
        FileStoreError::UnknownVersion {
            found: 2,
            known: 1,
            ..
        }
    ));
}

#[test]
fn a_store_without_its_objects_is_damaged_not_new() {
    let (directory, backend) = store();
    drop(backend);
    fs::remove_dir(directory.path().join("objects")).unwrap();
    for outcome in [
        FileBackend::open(directory.path()),
        FileBackend::open_or_create(directory.path()),
        FileBackend::open_read_only(directory.path()),
    ] {
        assert!(matches!(
            outcome,
            Err(FileStoreError::Damaged {
                part: "objects",
                ..
            })
        ));
    }
}

#[test]
fn one_writer_or_several_readers() {
    let (directory, writer) = store();
    let path = directory.path();
    assert!(matches!(
        FileBackend::open(path),
        Err(FileStoreError::Locked { .. })
    ));
    assert!(matches!(
        FileBackend::open_read_only(path),
        Err(FileStoreError::Locked { .. })
    ));
    drop(writer);
    let readers = [
        FileBackend::open_read_only(path).unwrap(),
        FileBackend::open_read_only(path).unwrap(),
    ];
    assert!(matches!(
        FileBackend::open(path),
        Err(FileStoreError::Locked { .. })
    ));
    drop(readers);
    FileBackend::open(path).unwrap();
}

#[test]
fn a_store_opened_for_reading_takes_no_writes() {
    let (directory, backend) = store();
    write(&backend, "a", 0, b"kept").unwrap();
    drop(backend);
    let backend = FileBackend::open_read_only(directory.path()).unwrap();
    let read_only = Err(BackendError::ReadOnly);
    assert_eq!(write(&backend, "a", 0, b"lost"), read_only);
    assert_eq!(write(&backend, "b", 0, b"lost"), read_only);
    let a = || name("a");
    assert_eq!(block_on(backend.discard(a(), range(0, 1))), read_only);
    assert_eq!(block_on(backend.truncate(a(), 0)), read_only);
    assert_eq!(block_on(backend.remove(a())), read_only);
    assert_eq!(block_on(backend.sync()), Ok(()));
    assert_eq!(read(&backend, "a", 10).unwrap(), "kept");
    assert_eq!(block_on(backend.stat(a())).unwrap().size_bytes, 4);
    assert_eq!(list(&backend, "", None, 2).unwrap().0, ["a"]);
}

/// Makes a directory refuse new entries to everybody, for as long as this lives.
struct Sealed(fs::File);

impl Sealed {
    /// `None` where this process may do that to nobody, or its rights can't be bound at all.
    fn seal(path: &Path) -> Option<Self> {
        let directory = fs::File::open(path).unwrap();
        rustix::fs::ioctl_setflags(directory.as_fd(), IFlags::IMMUTABLE).ok()?;
        Some(Self(directory))
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        rustix::fs::ioctl_setflags(self.0.as_fd(), IFlags::empty()).unwrap();
    }
}

#[test]
fn a_directory_that_takes_nothing_new_gives_a_clear_error() {
    let directory = TempDir::new().unwrap();
    // The kernel's own file system refuses directories to root as well.
    let sealed = Sealed::seal(directory.path());
    let path = if sealed.is_some() {
        directory.path().join("store")
    } else {
        PathBuf::from("/sys/cachalot-test")
    };
    let error = FileBackend::open_or_create(&path).unwrap_err();
    assert!(
        matches!(
            error,
            FileStoreError::PermissionDenied { .. } | FileStoreError::ReadOnly { .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains(&path.display().to_string()));
}

#[test]
fn a_store_that_turns_read_only_says_so_at_each_write_and_still_reads() {
    let (directory, backend) = store();
    write(&backend, "a", 0, b"kept").unwrap();
    let Some(sealed) = Sealed::seal(&directory.path().join("tmp")) else {
        // Only with the right to seal can this be tried; the mapping of errors has its own test.
        return;
    };
    assert_eq!(
        write(&backend, "b", 0, b"b"),
        Err(BackendError::PermissionDenied)
    );
    assert_eq!(read(&backend, "a", 9).unwrap(), "kept");
    drop(sealed);
    write(&backend, "b", 0, b"b").unwrap();
}

#[test]
fn drafts_left_by_a_crash_go_when_the_store_is_opened() {
    let (directory, backend) = store();
    drop(backend);
    let drafts = directory.path().join("tmp");
    for number in 0..20 {
        fs::write(drafts.join(number.to_string()), "half").unwrap();
    }
    fs::create_dir(drafts.join("not ours")).unwrap();
    let reader = FileBackend::open_read_only(directory.path()).unwrap();
    assert_eq!(fs::read_dir(&drafts).unwrap().count(), 21);
    drop(reader);
    let backend = FileBackend::open(directory.path()).unwrap();
    assert_eq!(fs::read_dir(&drafts).unwrap().count(), 1);
    write(&backend, "a", 0, b"a").unwrap();
}

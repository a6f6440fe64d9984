//! Directories with content that no store puts there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::*;

#[test]
fn files_that_are_not_ours_are_in_nobodys_way() {
    let (directory, backend) = store();
    write(&backend, "a", 0, b"a").unwrap();
    let objects = directory.path().join("objects");
    let leaf = file_of(directory.path(), "a").parent().unwrap().to_owned();
    for path in [
        objects.join("README"),
        leaf.join("core"),
        leaf.join(OsStr::from_bytes(b"\xff\xfe")),
        leaf.join("x".repeat(200)),
    ] {
        fs::write(path, "junk").unwrap();
    }
    fs::create_dir(leaf.join("directory")).unwrap();
    assert_eq!(list(&backend, "", None, 9).unwrap().0, ["a"]);
    assert_eq!(read(&backend, "a", 1).unwrap(), "a");
}

#[test]
fn a_damaged_header_is_reported_by_everything() {
    let (directory, backend) = store();
    write(&backend, "a", 0, b"data").unwrap();
    drop(backend);
    let file = file_of(directory.path(), "a");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[48] ^= 1;
    let mut zeroed = whole.clone();
    zeroed[..4096].fill(0);
    for damaged in [&whole[..100], &whole[..20], &flipped, &zeroed, b"junk"] {
        fs::write(&file, damaged).unwrap();
        let backend = FileBackend::open(directory.path()).unwrap();
        assert!(is_corrupt(&read(&backend, "a", 1)));
        assert!(is_corrupt(&write(&backend, "a", 0, b"a")));
        assert!(is_corrupt(&block_on(backend.stat(name("a")))));
        assert!(is_corrupt(&block_on(backend.truncate(name("a"), 0))));
        assert!(is_corrupt(&block_on(backend.remove(name("a")))));
        assert!(is_corrupt(&list(&backend, "", None, 9)));
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
}

/// A loss of power may keep the name of a file that was never synced, without anything in it.
#[test]
fn an_empty_file_is_an_object_that_was_never_made() {
    for len in [0, 4096, 10_000] {
        let (directory, backend) = store();
        let file = file_of(directory.path(), "a");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::File::create(&file).unwrap().set_len(len).unwrap();
        assert_eq!(read(&backend, "a", 1), Err(BackendError::NotFound));
        assert_eq!(list(&backend, "", None, 9).unwrap().0, [""; 0]);
        write(&backend, "a", 1, b"a").unwrap();
        assert_eq!(read(&backend, "a", 9).unwrap(), "\0a");
        assert_eq!(list(&backend, "", None, 9).unwrap().0, ["a"]);
    }
}

#[test]
fn an_empty_file_within_a_chain_hides_nothing() {
    let parts = Parts {
        hash: worst_hash,
        ..Parts::default()
    };
    let (directory, backend) = store_with(&FileStoreOptions::default(), parts);
    let head = directory
        .path()
        .join("objects")
        .join(naming::Slot::first(worst_hash(b"")).path());
    fs::create_dir_all(head.parent().unwrap()).unwrap();
    fs::write(head.with_extension("1"), "").unwrap();
    write(&backend, "a", 0, b"a").unwrap();
    write(&backend, "b", 0, b"b").unwrap();
    fs::write(&head, "").unwrap();
    block_on(backend.sync()).unwrap();
    backend.store.open_files.clear();
    assert_eq!(read(&backend, "a", 1), Err(BackendError::NotFound));
    assert_eq!(read(&backend, "b", 1).unwrap(), "b");
    write(&backend, "a", 0, b"c").unwrap();
    assert_eq!(list(&backend, "", None, 9).unwrap().0, ["a", "b"]);
}

#[test]
fn a_file_in_the_place_of_another_is_reported() {
    let (directory, backend) = store();
    write(&backend, "a", 0, b"a").unwrap();
    let elsewhere = file_of(directory.path(), "b");
    fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    fs::copy(file_of(directory.path(), "a"), &elsewhere).unwrap();
    assert!(is_corrupt(&list(&backend, "", None, 9)));
    assert_eq!(read(&backend, "b", 1), Err(BackendError::NotFound));
}

#[test]
fn what_is_not_a_file_is_neither_followed_nor_waited_for() {
    let (directory, backend) = store();
    let secret = directory.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let put: [&dyn Fn(&Path); 4] = [
        &|path| symlink(&secret, path).unwrap(),
        &|path| symlink("/nowhere", path).unwrap(),
        &|path| fs::create_dir(path).unwrap(),
        &|path| rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
    ];
    for (number, put) in put.into_iter().enumerate() {
        let object = number.to_string();
        let file = file_of(directory.path(), &object);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        put(&file);
        assert!(is_corrupt(&read(&backend, &object, 6)), "{number}");
        assert!(is_corrupt(&write(&backend, &object, 0, b"a")), "{number}");
    }
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    drop(backend);
    let reader = FileBackend::open_read_only(directory.path()).unwrap();
    for number in 0..4 {
        assert!(
            is_corrupt(&read(&reader, &number.to_string(), 6)),
            "{number}"
        );
    }
}

#[test]
fn a_file_in_the_place_of_a_directory_is_reported() {
    let (directory, backend) = store();
    let file = file_of(directory.path(), "a");
    fs::write(file.parent().unwrap(), "").unwrap();
    assert!(is_corrupt(&read(&backend, "a", 1)));
    assert!(is_corrupt(&write(&backend, "a", 0, b"a")));
    assert!(list(&backend, "", None, 9).is_err());
}

#[test]
fn missing_directories_are_not_missing_objects() {
    let (directory, backend) = store();
    fs::remove_dir(directory.path().join("tmp")).unwrap();
    assert!(is_corrupt(&write(&backend, "a", 0, b"a")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes in an object's file are an error or nothing, and never a panic or another object's data.
    #[test]
    fn random_files_are_never_taken_for_objects(
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
        magic in any::<bool>(),
    ) {
        let (directory, backend) = store();
        let file = file_of(directory.path(), "a");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut bytes = bytes;
        if magic {
            bytes.splice(..bytes.len().min(16), *b"cachalot object\n");
        }
        fs::write(&file, &bytes).unwrap();
        let outcome = read(&backend, "a", 1);
        let expected = if bytes.is_empty() { outcome == Err(BackendError::NotFound) } else { is_corrupt(&outcome) };
        prop_assert!(expected, "{:?}", outcome);
        prop_assert_eq!(list(&backend, "", None, 9).is_ok(), bytes.is_empty());
    }
}

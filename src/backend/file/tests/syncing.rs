//! What a sync does, and what it says when it fails.

use std::io;
use std::os::fd::BorrowedFd;

use parking_lot::Mutex;

use super::*;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Call {
    /// The file's length and truncation number at the time, and whether metadata was to be synced.
    File {
        len: u64,
        seq: u64,
        metadata: bool,
    },
    Directory,
    FileSystem,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failing {
    Nothing,
    Files,
    Directories,
    FileSystem,
}

/// A disk that writes down what it is asked, and fails when told to. As the kernel does, it fails once.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<(Vec<Call>, Failing)>>);

impl Disk {
    fn fail(&self, failing: Failing) {
        self.0.lock().1 = failing;
    }

    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().0)
    }

    fn called(&self, call: Call, failing: Failing) -> io::Result<()> {
        let mut state = self.0.lock();
        state.0.push(call);
        if state.1 == failing {
            state.1 = Failing::Nothing;
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }
}

impl Durability for Disk {
    fn sync_file(&self, file: BorrowedFd<'_>, metadata: bool) -> io::Result<()> {
        let len = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap();
        let decoded = tree::read_header(&file.try_clone_to_owned()?).unwrap();
        let header::Decoded::Whole(header) = decoded else {
            panic!("a file without a header is synced");
        };
        let seq = header.truncation_seq;
        self.called(Call::File { len, seq, metadata }, Failing::Files)
    }

    fn sync_directory(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        self.called(Call::Directory, Failing::Directories)
    }

    fn sync_file_system(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        self.called(Call::FileSystem, Failing::FileSystem)
    }
}

fn store_on_disk(unsynced_files_max: usize) -> (TempDir, FileBackend, Disk) {
    let disk = Disk(Arc::new(Mutex::new((Vec::new(), Failing::Nothing))));
    let options = FileStoreOptions {
        unsynced_files_max,
        ..FileStoreOptions::default()
    };
    let parts = Parts {
        durability: Box::new(disk.clone()),
        ..Parts::default()
    };
    let (directory, backend) = store_with(&options, parts);
    (directory, backend, disk)
}

fn sync(backend: &FileBackend) -> Result<(), BackendError> {
    block_on(backend.sync())
}

const fn file(len: u64, metadata: bool) -> Call {
    Call::File {
        len: 4096 + len,
        seq: 0,
        metadata,
    }
}

#[test]
fn a_sync_touches_what_changed_since_the_last_and_nothing_else() {
    let (_directory, backend, disk) = store_on_disk(10);
    assert_eq!(sync(&backend), Ok(()));
    assert_eq!(disk.calls(), []);
    write(&backend, "a", 0, b"1").unwrap();
    write(&backend, "a", 1, b"2").unwrap();
    sync(&backend).unwrap();
    // The object, its directory, and the directory of directories.
    assert_eq!(
        disk.calls(),
        [file(2, true), Call::Directory, Call::Directory]
    );
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), []);
    write(&backend, "a", 0, b"3").unwrap();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [file(2, false)]);
    block_on(backend.truncate(name("a"), 9)).unwrap();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [file(9, true)]);
    block_on(backend.discard(name("a"), range(0, 1))).unwrap();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [file(9, true)]);
    write(&backend, "a", 0, b"4").unwrap();
    block_on(backend.remove(name("a"))).unwrap();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [Call::Directory]);
    read(&backend, "a", 1).unwrap_err();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), []);
}

#[test]
fn a_failed_sync_goes_on_failing_until_all_that_was_lost_is_written_again() {
    let (_directory, backend, disk) = store_on_disk(10);
    write(&backend, "a", 0, &[1; 100]).unwrap();
    sync(&backend).unwrap();
    write(&backend, "a", 10, &[2; 10]).unwrap();
    write(&backend, "a", 50, &[2; 10]).unwrap();
    disk.fail(Failing::Files);
    let error = sync(&backend).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(sync(&backend), Err(error.clone()));
    write(&backend, "b", 0, b"another").unwrap();
    write(&backend, "a", 10, &[2; 10]).unwrap();
    assert_eq!(sync(&backend), Err(error.clone()));
    write(&backend, "a", 50, &[2; 9]).unwrap();
    assert_eq!(sync(&backend), Err(error.clone()));
    write(&backend, "a", 40, &[3; 20]).unwrap();
    assert_eq!(sync(&backend), Ok(()));
    assert_eq!(sync(&backend), Ok(()));
    disk.calls();
    write(&backend, "a", 0, b"x").unwrap();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [file(100, false)]);
}

#[test]
fn a_rewrite_must_reach_the_disk_itself() {
    let (_directory, backend, disk) = store_on_disk(10);
    write(&backend, "a", 0, b"1").unwrap();
    sync(&backend).unwrap();
    write(&backend, "a", 0, b"2").unwrap();
    for _ in 0..3 {
        disk.fail(Failing::Files);
        sync(&backend).unwrap_err();
        write(&backend, "a", 0, b"2").unwrap();
    }
    sync(&backend).unwrap();
}

#[test]
fn cutting_off_discarding_and_removing_make_a_failed_sync_good() {
    let mend: [fn(&FileBackend); 3] = [
        |backend| block_on(backend.truncate(name("a"), 5)).unwrap(),
        |backend| block_on(backend.discard(name("a"), range(5, 50))).unwrap(),
        |backend| block_on(backend.remove(name("a"))).unwrap(),
    ];
    for mend in mend {
        let (_directory, backend, disk) = store_on_disk(10);
        write(&backend, "a", 0, &[1; 50]).unwrap();
        sync(&backend).unwrap();
        write(&backend, "a", 5, &[2; 45]).unwrap();
        disk.fail(Failing::Files);
        sync(&backend).unwrap_err();
        sync(&backend).unwrap_err();
        mend(&backend);
        sync(&backend).unwrap();
    }
}

#[test]
fn writing_a_lost_object_again_restores_its_header() {
    let (directory, backend, disk) = store_on_disk(10);
    write(&backend, "a", 0, b"lost").unwrap();
    disk.fail(Failing::Files);
    sync(&backend).unwrap_err();
    // What a kernel may make of pages that it failed to write.
    let path = file_of(directory.path(), "a");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, vec![0; whole.len()]).unwrap();
    write(&backend, "a", 0, b"lost").unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
    sync(&backend).unwrap();
}

#[test]
fn a_removed_object_takes_its_failure_along_but_its_successor_has_its_own() {
    let (_directory, backend, disk) = store_on_disk(10);
    write(&backend, "a", 0, b"1").unwrap();
    disk.fail(Failing::Files);
    sync(&backend).unwrap_err();
    block_on(backend.remove(name("a"))).unwrap();
    write(&backend, "a", 0, b"2").unwrap();
    disk.fail(Failing::Files);
    sync(&backend).unwrap_err();
    write(&backend, "a", 0, b"2").unwrap();
    sync(&backend).unwrap();
}

#[test]
fn too_many_files_are_synced_with_their_file_system() {
    let (_directory, backend, disk) = store_on_disk(2);
    for number in 0..5 {
        write(&backend, &number.to_string(), 0, b"x").unwrap();
    }
    sync(&backend).unwrap();
    assert_eq!(
        disk.calls(),
        [Call::FileSystem, file(1, true), file(1, true)]
    );
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), []);
    write(&backend, "4", 0, b"x").unwrap();
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [file(1, false)]);
}

#[test]
fn a_failure_that_may_have_hit_anything_lasts_until_the_store_is_opened_anew() {
    for (failing, files) in [(Failing::FileSystem, 3), (Failing::Directories, 1)] {
        let (directory, backend, disk) = store_on_disk(2);
        for number in 0..files {
            write(&backend, &number.to_string(), 0, b"x").unwrap();
        }
        disk.fail(failing);
        let error = sync(&backend).unwrap_err();
        for number in 0..files {
            write(&backend, &number.to_string(), 0, b"x").unwrap();
        }
        assert_eq!(sync(&backend), Err(error));
        drop(backend);
        let backend = FileBackend::open(directory.path()).unwrap();
        sync(&backend).unwrap();
    }
}

///
#[test]
fn a_cut_is_on_disk_before_its_number_is_recorded() {
    let (_directory, backend, disk) = store_on_disk(10);
    write(&backend, "a", 0, &[1; 100]).unwrap();
    sync(&backend).unwrap();
    disk.calls();
    let cutting = BackendWrite {
        truncation: Truncation {
            seq: 5,
            size_bytes: 40,
        },
        ..write_of("a", 0, b"new")
    };
    disk.fail(Failing::Files);
    block_on(backend.write(cutting.clone())).unwrap_err();
    assert_eq!(disk.calls(), [file(40, true)]);
    // The number was not recorded, so the same write cuts again.
    block_on(backend.write(cutting.clone())).unwrap();
    assert_eq!(disk.calls(), [file(40, true)]);
    assert_eq!(read(&backend, "a", 9).unwrap()[..3], *b"new");
    block_on(backend.write(cutting)).unwrap();
    sync(&backend).unwrap();
    let recorded = Call::File {
        len: 4096 + 40,
        seq: 5,
        metadata: false,
    };
    assert_eq!(disk.calls(), [recorded]);
}

///
#[test]
fn a_cut_of_an_object_that_the_book_has_no_room_for_is_on_disk_first_too() {
    let (_directory, backend, disk) = store_on_disk(0);
    write(&backend, "a", 0, &[1; 100]).unwrap();
    let cutting = BackendWrite {
        truncation: Truncation {
            seq: 5,
            size_bytes: 200,
        },
        ..write_of("a", 0, b"new")
    };
    block_on(backend.write(cutting)).unwrap();
    assert_eq!(disk.calls(), [file(100, true)]);
    sync(&backend).unwrap();
    assert_eq!(disk.calls(), [Call::FileSystem]);
}

///
#[test]
fn a_truncating_write_can_restore_what_a_failed_sync_lost() {
    let (_directory, backend, disk) = store_on_disk(10);
    write(&backend, "a", 0, &[1; 100]).unwrap();
    sync(&backend).unwrap();
    write(&backend, "a", 0, &[2; 10]).unwrap();
    disk.fail(Failing::Files);
    sync(&backend).unwrap_err();
    let cutting = BackendWrite {
        truncation: Truncation {
            seq: 5,
            size_bytes: 40,
        },
        ..write_of("a", 0, &[2; 10])
    };
    block_on(backend.write(cutting)).unwrap();
    sync(&backend).unwrap();
}

#[test]
fn the_kernel_takes_every_kind_of_sync() {
    for unsynced_files_max in [0, 10] {
        let options = FileStoreOptions {
            unsynced_files_max,
            ..FileStoreOptions::default()
        };
        let (_directory, backend) = store_with(&options, Parts::default());
        write(&backend, "a", 0, b"1").unwrap();
        sync(&backend).unwrap();
        write(&backend, "a", 0, b"2").unwrap();
        sync(&backend).unwrap();
    }
}

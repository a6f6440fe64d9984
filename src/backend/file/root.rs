//! Making a store and opening it: the marker, the lock, and what a crash left behind.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::FileStoreError;
use super::tree::{DIRECTORY_MODE, FILE_MODE, Opened, Tree, open_directory, place_new};

const MARKER: &str = "cachalot-store";
const MARKER_NEW: &str = "cachalot-store.new";
const OBJECTS: &str = "objects";
const TEMPORARY: &str = "tmp";
const VERSION: u32 = 1;

/// Makes a store in a directory that is empty or absent, and leaves it closed.
pub(super) fn create(path: &Path) -> Result<(), FileStoreError> {
    let fail = |error| FileStoreError::from_io(path, "create a store", error);
    fs::create_dir_all(path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let path = path.to_owned();
            FileStoreError::NotADirectory { path }
        } else {
            fail(error)
        }
    })?;
    let root = open_root(path)?;
    match Content::of(&root).map_err(fail)? {
        Content::Nothing => {}
        Content::Store => {
            return Err(FileStoreError::AlreadyExists {
                path: path.to_owned(),
            });
        }
        Content::Other => {
            return Err(FileStoreError::NotAStore {
                path: path.to_owned(),
            });
        }
    }
    for part in [OBJECTS, TEMPORARY] {
        match rustix::fs::mkdirat(&root, part, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail(errno.into())),
        }
    }
    // The marker comes last and whole: a directory with one is a whole store.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let marker = rustix::fs::openat(&root, MARKER_NEW, flags | OFlags::CLOEXEC, FILE_MODE)
        .map_err(|errno| fail(errno.into()))?;
    let mut marker = File::from(marker);
    marker
        .write_all(marker_of(VERSION).as_bytes())
        .map_err(fail)?;
    marker.sync_all().map_err(fail)?;
    place_new(&root, MARKER_NEW, &root, MARKER).map_err(|errno| match errno {
        Errno::EXIST => FileStoreError::AlreadyExists {
            path: path.to_owned(),
        },
        _ => fail(errno.into()),
    })?;
    rustix::fs::fsync(&root).map_err(|errno| fail(errno.into()))?;
    sync_parent(path).map_err(fail)
}

/// Opens a store, for reading alone or for both.
pub(super) fn open(path: &Path, writable: bool) -> Result<Tree, FileStoreError> {
    let fail = |errno: Errno| FileStoreError::from_io(path, "open the store", errno.into());
    let root = open_root(path)?;
    let marker = open_marker(path, &root, writable)?;
    let objects = open_part(path, &root, OBJECTS)?;
    let mode = if writable {
        let temporary = open_part(path, &root, TEMPORARY)?;
        clear(&temporary).map_err(fail)?;
        Opened::Writing {
            temporary,
            next_name: AtomicU64::new(0),
        }
    } else {
        Opened::Reading
    };
    Ok(Tree {
        root,
        objects,
        mode,
        _marker: marker,
    })
}

/// What a directory holds.
enum Content {
    Nothing,
    Store,
    Other,
}

impl Content {
    fn of(directory: &OwnedFd) -> io::Result<Self> {
        let mut content = Self::Nothing;
        for entry in Dir::read_from(directory)? {
            match entry?.file_name().to_bytes() {
                name if name == MARKER.as_bytes() => return Ok(Self::Store),
                b"." | b".." | b"lost+found" => {}
                // What a crash during creation leaves behind.
                name if name == MARKER_NEW.as_bytes() => {}
                name if name == OBJECTS.as_bytes() && is_empty(directory, OBJECTS) => {}
                name if name == TEMPORARY.as_bytes() && is_empty(directory, TEMPORARY) => {}
                _ => content = Self::Other,
            }
        }
        Ok(content)
    }
}

fn is_empty(parent: &OwnedFd, name: &str) -> bool {
    let entries = open_directory(parent, name).and_then(Dir::new);
    entries.is_ok_and(|entries| {
        let mut names = entries.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        names.all(|name| name.is_ok_and(|name| matches!(name.to_bytes(), b"." | b"..")))
    })
}

fn open_root(path: &Path) -> Result<OwnedFd, FileStoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| FileStoreError::from_io(path, "open the directory", errno.into()))
}

/// Opens a directory that every store has.
fn open_part(path: &Path, root: &OwnedFd, part: &'static str) -> Result<OwnedFd, FileStoreError> {
    open_directory(root, part).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => FileStoreError::Damaged {
            path: path.to_owned(),
            part,
        },
        _ => FileStoreError::from_io(path, "open the store", errno.into()),
    })
}

/// Opens the marker, locks it and checks what it says.
fn open_marker(path: &Path, root: &OwnedFd, writable: bool) -> Result<File, FileStoreError> {
    let fail = |error: io::Error| FileStoreError::from_io(path, "open the store", error);
    let (access, lock) = if writable {
        (OFlags::RDWR, FlockOperation::NonBlockingLockExclusive)
    } else {
        (OFlags::RDONLY, FlockOperation::NonBlockingLockShared)
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let marker = match rustix::fs::openat(root, MARKER, flags, Mode::empty()) {
        Ok(marker) => File::from(marker),
        Err(Errno::NOENT) => {
            let path = path.to_owned();
            return Err(match Content::of(root).map_err(fail)? {
                Content::Nothing => FileStoreError::Empty { path },
                Content::Store | Content::Other => FileStoreError::NotAStore { path },
            });
        }
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(damaged_marker(path)),
        Err(errno) => return Err(fail(errno.into())),
    };
    rustix::fs::flock(&marker, lock).map_err(|errno| match errno {
        Errno::WOULDBLOCK => FileStoreError::Locked {
            path: path.to_owned(),
        },
        _ => fail(errno.into()),
    })?;
    let mut text = Vec::new();
    (&marker).take(256).read_to_end(&mut text).map_err(fail)?;
    let found = version_of(&text).ok_or_else(|| damaged_marker(path))?;
    if found != VERSION {
        return Err(FileStoreError::UnknownVersion {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(marker)
}

/// The text of the marker of a store of this version.
pub(super) fn marker_of(version: u32) -> String {
    format!("cachalot file store\nversion {version}\n")
}

/// The version that a marker's text names; `None` where it is not a marker's text, to the byte.
pub(super) fn version_of(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let version = text.split_ascii_whitespace().next_back()?.parse().ok()?;
    (text == marker_of(version)).then_some(version)
}

fn damaged_marker(path: &Path) -> FileStoreError {
    FileStoreError::Damaged {
        path: path.to_owned(),
        part: MARKER,
    }
}

/// Removes the files that a crash left among the drafts.
fn clear(temporary: &OwnedFd) -> rustix::io::Result<()> {
    for entry in Dir::read_from(temporary)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            _ => match rustix::fs::unlinkat(temporary, entry.file_name(), AtFlags::empty()) {
                // A directory is not ours; it is in nobody's way.
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            },
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

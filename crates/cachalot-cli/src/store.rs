//! Stores by URL: the one place that knows which kinds there are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cachalot::backend::{Backend, BackendRead, BackendWrite, FileBackend, MemoryBackend, WriteRun};
#[cfg(feature = "object-store")]
use cachalot::backend::{ObjectStoreOpen, ObjectStoreOptions, ObjectStoreUrl};
#[cfg(feature = "rados")]
use cachalot::backend::{RadosOptions, RadosUrl};
use cachalot::{
    BackendError, ByteRange, Hints, ObjectName, SnapContext, SnapId, Timestamp, Truncation,
};

use crate::error::CliError;

/// A store's address. A new kind of store is a variant here, a line in [`StoreUrl::from_str`] and one in
/// [`StoreUrl::open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum StoreUrl {
    /// `memory:`: gone when the command ends.
    Memory,
    /// `file:DIR`: one sparse file per object in a directory.
    File(PathBuf),
    /// `s3://BUCKET/PREFIX`, `gs://` or `az://`: blocks in an object store.
    #[cfg(feature = "object-store")]
    ObjectStore(ObjectStoreUrl),
    /// `rados://POOL/NAMESPACE`: objects in a pool of a Ceph cluster.
    #[cfg(feature = "rados")]
    Rados(RadosUrl),
}

/// The kinds of store, as error messages and `--help` name them.
pub(crate) const STORE_KINDS: &str = match (cfg!(feature = "object-store"), cfg!(feature = "rados"))
{
    (false, false) => "`file:DIR` or `memory:`",
    (false, true) => "`file:DIR`, `rados://POOL/NAMESPACE` or `memory:`",
    (true, false) => {
        "`file:DIR`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `memory:`"
    }
    (true, true) => {
        "`file:DIR`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `rados://POOL/NAMESPACE` or `memory:`"
    }
};

/// Each kind's address, and what it is.
pub(crate) const STORES: &[(&str, &str)] = &[
    (
        "file:DIR",
        "one sparse file per object in the directory DIR",
    ),
    #[cfg(feature = "object-store")]
    (
        "s3://BUCKET/PREFIX",
        "Amazon S3; others that speak its protocol by ?endpoint=URL",
    ),
    #[cfg(feature = "object-store")]
    ("gs://BUCKET/PREFIX", "Google Cloud Storage"),
    #[cfg(feature = "object-store")]
    ("az://CONTAINER/PREFIX", "Azure Blob Storage"),
    #[cfg(feature = "rados")]
    (
        "rados://POOL/NAMESPACE",
        "a pool of a Ceph cluster, by librados2; ?conf=FILE&id=NAME",
    ),
    (
        "memory:",
        "in memory, gone when the command ends (for trying things out)",
    ),
];

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenFor {
    /// Reading what is there; others may read it too.
    Reading,
    /// Changing what is there, alone.
    Changing,
    /// Adding to it, alone; it is made when it is not there.
    Adding,
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(format!(
                "`{text}` is no store address: write {STORE_KINDS}, for example `file:{text}`"
            ));
        };
        match (kind, rest) {
            ("memory", "") => Ok(Self::Memory),
            ("memory", _) => Err("`memory:` takes nothing behind the colon".to_owned()),
            ("file", path) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("`file:` needs a directory, as in `file:/srv/store`".to_owned()),
                path => Ok(Self::File(PathBuf::from(path))),
            },
            ("s3" | "gs" | "az", _) => object_store(text),
            ("rados", _) => rados(text),
            (kind, _) => Err(format!(
                "there is no kind of store called `{kind}:`: write {STORE_KINDS}"
            )),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            // Two slashes in front are taken for those of a URL, so they need two of these.
            Self::File(path) if path.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(f, "file://{}", path.display())
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
            #[cfg(feature = "object-store")]
            Self::ObjectStore(url) => url.fmt(f),
            #[cfg(feature = "rados")]
            Self::Rados(url) => url.fmt(f),
        }
    }
}

impl StoreUrl {
    /// Whether requests travel to the store.
    pub(crate) const fn is_remote(&self) -> bool {
        !matches!(self, Self::Memory | Self::File(_))
    }

    /// Opens the store.
    pub(crate) fn open(&self, purpose: OpenFor) -> Result<Arc<dyn Backend>, CliError> {
        match self {
            Self::Memory => Ok(Arc::new(MemoryBackend::new())),
            Self::File(path) => {
                let backend = match purpose {
                    OpenFor::Reading => FileBackend::open_read_only(path),
                    OpenFor::Changing => FileBackend::open(path),
                    OpenFor::Adding => FileBackend::open_or_create(path),
                };
                Ok(Arc::new(backend?))
            }
            #[cfg(feature = "object-store")]
            Self::ObjectStore(url) => {
                let open = match purpose {
                    OpenFor::Reading | OpenFor::Changing => ObjectStoreOpen::Existing,
                    OpenFor::Adding => ObjectStoreOpen::ExistingOrNew,
                };
                let options = ObjectStoreOptions {
                    // The threads that ask are those of the cache.
                    reads_on_caller: true,
                    ..ObjectStoreOptions::default()
                };
                Ok(Arc::new(options.open(url, open)?))
            }
            // Pools are made by whoever runs the cluster, and namespaces need no making.
            #[cfg(feature = "rados")]
            Self::Rados(url) => Ok(Arc::new(RadosOptions::default().open(url)?)),
        }
    }
}

#[cfg(feature = "object-store")]
fn object_store(text: &str) -> Result<StoreUrl, String> {
    let url = text.parse::<ObjectStoreUrl>();
    url.map(StoreUrl::ObjectStore)
        .map_err(|error| error.to_string())
}

#[cfg(not(feature = "object-store"))]
fn object_store(text: &str) -> Result<StoreUrl, String> {
    Err(format!(
        "`{text}` is an object store, and this cachalot was built without them: build it with `--features object-store`"
    ))
}

#[cfg(feature = "rados")]
fn rados(text: &str) -> Result<StoreUrl, String> {
    let url = text.parse::<RadosUrl>();
    url.map(StoreUrl::Rados).map_err(|error| error.to_string())
}

#[cfg(not(feature = "rados"))]
fn rados(text: &str) -> Result<StoreUrl, String> {
    Err(format!(
        "`{text}` is in a Ceph cluster, and this cachalot was built without that: build it with `--features rados`"
    ))
}

/// An object's name; names made from a volume's name are always good.
pub(crate) fn object_name(name: String) -> Result<ObjectName, CliError> {
    Ok(ObjectName::new(name)?)
}

/// Reads a range of an object; `None` when it is absent. The answer may be short.
pub(crate) async fn read_object(
    backend: &dyn Backend,
    object: ObjectName,
    range: ByteRange,
) -> Result<Option<Bytes>, BackendError> {
    let read = BackendRead {
        object,
        snap: SnapId::HEAD,
        range,
        hints: Hints::default(),
        truncation: Truncation::default(),
    };
    match backend.read(read).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(BackendError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores `buffers`, one behind the other, at an offset of an object.
pub(crate) async fn write_object(
    backend: &dyn Backend,
    object: ObjectName,
    offset: u64,
    buffers: Vec<Bytes>,
) -> Result<(), BackendError> {
    let run = WriteRun {
        offset,
        buffers,
        journal_tid: None,
    };
    let write = BackendWrite {
        object,
        runs: vec![run],
        context: SnapContext::default(),
        modified: Timestamp::default(),
        truncation: Truncation::default(),
    };
    backend.write(write).await
}

/// How many names a page of a listing holds.
const PAGE_NAMES: usize = 1000;

/// Goes through the names that start with `prefix`, page by page.
pub(crate) struct Listing<'a> {
    backend: &'a dyn Backend,
    prefix: String,
    after: Option<ObjectName>,
    more: bool,
}

impl<'a> Listing<'a> {
    /// The listing of a prefix.
    pub(crate) fn new(backend: &'a dyn Backend, prefix: impl Into<String>) -> Self {
        Self {
            backend,
            prefix: prefix.into(),
            after: None,
            more: true,
        }
    }

    /// The next names in ascending order, `None` behind the last. Names already given may be removed meanwhile.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<ObjectName>>, CliError> {
        if !self.more {
            return Ok(None);
        }
        let page = self
            .backend
            .list(self.prefix.clone(), self.after.take(), PAGE_NAMES)
            .await
            .map_err(CliError::store("list the store's objects"))?;
        self.after = page.names.last().cloned();
        self.more = page.more && self.after.is_some();
        Ok(Some(page.names))
    }
}

/// `len` zero bytes.
pub(crate) fn zeros(len: usize) -> Bytes {
    BytesMut::zeroed(len).freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_addresses_are_read_and_printed() {
        let cases = [
            ("memory:", StoreUrl::Memory),
            ("file:/srv/store", StoreUrl::File("/srv/store".into())),
            ("file:///srv/store", StoreUrl::File("/srv/store".into())),
            ("file:a/b:c", StoreUrl::File("a/b:c".into())),
            ("file:.", StoreUrl::File(".".into())),
            ("file:////srv", StoreUrl::File("//srv".into())),
        ];
        for (text, url) in cases {
            assert_eq!(text.parse::<StoreUrl>().unwrap(), url);
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
    }

    #[test]
    fn bad_store_addresses_say_what_to_write() {
        for (text, hint) in [
            ("/srv/store", "`file:/srv/store`"),
            ("", "file:DIR"),
            ("file:", "needs a directory"),
            ("file://", "needs a directory"),
            ("memory:x", "nothing behind the colon"),
            ("ftp:host", "no kind of store called `ftp:`"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn without_object_stores_the_error_says_how_to_get_them() {
        let error = "s3://bucket/x".parse::<StoreUrl>().unwrap_err();
        assert!(error.contains("--features object-store"), "{error}");
    }

    #[cfg(not(feature = "rados"))]
    #[test]
    fn without_rados_the_error_says_how_to_get_it() {
        let error = "rados://pool".parse::<StoreUrl>().unwrap_err();
        assert!(error.contains("--features rados"), "{error}");
    }

    #[cfg(feature = "rados")]
    #[test]
    fn rados_is_addressed_by_url() {
        let text = "rados://pool/names?conf=/etc/ceph/ceph.conf&id=cache";
        let url: StoreUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), text);
        let error = "rados://pool?color=red".parse::<StoreUrl>().unwrap_err();
        assert!(error.contains("there is no color"), "{error}");
    }

    #[cfg(feature = "object-store")]
    #[test]
    fn object_stores_are_addressed_by_url() {
        let text = "s3://bucket/some/where?endpoint=http://127.0.0.1:8000&block_size=65536";
        let url: StoreUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), text);
        let error = "s3://bucket/x?color=red".parse::<StoreUrl>().unwrap_err();
        assert!(error.contains("there is no color"), "{error}");
    }

    #[test]
    fn a_missing_directory_is_no_store_unless_it_may_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let url = StoreUrl::File(directory.path().join("absent"));
        for purpose in [OpenFor::Reading, OpenFor::Changing] {
            assert!(matches!(url.open(purpose), Err(CliError::OpenStore(_))));
        }
        assert!(url.open(OpenFor::Adding).is_ok());
        assert!(url.open(OpenFor::Changing).is_ok());
        let readers = (url.open(OpenFor::Reading), url.open(OpenFor::Reading));
        assert!(readers.0.is_ok() && readers.1.is_ok());
    }
}

//! A backend of one's own: each object is a vector of bytes. The contract suite checks it, then a cache uses it.
//!
//! `cargo run --example custom_backend`
#![expect(clippy::print_stdout, reason = "examples show what happens")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cachalot::backend::{
    Backend, BackendRead, BackendWrite, Capabilities, ListPage, ObjectStat, contract,
};
use cachalot::{BackendError, ByteRange, Cache, ObjectName, SetOptions, SnapId, Truncation};
use futures::future::{BoxFuture, ready};

/// No object may be larger.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    truncation_seq: u64,
}

impl Object {
    /// A truncation that is news to the object cuts it.
    fn apply(&mut self, truncation: Truncation) {
        if truncation.seq > self.truncation_seq {
            self.truncation_seq = truncation.seq;
            self.bytes.truncate(index(truncation.size_bytes));
        }
    }
}

#[derive(Debug, Default)]
struct VecBackend(Mutex<BTreeMap<ObjectName, Object>>);

impl VecBackend {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Object>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_now(&self, read: &BackendRead) -> Result<Bytes, BackendError> {
        if read.snap != SnapId::HEAD {
            return Err(BackendError::Unsupported {
                operation: "reads of snapshots",
            });
        }
        let objects = self.objects();
        let object = objects.get(&read.object).ok_or(BackendError::NotFound)?;
        let mut end = (object.bytes.len() as u64).min(read.range.end());
        if read.truncation.seq > object.truncation_seq {
            end = end.min(read.truncation.size_bytes);
        }
        // What is missing at the end of an answer is zeros.
        let bytes = object
            .bytes
            .get(index(read.range.start())..index(end))
            .unwrap_or(&[]);
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn write_now(&self, write: &BackendWrite) -> Result<(), BackendError> {
        let ends = write
            .runs
            .iter()
            .map(|run| run.offset.saturating_add(run.len_bytes()));
        if ends.max().is_none_or(|end| end > OBJECT_BYTES_MAX) {
            return Err(BackendError::Full);
        }
        let mut objects = self.objects();
        let object = objects.entry(write.object.clone()).or_default();
        object.apply(write.truncation);
        for run in &write.runs {
            let mut at = index(run.offset);
            for buffer in &run.buffers {
                let end = at + buffer.len();
                if object.bytes.len() < end {
                    object.bytes.resize(end, 0);
                }
                if let Some(place) = object.bytes.get_mut(at..end) {
                    place.copy_from_slice(buffer);
                }
                at = end;
            }
        }
        Ok(())
    }

    fn list_now(&self, prefix: &str, after: Option<&ObjectName>, names_max: usize) -> ListPage {
        let objects = self.objects();
        let mut names = objects
            .keys()
            .filter(|name| name.as_str().starts_with(prefix))
            .filter(|name| after.is_none_or(|after| *name > after))
            .cloned();
        let page: Vec<ObjectName> = names.by_ref().take(names_max).collect();
        ListPage {
            names: page,
            more: names.next().is_some(),
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// This store answers at once; one that waits for something returns a future that does.
fn done<T: Send + 'static>(answer: T) -> BoxFuture<'static, T> {
    Box::pin(ready(answer))
}

type Answer<T> = BoxFuture<'static, Result<T, BackendError>>;

impl Backend for VecBackend {
    fn capabilities(&self) -> Capabilities {
        // Under its one lock, every write is whole and in order.
        Capabilities {
            scattered_writes: true,
            atomic_writes: true,
            ordered_writes: true,
            ..Capabilities::default()
        }
    }

    fn read(&self, read: BackendRead) -> Answer<Bytes> {
        done(self.read_now(&read))
    }

    fn write(&self, write: BackendWrite) -> Answer<()> {
        done(self.write_now(&write))
    }

    fn discard(&self, object: ObjectName, range: ByteRange) -> Answer<()> {
        if let Some(object) = self.objects().get_mut(&object) {
            let end = index(range.end()).min(object.bytes.len());
            if let Some(bytes) = object.bytes.get_mut(index(range.start())..end) {
                bytes.fill(0);
            }
        }
        done(Ok(()))
    }

    fn truncate(&self, object: ObjectName, size_bytes: u64) -> Answer<()> {
        if size_bytes > OBJECT_BYTES_MAX {
            return done(Err(BackendError::Full));
        }
        if let Some(object) = self.objects().get_mut(&object) {
            object.bytes.resize(index(size_bytes), 0);
        }
        done(Ok(()))
    }

    fn remove(&self, object: ObjectName) -> Answer<()> {
        done(
            self.objects()
                .remove(&object)
                .map(drop)
                .ok_or(BackendError::NotFound),
        )
    }

    fn stat(&self, object: ObjectName) -> Answer<ObjectStat> {
        let objects = self.objects();
        let size = objects.get(&object).map(|object| object.bytes.len() as u64);
        done(
            size.map(|size_bytes| ObjectStat { size_bytes })
                .ok_or(BackendError::NotFound),
        )
    }

    fn list(&self, prefix: String, after: Option<ObjectName>, max: usize) -> Answer<ListPage> {
        done(Ok(self.list_now(&prefix, after.as_ref(), max)))
    }

    fn sync(&self) -> Answer<()> {
        done(Ok(()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    contract::check(async || Arc::new(VecBackend::default()) as _).await?;
    println!(
        "the backend passes all {} checks of the contract",
        contract::names().count()
    );

    let store = Arc::new(VecBackend::default());
    let cache = Cache::builder(store.clone()).start()?;
    let volume = cache.open(SetOptions::new("volume")).await?;
    volume
        .write_at(4_194_300, Bytes::from_static(b"over two objects"))
        .await?;
    cache.close().await?;

    let names: Vec<String> = store.objects().keys().map(ToString::to_string).collect();
    println!("it now holds {names:?}");
    assert_eq!(
        names,
        ["volume.0000000000000000", "volume.0000000000000001"]
    );
    Ok(())
}

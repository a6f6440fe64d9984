//! A panic in one set stays in that set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cachalot::backend::{
    Backend, BackendRead, BackendWrite, Capabilities, JournalNotice, ListPage, MemoryBackend,
    ObjectStat,
};
use cachalot::{
    BackendError, ByteRange, Cache, CacheConfig, CacheError, JournalTid, ObjectExtent, ObjectName,
    ObjectSet, SetOptions, SnapId, WriteRequest,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::common::{
    Capture, TokioClock, assert_nothing_left, audit, config, data, pause, settle, start,
    start_here, stored,
};

/// A store that panics where it is told to, for the objects of sets whose name holds `panics`.
#[derive(Debug, Default)]
struct Panicking {
    inner: Arc<MemoryBackend>,
    in_journal: AtomicBool,
    in_copy: AtomicBool,
    in_call: AtomicBool,
    in_future: AtomicBool,
}

impl Panicking {
    fn panic_if(&self, when: &AtomicBool, object: &ObjectName) {
        if when.load(Ordering::Relaxed) && object.as_str().contains("panics") {
            panic!("as the test wants it");
        }
    }
}

impl Backend for Panicking {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn read(&self, read: BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        self.inner.read(read)
    }

    fn write(&self, write: BackendWrite) -> BoxFuture<'static, Result<(), BackendError>> {
        self.panic_if(&self.in_call, &write.object);
        let is_panicking =
            self.in_future.load(Ordering::Relaxed) && write.object.as_str().contains("panics");
        let inner = self.inner.write(write);
        async move {
            assert!(!is_panicking, "as the test wants it");
            inner.await
        }
        .boxed()
    }

    fn discard(
        &self,
        object: ObjectName,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.inner.discard(object, range)
    }

    fn truncate(
        &self,
        object: ObjectName,
        size_bytes: u64,
    ) -> BoxFuture<'static, Result<(), BackendError>> {
        self.inner.truncate(object, size_bytes)
    }

    fn remove(&self, object: ObjectName) -> BoxFuture<'static, Result<(), BackendError>> {
        self.inner.remove(object)
    }

    fn stat(&self, object: ObjectName) -> BoxFuture<'static, Result<ObjectStat, BackendError>> {
        self.inner.stat(object)
    }

    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<ListPage, BackendError>> {
        self.inner.list(prefix, after, names_max)
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        self.inner.sync()
    }

    fn may_copy_on_write(&self, object: &ObjectName, _: ByteRange, _: SnapId) -> bool {
        self.panic_if(&self.in_copy, object);
        true
    }

    fn journal(&self, notice: JournalNotice) {
        let (JournalNotice::Committed { object, .. } | JournalNotice::Overwritten { object, .. }) =
            &notice;
        self.panic_if(&self.in_journal, object);
        self.inner.journal(notice);
    }
}

fn here(backend: &Arc<Panicking>) -> Cache {
    pause();
    Capture::install();
    start_here(backend.clone(), Arc::new(TokioClock::new()), config())
}

fn journaled(set: &ObjectSet, offset: u64, len: usize) -> impl Future<Output = bool> + 'static {
    let write = WriteRequest {
        extents: vec![ObjectExtent::new(0, offset, len as u64).unwrap()],
        data: data(1, len),
        journal_tid: Some(JournalTid(7.try_into().unwrap())),
        ..WriteRequest::default()
    };
    let set = set.clone();
    async move { set.write(write).await.is_ok() }
}

async fn all_goes_on_but_for(failed: &ObjectSet, cache: &Cache, other: &ObjectSet) {
    let is_told = |error| matches!(error, CacheError::SetFailed { .. });
    assert!(is_told(failed.read_at(0, 10).await.unwrap_err()));
    assert!(is_told(failed.write_at(0, data(1, 10)).await.unwrap_err()));
    assert!(is_told(failed.flush().await.unwrap_err()));
    assert!(is_told(failed.status().await.unwrap_err()));
    assert!(is_told(cache.flush_all().await.unwrap_err()));
    settle().await;
    audit(cache, &[other]).await;
    other.write_at(0, data(9, 1000)).await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(
        other.read_at(0, 1000).await.unwrap().into_bytes(),
        data(9, 1000)
    );
    let errors = Capture::install().of_set(failed.id().as_str());
    assert!(
        errors
            .iter()
            .any(|entry| entry.level == tracing::Level::ERROR),
        "nobody was told"
    );
}

/// L-07, H-47
#[actix::test]
async fn a_panic_in_one_sets_actor_fails_its_callers_and_nobody_else() {
    let backend = Arc::new(Panicking::default());
    let cache = here(&backend);
    let set = cache.open(SetOptions::new("panics-journal")).await.unwrap();
    let other = cache.open(SetOptions::new("sound-journal")).await.unwrap();
    other.write_at(0, data(1, 1000)).await.unwrap();
    set.write_at(1 << 20, data(1, 900_000)).await.unwrap();
    assert!(journaled(&set, 0, 100).await);
    // One waits for room, one for the store's answer to come.
    let waiting = start({
        let set = set.clone();
        async move { set.write_at(16 << 20, data(1, 3 << 20)).await }
    });
    backend.in_journal.store(true, Ordering::Relaxed);
    let flush = start({
        let set = set.clone();
        async move { set.flush().await }
    });
    let failed = flush.await.unwrap();
    assert!(
        matches!(failed, Err(CacheError::SetFailed { .. })),
        "{failed:?}"
    );
    assert!(matches!(
        waiting.await.unwrap(),
        Err(CacheError::SetFailed { .. })
    ));
    all_goes_on_but_for(&set, &cache, &other).await;

    backend.in_journal.store(false, Ordering::Relaxed);
    let anew = cache.open(SetOptions::new("panics-journal")).await.unwrap();
    anew.write_at(0, data(3, 1000)).await.unwrap();
    anew.flush().await.unwrap();
    assert_eq!(
        stored(&backend.inner, "panics-journal", 0, 1000),
        data(3, 1000)
    );
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

/// L-07, H-47: in the midst of a change, with room reserved for what did not happen.
#[actix::test]
async fn a_panic_amid_a_request_that_waited_for_room_gives_the_room_back() {
    let backend = Arc::new(Panicking::default());
    let cache = here(&backend);
    let set = cache.open(SetOptions::new("panics-copy")).await.unwrap();
    let other = cache.open(SetOptions::new("sound-copy")).await.unwrap();
    // It is known that the object does not exist; then bytes of it are written, and a read has to store them first.
    set.read_at(0, 10).await.unwrap();
    set.clear_nonexistence().await.unwrap();
    set.read_at(0, 10).await.unwrap();
    set.write_at(0, data(1, 1000)).await.unwrap();
    backend.in_copy.store(true, Ordering::Relaxed);
    let failed = set.read_at(5000, 1000).await.unwrap_err();
    assert!(matches!(failed, CacheError::SetFailed { .. }), "{failed:?}");
    all_goes_on_but_for(&set, &cache, &other).await;
    // The first close tells of the failed set, and forgets it.
    assert!(matches!(
        cache.close().await,
        Err(CacheError::SetFailed { .. })
    ));
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

/// L-07: a store that panics when it is called has panicked on the actor's thread.
#[actix::test]
async fn a_panic_in_a_call_of_the_store_stays_in_its_set() {
    let backend = Arc::new(Panicking::default());
    let cache = here(&backend);
    let set = cache.open(SetOptions::new("panics-call")).await.unwrap();
    let other = cache.open(SetOptions::new("sound-call")).await.unwrap();
    set.write_at(0, data(1, 1000)).await.unwrap();
    backend.in_call.store(true, Ordering::Relaxed);
    let failed = set.flush().await.unwrap_err();
    assert!(matches!(failed, CacheError::WriteBack { .. }), "{failed:?}");
    other.write_at(0, data(9, 1000)).await.unwrap();
    other.flush().await.unwrap();
    backend.in_call.store(false, Ordering::Relaxed);
    set.flush().await.unwrap();
    assert_eq!(
        stored(&backend.inner, "panics-call", 0, 1000),
        data(1, 1000)
    );
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

/// L-07, F-04
#[actix::test]
async fn a_store_that_panics_in_its_future_has_failed_that_operation() {
    let backend = Arc::new(Panicking::default());
    let cache = here(&backend);
    let set = cache.open(SetOptions::new("panics-future")).await.unwrap();
    set.write_at(0, data(1, 1000)).await.unwrap();
    backend.in_future.store(true, Ordering::Relaxed);
    let failed = set.flush().await.unwrap_err();
    assert!(
        matches!(
            &failed,
            CacheError::WriteBack {
                source: BackendError::Io { .. },
                ..
            }
        ),
        "{failed:?}"
    );
    assert_eq!(
        set.read_at(0, 1000).await.unwrap().into_bytes(),
        data(1, 1000)
    );
    backend.in_future.store(false, Ordering::Relaxed);
    set.flush().await.unwrap();
    assert_eq!(
        stored(&backend.inner, "panics-future", 0, 1000),
        data(1, 1000)
    );
    cache.close().await.unwrap();
    assert_nothing_left(&cache);
}

/// L-07, H-47: the same on threads of the cache's own, with callers on others.
#[test]
fn callers_on_other_threads_are_told_of_a_failed_set() {
    for _ in 0..20 {
        let backend = Arc::new(Panicking::default());
        let config = CacheConfig {
            arbiters: 2,
            ..config()
        };
        let cache = Cache::builder(backend.clone())
            .config(config)
            .start()
            .unwrap();
        let open = |name: &str| futures::executor::block_on(cache.open(SetOptions::new(name)));
        let (set, other) = (
            open("panics-threads").unwrap(),
            open("sound-threads").unwrap(),
        );
        assert!(futures::executor::block_on(journaled(&set, 3 << 20, 100)));
        std::thread::scope(|scope| {
            for writer in 0..3u64 {
                let (set, other) = (set.clone(), other.clone());
                scope.spawn(move || {
                    for block in 0.. {
                        let offset = (writer << 22) + (block % 16) * 4096;
                        let write = set.write_at(offset, data(block, 4096));
                        if futures::executor::block_on(write).is_err() {
                            break;
                        }
                    }
                    futures::executor::block_on(other.write_at(writer << 20, data(1, 10))).unwrap();
                });
            }
            backend.in_journal.store(true, Ordering::Relaxed);
            let failed = futures::executor::block_on(set.flush());
            assert!(
                matches!(failed, Err(CacheError::SetFailed { .. })),
                "{failed:?}"
            );
        });
        let open_anew = futures::executor::block_on(cache.open(SetOptions::new("panics-threads")));
        drop(open_anew.unwrap());
        futures::executor::block_on(cache.close()).unwrap();
        assert_nothing_left(&cache);
    }
}

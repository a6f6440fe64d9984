//! A server whose store has several clients.

use super::*;

/// A store in memory that has several clients: it counts the locks that were taken, and those that are held.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inner: MemoryBackend,
    pub(crate) taken: Arc<std::sync::atomic::AtomicUsize>,
    pub(crate) held: Arc<std::sync::atomic::AtomicUsize>,
}

#[derive(Debug)]
struct Held(Arc<std::sync::atomic::AtomicUsize>);

impl cachalot::backend::HeldLock for Held {
    fn is_lost(&self) -> bool {
        false
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<(), BackendError>> {
        self.0.fetch_sub(1, Ordering::SeqCst);
        std::future::ready(Ok(())).boxed()
    }
}

type Done = BoxFuture<'static, Result<(), BackendError>>;

impl Backend for Shared {
    fn capabilities(&self) -> backend::Capabilities {
        self.inner.capabilities()
    }
    fn read(&self, read: backend::BackendRead) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        self.inner.read(read)
    }
    fn write(&self, write: backend::BackendWrite) -> Done {
        self.inner.write(write)
    }
    fn discard(&self, object: ObjectName, range: ByteRange) -> Done {
        self.inner.discard(object, range)
    }
    fn truncate(&self, object: ObjectName, size_bytes: u64) -> Done {
        self.inner.truncate(object, size_bytes)
    }
    fn remove(&self, object: ObjectName) -> Done {
        self.inner.remove(object)
    }
    fn stat(
        &self,
        object: ObjectName,
    ) -> BoxFuture<'static, Result<backend::ObjectStat, BackendError>> {
        self.inner.stat(object)
    }
    fn list(
        &self,
        prefix: String,
        after: Option<ObjectName>,
        names_max: usize,
    ) -> BoxFuture<'static, Result<backend::ListPage, BackendError>> {
        self.inner.list(prefix, after, names_max)
    }
    fn sync(&self) -> Done {
        self.inner.sync()
    }
    fn lock(
        &self,
        _: backend::LockRequest,
    ) -> BoxFuture<'static, Result<WriterLock, backend::LockError>> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.held.fetch_add(1, Ordering::SeqCst);
        let held = Held(Arc::clone(&self.held));
        std::future::ready(Ok(WriterLock::new(Box::new(held)))).boxed()
    }
}

#[tokio::test]
async fn a_server_that_fails_before_it_serves_gives_its_locks_back() {
    use clap::Parser;
    let store = Shared::default();
    let held = Arc::clone(&store.held);
    let volumes = Volumes::of(Arc::new(store));
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let serve = async |more: &[&str]| {
        let words = ["cachalot", "serve", "memory:", "one", "two", "--listen"];
        let line = words.iter().chain(more);
        let crate::cli::Command::Serve(args) =
            crate::cli::Cli::try_parse_from(line).unwrap().command
        else {
            panic!("another command");
        };
        let served = serve_volumes(&args, &volumes, Signals::new().unwrap()).await;
        served.unwrap_err().to_string()
    };
    // The second volume is not there.
    let told = serve(&[&address]).await;
    assert!(told.contains("no volume"), "{told}");
    assert_eq!(held.load(Ordering::SeqCst), 0);
    let told = serve(&[&address, "--create", "--size", "1MiB"]).await;
    assert!(told.contains("cannot listen"), "{told}");
    assert_eq!(held.load(Ordering::SeqCst), 0);
}

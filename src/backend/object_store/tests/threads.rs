//! Where requests are made: each place has a client of its own, so what a client was asked tells.

use std::time::Duration;

use super::*;

const THREADS: usize = 2;

/// A backend, and its clients in the order in which they were made: those of its own threads come first.
struct Rig {
    backend: ObjectStoreBackend,
    clients: Arc<Mutex<Vec<Arc<Client>>>>,
}

impl Rig {
    fn new(reads_on_caller: bool, make: fn(&InMemory) -> Client) -> Self {
        let options = ObjectStoreOptions {
            threads: THREADS,
            reads_on_caller,
            ..small_blocks()
        };
        let (inner, clients) = (InMemory::new(), Arc::new(Mutex::new(Vec::new())));
        let made = Arc::clone(&clients);
        let connect = move || {
            let client = Arc::new(make(&inner));
            made.lock().push(Arc::clone(&client));
            Ok(client as _)
        };
        let backend = open_connecting(&options, Arc::new(connect));
        let rig = Self { backend, clients };
        rig.fetched();
        rig
    }

    fn read(&self) -> BoxFuture<'static, Result<Bytes, BackendError>> {
        self.backend.read(BackendRead {
            object: name("object"),
            snap: SnapId::HEAD,
            range: ByteRange::new(0, BLOCK).unwrap(),
            hints: Hints::default(),
            truncation: Truncation::default(),
        })
    }

    /// How many objects were fetched since the last call: over the clients of the backend's own threads, and those of others.
    fn fetched(&self) -> (usize, usize) {
        let gets = |client: &Arc<Client>| {
            let log = client.take_log();
            log.iter().filter(|(did, _)| *did == Did::Get).count()
        };
        let clients = self.clients.lock();
        let (own, others) = clients.split_at(THREADS);
        (own.iter().map(gets).sum(), others.iter().map(gets).sum())
    }

    /// Waits until this thread has a client, and its reads find something.
    async fn settle(&self) {
        self.backend.write(write_at(0, &[1; 4096])).await.unwrap();
        while self.fetched().1 == 0 {
            assert_eq!(self.read().await.unwrap().len(), 4096);
        }
        self.fetched();
    }
}

const TIME: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_read_that_is_alone_is_made_where_it_is_asked_for_and_all_else_is_not() {
    let rig = Rig::new(true, Client::over);
    tokio::time::timeout(TIME, rig.settle()).await.unwrap();
    rig.read().await.unwrap();
    assert_eq!(rig.fetched(), (0, 1));
    // Several go on side by side, the first of them here.
    let (first, second, third) = futures::join!(rig.read(), rig.read(), rig.read());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(rig.fetched(), (2, 1));
    rig.read().await.unwrap();
    assert_eq!(rig.fetched(), (0, 1), "alone again");
    // A part of a block is fetched first.
    rig.backend.write(write_at(0, b"part")).await.unwrap();
    assert_eq!(rig.fetched(), (1, 0));
}

#[tokio::test]
async fn a_read_beside_a_write_leaves_the_thread_that_asks_alone() {
    let rig = Rig::new(true, Client::gated);
    let let_through = || {
        for client in rig.clients.lock().iter() {
            client.let_through(1);
        }
    };
    let_through();
    tokio::time::timeout(TIME, rig.settle()).await.unwrap();
    for client in rig.clients.lock().iter() {
        client.take_permits();
    }
    let write = rig.backend.write(write_at(0, &[2; 4096]));
    rig.read().await.unwrap();
    assert_eq!(rig.fetched(), (1, 0));
    let_through();
    write.await.unwrap();
    rig.read().await.unwrap();
    assert_eq!(rig.fetched(), (0, 1));
}

#[tokio::test]
async fn nothing_is_made_where_it_is_asked_for_unless_that_is_wanted() {
    let rig = Rig::new(false, Client::over);
    store(&rig.backend, 0, &[1; 4096]);
    rig.fetched();
    for _ in 0..100 {
        rig.read().await.unwrap();
    }
    assert_eq!(rig.fetched(), (100, 0));
    assert_eq!(rig.backend.threads.callers(), 0);
}

#[test]
fn threads_that_drive_no_runtime_of_their_own_make_no_requests() {
    let rig = Rig::new(true, Client::over);
    store(&rig.backend, 0, &[1; 4096]);
    rig.fetched();
    block_on(rig.read()).unwrap();
    let many = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    many.block_on(async { rig.read().await }).unwrap();
    assert_eq!(rig.fetched(), (2, 0));
    assert_eq!(rig.backend.threads.callers(), 0);
}

#[test]
fn the_idlest_thread_takes_the_next_operation() {
    let rig = Rig::new(false, Client::gated);
    let writes = [0, 1].map(|number| {
        let mut write = write_at(0, &[1; 4096]);
        write.object = name(&format!("object{number}"));
        rig.backend.write(write)
    });
    for client in rig.clients.lock().iter() {
        client.let_through(2);
    }
    for write in writes {
        block_on(write).unwrap();
    }
    let logs: Vec<_> = rig
        .clients
        .lock()
        .iter()
        .map(|client| client.take_log())
        .collect();
    let blocks = logs.iter().map(|log| {
        log.iter()
            .filter(|(did, path)| *did == Did::Put && path.contains("block/"))
            .count()
    });
    assert_eq!(blocks.collect::<Vec<_>>(), [1, 1]);
}

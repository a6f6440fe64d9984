mod client;
mod locks;
mod threads;

use ::object_store::memory::InMemory;
use ::object_store::path::Path;
use ::object_store::{ObjectStoreExt, PutPayload};
use futures::StreamExt;
use futures::executor::block_on;

use self::client::{Client, Did};
use super::head::Head;
use super::naming::last_part;
use super::*;
use crate::backend::{WriteRun, contract};
use crate::clock::ManualClock;
use crate::types::{Hints, SnapContext, Timestamp, Truncation};

const BLOCK: u64 = 4096;

fn small_blocks() -> ObjectStoreOptions {
    ObjectStoreOptions {
        block_bytes: BLOCK,
        ..ObjectStoreOptions::default()
    }
}

/// Pauses that take no time, but count.
fn no_waiting() -> Parts {
    let clock = Arc::new(ManualClock::default());
    let delaying = Arc::clone(&clock);
    let delayer = move |duration| {
        delaying.advance(duration);
        ready(()).boxed()
    };
    Parts {
        clock,
        delayer: Arc::new(delayer),
    }
}

fn open(client: Arc<dyn ObjectStore>) -> ObjectStoreBackend {
    open_with(&small_blocks(), client)
}

fn open_with(options: &ObjectStoreOptions, client: Arc<dyn ObjectStore>) -> ObjectStoreBackend {
    open_connecting(options, Arc::new(move || Ok(Arc::clone(&client))))
}

fn open_connecting(options: &ObjectStoreOptions, connect: Arc<Connect>) -> ObjectStoreBackend {
    let opening = Opening {
        place: String::new(),
        must_have: None,
        open: ObjectStoreOpen::ExistingOrNew,
    };
    options
        .start(connect, "some/where", opening, no_waiting())
        .unwrap()
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn write_at(offset: u64, data: &[u8]) -> BackendWrite {
    BackendWrite {
        object: name("object"),
        runs: vec![WriteRun {
            offset,
            buffers: vec![Bytes::copy_from_slice(data)],
            journal_tid: None,
        }],
        context: SnapContext::default(),
        modified: Timestamp::default(),
        truncation: Truncation::default(),
    }
}

fn store(backend: &ObjectStoreBackend, offset: u64, data: &[u8]) {
    block_on(backend.write(write_at(offset, data))).unwrap();
}

fn load(backend: &ObjectStoreBackend, offset: u64, len: u64) -> Vec<u8> {
    let read = BackendRead {
        object: name("object"),
        snap: SnapId::HEAD,
        range: ByteRange::new(offset, len).unwrap(),
        hints: Hints::default(),
        truncation: Truncation::default(),
    };
    let mut bytes = block_on(backend.read(read)).unwrap().to_vec();
    bytes.resize(usize::try_from(len).unwrap(), 0);
    bytes
}

fn blocks_of(inner: &InMemory) -> Vec<u64> {
    let below = Path::from("some/where/block/object");
    let found = block_on(inner.list(Some(&below)).collect::<Vec<_>>());
    let number = |path: &Path| u64::from_str_radix(last_part(path), 16).unwrap();
    found
        .into_iter()
        .map(|meta| number(&meta.unwrap().location))
        .collect()
}

#[test]
fn it_keeps_the_contract() {
    let backend = Arc::new(open(Arc::new(InMemory::new())));
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
}

#[test]
fn it_keeps_the_contract_with_large_blocks_and_little_memory() {
    let options = ObjectStoreOptions {
        objects_known_max: 2,
        blocks_at_once: 1,
        requests_max: 2,
        ..ObjectStoreOptions::default()
    };
    let client = Arc::new(InMemory::new());
    let backend = options.open_over(client, "", ObjectStoreOpen::New);
    let backend = Arc::new(backend.unwrap());
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
}

/// Azurite is such a server.
#[test]
fn it_keeps_the_contract_where_listings_always_begin_with_the_first_key() {
    let client = Arc::new(Client::over(&InMemory::new()));
    client.list_all();
    let backend = Arc::new(open(client));
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
}

/// H-16
#[test]
fn it_keeps_the_contract_in_a_storm_of_refusals() {
    let client = Arc::new(Client::over(&InMemory::new()));
    client.storm(3);
    // The pauses of all that is under way move the one clock.
    let options = ObjectStoreOptions {
        retry_for: Duration::from_secs(36_000),
        ..small_blocks()
    };
    let backend = Arc::new(open_with(&options, Arc::clone(&client) as _));
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
    let requests = backend.requests();
    assert!(requests.repeated > requests.puts / 2, "{requests:?}");
    assert_eq!(client.put_twice_at_once(), Vec::<String>::new());
}

#[test]
fn a_part_of_a_block_is_fetched_once_and_a_whole_block_never() {
    let client = Arc::new(Client::over(&InMemory::new()));
    let backend = open(Arc::clone(&client) as _);
    store(&backend, 0, &[1; 3 * 4096]);
    client.take_log();
    let mut write = write_at(100, &[2; 50]);
    write.runs.push(write_at(300, &[3; 50]).runs.remove(0));
    write.runs.push(write_at(BLOCK, &[4; 4096]).runs.remove(0));
    block_on(backend.write(write)).unwrap();
    let log = client.take_log();
    let gets: Vec<_> = log.iter().filter(|(did, _)| *did == Did::Get).collect();
    assert_eq!(gets.len(), 1, "{log:?}");
    assert!(gets[0].1.ends_with("/object/0000000000000000"), "{log:?}");
    let puts = log.iter().filter(|(did, _)| *did == Did::Put).count();
    assert_eq!(puts, 2, "{log:?}");
    // What lies past the end needs no fetching.
    store(&backend, 3 * BLOCK + 5, &[5; 10]);
    let log = client.take_log();
    assert!(log.iter().all(|(did, _)| *did == Did::Put), "{log:?}");
}

#[test]
fn a_block_of_zeros_is_an_absent_key() {
    let inner = InMemory::new();
    let backend = open(Arc::new(inner.clone()));
    store(&backend, 0, &[0; 8 * 4096]);
    assert_eq!(blocks_of(&inner), [0_u64; 0]);
    store(&backend, 3 * BLOCK, &[1; 2 * 4096]);
    assert_eq!(blocks_of(&inner), [3, 4]);
    store(&backend, 3 * BLOCK, &[0; 4096]);
    assert_eq!(blocks_of(&inner), [4]);
    block_on(backend.discard(name("object"), ByteRange::new(4 * BLOCK, 4095).unwrap())).unwrap();
    assert_eq!(blocks_of(&inner), [4]);
    block_on(backend.discard(name("object"), ByteRange::new(4 * BLOCK, 4096).unwrap())).unwrap();
    assert_eq!(blocks_of(&inner), [0_u64; 0]);
    assert_eq!(load(&backend, 0, 8 * BLOCK), [0; 8 * 4096]);
    let stat = block_on(backend.stat(name("object"))).unwrap();
    assert_eq!(stat.size_bytes, 8 * BLOCK);
}

#[test]
fn a_cold_read_within_a_block_asks_once() {
    let inner = InMemory::new();
    store(&open(Arc::new(inner.clone())), 0, &[1; 8192]);
    let client = Arc::new(Client::over(&inner));
    let backend = open(Arc::clone(&client) as _);
    client.take_log();
    assert_eq!(load(&backend, 5000, 100), [1; 100]);
    assert_eq!(client.take_log().len(), 1);
    // The second crosses blocks, which takes the head, once.
    assert_eq!(load(&backend, 4000, 200), [1; 200]);
    assert_eq!(client.take_log().len(), 3);
    assert_eq!(load(&backend, 9000, 200), [0; 200]);
    assert_eq!(client.take_log().len(), 0);
}

/// H-16
#[test]
fn a_write_that_was_dropped_ends_before_the_next_begins() {
    let client = Arc::new(Client::gated(&InMemory::new()));
    let backend = open(Arc::clone(&client) as _);
    let mut first = backend.write(write_at(0, &[1; 4096]));
    assert!(block_on(async { futures::poll!(&mut first) }).is_pending());
    while !client
        .take_log()
        .iter()
        .any(|(_, key)| key.contains("block/"))
    {
        std::thread::yield_now();
    }
    drop(first);
    // This one never begins: it is given up while the first is under way.
    drop(backend.write(write_at(0, &[2; 8192])));
    let third = backend.write(write_at(0, &[3; 4096]));
    client.let_through(100);
    block_on(third).unwrap();
    assert_eq!(load(&backend, 0, BLOCK), [3; 4096]);
    assert_eq!(client.put_twice_at_once(), Vec::<String>::new());
    let stat = block_on(backend.stat(name("object"))).unwrap();
    assert_eq!(stat.size_bytes, BLOCK);
}

/// What must hold after every crash: nothing is stored past the size that the head says, and no block is without one.
fn assert_nothing_past_the_end(inner: &InMemory, when: &str) {
    let get = |path: &str| block_on(async { inner.get(&Path::from(path)).await?.bytes().await });
    let size = match get("some/where/head/object") {
        Ok(bytes) => Head::decode(&bytes).unwrap().0.size_bytes,
        Err(_) => 0,
    };
    for number in blocks_of(inner) {
        let bytes = get(&format!("some/where/block/object/{number:016x}")).unwrap();
        let kept = usize::try_from(size.saturating_sub(number * BLOCK)).unwrap();
        let past = bytes.get(kept..).unwrap_or_default();
        assert!(
            past.iter().all(|byte| *byte == 0),
            "{when}: bytes past {size} in block {number}"
        );
    }
}

type Change = fn(&ObjectStoreBackend) -> Result<(), BackendError>;

fn cutting_write(backend: &ObjectStoreBackend) -> Result<(), BackendError> {
    let mut write = write_at(6 * BLOCK, &[9; 10_000]);
    write.truncation = Truncation {
        seq: 1,
        size_bytes: 5000,
    };
    block_on(backend.write(write))
}

///
#[test]
fn a_crash_between_any_two_requests_brings_no_old_bytes_back() {
    const LEN: u64 = 5 * BLOCK + 100;
    let changes: [(&str, Change); 6] = [
        ("a write past the end", |backend| {
            block_on(backend.write(write_at(7 * BLOCK + 9, &[9; 10_000])))
        }),
        ("a truncating write", cutting_write),
        ("a cut", |backend| {
            block_on(backend.truncate(name("object"), 5000))
        }),
        ("a growth", |backend| {
            block_on(backend.truncate(name("object"), 50_000))
        }),
        ("a discard", |backend| {
            let range = ByteRange::new(5000, LEN).unwrap();
            block_on(backend.discard(name("object"), range))
        }),
        ("a removal", |backend| {
            block_on(backend.remove(name("object")))
        }),
    ];
    for (what, change) in changes {
        for requests in 0.. {
            let inner = InMemory::new();
            store(
                &open(Arc::new(inner.clone())),
                0,
                &vec![7; usize::try_from(LEN).unwrap()],
            );
            let client = Arc::new(Client::over(&inner));
            let backend = open(Arc::clone(&client) as _);
            client.stop_after(requests);
            let outcome = change(&backend);
            drop(backend);
            let when = format!("{what}, stopped after {requests} requests");
            assert_nothing_past_the_end(&inner, &when);
            let again = open(Arc::new(inner.clone()));
            match change(&again) {
                Ok(()) | Err(BackendError::NotFound) => {}
                Err(error) => panic!("{when}: {error}"),
            }
            assert_nothing_past_the_end(&inner, &when);
            if outcome.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_store_says_what_it_is() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let open = |mode, block_bytes| {
        let options = ObjectStoreOptions {
            block_bytes,
            ..ObjectStoreOptions::default()
        };
        options.open_over(Arc::clone(&inner), "p", mode)
    };
    let absent = open(ObjectStoreOpen::Existing, BLOCK).unwrap_err();
    assert!(matches!(absent, ObjectStoreError::NotAStore { .. }));
    let odd = open(ObjectStoreOpen::New, 5000).unwrap_err();
    assert!(matches!(odd, ObjectStoreError::BadBlockSize { .. }));
    open(ObjectStoreOpen::New, 8192).unwrap();
    let there = open(ObjectStoreOpen::New, 8192).unwrap_err();
    assert!(matches!(there, ObjectStoreError::AlreadyExists { .. }));
    // A store keeps the size that it was made with.
    let found = open(ObjectStoreOpen::Existing, BLOCK).unwrap();
    assert_eq!(found.block_bytes(), 8192);
    let marker = Path::from("p/cachalot-store");
    block_on(inner.put(&marker, PutPayload::from_static(b"something else"))).unwrap();
    let unknown = open(ObjectStoreOpen::Existing, BLOCK).unwrap_err();
    assert!(matches!(unknown, ObjectStoreError::UnknownVersion { .. }));
}

#[test]
fn damage_is_told_from_absence() {
    let inner = InMemory::new();
    store(&open(Arc::new(inner.clone())), 0, &[1; 8192]);
    let block = Path::from("some/where/block/object/0000000000000001");
    block_on(inner.put(&block, PutPayload::from_static(b"short"))).unwrap();
    let backend = open(Arc::new(inner.clone()));
    let write = block_on(backend.write(write_at(5000, b"x")));
    assert!(
        matches!(write, Err(BackendError::Corrupt { .. })),
        "{write:?}"
    );
    let head = Path::from("some/where/head/object");
    block_on(inner.put(&head, PutPayload::from_static(b"cachalot"))).unwrap();
    let stat = block_on(open(Arc::new(inner)).stat(name("object")));
    assert!(
        matches!(stat, Err(BackendError::Corrupt { .. })),
        "{stat:?}"
    );
}

#[test]
fn a_store_that_stays_away_is_unavailable_and_requests_are_counted() {
    let client = Arc::new(Client::over(&InMemory::new()));
    let backend = open(Arc::clone(&client) as _);
    store(&backend, 0, &[1; 4096]);
    let before = backend.requests();
    assert_eq!((before.puts, before.failed), (3, 0), "{before:?}");
    client.set_away(true);
    let answer = block_on(backend.write(write_at(0, &[2; 4096])));
    assert_eq!(answer, Err(BackendError::Unavailable));
    let after = backend.requests();
    assert!(
        after.failed > 5 && after.repeated + 1 == after.failed,
        "{after:?}"
    );
    client.set_away(false);
    store(&backend, 0, &[3; 4096]);
    assert_eq!(load(&backend, 0, BLOCK), [3; 4096]);
}

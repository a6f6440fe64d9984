use super::*;
use crate::backend::LockError;

/// Long enough that a busy machine does not lose it, and seldom waited for.
const LEASE: Duration = Duration::from_secs(3);
const SHORT_LEASE: Duration = Duration::from_millis(150);

fn opened(client: &Arc<Client>) -> ObjectStoreBackend {
    let options = ObjectStoreOptions {
        retry_for: Duration::from_millis(1),
        ..small_blocks()
    };
    let client = Arc::clone(client) as Arc<dyn ObjectStore>;
    options
        .open_over(client, "some/where", ObjectStoreOpen::ExistingOrNew)
        .unwrap()
}

fn request(holder: &str, lease: Duration, breaking: bool) -> LockRequest {
    LockRequest {
        object: name("object.head"),
        prefix: "object".to_owned(),
        holder: holder.to_owned(),
        lease,
        breaking,
    }
}

fn two() -> (InMemory, [Arc<Client>; 2], [ObjectStoreBackend; 2]) {
    let inner = InMemory::new();
    let clients = [0, 1].map(|_| Arc::new(Client::over(&inner)));
    let backends = [opened(&clients[0]), opened(&clients[1])];
    (inner, clients, backends)
}

/// H-41
#[test]
fn a_second_writer_is_refused_by_the_name_of_the_first() {
    let (_inner, _clients, [first, second]) = two();
    let lock = block_on(first.lock(request("the first", LEASE, false))).unwrap();
    let refused = block_on(second.lock(request("the second", LEASE, false)));
    let holder = "the first".to_owned();
    assert_eq!(refused.unwrap_err(), LockError::Held { holder });
    assert!(!lock.is_lost());
    block_on(lock.release()).unwrap();
    let lock = block_on(second.lock(request("the second", LEASE, false))).unwrap();
    assert!(!lock.is_lost());
}

/// H-41
#[test]
fn nobody_takes_their_own_record_for_that_of_a_later_writer() {
    let (_inner, [client, _], [backend, _]) = two();
    client.list_all();
    for holder in ["first", "again"] {
        let lock = block_on(backend.lock(request(holder, LEASE, false))).unwrap();
        store(&backend, 0, &[1; 100]);
        assert!(!lock.is_lost());
        block_on(lock.release()).unwrap();
    }
}

/// H-41
#[test]
fn whose_lock_is_broken_writes_no_more() {
    let (inner, clients, [first, second]) = two();
    let lock = block_on(first.lock(request("first", SHORT_LEASE, false))).unwrap();
    store(&first, 0, &[1; 100]);
    let taken = block_on(second.lock(request("second", LEASE, true))).unwrap();
    clients[0].take_log();
    for _ in 0..2 {
        let answer = block_on(first.write(write_at(0, &[2; 100])));
        assert_eq!(answer, Err(BackendError::Fenced));
        let answer = block_on(first.remove(name("object")));
        assert_eq!(answer, Err(BackendError::Fenced));
    }
    assert!(lock.is_lost() && !taken.is_lost());
    let log = clients[0].take_log();
    assert!(
        !log.iter().any(|(did, key)| {
            matches!(did, Did::Put | Did::Delete) && !key.contains("writer/")
        })
    );
    // Others are free, and so are reads.
    assert_eq!(load(&first, 0, 100), [1; 100]);
    store(&second, 0, &[3; 100]);
    assert_eq!(load(&second, 0, 100), [3; 100]);
    block_on(lock.release()).unwrap();
    assert!(!taken.is_lost());
    drop(inner);
}

/// H-41
#[test]
fn a_holder_that_is_gone_is_followed_after_its_lease() {
    let (_inner, _clients, [first, second]) = two();
    drop(block_on(first.lock(request("first", SHORT_LEASE, false))).unwrap());
    let lock = block_on(second.lock(request("second", LEASE, false))).unwrap();
    assert!(!lock.is_lost());
    let answer = block_on(first.write(write_at(0, &[2; 100])));
    assert_eq!(answer, Err(BackendError::Fenced));
}

/// H-41
#[test]
fn a_holder_that_was_cut_off_is_fenced_when_it_comes_back() {
    let (_inner, clients, [first, second]) = two();
    let lock = block_on(first.lock(request("first", SHORT_LEASE, false))).unwrap();
    clients[0].set_away(true);
    let taken = block_on(second.lock(request("second", LEASE, false))).unwrap();
    let answer = block_on(first.write(write_at(0, &[2; 100])));
    assert_eq!(answer, Err(BackendError::Unavailable));
    assert!(!lock.is_lost());
    clients[0].set_away(false);
    let answer = block_on(first.write(write_at(0, &[2; 100])));
    assert_eq!(answer, Err(BackendError::Fenced));
    assert!(lock.is_lost() && !taken.is_lost());
}

/// H-41
#[test]
fn a_holder_that_was_away_and_not_followed_goes_on() {
    let (_inner, clients, [first, _second]) = two();
    let lock = block_on(first.lock(request("first", SHORT_LEASE, false))).unwrap();
    clients[0].set_away(true);
    while block_on(first.write(write_at(0, &[2; 100]))).is_ok() {}
    clients[0].set_away(false);
    store(&first, 0, &[3; 100]);
    assert!(!lock.is_lost());
}

#[test]
fn of_two_that_ask_at_once_one_gets_it() {
    let (_inner, _clients, [first, second]) = two();
    let one = first.lock(request("one", LEASE, false));
    let other = second.lock(request("other", LEASE, false));
    let (one, other) = block_on(futures::future::join(one, other));
    assert!(one.is_ok() != other.is_ok(), "{one:?}, {other:?}");
}

#[test]
fn sizes_are_not_remembered_from_before_the_lock() {
    let (_inner, _clients, [first, second]) = two();
    store(&second, 0, &[1; 100]);
    let lock = block_on(first.lock(request("first", LEASE, false))).unwrap();
    store(&first, 9000, &[2; 100]);
    block_on(lock.release()).unwrap();
    let _lock = block_on(second.lock(request("second", LEASE, false))).unwrap();
    let stat = block_on(second.stat(name("object"))).unwrap();
    assert_eq!(stat.size_bytes, 9100);
}

#[test]
fn a_record_comes_back_as_it_was() {
    let record = super::super::lock::Record {
        is_held: true,
        checks: 7,
        lease: LEASE,
        nonce: 0xabc,
        holder: "pid 7 on host, state held".to_owned(),
    };
    assert_eq!(
        super::super::lock::Record::decode(&record.encode()),
        Ok(record)
    );
    assert!(super::super::lock::Record::decode(b"cachalot writer 1\nstate odd").is_err());
}

//! Whole conversations over streams in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, Semaphore, watch};

use crate::wire::{NbdError, Request, answer, command, flag, option};
use crate::*;

mod pause;
mod tls;

const SIZE: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Ram {
    bytes: Mutex<Vec<u8>>,
    is_read_only: bool,
    /// Flushes wait for one `CACHE` each, where this is asked for.
    flushes: Option<Semaphore>,
}

impl Ram {
    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> BoxFuture<'_, Result<T, NbdError>> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        std::future::ready(Ok(work(&mut bytes))).boxed()
    }
}

fn span(offset: u64, len: u64) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + usize::try_from(len).unwrap()
}

impl Export for Ram {
    fn size_bytes(&self) -> u64 {
        SIZE as u64
    }
    fn is_read_only(&self) -> bool {
        self.is_read_only
    }
    fn preferred_block(&self) -> u32 {
        4096
    }
    fn read(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<Pieces, NbdError>> {
        self.with(|bytes| {
            let found = &bytes[span(offset, len)];
            found.chunks(4096).map(Bytes::copy_from_slice).collect()
        })
    }
    fn write(&self, offset: u64, data: Bytes, _: bool) -> BoxFuture<'_, Result<(), NbdError>> {
        self.with(|bytes| bytes[span(offset, data.len() as u64)].copy_from_slice(&data))
    }
    fn flush(&self) -> BoxFuture<'_, Result<(), NbdError>> {
        async move {
            if let Some(flushes) = &self.flushes {
                flushes.acquire().await.unwrap().forget();
            }
            Ok(())
        }
        .boxed()
    }
    fn trim(&self, offset: u64, len: u64) -> BoxFuture<'_, Result<(), NbdError>> {
        self.zero(offset, len, ZeroHow::default())
    }
    fn zero(&self, offset: u64, len: u64, _: ZeroHow) -> BoxFuture<'_, Result<(), NbdError>> {
        self.with(|bytes| bytes[span(offset, len)].fill(0))
    }
    fn cache(&self, _: u64, _: u64) -> BoxFuture<'_, Result<(), NbdError>> {
        if let Some(flushes) = &self.flushes {
            flushes.add_permits(1);
        }
        self.with(|_| ())
    }
    fn status(&self, _: u64, len: u64) -> BoxFuture<'_, Result<Vec<Status>, NbdError>> {
        self.with(|_| {
            vec![Status {
                len,
                is_hole: false,
            }]
        })
    }
}

type Served = BoxFuture<'static, Result<(), ConnectionError>>;

fn start(is_read_only: bool) -> (DuplexStream, Served, watch::Sender<bool>) {
    start_in(&Room::new(0), is_read_only)
}

fn start_in(room: &Room, is_read_only: bool) -> (DuplexStream, Served, watch::Sender<bool>) {
    let ram = Ram {
        bytes: Mutex::new(vec![0; SIZE]),
        is_read_only,
        flushes: None,
    };
    start_over(ram, room)
}

fn start_over(ram: Ram, room: &Room) -> (DuplexStream, Served, watch::Sender<bool>) {
    start_with(ram, room, None)
}

fn start_with(
    ram: Ram,
    room: &Room,
    tls: Option<Tls>,
) -> (DuplexStream, Served, watch::Sender<bool>) {
    start_pausing((ram, ()), room, tls)
}

fn start_pausing(
    (ram, pause): (Ram, impl Pause + 'static),
    room: &Room,
    tls: Option<Tls>,
) -> (DuplexStream, Served, watch::Sender<bool>) {
    let room = room.clone();
    let (client, server) = tokio::io::duplex(64 << 10);
    let ram: Arc<dyn Export> = Arc::new(ram);
    let (stop, stopped) = watch::channel(false);
    let served = async move {
        let exports = Exports::from([("disk".to_owned(), ram)]);
        serve_connection((server, pause), (&exports, &room), tls.as_ref(), stopped).await
    };
    (client, served.boxed(), stop)
}

fn go() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32(3);
    let mut data = BytesMut::new();
    data.put_u32(4);
    data.put_slice(b"disk");
    data.put_u16(0);
    out.put_slice(&wire::option_bytes(option::GO, &data));
    out
}

/// Runs the client beside the server, and returns both ends.
async fn talk<T>(
    served: Served,
    client: impl Future<Output = T>,
) -> (Result<(), ConnectionError>, T) {
    let both = futures::future::join(served, client);
    tokio::time::timeout(LONG, both).await.unwrap()
}

async fn skip_handshake(client: &mut DuplexStream) {
    client.write_all(&go()).await.unwrap();
    let mut greeting = [0; 18];
    client.read_exact(&mut greeting).await.unwrap();
    wait_for_ack(client).await;
}

async fn wait_for_ack(client: &mut (impl AsyncRead + Unpin)) {
    loop {
        let mut head = [0; 20];
        client.read_exact(&mut head).await.unwrap();
        let len = u32::from_be_bytes(head[16..].try_into().unwrap());
        client.read_exact(&mut vec![0; len as usize]).await.unwrap();
        if head[12..16] == answer::ACK.to_be_bytes() {
            return;
        }
    }
}

fn ask(command: u16, flags: u16, offset: u64, len: u32) -> Bytes {
    wire::request_bytes(&Request {
        flags,
        command,
        cookie: 7,
        offset,
        len,
    })
}

async fn error_of(client: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> u32 {
    client.write_all(request).await.unwrap();
    let mut reply = [0; 16];
    client.read_exact(&mut reply).await.unwrap();
    u32::from_be_bytes(reply[4..8].try_into().unwrap())
}

#[tokio::test]
async fn what_was_written_is_read_and_what_was_trimmed_is_zeros() {
    let (mut client, served, _stop) = start(false);
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        let data = vec![9; 10_000];
        let mut write = BytesMut::from(&ask(command::WRITE, flag::FUA, 5, 10_000)[..]);
        write.put_slice(&data);
        assert_eq!(error_of(&mut client, &write).await, 0);
        let trim = ask(command::TRIM, 0, 5, 100);
        assert_eq!(error_of(&mut client, &trim).await, 0);
        let read = ask(command::READ, 0, 5, 10_000);
        assert_eq!(error_of(&mut client, &read).await, 0);
        let mut found = vec![1; 10_000];
        client.read_exact(&mut found).await.unwrap();
        assert!(found[..100] == [0; 100] && found[100..] == data[100..]);
        let end = ask(command::DISC, 0, 0, 0);
        client.write_all(&end).await.unwrap();
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn each_senseless_request_gets_its_own_error_and_the_connection_goes_on() {
    let end = SIZE as u64;
    let (mut client, served, _stop) = start(false);
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        for (request, error) in [
            (ask(command::READ, 0, end, 1), NbdError::Invalid),
            (ask(command::READ, 0, u64::MAX, 2), NbdError::Invalid),
            (ask(command::READ, 0, 0, u32::MAX), NbdError::Overflow),
            (ask(command::READ, flag::DF, 0, 1), NbdError::Invalid),
            (ask(command::READ, 0, 0, 0), NbdError::Invalid),
            (ask(command::TRIM, 0, end - 1, 2), NbdError::NoSpace),
            (ask(command::WRITE_ZEROES, 0, end, 1), NbdError::NoSpace),
            (ask(command::BLOCK_STATUS, 0, 0, 1), NbdError::Invalid),
            (ask(command::FLUSH, 0, 1, 0), NbdError::Invalid),
            (ask(99, 0, 0, 0), NbdError::Invalid),
        ] {
            let found = error_of(&mut client, &request).await;
            assert_eq!(found, error.number(), "{request:?}");
        }
        let mut write = BytesMut::from(&ask(command::WRITE, 0, end, 4)[..]);
        write.put_slice(b"abcd");
        let found = error_of(&mut client, &write).await;
        assert_eq!(found, NbdError::NoSpace.number());
        assert_eq!(
            error_of(&mut client, &ask(command::FLUSH, 0, 0, 0)).await,
            0
        );
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn a_read_only_export_refuses_what_changes_it() {
    let (mut client, served, _stop) = start(true);
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        let mut write = BytesMut::from(&ask(command::WRITE, 0, 0, 4)[..]);
        write.put_slice(b"abcd");
        let refused = NbdError::NotPermitted.number();
        assert_eq!(error_of(&mut client, &write).await, refused);
        let trim = ask(command::TRIM, 0, 0, 4);
        assert_eq!(error_of(&mut client, &trim).await, refused);
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_cut_at_any_byte_ends_and_nothing_else() {
    let mut whole = go();
    whole.put_slice(&ask(command::WRITE, 0, 0, 64));
    whole.put_slice(&[3; 64]);
    whole.put_slice(&ask(command::READ, 0, 0, 64));
    for cut in 0..whole.len() {
        let (mut client, served, _stop) = start(false);
        let part = whole.clone().freeze().slice(..cut);
        let (_ended, ()) = talk(served, async move {
            client.write_all(&part).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    for prefix in [&b""[..], &go()[..]] {
        let (mut client, served, _stop) = start(false);
        let mut bytes = BytesMut::from(prefix);
        bytes.put_slice(&[0xa5; 4096]);
        let (ended, ()) = talk(served, async move {
            // The server may hang up while this is still being sent.
            drop(client.write_all(&bytes).await);
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
        })
        .await;
        assert!(
            matches!(ended, Err(ConnectionError::Garbage(_))),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_write_that_promises_too_much_is_not_waited_for() {
    let (mut client, served, _stop) = start(false);
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        let write = ask(command::WRITE, 0, 0, wire::PAYLOAD_BYTES_MAX + 1);
        client.write_all(&write).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
    assert!(
        matches!(ended, Err(ConnectionError::Garbage(_))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn what_takes_long_holds_up_nothing_behind_it() {
    let ram = Ram {
        bytes: Mutex::new(vec![0; SIZE]),
        is_read_only: false,
        flushes: Some(Semaphore::new(0)),
    };
    let (mut client, served, _stop) = start_over(ram, &Room::new(0));
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        let mut cookies = Vec::new();
        for (cookie, command) in [(1, command::FLUSH), (2, command::READ), (3, command::CACHE)] {
            let request = Request {
                flags: 0,
                command,
                cookie,
                offset: 0,
                len: u32::from(command != command::FLUSH),
            };
            client
                .write_all(&wire::request_bytes(&request))
                .await
                .unwrap();
            if command == command::FLUSH {
                continue;
            }
            let mut reply = [0; 16];
            client.read_exact(&mut reply).await.unwrap();
            cookies.push(reply[15]);
            if command == command::READ {
                client.read_exact(&mut [0]).await.unwrap();
            }
        }
        let mut reply = [0; 16];
        client.read_exact(&mut reply).await.unwrap();
        cookies.push(reply[15]);
        assert_eq!(cookies[0], 2);
        cookies.sort_unstable();
        assert_eq!(cookies, [1, 2, 3]);
    })
    .await;
    ended.unwrap();
}

#[tokio::test]
async fn a_stop_answers_what_was_asked_and_ends() {
    let (mut client, served, stop) = start(false);
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        assert_eq!(
            error_of(&mut client, &ask(command::FLUSH, 0, 0, 0)).await,
            0
        );
        stop.send_replace(true);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
    ended.unwrap();
}

/// As much of a write of the longest kind as fills all the room, without its data.
fn promise() -> Bytes {
    ask(command::WRITE, 0, 0, wire::PAYLOAD_BYTES_MAX)
}

#[tokio::test(start_paused = true)]
async fn who_stops_in_the_middle_of_a_write_is_dropped_and_others_go_on() {
    let room = Room::new(0);
    let (mut idler, idle, _stop) = start_in(&room, false);
    let (client, served, _stop) = start_in(&room, false);
    let is_dropped = AtomicBool::new(false);
    let promised = Notify::new();
    let idler = async {
        skip_handshake(&mut idler).await;
        idler.write_all(&promise()).await.unwrap();
        promised.notify_one();
        // Nothing more is sent, and nothing comes but the end.
        let read = idler.read(&mut [0]).await.unwrap();
        is_dropped.store(true, Ordering::Relaxed);
        read
    };
    let other = async {
        let mut client = client;
        skip_handshake(&mut client).await;
        promised.notified().await;
        let write = |len: u32| {
            let mut write = BytesMut::from(&ask(command::WRITE, 0, 0, len)[..]);
            write.resize(write.len() + len as usize, 7);
            write
        };
        // What is small needs nothing of what the other holds, time after time, also where more is asked for at once
        // than the client has of its own; what is large waits for it.
        for _ in 0..3 {
            assert_eq!(error_of(&mut client, &write(200 << 10)).await, 0);
        }
        let (mut answers, mut requests) = tokio::io::split(&mut client);
        let both = futures::future::join(
            async {
                for _ in 0..8 {
                    requests
                        .write_all(&ask(command::READ, 0, 0, 100 << 10))
                        .await
                        .unwrap();
                }
            },
            async {
                let mut answer = vec![0; 16 + (100 << 10)];
                for _ in 0..8 {
                    answers.read_exact(&mut answer).await.unwrap();
                }
            },
        );
        both.await;
        assert!(!is_dropped.load(Ordering::Relaxed));
        let large = error_of(&mut client, &write(300 << 10)).await;
        assert!(is_dropped.load(Ordering::Relaxed));
        large
    };
    let both = futures::future::join4(idle, served, idler, other);
    let all = tokio::time::timeout(3 * LONG, both).await.unwrap();
    assert!(
        matches!(all.0, Err(ConnectionError::Stalled)),
        "{:?}",
        all.0
    );
    all.1.unwrap();
    assert_eq!((all.2, all.3), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_answers_is_dropped() {
    let (mut client, served, _stop) = start(false);
    let client = async move {
        skip_handshake(&mut client).await;
        // More than the stream between the two holds.
        client
            .write_all(&ask(command::READ, 0, 0, 1 << 20))
            .await
            .unwrap();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = client => unreachable!("it never ends"),
    };
    assert!(matches!(ended, Err(ConnectionError::Stalled)), "{ended:?}");
}

//! Connections: the handshake, then requests in and answers out, each at its own pace.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::export::{Export, ZeroHow};
use crate::handshake::{Agreed, Exports, negotiate};
use crate::wire::{self, Garbage, NbdError, Request, chunk, command, flag};

/// How long a client may take over the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How many requests of a connection are under way at once.
const REQUESTS_MAX: usize = 128;
/// How many bytes of data a connection's requests may have under way: one of the longest, and a few shorter ones.
const IN_FLIGHT_BYTES_MAX: u32 = 2 * wire::PAYLOAD_BYTES_MAX;
/// How long a client may take over the rest of a write, or leave an answer without taking a byte of it: what it holds up
/// others could use.
const STALL_MAX: Duration = Duration::from_secs(60);
/// What room is counted in.
const ROOM_UNIT: u32 = 4096;
/// How many buffers go out with one call to the system.
const SLICES_MAX: usize = 64;
/// How many stretches a `BLOCK_STATUS` is answered with.
const STATUSES_MAX: usize = 4096;
/// The smallest run of zeros that a structured answer tells as a hole.
const HOLE_BYTES_MIN: usize = 4096;

/// Why a connection ended before its client said so.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The transport failed, or ended in the middle.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client does not speak the protocol.
    #[error(transparent)]
    Garbage(#[from] Garbage),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    Slow,
    /// The client stopped in the middle of a write, or took nothing of its answers.
    #[error("the client stalls")]
    Stalled,
}

/// How many bytes of data all connections of a server together may have under way, on top of what each may.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// So much, and at least what one request may carry.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let least = (wire::PAYLOAD_BYTES_MAX / ROOM_UNIT) as usize;
        let units = bytes / ROOM_UNIT as usize;
        Self(Arc::new(Semaphore::new(
            units.clamp(least, Semaphore::MAX_PERMITS),
        )))
    }
}

/// What a request takes, given back when its answer is out.
struct Taken {
    _slot: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

struct Job {
    request: Request,
    data: Bytes,
    refusal: Option<NbdError>,
    taken: Taken,
}

/// Serves a client until it goes, or until `stop` becomes true: then what is in flight is answered first.
///
/// # Errors
/// [`ConnectionError`]; nobody else notices.
pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut stream: S,
    (exports, room): (&Exports, &Room),
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let agreed = tokio::select! {
        agreed = tokio::time::timeout(HANDSHAKE_MAX, negotiate(&mut stream, exports)) => {
            agreed.unwrap_or(Err(ConnectionError::Slow))?
        }
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let Some(agreed) = agreed else {
        return Ok(());
    };
    let (input, output) = tokio::io::split(stream);
    let (jobs, queue) = mpsc::channel(REQUESTS_MAX);
    let read = read_requests(input, (&agreed, room), jobs, stop);
    let answered = answer_requests(output, &agreed, queue);
    tokio::pin!(read, answered);
    tokio::select! {
        // What was read before the end is still answered, where the client listens.
        read = &mut read => {
            let answered = answered.await;
            read.and(answered)
        }
        answered = &mut answered => answered,
    }
}

async fn read_requests<R: AsyncRead + Unpin>(
    input: R,
    (agreed, shared): (&Agreed, &Room),
    jobs: mpsc::Sender<Job>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let mut input = tokio::io::BufReader::new(input);
    let bytes = Arc::new(Semaphore::new(
        usize::try_from(IN_FLIGHT_BYTES_MAX).unwrap_or(usize::MAX),
    ));
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let mut header = [0; wire::REQUEST_BYTES];
        tokio::select! {
            read = input.read_exact(&mut header) => match read {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read.map(drop)?,
            },
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        let request = wire::request(&header)?;
        if request.command == command::DISC {
            return Ok(());
        }
        let is_write = request.command == command::WRITE;
        if is_write && request.len > wire::PAYLOAD_BYTES_MAX {
            return Err(Garbage("a write that is too long").into());
        }
        let refusal = refusal(&request, agreed);
        let carries = matches!(request.command, command::READ | command::WRITE);
        let room = if carries && (is_write || refusal.is_none()) {
            request.len
        } else {
            0
        };
        let closed = |_| io::Error::other("the connection ends");
        let slot = Arc::clone(&requests)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let taken = Taken {
            _slot: slot,
            _bytes: Arc::clone(&bytes)
                .acquire_many_owned(room)
                .await
                .map_err(closed)?,
            _shared: Arc::clone(&shared.0)
                .acquire_many_owned(room.div_ceil(ROOM_UNIT))
                .await
                .map_err(closed)?,
        };
        let mut data = Bytes::new();
        if is_write {
            let arriving = tokio::time::timeout(STALL_MAX, data_of(&mut input, request.len));
            match arriving.await.map_err(|_late| ConnectionError::Stalled)?? {
                Some(whole) => data = whole,
                None => return Ok(()),
            }
        }
        let job = Job {
            request,
            data,
            refusal,
            taken,
        };
        if jobs.send(job).await.is_err() {
            return Ok(());
        }
    }
}

/// The data of a write; `None` when the connection ends before it is whole.
async fn data_of(input: &mut (impl AsyncRead + Unpin), len: u32) -> io::Result<Option<Bytes>> {
    let mut part = input.take(u64::from(len));
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    // Grows with what has come, not with what was promised.
    let mut buffer = BytesMut::with_capacity(len.min(1 << 20));
    while buffer.len() < len {
        if part.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(buffer.freeze()))
}

/// Why a request is not even tried.
fn refusal(request: &Request, agreed: &Agreed) -> Option<NbdError> {
    let (allowed, changes) = match request.command {
        command::READ if agreed.is_structured => (flag::DF, false),
        command::READ | command::CACHE => (0, false),
        command::FLUSH => (0, false),
        command::WRITE | command::TRIM => (flag::FUA, true),
        command::WRITE_ZEROES => (flag::FUA | flag::NO_HOLE | flag::FAST_ZERO, true),
        command::BLOCK_STATUS if agreed.has_allocation => (flag::REQ_ONE, false),
        _ => return Some(NbdError::Invalid),
    };
    // FUA on what changes nothing is allowed, and asks for nothing.
    if request.flags & !(allowed | flag::FUA) != 0 {
        return Some(NbdError::Invalid);
    }
    if request.command == command::FLUSH {
        return (request.offset != 0 || request.len != 0).then_some(NbdError::Invalid);
    }
    if changes && agreed.export.is_read_only() {
        return Some(NbdError::NotPermitted);
    }
    if request.command == command::READ && request.len > wire::PAYLOAD_BYTES_MAX {
        return Some(NbdError::Overflow);
    }
    let end = request.offset.checked_add(u64::from(request.len));
    if end.is_none_or(|end| end > agreed.export.size_bytes()) {
        return Some(if changes {
            NbdError::NoSpace
        } else {
            NbdError::Invalid
        });
    }
    (request.len == 0).then_some(NbdError::Invalid)
}

async fn answer_requests<W: AsyncWrite + Unpin>(
    mut output: W,
    agreed: &Agreed,
    mut queue: mpsc::Receiver<Job>,
) -> Result<(), ConnectionError> {
    let mut under_way = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        tokio::select! {
            job = queue.recv(), if is_open => match job {
                Some(job) => under_way.push(answer(agreed, job)),
                None => is_open = false,
            },
            Some((buffers, taken)) = under_way.next() => {
                write_all_vectored(&mut output, buffers).await?;
                drop(taken);
            }
        }
    }
    output.shutdown().await?;
    Ok(())
}

async fn write_all_vectored<W: AsyncWrite + Unpin>(
    output: &mut W,
    mut buffers: VecDeque<Bytes>,
) -> Result<(), ConnectionError> {
    while !buffers.is_empty() {
        let mut written = {
            let slices: Vec<IoSlice<'_>> = buffers
                .iter()
                .take(SLICES_MAX)
                .map(|buffer| IoSlice::new(buffer))
                .collect();
            tokio::time::timeout(STALL_MAX, output.write_vectored(&slices))
                .await
                .map_err(|_late| ConnectionError::Stalled)??
        };
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while let Some(front) = buffers.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            buffers.pop_front();
        }
    }
    output.flush().await?;
    Ok(())
}

async fn answer(agreed: &Agreed, job: Job) -> (VecDeque<Bytes>, Taken) {
    let Job {
        request,
        data,
        refusal,
        taken,
    } = job;
    let done = match refusal {
        Some(error) => Err(error),
        None => perform(agreed, &request, data).await,
    };
    let buffers = match done {
        Ok(buffers) => buffers,
        Err(error) => failed(agreed, &request, error),
    };
    (buffers, taken)
}

/// Whether the answer to a command is made of chunks.
const fn is_chunked(agreed: &Agreed, request: &Request) -> bool {
    agreed.is_structured && matches!(request.command, command::READ | command::BLOCK_STATUS)
}

fn failed(agreed: &Agreed, request: &Request, error: NbdError) -> VecDeque<Bytes> {
    let reply = if is_chunked(agreed, request) {
        let mut payload = BytesMut::new();
        payload.put_u32(error.number());
        payload.put_u16(0);
        wire::chunk_head(request.cookie, (chunk::ERROR, true), &payload, 0)
    } else {
        wire::simple_reply(request.cookie, error.number())
    };
    VecDeque::from([reply])
}

async fn perform(
    agreed: &Agreed,
    request: &Request,
    data: Bytes,
) -> Result<VecDeque<Bytes>, NbdError> {
    let export: &dyn Export = &*agreed.export;
    let (offset, len) = (request.offset, u64::from(request.len));
    let is_durable = request.has(flag::FUA);
    match request.command {
        command::READ => {
            let pieces = export.read(offset, len).await?;
            if pieces.iter().map(Bytes::len).sum::<usize>() as u64 != len {
                return Err(NbdError::Io);
            }
            return Ok(if agreed.is_structured {
                structured(request, pieces)
            } else {
                let head = wire::simple_reply(request.cookie, 0);
                std::iter::once(head).chain(pieces).collect()
            });
        }
        command::BLOCK_STATUS => {
            let statuses = export.status(offset, len).await?;
            return Ok(VecDeque::from([status_reply(request, &statuses)]));
        }
        command::WRITE => export.write(offset, data, is_durable).await?,
        command::FLUSH => export.flush().await?,
        command::TRIM => export.trim(offset, len).await?,
        command::WRITE_ZEROES => {
            let how = ZeroHow {
                no_hole: request.has(flag::NO_HOLE),
                fast_only: request.has(flag::FAST_ZERO),
            };
            export.zero(offset, len, how).await?;
        }
        command::CACHE => export.cache(offset, len).await?,
        _ => return Err(NbdError::Invalid),
    }
    if is_durable && matches!(request.command, command::TRIM | command::WRITE_ZEROES) {
        export.flush().await?;
    }
    Ok(VecDeque::from([wire::simple_reply(request.cookie, 0)]))
}

/// A read's answer in chunks, with its zeros as holes unless it must be whole.
fn structured(request: &Request, pieces: Vec<Bytes>) -> VecDeque<Bytes> {
    let mut out = VecDeque::new();
    let whole = request.has(flag::DF);
    let mut at = request.offset;
    let mut run: Vec<Bytes> = Vec::new();
    for piece in pieces {
        let is_hole =
            !whole && piece.len() >= HOLE_BYTES_MIN && piece.iter().all(|byte| *byte == 0);
        if !is_hole {
            run.push(piece);
            continue;
        }
        at = push_data(&mut out, request.cookie, at, &mut run);
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let mut payload = BytesMut::new();
        payload.put_u64(at);
        payload.put_u32(len);
        let kind = (chunk::OFFSET_HOLE, false);
        out.push_back(wire::chunk_head(request.cookie, kind, &payload, 0));
        at += u64::from(len);
    }
    push_data(&mut out, request.cookie, at, &mut run);
    out.push_back(wire::chunk_head(
        request.cookie,
        (chunk::NONE, true),
        b"",
        0,
    ));
    out
}

fn push_data(out: &mut VecDeque<Bytes>, cookie: u64, at: u64, run: &mut Vec<Bytes>) -> u64 {
    let len: usize = run.iter().map(Bytes::len).sum();
    if len > 0 {
        let more = u32::try_from(len).unwrap_or(u32::MAX);
        let kind = (chunk::OFFSET_DATA, false);
        out.push_back(wire::chunk_head(cookie, kind, &at.to_be_bytes(), more));
        out.extend(run.drain(..));
    }
    at + len as u64
}

fn status_reply(request: &Request, statuses: &[crate::export::Status]) -> Bytes {
    let limit = if request.has(flag::REQ_ONE) {
        1
    } else {
        STATUSES_MAX
    };
    let mut payload = BytesMut::new();
    payload.put_u32(wire::ALLOCATION_ID);
    for status in statuses.iter().take(limit) {
        payload.put_u32(u32::try_from(status.len).unwrap_or(u32::MAX));
        // HOLE and ZERO.
        payload.put_u32(if status.is_hole { 3 } else { 0 });
    }
    let kind = (chunk::BLOCK_STATUS, true);
    wire::chunk_head(request.cookie, kind, &payload, 0)
}

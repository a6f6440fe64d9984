//! One client: its requests in, its answers out, in one task.
//!
//! A request that can be answered at once is, and nobody is woken for it. What waits does so beside the others and is
//! answered when it is done, in whatever order that is. Requests are read only while there is room for them, on this
//! connection and in the server.

use std::array;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::handshake::Agreed;
use crate::reply::{Answer, answer, failed, refusal};
use crate::server::{ConnectionError, Pause, Room};
use crate::wire::{self, Garbage, NbdError, Request, command};

/// How many requests of a connection are under way at once.
const REQUESTS_MAX: usize = 128;
/// How many bytes of data a connection's requests may have under way: one of the longest, and a few shorter ones.
const IN_FLIGHT_BYTES_MAX: usize = 2 * wire::PAYLOAD_BYTES_MAX as usize;
/// Of those so many take no room that is shared: who asks for little at a time goes on though others hold all of it.
const OWN_BYTES: usize = 256 << 10;
/// How often it is seen whether a client takes part in what it asked for.
const STALL_TICK: Duration = Duration::from_secs(10);
/// After how many such looks a client is given up that leaves the rest of a write, or an answer, where it is: what it
/// holds up others could use.
const STALL_TICKS_MAX: u32 = 6;
/// How many bytes are read at once when the next request is looked for.
const INBOX_BYTES: usize = 32 << 10;
/// Behind a write of so many bytes only a head is looked for: the next is probably as long, and its data is then read to
/// where it will stay.
const LONG_WRITE_BYTES: usize = 16 << 10;
/// By how much the buffer of a write grows: with what has come, not with what was promised.
const DATA_STEP_BYTES: usize = 1 << 20;
/// How many buffers go out with one call to the system.
const SLICES_MAX: usize = 64;

/// What a request takes, given back when its answer is out.
struct Taken {
    /// Of what this connection may have under way.
    bytes: usize,
    /// Of the room of all, unless the request is within what is the connection's own.
    shared: Option<OwnedSemaphorePermit>,
}

impl Taken {
    const fn own_bytes(&self) -> usize {
        if self.shared.is_some() { 0 } else { self.bytes }
    }
}

/// A request, and why it is not even tried.
#[derive(Clone, Copy)]
struct Asked {
    request: Request,
    refusal: Option<NbdError>,
}

impl Asked {
    /// The bytes that come behind the head.
    const fn data_len(&self) -> usize {
        match self.request.command {
            command::WRITE => self.request.len as usize,
            _ => 0,
        }
    }

    /// The bytes that are held until the answer is out.
    const fn held_len(&self) -> u32 {
        match self.request.command {
            command::WRITE => self.request.len,
            command::READ if self.refusal.is_none() => self.request.len,
            _ => 0,
        }
    }
}

/// What is done with the input.
enum Stage {
    /// A request comes next.
    Head,
    /// A request waits for room in the server.
    Room(Asked, BoxFuture<'static, OwnedSemaphorePermit>),
    /// The rest of a request's data comes next.
    Data(Asked, Taken, BytesMut),
    /// Nothing more is read.
    Ended,
}

/// What is to be sent.
#[derive(Default)]
struct Outbox {
    buffers: VecDeque<Bytes>,
    /// What each answer takes, and how many of the bytes that were ever put in here lie before its end.
    answers: VecDeque<(u64, Taken)>,
    put_bytes: u64,
    sent_bytes: u64,
    /// Some of it may still be in the stream's own buffers.
    is_unflushed: bool,
}

impl Outbox {
    fn put(&mut self, answer: Answer, taken: Taken) {
        self.put_bytes += answer.iter().map(Bytes::len).sum::<usize>() as u64;
        self.buffers.extend(answer);
        self.answers.push_back((self.put_bytes, taken));
    }

    fn is_empty(&self) -> bool {
        self.buffers.is_empty() && !self.is_unflushed
    }

    fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut buffers = self.buffers.iter();
        let slices = array::from_fn(|_| IoSlice::new(buffers.next().map_or(b"", |next| next)));
        (slices, self.buffers.len().min(SLICES_MAX))
    }

    fn sent(&mut self, mut bytes: usize) {
        self.sent_bytes += bytes as u64;
        self.is_unflushed = true;
        while let Some(front) = self.buffers.front_mut() {
            if bytes < front.len() {
                front.advance(bytes);
                break;
            }
            bytes -= front.len();
            self.buffers.pop_front();
        }
    }

    /// What an answer took that is out whole.
    fn next_done(&mut self) -> Option<Taken> {
        let (end, _) = self.answers.front()?;
        if *end > self.sent_bytes {
            return None;
        }
        self.answers.pop_front().map(|(_, taken)| taken)
    }
}

/// The transmission phase.
pub(crate) struct Connection<'a, S, P> {
    stream: S,
    pause: P,
    is_pausing: bool,
    /// Requests done since the last pause.
    done: usize,
    agreed: &'a Agreed,
    room: &'a Room,
    inbox: BytesMut,
    /// The last request was a write of at least [`LONG_WRITE_BYTES`].
    is_after_long_write: bool,
    stage: Stage,
    under_way: FuturesUnordered<BoxFuture<'a, (Answer, Taken)>>,
    outbox: Outbox,
    /// Requests that are read and whose answers are not out.
    requests: usize,
    /// The bytes that they take here.
    bytes: usize,
    /// Those of them that take nothing of the room of all.
    own_bytes: usize,
    stop: BoxFuture<'static, ()>,
    is_stopping: bool,
    has_moved: bool,
    stalled_ticks: u32,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send, P: Pause> Connection<'a, S, P> {
    pub(crate) fn new(
        (stream, pause): (S, P),
        (agreed, room): (&'a Agreed, &'a Room),
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        // A server that is gone stops, too.
        let stop = async move { drop(stop.wait_for(|stop| *stop).await) };
        Self {
            stream,
            pause,
            is_pausing: false,
            done: 0,
            agreed,
            room,
            inbox: BytesMut::new(),
            is_after_long_write: false,
            stage: Stage::Head,
            under_way: FuturesUnordered::new(),
            outbox: Outbox::default(),
            requests: 0,
            bytes: 0,
            own_bytes: 0,
            stop: stop.boxed(),
            is_stopping: false,
            has_moved: false,
            stalled_ticks: 0,
        }
    }

    /// Serves until the client leaves, the server stops, or something is wrong; what was asked for before is answered.
    pub(crate) async fn serve(mut self) -> Result<(), ConnectionError> {
        let mut ticks = interval(STALL_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|cx| self.poll(cx, &mut ticks)).await?;
        // All is answered; a client that did not wait for the end needs none.
        let end = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx));
        end.await.unwrap_or_default();
        Ok(())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        ticks: &mut Interval,
    ) -> Poll<Result<(), ConnectionError>> {
        if !self.is_stopping && self.stop.poll_unpin(cx).is_ready() {
            self.is_stopping = true;
        }
        loop {
            let is_further = self.read(cx)? | self.take_requests(cx)?;
            while let Poll::Ready(Some((answer, taken))) = self.under_way.poll_next_unpin(cx) {
                self.outbox.put(answer, taken);
            }
            let has_sent = self.write(cx)?;
            if self.is_done() {
                return Poll::Ready(Ok(()));
            }
            if !is_further && !has_sent {
                break;
            }
            self.has_moved = true;
        }
        while ticks.poll_tick(cx).is_ready() {
            self.tick()?;
        }
        if !self.is_pausing && self.is_idle() {
            self.is_pausing = true;
            self.pause.begin(std::mem::take(&mut self.done));
        }
        Poll::Pending
    }

    /// Whether there is nothing to do until the client asks for more.
    fn is_idle(&self) -> bool {
        let is_between = matches!(self.stage, Stage::Head) && self.inbox.is_empty();
        is_between && !self.is_stopping && self.under_way.is_empty() && self.outbox.is_empty()
    }

    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Ended) && self.under_way.is_empty() && self.outbox.is_empty()
    }

    const fn takes_more(&self) -> bool {
        self.requests < REQUESTS_MAX && self.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Reads what comes next: heads into the inbox, data where it will stay.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let takes_more = self.takes_more() && !self.is_stopping;
        let read = match &mut self.stage {
            Stage::Head if takes_more => {
                if self.inbox.capacity() - self.inbox.len() < INBOX_BYTES / 2 {
                    self.inbox.reserve(INBOX_BYTES);
                }
                let most = if self.is_after_long_write {
                    wire::REQUEST_BYTES - self.inbox.len().min(wire::REQUEST_BYTES - 1)
                } else {
                    usize::MAX
                };
                pin!(self.stream.read_buf(&mut (&mut self.inbox).limit(most))).poll(cx)
            }
            Stage::Data(asked, _, data) => {
                let lacking = asked.data_len() - data.len();
                if data.capacity() == data.len() {
                    data.reserve(lacking.min(DATA_STEP_BYTES));
                }
                pin!(self.stream.read_buf(&mut data.limit(lacking))).poll(cx)
            }
            Stage::Head | Stage::Room(..) | Stage::Ended => return Ok(false),
        };
        if self.is_pausing && read.is_ready() {
            self.is_pausing = false;
            self.pause.end();
        }
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.stage = Stage::Ended;
                Ok(true)
            }
            Poll::Ready(read) => Ok(read.map(|_| true)?),
        }
    }

    /// Starts all requests that have come whole and find room. Returns whether there was any progress.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let mut is_further = false;
        loop {
            match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Head if self.is_stopping => return Ok(true),
                Stage::Head => {
                    let Some(head) = self
                        .inbox
                        .first_chunk::<{ wire::REQUEST_BYTES }>()
                        .filter(|_| self.takes_more())
                    else {
                        self.stage = Stage::Head;
                        return Ok(is_further);
                    };
                    let request = wire::request(head)?;
                    self.inbox.advance(wire::REQUEST_BYTES);
                    self.stage = self.begin(request)?;
                }
                // Answers may have gone out since it began to wait.
                Stage::Room(asked, _) if self.is_within_own(asked) => {
                    self.stage = self.enter(asked, None);
                }
                Stage::Room(asked, mut waiting) => match waiting.poll_unpin(cx) {
                    Poll::Ready(permit) => self.stage = self.enter(asked, Some(permit)),
                    Poll::Pending => {
                        self.stage = Stage::Room(asked, waiting);
                        return Ok(is_further);
                    }
                },
                Stage::Data(asked, taken, mut data) => {
                    let lacking = asked.data_len() - data.len();
                    let here = self.inbox.split_to(lacking.min(self.inbox.len()));
                    data.extend_from_slice(&here);
                    if here.len() < lacking {
                        self.stage = Stage::Data(asked, taken, data);
                        return Ok(is_further);
                    }
                    self.stage = Stage::Head;
                    self.perform(cx, (asked, taken), data.freeze());
                }
                Stage::Ended => return Ok(is_further),
            }
            is_further = true;
        }
    }

    /// What comes after a request's head.
    fn begin(&mut self, request: Request) -> Result<Stage, ConnectionError> {
        if request.command == command::DISC {
            return Ok(Stage::Ended);
        }
        if request.command == command::WRITE && request.len > wire::PAYLOAD_BYTES_MAX {
            return Err(Garbage("a write that is too long").into());
        }
        let refusal = refusal(&request, self.agreed);
        let asked = Asked { request, refusal };
        self.is_after_long_write = asked.data_len() >= LONG_WRITE_BYTES;
        if self.is_within_own(asked) {
            return Ok(self.enter(asked, None));
        }
        let len = asked.held_len();
        Ok(match self.room.try_take(len) {
            Some(permit) => self.enter(asked, Some(permit)),
            None => Stage::Room(asked, self.room.take(len)),
        })
    }

    /// Whether a request needs nothing of the room of all.
    const fn is_within_own(&self, asked: Asked) -> bool {
        self.own_bytes + asked.held_len() as usize <= OWN_BYTES
    }

    /// A request has the room that it needs: what is left is its data.
    fn enter(&mut self, asked: Asked, shared: Option<OwnedSemaphorePermit>) -> Stage {
        let bytes = usize::try_from(asked.held_len()).unwrap_or(usize::MAX);
        let taken = Taken { bytes, shared };
        self.requests += 1;
        self.bytes += bytes;
        self.own_bytes += taken.own_bytes();
        let data = BytesMut::with_capacity(asked.data_len().min(DATA_STEP_BYTES));
        Stage::Data(asked, taken, data)
    }

    /// Does a request: at once, or beside those that come after it.
    fn perform(&mut self, cx: &mut Context<'_>, (asked, taken): (Asked, Taken), data: Bytes) {
        let Asked { request, refusal } = asked;
        self.done += 1;
        if let Some(error) = refusal {
            self.outbox.put(failed(self.agreed, &request, error), taken);
            return;
        }
        let work = answer(self.agreed, request, data);
        let mut work = work.map(|answer| (answer, taken)).boxed();
        match work.poll_unpin(cx) {
            Poll::Ready((answer, taken)) => self.outbox.put(answer, taken),
            Poll::Pending => self.under_way.push(work),
        }
    }

    /// Sends what is to be sent, as far as the client takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let mut has_sent = false;
        while !self.outbox.buffers.is_empty() {
            let (slices, len) = self.outbox.slices();
            let slices = slices.get(..len).unwrap_or_default();
            let Poll::Ready(sent) = Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
            else {
                return Ok(has_sent);
            };
            let sent = sent?;
            if sent == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.outbox.sent(sent);
            while let Some(taken) = self.outbox.next_done() {
                self.requests -= 1;
                self.bytes -= taken.bytes;
                self.own_bytes -= taken.own_bytes();
            }
            has_sent = true;
        }
        if self.outbox.is_unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            flushed?;
            self.outbox.is_unflushed = false;
        }
        Ok(has_sent)
    }

    /// A client that takes nothing of its answers, or stops in the middle of a write, holds what others could use.
    fn tick(&mut self) -> Result<(), ConnectionError> {
        let owes = !self.outbox.is_empty() || matches!(self.stage, Stage::Data(..));
        self.stalled_ticks = if owes && !self.has_moved {
            self.stalled_ticks + 1
        } else {
            0
        };
        self.has_moved = false;
        if self.stalled_ticks > STALL_TICKS_MAX {
            return Err(ConnectionError::Stalled);
        }
        Ok(())
    }
}

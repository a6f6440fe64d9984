//! A proxy between the backend and the real server, which fails as it is told.
//!
//! It reads each request whole and then decides what becomes of it, by its seed, the request and how often that was asked
//! before: so a run with the same seed does the same to the same request, in whatever order they come. What is let
//! through goes to the server at once, on a connection of its own; only answers are late.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::{Delayer, TimerThread};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// What the proxy does to requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// Passes them on.
    Fair,
    /// Answers all of them with 503 and `SlowDown`.
    SlowDown,
    /// Resets the connections of one in four: before the request is passed on, after it was carried out, or within
    /// the answer.
    Resets,
    /// Answers late; one in eight later than the time that is given here.
    Late(Duration),
    /// Resets every connection as soon as it is there, and those that there are.
    Away,
}

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Pass,
    Refuse,
    CutBefore,
    CutAfter,
    CutWithin,
    Delay(Duration),
}

/// What reached the proxy, and what it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Connections that were reset as soon as they were there.
    pub(crate) turned_away: u64,
    /// Requests that came whole.
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) cut_before: u64,
    pub(crate) cut_after: u64,
    pub(crate) cut_within: u64,
    pub(crate) delayed: u64,
}

impl Counts {
    /// How often somebody knocked.
    pub(crate) fn attempts(&self) -> u64 {
        self.turned_away + self.requests
    }
}

struct State {
    counts: Counts,
    /// How often each request came.
    tries: BTreeMap<String, u64>,
}

struct Shared {
    server: String,
    /// What stands in front of the names of keys; it differs from run to run.
    prefix: String,
    seed: u64,
    weather: watch::Sender<Weather>,
    state: Mutex<State>,
    timer: TimerThread,
}

/// The proxy. It ends when this goes.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: String,
    _runtime: Runtime,
}

impl Proxy {
    /// One in front of the server at `HOST:PORT`.
    pub(crate) fn start(server: &str, prefix: &str, seed: u64) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_io()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            prefix: prefix.to_owned(),
            seed,
            weather: watch::Sender::new(Weather::Fair),
            state: Mutex::new(State {
                counts: Counts::default(),
                tries: BTreeMap::new(),
            }),
            timer: TimerThread::new(),
        });
        runtime.spawn(accept(Arc::clone(&shared), listener));
        Ok(Self {
            shared,
            address,
            _runtime: runtime,
        })
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.state.lock().counts
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.weather.borrow() == Weather::Away {
            shared.state.lock().counts.turned_away += 1;
            reset(&client);
            continue;
        }
        let (shared, mut weather) = (Arc::clone(&shared), shared.weather.subscribe());
        tokio::runtime::Handle::current().spawn(async move {
            let mut client = client;
            tokio::select! {
                // However a connection ends, it is the client that must bear it.
                served = shared.serve(&mut client) => drop(served),
                away = weather.wait_for(|weather| *weather == Weather::Away) => {
                    drop(away);
                    reset(&client);
                }
            }
        });
    }
}

/// Has the connection reset instead of closed when it goes.
fn reset(client: &TcpStream) {
    // One that is gone needs none.
    client.set_zero_linger().unwrap_or_default();
}

impl Shared {
    async fn serve(&self, client: &mut TcpStream) -> io::Result<()> {
        let mut buffered = Vec::new();
        while let Some(request) = read_request(client, &mut buffered).await? {
            match self.fate(&request) {
                Fate::Pass => client.write_all(&self.pass(&request).await?).await?,
                Fate::Refuse => client.write_all(SLOW_DOWN.as_bytes()).await?,
                Fate::CutBefore => return cut(client),
                Fate::CutAfter => {
                    self.pass(&request).await?;
                    return cut(client);
                }
                Fate::CutWithin => {
                    let answer = self.pass(&request).await?;
                    let (some, _) = answer.split_at(answer.len() / 2);
                    client.write_all(some).await?;
                    return cut(client);
                }
                Fate::Delay(delay) => {
                    let answer = self.pass(&request).await?;
                    self.timer.delay(delay).await;
                    client.write_all(&answer).await?;
                }
            }
        }
        Ok(())
    }

    fn fate(&self, request: &Request) -> Fate {
        let mut state = self.state.lock();
        let line = request.line.replace(&self.prefix, "");
        let mut hasher = DefaultHasher::new();
        (self.seed, &line).hash(&mut hasher);
        let tries = state.tries.entry(line).or_default();
        *tries += 1;
        tries.hash(&mut hasher);
        let mut random = StdRng::seed_from_u64(hasher.finish());
        let fate = match *self.weather.borrow() {
            Weather::Fair => Fate::Pass,
            Weather::SlowDown => Fate::Refuse,
            Weather::Resets => match random.random_range(0..12) {
                0 => Fate::CutBefore,
                1 => Fate::CutAfter,
                2 => Fate::CutWithin,
                _ => Fate::Pass,
            },
            Weather::Late(beyond) if random.random_bool(0.125) => Fate::Delay(beyond),
            Weather::Late(_) => Fate::Delay(Duration::from_millis(random.random_range(0..300))),
            Weather::Away => Fate::CutBefore,
        };
        let counts = &mut state.counts;
        counts.requests += 1;
        match fate {
            Fate::Pass => {}
            Fate::Refuse => counts.refused += 1,
            Fate::CutBefore => counts.cut_before += 1,
            Fate::CutAfter => counts.cut_after += 1,
            Fate::CutWithin => counts.cut_within += 1,
            Fate::Delay(_) => counts.delayed += 1,
        }
        fate
    }

    /// What the server answers.
    async fn pass(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.server).await?;
        server.write_all(&request.bytes).await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        // The client's connection goes on.
        let head = find(&answer, b"\r\n\r\n").unwrap_or(answer.len());
        let body = answer.split_off(head);
        let head = String::from_utf8_lossy(&answer);
        let lines = head
            .split("\r\n")
            .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let mut answer = lines.collect::<Vec<_>>().join("\r\n").into_bytes();
        answer.extend(body);
        Ok(answer)
    }
}

fn cut(client: &TcpStream) -> io::Result<()> {
    client.set_zero_linger()
}

const SLOW_DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 37\r\n\r\n\
    <Error><Code>SlowDown</Code></Error>\n";

struct Request {
    /// The first line.
    line: String,
    /// All of it; the server is told to close the connection after its answer.
    bytes: Vec<u8>,
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

/// The next request of a connection, unless the client has closed it.
async fn read_request(
    client: &mut TcpStream,
    buffered: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let mut needed = None;
    loop {
        if needed.is_none()
            && let Some(end) = find(buffered, b"\r\n\r\n")
        {
            let (head, _) = buffered.split_at(end);
            needed = Some((end, end + 4 + body_bytes(head)?));
        }
        if let Some((end, whole)) = needed
            && buffered.len() >= whole
        {
            let rest = buffered.split_off(whole);
            let mut bytes = std::mem::replace(buffered, rest);
            let line = bytes.split(|byte| *byte == b'\r').next();
            let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
            bytes.splice(end..end, *b"\r\nconnection: close");
            return Ok(Some(Request { line, bytes }));
        }
        if client.read_buf(buffered).await? == 0 {
            return Ok(None);
        }
    }
}

fn body_bytes(head: &[u8]) -> io::Result<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let len = lines.find_map(|line| line.strip_prefix("content-length:"));
    let is_chunked = head.contains("\r\ntransfer-encoding:");
    if is_chunked {
        return Err(io::Error::other("a request without a length"));
    }
    len.map_or(Ok(0), |len| len.trim().parse().map_err(io::Error::other))
}

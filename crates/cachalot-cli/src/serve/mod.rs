//! The gateway: volumes as disks for anything that speaks the network block device protocol.

mod admin;
mod ahead;
mod args;
mod busy_poll;
mod client;
mod drain;
mod export;
mod gateway;
mod http;
mod listener;
mod metrics;
mod mode;
mod opening;
mod patience;
mod rehearsal;
mod timings;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cachalot::Cache;
use cachalot::backend::{Backend, WriterLock};
use cachalot_nbd::{Export, Exports, Room, Tls, serve_connection};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use self::admin::default_admin_path;
pub(crate) use self::args::{DEFAULT_PATIENCE, ServeArgs};
pub(crate) use self::export::VolumeExport;
pub(crate) use self::listener::ListenAddress;
pub(crate) use self::opening::{Opening, check, read_ahead};

use self::admin::SocketFile;
use self::args::AdminPath;
use self::busy_poll::BusyPoll;
use self::gateway::{Gateway, Stage};
use self::listener::{Accepted, Listener};
use crate::ctl::progress_line;
use crate::error::CliError;
use crate::output::{human_bytes, note};
use crate::store::OpenFor;
use crate::volume::{Header, VolumeName, Volumes};

/// How many clients are served at once; more are turned away.
const CONNECTIONS_MAX: usize = 128;
/// How many bytes of data all clients together may have under way.
const CLIENT_BYTES_MAX: usize = 256 << 20;
/// How long a request that is under way at the end may take.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(10);
/// How often a line tells how far the end is, and how long until a store that failed is asked again.
const TICK: Duration = Duration::from_secs(1);
/// How long whoever watches the end may take to hear of it.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);
/// How long to wait when the system has no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CliError::Failed(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs `cachalot serve`.
pub(crate) async fn serve(args: ServeArgs) -> Result<(), CliError> {
    let purpose = match (args.read_only, args.create) {
        (true, _) => OpenFor::Reading,
        (false, true) => OpenFor::Adding,
        (false, false) => OpenFor::Changing,
    };
    let signals = Signals::new()?;
    let volumes = Volumes::open(&args.store, purpose)?;
    serve_volumes(&args, &volumes, signals).await
}

/// Serves volumes of an open store. However that ends, the rights to write them are given back.
async fn serve_volumes(
    args: &ServeArgs,
    volumes: &Volumes,
    mut signals: Signals,
) -> Result<(), CliError> {
    let mut locks = Vec::new();
    let started = start(args, volumes, &mut locks).await;
    let (started, served) = match started {
        Ok(mut started) => {
            let served = run(&mut started, &mut signals).await;
            (Some(started), served)
        }
        Err(error) => (None, Err(error)),
    };
    for lock in locks {
        // What can't be given back goes with its lease.
        lock.release().await.unwrap_or_default();
    }
    if let Some(started) = started {
        started.say_how_it_ended(&served).await;
    }
    served
}

/// A server that is ready.
struct Started {
    gateway: Arc<Gateway>,
    listener: Option<Listener>,
    exports: Exports,
    tls: Option<Tls>,
    /// How long the next request of a client that is alone is polled for.
    busy_poll: Duration,
    /// Unless the store is only read.
    backend: Option<Arc<dyn Backend>>,
    admin: Option<SocketFile>,
    /// What serves the operator.
    services: JoinSet<()>,
}

impl Started {
    /// Tells those who watch, once another server could start.
    async fn say_how_it_ended(mut self, served: &Result<(), CliError>) {
        drop(self.admin.take());
        self.gateway.stage.send_replace(match served {
            Ok(()) => Stage::Drained,
            Err(error) => Stage::Lost(error.to_string()),
        });
        let told = self.gateway.stage.closed();
        tokio::time::timeout(LAST_WORDS_MAX, told)
            .await
            .unwrap_or_default();
        self.services.shutdown().await;
    }
}

/// Opens everything that serving takes.
async fn start(
    args: &ServeArgs,
    volumes: &Volumes,
    locks: &mut Vec<WriterLock>,
) -> Result<Started, CliError> {
    let config = args.cache.config()?;
    let tls = args.tls.load()?;
    let headers = headers(args, volumes, locks).await?;
    let listener = Listener::bind(&args.listen, args.insecure || tls.is_some()).await?;
    let metrics = match &args.metrics {
        Some(address) => Some(Listener::bind(address, args.insecure).await?),
        None => None,
    };
    let admin = bind_admin(args).await?;
    let mut services = JoinSet::new();
    let backend = match args.rehearse {
        Some(seed) => {
            let (store, control) = rehearsal::over(Arc::clone(volumes.backend()), seed);
            services.spawn(rehearsal::come_and_go(control));
            store
        }
        None => Arc::clone(volumes.backend()),
    };
    let cache = Cache::builder(Arc::clone(&backend))
        .config(config.clone())
        .start()
        .map_err(CliError::cache("start the cache"))?;
    let opening = Opening {
        is_read_only: args.read_only,
        patience: args.patience.unwrap_or(DEFAULT_PATIENCE),
        read_ahead: read_ahead(args.read_ahead, &args.store),
    };
    let mut exports = BTreeMap::new();
    for (name, header) in &headers {
        let export = opening.open(&backend, &cache, (name, header)).await?;
        exports.insert(name.to_string(), Arc::new(export));
        let size = human_bytes(header.size_bytes);
        note(&format!("serving {name}, {size}, at {}", args.listen));
    }
    let served = exports.iter().map(|(name, export)| {
        let export: Arc<dyn Export> = Arc::clone(export) as _;
        (name.clone(), export)
    });
    let served = served.collect();
    let gateway = Arc::new(Gateway::new(cache, config, exports));
    if let Some(listener) = metrics {
        note(&format!("numbers at {}", listener.address()));
        let numbers = http::answer_all(listener, Arc::clone(&gateway), args.insecure);
        services.spawn(numbers);
    }
    let admin = admin.map(|(listener, file)| {
        note(&format!("`cachalot ctl` at {}", file.path().display()));
        services.spawn(admin::answer_all(listener, Arc::clone(&gateway)));
        file
    });
    Ok(Started {
        gateway,
        listener: Some(listener),
        exports: served,
        tls,
        busy_poll: args.busy_poll,
        backend: (!args.read_only).then_some(backend),
        admin,
        services,
    })
}

/// The headers of the volumes, each locked and made where that is asked.
async fn headers(
    args: &ServeArgs,
    volumes: &Volumes,
    locks: &mut Vec<WriterLock>,
) -> Result<Vec<(VolumeName, Header)>, CliError> {
    let layout = args.layout.layout()?;
    let mut headers = Vec::new();
    for name in &args.volumes {
        if !args.read_only {
            locks.push(volumes.lock(name, args.lock.break_lock).await?);
        }
        let header = match volumes.load(name).await {
            Err(CliError::NoVolume { .. }) if args.create => {
                let size = args.size.unwrap_or_default();
                volumes.create(name, size, layout).await?
            }
            loaded => loaded?,
        };
        check(name, &header, args.size)?;
        headers.push((name.clone(), header));
    }
    Ok(headers)
}

/// Opens the admin socket. One that nobody asked for by name is left out where it can't be had.
async fn bind_admin(
    args: &ServeArgs,
) -> Result<Option<(tokio::net::UnixListener, SocketFile)>, CliError> {
    let by_default = match &args.admin {
        Some(AdminPath::None) => return Ok(None),
        Some(AdminPath::At(path)) => return admin::bind(path).await.map(Some),
        None => default_admin_path(&args.listen),
    };
    let Some(path) = by_default else {
        note("no admin socket: there is no XDG_RUNTIME_DIR, and no --admin");
        return Ok(None);
    };
    match admin::bind(&path).await {
        Ok(bound) => Ok(Some(bound)),
        Err(error) => {
            note(&error.to_string());
            Ok(None)
        }
    }
}

/// Serves until it is asked to end, then stores what is left.
async fn run(started: &mut Started, signals: &mut Signals) -> Result<(), CliError> {
    let Some(listener) = started.listener.take() else {
        return Ok(());
    };
    let gateway = Arc::clone(&started.gateway);
    let offer = Arc::new((std::mem::take(&mut started.exports), started.tls.take()));
    let given_up =
        accept_until_signal(listener, (offer, started.busy_poll), &gateway, signals).await;
    if given_up {
        return Err(drain::give_up(&gateway.cache, "a second signal").await);
    }
    let report = |progress| {
        note(&progress_line(&progress));
        gateway.stage.send_replace(Stage::Draining(progress));
    };
    let backend = started.backend.as_ref();
    drain::drain(&gateway.cache, backend, signals.next(), TICK, report).await?;
    note("all is stored");
    Ok(())
}

/// Serves one client until it goes or is told to.
async fn serve_client(
    stream: Accepted,
    (offer, room): (Arc<(Exports, Option<Tls>)>, Room),
    (clients, busy_poll): (Arc<AtomicUsize>, Duration),
    stopped: watch::Receiver<bool>,
) {
    let served = match stream.into_stream() {
        Ok(stream) => {
            let (exports, tls) = &*offer;
            let pause = BusyPoll::over(&stream, &clients, busy_poll);
            let client = (stream, pause);
            serve_connection(client, (exports, &room), tls.as_ref(), stopped).await
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = served {
        note(&format!("a client was dropped: {error}"));
    }
}

/// Serves clients until a signal or an order to end, then answers what is under way. Returns whether a second signal ended that.
async fn accept_until_signal(
    listener: Listener,
    (offer, busy_poll): (Arc<(Exports, Option<Tls>)>, Duration),
    gateway: &Arc<Gateway>,
    signals: &mut Signals,
) -> bool {
    let room = Room::new(CLIENT_BYTES_MAX);
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = signals.next() => break,
            () = gateway.asked_to_end() => break,
            Some(_) = clients.join_next() => {
                gateway.clients.store(clients.len(), Ordering::Relaxed);
            }
            accepted = listener.accept() => match accepted {
                // Closing it says so; there is no such answer in the protocol.
                Ok(stream) if clients.len() >= CONNECTIONS_MAX => drop(stream),
                Ok(stream) => {
                    let (offer, stopped) = (Arc::clone(&offer), stopped.clone());
                    let room = room.clone();
                    let counted = Arc::clone(&gateway.clients);
                    let serve = move || serve_client(stream, (offer, room), (counted, busy_poll), stopped);
                    clients.spawn(async move {
                        if let Err(error) = client::on_its_own_thread(serve).await {
                            note(&format!("a client was turned away: {error}"));
                        }
                    });
                    gateway.clients.store(clients.len(), Ordering::Relaxed);
                }
                Err(_) => {
                    let pause = std::future::pending::<()>();
                    tokio::time::timeout(ACCEPT_PAUSE, pause).await.unwrap_or_default();
                }
            }
        }
    }
    drop(listener);
    gateway.ask_to_end();
    note("ending: no new clients, answering what is under way");
    stop.send_replace(true);
    let answered = async { while clients.join_next().await.is_some() {} };
    let given_up = tokio::select! {
        late = tokio::time::timeout(LAST_ANSWERS_MAX, answered) => {
            if late.is_err() {
                note("some requests got no answer in time; nobody was told that they are done");
            }
            false
        }
        () = signals.next() => true,
    };
    clients.shutdown().await;
    given_up
}

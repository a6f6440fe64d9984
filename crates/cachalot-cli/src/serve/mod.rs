//! The gateway: volumes as disks for anything that speaks the network block device protocol.

mod drain;
mod export;
mod listener;

use std::sync::Arc;
use std::time::Duration;

use cachalot::{Cache, SetOptions};
use cachalot_nbd::{Exports, Room, serve_connection};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use listener::ListenAddress;

use self::export::VolumeExport;
use self::listener::Listener;
use crate::cli::ServeArgs;
use crate::error::CliError;
use crate::output::{human_bytes, note};
use crate::store::OpenFor;
use crate::volume::{Header, VolumeName, Volumes, require_complete};

/// How many clients are served at once; more are turned away.
const CONNECTIONS_MAX: usize = 128;
/// How many bytes of data all clients together may have under way.
const CLIENT_BYTES_MAX: usize = 256 << 20;
/// How long a request that is under way at the end may take.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(10);
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
    let mut signals = Signals::new()?;
    let config = args.cache.config()?;
    let layout = args.layout.layout()?;
    let purpose = match (args.read_only, args.create) {
        (true, _) => OpenFor::Reading,
        (false, true) => OpenFor::Adding,
        (false, false) => OpenFor::Changing,
    };
    let volumes = Volumes::open(&args.store, purpose)?;
    let (mut headers, mut locks) = (Vec::new(), Vec::new());
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
        headers.push((name, header));
    }
    let listener = Listener::bind(&args.listen, args.insecure).await?;
    let cache = Cache::builder(Arc::clone(volumes.backend()))
        .config(config)
        .start()
        .map_err(CliError::cache("start the cache"))?;
    let mut exports = Exports::new();
    for (name, header) in headers {
        let options = SetOptions::new(name.as_str())
            .prefix(name.as_str())
            .layout(header.layout)
            .file_bytes(header.size_bytes);
        let set = cache
            .open(options)
            .await
            .map_err(CliError::cache(format!("open {name} in the cache")))?;
        let export = VolumeExport {
            set,
            backend: Arc::clone(volumes.backend()),
            name: name.to_string(),
            layout: header.layout,
            size_bytes: header.size_bytes,
            is_read_only: args.read_only,
        };
        exports.insert(name.to_string(), Arc::new(export));
        note(&format!(
            "serving {name}, {}, at {}",
            human_bytes(header.size_bytes),
            args.listen
        ));
    }
    let given_up = accept_until_signal(listener, exports, &mut signals).await;
    let drained = drain::drain(
        &cache,
        (!args.read_only).then_some(volumes.backend()),
        &mut signals,
        given_up,
    )
    .await;
    for lock in locks {
        // What can't be given back goes with its lease.
        lock.release().await.unwrap_or_default();
    }
    drained
}

/// Refuses a volume that is not whole, that shrinks, or whose size is another than what was said.
fn check(name: &VolumeName, header: &Header, size: Option<u64>) -> Result<(), CliError> {
    require_complete(name, header)?;
    let what = match size {
        _ if header.residue_end > header.size_bytes => {
            "is being shrunk, which was interrupted: resize it again to end that".to_owned()
        }
        Some(size) if size != header.size_bytes => format!(
            "has {} bytes and not {size}: leave --size out, or use `cachalot volume resize`",
            header.size_bytes
        ),
        Some(_) | None => return Ok(()),
    };
    Err(CliError::Volume {
        volume: name.to_string(),
        what,
    })
}

/// Serves clients until a signal, then answers what is under way. Returns whether a second signal ended that.
async fn accept_until_signal(listener: Listener, exports: Exports, signals: &mut Signals) -> bool {
    let (exports, room) = (Arc::new(exports), Room::new(CLIENT_BYTES_MAX));
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = signals.next() => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                // Closing it says so; there is no such answer in the protocol.
                Ok(stream) if clients.len() >= CONNECTIONS_MAX => drop(stream),
                Ok(stream) => {
                    let (exports, stopped) = (Arc::clone(&exports), stopped.clone());
                    let room = room.clone();
                    clients.spawn(async move {
                        if let Err(error) = serve_connection(stream, (&exports, &room), None, stopped).await {
                            note(&format!("a client was dropped: {error}"));
                        }
                    });
                }
                Err(_) => {
                    let pause = std::future::pending::<()>();
                    tokio::time::timeout(ACCEPT_PAUSE, pause).await.unwrap_or_default();
                }
            }
        }
    }
    drop(listener);
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

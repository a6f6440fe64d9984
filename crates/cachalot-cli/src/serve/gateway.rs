//! What a server serves, as its operator sees and steers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cachalot::{Cache, CacheConfig, CacheError, Clock, SystemClock};
use futures::future::join_all;
use tokio::sync::{Mutex, watch};

use super::export::{StoreFailure, SwitchFailure, VolumeExport};
use crate::ctl::protocol::{
    ControlError, DrainProgress, ErrorKind, GatewayStats, LimitsChange, LimitsNow, Mode, Released,
    VolumeDump, VolumeMode, VolumeStats,
};

/// How long a set may take to say what its last error was.
const STATUS_MAX: Duration = Duration::from_secs(1);
/// How many objects a listing shows unless it is asked for more or fewer.
const OBJECTS_LISTED: usize = 100;

/// Where a server is on its way to its end.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) enum Stage {
    /// It serves.
    #[default]
    Serving,
    /// It was asked to end.
    Ending,
    /// It stores what is left.
    Draining(DrainProgress),
    /// All is stored.
    Drained,
    /// It ended with unstored data, for this reason.
    Lost(String),
}

/// A running server.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) cache: Cache,
    config: Mutex<CacheConfig>,
    volumes: BTreeMap<String, Arc<VolumeExport>>,
    clock: SystemClock,
    pub(super) clients: Arc<AtomicUsize>,
    pub(super) stage: watch::Sender<Stage>,
    /// One listing at a time: each takes memory.
    listing: Mutex<()>,
}

impl Gateway {
    pub(super) fn new(
        cache: Cache,
        config: CacheConfig,
        volumes: BTreeMap<String, Arc<VolumeExport>>,
    ) -> Self {
        Self {
            cache,
            config: Mutex::new(config),
            volumes,
            clock: SystemClock::new(),
            clients: Arc::default(),
            stage: watch::Sender::default(),
            listing: Mutex::new(()),
        }
    }

    /// Asks the server to end, as a signal does; once more changes nothing.
    pub(super) fn ask_to_end(&self) {
        self.stage.send_if_modified(|stage| {
            let serves = *stage == Stage::Serving;
            if serves {
                *stage = Stage::Ending;
            }
            serves
        });
    }

    /// Waits until somebody asks the server to end.
    pub(super) async fn asked_to_end(&self) {
        let mut stage = self.stage.subscribe();
        let asked = stage.wait_for(|stage| *stage != Stage::Serving).await;
        // It can't fail while this borrows the sender.
        drop(asked);
    }

    /// The volume of a name, or all.
    fn chosen(
        &self,
        volume: Option<&str>,
    ) -> Result<Vec<(&String, &Arc<VolumeExport>)>, ControlError> {
        let chosen: Vec<_> = self
            .volumes
            .iter()
            .filter(|(name, _)| volume.is_none_or(|volume| volume == *name))
            .collect();
        match volume {
            Some(volume) if chosen.is_empty() => Err(ControlError::new(
                ErrorKind::NoVolume,
                format!(
                    "no volume {volume} is served here, but {}",
                    self.volumes.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            )),
            Some(_) | None => Ok(chosen),
        }
    }

    pub(super) async fn stats(&self, volume: Option<&str>) -> Result<GatewayStats, ControlError> {
        let volumes = self
            .chosen(volume)?
            .into_iter()
            .map(async |(name, export)| {
                let status = tokio::time::timeout(STATUS_MAX, export.set.status()).await;
                let (gauges, counters) = export.set.stats();
                VolumeStats {
                    volume: name.clone(),
                    size_bytes: export.size_bytes,
                    mode: export.mode.now(),
                    last_error: match status {
                        Ok(Ok(status)) => status.last_error,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(_late) => Some("the cache is busy".to_owned()),
                    },
                    gauges,
                    counters,
                    requests: export.requests(),
                }
            });
        Ok(GatewayStats {
            volumes: join_all(volumes).await,
            uptime_seconds: self
                .clock
                .now()
                .since(cachalot::Moment::default())
                .as_secs_f64(),
            clients: self.clients.load(Ordering::Relaxed),
            cache: self.cache.stats(),
            limits: self.cache.limits().into(),
        })
    }

    pub(super) async fn dump(
        &self,
        volume: Option<&str>,
        objects: Option<usize>,
    ) -> Result<Vec<VolumeDump>, ControlError> {
        let _alone = self.listing.lock().await;
        let mut dumps = Vec::new();
        for (name, export) in self.chosen(volume)? {
            let mut listed = export.set.dump().await.map_err(of_cache)?.objects;
            dumps.push(VolumeDump {
                volume: name.clone(),
                objects: listed.len(),
                buffers: listed.iter().map(|object| object.buffers.len()).sum(),
                listed: {
                    listed.truncate(objects.unwrap_or(OBJECTS_LISTED));
                    listed
                },
            });
        }
        Ok(dumps)
    }

    /// Stores what is dirty, of every volume even where one fails, and has the store make it safe.
    pub(super) async fn flush(&self, volume: Option<&str>) -> Result<Vec<String>, ControlError> {
        let flushes = self
            .chosen(volume)?
            .into_iter()
            .map(async |(name, export)| match export.store_all().await {
                Ok(()) => Ok(name.clone()),
                Err(error) => Err(of_store(name, &error)),
            });
        join_all(flushes).await.into_iter().collect()
    }

    /// Changes limits, all or none of them.
    pub(super) async fn limits(&self, change: LimitsChange) -> Result<LimitsNow, ControlError> {
        if change != LimitsChange::default() {
            let mut config = self.config.lock().await;
            let changed = change.applied_to(&config);
            self.cache.set_limits(&changed).await.map_err(of_cache)?;
            *config = changed;
        }
        Ok(self.cache.limits().into())
    }

    pub(super) async fn release(
        &self,
        volume: Option<&str>,
    ) -> Result<Vec<Released>, ControlError> {
        let mut released = Vec::new();
        for (name, export) in self.chosen(volume)? {
            released.push(Released {
                volume: name.clone(),
                kept_bytes: export.set.release().await.map_err(of_cache)?,
            });
        }
        Ok(released)
    }

    /// Switches the mode, of every volume even where one fails, and tells what it is.
    pub(super) async fn mode(
        &self,
        volume: Option<&str>,
        set: Option<Mode>,
    ) -> Result<Vec<VolumeMode>, ControlError> {
        let modes = self
            .chosen(volume)?
            .into_iter()
            .map(async |(name, export)| {
                if let Some(mode) = set {
                    let switched = export.switch(mode).await;
                    switched.map_err(|failure| of_switch(name, &failure))?;
                }
                Ok(VolumeMode {
                    volume: name.clone(),
                    mode: export.mode.now(),
                })
            });
        join_all(modes).await.into_iter().collect()
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::needless_pass_by_value,
    reason = "the library's errors are open-ended; for `map_err`"
)]
fn of_cache(error: CacheError) -> ControlError {
    let kind = match &error {
        CacheError::InvalidConfig(_) => ErrorKind::Limits,
        CacheError::Read { .. }
        | CacheError::WriteBack { .. }
        | CacheError::Backend(_)
        | CacheError::Fenced { .. } => ErrorKind::Store,
        _ => ErrorKind::Failed,
    };
    ControlError::new(kind, error.to_string())
}

fn of_store(volume: &str, failure: &StoreFailure) -> ControlError {
    let kind = match failure {
        StoreFailure::Cache(CacheError::Closed { .. }) => ErrorKind::Failed,
        StoreFailure::Cache(_) | StoreFailure::Sync(_) => ErrorKind::Store,
    };
    ControlError::new(kind, format!("{volume}: {failure}"))
}

fn of_switch(volume: &str, failure: &SwitchFailure) -> ControlError {
    let kind = match failure {
        SwitchFailure::Fixed | SwitchFailure::Overtaken => ErrorKind::Refused,
        SwitchFailure::Waiting { .. } | SwitchFailure::Store(_) => ErrorKind::Store,
    };
    ControlError::new(kind, format!("{volume}: {failure}"))
}

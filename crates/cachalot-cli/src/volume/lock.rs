//! The sole right to write a volume, where a store has several clients.

use std::time::Duration;

use cachalot::backend::{LockError, LockRequest, WriterLock};

use super::{VolumeName, Volumes};
use crate::error::CliError;

/// How long the right outlives a command that died. A store of blocks follows one after a little more than twice this.
const LEASE: Duration = Duration::from_secs(30);

impl Volumes {
    /// Asks for the sole right to write a volume, which need not exist.
    pub(crate) async fn lock(
        &self,
        name: &VolumeName,
        breaking: bool,
    ) -> Result<WriterLock, CliError> {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let request = LockRequest {
            object: name.header_object()?,
            prefix: format!("{name}."),
            holder: format!("process {} on {host}", std::process::id()),
            lease: LEASE,
            breaking,
        };
        self.backend().lock(request).await.map_err(|error| match error {
            LockError::Held { holder } => CliError::Volume {
                volume: name.to_string(),
                what: format!(
                    "is being written by {holder}: end that, or take over with --break-lock, and what it has not \
                     stored yet is lost"
                ),
            },
            LockError::Store(source) => CliError::store(format!("lock volume {name}"))(source),
            other => CliError::Failed(format!("cannot lock volume {name}: {other}")),
        })
    }

    /// Does something to a volume while nobody else may write it.
    pub(crate) async fn alone<T>(
        &self,
        name: &VolumeName,
        breaking: bool,
        work: impl AsyncFnOnce(&Self) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let lock = self.lock(name, breaking).await?;
        let done = work(self).await;
        let released = lock.release().await;
        let done = done?;
        released.map_err(CliError::store(format!("unlock volume {name}")))?;
        Ok(done)
    }
}

//! Closing a cache: by storing everything, or by giving it up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};

use super::Cache;
use crate::actors::message::{Lost, Stop};
use crate::actors::{Gauges, SetShared, SetState};
use crate::error::CacheError;

/// How far closing has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloseProgress {
    /// Bytes dirty or in flight to the store.
    pub unstored_bytes: u64,
    /// Sets that are not yet closed.
    pub open_sets: usize,
}

impl Cache {
    /// Stores everything, waits for all that is under way, and ends the actors. Sets that are opened meanwhile are
    /// closed, too.
    ///
    /// # Errors
    /// The first writeback that failed. Then the sets that could not be stored stay open, with their data: close
    /// again once the store is well, or [`abandon`](Self::abandon).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the closing of sets under way.
    pub async fn close(&self) -> Result<(), CacheError> {
        self.close_with_progress(|_| ()).await
    }

    /// As [`close`](Self::close); reports what is left whenever a set has closed, and first at the start.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub async fn close_with_progress(
        &self,
        mut report: impl FnMut(CloseProgress),
    ) -> Result<(), CacheError> {
        loop {
            let (_, error) = self.stop_sets(true, &mut report).await;
            if let Some(error) = error {
                return Err(error);
            }
            if self.end_if_empty() {
                return Ok(());
            }
        }
    }

    /// Ends the actors at once. Dirty data is lost; the return value says how much.
    pub async fn abandon(&self) -> Lost {
        let mut lost = Lost::default();
        loop {
            let (part, _) = self.stop_sets(false, |_| ()).await;
            lost += part;
            if self.end_if_empty() {
                break;
            }
        }
        if lost != Lost::default() {
            tracing::error!(
                lost.dirty_bytes,
                lost.in_flight_bytes,
                "the cache was abandoned"
            );
        }
        lost
    }

    /// Stops all sets that are open now, each by itself. Returns what was lost, and the first error.
    async fn stop_sets(
        &self,
        flush: bool,
        mut report: impl FnMut(CloseProgress),
    ) -> (Lost, Option<CacheError>) {
        let sets = self.inner.directory.sets();
        let mut open_sets = sets.len();
        let mut report_now = |open_sets| {
            let gauges = Gauges::from(self.inner.common.books.totals());
            let unstored_bytes = gauges.dirty_bytes + gauges.tx_bytes;
            report(CloseProgress {
                unstored_bytes,
                open_sets,
            });
        };
        report_now(open_sets);
        let mut stops: FuturesUnordered<_> = sets
            .into_iter()
            .map(|set| self.stop_set(set, flush))
            .collect();
        let (mut lost, mut first_error) = (Lost::default(), None);
        while let Some(stopped) = stops.next().await {
            match stopped {
                Ok(part) => {
                    lost += part;
                    open_sets -= 1;
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
            report_now(open_sets);
        }
        (lost, first_error)
    }

    pub(crate) async fn stop_set(
        &self,
        set: Arc<SetShared>,
        flush: bool,
    ) -> Result<Lost, CacheError> {
        let Some(addr) = set.addr().get() else {
            return Err(set.refusal());
        };
        let stopped = match addr.send(Stop { flush }).await {
            Ok(stopped) => stopped,
            Err(_) if set.state() == SetState::Closed => Ok(Lost::default()),
            Err(_) => Err(set.refusal()),
        };
        // Closed or failed, it is gone.
        if matches!(set.state(), SetState::Closed | SetState::Failed) {
            self.forget_set(&set);
        }
        stopped
    }

    fn forget_set(&self, shared: &Arc<SetShared>) {
        let mut opening = self.inner.opening.lock();
        let known = self.inner.directory.find(&shared.id);
        if known.is_some_and(|known| Arc::ptr_eq(&known, shared)) {
            opening.remove(&shared.id);
            self.inner.directory.remove(shared);
        }
    }

    /// Ends the cache, unless a set was opened meanwhile: whoever opens one later is refused.
    fn end_if_empty(&self) -> bool {
        let inner = &self.inner;
        {
            let _opening = inner.opening.lock();
            if !inner.directory.is_empty() {
                return false;
            }
            inner.is_closed.store(true, Ordering::Release);
        }
        inner.end_actors();
        true
    }
}

//! Waiting for a store that is away for a while: clients of a disk take an error for the end of it, and wait gladly.

use std::time::Duration;

use cachalot::{Advice, BackendError, CacheError};

use super::export::StoreFailure;

/// The first pause before something is tried again. Each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An error that may go by.
pub(super) trait Passing {
    /// Whether the same call may succeed later.
    fn may_pass(&self) -> bool;
}

impl Passing for BackendError {
    fn may_pass(&self) -> bool {
        self.is_transient()
    }
}

impl Passing for CacheError {
    fn may_pass(&self) -> bool {
        self.advice() == Advice::Retry
    }
}

impl Passing for StoreFailure {
    fn may_pass(&self) -> bool {
        match self {
            Self::Cache(error) => error.may_pass(),
            Self::Sync(error) => error.may_pass(),
        }
    }
}

/// For how long what fails is tried again before a client is told, not counting what the trials take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Patience(pub(super) Duration);

impl Patience {
    /// Tries until it goes well, fails for good, or the patience is over.
    pub(super) async fn with<T, E: Passing, A: Future<Output = Result<T, E>>>(
        self,
        mut attempt: impl FnMut() -> A,
    ) -> Result<T, E> {
        let (mut left, mut pause) = (self.0, FIRST_PAUSE);
        loop {
            match attempt().await {
                Err(error) if error.may_pass() && !left.is_zero() => {
                    let now = pause.min(left);
                    let never = std::future::pending::<()>();
                    tokio::time::timeout(now, never).await.unwrap_or_default();
                    left -= now;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tries(
        patience: Duration,
        errors: &[BackendError],
    ) -> (usize, Result<(), BackendError>) {
        let mut tried = 0;
        let done = Patience(patience)
            .with(|| {
                tried += 1;
                std::future::ready(errors.get(tried - 1).cloned().map_or(Ok(()), Err))
            })
            .await;
        (tried, done)
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_what_does_not_is_told_at_once() {
        let away = vec![BackendError::Unavailable; 5];
        assert_eq!(tries(Duration::from_secs(1), &away).await, (6, Ok(())));
        let full = [BackendError::Full];
        let told = tries(Duration::from_secs(1), &full).await;
        assert_eq!(told, (1, Err(BackendError::Full)));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let away = vec![BackendError::Unavailable; 1000];
        let most = Duration::from_secs(20);
        let not_yet = tokio::time::timeout(Duration::from_secs(19), tries(most, &away)).await;
        assert!(not_yet.is_err());
        let by_then = tokio::time::timeout(Duration::from_secs(21), tries(most, &away)).await;
        let (tried, done) = by_then.unwrap();
        assert_eq!(done, Err(BackendError::Unavailable));
        assert!((20..40).contains(&tried), "{tried}");
        let (tried, _) = tries(Duration::ZERO, &away).await;
        assert_eq!(tried, 1);
    }
}

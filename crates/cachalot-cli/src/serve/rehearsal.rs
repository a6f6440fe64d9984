//! A store that fails on purpose, to see what stands on top of it bear that.

use std::sync::Arc;
use std::time::Duration;

use cachalot::backend::{Backend, FaultControl, FaultPlan, FaultyBackend, StoreCondition};

use crate::output::note;

/// How long the store is well, and how long it is away.
const WELL: Duration = Duration::from_secs(70);
const AWAY: Duration = Duration::from_secs(20);

/// Errors, lost answers, delays, half writes and short reads, now and then.
fn plan() -> FaultPlan {
    FaultPlan {
        fail: 0.02,
        lose_reply: 0.005,
        delay: 0.05,
        delay_max: Duration::from_millis(50),
        double: 0.01,
        partial_store: 0.01,
        short_read: 0.05,
        ..FaultPlan::default()
    }
}

/// A store of which a seed decides what fails, and what takes it down again and again.
pub(super) fn over(store: Arc<dyn Backend>, seed: u64) -> (Arc<dyn Backend>, FaultControl) {
    let faulty = FaultyBackend::new(store, seed);
    let control = faulty.control();
    control.set_plan(plan());
    (Arc::new(faulty), control)
}

/// Takes the store away and brings it back, for ever.
pub(super) async fn come_and_go(control: FaultControl) {
    let pause = |time| async move {
        let never = std::future::pending::<()>();
        tokio::time::timeout(time, never).await.unwrap_or_default();
    };
    loop {
        pause(WELL).await;
        note("rehearsal: the store is away");
        control.set_condition(StoreCondition::Down);
        pause(AWAY).await;
        control.set_condition(StoreCondition::Up);
        note(&format!(
            "rehearsal: the store is back; {:?}",
            control.counts()
        ));
    }
}

//! What changes an object other than a write, and what tells its shape.

use std::num::NonZeroU64;

use super::{Bench, Broken, Outcome, ensure, pattern, range, read_of};
use crate::backend::JournalNotice;
use crate::error::BackendError;
use crate::types::JournalTid;

pub(super) async fn discard_zeros_exactly_its_range(bench: &Bench) -> Outcome {
    let object = bench.object("inside").await?;
    let mut model = pattern(1, 300_000);
    bench.store(&object, 0, &model).await?;
    let places = [
        (0, 1),
        (4095, 2),
        (8192, 4096),
        (60_000, 140_001),
        (299_999, 1),
    ];
    for (offset, len) in places {
        bench.discard(&object, offset as u64, len as u64).await?;
        model.splice(offset..offset + len, vec![0; len]);
        bench.expect(&object, 0, &model).await?;
    }
    bench.store(&object, 4000, b"again").await?;
    model.splice(4000..4005, *b"again");
    bench.expect(&object, 0, &model).await?;
    bench.expect_size(&object, 300_000).await
}

pub(super) async fn discard_never_grows(bench: &Bench) -> Outcome {
    let object = bench.object("end").await?;
    bench.store(&object, 0, &pattern(1, 1000)).await?;
    bench.discard(&object, 900, 5000).await?;
    bench.discard(&object, 1000, 10).await?;
    bench.discard(&object, 1 << 30, 4096).await?;
    bench.expect_size(&object, 1000).await?;
    let mut model = pattern(1, 900);
    model.resize(1200, 0);
    bench.expect(&object, 0, &model).await
}

pub(super) async fn truncate_cuts(bench: &Bench) -> Outcome {
    let object = bench.object("cut").await?;
    bench.store(&object, 0, &pattern(1, 200_000)).await?;
    for size in [199_999, 131_072, 65_537, 4096, 1] {
        bench.truncate(&object, size).await?;
        bench.expect_size(&object, size).await?;
        let mut model = pattern(1, usize::try_from(size).unwrap_or(0));
        model.extend([0; 100]);
        bench.expect(&object, 0, &model).await?;
    }
    bench.truncate(&object, 0).await?;
    bench.expect_size(&object, 0).await?;
    bench.expect(&object, 0, &[0; 10]).await
}

pub(super) async fn truncate_grows_with_zeros(bench: &Bench) -> Outcome {
    let object = bench.object("grow").await?;
    bench.store(&object, 0, b"body").await?;
    bench.truncate(&object, 100_000).await?;
    bench.expect_size(&object, 100_000).await?;
    let mut model = b"body".to_vec();
    model.resize(100_010, 0);
    bench.expect(&object, 0, &model).await
}

pub(super) async fn what_was_cut_stays_cut(bench: &Bench) -> Outcome {
    let object = bench.object("regrow").await?;
    bench.store(&object, 0, &pattern(1, 150_000)).await?;
    bench.truncate(&object, 70_000).await?;
    bench.truncate(&object, 150_000).await?;
    let mut model = pattern(1, 70_000);
    model.resize(150_000, 0);
    bench.expect(&object, 0, &model).await?;
    bench.truncate(&object, 10).await?;
    bench.store(&object, 20, b"beyond").await?;
    let mut model = pattern(1, 10);
    model.extend([0; 10]);
    model.extend(b"beyond");
    bench.expect(&object, 0, &model).await?;
    bench.expect_size(&object, 26).await
}

pub(super) async fn an_absent_object_stays_absent(bench: &Bench) -> Outcome {
    let object = bench.object("stays").await?;
    bench.discard(&object, 0, 4096).await?;
    bench.expect_absent(&object).await?;
    for size in [0, 4096] {
        bench.truncate(&object, size).await?;
        bench.expect_absent(&object).await?;
    }
    Ok(())
}

pub(super) async fn remove_removes(bench: &Bench) -> Outcome {
    let (object, other) = (bench.object("gone").await?, bench.object("kept").await?);
    bench.store(&object, 0, &pattern(1, 100_000)).await?;
    bench.store(&other, 0, b"other").await?;
    bench.remove(&object).await?;
    bench.expect_absent(&object).await?;
    let again = bench.backend.remove(object.clone()).await;
    ensure!(
        again == Err(BackendError::NotFound),
        "a second remove gave {again:?}"
    );
    bench.store(&object, 50_000, b"new").await?;
    bench.expect(&object, 0, &vec![0; 50_000]).await?;
    bench.expect(&object, 50_000, b"new\0\0\0").await?;
    bench.expect_size(&object, 50_003).await?;
    bench.expect(&other, 0, b"other").await
}

pub(super) async fn stat_tells_the_size(bench: &Bench) -> Outcome {
    let object = bench.object("size").await?;
    for (offset, len, size) in [
        (100, 1, 101),
        (0, 50, 101),
        (100, 4000, 4100),
        (9000, 1, 9001),
    ] {
        bench.store(&object, offset, &pattern(1, len)).await?;
        bench.expect_size(&object, size).await?;
    }
    bench.store(&object, 9001, &[0; 20]).await?;
    bench.expect_size(&object, 9021).await
}

pub(super) async fn sync_keeps_what_is_stored(bench: &Bench) -> Outcome {
    let object = bench.object("sync").await?;
    for seed in 0..3 {
        bench.store(&object, 0, &pattern(seed, 5000)).await?;
        let (synced, again) = (bench.backend.sync(), bench.backend.sync());
        for outcome in [synced.await, again.await] {
            outcome.map_err(|error| Broken(format!("sync: {error}")))?;
        }
        bench.expect(&object, 0, &pattern(seed, 5000)).await?;
    }
    bench.remove(&object).await?;
    let outcome = bench.backend.sync().await;
    outcome.map_err(|error| Broken(format!("sync after remove: {error}")))?;
    bench.expect_absent(&object).await
}

/// J-01, J-02
pub(super) async fn a_journal_notice_does_not_disturb(bench: &Bench) -> Outcome {
    let object = bench.object("journal").await?;
    let mut write = super::write_of(&object, 0, b"journalled");
    let tid = JournalTid(NonZeroU64::MIN);
    for run in &mut write.runs {
        run.journal_tid = Some(tid);
    }
    bench.send(write).await?;
    bench.backend.journal(JournalNotice::Committed {
        object: object.clone(),
        range: range(0, 5)?,
        tid,
    });
    bench.backend.journal(JournalNotice::Overwritten {
        object: object.clone(),
        range: range(5, 5)?,
        old: tid,
        new: None,
    });
    let read = read_of(&object, range(0, 10)?);
    bench.expect_read(read, b"journalled").await
}

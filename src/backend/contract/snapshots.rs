//! Snapshots, where the backend keeps them.

use super::{Bench, Broken, Outcome, ensure, pattern, range, read_of, write_of};
use crate::backend::BackendWrite;
use crate::error::BackendError;
use crate::types::{ObjectName, SnapContext, SnapId, Truncation};

/// Writes `data` at `offset` under the snapshots `snaps`, newest first.
async fn store_under(
    bench: &Bench,
    object: &ObjectName,
    snaps: &[u64],
    (offset, data): (u64, &[u8]),
) -> Outcome {
    let seq = snaps.first().copied().unwrap_or(0);
    let context = SnapContext::new(seq, snaps).map_err(|error| Broken(error.to_string()))?;
    let write = BackendWrite {
        context,
        ..write_of(object, offset, data)
    };
    bench.send(write).await
}

async fn expect_at(bench: &Bench, object: &ObjectName, snap: u64, expected: &[u8]) -> Outcome {
    let mut read = read_of(object, range(0, expected.len() as u64)?);
    read.snap = SnapId::snapshot(snap);
    bench.expect_read(read, expected).await
}

async fn expect_absent_at(bench: &Bench, object: &ObjectName, snap: u64) -> Outcome {
    let mut read = read_of(object, range(0, 4)?);
    read.snap = SnapId::snapshot(snap);
    let answer = bench.backend.read(read).await;
    ensure!(
        answer == Err(BackendError::NotFound),
        "read at snapshot {snap}, before the object's birth, gave {answer:?}"
    );
    Ok(())
}

pub(super) async fn a_newer_context_keeps_the_old_bytes(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("keeps").await?;
    store_under(bench, &object, &[], (0, b"AAAA")).await?;
    store_under(bench, &object, &[3], (1, b"B")).await?;
    bench.expect(&object, 0, b"ABAA").await?;
    expect_at(bench, &object, 3, b"AAAA").await?;
    store_under(bench, &object, &[3], (0, b"CCCC")).await?;
    expect_at(bench, &object, 3, b"AAAA").await?;
    store_under(bench, &object, &[5, 3], (3, b"D")).await?;
    bench.expect(&object, 0, b"CCCD").await?;
    expect_at(bench, &object, 5, b"CCCC").await?;
    expect_at(bench, &object, 3, b"AAAA").await
}

pub(super) async fn one_clone_serves_several_snapshots(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("several").await?;
    store_under(bench, &object, &[], (0, b"AAAA")).await?;
    expect_at(bench, &object, 7, b"AAAA").await?;
    store_under(bench, &object, &[9, 7], (0, b"BBBB")).await?;
    expect_at(bench, &object, 7, b"AAAA").await?;
    expect_at(bench, &object, 9, b"AAAA").await?;
    expect_at(bench, &object, 10, b"BBBB").await?;
    bench.expect(&object, 0, b"BBBB").await
}

pub(super) async fn an_object_is_absent_before_its_birth(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("birth").await?;
    expect_absent_at(bench, &object, 3).await?;
    store_under(bench, &object, &[5, 3], (0, b"AAAA")).await?;
    expect_absent_at(bench, &object, 3).await?;
    expect_absent_at(bench, &object, 5).await?;
    store_under(bench, &object, &[8, 5, 3], (0, b"BBBB")).await?;
    expect_absent_at(bench, &object, 3).await?;
    expect_absent_at(bench, &object, 5).await?;
    expect_at(bench, &object, 8, b"AAAA").await?;
    bench.expect(&object, 0, b"BBBB").await
}

pub(super) async fn an_older_context_keeps_nothing_more(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("older").await?;
    store_under(bench, &object, &[], (0, b"AAAA")).await?;
    store_under(bench, &object, &[5, 3], (0, b"BBBB")).await?;
    store_under(bench, &object, &[3], (0, b"C")).await?;
    bench.expect(&object, 0, b"CBBB").await?;
    expect_at(bench, &object, 5, b"AAAA").await?;
    expect_at(bench, &object, 3, b"AAAA").await?;
    store_under(bench, &object, &[], (1, b"D")).await?;
    bench.expect(&object, 0, b"CDBB").await?;
    expect_at(bench, &object, 5, b"AAAA").await
}

pub(super) async fn a_snapshot_keeps_its_size(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("size").await?;
    let old = pattern(1, 70_000);
    store_under(bench, &object, &[], (0, &old)).await?;
    store_under(bench, &object, &[2], (70_000, &pattern(2, 70_000))).await?;
    let mut expected = old.clone();
    expected.resize(140_000, 0);
    expect_at(bench, &object, 2, &expected).await?;
    let mut expected = old;
    expected.extend(pattern(2, 70_000));
    bench.expect(&object, 0, &expected).await
}

pub(super) async fn changes_of_the_head_spare_snapshots(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("spare").await?;
    let old = pattern(1, 10_000);
    store_under(bench, &object, &[], (0, &old)).await?;
    let cutting = BackendWrite {
        context: SnapContext::new(2, [2]).map_err(|error| Broken(error.to_string()))?,
        truncation: Truncation {
            seq: 1,
            size_bytes: 6000,
        },
        ..write_of(&object, 0, b"x")
    };
    bench.send(cutting).await?;
    expect_at(bench, &object, 2, &old).await?;
    bench.discard(&object, 100, 1000).await?;
    expect_at(bench, &object, 2, &old).await?;
    bench.truncate(&object, 10).await?;
    expect_at(bench, &object, 2, &old).await?;
    let mut head = old;
    head.truncate(10);
    head.splice(0..1, *b"x");
    head.resize(20, 0);
    bench.expect(&object, 0, &head).await
}

pub(super) async fn a_snapshot_write_sent_twice_is_stored_once(bench: &Bench) -> Outcome {
    if !bench.capabilities().snapshots {
        return Ok(());
    }
    let object = bench.object("twice").await?;
    store_under(bench, &object, &[], (0, b"AAAA")).await?;
    for _ in 0..2 {
        store_under(bench, &object, &[4], (0, b"BB")).await?;
        bench.expect(&object, 0, b"BBAA").await?;
        expect_at(bench, &object, 4, b"AAAA").await?;
    }
    Ok(())
}

//! Truncation numbers (rule R-17).

use super::{Bench, Broken, Outcome, pattern, range, read_of, write_of};
use crate::backend::BackendWrite;
use crate::types::{ObjectName, Truncation};

const fn cut(seq: u64, size_bytes: u64) -> Truncation {
    Truncation { seq, size_bytes }
}

fn cutting_write(
    object: &ObjectName,
    truncation: Truncation,
    offset: u64,
    data: &[u8],
) -> BackendWrite {
    BackendWrite {
        truncation,
        ..write_of(object, offset, data)
    }
}

async fn expect_under(
    bench: &Bench,
    object: &ObjectName,
    truncation: Truncation,
    expected: &[u8],
) -> Outcome {
    let mut read = read_of(object, range(0, expected.len() as u64)?);
    read.truncation = truncation;
    let outcome = bench.expect_read(read, expected).await;
    outcome.map_err(|Broken(what)| Broken(format!("read under {truncation:?}: {what}")))
}

///
pub(super) async fn a_newer_truncation_cuts_before_it_stores(bench: &Bench) -> Outcome {
    let object = bench.object("cuts").await?;
    bench.store(&object, 0, b"AAAAAAAA").await?;
    let write = cutting_write(&object, cut(1, 4), 2, b"BBB");
    bench.send(write).await?;
    bench.expect(&object, 0, b"AABBB\0\0\0").await?;
    bench.expect_size(&object, 5).await?;
    let write = cutting_write(&object, cut(2, 3), 0, b"C");
    bench.send(write).await?;
    bench.expect(&object, 0, b"CAB\0\0\0\0\0").await?;
    bench.expect_size(&object, 3).await?;
    let write = cutting_write(&object, cut(3, 0), 6, b"D");
    bench.send(write).await?;
    bench.expect(&object, 0, b"\0\0\0\0\0\0D\0").await?;
    bench.expect_size(&object, 7).await
}

///
pub(super) async fn a_newer_truncation_bounds_reads(bench: &Bench) -> Outcome {
    let object = bench.object("bounds").await?;
    let data = pattern(1, 100_000);
    bench.store(&object, 0, &data).await?;
    for size in [0, 1, 4096, 70_001, 100_000, 200_000] {
        let mut expected = data.clone();
        expected.truncate(size);
        expected.resize(100_000, 0);
        expect_under(bench, &object, cut(1, size as u64), &expected).await?;
    }
    let mut read = read_of(&object, range(50_000, 10)?);
    read.truncation = cut(1, 40_000);
    bench.expect_read(read, &[0; 10]).await?;
    bench.expect(&object, 0, &data).await?;
    bench.expect_size(&object, 100_000).await
}

///
pub(super) async fn an_old_truncation_changes_nothing(bench: &Bench) -> Outcome {
    let object = bench.object("old").await?;
    let write = cutting_write(&object, cut(5, 0), 0, b"AAAAAAAA");
    bench.send(write).await?;
    for seq in [5, 4, 1, 0] {
        expect_under(bench, &object, cut(seq, 2), b"AAAAAAAA").await?;
        bench
            .send(cutting_write(&object, cut(seq, 2), 7, b"A"))
            .await?;
        bench.expect(&object, 0, b"AAAAAAAA").await?;
        bench.expect_size(&object, 8).await?;
    }
    expect_under(bench, &object, cut(6, 2), b"AA\0\0\0\0\0\0").await
}

///
pub(super) async fn a_truncation_on_a_new_object_is_kept(bench: &Bench) -> Outcome {
    let object = bench.object("born").await?;
    bench
        .send(cutting_write(&object, cut(3, 2), 0, b"BBBB"))
        .await?;
    bench.expect_size(&object, 4).await?;
    expect_under(bench, &object, cut(3, 2), b"BBBB").await?;
    bench
        .send(cutting_write(&object, cut(2, 0), 4, b"CC"))
        .await?;
    bench.expect(&object, 0, b"BBBBCC").await?;
    bench.remove(&object).await?;
    bench.store(&object, 0, b"reborn").await?;
    expect_under(bench, &object, cut(1, 2), b"re\0\0\0\0").await
}

///
pub(super) async fn a_truncation_above_the_size_takes_nothing(bench: &Bench) -> Outcome {
    let object = bench.object("above").await?;
    bench.store(&object, 0, b"AAAA").await?;
    bench
        .send(cutting_write(&object, cut(1, 1 << 30), 1, b"B"))
        .await?;
    bench.expect(&object, 0, b"ABAA\0\0").await?;
    expect_under(bench, &object, cut(1, 0), b"ABAA").await
}

///
pub(super) async fn a_truncating_write_sent_twice_is_stored_once(bench: &Bench) -> Outcome {
    let object = bench.object("twice").await?;
    bench.store(&object, 0, &pattern(1, 10_000)).await?;
    let write = cutting_write(&object, cut(1, 100), 50, &pattern(2, 500));
    bench.send(write.clone()).await?;
    bench.store(&object, 550, b"AAAA").await?;
    bench.send(write).await?;
    let mut model = pattern(1, 50);
    model.extend(pattern(2, 500));
    bench.expect(&object, 0, &model).await?;
    // The plain write in between carries no truncation, so the repeated one is not newer than the object.
    bench.expect(&object, 550, b"AAAA\0\0").await
}

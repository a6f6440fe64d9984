//! What is written is what is read.

use super::{
    Bench, Broken, Outcome, ensure, pattern, range, read_of, run_of, write_of, write_of_runs,
};
use crate::error::BackendError;
use crate::types::{Hints, OFFSET_BYTES_MAX};

pub(super) async fn capabilities_make_sense(bench: &Bench) -> Outcome {
    let capabilities = bench.capabilities();
    ensure!(
        capabilities.write_bytes_max > 0 && capabilities.write_pieces_max > 0,
        "a write may hold nothing: {capabilities:?}"
    );
    ensure!(
        capabilities.write_granularity.is_power_of_two(),
        "the granularity is no power of two: {capabilities:?}"
    );
    let object = bench.object("a").await?;
    bench.store(&object, 0, b"constant").await?;
    ensure!(
        bench.capabilities() == capabilities,
        "the capabilities changed: {capabilities:?} became {:?}",
        bench.capabilities()
    );
    Ok(())
}

pub(super) async fn an_absent_object_is_not_found(bench: &Bench) -> Outcome {
    let object = bench.object("absent").await?;
    bench.expect_absent(&object).await?;
    let far = bench
        .backend
        .read(read_of(&object, range(1 << 40, 4096)?))
        .await;
    ensure!(
        far == Err(BackendError::NotFound),
        "a far read of an absent object gave {far:?}"
    );
    let removed = bench.backend.remove(object).await;
    ensure!(
        removed == Err(BackendError::NotFound),
        "remove of an absent object gave {removed:?}"
    );
    Ok(())
}

pub(super) async fn the_first_write_creates_the_object(bench: &Bench) -> Outcome {
    let object = bench.object("new").await?;
    bench.store(&object, 10, b"first").await?;
    bench.expect(&object, 10, b"first").await?;
    bench.expect(&object, 0, &[0; 10]).await?;
    bench.expect_size(&object, 15).await
}

pub(super) async fn reads_past_the_end_are_short(bench: &Bench) -> Outcome {
    let object = bench.object("short").await?;
    bench.store(&object, 0, b"0123456789").await?;
    bench.expect(&object, 5, b"56789\0\0\0\0\0").await?;
    for offset in [10, 11, 4096, 1 << 40, OFFSET_BYTES_MAX - 16] {
        bench.expect(&object, offset, &[0; 16]).await?;
    }
    bench.expect_size(&object, 10).await
}

pub(super) async fn holes_read_as_zeros(bench: &Bench) -> Outcome {
    let object = bench.object("holes").await?;
    bench.store(&object, 5000, &pattern(1, 100)).await?;
    bench.store(&object, 300_000, &pattern(2, 100)).await?;
    bench.expect(&object, 0, &[0; 5000]).await?;
    bench.expect(&object, 5100, &vec![0; 294_900]).await?;
    let mut expected = vec![0; 10];
    expected.extend(pattern(1, 100));
    expected.extend([0; 10]);
    bench.expect(&object, 4990, &expected).await?;
    bench.expect(&object, 300_000, &pattern(2, 100)).await
}

pub(super) async fn overwrites_replace_exactly_their_range(bench: &Bench) -> Outcome {
    let object = bench.object("over").await?;
    let mut model = pattern(3, 20_000);
    bench.store(&object, 0, &model).await?;
    let places = [(0, 1), (4095, 2), (4096, 4096), (511, 9001), (19_999, 1)];
    for (seed, (offset, len)) in (10..).zip(places) {
        let data = pattern(seed, len);
        bench.store(&object, offset as u64, &data).await?;
        model.splice(offset..offset + len, data);
        bench.expect(&object, 0, &model).await?;
    }
    bench.store(&object, 19_990, &pattern(20, 30)).await?;
    model.truncate(19_990);
    model.extend(pattern(20, 30));
    bench.expect(&object, 0, &model).await?;
    bench.expect_size(&object, 20_020).await
}

pub(super) async fn buffers_of_a_run_are_joined(bench: &Bench) -> Outcome {
    let object = bench.object("buffers").await?;
    let pieces = bench.capabilities().write_pieces_max;
    let lens: Vec<usize> = [1, 4096, 3, 70_000, 13, 512]
        .into_iter()
        .take(pieces.saturating_sub(1))
        .collect();
    let buffers: Vec<Vec<u8>> = (0..).zip(&lens).map(|(s, len)| pattern(s, *len)).collect();
    let total: usize = lens.iter().sum();
    if total == 0 || total as u64 > bench.capabilities().write_bytes_max {
        return Ok(());
    }
    let slices: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
    let write = write_of_runs(&object, vec![run_of(777, &slices)]);
    bench.send(write).await?;
    bench.expect(&object, 777, &buffers.concat()).await?;
    bench.expect_size(&object, 777 + total as u64).await
}

pub(super) async fn runs_may_lie_apart(bench: &Bench) -> Outcome {
    let capabilities = bench.capabilities();
    if !capabilities.scattered_writes || capabilities.write_pieces_max < 15 {
        return Ok(());
    }
    let object = bench.object("apart").await?;
    let mut model = pattern(1, 200_000);
    bench.store(&object, 0, &model).await?;
    let places = [(0, 3), (4, 1), (65_530, 12), (131_072, 4096), (199_999, 5)];
    let mut runs = Vec::new();
    for (seed, (offset, len)) in (30..).zip(places) {
        let data = pattern(seed, len);
        let (head, tail) = data.split_at(len / 2);
        let buffers = [head, tail];
        let full = buffers.iter().filter(|buffer| !buffer.is_empty()).copied();
        runs.push(run_of(offset as u64, &full.collect::<Vec<_>>()));
        model.resize(model.len().max(offset + len), 0);
        model.splice(offset..offset + len, data);
    }
    bench.send(write_of_runs(&object, runs)).await?;
    bench.expect(&object, 0, &model).await?;
    bench.expect_size(&object, 200_004).await
}

pub(super) async fn runs_may_touch(bench: &Bench) -> Outcome {
    let capabilities = bench.capabilities();
    if !capabilities.scattered_writes || capabilities.write_pieces_max < 6 {
        return Ok(());
    }
    let object = bench.object("touch").await?;
    let data = pattern(5, 10_000);
    let (first, rest) = data.split_at(4097);
    let (second, third) = rest.split_at(1);
    let runs = vec![
        run_of(0, &[first]),
        run_of(4097, &[second]),
        run_of(4098, &[third]),
    ];
    bench.send(write_of_runs(&object, runs)).await?;
    bench.expect(&object, 0, &data).await?;
    bench.expect_size(&object, 10_000).await
}

pub(super) async fn a_write_sent_twice_is_stored_once(bench: &Bench) -> Outcome {
    let object = bench.object("twice").await?;
    bench.store(&object, 0, &pattern(1, 9000)).await?;
    let len = bench.at_most(7000);
    let write = write_of(&object, 4000, &pattern(2, len));
    let mut model = pattern(1, 9000);
    model.resize(model.len().max(4000 + len), 0);
    model.splice(4000..4000 + len, pattern(2, len));
    for _ in 0..2 {
        bench.send(write.clone()).await?;
        bench.expect(&object, 0, &model).await?;
        bench.expect_size(&object, model.len() as u64).await?;
    }
    for _ in 0..2 {
        bench.discard(&object, 100, 50).await?;
        model.splice(100..150, [0; 50]);
        bench.expect(&object, 0, &model).await?;
    }
    for _ in 0..2 {
        bench.truncate(&object, 5000).await?;
        bench.expect_size(&object, 5000).await?;
    }
    model.truncate(5000);
    bench.expect(&object, 0, &model).await
}

pub(super) async fn hints_change_nothing(bench: &Bench) -> Outcome {
    let object = bench.object("hints").await?;
    let data = pattern(4, 5000);
    bench.store(&object, 0, &data).await?;
    let mut read = read_of(&object, range(0, 5000)?);
    read.hints = Hints {
        dont_need: true,
        no_cache: true,
        sequential: true,
        random: false,
        will_need: true,
    };
    bench.expect_read(read.clone(), &data).await?;
    read.hints = Hints {
        random: true,
        ..Hints::default()
    };
    bench.expect_read(read, &data).await
}

pub(super) async fn a_large_write_is_whole(bench: &Bench) -> Outcome {
    let object = bench.object("large").await?;
    let len = bench.at_most(4 << 20);
    let data = pattern(9, len);
    bench.send(write_of(&object, 12_345, &data)).await?;
    bench.expect(&object, 12_345, &data).await?;
    bench.expect_size(&object, 12_345 + len as u64).await
}

/// H-08
pub(super) async fn far_offsets_fail_or_are_right(bench: &Bench) -> Outcome {
    for (label, offset) in [
        ("2^32", (1 << 32) - 3),
        ("2^44", (1 << 44) - 3),
        ("2^62", 1 << 62),
        ("last", OFFSET_BYTES_MAX - 7),
    ] {
        let object = bench.object(label).await?;
        bench.store(&object, 0, b"near").await?;
        let write = write_of(&object, offset, b"far off");
        if bench.backend.write(write).await.is_ok() {
            bench.expect(&object, offset, b"far off").await?;
            bench.expect_size(&object, offset + 7).await?;
        }
        bench.expect(&object, 0, b"near\0\0\0\0").await?;
        let discarding = bench.backend.discard(object.clone(), range(offset, 3)?);
        if discarding.await.is_ok() {
            bench.expect(&object, offset, b"\0\0\0").await?;
        }
        if bench.backend.truncate(object.clone(), offset).await.is_ok() {
            bench.expect_size(&object, offset).await?;
        }
        bench.expect(&object, 0, b"near\0\0\0\0").await?;
        bench.remove(&object).await?;
    }
    Ok(())
}

/// H-08
pub(super) async fn impossible_offsets_fail(bench: &Bench) -> Outcome {
    let object = bench.object("impossible").await?;
    bench.store(&object, 0, b"near").await?;
    for offset in [
        OFFSET_BYTES_MAX - 3,
        OFFSET_BYTES_MAX,
        1 << 63,
        u64::MAX - 3,
        u64::MAX,
    ] {
        let answer = bench
            .backend
            .write(write_of(&object, offset, b"12345"))
            .await;
        ensure!(answer.is_err(), "a write at {offset} succeeded");
    }
    let answer = bench.backend.truncate(object.clone(), u64::MAX).await;
    ensure!(answer.is_err(), "truncate to {} succeeded", u64::MAX);
    bench.expect(&object, 0, b"near").await
}

pub(super) async fn small_answers_own_small_buffers(bench: &Bench) -> Outcome {
    let object = bench.object("own").await?;
    bench.store(&object, 0, &pattern(6, 1 << 20)).await?;
    for (offset, len) in [(0, 64), (5000, 4096), (70_000, 1)] {
        let answer = bench.backend.read(read_of(&object, range(offset, len)?));
        let bytes = answer.await.map_err(|error| Broken(error.to_string()))?;
        // A buffer that others share can't be measured this way, and is taken on trust.
        if let Ok(owned) = bytes.try_into_mut() {
            let bound = usize::try_from(2 * len).unwrap_or(0) + 4096;
            ensure!(
                owned.capacity() <= bound,
                "an answer of {len} bytes keeps {} alive",
                owned.capacity()
            );
        }
    }
    Ok(())
}

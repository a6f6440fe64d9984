//! Many operations at once.

use std::thread;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all, try_join_all};

use super::{Bench, Broken, Numbers, Outcome, ensure, pattern, range, read_of, write_of};
use crate::error::BackendError;
use crate::types::ObjectName;

const THREADS: usize = 4;

/// Polls the futures on threads of their own, several on each, and waits without blocking this one.
async fn on_threads<T: Send + 'static>(
    futures: Vec<BoxFuture<'static, T>>,
) -> Result<Vec<T>, Broken> {
    let mut groups: Vec<Vec<_>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (number, future) in futures.into_iter().enumerate() {
        if let Some(group) = groups.get_mut(number % THREADS) {
            group.push(future);
        }
    }
    let replies = groups.into_iter().map(|group| {
        let (sender, receiver) = oneshot::channel();
        thread::spawn(move || sender.send(block_on(join_all(group))));
        receiver
    });
    let replies: Result<Vec<_>, _> = join_all(replies.collect::<Vec<_>>())
        .await
        .into_iter()
        .collect();
    let replies =
        replies.map_err(|error| Broken(format!("a future panicked on another thread: {error}")))?;
    Ok(replies.into_iter().flatten().collect())
}

fn all_stored(outcomes: Vec<Result<(), BackendError>>) -> Outcome {
    let outcome: Result<(), BackendError> = outcomes.into_iter().collect();
    outcome.map_err(|error| Broken(format!("a write failed: {error}")))
}

pub(super) async fn objects_do_not_disturb_each_other(bench: &Bench) -> Outcome {
    let mut objects = Vec::new();
    for number in 0..64 {
        objects.push(bench.object(&format!("o{number}")).await?);
    }
    let len = bench.at_most(9000);
    for round in 0..3 {
        let writes = (0..).zip(&objects).map(|(number, object)| {
            let data = pattern(round * 1000 + number, len);
            bench.backend.write(write_of(object, round, &data))
        });
        all_stored(join_all(writes).await)?;
    }
    let checks = (0..).zip(&objects).map(|(number, object)| async move {
        let mut model = pattern(number, 1);
        model.extend(pattern(1000 + number, 1));
        model.extend(pattern(2000 + number, len));
        bench.expect(object, 0, &model).await
    });
    try_join_all(checks).await.map(drop)
}

pub(super) async fn ranges_of_an_object_do_not_disturb_each_other(bench: &Bench) -> Outcome {
    const LEN: u64 = 1777;
    let object = bench.object("ranges").await?;
    let data = |seed| pattern(seed, 1777);
    for number in (0..64).step_by(2) {
        bench.store(&object, number * LEN, &data(number)).await?;
    }
    let writes = (1..64)
        .step_by(2)
        .map(|number| bench.store_owned(&object, number * LEN, data(number)));
    let reads = (0..64).step_by(2).map(|number| {
        let expected = data(number);
        let object = &object;
        async move { bench.expect(object, number * LEN, &expected).await }
    });
    let (stored, read) = futures::join!(try_join_all(writes), try_join_all(reads));
    stored.and(read)?;
    let model: Vec<u8> = (0..64).flat_map(data).collect();
    bench.expect(&object, 0, &model).await?;
    bench.expect_size(&object, 64 * LEN).await
}

pub(super) async fn futures_can_be_polled_on_any_thread(bench: &Bench) -> Outcome {
    let len = bench.at_most(3001);
    let start = |number: u64| number * len as u64;
    let object = bench.object("threads").await?;
    let other = bench.object("threads2").await?;
    let writes = (0..64).map(|number| {
        let object = if number % 2 == 0 { &object } else { &other };
        let write = write_of(object, start(number), &pattern(number, len));
        bench.backend.write(write)
    });
    all_stored(on_threads(writes.collect()).await?)?;
    let mut reads = Vec::new();
    for number in 0..64 {
        let object = if number % 2 == 0 { &object } else { &other };
        let read = read_of(object, range(start(number), len as u64)?);
        let reading = bench.backend.read(read);
        reads.push(reading.map(move |answer| (number, answer)).boxed());
    }
    for (number, answer) in on_threads(reads).await? {
        let bytes = answer.map_err(|error| Broken(format!("read {number}: {error}")))?;
        ensure!(
            bytes == pattern(number, len),
            "read {number} gave other bytes"
        );
    }
    Ok(())
}

pub(super) async fn ordered_writes_land_in_order(bench: &Bench) -> Outcome {
    if !bench.capabilities().ordered_writes {
        return Ok(());
    }
    let object = bench.object("ordered").await?;
    let len = bench.at_most(5000);
    for round in 0..8 {
        let writes = (0..16).map(|number| {
            let data = pattern(round * 100 + number, len);
            bench.backend.write(write_of(&object, number, &data))
        });
        let mut writes: Vec<_> = writes.collect();
        writes.reverse();
        all_stored(join_all(writes).await)?;
        for number in 0..15 {
            let expected = pattern(round * 100 + number, 1);
            bench.expect(&object, number, &expected).await?;
        }
        let last = pattern(round * 100 + 15, len);
        bench.expect(&object, 15, &last).await?;
    }
    Ok(())
}

pub(super) async fn a_write_given_up_never_undoes_a_later_one(bench: &Bench) -> Outcome {
    let mut objects = Vec::new();
    let len = bench.at_most(30_000);
    for number in 0..16 {
        let object = bench.object(&format!("o{number}")).await?;
        for seed in 0..4 {
            let mut dropped = bench
                .backend
                .write(write_of(&object, 0, &pattern(seed, len)));
            if seed % 2 == 0 {
                drop(futures::poll!(&mut dropped));
            }
            drop(dropped);
        }
        let later = pattern(100 + number, len);
        bench.store(&object, 0, &later).await?;
        bench.expect(&object, 0, &later).await?;
        objects.push(object);
    }
    let synced = bench.backend.sync().await;
    synced.map_err(|error| Broken(format!("sync: {error}")))?;
    for (number, object) in (0..).zip(&objects) {
        let later = pattern(100 + number, len);
        bench.expect(object, 0, &later).await?;
    }
    Ok(())
}

pub(super) async fn random_operations_match_a_plain_array(bench: &Bench) -> Outcome {
    let mut objects = Vec::new();
    for number in 0..8 {
        objects.push((number, bench.object(&format!("o{number}")).await?));
    }
    let walks = objects
        .iter()
        .map(|(seed, object)| random_walk(bench, object, *seed));
    try_join_all(walks).await.map(drop)
}

/// A chain of operations on one object, each checked against a plain array.
async fn random_walk(bench: &Bench, object: &ObjectName, seed: u64) -> Outcome {
    const LEN: usize = 150_000;
    let mut numbers = Numbers(seed);
    let mut model = vec![0_u8; LEN];
    bench.store(object, 0, &pattern(seed, 1)).await?;
    model.splice(0..1, pattern(seed, 1));
    let mut size = 1;
    for step in 0..60_u64 {
        let start = numbers.size_below(LEN - 1);
        let len = 1 + numbers.size_below((LEN - start).min(40_000));
        match numbers.below(10) {
            0..=5 => {
                let data = pattern(seed * 1000 + step, len);
                bench.store(object, start as u64, &data).await?;
                model.splice(start..start + len, data);
                size = size.max(start + len);
            }
            6 | 7 => {
                bench.discard(object, start as u64, len as u64).await?;
                model.splice(start..start + len, vec![0; len]);
            }
            _ => {
                bench.truncate(object, start as u64).await?;
                size = start;
                model.truncate(start);
                model.resize(LEN, 0);
            }
        }
        let outcome = bench.expect(object, 0, &model).await;
        outcome.map_err(|Broken(what)| Broken(format!("walk {seed}, step {step}: {what}")))?;
    }
    bench.expect_size(object, size as u64).await
}

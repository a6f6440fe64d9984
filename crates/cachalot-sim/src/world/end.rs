//! The end of a run: everything is flushed, compared and closed, and nothing may be left.

use std::time::Duration;

use cachalot::{CacheError, Gauges, ReadRequest};

use super::{Cost, DELAY_MAX, World};
use crate::clock::pause;
use crate::space::Part;

impl World {
    /// Flushes and compares everything, and ends the cache.
    pub(super) async fn finish(&self) {
        self.begin(0, "the end".to_owned(), Cost::of_comparing(&self.plan));
        if self.plan.is_abandoned {
            self.cache.abandon().await;
            self.outer.forget_all();
            self.oracle().is_abandoned = true;
            pause(DELAY_MAX * 2).await;
            self.check_nothing_left();
            self.end(0, true);
            return;
        }
        self.give_up_fenced().await;
        let asked = self.oracle().tick();
        let since = self.now();
        while let Err(error) = self.cache.flush_all().await {
            if !self.may_fail(since) || self.now().since(since) > self.patience() {
                return self.fail(format!("a flush fails though the store is well: {error}"));
            }
            self.give_up_fenced().await;
        }
        self.begin(
            0,
            "the comparison at the end".to_owned(),
            Cost::of_comparing(&self.plan),
        );
        for number in 0..self.plan.sets.len() {
            self.oracle().check_stored(number, None, asked);
        }
        let verdict = self.oracle().check_journal();
        self.oracle().judge(verdict);
        self.compare_all().await;
        self.begin(
            0,
            "the release at the end".to_owned(),
            Cost::of_comparing(&self.plan),
        );
        let (mut kept, since) = (self.cache.release_all().await, self.now());
        while kept > 0 && self.now().since(since) <= self.patience() {
            // What is brought in for a caller who has gone may still be on its way.
            pause(Duration::from_secs(1)).await;
            kept = self.cache.release_all().await;
        }
        if kept > 0 {
            self.fail(format!("{kept} bytes stay after a flush and a release"));
        }
        let gauges = self.cache.stats().gauges;
        if gauges != Gauges::default() {
            self.fail(format!("after a release the gauges show {gauges:?}"));
        }
        self.begin(
            0,
            "the second comparison at the end".to_owned(),
            Cost::of_comparing(&self.plan),
        );
        self.compare_all().await;
        self.begin(0, "closing".to_owned(), Cost::of_comparing(&self.plan));
        if let Err(failure) = self.cache.audit().await {
            self.fail(failure.to_string());
        }
        if let Err(error) = self.cache.close().await {
            self.fail(format!("closing a clean cache: {error}"));
        }
        self.check_nothing_left();
        self.end(0, true);
    }

    fn check_nothing_left(&self) {
        let stats = self.cache.stats();
        let is_empty = stats.gauges == Gauges::default()
            && stats.charged == cachalot::Charge::default()
            && stats.waiting_claims == 0
            && stats.objects == 0
            && stats.sets == 0;
        if !is_empty {
            self.fail(format!("a closed cache still holds {stats:?}"));
        }
    }

    /// Reads every byte.
    async fn compare_all(&self) {
        for number in 0..self.plan.sets.len() {
            self.reopen(number).await;
            let space = &self.plan.sets[number].space;
            let all = Part {
                at: 0,
                len: space.sectors,
            };
            for extent in space.extents(all, 0) {
                for part in extent.parts {
                    self.compare(number, part).await;
                }
            }
        }
    }

    async fn compare(&self, number: usize, part: Part) {
        let set = self.slots.borrow()[number].handle.clone();
        let extents = self.plan.sets[number].space.extents(part, 0);
        let request = ReadRequest {
            extents: extents.into_iter().map(|extent| extent.extent).collect(),
            ..ReadRequest::default()
        };
        let (asked, since) = (self.oracle().tick(), self.now());
        self.oracle()
            .note(|| format!("comparing {part:?} of set {number}"));
        let mut read = set.read(request.clone()).await;
        while matches!(read, Err(CacheError::Read { .. })) && self.may_fail(since) {
            pause(Duration::from_secs(1)).await;
            if self.now().since(since) > self.patience() {
                break;
            }
            read = set.read(request.clone()).await;
        }
        let bytes = match read {
            Ok(bytes) => bytes.to_vec(),
            Err(CacheError::NotFound { .. }) if self.plan.sets[number].not_found => {
                vec![0; part.len as usize * self.plan.sets[number].space.unit as usize]
            }
            Err(error) => return self.fail(format!("a read of {part:?} at the end: {error}")),
        };
        let mut oracle = self.oracle();
        let answered = oracle.tick();
        let verdict = oracle.sets[number].check_read(part, &bytes, (asked, answered));
        oracle.judge(verdict);
    }
}

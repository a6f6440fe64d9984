//! What the flusher and the trimmer decide, as plain code: levels in, demands out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::config::Limits;
use crate::engine::Demand;
use crate::types::Moment;

/// Sets of which the one is this little older than the other count as equally old, so that a set is asked for more
/// than one buffer at a time.
const AGE_SLACK: Duration = Duration::from_millis(50);

/// How many bytes may stay dirty and not be on their way. While writers wait, at least an eighth of what the limit allows is:
/// else a target close to it would have the store do one thing after the other.
pub(crate) fn target(limits: &Limits, is_waited_for: bool) -> u64 {
    let limit = limits.max_dirty_bytes;
    let target = limits.target_dirty_bytes;
    if is_waited_for {
        target.min(limit - limit / 8)
    } else {
        target
    }
}

/// What the flusher sees when it looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Levels {
    /// Dirty bytes, not counting those in flight, with those that writers wait to put in.
    pub(crate) dirty: u64,
    pub(crate) target: u64,
    /// Dirty buffers, counted as the bytes are.
    pub(crate) buffers: u64,
    pub(crate) buffers_target: u64,
    /// Whether a write is larger than the limit, and so wants everything stored before it goes alone.
    pub(crate) wants_all: bool,
    /// What the trimmer found [short](RoomLevels::short): room that can only come from dirty bytes being stored.
    pub(crate) short: u64,
    pub(crate) now: Moment,
    pub(crate) age_max: Duration,
}

impl Levels {
    /// How many bytes are to be written back, whatever their age. Where there are too many buffers, that is their part
    /// of the bytes; if the oldest turn out to be larger than others, the next look asks for more.
    pub(crate) fn surplus(&self) -> u64 {
        let target = if self.wants_all { 0 } else { self.target };
        let too_many = self.buffers.saturating_sub(self.buffers_target);
        let part = u128::from(self.dirty) * u128::from(too_many);
        let part = part.div_ceil(u128::from(self.buffers.max(1)));
        let of_buffers = u64::try_from(part).unwrap_or(self.dirty);
        self.dirty
            .saturating_sub(target)
            .max(of_buffers)
            .max(self.short)
    }
}

/// Which dirty set is the oldest, and how much of it is to be written back.
#[derive(Debug, Default)]
pub(crate) struct FlushPlan {
    by_age: BTreeSet<(Moment, u64)>,
    ages: BTreeMap<u64, Moment>,
    /// Bytes that this pass has still to ask for.
    wanted: u64,
    asked: BTreeSet<u64>,
    /// Sets that were believed to be older than they are, and so may be asked once more.
    corrected: BTreeSet<u64>,
    /// Where the set asked last stood: all that stand before it have been asked.
    cursor: Option<(Moment, u64)>,
}

impl FlushPlan {
    /// Notes since when a set has been dirty; `None` for not at all.
    pub(crate) fn note(&mut self, set: u64, oldest: Option<Moment>) {
        if let Some(known) = self.ages.remove(&set) {
            self.by_age.remove(&(known, set));
        }
        if let Some(oldest) = oldest {
            self.ages.insert(set, oldest);
            self.by_age.insert((oldest, set));
        }
    }

    /// Begins a pass.
    pub(crate) fn begin(&mut self, levels: &Levels) {
        self.wanted = levels.surplus();
        self.asked.clear();
        self.corrected.clear();
        self.cursor = None;
    }

    /// The next set to ask, and for what: above the target the oldest bytes of all sets, below it those that are too
    /// old. Each set is asked once in a pass; it goes on by itself while it has bytes to send.
    pub(crate) fn next(&mut self, levels: &Levels) -> Option<(u64, Demand)> {
        let start = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let mut oldest_first = self
            .by_age
            .range((start, Bound::Unbounded))
            .filter(|(_, set)| !self.asked.contains(set))
            .copied();
        let (oldest, set) = oldest_first.next()?;
        let second = oldest_first.next().map(|(second, _)| second);
        let too_old = levels.now.before(levels.age_max);
        let demand = if self.wanted > 0 {
            let since = second.map_or(levels.now, |second| {
                second.max(oldest).after(AGE_SLACK).min(levels.now)
            });
            Demand {
                bytes: self.wanted,
                since,
            }
        } else if oldest <= too_old {
            // A set has only so many writebacks in flight at a time: nobody else starves.
            Demand {
                bytes: u64::MAX,
                since: too_old,
            }
        } else {
            return None;
        };
        self.asked.insert(set);
        self.cursor = Some((oldest, set));
        Some((set, demand))
    }

    /// A set has taken on so many bytes, and its oldest dirty bytes are now these.
    pub(crate) fn answered(&mut self, set: u64, taken: u64, oldest: Option<Moment>) {
        self.wanted = self.wanted.saturating_sub(taken);
        // What has just become dirty is filed under a guess: where that was too early, the set's turn is yet to come.
        let believed = self.ages.get(&set);
        let is_younger = oldest.is_some_and(|oldest| believed.is_some_and(|at| *at < oldest));
        if taken == 0 && is_younger && self.corrected.insert(set) {
            self.asked.remove(&set);
        }
        self.note(set, oldest);
    }
}

/// What the trimmer sees when it looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RoomLevels {
    pub(crate) used: u64,
    pub(crate) limit: u64,
    /// Room that claims wait for.
    pub(crate) waiting: u64,
    /// Whether a claim is larger than the limit, and so wants everything out.
    pub(crate) wants_all: bool,
}

impl RoomLevels {
    /// How many bytes are to go: down to seven eighths of the limit when fifteen sixteenths are passed, and what
    /// claims wait for.
    pub(crate) fn surplus(&self) -> u64 {
        if self.wants_all {
            return self.used;
        }
        let low = self.limit - self.limit / 8;
        let is_high = self.used > self.limit - self.limit / 16 || self.waiting > 0;
        if is_high {
            (self.used + self.waiting).saturating_sub(low)
        } else {
            0
        }
    }

    /// What is missing when no clean bytes are left to go: as long as anybody waits for it, it has to come from dirty
    /// ones. Memory that nobody waits for is not worth a write.
    pub(crate) fn short(&self) -> u64 {
        if self.waiting > 0 { self.surplus() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::config::CacheConfig;

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    fn levels(dirty: u64) -> Levels {
        Levels {
            dirty,
            target: 100,
            buffers: 0,
            buffers_target: 10,
            now: at(100),
            age_max: Duration::from_secs(5),
            ..Levels::default()
        }
    }

    /// F-01
    #[test]
    fn above_the_target_the_oldest_of_all_sets_goes() {
        let mut plan = FlushPlan::default();
        plan.note(1, Some(at(98)));
        plan.note(2, Some(at(97)));
        plan.begin(&levels(150));
        let (set, demand) = plan.next(&levels(150)).unwrap();
        assert_eq!((set, demand.bytes), (2, 50));
        assert!(demand.since >= at(98) && demand.since < at(99));
        plan.answered(2, 30, Some(at(99)));
        let (set, demand) = plan.next(&levels(150)).unwrap();
        assert_eq!((set, demand.bytes), (1, 20));
        plan.answered(1, 20, None);
        assert_eq!(plan.next(&levels(150)), None);
    }

    /// F-01
    #[test]
    fn a_set_that_is_younger_than_was_believed_comes_in_its_turn() {
        let mut plan = FlushPlan::default();
        plan.note(1, Some(at(95)));
        plan.note(2, Some(at(97)));
        plan.begin(&levels(150));
        assert_eq!(plan.next(&levels(150)).map(|(set, _)| set), Some(1));
        plan.answered(1, 0, Some(at(98)));
        assert_eq!(plan.next(&levels(150)).map(|(set, _)| set), Some(2));
        plan.answered(2, 30, None);
        let (set, demand) = plan.next(&levels(150)).unwrap();
        assert_eq!((set, demand.bytes), (1, 20));
        plan.answered(1, 0, Some(at(99)));
        assert_eq!(plan.next(&levels(150)), None, "once more, and no more");
    }

    /// F-01, W-08, H-28
    #[test]
    fn too_many_small_buffers_go_though_they_are_few_bytes() {
        let many = Levels {
            buffers: 40,
            ..levels(80)
        };
        assert_eq!(many.surplus(), 60);
        let fewer = Levels {
            buffers: 10,
            ..levels(80)
        };
        assert_eq!(fewer.surplus(), 0);
    }

    /// F-01, H-33
    #[test]
    fn below_the_target_what_is_too_old_goes() {
        let mut plan = FlushPlan::default();
        plan.note(1, Some(at(96)));
        plan.note(2, Some(at(94)));
        plan.begin(&levels(10));
        let (set, demand) = plan.next(&levels(10)).unwrap();
        assert_eq!((set, demand.since), (2, at(95)));
        plan.answered(2, 10, None);
        assert_eq!(plan.next(&levels(10)), None);
    }

    /// F-01, W-08
    #[test]
    fn while_writers_wait_an_eighth_is_on_its_way_though_the_target_is_the_limit() {
        let config = CacheConfig {
            max_dirty_bytes: ByteSize::b(800),
            target_dirty_bytes: ByteSize::b(800),
            ..CacheConfig::default()
        };
        let high = Limits::try_from(&config).unwrap();
        assert_eq!((target(&high, false), target(&high, true)), (800, 700));
        let low = Limits {
            target_dirty_bytes: 400,
            ..high
        };
        assert_eq!((target(&low, false), target(&low, true)), (400, 400));
    }

    /// F-01, H-24
    #[test]
    fn all_goes_before_a_write_that_is_larger_than_the_limit() {
        let wants_all = Levels {
            wants_all: true,
            ..levels(70)
        };
        assert_eq!((levels(70).surplus(), wants_all.surplus()), (0, 70));
    }

    /// F-01, H-29, H-35: a shortage of room makes the flusher write back what is below the target and young.
    #[test]
    fn room_that_only_dirty_bytes_can_give_is_written_back_for() {
        let short = Levels {
            short: 30,
            ..levels(70)
        };
        let mut plan = FlushPlan::default();
        plan.note(1, Some(at(99)));
        plan.begin(&levels(70));
        assert_eq!(plan.next(&levels(70)), None);
        plan.begin(&short);
        assert_eq!(plan.next(&short).map(|(_, demand)| demand.bytes), Some(30));
        assert_eq!(
            Levels {
                dirty: 180,
                ..short
            }
            .surplus(),
            80,
            "the surplus of dirty bytes makes room, too"
        );
    }

    /// H-29, H-35
    #[test]
    fn room_is_short_only_where_somebody_waits_for_it() {
        let full = RoomLevels {
            used: 1600,
            limit: 1600,
            ..RoomLevels::default()
        };
        assert_eq!((full.surplus(), full.short()), (200, 0));
        let waited_for = RoomLevels {
            waiting: 300,
            ..full
        };
        assert_eq!(waited_for.short(), 500);
        let has_room = RoomLevels {
            used: 100,
            ..waited_for
        };
        assert_eq!(has_room.short(), 0);
    }

    /// T-01, H-35
    #[test]
    fn room_is_made_before_it_runs_out() {
        let levels = RoomLevels {
            used: 900,
            limit: 1600,
            ..RoomLevels::default()
        };
        assert_eq!(levels.surplus(), 0);
        assert_eq!(
            RoomLevels {
                used: 1550,
                ..levels
            }
            .surplus(),
            150
        );
        assert_eq!(
            RoomLevels {
                waiting: 1000,
                ..levels
            }
            .surplus(),
            500
        );
        assert_eq!(
            RoomLevels {
                wants_all: true,
                ..levels
            }
            .surplus(),
            900
        );
    }
}

//! The limits: they hold to the byte, but for a request larger than a whole one, which goes alone.

use std::collections::BTreeMap;

use cachalot::{Limits, Place};

use super::World;
use crate::plan::{Op, Plan};
use crate::space::{Part, Space};

/// The bytes of a window.
const WINDOW_BYTES: u64 = 256 << 10;
/// The bytes that a buffer's entry costs.
const ENTRY_BYTES: u64 = 132;
/// What a window and the buffers that a request may make in it cost beside their bytes.
const FETCH_OVERHEAD_BYTES: u64 = 1792 + 2 * ENTRY_BYTES;
const WRITE_OVERHEAD_BYTES: u64 = 1792 + 3 * ENTRY_BYTES;
/// No buffer is made smaller than this for a write.
const BUFFER_BYTES_MIN: u64 = 4 << 10;
/// The part of the room that is kept back for bookkeeping.
const HEADROOM_PART: u64 = 64;

/// The most that a request can cost.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cost {
    room: u64,
    dirty: u64,
}

/// Which limits hold, and who may pass them.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// What is held has fitted since it was last allowed to be more.
    room: bool,
    dirty: bool,
    /// Requests that are not answered, by their steps.
    asked: BTreeMap<u32, Cost>,
    /// Requests whose callers have gone, and which may still be done.
    forsaken: Vec<Cost>,
    /// After how many steps what is held had to fit `max_bytes`.
    judged: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            room: true,
            dirty: true,
            asked: BTreeMap::new(),
            forsaken: Vec::new(),
            judged: 0,
        }
    }
}

impl Cost {
    /// What an operation can cost at most.
    pub(crate) fn of(plan: &Plan, op: &Op) -> Self {
        match op {
            Op::Read { set, parts, .. } | Op::Prefetch { set, parts, .. } => {
                let space = &plan.sets[*set].space;
                let room = parts.iter().map(|part| read_room(space, *part)).sum();
                Self { room, dirty: 0 }
            }
            Op::Write { set, parts, .. } => {
                let space = &plan.sets[*set].space;
                let extents = parts.iter().flat_map(|part| space.extents(*part, 0));
                let slices = extents
                    .flat_map(|extent| slices(extent.extent.range.start(), &extent.extent.places));
                slices.fold(Self::default(), |cost, len| Self {
                    room: cost.room + len.max(BUFFER_BYTES_MIN) + WRITE_OVERHEAD_BYTES,
                    dirty: cost.dirty + len,
                })
            }
            _ => Self::default(),
        }
    }

    /// What it costs at most to read all of a set, an extent at a time.
    pub(super) fn of_comparing(plan: &Plan) -> Self {
        let sets = plan.sets.iter().map(|set| {
            let all = Part {
                at: 0,
                len: set.space.sectors,
            };
            read_room(&set.space, all)
        });
        let room = sets.max().unwrap_or(0);
        Self { room, dirty: 0 }
    }
}

/// What it costs at most to fetch a part: of two sectors beside each other one may be there, so that each of the others
/// is fetched alone.
fn read_room(space: &Space, part: Part) -> u64 {
    let extents = space.extents(part, 0);
    let pieces: u64 = extents
        .iter()
        .map(|extent| {
            let range = extent.extent.range;
            let windows = (range.end() - 1) / WINDOW_BYTES - range.start() / WINDOW_BYTES + 1;
            windows + range.len() / u64::from(space.unit) / 2
        })
        .sum();
    let bytes = u64::from(part.len) * u64::from(space.unit);
    bytes + pieces * FETCH_OVERHEAD_BYTES
}

/// The lengths of what lies in one window and in one place.
fn slices(start: u64, places: &[Place]) -> Vec<u64> {
    let (mut at, mut lens) = (start, Vec::new());
    for place in places {
        let mut left = place.len;
        while left > 0 {
            let len = left.min(WINDOW_BYTES - at % WINDOW_BYTES);
            lens.push(len);
            at += len;
            left -= len;
        }
    }
    lens
}

impl World {
    /// What can be reserved of `max_bytes`: not what the entries cost that all of it is split into to be stored.
    fn room_of(&self, limits: &Limits) -> u64 {
        let write_bytes_max = self.plan.capabilities.write_bytes_max;
        let splits = if write_bytes_max < WINDOW_BYTES {
            (limits.max_bytes * ENTRY_BYTES).div_ceil(write_bytes_max + ENTRY_BYTES)
        } else {
            0
        };
        let unsplit = limits.max_bytes - splits;
        unsplit - unsplit / HEADROOM_PART
    }

    pub(super) fn request_begins(&self, step: u32, cost: Cost) {
        self.bounds.borrow_mut().asked.insert(step, cost);
    }

    /// A request is answered, or its caller has gone.
    pub(super) fn request_ends(&self, step: u32, is_answered: bool) {
        self.check_limits();
        let mut bounds = self.bounds.borrow_mut();
        let cost = bounds.asked.remove(&step);
        bounds.forsaken.extend(cost.filter(|_| !is_answered));
    }

    /// Nobody who has gone can still be waited for.
    pub(super) fn forget_forsaken(&self) {
        if self.cache.stats().waiting_claims == 0 {
            self.check_limits();
            self.bounds.borrow_mut().forsaken.clear();
        }
    }

    /// What is held may be more than fits the limits until it once fits them, with what is kept back for bookkeeping.
    pub(super) fn relax_limits(&self) {
        let mut bounds = self.bounds.borrow_mut();
        (bounds.room, bounds.dirty) = (false, false);
    }

    /// After how many steps what is held had to fit `max_bytes`.
    pub(super) fn limits_judged(&self) -> u64 {
        self.bounds.borrow().judged
    }

    /// Limits hold to the byte: once what is held fits them, with what is kept back for bookkeeping, it never passes them
    /// again, unless there is a request that is larger than a whole limit.
    pub(super) fn check_limits(&self) {
        let (limits, stats) = (self.cache.limits(), self.cache.stats());
        let mut bounds = self.bounds.borrow_mut();
        let requests = bounds.asked.values().chain(&bounds.forsaken);
        let largest = requests.fold(Cost::default(), |largest, cost| Cost {
            room: largest.room.max(cost.room),
            dirty: largest.dirty.max(cost.dirty),
        });
        let holds = |held: i64, limit: u64| u64::try_from(held).unwrap_or(0) <= limit;
        let (holds_room, has_headroom, holds_dirty) = (
            holds(stats.charged.room, limits.max_bytes),
            holds(stats.charged.room, self.room_of(&limits)),
            limits.is_write_through() || holds(stats.charged.dirty, limits.max_dirty_bytes),
        );
        // What a fenced set holds unsaved comes on top.
        let is_any_fenced = self.oracle().is_any_fenced();
        if largest.room > self.room_of(&limits) || is_any_fenced {
            bounds.room = has_headroom;
        } else if bounds.room && !holds_room {
            self.fail(format!(
                "{:?} is charged, above max_bytes {}",
                stats.charged, limits.max_bytes
            ));
        } else {
            bounds.judged += u64::from(bounds.room);
            bounds.room |= has_headroom;
        }
        if largest.dirty > limits.max_dirty_bytes || is_any_fenced {
            bounds.dirty = holds_dirty;
        } else if bounds.dirty && !holds_dirty {
            self.fail(format!(
                "{:?} is charged, above max_dirty_bytes {}",
                stats.charged, limits.max_dirty_bytes
            ));
        } else {
            bounds.dirty |= holds_dirty;
        }
    }
}

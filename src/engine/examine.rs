//! Looking at what a read wants: what is in memory, what is on its way, what must be fetched (rules ).

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::eviction::Queue;
use super::extent::OpId;
use super::object::{ObjectRef, range_of, spans};
use super::read::ReadWait;
use super::set::SetEngine;
use super::shelf::Shelf;
use super::window::{Found, Span, Window};
use crate::error::{BackendError, CacheError};
use crate::request::{Missing, ObjectExtent};
use crate::types::Moment;

/// What looking at a read's ranges shows.
pub(super) enum Verdict {
    Readable,
    Failed(CacheError),
    Wait(Wants),
}

/// What a read waits for.
#[derive(Default)]
pub(super) struct Wants {
    /// Fetches and writebacks under way.
    pub(super) ops: BTreeSet<OpId>,
    /// Objects whose pause after a failed writeback must end.
    pub(super) pauses: BTreeSet<usize>,
    /// What is to be fetched.
    pub(super) missing: SmallVec<[MissingPart; 2]>,
    /// What is known to be zeros, and not yet held as such.
    pub(super) zeros: SmallVec<[MissingPart; 2]>,
}

impl Wants {
    fn is_empty(&self) -> bool {
        self.is_zeros_only() && self.zeros.is_empty()
    }

    /// Whether nothing has to be waited for but room.
    pub(super) fn is_zeros_only(&self) -> bool {
        self.ops.is_empty() && self.pauses.is_empty() && self.missing.is_empty()
    }

    /// Adds what is to be fetched, to the part before it where they touch.
    fn miss(&mut self, part: MissingPart) {
        match self.missing.last_mut() {
            Some(last) if last.is_in_window_of(&part) && last.span.end == part.span.start => {
                last.span.end = part.span.end;
            }
            Some(_) | None => self.missing.push(part),
        }
    }
}

/// By the index of their windows.
type Gaps = SmallVec<[(u64, Span); 2]>;

pub(super) struct MissingPart {
    pub(super) object: usize,
    pub(super) index: u64,
    pub(super) span: Span,
}

impl MissingPart {
    pub(super) const fn is_in_window_of(&self, other: &Self) -> bool {
        self.object == other.object && self.index == other.index
    }
}

impl<S: Shelf> SetEngine<S> {
    pub(super) fn examine_read(&mut self, now: Moment, wait: &ReadWait) -> Verdict {
        let mut wants = Wants::default();
        for extent in &wait.request.extents {
            let id = ObjectRef {
                key: extent.object.clone(),
                snap: wait.request.snap,
            };
            let Some(object) = self.open_object(&id) else {
                continue;
            };
            let seen = self.examine_extent(object, extent, wait.has_waited);
            if let Some(error) = seen.failed {
                return Verdict::Failed(error);
            }
            if !seen.gaps.is_empty()
                && self.is_not_found(object)
                && self.stores_before_copy(now, object, extent, &mut wants)
            {
                if self.is_never_copied(object) {
                    return Verdict::Failed(self.fenced_error());
                }
                continue;
            }
            if self.is_reported_missing(object) {
                return Verdict::Failed(CacheError::NotFound {
                    object: extent.object.clone(),
                });
            }
            wants.ops.extend(seen.ops);
            self.sort_gaps(object, seen.gaps, &mut wants);
        }
        if wants.is_empty() {
            Verdict::Readable
        } else {
            Verdict::Wait(wants)
        }
    }

    fn is_not_found(&self, object: usize) -> bool {
        self.objects.get(object).is_some_and(|object| object.absent)
    }

    /// Whether a read of the object is answered with "not found": it is known to be absent, and nothing but
    /// zeros is cached of it (rules ).
    fn is_reported_missing(&self, object: usize) -> bool {
        self.options.shape.missing == Missing::NotFound
            && self.is_not_found(object)
            && self.objects.get(object).is_some_and(|object| {
                object
                    .windows
                    .values()
                    .all(|window| self.look(*window, Window::holds_nothing).unwrap_or(true))
            })
    }

    /// Sends what is dirty of an object whose first write may copy from a parent, and says whether the read has to
    /// wait for that (rule R-12): for the writebacks, or for the end of the pause after a failed one.
    fn stores_before_copy(
        &mut self,
        now: Moment,
        object: usize,
        extent: &ObjectExtent,
        wants: &mut Wants,
    ) -> bool {
        let may_copy = self.objects.get(object).is_some_and(|known| {
            self.shelf
                .may_copy_on_write(&known.name, extent.range, known.id.snap)
        });
        if !may_copy {
            return false;
        }
        self.send_all(now, object);
        let Some(known) = self.objects.get(object) else {
            return false;
        };
        if known.is_paused(now) && !known.listed.is_empty() {
            wants.pauses.insert(object);
        }
        wants.ops.extend(known.writebacks.keys());
        !known.writebacks.is_empty()
            || wants.pauses.contains(&object)
            || self.is_never_copied(object)
    }

    /// Whether the object's first write, which may copy from a parent, will never come: nobody knows what that would
    /// have brought.
    fn is_never_copied(&self, object: usize) -> bool {
        self.is_fenced
            && self
                .objects
                .get(object)
                .is_some_and(|known| !known.listed.is_empty() && known.writebacks.is_empty())
    }

    fn examine_extent(&self, object: usize, extent: &ObjectExtent, has_waited: bool) -> Seen {
        let mut seen = Seen::default();
        let Some(known) = self.objects.get(object) else {
            return seen;
        };
        for (index, span) in spans(extent.range) {
            let Some(window) = known.windows.get(&index) else {
                seen.gaps.push((index, span));
                continue;
            };
            self.look(*window, |window| {
                window.examine(span, |part, found| match found {
                    Found::Readable => {}
                    Found::Gap => seen.gaps.push((index, part)),
                    Found::Fetching(op) => {
                        seen.ops.insert(op);
                    }
                    // A read that has waited is told; a new one asks the store again (rule R-13).
                    Found::Failed(error) if has_waited => {
                        let object = known.name.clone();
                        let range = range_of(index, part).unwrap_or(extent.range);
                        let source: BackendError = error.clone();
                        seen.failed = Some(CacheError::Read {
                            object,
                            range,
                            source,
                        });
                    }
                    Found::Failed(_) => seen.gaps.push((index, part)),
                });
            });
        }
        seen
    }

    /// The gaps of a complete object are zeros (rule R-10); of the others, those over which a writeback is under way,
    /// or a fetch that will not fill them, must wait for its end; the rest is to be fetched.
    fn sort_gaps(&self, object: usize, gaps: Gaps, wants: &mut Wants) {
        let Some(known) = self.objects.get(object) else {
            return;
        };
        for (index, span) in gaps {
            if known.complete {
                wants.zeros.push(MissingPart {
                    object,
                    index,
                    span,
                });
                continue;
            }
            let Some(range) = range_of(index, span) else {
                continue;
            };
            if known.absence_in_doubt {
                wants.ops.extend(known.writebacks.keys());
                continue;
            }
            let mut under_way = known
                .writeback_over(range)
                .chain(known.cut_fetch_over(range))
                .peekable();
            if under_way.peek().is_some() {
                wants.ops.extend(under_way);
            } else {
                wants.miss(MissingPart {
                    object,
                    index,
                    span,
                });
            }
        }
    }

    /// Holds a part as zeros, for which there is room.
    pub(super) fn zero(&mut self, now: Moment, part: &MissingPart) {
        let Some(window) = self.open_window(part.object, part.index) else {
            return;
        };
        let stamp = self.evictor.stamp();
        let watchers = self.watchers(window, part.span);
        self.due.extend(watchers);
        let bytes = self
            .edit(window, |window| {
                window.unanswered = true;
                window.put_zeros(part.span, stamp)
            })
            .unwrap_or(0);
        self.unanswered.push(window);
        self.queue_for_eviction(now, (window, part.span), stamp, (bytes, Queue::Small));
    }
}

#[derive(Default)]
struct Seen {
    gaps: Gaps,
    ops: BTreeSet<OpId>,
    failed: Option<CacheError>,
}

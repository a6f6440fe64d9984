//! What a window promises, one thing at a time; [`array`] has it all together.

#![expect(
    clippy::cast_possible_truncation,
    reason = "tests reckon with small numbers"
)]
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        missing_docs,
        reason = "the fuzz target needs only some of it"
    )
)]

mod array;
#[cfg(test)]
mod states;

pub(crate) use array::fuzz;

use bytes::Bytes;

use super::*;
use crate::engine::extent::{OpId, Written};
use crate::error::BackendError;
use crate::types::{JournalTid, Timestamp};

fn span(start: u32, end: u32) -> Span {
    Span { start, end }
}

fn tid(number: u64) -> JournalTid {
    JournalTid(std::num::NonZeroU64::new(number).unwrap())
}

fn written(since: u64, journal: Option<u64>) -> Written {
    Written {
        since: Moment::from_nanos(since),
        modified: Timestamp(since),
        epoch: since,
        context: 1,
        journal: journal.map(tid),
    }
}

fn put(window: &mut Window, at: Span, value: u8, written: Written) -> PutOutcome {
    let bytes = vec![value; at.len() as usize];
    let put = Put {
        span: at,
        source: Source::Lent(&bytes),
        written,
        access: Access::Plain,
    };
    window.listed = true;
    window.put(put).unwrap()
}

fn fetched(window: &mut Window, at: Span, bytes: Vec<u8>, stamp: u32) {
    let op = OpId(1000 + u64::from(stamp));
    window.begin_fetch(at, op);
    let access = Access::Plain;
    window.fill(
        at,
        op,
        Bytes::from(bytes),
        Fill {
            stamp,
            access,
            is_vouched_for: false,
        },
    );
    window.join_clean(at);
}

fn read(window: &Window, at: Span) -> Option<Vec<u8>> {
    let mut out = ReadBuf::default();
    window
        .collect(at, Access::Quiet, &mut out)
        .then(|| out.to_vec())
}

fn states(window: &Window) -> Vec<(u32, u32, BufferState)> {
    window
        .iter()
        .map(|(at, extent)| (at.start, at.end, extent.state.kind()))
        .collect()
}

/// Takes every extent that does not lie over what is in flight.
#[derive(Default)]
struct Everything {
    op: OpId,
    blocked: Vec<Span>,
    taken: Vec<(Span, Vec<u8>)>,
    /// Parts of at most so many bytes.
    len_max: Option<u32>,
}

impl Sink for Everything {
    fn offer(&mut self, at: Span, _: &Written) -> Offer {
        if self
            .blocked
            .iter()
            .any(|other| other.start < at.end && at.start < other.end)
        {
            return Offer::Skip;
        }
        match self.len_max {
            Some(len) if len < at.len() => Offer::TakeFirst(self.op, len),
            Some(_) | None => Offer::Take(self.op),
        }
    }

    fn take(&mut self, at: Span, _: &Written, bytes: Bytes) {
        self.taken.push((at, bytes.to_vec()));
    }
}

fn send(window: &mut Window, op: u64) -> Vec<Span> {
    let mut sink = Everything {
        op: OpId(op),
        ..Everything::default()
    };
    assert!(!window.send(Span::ALL, &mut sink));
    sink.taken.iter().map(|(at, _)| *at).collect()
}

/// W-02, B-05
#[test]
fn memory_that_a_write_gives_away_is_kept_where_it_takes_the_place_of_all_that_it_lies_over() {
    const LEN: u32 = 16 << 10;
    let mut window = Window::default();
    let give = |window: &mut Window, start: u32, value: u8| {
        let mut given = Bytes::from(vec![value; LEN as usize]);
        let address = given.as_ptr();
        let put = Put {
            span: span(start, start + LEN),
            source: Source::Given(&mut given),
            written: written(u64::from(value), None),
            access: Access::Plain,
        };
        window.put(put).unwrap();
        assert_eq!(given, vec![value; LEN as usize], "the giver sees it still");
        let mut out = ReadBuf::default();
        let kept = window.collect(span(start, start + 1), Access::Quiet, &mut out)
            && out.pieces()[0].as_slice().as_ptr() == address;
        (kept, window.slabs.allocated_bytes())
    };
    window.listed = true;
    let len = u64::from(LEN);
    assert_eq!(give(&mut window, 0, 1), (true, len), "over nothing");
    assert_eq!(give(&mut window, 0, 2), (true, len), "over one like it");
    put(&mut window, span(LEN, LEN + 100), 3, written(3, None));
    put(&mut window, span(LEN + 200, 2 * LEN), 4, written(4, None));
    let whole = give(&mut window, LEN, 5);
    assert_eq!(whole, (true, 2 * len), "over several, and a gap");
    put(&mut window, span(2 * LEN, 5 * LEN), 6, written(6, None));
    let part = give(&mut window, 3 * LEN, 7);
    assert_eq!(part, (false, 5 * len), "amid a larger one, in place");
    assert_eq!(
        read(&window, span(3 * LEN - 1, 3 * LEN + 1)),
        Some(vec![6, 7])
    );
    assert_eq!(window.audit(), Ok(()));
}

/// B-03
#[test]
fn both_sides_of_a_cut_keep_all_that_the_whole_had_and_share_its_bytes() {
    let mut window = Window::default();
    let bytes: Vec<u8> = (0..32_768u32).map(|at| at as u8).collect();
    let given = bytes.clone();
    let address = given.as_ptr();
    fetched(&mut window, span(100, 32_868), given, 7);
    let index = window.find(100);
    window.extents.get(index).unwrap().mark.set_dont_need();
    let allocated = window.slabs.allocated_bytes();
    window.cut(20_000);
    let expected = [
        (100, 20_000, BufferState::Clean),
        (20_000, 32_868, BufferState::Clean),
    ];
    assert_eq!(states(&window), expected);
    assert!(
        window
            .iter()
            .all(|(_, extent)| extent.stamp == 7 && extent.mark.is_first_to_go())
    );
    assert_eq!(window.slabs.allocated_bytes(), allocated);
    assert_eq!(read(&window, span(100, 32_868)), Some(bytes));
    let mut out = ReadBuf::default();
    assert!(window.collect(span(20_000, 20_001), Access::Quiet, &mut out));
    assert_eq!(
        out.pieces()[0].as_slice().as_ptr(),
        address.wrapping_add(19_900)
    );

    let mut window = Window::default();
    put(&mut window, span(0, 100), 1, written(5, Some(9)));
    send(&mut window, 3);
    window.cut(40);
    let expected = ExtentState::Tx {
        op: OpId(3),
        written: written(5, Some(9)),
    };
    assert!(window.iter().all(|(_, extent)| *extent.state == expected));
    assert_eq!(window.iter().count(), 2);
    assert_eq!(window.audit(), Ok(()));
}

/// B-04
#[test]
fn touching_bytes_of_one_entry_become_one_buffer_with_the_later_time() {
    let mut window = Window::default();
    put(&mut window, span(0, 100), 1, written(5, Some(9)));
    put(&mut window, span(200, 300), 2, written(6, Some(9)));
    put(&mut window, span(100, 200), 3, written(7, Some(9)));
    assert_eq!(states(&window), [(0, 300, BufferState::Dirty)]);
    let (_, extent) = window.iter().next().unwrap();
    let merged = extent.state.written().unwrap();
    assert_eq!(merged.modified, Timestamp(7), "the later modification");
    assert_eq!(merged.since, Moment::from_nanos(5), "dirty since the first");
    assert_eq!(merged.epoch, 5);
}

/// F-01, H-33
#[test]
fn a_window_is_as_old_as_its_oldest_dirty_bytes_wherever_they_lie() {
    let mut window = Window::default();
    put(&mut window, span(0, 5000), 1, written(7, None));
    put(&mut window, span(20_000, 25_000), 2, written(5, None));
    put(&mut window, span(40_000, 45_000), 3, written(6, None));
    assert_eq!(window.oldest_dirty(), Some(Moment::from_nanos(5)));
}

/// F-06, W-01
#[test]
fn an_empty_window_whose_key_is_on_the_list_of_dirty_ones_stays() {
    let mut window = Window::default();
    put(&mut window, span(0, 5000), 1, written(7, None));
    window.remove(span(0, 5000), What::All);
    assert!(!window.is_idle(), "its key was not taken from the list yet");
    window.listed = false;
    assert!(window.is_idle());
}

/// H-33, H-12
#[test]
fn a_write_over_the_end_of_a_buffer_is_as_old_as_what_it_covers() {
    let mut window = Window::default();
    put(&mut window, span(0, 5000), 1, written(5, None));
    put(&mut window, span(2500, 10_000), 2, written(9, None));
    let ages: Vec<(u32, Moment, u64)> = window
        .dirty(Span::ALL)
        .map(|(at, written)| (at.start, written.since, written.epoch))
        .collect();
    let since = Moment::from_nanos(5);
    assert_eq!(ages, [(0, since, 5), (2500, since, 5)]);
}

///
#[test]
fn a_miss_leaves_what_was_read_before_as_it_was() {
    let mut window = Window::default();
    put(&mut window, span(0, 100), 1, written(5, None));
    let mut out = ReadBuf::default();
    assert!(window.collect(span(0, 10), Access::Quiet, &mut out));
    assert!(!window.collect(span(50, 150), Access::Quiet, &mut out));
    assert_eq!(out.to_vec(), [1; 10]);
}

/// B-04
#[test]
fn bytes_of_different_entries_contexts_or_states_stay_apart() {
    let mut window = Window::default();
    put(&mut window, span(0, 100), 1, written(5, Some(9)));
    put(&mut window, span(100, 200), 2, written(5, Some(8)));
    put(&mut window, span(200, 300), 2, written(5, None));
    let newer = Written {
        context: 2,
        ..written(5, None)
    };
    put(&mut window, span(300, 400), 2, newer);
    send(&mut window, 1);
    put(&mut window, span(400, 500), 2, newer);
    window.begin_fetch(span(500, 600), OpId(2));
    window.begin_fetch(span(600, 700), OpId(3));
    assert_eq!(window.iter().count(), 7);
    window.end_write_back(&[span(0, 400)], OpId(1), WriteEnd::Stored { stamp: 1 });
    let fill = Fill {
        stamp: 2,
        access: Access::Plain,
        is_vouched_for: false,
    };
    window.fill(span(500, 600), OpId(2), Bytes::new(), fill);
    window.fill(span(600, 700), OpId(3), Bytes::new(), fill);
    window.join_clean(span(500, 700));
    let zeros = (500, 700, BufferState::Zero);
    assert_eq!(states(&window).last(), Some(&zeros));
    assert_eq!(window.audit(), Ok(()));
}

/// B-04, H-05
#[test]
fn parts_of_one_allocation_join_again_when_they_are_stored() {
    for is_one_run in [false, true] {
        let mut window = Window::default();
        put(&mut window, span(0, 10_000), 1, written(5, None));
        let mut sink = Everything {
            op: OpId(1),
            len_max: Some(1000),
            ..Everything::default()
        };
        window.send(Span::ALL, &mut sink);
        assert_eq!(window.iter().count(), 10);
        let mut parts: Vec<Span> = sink.taken.iter().map(|(at, _)| *at).collect();
        if is_one_run {
            parts = vec![span(0, 10_000)];
        }
        window.end_write_back(&parts, OpId(1), WriteEnd::Stored { stamp: 1 });
        assert_eq!(states(&window), [(0, 10_000, BufferState::Clean)]);
        assert_eq!(window.audit(), Ok(()));
    }
}

/// B-05
#[test]
fn what_is_left_of_a_large_buffer_is_copied_out_of_it() {
    let mut window = Window::default();
    let bytes: Vec<u8> = (0..65_536u32).map(|at| (at / 7) as u8).collect();
    fetched(&mut window, span(0, 65_536), bytes.clone(), 1);
    window.remove(span(0, 50_000), What::All);
    assert_eq!(window.slabs.allocated_bytes(), 15_536);
    assert_eq!(
        read(&window, span(50_000, 65_536)),
        Some(bytes[50_000..].to_vec())
    );
    assert_eq!(window.audit(), Ok(()));
}

/// B-05
#[test]
fn memory_that_a_writeback_holds_is_charged_once_until_it_ends() {
    let mut window = Window::default();
    put(&mut window, span(0, 65_536), 1, written(1, None));
    send(&mut window, 1);
    window.remove(span(0, 60_000), What::All);
    assert_eq!(window.slabs.allocated_bytes(), 65_536, "still held");
    put(&mut window, span(0, 60_000), 2, written(2, None));
    assert_eq!(window.slabs.allocated_bytes(), 65_536 + 60_000);
    assert_eq!(window.charge().dirty, 65_536 + 60_000);
    window.end_write_back(&[span(0, 65_536)], OpId(1), WriteEnd::Failed);
    assert_eq!(window.slabs.allocated_bytes(), 5_536 + 60_000);
    assert_eq!(window.charge().dirty, 65_536);
    assert_eq!(read(&window, span(0, 60_000)), Some(vec![2; 60_000]));
    assert_eq!(window.audit(), Ok(()));
}

/// B-06
#[test]
fn a_write_behind_a_small_one_grows_its_buffer_in_place() {
    let mut window = Window::default();
    for at in 0..4096 {
        put(&mut window, span(at, at + 1), at as u8, written(1, None));
    }
    assert_eq!(states(&window), [(0, 4096, BufferState::Dirty)]);
    assert_eq!(window.slabs.allocated_bytes(), 4096);
    put(&mut window, span(4096, 4097), 1, written(1, None));
    assert_eq!(window.iter().count(), 2, "full buffers are left alone");
}

/// B-06
#[test]
fn a_buffer_does_not_grow_over_what_lies_behind_a_gap_in_it() {
    let mut window = Window::default();
    put(&mut window, span(0, 100), 1, written(1, None));
    put(&mut window, span(100, 300), 2, written(1, None));
    window.remove(span(120, 200), What::All);
    put(&mut window, span(120, 180), 3, written(1, None));
    put(&mut window, span(180, 210), 4, written(1, None));
    let expected = [
        vec![1; 100],
        vec![2; 20],
        vec![3; 60],
        vec![4; 30],
        vec![2; 90],
    ]
    .concat();
    assert_eq!(read(&window, span(0, 300)), Some(expected));
    assert_eq!(window.audit(), Ok(()));
}

/// B-06, W-01
#[test]
fn a_reader_keeps_what_it_has_read_when_the_bytes_are_written_over() {
    let mut window = Window::default();
    put(&mut window, span(0, 100), 1, written(1, None));
    let mut held = ReadBuf::default();
    assert!(window.collect(span(0, 100), Access::Plain, &mut held));
    put(&mut window, span(0, 100), 2, written(1, None));
    put(&mut window, span(100, 200), 3, written(1, None));
    assert_eq!(held.to_vec(), [1; 100]);
    let expected = [vec![2; 100], vec![3; 100]].concat();
    assert_eq!(read(&window, span(0, 200)), Some(expected));
}

/// H-01
#[test]
fn a_fetch_fills_each_part_that_still_waits_with_its_own_bytes() {
    let mut window = Window::default();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    window.begin_fetch(span(0, 100_000), OpId(1));
    put(&mut window, span(30_000, 30_100), 7, written(1, None));
    window.remove(span(60_000, 60_100), What::All);
    let fill = Fill {
        stamp: 1,
        access: Access::Plain,
        is_vouched_for: false,
    };
    window.fill(
        span(0, 100_000),
        OpId(1),
        Bytes::from(bytes[..90_000].to_vec()),
        fill,
    );
    let expected = [
        (0, 30_000, BufferState::Clean),
        (30_000, 30_100, BufferState::Dirty),
        (30_100, 60_000, BufferState::Clean),
        (60_100, 90_000, BufferState::Clean),
        (90_000, 100_000, BufferState::Zero),
    ];
    assert_eq!(states(&window), expected);
    assert_eq!(
        read(&window, span(30_100, 60_000)),
        Some(bytes[30_100..60_000].to_vec())
    );
    assert_eq!(
        read(&window, span(60_100, 90_000)),
        Some(bytes[60_100..90_000].to_vec())
    );
    assert_eq!(window.audit(), Ok(()));
}

/// H-06
#[test]
fn the_end_of_a_writeback_does_not_touch_the_buffer_behind_it() {
    let mut window = Window::default();
    for start in [0, 5000, 10_000] {
        put(&mut window, span(start, start + 5000), 1, written(1, None));
    }
    send(&mut window, 1);
    let end = WriteEnd::Stored { stamp: 1 };
    window.end_write_back(&[span(5000, 10_000)], OpId(1), end);
    let expected = [
        (0, 5000, BufferState::Tx),
        (5000, 10_000, BufferState::Clean),
        (10_000, 15_000, BufferState::Tx),
    ];
    assert_eq!(states(&window), expected);
    window.end_write_back(&[span(0, 15_000)], OpId(2), end);
    assert_eq!(states(&window), expected, "not its own");
}

/// H-06
#[test]
fn examining_a_range_meets_every_byte_once() {
    let mut window = Window::default();
    put(&mut window, span(10, 20), 1, written(1, None));
    window.begin_fetch(span(30, 40), OpId(5));
    window.begin_fetch(span(40, 50), OpId(6));
    window.fail_fetch(span(40, 50), OpId(6), &BackendError::Full, 1);
    let mut found = Vec::new();
    window.examine(span(5, 60), |at, what| {
        found.push((at.start, at.end, format!("{what:?}")));
    });
    let expected = [
        (5, 10, "Gap"),
        (10, 20, "Readable"),
        (20, 30, "Gap"),
        (30, 40, "Fetching(OpId(5))"),
        (40, 50, "Failed(Full)"),
        (50, 60, "Gap"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(start, end, what)| (*start, *end, (*what).to_owned()))
        .collect();
    assert_eq!(found, expected);
    window.examine(span(12, 13), |at, _| assert_eq!(at, span(12, 13)));
}

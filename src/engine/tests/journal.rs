//! Rules J-01 and J-02: what becomes of journal entries.

use super::rig::*;
use crate::error::BackendError;
use crate::io::JournalNotice;

fn committed(offset: u64, len: u64, tid: u64) -> JournalNotice {
    JournalNotice::Committed {
        object: name(1),
        range: range(offset, len),
        tid: tid_of(tid),
    }
}

fn overwritten(offset: u64, len: u64, old: u64, new: Option<u64>) -> JournalNotice {
    JournalNotice::Overwritten {
        object: name(1),
        range: range(offset, len),
        old: tid_of(old),
        new: new.map(tid_of),
    }
}

/// J-01, J-02, B-04
#[test]
fn the_journal_entry_goes_with_its_bytes_and_its_commit_is_told() {
    for scattered_writes in [false, true] {
        let mut options = RigOptions::default();
        options.capabilities.scattered_writes = scattered_writes;
        let mut rig = Rig::with(options);
        rig.write_request(journaled(1, 0, &[1; 100], 7));
        rig.write_request(journaled(1, 100, &[2; 100], 8));
        rig.write_request(journaled(1, 200, &[3; 100], 8));
        rig.write(1, 300, &[4; 100]);
        rig.write_back_all();
        assert_eq!(rig.sent.len() == 1, scattered_writes, "one run a write");
        let runs = rig.sent.iter().flat_map(|write| &write.runs);
        let sent: Vec<_> = runs
            .map(|run| (run.offset, run.len_bytes(), run.journal_tid))
            .collect();
        let expected = [
            (0, 100, Some(tid_of(7))),
            (100, 200, Some(tid_of(8))),
            (300, 100, None),
        ];
        assert_eq!(sent, expected);
        assert!(rig.notices.is_empty());
        rig.end_all_writes();
        assert_eq!(rig.notices, [committed(0, 100, 7), committed(100, 200, 8)]);
    }
}

/// J-02, H-14
#[test]
fn what_takes_the_place_of_an_entrys_bytes_is_told() {
    let mut rig = Rig::new();
    rig.write_request(journaled(1, 0, &[1; 100], 7));
    rig.write(1, 10, &[2; 10]);
    rig.write_request(journaled(1, 50, &[3; 10], 8));
    rig.write_request(journaled(1, 50, &[4; 10], 8));
    rig.write_request(journaled(1, 200, &[4; 10], 9));
    let expected = [
        overwritten(10, 10, 7, None),
        overwritten(50, 10, 7, Some(8)),
    ];
    assert_eq!(rig.notices, expected);
}

/// J-02, H-14
#[test]
fn bytes_overwritten_in_flight_are_not_told_as_committed() {
    let mut rig = Rig::new();
    rig.write_request(journaled(1, 0, &[1; 100], 7));
    rig.write_back_all();
    rig.write(1, 40, &[2; 20]);
    assert_eq!(rig.notices, [overwritten(40, 20, 7, None)]);
    let op = rig.only_write();
    rig.end_write(op);
    assert_eq!(
        rig.notices[1..],
        [committed(0, 40, 7), committed(60, 40, 7)]
    );
}

/// J-02
#[test]
fn a_failed_writeback_keeps_its_entry_open() {
    let mut rig = Rig::new();
    rig.write_request(journaled(1, 0, &[1; 100], 7));
    rig.write_back_all();
    let op = rig.only_write();
    rig.fail_write(op, BackendError::Unavailable);
    assert!(rig.notices.is_empty());
    rig.advance(std::time::Duration::from_millis(100));
    rig.end_all_writes();
    assert_eq!(rig.notices, [committed(0, 100, 7)]);
}

/// J-02, S-03
#[test]
fn whatever_drops_an_entrys_bytes_is_told() {
    let drops: [fn(&mut Rig); 3] = [
        |rig| {
            rig.discard(1, 0, 100);
        },
        |rig| {
            rig.truncate(1, 0);
        },
        |rig| {
            rig.purge();
        },
    ];
    for drop in drops {
        for is_in_flight in [false, true] {
            let mut rig = Rig::new();
            rig.write_request(journaled(1, 0, &[1; 100], 7));
            if is_in_flight {
                rig.write_back_all();
            }
            drop(&mut rig);
            assert_eq!(rig.notices, [overwritten(0, 100, 7, None)]);
            rig.end_all_writes();
            assert_eq!(rig.notices.len(), 1);
        }
    }
}

/// J-02
#[test]
fn a_door_stays_shut_over_journaled_bytes() {
    let mut rig = Rig::new();
    rig.write_request(journaled(1, 0, &[1; 100], 7));
    assert!(!rig.door_write(1, 50, &[2; 10]));
    assert!(rig.door_write(1, WINDOW, &[2; 10]), "another window");
    rig.write_back_all();
    assert!(!rig.door_write(1, 50, &[2; 10]));
    rig.end_all_writes();
    assert!(rig.door_write(1, 50, &[2; 10]));
    assert_eq!(rig.notices, [committed(0, 100, 7)]);
}

//! Rule R-16: what callers know about how bytes will be used.

use super::rig::*;
use crate::request::{ReadRequest, WriteRequest};
use crate::types::Hints;

const DONT_NEED: Hints = Hints {
    dont_need: true,
    no_cache: false,
    sequential: false,
    random: false,
    will_need: false,
};
const NO_CACHE: Hints = Hints {
    dont_need: false,
    no_cache: true,
    sequential: false,
    random: false,
    will_need: false,
};

/// Objects 0 to 9 of one block each, read in order; each cached in a window of its own.
fn rig() -> Rig {
    let mut rig = Rig::new();
    for object in 0..10 {
        rig.store_object(object, pattern(object, 0, 4096));
        rig.read_now(object, 0, 4096);
    }
    rig
}

fn read_with(rig: &mut Rig, hints: Hints, object: u64, (offset, len): (u64, u64)) {
    let request = ReadRequest {
        hints,
        ..read_of(object, offset, len)
    };
    let waiter = rig.read_request(request, true);
    rig.end_all_fetches();
    assert!(rig.is_answered(waiter));
}

/// Which objects go when room for some blocks is wanted.
fn trimmed(rig: &mut Rig, blocks: u64) -> Vec<u64> {
    rig.trim(4096 * blocks);
    (0..12)
        .filter(|object| rig.states(*object).is_empty())
        .filter(|object| *object < 10)
        .collect()
}

///
#[test]
fn what_is_not_needed_goes_first() {
    let mut rig = rig();
    read_with(&mut rig, DONT_NEED, 7, (0, 4096));
    read_with(&mut rig, DONT_NEED, 5, (0, 4096));
    assert_eq!(trimmed(&mut rig, 2), [5, 7]);
}

///
#[test]
fn what_is_fetched_and_not_needed_any_more_goes_first() {
    let mut rig = rig();
    rig.store_object(10, pattern(10, 0, 4096));
    read_with(&mut rig, DONT_NEED, 10, (0, 4096));
    assert_eq!(trimmed(&mut rig, 1), [0; 0]);
    assert!(rig.states(10).is_empty());
}

///
#[test]
fn only_buffers_wholly_inside_go_first() {
    let mut rig = rig();
    read_with(&mut rig, DONT_NEED, 7, (1, 4095));
    assert_eq!(trimmed(&mut rig, 1), [0]);
}

///
#[test]
fn a_later_plain_access_clears_the_hint() {
    let mut rig = rig();
    read_with(&mut rig, DONT_NEED, 7, (0, 4096));
    read_with(&mut rig, NO_CACHE, 7, (0, 4096));
    read_with(&mut rig, Hints::default(), 7, (0, 4096));
    assert_eq!(trimmed(&mut rig, 1), [0]);
}

///
#[test]
fn what_is_brought_in_without_caching_goes_first_and_is_not_promoted_by_more_of_that() {
    let mut rig = rig();
    rig.store_object(10, pattern(10, 0, 4096));
    read_with(&mut rig, NO_CACHE, 10, (0, 4096));
    read_with(&mut rig, NO_CACHE, 10, (0, 4096));
    read_with(&mut rig, NO_CACHE, 10, (0, 4096));
    assert_eq!(trimmed(&mut rig, 1), [0; 0]);
    assert!(rig.states(10).is_empty());
}

///
#[test]
fn an_access_without_caching_promotes_what_others_brought_in() {
    let mut rig = rig();
    read_with(&mut rig, NO_CACHE, 0, (0, 4096));
    assert_eq!(trimmed(&mut rig, 1), [1]);
}

///
#[test]
fn a_plain_read_that_shares_a_fetch_without_caching_keeps_the_bytes() {
    let mut rig = rig();
    rig.store_object(10, pattern(10, 0, 4096));
    let hinted = ReadRequest {
        hints: NO_CACHE,
        ..read_of(10, 0, 4096)
    };
    rig.read_request(hinted, true);
    rig.read(10, 0, 4096);
    rig.end_all_fetches();
    assert_eq!(trimmed(&mut rig, 1), [0]);
    assert!(!rig.states(10).is_empty());
}

/// R-16, F-03
#[test]
fn bytes_written_without_caching_go_first_once_they_are_stored() {
    let mut rig = rig();
    let hinted = WriteRequest {
        hints: NO_CACHE,
        ..write_of(10, 0, &pattern(1, 0, 4096))
    };
    rig.write_request(hinted);
    rig.trim(1);
    assert!(!rig.states(10).is_empty(), "dirty bytes never go");
    rig.write_back_all();
    rig.end_all_writes();
    let before = trimmed(&mut rig, 1);
    assert!(rig.states(10).is_empty());
    assert_eq!(before, [0], "only the first trim met it");
}

///
#[test]
fn hints_reach_the_store_with_the_fetch() {
    let mut rig = Rig::new();
    let hints = Hints {
        sequential: true,
        will_need: true,
        ..Hints::default()
    };
    let request = ReadRequest {
        hints,
        ..read_of(1, 0, 100)
    };
    rig.read_request(request, true);
    let op = rig.only_fetch();
    assert_eq!(rig.fetches[&op].hints, hints);
}

///
#[test]
fn a_hint_given_at_the_door_is_heeded() {
    let mut rig = rig();
    rig.door_read_unneeded(7, 0, 4096);
    assert_eq!(trimmed(&mut rig, 1), [7]);
}

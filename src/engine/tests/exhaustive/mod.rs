//! Small cases, gone through to the last order of events.
//!
//! One object of twelve bytes, one of all kinds of sets over it, and something cached of it in the beginning. Then callers
//! ask for up to three things, and between them the store answers, in every order: with what it holds now or held at
//! some moment since it was asked, with errors, after it stored half of a write, or all of it but the answer is lost, or
//! never. Ends are told twice. After each step the engine is audited, and everything that users were promised is
//! compared byte by byte with what they got and with what the store holds, as if the process ended there.
//!
//! Equal worlds are looked at once. A failure prints what happened, and `CACHALOT_PATH`, with which it happens again.
//!
//! | variable | meaning | usually |
//! | --- | --- | --- |
//! | `CACHALOT_DEPTH` | how many things are asked, up to three | 1 |
//! | `CACHALOT_CORE` | 1: only out of those that matter most; three only of the kinds of sets that matter most | 0 |
//! | `CACHALOT_FAULTS` | how many things go wrong, up to one | 1 |
//! | `CACHALOT_STRIDE` | one beginning in so many | 24 |
//! | `CACHALOT_JOBS` | threads | 1 |

mod callers;
mod cases;
mod checks;
mod digest;
mod looks;
mod oracle;
mod search;
mod seen;
mod store;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use cases::{Start, Vocabulary, starts};
use search::{Depth, Tally, replay, search};
use seen::Seen;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str, usual: usize) -> usize {
    variable(name).map_or(usual, |text| text.parse().unwrap())
}

/// B-02, R-03, R-05, R-07, R-08, R-13, W-01, W-02, W-03, W-04, F-03, F-05, F-06, S-05, J-02, H-03, H-04, H-10, H-11, H-13,
/// H-16, H-46
#[test]
fn small_cases_keep_every_promise_in_every_order_of_events() {
    let starts: Vec<Start> = starts();
    if let Some(path) = variable("CACHALOT_PATH") {
        let (case, choices) = path.split_once(':').unwrap();
        let numbers: Vec<usize> = case.split('/').map(|part| part.parse().unwrap()).collect();
        let depth = Depth {
            asked: numbers[1],
            vocabulary: Vocabulary::ALL[numbers[2]],
            faults: numbers[3],
        };
        let told = replay(numbers[0], &starts[numbers[0]], depth, choices);
        panic!("{told}");
    }
    let depth = Depth {
        asked: number("CACHALOT_DEPTH", 1),
        vocabulary: Vocabulary::ALL[number("CACHALOT_CORE", 0)],
        faults: number("CACHALOT_FAULTS", 1),
    };
    // Without optimization all beginnings take minutes.
    let stride = number("CACHALOT_STRIDE", 24);
    let chosen: Vec<(usize, Start)> = starts.into_iter().enumerate().step_by(stride).collect();
    let chosen: Vec<(usize, Start)> = chosen
        .into_iter()
        .filter(|(_, start)| depth.asked < 3 || start.is_core())
        .collect();
    // Worlds of two kinds of sets, or over two stores, are seldom equal, so each pair of these has its own table.
    let groups: Vec<&[(usize, Start)]> = chosen
        .chunk_by(|(_, one), (_, next)| one.is_like(next))
        .collect();
    let next = AtomicUsize::new(0);
    let (mut sum, mut failures) = (Tally::default(), Vec::new());
    std::thread::scope(|scope| {
        let jobs = 0..number("CACHALOT_JOBS", 1);
        let work = || {
            let (mut sum, mut failures) = (Tally::default(), Vec::new());
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                sum += go_through_group(group, depth, &mut failures);
            }
            (sum, failures)
        };
        let workers: Vec<_> = jobs.map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok((tally, failed)) => {
                    sum += tally;
                    failures.extend(failed);
                }
                Err(failure) => std::panic::resume_unwind(failure),
            }
        }
    });
    say(&format!("{depth:?}: {sum:?}"));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Goes through beginnings of one kind. Those from which most is under way come first, since others lead there.
fn go_through_group(group: &[(usize, Start)], depth: Depth, failures: &mut Vec<String>) -> Tally {
    let mut sum = Tally::default();
    let mut seen = Seen::new();
    for (nth, start) in group.iter().rev() {
        let outcome = search(*nth, start, depth, &mut seen);
        say(&format!("{nth} {}: {outcome:?}", start.describe()));
        match outcome {
            Ok(tally) => sum += tally,
            Err(failure) => failures.push(failure),
        }
    }
    sum
}

#[expect(clippy::print_stderr, reason = "shows how much was gone through")]
fn say(what: &str) {
    eprintln!("{what}");
}

/// The fields of the engine that the digest takes account of.
const FIELDS: &str = "shelf options limits objects by_ref windows ops last_op reads writes flushes drops actions evictor aging \
    urgent demand pausing unstored was_unstored idle last_idle emptied writebacks_in_flight contexts purse last_error is_fenced awaits_flush unanswered due";

/// A new field of the engine may be something that tells worlds apart.
#[test]
fn the_digest_knows_every_field_of_the_engine() {
    let world = starts()[0].world(0, None);
    let shown = format!("{:#?}", world.engine);
    let fields: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_once(':').map(|(field, _)| field))
        .collect();
    assert_eq!(fields.join(" "), FIELDS);
}

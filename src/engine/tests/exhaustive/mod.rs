//! Small cases, gone through to the last order of events.
//!
//! One object of twelve bytes, one of all kinds of sets over it, and something cached of it in the beginning. Then callers
//! ask for up to three things, and between them the store answers, in every order: with what it holds now or held at
//! some moment since it was asked, with errors, after it stored half of a write, or all of it but the answer is lost, or
//! never. Ends are told twice. After each step the engine is audited, and everything that users were promised is
//! compared byte by byte with what they got and with what the store holds, as if the process ended there.
//!
//! Equal worlds are looked at once. A failure prints what happened, and `CACHALOT_PATH`, with which it happens again.
//! `CACHALOT_STRIDE=1` takes all beginnings, and not one in so many. `CACHALOT_DEPTH=2` asks for two things out of all,
//! `CACHALOT_DEPTH=3` for three; it takes minutes, or an hour.

mod callers;
mod cases;
mod checks;
mod digest;
mod oracle;
mod search;
mod store;
mod world;

use cases::{Start, starts};
use search::{Depth, Tally, replay, search};

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// B-02, R-03, R-05, R-07, R-08, R-13, W-01, W-02, W-03, W-04, F-03, F-05, F-06, S-05, J-02, H-03, H-04, H-10, H-11, H-13,
/// H-16, H-46
#[expect(clippy::print_stderr, reason = "shows how much was gone through")]
#[test]
fn small_cases_keep_every_promise_in_every_order_of_events() {
    let starts: Vec<Start> = starts();
    if let Some(path) = variable("CACHALOT_PATH") {
        let (case, choices) = path.split_once(':').unwrap();
        let numbers: Vec<usize> = case.split('/').map(|part| part.parse().unwrap()).collect();
        let depth = Depth {
            asked: numbers[1],
            first_of: numbers[2],
            later_of: numbers[3],
            faults: numbers[4],
        };
        replay(numbers[0], &starts[numbers[0]], depth, choices);
    }
    let number =
        |name: &str, usual: usize| variable(name).map_or(usual, |text| text.parse().unwrap());
    let depth = Depth {
        asked: number("CACHALOT_DEPTH", 1),
        first_of: number("CACHALOT_FIRST", 28),
        later_of: number("CACHALOT_LATER", 28),
        faults: number("CACHALOT_FAULTS", 1),
    };
    let mut sum = Tally::default();
    // Without optimization all beginnings take minutes.
    let stride = number("CACHALOT_STRIDE", 24);
    for (nth, start) in starts.iter().enumerate().step_by(stride) {
        let tally = search(nth, start, depth);
        eprintln!("{nth} {}: {tally:?}", start.describe());
        sum.worlds += tally.worlds;
        sum.events += tally.events;
        sum.ends += tally.ends;
    }
    eprintln!("{sum:?}");
}

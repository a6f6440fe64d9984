//! `cachalot simulate`.

use crate::common::{fails, ok};

#[test]
fn a_seed_is_played_alike_each_time() {
    let play = || ok(&["simulate", "--seed", "3", "--steps", "120"]);
    let first = play();
    assert!(
        first.contains("seed 3:") && first.contains("digest"),
        "{first}"
    );
    assert_eq!(first, play());
}

#[test]
fn so_many_seeds_are_played_as_were_asked_for() {
    let told = ok(&[
        "simulate", "--seed", "1", "--runs", "4", "--steps", "60", "--jobs", "2",
    ]);
    assert!(told.contains("4 runs, "), "{told}");
}

#[test]
fn fewer_steps_of_a_seed_can_be_looked_at() {
    let told = ok(&[
        "simulate", "--seed", "3", "--steps", "60", "--only", "1,2,5", "--log",
    ]);
    assert!(
        told.contains("step 2:") && !told.contains("step 3:"),
        "{told}"
    );
}

#[test]
fn steps_of_no_seed_are_refused() {
    let told = fails(&["simulate", "--only", "1,2"], 2);
    assert!(told.contains("--seed"), "{told}");
}

//! The benchmark through the built command: its figures make sense, and it leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::common::{Place, command, json, ok};
use serde_json::Value;

const SMALL: [&str; 10] = [
    "bench",
    "--duration",
    "300ms",
    "--warm-up",
    "100ms",
    "--working-set",
    "8MiB",
    "--cache",
    "4MiB",
    "--json",
];

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// The number at a path of the report.
fn of(report: &Value, path: &str) -> f64 {
    report
        .pointer(path)
        .and_then(Value::as_f64)
        .expect("a number")
}

fn is_sane(side: &Value) {
    assert!(number(&side["operations"]) > 100.0, "{side}");
    assert!(number(&side["ops_per_second"]) > 100.0, "{side}");
    assert!(number(&side["ops_per_second_settled"]) <= number(&side["ops_per_second"]));
    assert!((0.29..3.0).contains(&number(&side["seconds"])), "{side}");
    for kind in ["reads", "writes"] {
        let latency = &side[kind];
        let [p50, p99, max] = ["p50_ns", "p99_ns", "max_ns"].map(|name| number(&latency[name]));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{latency}");
    }
    let both = of(side, "/reads/operations") + of(side, "/writes/operations");
    assert!((both - number(&side["operations"])).abs() < 0.5);
    let share = of(side, "/reads/operations") / both;
    assert!((0.6..0.8).contains(&share), "{share}");
}

#[test]
fn both_sides_are_measured_and_the_temporary_store_goes() {
    let place = Place::new();
    let output = command(&SMALL)
        .env("TMPDIR", place.path(""))
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    is_sane(&report["cache"]);
    is_sane(&report["direct"]);
    assert!(report["workload"]["seed"].is_u64());
    let hit_ratio = number(&report["cache"]["hit_ratio"]);
    assert!((0.0..=1.0).contains(&hit_ratio), "{hit_ratio}");
    assert!(report["direct"]["hit_ratio"].is_null());
    let saved = number(&report["direct"]["store_operations_saved_share"]);
    assert!(
        saved.abs() < 0.05,
        "the bare store does every operation: {saved}"
    );
    let left = std::fs::read_dir(place.path(""))
        .expect("the directory")
        .count();
    assert_eq!(left, 0, "nothing is left in the temporary directory");
}

#[test]
fn one_side_alone_over_a_given_store_leaves_no_objects() {
    let place = Place::new();
    let store = place.store();
    let more = [
        "--mode",
        "direct",
        "--store",
        &store,
        "--pattern",
        "uniform",
        "--seed",
        "7",
    ];
    let report = json(&[&SMALL[..], &more].concat());
    assert!(report["cache"].is_null());
    is_sane(&report["direct"]);
    assert_eq!(report["workload"]["seed"], 7);
    assert_eq!(ok(&["ls", &store]), "");
}

#[test]
fn a_slowed_store_is_slow() {
    let delay = [
        "--store",
        "memory:",
        "--store-delay",
        "5ms",
        "--mode",
        "direct",
    ];
    let report = json(&[&SMALL[..], &delay].concat());
    let p50 = number(&report["direct"]["reads"]["p50_ns"]);
    assert!(p50 >= 5e6, "{p50}");
}

#[test]
fn all_streams_together_go_through_the_blocks_in_order() {
    let in_order = [
        "--store",
        "memory:",
        "--mode",
        "cache",
        "--pattern",
        "sequential",
        "--read-share",
        "1",
        "--threads",
        "8",
    ];
    let report = json(&[&SMALL[..], &in_order].concat());
    // The cache holds half of the blocks. Streams that each went through all of them would find what the first had read.
    let hit_ratio = number(&report["cache"]["hit_ratio"]);
    assert!(hit_ratio < 0.6, "{hit_ratio}");
    assert_eq!(report["workload"]["pattern"], "sequential");
}

#[test]
fn people_get_a_table_bars_and_the_seed() {
    let arguments: Vec<&str> = SMALL.into_iter().filter(|word| *word != "--json").collect();
    let text = ok(&[&arguments[..], &["--store", "memory:"]].concat());
    for word in ["operations/s", "read p99", "█", "seed ", "acknowledged"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn an_interrupted_benchmark_clears_away_its_store() {
    let place = Place::new();
    let mut child = command(&["bench", "--duration", "1h", "--working-set", "8MiB"])
        .env("TMPDIR", place.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // The headline comes when the store has been made.
    let stdout = child.stdout.take().expect("its standard output");
    let mut headline = String::new();
    BufReader::new(stdout)
        .read_line(&mut headline)
        .expect("a headline");
    assert!(headline.contains("operations"), "{headline}");
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(130));
    let left = std::fs::read_dir(place.path(""))
        .expect("the directory")
        .count();
    assert_eq!(left, 0, "nothing is left in the temporary directory");
}

#[test]
fn live_figures_and_the_listing_go_beside_the_report() {
    let live = [
        "--stats",
        "--store",
        "memory:",
        "--mode",
        "cache",
        "--duration",
        "1200ms",
    ];
    let arguments: Vec<&str> = SMALL
        .into_iter()
        .filter(|word| !matches!(*word, "--duration" | "300ms"))
        .collect();
    let output = command(&[&arguments[..], &live].concat())
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    is_sane(&report["cache"]);
    let said = String::from_utf8(output.stderr).expect("text");
    for word in ["% hits", "set bench-cache-", "Clean "] {
        assert!(said.contains(word), "{said}");
    }
}

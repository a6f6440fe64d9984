//! The cases of the benchmark through the built command: each runs in small, and its figures fit each other.

use crate::common::{Place, fails, json, ok, text};
use serde_json::Value;

/// Small enough for any machine.
const SMALL: [&str; 11] = [
    "bench",
    "--json",
    "--runs",
    "2",
    "--seconds",
    "0.01",
    "--working-set",
    "1MiB",
    "--total",
    "1MiB",
    "--case",
];

fn number(value: &Value, path: &str) -> f64 {
    let number = value.pointer(path).and_then(Value::as_f64);
    number.unwrap_or_else(|| unreachable!("no number at {path} of {value}"))
}

/// The measurements of one command.
fn measured(arguments: &[&str]) -> Vec<Value> {
    let report = json(&[&SMALL[..], arguments].concat());
    let cases = report.pointer("/cases").and_then(Value::as_array);
    let cases = cases.expect("a list of cases");
    assert!(!cases.is_empty(), "{report}");
    cases.iter().for_each(is_sane);
    cases.clone()
}

fn is_sane(case: &Value) {
    for spread in ["/ns_per_op", "/ops_per_second", "/bytes_per_second"] {
        let [min, median, max] =
            ["min", "median", "max"].map(|name| number(case, &format!("{spread}/{name}")));
        assert!(0.0 < min && min <= median && median <= max, "{case}");
    }
    assert!(
        number(case, "/latencies/operation/samples") >= 1.0,
        "{case}"
    );
    for latency in case["latencies"].as_object().expect("latencies").values() {
        // A part of a run as short as these may have none in some repetition.
        if number(latency, "/samples") > 0.0 && number(latency, "/max_ns/min") > 0.0 {
            let [p50, p99, p999, max] = ["p50_ns", "p99_ns", "p999_ns", "max_ns"]
                .map(|name| number(latency, &format!("/{name}/median")));
            assert!(
                0.0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max,
                "{latency}"
            );
        }
    }
    let block_bytes = number(case, "/plan/block_bytes");
    let bytes_per_op =
        number(case, "/bytes_per_second/median") / number(case, "/ops_per_second/median");
    assert!((bytes_per_op / block_bytes - 1.0).abs() < 1e-6, "{case}");
    assert!(number(case, "/clock_read_ns") > 0.0, "{case}");
    assert!(number(case, "/peak_rss_bytes") > 1e6, "{case}");
    if let Some(ratio) = case["hit_ratio"].as_f64() {
        assert!((0.0..=1.0).contains(&ratio), "{case}");
    }
}

#[test]
fn hits_are_all_hits_however_the_data_came_in() {
    let cases = measured(&[
        "read_hit_4k,read_hit_4k_fragmented",
        "--fill",
        "whole,seq4k,rand4k,rand512,read64k",
        "--threads",
        "1,2",
        "--sets",
        "1,3",
    ]);
    assert_eq!(cases.len(), 2 * 5 * 2 * 2);
    for case in &cases {
        assert_eq!(case["hit_ratio"], 1.0, "{case}");
        assert_eq!(number(case, "/store/operations/reads"), 0.0, "{case}");
        assert_eq!(number(case, "/store/operations/writes"), 0.0, "{case}");
        let [data, footprint] =
            ["/memory/data_bytes", "/plan/footprint_bytes"].map(|path| number(case, path));
        assert!(data <= footprint && data > 0.98 * footprint, "{case}");
        assert!(
            number(case, "/memory/charged_overhead_per_4k") > 0.0,
            "{case}"
        );
    }
}

#[test]
fn absorbed_writes_reach_no_store() {
    let cases = measured(&["write_absorb_4k,write_absorb_4k_fragmented", "--copy-out"]);
    for case in &cases {
        assert!(case["hit_ratio"].is_null(), "{case}");
        assert_eq!(number(case, "/store/operations/writes"), 0.0, "{case}");
    }
}

#[test]
fn what_is_written_and_flushed_reaches_the_store() {
    for name in ["write_flush_seq", "write_flush_rand"] {
        for more in [&["--in-flight", "8"][..], &["--scattered"]] {
            let arguments = [&[name, "--threads", "2", "--sets", "2"][..], more].concat();
            let cases = measured(&arguments);
            let case = cases.first().expect("a case");
            let written = number(case, "/store/operations/write_bytes");
            // Two runs and two quarters for the latencies.
            assert!(written >= 2.0 * f64::from(1 << 20), "{case}");
            assert!(number(case, "/store/write_bytes_mean") >= 4096.0, "{case}");
            let [writes, runs] = ["writes", "write_runs"]
                .map(|name| number(case, &format!("/store/operations/{name}")));
            assert!(runs >= writes, "{case}");
        }
    }
}

#[test]
fn misses_all_miss() {
    for buffers in [&["--fresh-buffers"][..], &[]] {
        let cases = measured(&[&["read_miss_64k", "--cache", "8MiB"], buffers].concat());
        for case in &cases {
            assert_eq!(case["hit_ratio"], 0.0, "{case}");
            assert_eq!(number(case, "/store/read_bytes_mean"), 65536.0, "{case}");
        }
    }
}

#[test]
fn a_mix_hits_and_misses() {
    let cases = measured(&["mixed_zipf", "--cache", "512KiB", "--store-delay", "50us"]);
    for case in &cases {
        let ratio = case["hit_ratio"].as_f64().expect("a ratio");
        assert!(0.1 < ratio && ratio < 1.0, "{case}");
        let all = number(case, "/latencies/operation/samples");
        let [hits, absorbed] =
            ["hits", "absorbed writes"].map(|name| number(&case["latencies"][name], "/samples"));
        assert!(
            hits > 0.0 && absorbed > 0.0 && hits + absorbed <= all,
            "{case}"
        );
    }
}

#[test]
fn tiny_writes_are_joined_before_they_reach_the_store() {
    for case in &measured(&["tiny_writes"]) {
        assert!(number(case, "/store/write_bytes_mean") > 1024.0, "{case}");
        assert!(number(case, "/more/flush ms/median") > 0.0, "{case}");
    }
}

#[test]
fn a_reader_is_timed_beside_a_flush() {
    for case in &measured(&["flush_under_load"]) {
        assert_eq!(case["hit_ratio"], 1.0, "{case}");
        assert!(
            number(&case["latencies"]["reader alone"], "/samples") > 0.0,
            "{case}"
        );
        assert!(number(case, "/more/flush ms/median") > 0.0, "{case}");
    }
}

#[test]
fn the_cases_are_listed_with_what_they_measure() {
    let listing = ok(&["bench", "--list-cases"]);
    for name in ["read_hit_4k", "write_flush_rand", "mixed_zipf", "all"] {
        assert!(
            listing
                .lines()
                .any(|line| line.starts_with(name) && line.len() > name.len() + 20),
            "{listing}"
        );
    }
}

#[test]
fn a_large_read_over_many_fetches_waits_for_them() {
    for case in &measured(&[
        "read_over_fetches",
        "--working-set",
        "4MiB",
        "--store-delay",
        "5ms",
    ]) {
        assert_eq!(case["hit_ratio"], 0.0, "{case}");
        assert!(number(case, "/ns_per_op/min") > 1e6, "{case}");
    }
}

#[test]
fn figures_are_drawn_and_compared_again_without_measuring() {
    let place = Place::new();
    let case = ["read_hit_4k", "--threads", "1", "--working-set", "4MiB"];
    let figures = place.file("figures", ok(&[&SMALL[..], &case].concat()).as_bytes());
    let chart = place.path("chart.svg");
    let goals = ok(&[
        "bench",
        "--from",
        text(&figures),
        "--chart",
        text(&chart),
        "--goals",
    ]);
    let row = goals
        .lines()
        .find(|line| line.starts_with("| read hit, 4 MiB |"));
    assert!(row.is_some_and(|row| row.contains(" to ")), "{goals}");
    let svg = std::fs::read_to_string(&chart).expect("a chart");
    assert!(
        svg.contains("read hit, 4 MiB") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    let said = fails(&["bench", "--from", text(&chart)], 2);
    assert!(said.contains("holds no figures"), "{said}");
}

#[test]
fn people_get_a_table_of_cases() {
    let arguments: Vec<&str> = SMALL.into_iter().filter(|word| *word != "--json").collect();
    let text = ok(&[&arguments[..], &["tiny_writes", "--threads", "1"]].concat());
    for word in ["tiny_writes", "p99.9", "flush ms", "Medians"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let said = fails(&["bench", "--case", "read_hit_5k"], 2);
    assert!(said.contains("no case `read_hit_5k`"), "{said}");
    fails(&["bench", "--case", "read_hit_4k", "--seconds", "0"], 2);
    fails(
        &["bench", "--case", "read_hit_4k", "--working-set", "1KiB"],
        2,
    );
    let said = fails(&["bench", "--threads", "1,2"], 2);
    assert!(said.contains("only with --case"), "{said}");
}

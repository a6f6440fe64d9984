//! What the process holds at most, however badly the cache is filled, and what steps over many things do.

use crate::common::{fails, json, ok};
use serde_json::Value;

/// As small as tells something.
const LIMIT: &str = "64MiB";

fn number(value: &Value, path: &str) -> f64 {
    let number = value.pointer(path).and_then(Value::as_f64);
    number.unwrap_or_else(|| unreachable!("no number at {path} of {value}"))
}

/// Of the 16 MiB beside the cache that the bound allows for, half must do where the pages of the program are not counted,
/// which in a build for tests are more than that alone.
const PROGRAM_SHARE_BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// Runs fillings, and demands that each kept to its bound.
fn fill(fillings: &str, total: &str) -> Vec<Value> {
    let report = json(&[
        "bench", "--json", "--memory", fillings, "--cache", LIMIT, "--total", total,
    ]);
    let cases = report.pointer("/cases").and_then(Value::as_array);
    let cases = cases.expect("a list of cases").clone();
    assert_eq!(cases.len(), fillings.split(',').count());
    for case in &cases {
        let [peak, program, bound] =
            ["/peak_bytes", "/program_bytes", "/bound_bytes"].map(|path| number(case, path));
        assert!(peak - program <= bound - PROGRAM_SHARE_BYTES, "{case}");
        let [charged, limit] = ["/charged_bytes", "/cache_bytes"].map(|path| number(case, path));
        assert!(charged <= limit, "{case}");
    }
    cases
}

/// H-28, H-29: nothing is charged less than it takes by more than the bound allows.
#[test]
fn the_process_keeps_to_the_limit_however_the_cache_is_filled() {
    fill(
        "slices,overwrite,writes_512,dirty_limit,two_threads,misses,writes_4k_over_512",
        "96MiB",
    );
    fill("writes_1", "2MiB");
}

/// H-28
#[test]
fn objects_of_one_tiny_buffer_take_what_is_charged_for_them() {
    fill("tiny_objects,tiny_objects_written", "1MiB");
}

/// H-28
#[test]
fn a_buffer_of_4_kib_is_charged_160_bytes_of_overhead() {
    for case in fill("buffers,dirty_buffers", "1MiB") {
        let overhead = number(&case, "/overhead/charged_bytes");
        assert!((150.0..=160.5).contains(&overhead), "{case}");
        assert!(number(&case, "/overhead/buffers") > 1e4, "{case}");
    }
}

/// F-01, F-02, T-01: what reaches the store grows with what there is, and no faster.
#[test]
fn steps_over_four_times_as_much_do_four_times_as_much() {
    let steps = "flush_few_of_sets,trim_objects,read_over_fetches,waiting_reads,waiting_flushes,\
                 waiting_writes,given_up_writes,writes_through,flush_extents,discard_extents,\
                 discard_each,flush_sets";
    let report = json(&["bench", "--json", "--scale", steps, "--factors", "1,4"]);
    let report = report.pointer("/steps").and_then(Value::as_array);
    let operations = |step: &str| {
        let of_step = report.into_iter().flatten();
        let of_step = of_step.filter(|report| report["step"] == step);
        let operations: Vec<f64> = of_step
            .map(|report| number(report, "/store_operations"))
            .collect();
        <[f64; 2]>::try_from(operations).expect("two factors")
    };
    for step in steps.split(',') {
        let [once, four_times] = operations(step);
        assert!(
            four_times <= 4.0 * once + 8.0,
            "{step}: {once} {four_times}"
        );
    }
    assert_eq!(operations("waiting_flushes"), [1.0, 1.0]);
    assert_eq!(operations("waiting_reads"), [1.0, 1.0]);
    assert_eq!(operations("flush_extents"), [1024.0, 4096.0]);
    assert_eq!(operations("writes_through"), [256.0, 1024.0]);
}

#[test]
fn people_get_tables_of_memory_and_steps() {
    let table = ok(&["bench", "--memory", "buffers", "--cache", "64MiB"]);
    assert!(
        table.contains("buffers") && table.contains("yes"),
        "{table}"
    );
    let table = ok(&["bench", "--scale", "waiting_reads", "--factors", "1"]);
    assert!(table.contains("waiting_reads"), "{table}");
    fails(&["bench", "--scale", "all", "--factors", "0"], 2);
    fails(&["bench", "--memory", "everything"], 2);
}

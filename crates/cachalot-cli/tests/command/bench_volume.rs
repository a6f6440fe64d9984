//! A volume that is there, measured through the built command.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{Place, command, fails, json, noise, ok, text};
use crate::serve::Server;

const SIZE: usize = 1 << 20;
const BLOCK: usize = 4096;
/// What a benchmark writes.
const WRITTEN: u8 = 0x5A;

/// A store with a volume in it, and what that holds.
struct Disk {
    place: Place,
    store: String,
    content: Vec<u8>,
}

impl Disk {
    fn new() -> Self {
        let place = Place::new();
        let (store, content) = (place.store(), noise(SIZE, 11));
        let file = place.file("content", &content);
        ok(&["import", "--quiet", text(&file), &store, "disk"]);
        Self {
            place,
            store,
            content,
        }
    }

    fn words<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["bench", "--store", &self.store, "--volume", "disk"];
        [&words[..], more].concat()
    }

    /// The figures of the one side that there is.
    #[track_caller]
    fn measured(&self, more: &[&str]) -> Value {
        let report = json(&self.words(&[&["--json"], more].concat()));
        let of = |name| report.get(name).cloned().expect("a field");
        assert_eq!(of("volume"), "disk");
        assert!(of("direct").is_null());
        of("cache")
    }

    /// What the volume holds now.
    fn now(&self) -> Vec<u8> {
        let file = self.place.path("now");
        ok(&[
            "export",
            "--quiet",
            &self.store,
            "disk",
            text(&file),
            "--overwrite",
        ]);
        std::fs::read(file).expect("the volume's bytes")
    }
}

#[test]
fn reads_of_a_volume_are_measured_and_leave_it_as_it_is() {
    let disk = Disk::new();
    let before = ok(&["ls", &disk.store]);
    let cache = disk.measured(&[
        "--read-share",
        "1",
        "--duration",
        "200ms",
        "--warm-up",
        "50ms",
    ]);
    assert!(cache["reads"]["operations"].as_u64() > Some(100), "{cache}");
    assert!(cache["reads"]["p99_ns"].as_u64() > Some(0), "{cache}");
    assert_eq!(cache["operations"], cache["reads"]["operations"]);
    assert_eq!(cache["store"]["writes"], 0);
    assert!(disk.now() == disk.content);
    assert_eq!(ok(&["ls", &disk.store]), before);
}

#[test]
fn so_many_writes_in_order_are_on_the_first_blocks_and_stored() {
    const OPERATIONS: usize = 64;
    let disk = Disk::new();
    let in_order = [
        "--read-share",
        "0",
        "--pattern",
        "sequential",
        "--operations",
        "64",
        "--threads",
        "4",
    ];
    let cache = disk.measured(&in_order);
    assert_eq!(cache["operations"], OPERATIONS);
    assert_eq!(cache["writes"]["operations"], OPERATIONS);
    assert_eq!(cache["store"]["operations_asked"], OPERATIONS);
    assert_eq!(cache["store"]["write_bytes"], OPERATIONS * BLOCK);
    let mut expected = disk.content.clone();
    expected[..OPERATIONS * BLOCK].fill(WRITTEN);
    assert!(disk.now() == expected);
    // Nothing holds the volume any more.
    disk.measured(&in_order);
}

#[test]
fn what_was_read_before_is_held_where_that_is_asked() {
    let disk = Disk::new();
    let each_block_once = [
        "--read-share",
        "1",
        "--pattern",
        "sequential",
        "--operations",
        "256",
        "--in-flight",
        "2",
    ];
    let cold = disk.measured(&each_block_once);
    assert!(cold["hit_ratio"].as_f64() < Some(0.5), "{cold}");
    assert_eq!(cold["store"]["read_bytes"], SIZE);
    let warm = disk.measured(&[&each_block_once[..], &["--warm"]].concat());
    assert_eq!(warm["hit_ratio"], 1.0, "{warm}");
    assert_eq!(warm["store"]["reads"], 0);
    assert_eq!(warm["operations"], 256);
    // The same without a volume.
    let own = ["bench", "--store", "memory:", "--mode", "cache", "--json"];
    let size = ["--working-set", "1MiB", "--sets", "1", "--warm"];
    let own = json(&[&own[..], &size, &each_block_once].concat());
    assert_eq!(own["cache"]["hit_ratio"], 1.0, "{own}");
}

#[test]
fn what_a_volume_can_not_be_asked_is_refused_with_advice() {
    let disk = Disk::new();
    for (code, more, advice) in [
        (2, &["--mode", "both"][..], "leave --mode out"),
        (2, &["--sets", "2"], "leave --sets out"),
        (2, &["--working-set", "2MiB"], "leave it out"),
        (
            2,
            &["--volume", "other", "--mode", "direct"],
            "cannot be used",
        ),
    ] {
        let refused = fails(&disk.words(more), code);
        assert!(refused.contains(advice), "{refused}");
    }
    let absent = ["bench", "--store", &disk.store, "--volume", "other"];
    assert!(fails(&absent, 4).contains("no volume other"));
    assert!(disk.now() == disk.content);
}

#[test]
fn a_volume_that_is_served_is_not_measured() {
    let disk = Disk::new();
    let listen = format!("unix:{}", disk.place.path("socket").display());
    let server = Server::start(&[&disk.store, "disk", "--listen", &listen]);
    let refused = fails(&disk.words(&["--operations", "1"]), 3);
    assert!(refused.contains("in use"), "{refused}");
    drop(server);
    disk.measured(&["--operations", "1"]);
}

#[test]
fn what_an_interrupted_benchmark_wrote_is_stored() {
    let disk = Disk::new();
    let more = [
        "--read-share",
        "0",
        "--duration",
        "1h",
        "--dirty-age",
        "1h",
        "--stats",
    ];
    let mut child = command(&disk.words(&more))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // The first figures come after a second of writes.
    let mut said = BufReader::new(child.stderr.take().expect("its standard error"));
    let mut line = String::new();
    said.read_line(&mut line).expect("figures");
    assert!(line.contains("operations/s"), "{line}");
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    let now = disk.now();
    let written = now
        .chunks(BLOCK)
        .filter(|block| block.iter().all(|byte| *byte == WRITTEN));
    assert!(written.count() > 1);
}

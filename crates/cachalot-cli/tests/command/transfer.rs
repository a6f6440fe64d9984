//! Import and export through the built command: every byte, holes, pipes, limits, and a kill in the middle.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;

use crate::common::{Place, command, fails, json, noise, ok, run_fed, text};

#[test]
fn files_of_odd_sizes_come_back_as_they_were() {
    let place = Place::new();
    let store = place.store();
    let layouts: [&[&str]; 3] = [
        &[],
        &["--object-size", "64KiB"],
        &[
            "--object-size",
            "128KiB",
            "--stripe-unit",
            "4KiB",
            "--stripe-count",
            "5",
        ],
    ];
    for (number, size) in [0, 1, 4095, 4096, 65_537, 262_144, 1_048_577, 3_333_333]
        .into_iter()
        .enumerate()
    {
        let content = noise(size, size as u64);
        let file = place.file("in", &content);
        let layout = layouts[number % layouts.len()];
        let (name, out) = (format!("v{size}"), place.path(&format!("out{size}")));
        let import = ["import", text(&file), &store, &name, "--quiet"];
        ok(&[&import[..], layout, &["--cache", "1MiB"]].concat());
        let info = json(&["volume", "info", &store, &name, "--json"]);
        assert_eq!(info["size_bytes"], size, "{name}");
        assert_eq!(info["state"], "complete", "{name}");
        ok(&["export", &store, &name, text(&out), "--cache", "1MiB", "-q"]);
        assert!(
            std::fs::read(&out).expect("the export") == content,
            "{name}"
        );
    }
}

#[test]
fn holes_stay_holes_both_ways() {
    const SIZE: u64 = 64 << 20;
    let place = Place::new();
    let (store, path) = (place.store(), place.path("sparse"));
    let file = File::create(&path).expect("a file");
    file.set_len(SIZE).expect("a size");
    for at in [0, 10 << 20, (33 << 20) + 777, SIZE - 5000] {
        file.write_all_at(&noise(5000, at), at).expect("some data");
    }
    ok(&[
        "import",
        text(&path),
        &store,
        "v",
        "-q",
        "--object-size",
        "1MiB",
    ]);
    let info = json(&["volume", "info", &store, "v", "--json"]);
    assert_eq!(info["size_bytes"], SIZE);
    let objects = info["objects"].as_u64().expect("a number");
    assert!(objects <= 6, "only objects with data are made: {objects}");
    let out = place.path("out");
    ok(&["export", &store, "v", text(&out), "-q"]);
    assert!(std::fs::read(&out).expect("out") == std::fs::read(&path).expect("in"));
    let used = std::fs::metadata(&out).expect("metadata").blocks() * 512;
    assert!(used <= 1 << 20, "{used} bytes on disk");
}

#[test]
fn zeros_that_are_written_out_take_no_room_in_the_store() {
    let place = Place::new();
    let store = place.store();
    let mut content = vec![0_u8; 4 << 20];
    content[3_000_000..3_000_100].copy_from_slice(&noise(100, 4));
    let file = place.file("in", &content);
    ok(&[
        "import",
        text(&file),
        &store,
        "v",
        "-q",
        "--object-size",
        "256KiB",
    ]);
    assert_eq!(
        json(&["volume", "info", &store, "v", "--json"])["objects"],
        1
    );
    let out = place.path("out");
    ok(&["export", &store, "v", text(&out), "-q"]);
    assert!(std::fs::read(&out).expect("out") == content);
}

#[test]
fn pipes_work_at_both_ends() {
    let place = Place::new();
    let store = place.store();
    let content = noise(2_000_003, 6);
    let output = run_fed(&["import", "-", &store, "v"], &content);
    assert!(output.status.success(), "{output:?}");
    let info = json(&["volume", "info", &store, "v", "--json"]);
    assert_eq!(info["size_bytes"], content.len());
    let exported = command(&["export", &store, "v", "-", "-q"])
        .output()
        .expect("the command runs");
    assert!(exported.status.success() && exported.stdout == content);

    let larger = ["import", "-", &store, "larger", "--size", "4MiB", "-q"];
    assert!(run_fed(&larger, &content).status.success());
    let exported = command(&["export", &store, "larger", "-"])
        .output()
        .expect("the command runs");
    assert_eq!(exported.stdout.len(), 4 << 20);
    assert!(exported.stdout.starts_with(&content));

    let smaller = ["import", "-", &store, "smaller", "--size", "1MiB", "-q"];
    let refused = run_fed(&smaller, &content);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let info = json(&["volume", "info", &store, "smaller", "--json"]);
    assert_eq!(info["state"], "importing");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let place = Place::new();
    let store = place.store();
    let (first, second) = (noise(1 << 20, 1), noise(100_000, 2));
    let file = place.file("in", &first);
    ok(&["import", text(&file), &store, "v", "-q"]);
    let other = place.file("other", &second);
    fails(&["import", text(&other), &store, "v"], 4);
    fails(&["export", &store, "v", text(&other)], 2);
    assert!(std::fs::read(&other).expect("other") == second);
    ok(&[
        "import",
        text(&other),
        &store,
        "v",
        "-q",
        "--overwrite",
        "--size",
        "1MiB",
    ]);
    ok(&["export", &store, "v", text(&file), "-q", "--overwrite"]);
    let back = std::fs::read(&file).expect("the export");
    assert!(back[..100_000] == second && back[100_000..].iter().all(|byte| *byte == 0));
    fails(&["import", text(&place.path("absent")), &store, "w"], 1);
    fails(&["volume", "info", &store, "w"], 4);
    fails(
        &["export", &store, "v", text(&place.path("no/such/dir"))],
        1,
    );
    let left = std::fs::read_dir(place.path(""))
        .expect("the directory")
        .count();
    assert_eq!(left, 3, "store, in and other, no hidden file");
}

#[test]
fn a_configuration_file_counts_and_a_bad_one_is_named() {
    let place = Place::new();
    let store = place.store();
    let content = noise(300_000, 3);
    let file = place.file("in", &content);
    let good = place.file(
        "good.toml",
        b"max_bytes = \"2MiB\"\nmax_dirty_bytes = \"1MiB\"\ntarget_dirty_bytes = \"512KiB\"\nmax_dirty_age = \"100ms\"\n",
    );
    ok(&[
        "import",
        text(&file),
        &store,
        "v",
        "-q",
        "--config",
        text(&good),
    ]);
    let bad = place.file("bad.toml", b"max_byte = 1\n");
    let said = fails(
        &["import", text(&file), &store, "w", "--config", text(&bad)],
        2,
    );
    assert!(said.contains("max_byte"), "{said}");
    let small = ["--config", text(&good), "--target-dirty", "2MiB"];
    let said = fails(&[&["export", &store, "v", "-"][..], &small].concat(), 2);
    assert!(said.contains("target_dirty_bytes"), "{said}");
}

/// An import that is killed leaves a volume that says so, that is refused, removed, and imported again.
#[test]
fn a_killed_import_leaves_an_incomplete_volume_and_a_sound_store() {
    let place = Place::new();
    let store = place.store();
    let content = noise(6 << 20, 11);
    let before = place.file("before", &content);
    ok(&["import", text(&before), &store, "before", "-q"]);

    let import = ["import", "-", &store, "v", "--object-size", "256KiB"];
    let mut child =
        command(&[&import[..], &["--cache", "1MiB", "--in-flight", "2", "-q"]].concat())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its standard input");
    // Pipe, queue and cache hold half of this: when all of it is taken, some of it is in the store.
    stdin.write_all(&content).expect("it reads");
    child.kill().expect("a kill");
    child.wait().expect("its end");
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("its standard error");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(said, "");

    let info = json(&["volume", "info", &store, "v", "--json"]);
    assert_eq!(info["state"], "importing");
    assert!(info["objects"].as_u64() > Some(0), "{info}");
    assert!(ok(&["volume", "info", &store, "v"]).contains("incomplete"));
    let said = fails(&["export", &store, "v", "-"], 4);
    assert!(said.contains("incomplete"), "{said}");
    fails(&["volume", "resize", &store, "v", "--size", "1GiB"], 4);
    let said = fails(&["import", text(&before), &store, "v"], 4);
    assert!(said.contains("--overwrite"), "{said}");

    ok(&["import", text(&before), &store, "v", "--overwrite", "-q"]);
    ok(&["volume", "remove", &store, "v"]);
    ok(&["import", text(&before), &store, "v", "-q"]);
    for name in ["v", "before"] {
        let exported = command(&["export", &store, name, "-"])
            .output()
            .expect("the command runs");
        assert!(exported.stdout == content, "{name}");
    }
}

#[test]
fn an_output_that_fails_fails_the_export() {
    let place = Place::new();
    let store = place.store();
    let file = place.file("in", &noise(1 << 20, 5));
    ok(&["import", text(&file), &store, "v", "-q"]);
    let said = fails(&["export", &store, "v", "/dev/full"], 1);
    assert!(said.contains("/dev/full"), "{said}");
    let script = format!(
        "{} export {store} v - | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_cachalot")
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("cachalot: cannot write to the standard output"),
        "{said}"
    );
    ok(&["export", &store, "v", "/dev/null", "-q"]);
}

#[test]
fn a_store_in_use_is_left_alone() {
    let place = Place::new();
    let store = place.store();
    let mut child = command(&["import", "-", &store, "v", "-q"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its standard input");
    // When a pipe's worth and more has been taken, the store is open.
    stdin.write_all(&noise(1 << 20, 8)).expect("it reads");
    let said = fails(&["volume", "remove", &store, "v"], 3);
    assert!(said.contains("in use"), "{said}");
    drop(stdin);
    assert!(child.wait().expect("its end").success());
    ok(&["volume", "remove", &store, "v"]);
}

/// A limit on the size of files stands in for a store without room.
#[test]
fn a_full_store_ends_the_import_and_can_be_cleared() {
    let place = Place::new();
    let store = place.store();
    let file = place.file("in", &noise(6 << 20, 12));
    let script = format!(
        "trap '' XFSZ; ulimit -f 2048; exec {} import {} {store} v -q --cache 2MiB",
        env!("CARGO_BIN_EXE_cachalot"),
        text(&file)
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the store is full: make room"), "{said}");
    let info = json(&["volume", "info", &store, "v", "--json"]);
    assert_eq!(info["state"], "importing");
    ok(&["import", text(&file), &store, "v", "-q", "--overwrite"]);
    ok(&["volume", "remove", &store, "v"]);
    assert_eq!(ok(&["ls", &store]), "");
}

/// What a transfer holds in memory, beside the pages of the program, follows the cache's limit, not the size of the file.
#[cfg(target_os = "linux")]
#[test]
fn an_import_stays_within_its_memory() {
    const CACHE_MIB: u64 = 8;
    let place = Place::new();
    let store = place.store();
    let cache = format!("{CACHE_MIB}MiB");
    let mut child = command(&["import", "-", &store, "v", "-q", "--cache", &cache])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("its standard input");
    let part = noise(8 << 20, 13);
    for _ in 0..8 {
        stdin.write_all(&part).expect("it reads");
    }
    // It waits for more, so its figures can be looked at.
    let path = format!("/proc/{}/status", child.id());
    let status = std::fs::read_to_string(path).expect("its status");
    let kibibytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let number = number.and_then(|number| number.parse::<u64>().ok());
        number.expect("a number of KiB")
    };
    let peak = kibibytes("VmHWM:") - kibibytes("RssFile:");
    drop(stdin);
    assert!(child.wait().expect("its end").success());
    assert!(peak < (CACHE_MIB + 16) << 10, "{peak} KiB");
}

//! Volumes through the built command: making, listing, describing, resizing, removing, and what goes wrong.

use crate::common::{Place, command, fails, json, noise, ok, text};

#[test]
fn a_volume_lives_from_create_to_remove() {
    let place = Place::new();
    let store = place.store();
    ok(&["volume", "create", &store, "disk", "--size", "10GiB"]);
    let striped = [
        "--object-size",
        "1MiB",
        "--stripe-unit",
        "64KiB",
        "--stripe-count",
        "3",
    ];
    let mut create = vec!["volume", "create", &store, "a.striped", "--size", "1000001"];
    create.extend(striped);
    ok(&create);

    let list = json(&["volume", "list", &store, "--json"]);
    assert_eq!(list[0]["name"], "a.striped");
    assert_eq!(list[0]["layout"]["stripe_count"], 3);
    assert_eq!(list[1]["name"], "disk");
    assert_eq!(list[1]["state"], "complete");
    let table = ok(&["volume", "list", &store]);
    assert!(
        table.contains("disk") && table.contains("10.0 GiB"),
        "{table}"
    );

    let info = json(&["volume", "info", &store, "disk", "--json"]);
    assert_eq!(info["size_bytes"], 10_u64 << 30);
    assert_eq!(info["objects"], 0);
    assert_eq!(info["layout"]["object_size"], 4 << 20);
    assert!(ok(&["volume", "info", &store, "disk"]).contains("complete"));

    ok(&["volume", "remove", &store, "disk"]);
    fails(&["volume", "info", &store, "disk"], 4);
    ok(&["volume", "remove", &store, "a.striped"]);
    assert_eq!(ok(&["ls", &store]), "", "nothing is left in the store");
}

#[test]
fn a_shrunk_volume_loses_its_end_for_good() {
    let place = Place::new();
    let store = place.store();
    let content = noise(3 << 20, 1);
    let file = place.file("in", &content);
    let import = ["import", text(&file), &store, "v", "--object-size", "1MiB"];
    let stripes = ["--stripe-unit", "64KiB", "--stripe-count", "2", "--quiet"];
    ok(&[&import[..], &stripes].concat());

    let said = fails(&["volume", "resize", &store, "v", "--size", "1MiB"], 2);
    assert!(said.contains("--shrink"), "{said}");
    ok(&[
        "volume", "resize", &store, "v", "--size", "1000001", "--shrink",
    ]);
    ok(&["volume", "resize", &store, "v", "--size", "3MiB"]);

    let out = place.path("out");
    ok(&["export", &store, "v", text(&out), "-q"]);
    let back = std::fs::read(&out).expect("the exported file");
    assert_eq!(back.len(), content.len());
    assert!(back[..1_000_001] == content[..1_000_001]);
    assert!(back[1_000_001..].iter().all(|byte| *byte == 0));
}

#[test]
fn mistakes_are_named_in_one_line_and_have_their_exit_codes() {
    let place = Place::new();
    let store = place.store();
    let said = fails(&["volume", "list", &store], 3);
    assert!(said.contains("there is no directory"), "{said}");
    fails(&["export", &store, "v", "-"], 3);
    fails(&["ls", &store], 3);

    ok(&["volume", "create", &store, "v", "--size", "1MiB"]);
    let said = fails(&["volume", "create", &store, "v", "--size", "1MiB"], 4);
    assert!(said.contains("exists already"), "{said}");
    fails(&["volume", "remove", &store, "absent"], 4);
    fails(&["volume", "resize", &store, "absent", "--size", "1"], 4);

    for (arguments, hint) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["volume", "create", &store, "w"], "--size"),
        (
            &["volume", "create", &store, "w", "--size", "12 parsecs"],
            "no size",
        ),
        (
            &["volume", "create", &store, "w", "--size", "99999PiB"],
            "size",
        ),
        (
            &["volume", "create", &store, "../w", "--size", "1"],
            "no volume name",
        ),
        (&["volume", "list", "/srv/store"], "`file:/srv/store`"),
        (&["volume", "list", "gopher:x"], "no kind of store"),
        (&["bench", "--read-share", "1.5"], "share"),
        (
            &["bench", "--cache", "1MiB", "--dirty", "2MiB"],
            "max_dirty_bytes",
        ),
        (
            &["bench", "--block-size", "1MiB", "--working-set", "1KiB"],
            "--working-set",
        ),
    ] {
        let said = fails(arguments, 2);
        assert!(said.contains(hint), "{said}");
    }
    let bad_layout = ["--object-size", "1MiB", "--stripe-unit", "3KiB"];
    let create = ["volume", "create", &store, "w", "--size", "1MiB"];
    let said = fails(&[&create[..], &bad_layout].concat(), 2);
    assert!(said.contains("multiple"), "{said}");
    fails(&["volume", "info", &store, "w"], 4);
}

#[test]
fn a_store_that_is_a_file_is_refused() {
    let place = Place::new();
    place.file("store", b"not a directory");
    let said = fails(&["volume", "list", &place.store()], 3);
    assert!(said.contains("not a directory"), "{said}");
}

#[test]
fn a_damaged_header_is_told_apart_from_a_missing_one() {
    let place = Place::new();
    let store = place.store();
    let content = noise(100_000, 9);
    let file = place.file("in", &content);
    ok(&["import", text(&file), &store, "v", "-q"]);
    // Whatever the store's own format, spoiling every file of it spoils the header.
    spoil(&place.path("store"));
    let output = command(&["volume", "info", &store, "v"])
        .output()
        .expect("the command runs");
    let code = output.status.code();
    assert!(matches!(code, Some(3..=5)), "{output:?}");
    assert!(output.stderr.starts_with(b"cachalot: "), "{output:?}");
}

fn spoil(directory: &std::path::Path) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            spoil(&path);
        } else {
            let mut content = std::fs::read(&path).expect("a file");
            content.iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(&path, content).expect("a spoilt file");
        }
    }
}

#[test]
fn help_names_examples_stores_and_exit_codes_and_a_closed_pipe_is_no_panic() {
    let help = ok(&["--help"]);
    for word in ["Examples:", "file:DIR", "Exit codes:", "bench"] {
        assert!(help.contains(word), "{help}");
    }
    // Of the stores, those that were built in.
    for (word, is_built_in) in [
        ("s3://BUCKET/PREFIX", cfg!(feature = "object-store")),
        ("gs://BUCKET/PREFIX", cfg!(feature = "object-store")),
        ("az://CONTAINER/PREFIX", cfg!(feature = "object-store")),
        ("rados://POOL/NAMESPACE", cfg!(feature = "rados")),
    ] {
        let line = help.lines().find(|line| line.trim().starts_with(word));
        assert_eq!(line.is_some(), is_built_in, "{word}: {help}");
    }
    let place = Place::new();
    let store = place.store();
    for number in 0..50 {
        let name = format!("v{number}");
        ok(&["volume", "create", &store, &name, "--size", "1"]);
    }
    let script = format!(
        "{} volume list {store} --json | true; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_cachalot")
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

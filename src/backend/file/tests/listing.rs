//! Listings over several scans and during changes.

use super::*;

fn fill(backend: &FileBackend, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("n{number:03}")).collect();
    for name in &names {
        write(backend, name, 0, b"x").unwrap();
    }
    names
}

fn store_that_keeps(listing_bytes_max: usize) -> (TempDir, FileBackend) {
    let parts = Parts {
        listing_bytes_max,
        ..Parts::default()
    };
    store_with(&FileStoreOptions::default(), parts)
}

fn all_pages(backend: &FileBackend, names_max: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let (names, more) = list(backend, "n", all.last().map(String::as_str), names_max).unwrap();
        all.extend(names);
        if !more {
            return all;
        }
    }
}

#[test]
fn pages_join_whatever_fits_into_memory() {
    for listing_bytes_max in [0, 300, 1000, 1 << 20] {
        let (_directory, backend) = store_that_keeps(listing_bytes_max);
        write(&backend, "other", 0, b"x").unwrap();
        let names = fill(&backend, 60);
        for names_max in [1, 7, 59, 60, 61] {
            assert_eq!(
                all_pages(&backend, names_max),
                names,
                "{names_max} of {listing_bytes_max}"
            );
        }
    }
}

#[test]
fn later_pages_need_no_second_scan_and_follow_changes() {
    let (directory, backend) = store_that_keeps(1 << 20);
    fill(&backend, 20);
    assert_eq!(list(&backend, "n", None, 2).unwrap().0, ["n000", "n001"]);
    block_on(backend.remove(name("n002"))).unwrap();
    write(&backend, "n0035", 0, b"x").unwrap();
    write(&backend, "m", 0, b"x").unwrap();
    // A scan would trip over this.
    fs::write(file_of(directory.path(), "n019"), "junk").unwrap();
    assert_eq!(
        list(&backend, "n", Some("n001"), 3).unwrap(),
        (vec!["n003".into(), "n0035".into(), "n004".into()], true)
    );
    assert!(is_corrupt(&list(&backend, "", None, 3)));
}

#[test]
fn names_that_come_and_go_beyond_what_is_kept_are_found() {
    let (_directory, backend) = store_that_keeps(300);
    let mut names = fill(&backend, 30);
    let (first, more) = list(&backend, "n", None, 2).unwrap();
    assert!(more);
    write(&backend, "n999", 0, b"x").unwrap();
    block_on(backend.remove(name("n029"))).unwrap();
    for gone in names.drain(2..6) {
        block_on(backend.remove(name(&gone))).unwrap();
    }
    names.pop();
    names.push("n999".into());
    let (rest, more) = list(&backend, "n", Some("n001"), 100).unwrap();
    assert!(!more);
    assert_eq!([first, rest].concat(), names);
}

#[test]
fn listing_while_names_come_and_go_gives_those_that_stay() {
    let (_directory, backend) = store_that_keeps(2000);
    let names = fill(&backend, 40);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            for round in 0..200 {
                let passing = format!("n{:03}x", round % 40);
                write(&backend, &passing, 0, b"x").unwrap();
                block_on(backend.remove(name(&passing))).unwrap();
            }
        });
        while !changing.is_finished() {
            let stayed: Vec<String> = all_pages(&backend, 11)
                .into_iter()
                .filter(|name| !name.ends_with('x'))
                .collect();
            assert_eq!(stayed, names);
        }
    });
    assert_eq!(all_pages(&backend, 11), names);
}

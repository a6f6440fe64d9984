//! Names of every kind, and their listing.

use super::{Bench, Broken, Outcome, ensure, pattern};
use crate::backend::ListPage;
use crate::types::ObjectName;

/// Names that a store may take for something else: paths, escapes, wildcards, other alphabets.
const ODD: &[&str] = &[
    ".",
    "..",
    "...",
    "../up",
    "a/../b",
    "/",
    "//",
    "/absolute",
    "trailing/",
    ".hidden",
    "trailing.",
    "trailing ",
    " leading",
    "%",
    "%2e%2e",
    "%2E%2E",
    "%2F",
    "%00",
    "100%",
    "a+b c&d=e?f#g",
    "*?[x]",
    "back\\slash",
    "C:colon",
    "CON",
    "~",
    "-rf",
    "new\nline",
    "tab\tbell\u{7}",
    "quote\"'`$(x)",
    "case",
    "Case",
    "CASE",
    "ß",
    "ẞ",
    "SS",
    "caf\u{e9}",
    "cafe\u{301}",
    "żółw 🐋",
    "\u{ffff}",
    "\u{10000}",
    "\u{202e}",
    "x.tmp",
    "lost+found",
];

async fn expect_apart(bench: &Bench, objects: &[ObjectName]) -> Outcome {
    for (seed, object) in (1..).zip(objects) {
        bench.expect_absent(object).await?;
        bench.store(object, 0, &pattern(seed, 100)).await?;
    }
    for (seed, object) in (1..).zip(objects) {
        bench.expect(object, 0, &pattern(seed, 100)).await?;
        bench.expect_size(object, 100).await?;
    }
    let listed = list_all(bench, "", 1000).await?;
    for object in objects {
        ensure!(listed.contains(object), "{object:?} is not listed");
    }
    let mut left = objects;
    while let Some((object, rest)) = left.split_first() {
        bench.remove(object).await?;
        bench.expect_absent(object).await?;
        for other in rest {
            bench.expect_size(other, 100).await?;
        }
        left = rest;
    }
    Ok(())
}

pub(super) async fn odd_names_are_kept_apart(bench: &Bench) -> Outcome {
    let mut objects = Vec::new();
    for name in ODD {
        objects.push(bench.object_named(name).await?);
    }
    expect_apart(bench, &objects).await
}

pub(super) async fn names_that_nest_are_kept_apart(bench: &Bench) -> Outcome {
    let mut objects = Vec::new();
    for label in [
        "a", "a/", "a/b", "a/b/c", "a//b", "a/.", "a/..", "ab", "a.b",
    ] {
        objects.push(bench.object(label).await?);
    }
    expect_apart(bench, &objects).await
}

pub(super) async fn the_longest_names_are_kept_apart(bench: &Bench) -> Outcome {
    let longest = ObjectName::LEN_MAX;
    let mut objects = Vec::new();
    for name in [
        "x".repeat(longest),
        format!("{}y", "x".repeat(longest - 1)),
        format!("y{}", "x".repeat(longest - 1)),
        "x".repeat(longest - 1),
        "x".repeat(255),
        "x".repeat(256),
        "/".repeat(longest),
        "%".repeat(longest),
        "🐋".repeat(longest / 4),
        "é".repeat(longest / 2),
        format!("{}X", "x".repeat(longest - 1)),
    ] {
        objects.push(bench.object_named(&name).await?);
    }
    expect_apart(bench, &objects).await
}

async fn page(
    bench: &Bench,
    prefix: &str,
    after: Option<&ObjectName>,
    names_max: usize,
) -> Result<ListPage, Broken> {
    let page = bench
        .backend
        .list(prefix.to_owned(), after.cloned(), names_max);
    let what = |error| Broken(format!("list of {prefix:?} after {after:?}: {error}"));
    let page = page.await.map_err(what)?;
    ensure!(
        page.names.len() <= names_max,
        "list of {prefix:?} gave {} names, asked for {names_max}",
        page.names.len()
    );
    for name in &page.names {
        ensure!(
            name.as_str().starts_with(prefix) && after.is_none_or(|after| after < name),
            "list of {prefix:?} after {after:?} gave {name:?}"
        );
    }
    ensure!(
        page.names.is_sorted_by(|one, next| one < next),
        "list of {prefix:?} is out of order: {:?}",
        page.names
    );
    Ok(page)
}

async fn list_all(
    bench: &Bench,
    prefix: &str,
    names_max: usize,
) -> Result<Vec<ObjectName>, Broken> {
    let mut names: Vec<ObjectName> = Vec::new();
    loop {
        let page = page(bench, prefix, names.last(), names_max).await?;
        ensure!(
            !(page.more && page.names.is_empty()),
            "list of {prefix:?} promises more and gives nothing"
        );
        names.extend(page.names);
        if !page.more {
            return Ok(names);
        }
    }
}

async fn fill(bench: &Bench, labels: &[&str]) -> Result<Vec<ObjectName>, Broken> {
    let mut objects = Vec::new();
    for label in labels {
        let object = bench.object(label).await?;
        bench.store(&object, 0, b"x").await?;
        objects.push(object);
    }
    objects.sort();
    Ok(objects)
}

pub(super) async fn list_goes_by_prefix(bench: &Bench) -> Outcome {
    let labels = ["ab", "abc", "abd", "ab/c", "ac", "Ab", "ab%", "a", "äb"];
    let objects = fill(bench, &labels).await?;
    for part in ["", "a", "ab", "abc", "abcd", "ab/", "ab%", "A", "ä", "b"] {
        let prefix = format!("{}{part}", bench.prefix());
        let starts = |name: &&ObjectName| name.as_str().starts_with(&prefix);
        let expected: Vec<_> = objects.iter().filter(starts).cloned().collect();
        let found = list_all(bench, &prefix, 100).await?;
        ensure!(
            found == expected,
            "list of {prefix:?} gave {found:?}, not {expected:?}"
        );
    }
    Ok(())
}

pub(super) async fn list_is_in_byte_order(bench: &Bench) -> Outcome {
    let labels = [
        "a",
        "a!",
        "a/",
        "a/b",
        "aA",
        "aa",
        "B",
        "b",
        "10",
        "9",
        "%",
        ".",
        "~",
        "é",
        "z",
        "\u{ffff}",
        "\u{10000}",
    ];
    let objects = fill(bench, &labels).await?;
    let found = list_all(bench, &bench.prefix(), 3).await?;
    ensure!(found == objects, "gave {found:?}, not {objects:?}");
    Ok(())
}

pub(super) async fn list_goes_page_by_page(bench: &Bench) -> Outcome {
    let labels: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let objects = fill(bench, &labels).await?;
    let prefix = bench.prefix();
    for names_max in [1, 5, 6, 11, 12, 13, usize::MAX] {
        let found = list_all(bench, &prefix, names_max).await?;
        ensure!(found == objects, "in pages of {names_max}: {found:?}");
    }
    let whole = page(bench, &prefix, None, 12).await?;
    ensure!(!whole.more, "more is promised after the last name");
    let part = page(bench, &prefix, None, 11).await?;
    ensure!(part.more, "no more is promised before the last name");
    let last = page(bench, &prefix, objects.last(), 5).await?;
    ensure!(last == ListPage::default(), "after the last name: {last:?}");
    for (after, count) in [("n05x", 6), ("m", 12), ("zzz", 0)] {
        let name = ObjectName::new(format!("{prefix}{after}"));
        let name = name.map_err(|error| Broken(error.to_string()))?;
        let found = page(bench, &prefix, Some(&name), 100).await?;
        ensure!(
            found.names.len() == count && !found.more,
            "after the absent {after:?}: {found:?}"
        );
    }
    Ok(())
}

pub(super) async fn list_follows_create_and_remove(bench: &Bench) -> Outcome {
    let objects = fill(bench, &["a", "b", "c"]).await?;
    let absent = bench.object("absent").await?;
    bench.truncate(&absent, 10).await?;
    bench.discard(&absent, 0, 10).await?;
    let Some((first, rest)) = objects.split_first() else {
        return Ok(());
    };
    bench.remove(first).await?;
    for object in rest {
        bench.truncate(object, 0).await?;
    }
    let found = list_all(bench, &bench.prefix(), 10).await?;
    ensure!(found == rest, "gave {found:?}, not {rest:?}");
    Ok(())
}

//! Checks of the source itself: imports point one way, files stay short, and every rule has a test that names it.
//!
//! `CACHALOT_BLESS=1 cargo test --test architecture` writes the files that name each rule into the table of
//! `docs/TESTING.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Outcome = Result<(), Box<dyn Error>>;

/// What each part of the library may name, besides itself. `lib.rs` may name everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &["error"]),
    ("error", &["types"]),
    ("config", &["error", "types"]),
    ("clock", &["types"]),
    ("buf", &[]),
    ("io", &["error", "types"]),
    ("request", &["error", "types"]),
    (
        "engine",
        &["buf", "config", "error", "io", "request", "types"],
    ),
    ("backend", &["clock", "error", "io", "types"]),
    ("options", &["engine", "error", "request", "types"]),
    (
        "actors",
        &[
            "backend", "buf", "clock", "config", "engine", "error", "io", "options", "request",
            "types",
        ],
    ),
    (
        "cache",
        &[
            "actors",
            "backend",
            "buf",
            "clock",
            "config",
            "engine",
            "error",
            "io",
            "object_set",
            "options",
            "request",
            "types",
        ],
    ),
    (
        "object_set",
        &[
            "actors", "buf", "cache", "clock", "config", "engine", "error", "io", "options",
            "request", "types",
        ],
    ),
];
/// The parts that may name actix, or anything of tokio but its channels and semaphores.
const ON_THE_RUNTIME: &[&str] = &["actors", "cache", "object_set"];
/// The one file of another part that may: clients of object stores need a runtime, and get one of their own.
const RUNTIME_OF_ITS_OWN: &str = "src/backend/object_store/threads.rs";
/// No file has more lines before its tests.
const LINES_MAX: usize = 500;
/// The page that lists the rules.
const RULES: &str = "docs/TESTING.md";
/// The page that lists the files of the library.
const MAP: &str = "docs/ARCHITECTURE.md";
/// What no file may hold. Written in halves, so that this file does not hold it either.
const REFUSED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("dbg", "!"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
];

/// A text file of the repository.
struct Source {
    /// From the root, with slashes.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `below` whose names end so, in order.
fn sources(below: &[&str], ends: &[&str]) -> Result<Vec<Source>, Box<dyn Error>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = below.iter().map(|part| root().join(part)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?.path();
                let name = entry
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if !matches!(name, "target" | ".git" | "proptest-regressions") {
                    open.push(entry);
                }
            }
        } else if path.is_file() {
            let relative = path
                .strip_prefix(root())?
                .to_string_lossy()
                .replace('\\', "/");
            if ends.iter().any(|end| relative.ends_with(end)) {
                found.push(Source {
                    path: relative,
                    text: fs::read_to_string(&path)?,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "nothing found below {below:?}");
    Ok(found)
}

fn library() -> Result<Vec<Source>, Box<dyn Error>> {
    sources(&["src"], &[".rs"])
}

/// The library and the tools.
fn programs() -> Result<Vec<Source>, Box<dyn Error>> {
    let all = sources(&["src", "crates"], &[".rs"])?;
    Ok(all
        .into_iter()
        .filter(|source| !source.is_tests())
        .collect())
}

impl Source {
    /// Whether all of it is tests, or what fuzzers run.
    fn is_tests(&self) -> bool {
        self.path
            .split('/')
            .any(|part| matches!(part, "tests" | "tests.rs" | "models" | "fuzz" | "fuzz.rs"))
    }

    /// Its lines with their numbers, up to a module of tests.
    fn before_tests(&self) -> Vec<(usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let opens_tests = |pair: &[&str]| {
            matches!(pair, [first, second]
                if first.trim() == "#[cfg(test)]" && second.starts_with("mod ") && second.ends_with('{'))
        };
        let end = lines
            .windows(2)
            .position(opens_tests)
            .unwrap_or(lines.len());
        lines
            .into_iter()
            .take(end)
            .enumerate()
            .map(|(at, line)| (at + 1, line))
            .collect()
    }

    /// Those of them that are code, without remarks.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.before_tests().into_iter();
        lines
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number, line.split(" // ").next().unwrap_or(line)))
    }

    /// The modules that lead to the file: `["engine", "window"]` for `src/engine/window/mod.rs`.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut modules: Vec<&str> = path.split('/').collect();
        if modules
            .last()
            .is_some_and(|last| matches!(*last, "mod" | "lib"))
        {
            modules.pop();
        }
        modules
    }

    /// The parts of the library that a line names.
    fn named<'a>(&self, line: &'a str) -> Vec<&'a str> {
        let depth = self.modules().len();
        let mut named = Vec::new();
        for (root, steps) in [("crate::", 0), ("super::", 1)] {
            for (at, _) in line.match_indices(root) {
                let before = line.get(..at).unwrap_or_default();
                if before
                    .ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == ':')
                {
                    continue;
                }
                let mut rest = line.get(at + root.len()..).unwrap_or_default();
                let mut steps = steps;
                while let Some(more) = rest.strip_prefix("super::") {
                    (rest, steps) = (more, steps + 1);
                }
                if steps == 0 || steps == depth {
                    let end = rest.find(|next: char| !next.is_alphanumeric() && next != '_');
                    named.push(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
                }
            }
        }
        named
    }
}

fn none_wrong(wrong: &[String], what: &str) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn imports_point_one_way() -> Outcome {
    let mut wrong = Vec::new();
    for source in library()?.iter().filter(|source| !source.is_tests()) {
        let Some(part) = source.modules().first().copied() else {
            continue;
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == part) else {
            wrong.push(format!(
                "{}: say in ARROWS what {part} may name",
                source.path
            ));
            continue;
        };
        for (number, line) in source.code() {
            for named in source.named(line) {
                if named != part && !allowed.contains(&named) {
                    wrong.push(format!("{}:{number}: {part} names {named:?}", source.path));
                }
            }
        }
    }
    none_wrong(&wrong, "wrong imports");
    Ok(())
}

/// Whether a line names a crate.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        let after = line.get(at + name.len()..).unwrap_or_default();
        !before.ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == ':')
            && after.starts_with("::")
    })
}

#[test]
fn the_runtime_stays_in_the_actors() -> Outcome {
    let mut wrong = Vec::new();
    for source in library()?.iter().filter(|source| !source.is_tests()) {
        if source
            .modules()
            .first()
            .is_some_and(|part| ON_THE_RUNTIME.contains(part))
            || source.path == RUNTIME_OF_ITS_OWN
        {
            continue;
        }
        for (number, line) in source.code() {
            let names_tokio = names_crate(line, "tokio") && !line.contains("tokio::sync::");
            if names_crate(line, "actix") || names_tokio {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none_wrong(
        &wrong,
        "actix or a tokio runtime outside of the actors and handles",
    );
    Ok(())
}

/// The real time, and that of simulations.
const CLOCKS: [&str; 2] = ["src/clock.rs", "crates/cachalot-sim/src/clock.rs"];

#[test]
fn one_file_reads_the_time() -> Outcome {
    let mut wrong = Vec::new();
    for source in programs()?
        .iter()
        .filter(|source| !CLOCKS.contains(&source.path.as_str()))
    {
        for (number, line) in source.code() {
            if ["Instant::now", "SystemTime::now", ".elapsed()"]
                .iter()
                .any(|call| line.contains(call))
            {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none_wrong(&wrong, "the time read outside of the clocks");
    Ok(())
}

#[test]
fn files_are_short() -> Outcome {
    let long = programs()?.into_iter().filter_map(|source| {
        let lines = source.before_tests().len();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    });
    none_wrong(
        &long.collect::<Vec<_>>(),
        "files above 500 lines before their tests",
    );
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Outcome {
    let ends = [".rs", ".md", ".toml", ".sh", ".yml", "/run", "justfile"];
    let mut wrong = Vec::new();
    for source in sources(&["."], &ends)? {
        for (number, line) in source.text.lines().enumerate() {
            for word in REFUSED.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    none_wrong(&wrong, "left behind");
    Ok(())
}

#[test]
fn the_map_names_every_file() -> Outcome {
    let map = fs::read_to_string(root().join(MAP))?;
    let is_named = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        map.contains(&format!(" {name}")) || map.contains(&format!("/{name}"))
    };
    let files = library()?
        .into_iter()
        .filter(|source| !source.is_tests())
        .map(|source| source.path);
    let missing: Vec<String> = files.filter(|path| !is_named(path)).collect();
    none_wrong(&missing, "files that the map in docs/ARCHITECTURE.md lacks");
    Ok(())
}

/// Every page and file that a page of ours points to is there.
#[test]
fn links_between_pages_lead_somewhere() -> Outcome {
    let mut wrong = Vec::new();
    for page in sources(&["README.md", "CHANGELOG.md", "docs"], &[".md"])? {
        let here = Path::new(&page.path).parent().unwrap_or(Path::new(""));
        for (at, _) in page.text.match_indices("](") {
            let rest = page.text.get(at + 2..).unwrap_or_default();
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let is_file = !target.is_empty() && !target.contains("://");
            if is_file && !root().join(here).join(target).exists() {
                wrong.push(format!("{}: {target}", page.path));
            }
        }
    }
    none_wrong(&wrong, "links to nowhere");
    Ok(())
}

/// The numbers of rules in a text, such as `R-07`.
fn rules_in(text: &str) -> BTreeSet<String> {
    let bytes = text.as_bytes();
    let is_word = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let is_rule = |at: &usize| {
        let four = bytes.get(*at..*at + 4);
        let fits = four.is_some_and(|four| {
            matches!(four, [b'B' | b'R' | b'W' | b'F' | b'T' | b'S' | b'J' | b'L' | b'P' | b'H', b'-', a, b]
                if a.is_ascii_digit() && b.is_ascii_digit())
        });
        fits && !is_word(*at + 4) && (*at == 0 || !is_word(*at - 1))
    };
    (0..bytes.len())
        .filter(is_rule)
        .filter_map(|at| Some(text.get(at..at + 4)?.to_owned()))
        .collect()
}

/// The rules that the doc comments of a file's tests name. The checks of the contract suite are tests too.
fn rules_tested_in(source: &Source) -> BTreeSet<String> {
    let is_contract = source.path.starts_with("src/backend/contract/");
    let (mut named, mut remarks, mut is_test) = (BTreeSet::new(), String::new(), is_contract);
    for line in source.text.lines().map(str::trim) {
        if let Some(remark) = line.strip_prefix("///") {
            remarks.push_str(remark);
            remarks.push('\n');
        } else if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
        } else if !line.starts_with("//") && !line.starts_with(')') && !line.is_empty() {
            let starts_fn = line.contains("fn ");
            if is_test && starts_fn {
                named.append(&mut rules_in(&remarks));
            }
            if starts_fn || line.ends_with([';', '}', '{', ',']) {
                remarks.clear();
                is_test = is_contract;
            }
        }
    }
    named
}

/// By rule, the files with a test that names it.
fn tests_by_rule() -> Result<BTreeMap<String, BTreeSet<String>>, Box<dyn Error>> {
    let mut by_rule: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources(&["src", "tests", "crates"], &[".rs"])? {
        for rule in rules_tested_in(&source) {
            by_rule.entry(rule).or_default().insert(source.path.clone());
        }
    }
    Ok(by_rule)
}

/// A row of the table of rules: the rule and what it says.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let (rule, says) = (cells.next()?, cells.next()?);
    (rule.len() == 4 && rules_in(rule).contains(rule)).then_some((rule, says))
}

#[test]
fn rules_that_are_named_exist() -> Outcome {
    let page = fs::read_to_string(root().join(RULES))?;
    let known: BTreeSet<&str> = page.lines().filter_map(row).map(|(rule, _)| rule).collect();
    let mut wrong = Vec::new();
    for source in sources(
        &["src", "tests", "crates", "benches", "examples", "docs"],
        &[".rs", ".md"],
    )? {
        let named = rules_in(&source.text);
        let unknown = named.iter().filter(|rule| !known.contains(rule.as_str()));
        wrong.extend(unknown.map(|rule| format!("{}: {rule}", source.path)));
    }
    none_wrong(&wrong, "rules that are not in the table of docs/TESTING.md");
    Ok(())
}

#[test]
fn every_rule_has_a_test_that_names_it() -> Outcome {
    let path = root().join(RULES);
    let page = fs::read_to_string(&path)?;
    let by_rule = tests_by_rule()?;
    let (mut untested, mut stale, mut blessed) = (Vec::new(), Vec::new(), String::new());
    for line in page.lines() {
        let mut line = line.to_owned();
        if let Some((rule, says)) = row(&line) {
            let files = by_rule.get(rule).cloned().unwrap_or_default();
            if files.is_empty() {
                untested.push(format!("{rule}: {says}"));
            }
            let listed: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
            let fresh = format!("| {rule} | {says} | {} |", listed.join(", "));
            let named_in_vain = line
                .split('`')
                .filter(|part| part.ends_with(".rs") && !files.contains(*part));
            stale.extend(named_in_vain.map(|file| format!("{rule}: no test in {file}")));
            line = fresh;
        }
        blessed.push_str(&line);
        blessed.push('\n');
    }
    if std::env::var_os("CACHALOT_BLESS").is_some() {
        fs::write(&path, blessed)?;
        stale.clear();
    }
    none_wrong(
        &stale,
        "files listed in docs/TESTING.md (CACHALOT_BLESS=1 corrects them)",
    );
    none_wrong(&untested, "rules without a test that names them");
    Ok(())
}

#[test]
fn rules_are_found_in_text() {
    let found = rules_in("/// R-07, (H-13) and B-02: not AR-07, R-7, R-077, UTF-08 or L-01-x");
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["B-02", "H-13", "R-07"]
    );
}

#[test]
fn only_tests_count_as_tests() {
    let text = "/// R-01\nfn helper() {}\n/// R-02\n#[test]\nfn a() {\n}\n/// R-03\n\
        #[tokio::test(\n    flavor = \"x\"\n)]\nasync fn b() {}\n/// R-04\nstruct S;\n#[test]\nfn c() {}\n";
    let source = Source {
        path: "src/x.rs".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(
        rules_tested_in(&source).into_iter().collect::<Vec<_>>(),
        ["R-02", "R-03"]
    );
}

#[test]
fn names_are_found_through_crate_and_super() {
    let source = Source {
        path: "src/engine/window/write.rs".to_owned(),
        text: String::new(),
    };
    assert_eq!(source.named("use crate::backend::Backend;"), ["backend"]);
    assert_eq!(
        source.named("use super::super::super::cache::Cache;"),
        ["cache"]
    );
    assert!(source.named("use super::super::extent::Extent;").is_empty());
    let source = Source {
        path: "src/clock.rs".to_owned(),
        text: String::new(),
    };
    assert_eq!(source.named("fn f() -> super::types::Moment {"), ["types"]);
}

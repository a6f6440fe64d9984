//! Inputs for the targets when they run as ordinary tests: their corpora, and what grows from them by chance.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::Target;

/// The longest input that grows.
const LEN_MAX: usize = 600;

/// The generator of Steele, Lea and Flood.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// A piece of one of the inputs.
    fn piece<'a>(&mut self, of: &'a [(String, Vec<u8>)]) -> &'a [u8] {
        let bytes = &of[self.below(of.len())].1;
        let start = self.below(bytes.len() + 1);
        &bytes[start..start + self.below(bytes.len() - start + 1)]
    }

    fn input(&mut self, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
        if self.below(4) == 0 {
            let len = self.below(LEN_MAX);
            return self.bytes(len);
        }
        let mut input = corpus[self.below(corpus.len())].1.clone();
        for _ in 0..1 + self.below(6) {
            let start = self.below(input.len() + 1);
            let end = start + self.below((input.len() - start).min(16) + 1);
            let new = match self.below(4) {
                0 => Vec::new(),
                1 => self.piece(corpus).to_vec(),
                _ => self.bytes(end - start),
            };
            input.splice(start..end, new);
        }
        input.truncate(LEN_MAX.max(8192 * usize::from(self.below(8) == 0)));
        input
    }
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    // The tool's crate shares this file; the corpora lie at the root of both.
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut places = crates.map(|root| root.join("fuzz/corpus").join(target));
    let place = places
        .find(|place| place.is_dir())
        .unwrap_or_else(|| panic!("{target} has no corpus"));
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    inputs
}

fn run(target: Target, input: &[u8], replay: impl FnOnce() -> String) {
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let text = failure
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| failure.downcast_ref::<&str>().copied());
        panic!("{}\n{}", text.unwrap_or("it failed"), replay());
    }
}

/// Runs a target over its whole corpus, and over `usually` inputs that grow from it.
pub(crate) fn run_all(targets: &[(&str, Target)], name: &str, usually: u64) {
    let target = targets.iter().find(|(other, _)| *other == name);
    let target = target
        .unwrap_or_else(|| panic!("no target is called {name}"))
        .1;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let corpus = corpus(name);
    let seeds = if let Some(seed) = number("CACHALOT_SEED") {
        seed..seed + 1
    } else {
        for (path, input) in &corpus {
            run(target, input, || format!("the input is {path}"));
        }
        0..usually * number("CACHALOT_FUZZ_TIMES").unwrap_or(1)
    };
    for seed in seeds {
        let input = Chance(seed).input(&corpus);
        run(target, &input, || {
            let place = std::env::temp_dir().join(format!("cachalot-fuzz-{name}-{seed}"));
            let kept = fs::write(&place, &input)
                .map_or_else(|error| error.to_string(), |()| place.display().to_string());
            format!(
                "replay with CACHALOT_SEED={seed} and the same test; the input is kept in {kept}"
            )
        });
    }
}

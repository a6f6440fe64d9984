//! Runs the target that `CACHALOT_FUZZ_TARGET` names under libFuzzer.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn named() -> fn(&[u8]) {
    let name = std::env::var("CACHALOT_FUZZ_TARGET").unwrap_or_default();
    let mut targets = cachalot::fuzz::TARGETS
        .iter()
        .chain(cachalot_cli::fuzz::TARGETS);
    match targets.find(|(target, _)| *target == name) {
        Some((_, target)) => *target,
        None => panic!("CACHALOT_FUZZ_TARGET names no target: `{name}`"),
    }
}

fuzz_target!(|input: &[u8]| TARGET.get_or_init(named)(input));

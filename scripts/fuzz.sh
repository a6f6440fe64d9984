#!/usr/bin/env bash
# Fuzzes one target for some seconds, or all of them, one after the other: scripts/fuzz.sh [TARGET|all] [SECONDS]
# What is found new stays in target/fuzz/corpus, what fails in target/fuzz/failed; FUZZ_MERGE=1 then takes the smallest
# inputs that reach something new into fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${1:-all}" seconds="${2:-60}"
triple="$(rustc -vV | sed -n 's/^host: //p')"
export CARGO_TARGET_DIR="$PWD/target/fuzz"
# What libFuzzer needs to see which code an input reaches. These are options of stable Rust.
flags=(
    --cfg fuzzing
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0
    -Ccodegen-units=1
)
RUSTFLAGS="${flags[*]}" cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$triple"
fuzz="$CARGO_TARGET_DIR/$triple/release/fuzz"

run() {
    local name="$1" found="$CARGO_TARGET_DIR/corpus/$1" failed="$CARGO_TARGET_DIR/failed/$1"
    shift
    mkdir -p "$found" "$failed"
    printf '\n--- %s\n' "$name"
    CACHALOT_FUZZ_TARGET="$name" "$fuzz" -artifact_prefix="$failed/" -timeout=20 -rss_limit_mb=2048 "$@"
}

fuzz_one() {
    local found="$CARGO_TARGET_DIR/corpus/$1"
    run "$1" -max_total_time="$seconds" -max_len=4400 -print_final_stats=1 "$found" "fuzz/corpus/$1" || return 1
    if [ "${FUZZ_MERGE:-0}" = 1 ]; then
        run "$1" -merge=1 -max_len=2048 "fuzz/corpus/$1" "$found"
    fi
}

if [ "$target" = all ]; then
    failing=()
    for place in fuzz/corpus/*/; do
        fuzz_one "$(basename "$place")" || failing+=("$(basename "$place")")
    done
    [ ${#failing[@]} -eq 0 ] || { echo "something was found: ${failing[*]}" >&2 && exit 1; }
else
    fuzz_one "$target"
fi

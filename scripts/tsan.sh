#!/usr/bin/env bash
# Real threads under ThreadSanitizer: the stress test, and the tests of the actors and of the file store. The standard
# library is built with it, too: otherwise what synchronises in there looks like a race. Needs nightly Rust with its
# sources (rustup component add --toolchain nightly rust-src). CACHALOT_SECONDS=60 stresses for longer.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! [ -e "$(rustc +nightly --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]; then
    echo "SKIPPED: there is no nightly Rust with rust-src here, so nothing was looked for" >&2
    exit 0
fi
triple="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="-Zsanitizer=thread" TSAN_OPTIONS="halt_on_error=0 exitcode=66 history_size=4"
export CACHALOT_SECONDS="${CACHALOT_SECONDS:-10}"
options=(-Zbuild-std --target "$triple" --target-dir target/tsan --package cachalot)
cargo +nightly test "${options[@]}" --test semantics threads_that_do -- --nocapture
cargo +nightly test "${options[@]}" --lib -- actors:: backend::file

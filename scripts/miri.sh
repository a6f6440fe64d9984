#!/usr/bin/env bash
# The engine's tests under Miri, but for those that go through very many cases. The engine has no unsafe code; what is
# looked at is what it makes of the crates beneath it. Needs nightly Rust (rustup component add --toolchain nightly miri).
# A further argument picks tests by name. The whole takes an hour and a half.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED: there is no Miri here, so nothing was looked for" >&2
    exit 0
fi
export MIRIFLAGS="-Zmiri-disable-isolation"
cargo +nightly miri test --target-dir target/miri --package cachalot --lib "${1:-engine::}" -- \
    --skip exhaustive --skip random --skip properties --skip traces --skip fuzz --skip a_drop_looks_only_at_what_it_touches \
    --skip bytes_written_over_and_over_leave_no_entries_behind --skip costs_as_much_for_each --skip costs_the_same_for_each \
    --skip tiny_neighbours_do_not_cost_a_buffer_each

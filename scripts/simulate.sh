#!/usr/bin/env bash
# Whole caches in virtual time over failing stores: a fixed set of seeds. CACHALOT_SEEDS=20000 scripts/simulate.sh makes
# it a long run; further arguments go to the command, such as --seed 7. Built without the stores of other machines, which
# nothing here looks at.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${CACHALOT_SEEDS:-300}"
cargo run --profile sim --package cachalot-cli --no-default-features -- simulate --seed 1 --runs "$seeds" "$@"

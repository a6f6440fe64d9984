#!/usr/bin/env bash
# A short run of the random tests and of the simulation, with assertions; CACHALOT_SEEDS=1000 scripts/seeds.sh makes it a longer
# one.
set -euo pipefail
cd "$(dirname "$0")/.."
export CACHALOT_SEEDS="${CACHALOT_SEEDS:-100}"
echo "CACHALOT_SEEDS=$CACHALOT_SEEDS"
cargo test random
cargo test --test simulation everything_at_once

#!/usr/bin/env bash
# A short run of the random tests; CACHALOT_SEEDS=1000 scripts/seeds.sh makes it a longer one.
set -euo pipefail
cd "$(dirname "$0")/.."
export CACHALOT_SEEDS="${CACHALOT_SEEDS:-25}" CACHALOT_SECONDS="${CACHALOT_SECONDS:-5}"
echo "CACHALOT_SEEDS=$CACHALOT_SEEDS CACHALOT_SECONDS=$CACHALOT_SECONDS"
cargo test --package cachalot --all-features random

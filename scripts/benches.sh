#!/usr/bin/env bash
# Every benchmark still runs, once each and without measuring.
set -euo pipefail
cd "$(dirname "$0")/.."
for bench in benches/*.rs; do
    [ -e "$bench" ] || continue
    cargo bench --package cachalot --bench "$(basename "$bench" .rs)" -- --test
done

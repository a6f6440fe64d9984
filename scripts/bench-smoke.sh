#!/usr/bin/env bash
# The benchmark command works, and its JSON is JSON with figures in it.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --release -- bench --duration 2s
cargo run --release --quiet -- bench --case all --runs 1 --seconds 0.02 --total 16MiB --working-set 16MiB
cargo run --release --quiet -- bench --memory all --cache 64MiB --total 16MiB
cargo run --release --quiet -- bench --scale all --factors 1
cargo run --release --quiet -- bench --duration 1s --warm-up 200ms --working-set 32MiB --store memory: --json |
    python3 -c '
import json, sys
report = json.load(sys.stdin)
for side in ("cache", "direct"):
    rate = report[side]["ops_per_second"]
    assert rate > 0, (side, rate)
    print(f"{side}: {rate:.0f} operations a second")
'

#!/usr/bin/env bash
# Every example runs, and finds what it says it shows.
set -euo pipefail
cd "$(dirname "$0")/.."
for example in examples/*.rs; do
    name="$(basename "$example" .rs)"
    echo "--- $name"
    cargo run --quiet --example "$name"
done

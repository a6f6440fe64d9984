#!/usr/bin/env bash
# All tests: units, properties, whole caches, the command, the documentation's examples.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test

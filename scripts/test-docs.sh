#!/usr/bin/env bash
# The examples in the documentation, those behind features too.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --doc --all-features

#!/usr/bin/env bash
# Every backend keeps the contract, and the suite finds those that don't.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test contract

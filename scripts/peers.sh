#!/usr/bin/env bash
# Hits and absorbed writes of Cachalot beside those of other caches in memory. Not part of the default build; arguments
# go to the program, such as --seconds 1 or --json. `scripts/peers.sh --runs 1 --seconds 0.01` shows that it works.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --release --package cachalot-peers -- "$@"

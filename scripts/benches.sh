#!/usr/bin/env bash
# Every benchmark still runs, once each and without measuring.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --package cachalot --bench cache -- --test

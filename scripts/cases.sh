#!/usr/bin/env bash
# All small cases of the engine in every order of events; CACHALOT_DEPTH=2 makes it a long run.
set -euo pipefail
cd "$(dirname "$0")/.."
CACHALOT_STRIDE="${CACHALOT_STRIDE:-1}" cargo test --profile sim --package cachalot --lib exhaustive -- --nocapture

#!/usr/bin/env bash
# Installs what the other scripts need, where it is missing, and fetches the dependencies as locked.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/need.sh

need cc build-essential
need make build-essential
need python3 python3
need cmp diffutils
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
cargo --version
cargo fetch --locked

#!/usr/bin/env bash
# The documentation builds without a complaint, that of private items too. The library and the command are both called
# cachalot, so each gets a directory of its own; what they are built from is shared.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTDOCFLAGS="-D warnings"
cargo doc --package cachalot --package cachalot-librados --no-deps --document-private-items --all-features
CARGO_BUILD_BUILD_DIR=target cargo doc --package cachalot-cli --no-deps --document-private-items --target-dir target/doc-of-the-command

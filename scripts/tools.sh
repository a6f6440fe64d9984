#!/usr/bin/env bash
# Installs what the other scripts need, where it is missing, and fetches the dependencies as locked.
set -euo pipefail
cd "$(dirname "$0")/.."

# Installs a Debian package unless its command is there.
need() {
    if command -v "$1" >/dev/null; then
        return
    fi
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"
}

need cc build-essential
need python3 python3
need cmp diffutils
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
cargo --version
cargo fetch --locked

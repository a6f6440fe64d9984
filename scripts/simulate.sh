#!/usr/bin/env bash
# Whole caches in virtual time over failing stores: a fixed set of seeds. CACHALOT_SEEDS=20000 scripts/simulate.sh makes
# it a long run; further arguments go to the command, such as --seed 7. Built with the checks of tests and without the stores
# of other machines, which nothing here looks at; CACHALOT_RELEASED=1 takes the command as it is released.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${CACHALOT_SEEDS:-300}"
build=(--profile sim --no-default-features)
[ -z "${CACHALOT_RELEASED:-}" ] || build=(--release)
cargo run "${build[@]}" --package cachalot-cli -- simulate --seed 1 --runs "$seeds" "$@"

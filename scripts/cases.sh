#!/usr/bin/env bash
# Small cases of the engine in every order of events, whole; docs/TESTING.md says what they are.
#
#   scripts/cases.sh                 all beginnings, one thing asked, one thing goes wrong
#   scripts/cases.sh --depth N       N things are asked, up to three
#   scripts/cases.sh --core          only out of those that matter most
#   scripts/cases.sh --faults N      N things go wrong, none or one
#   scripts/cases.sh --jobs N        on N threads
set -euo pipefail
cd "$(dirname "$0")/.."
export CACHALOT_STRIDE="${CACHALOT_STRIDE:-1}"
while [ $# -gt 0 ]; do
    case "$1" in
    --depth) export CACHALOT_DEPTH="${2:?--depth needs a number}" && shift 2 ;;
    --core) export CACHALOT_CORE=1 && shift ;;
    --faults) export CACHALOT_FAULTS="${2:?--faults needs a number}" && shift 2 ;;
    --jobs) export CACHALOT_JOBS="${2:?--jobs needs a number}" && shift 2 ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' scripts/cases.sh >&2 && exit 2 ;;
    esac
done
cargo test --profile sim --package cachalot --lib exhaustive -- --nocapture

#!/usr/bin/env bash
# Models of what threads do at the same time (src/actors/models): under shuttle in many orders, under loom in all.
# CACHALOT_MODEL_TIMES=100 scripts/models.sh makes it a long run; a further argument picks models by name.
set -euo pipefail
cd "$(dirname "$0")/.."
# The features are those that all tests together have, so that little of what is built for them is built anew.
options=(--package cachalot --lib --profile test --features object-store,rados)
for checker in shuttle loom; do
    printf '\n--- %s\n' "$checker"
    program="$(cargo rustc "${options[@]}" --message-format=json-render-diagnostics -- --cfg "model=\"$checker\"" |
        sed -n 's/.*"name":"cachalot".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)"
    CARGO_MANIFEST_DIR="$PWD" "$program" "models::${1:-}"
done

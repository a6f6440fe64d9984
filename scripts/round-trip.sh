#!/usr/bin/env bash
# 64 MiB go into a file store and come out again as they were, through a cache that is smaller than they are.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --package cachalot-cli
cachalot=target/release/cachalot
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
head --bytes=64M /dev/urandom >"$place/original"
# A hole, and an odd end.
truncate --size=+8M "$place/original"
printf 'the end' >>"$place/original"

"$cachalot" import --quiet --cache 16MiB "$place/original" "file:$place/store" plain
"$cachalot" import --quiet --cache 16MiB --stripe-unit 64KiB --stripe-count 4 \
    "$place/original" "file:$place/store" striped
"$cachalot" volume list "file:$place/store"
for volume in plain striped; do
    "$cachalot" export --quiet --cache 16MiB "file:$place/store" "$volume" "$place/$volume"
    cmp "$place/original" "$place/$volume"
    echo "$volume: $(stat --format=%s "$place/$volume") bytes came back as they were"
done

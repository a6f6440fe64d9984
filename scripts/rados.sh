#!/usr/bin/env bash
# RADOS on a real cluster: starts a Ceph cluster on loopback that keeps its data in a file, runs the tests against it, takes
# a file into it and out again with the tool, and stops it all. A word runs the tests of that name alone.
#
#   CACHALOT_RADOS_BYTES   how large the file is; 1 GiB unless set
#   CACHALOT_RADOS_PORT    where the monitor listens; 33480 unless set
#   CACHALOT_SEED          the seed of the random operations
set -euo pipefail
cd "$(dirname "$0")/.."
bytes=${CACHALOT_RADOS_BYTES:-$((1 << 30))} port=${CACHALOT_RADOS_PORT:-33480} name=${1:-}
place="$(mktemp -d)"
trap 'scripts/cluster.sh down "$place/c"; rm -rf "$place"' EXIT

[ -n "$name" ] || cargo test --lib rados
cargo test --test rados --no-run
[ -n "$name" ] || cargo build --release --package cachalot-cli

scripts/cluster.sh up "$place/c" --port "$port" --store bluestore
store="rados://cache/tool?conf=$place/c/ceph.conf"
export CACHALOT_RADOS_URL="rados://cache?conf=$place/c/ceph.conf"

# One at a time: one of them kills the OSD.
CACHALOT_CLUSTER="$place/c" cargo test --test rados -- \
    --test-threads 1 --nocapture $name
[ -z "$name" ] || exit 0

cachalot=target/release/cachalot
# shellcheck source=scripts/in-and-out.sh
. scripts/in-and-out.sh
in_and_out "$cachalot" "$store" volume "$bytes" "$place"
"$cachalot" volume info "$store" volume

# The end of a process meets librados' threads in good order, every time.
for _ in $(seq 60); do
    "$cachalot" ls "$store" >/dev/null
done

# While one command may write a volume another is refused, and told by whom; then it takes the volume over.
"$cachalot" serve "$store" volume --listen "unix:$place/socket" &
server=$!
trap 'kill -KILL "$server" 2>/dev/null || true; scripts/cluster.sh down "$place/c"; rm -rf "$place"' EXIT
for _ in $(seq 200); do
    [ ! -S "$place/socket" ] || break
    kill -0 "$server"
    read -r -t 0.1 <> <(:) || true
done
if said="$("$cachalot" volume resize "$store" volume --size 1TiB 2>&1)"; then
    echo "two commands write one volume" >&2 && exit 1
fi
grep "is being written by process $server on" <<<"$said"
"$cachalot" volume resize "$store" volume --size 1TiB --break-lock
# What was taken over from can store nothing, so it has nothing to give back either; however it ends, it ends.
kill -TERM "$server"
wait "$server" || true
"$cachalot" volume remove "$store" volume
[ -z "$("$cachalot" ls "$store")" ]

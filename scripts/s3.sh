#!/usr/bin/env bash
# Object stores, in memory and then on a real server: starts a Ceph cluster in memory with radosgw, runs the tests against it, takes a file
# into it and out again with the tool, and stops it all. A word runs the tests of that name alone.
#
#   CACHALOT_S3_BYTES   how large the file is; 1 GiB unless set
#   CACHALOT_S3_PORT    where radosgw listens; 33470 unless set
#   CACHALOT_SEED       the seed of the random operations
set -euo pipefail
cd "$(dirname "$0")/.."
bytes=${CACHALOT_S3_BYTES:-$((1 << 30))} port=${CACHALOT_S3_PORT:-33470} name=${1:-}
place="$(mktemp -d)"
trap 'scripts/cluster.sh down "$place/c"; rm -rf "$place"' EXIT

[ -n "$name" ] || cargo test --lib object_store
cargo test --test object_store --no-run
[ -n "$name" ] || cargo build --release --package cachalot-cli

scripts/cluster.sh up "$place/c" --port "$((port + 1))" --rgw "$port"
# shellcheck source=/dev/null
. "$place/c/s3.env"
# The addresses below say where the server is, and that plain HTTP will do.
unset AWS_ENDPOINT AWS_ENDPOINT_URL AWS_ALLOW_HTTP
store="s3://$S3_BUCKET/tool?endpoint=http://127.0.0.1:$port"
export CACHALOT_S3_URL="s3://$S3_BUCKET/tests?endpoint=http://127.0.0.1:$port"
export CACHALOT_CLUSTER="$place/c" CACHALOT_CLUSTER_RGW="$port"

# Outages are made by a proxy of the test's own, and one waits for a minute while others go on. The rest is one at a time: one
# of them kills the server.
if [ -n "$name" ]; then
    cargo test --test object_store -- --test-threads 1 --nocapture "$name"
    exit
fi
cargo test --test object_store -- --test-threads 2 --nocapture outages::
cargo test --test object_store -- --test-threads 1 --nocapture --skip outages::

cachalot=target/release/cachalot
# shellcheck source=scripts/in-and-out.sh
. scripts/in-and-out.sh
in_and_out "$cachalot" "$store" volume "$bytes" "$place"
"$cachalot" volume info "$store" volume

# While one command may write a volume another is refused, and told by whom.
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
kill -TERM "$server"
wait "$server"
"$cachalot" volume resize "$store" volume --size 1TiB
"$cachalot" volume remove "$store" volume
echo "$(stat --format=%s "$place/back") bytes came back as they were"

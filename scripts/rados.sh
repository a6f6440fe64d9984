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

# shellcheck source=scripts/need.sh
. scripts/need.sh
# The system's own, for which the package of libnbd is.
python=/usr/bin/python3
[ -n "$name" ] || "$python" -c 'import nbd' 2>/dev/null || need /usr/lib/python3/dist-packages/nbd.py python3-libnbd

[ -n "$name" ] || cargo test --lib rados
cargo test --test rados --no-run
[ -n "$name" ] || cargo test --package cachalot-librados --test process_end --no-run
[ -n "$name" ] || cargo build --release --package cachalot-cli

scripts/cluster.sh up "$place/c" --port "$port" --store bluestore --auth cephx
export CACHALOT_RADOS_URL="rados://cache?conf=$place/c/ceph.conf"

# One at a time: one of them kills the OSD.
CACHALOT_CLUSTER="$place/c" cargo test --test rados -- \
    --test-threads 1 --nocapture $name
[ -z "$name" ] || exit 0
CACHALOT_RADOS_CONF="$place/c/ceph.conf" cargo test --package cachalot-librados --test process_end

cachalot=target/release/cachalot
user() { # NAME CAPABILITIES...: makes a user of the cluster and keeps its key
    local name="$1"
    shift
    ceph -c "$place/c/ceph.conf" auth get-or-create "client.$name" "$@" >>"$place/c/keyring"
}
# The tool runs as a user that is allowed what docs/RADOS.md says, and nothing else.
user cache mon 'profile rbd' \
    osd 'allow rwx pool=cache namespace=tool, allow rwx pool=cache namespace=tool.cachalot-locks'
at="rados://cache/tool?conf=$place/c/ceph.conf"
store="$at&id=cache"
# shellcheck source=scripts/in-and-out.sh
. scripts/in-and-out.sh
in_and_out "$cachalot" "$store" volume "$bytes" "$place"
"$cachalot" volume info "$store" volume

# Users that are allowed less are told so.
refused() { # CODE WORDS COMMAND...: the command ends with this code and says these words
    local expected="$1" words="$2" said code=0
    shift 2
    said="$("$@" 2>&1)" || code=$?
    if [ "$code" != "$expected" ] || ! grep -q "$words" <<<"$said"; then
        echo "$*: ends with $code and says: $said" >&2
        exit 1
    fi
}
user reader mon 'allow r' osd 'allow r pool=cache namespace=tool'
user local mon 'allow r' \
    osd 'allow rwx pool=cache namespace=tool, allow rwx pool=cache namespace=tool.cachalot-locks'
[ "$("$cachalot" ls "$at&id=reader" | wc -l)" -gt 1 ]
refused 3 'the store refuses access' "$cachalot" volume create "$at&id=reader" other --size 1MiB
refused 3 'the store refuses access' "$cachalot" ls "rados://cache/elsewhere?conf=$place/c/ceph.conf&id=cache"
refused 3 'cannot use the cluster' "$cachalot" ls "$at&id=nobody"

# The end of a process meets librados' threads in good order, every time.
for _ in $(seq 60); do
    "$cachalot" ls "$store" >/dev/null
done

# While one command may write a volume another is refused, and told by whom; nor does a user take it over who may not shut
# others out of the cluster. Then it is taken over from the gateway, which holds unsaved data: its clients are told when
# they flush, what is unsaved is read through it all the same, and at its end it says how much that was.
cat >"$place/config.toml" <<'END'
max_bytes = "64MiB"
max_dirty_bytes = "32MiB"
target_dirty_bytes = "16MiB"
max_dirty_age = "1h"
END
"$cachalot" serve "$store" volume --listen "unix:$place/socket" --config "$place/config.toml" --patience 1h \
    2>"$place/log" &
server=$!
trap 'kill -KILL "$server" 2>/dev/null || true; scripts/cluster.sh down "$place/c"; rm -rf "$place"' EXIT
for _ in $(seq 200); do
    [ ! -S "$place/socket" ] || break
    kill -0 "$server"
    read -r -t 0.1 <> <(:) || true
done
resize=("$cachalot" volume resize --size 1TiB)
refused 4 "is being written by process $server on" "${resize[@]}" "$store" volume
refused 3 'the store refuses access' "${resize[@]}" "$at&id=local" volume --break-lock
timeout 120 "$python" scripts/taken-over.py "nbd+unix:///volume?socket=$place/socket" "${resize[@]}" "$store" volume --break-lock
kill -TERM "$server"
code=0
wait "$server" || code=$?
cat "$place/log"
[ "$code" != 0 ]
grep '1048576 bytes of unsynced data are lost' "$place/log"
"$cachalot" volume remove "$store" volume
[ -z "$("$cachalot" ls "$store")" ]

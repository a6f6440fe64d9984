#!/usr/bin/env bash
# The gateway over a store that fails on purpose, under clients of fio that check every byte they read back: errors, lost
# answers, delays, half writes, and 20 seconds in each 90 in which the store is away. Ends with the volume compared to
# what the gateway showed, and with a look at the memory it took.
#
#   CACHALOT_SOAK_SECONDS   how long; 1800 unless set
#   CACHALOT_SEED           what fails; the time of day unless set
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/need.sh
. scripts/need.sh
# shellcheck source=scripts/gateway.sh
. scripts/gateway.sh
need fio fio
need nbdinfo libnbd-bin
seconds="${CACHALOT_SOAK_SECONDS:-1800}" seed="${CACHALOT_SEED:-$(date +%s)}"
echo "CACHALOT_SEED=$seed CACHALOT_SOAK_SECONDS=$seconds"
cachalot="${CACHALOT:-target/release/cachalot}"
[ -n "${CACHALOT:-}" ] || cargo build --release --package cachalot-cli
place="$(mktemp -d)"
server=
cleanup() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$place"
}
trap cleanup EXIT
uri="nbd+unix:///disk?socket=$place/socket"
"$cachalot" serve "file:$place/store" disk --create --size 512MiB --cache 64MiB --listen "unix:$place/socket" --admin none \
    --patience 60s --rehearse "$seed" 2>"$place/log" &
server=$!
until_served "$uri" "$server"

# Four jobs, each in a quarter of its own. What is written is read back and checked soon after.
fio_job() {
    fio --name="$1" --ioengine=nbd --uri="$uri" --offset="$2" --size=128m --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 --verify_backlog=512 --time_based --runtime="$seconds" --randseed="$seed" --minimal \
        --aux-path="$place" "${@:3}" >"$place/$1.out" 2>&1
}
fio_job random 0 --rw=randwrite --bs=4k --iodepth=16 --fsync=512 &
jobs=($!)
fio_job sequential 128m --rw=write --bs=64k --iodepth=4 &
jobs+=($!)
fio_job mixed 256m --rw=randwrite --bsrange=512-32k --blockalign=512 --iodepth=8 --fsync=100 &
jobs+=($!)
fio_job single 384m --rw=randwrite --bs=8k --iodepth=1 &
jobs+=($!)
for job in "${jobs[@]}"; do
    wait "$job" || {
        tail -n 20 "$place"/*.out "$place/log"
        exit 1
    }
done

grep VmHWM "/proc/$server/status"
peak="$(awk '/VmHWM/ { print $2 }' "/proc/$server/status")"
nbdcopy "$uri" "$place/shown"
kill -TERM "$server"
wait "$server"
server=
grep rehearsal "$place/log" | tail -n 1 || true
"$cachalot" export --quiet "file:$place/store" disk "$place/exported"
cmp "$place/shown" "$place/exported"
# The cache's 64 MiB and a tenth, 16 MiB for the program, and what requests under way carry.
[ "$peak" -le $(((64 * 11 / 10 + 16 + 64) << 10)) ] || {
    echo "$peak KiB at its peak" >&2
    exit 1
}
echo "$seconds s, nothing lost"

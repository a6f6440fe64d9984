#!/usr/bin/env bash
# The gateway beside other servers of network block devices, with the same jobs of fio, in turns: nbdkit with its cache
# filter over a file, and qemu-nbd with cache=writeback on a raw file. Prints a table. Needs a machine that does nothing else.
#
#   CACHALOT_ROUNDS    how often each is measured; 3 unless set
#   CACHALOT_SECONDS   how long each job runs; 3 unless set
#   CACHALOT_JOBS      a pattern of bash for the titles of the jobs that run, as the table has them; all unless set
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/need.sh
. scripts/need.sh
# shellcheck source=scripts/gateway.sh
. scripts/gateway.sh
# shellcheck source=scripts/speed.sh
. scripts/speed.sh
need fio fio
need nbdkit nbdkit
need qemu-nbd qemu-utils
need nbdcopy libnbd-bin
cachalot="${CACHALOT:-target/release/cachalot}"
[ -n "${CACHALOT:-}" ] || cargo build --release --package cachalot-cli
place="$(mktemp -d)"
server=
cleanup() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$place"
}
trap cleanup EXIT
size=$((256 << 20))
head --bytes="$size" /dev/urandom >"$place/content"

# What a server is started with: all have the volume's content on the same file system and a cache that holds all of it, also
# when all of it is dirty: nbdkit's filter writes nothing back before a flush, and the page cache little before half a minute.
begin() {
    case "$1" in
    cachalot)
        "$cachalot" import --quiet "$place/content" "file:$place/store" disk
        "$cachalot" serve "file:$place/store" disk --cache 512MiB --dirty 400MiB --target-dirty 350MiB \
            --listen "unix:$place/socket" 2>"$place/log" &
        ;;
    nbdkit)
        cp "$place/content" "$place/image"
        nbdkit --foreground --unix "$place/socket" --filter=cache file "$place/image" cache=writeback cache-on-read=true &
        ;;
    qemu-nbd)
        cp "$place/content" "$place/image"
        qemu-nbd --socket "$place/socket" --format raw --cache writeback --shared 8 --persistent "$place/image" &
        ;;
    esac
    server=$!
    uri="nbd+unix:///?socket=$place/socket"
    [ "$1" != cachalot ] || uri="nbd+unix:///disk?socket=$place/socket"
    until_served "$uri" "$server"
    # All of it was read once.
    nbdcopy "$uri" null:
}

end() {
    kill -TERM "$server"
    wait "$server" || true
    server=
    rm -rf "$place/store" "$place/image" "$place/socket"
}

jobs=(
    "4 KiB random reads|randread|4k|1|1" "4 KiB random reads|randread|4k|1|2"
    "4 KiB random reads|randread|4k|32|1" "4 KiB random reads|randread|4k|32|2"
    "4 KiB random writes|randwrite|4k|1|1" "4 KiB random writes|randwrite|4k|1|2"
    "4 KiB random writes|randwrite|4k|32|1" "4 KiB random writes|randwrite|4k|32|2"
    "4 KiB sequential reads|read|4k|1|1" "4 KiB sequential reads|read|4k|1|2"
    "4 KiB sequential reads|read|4k|32|1" "4 KiB sequential reads|read|4k|32|2"
    "4 KiB sequential writes|write|4k|1|1" "4 KiB sequential writes|write|4k|1|2"
    "4 KiB sequential writes|write|4k|32|1" "4 KiB sequential writes|write|4k|32|2"
    "128 KiB sequential reads|read|128k|1|1" "128 KiB sequential reads|read|128k|8|1"
    "128 KiB sequential writes|write|128k|1|1" "128 KiB sequential writes|write|128k|8|1"
)
for round in $(seq "${CACHALOT_ROUNDS:-3}"); do
    for name in cachalot nbdkit qemu-nbd; do
        begin "$name"
        for job in "${jobs[@]}"; do
            IFS='|' read -r title rw bs depth connections <<<"$job"
            # shellcheck disable=SC2053
            [[ "$title, $connections connections" == ${CACHALOT_JOBS:-*} ]] || continue
            fio --name=job --ioengine=nbd --uri="$uri" --rw="$rw" --bs="$bs" --iodepth="$depth" --numjobs="$connections" \
                --size="$size" --time_based --runtime="${CACHALOT_SECONDS:-3}" --ramp_time=0.5 --group_reporting \
                --randrepeat=1 --output-format=json --output="$place/fio.json" --aux-path="$place"
            read -r rate p99 _ _ < <(fio_figures "$place/fio.json")
            printf '%s\t%s\t%s\t%s\t%s\n' "$title, $connections connections" "$depth" "$name" "$rate" "$p99" >>"$place/results"
        done
        end
    done
    echo "round $round done" >&2
done
speed_table "$place/results" cachalot nbdkit qemu-nbd

#!/usr/bin/env bash
# The gateway over an object store beside s3backer, with the same jobs of fio on one radosgw over a cluster in memory, in
# turns. Prints a table. Needs root, /dev/fuse, and a machine that does nothing else.
#
#   CACHALOT_ROUNDS    how often each is measured; 3 unless set
#   CACHALOT_SECONDS   how long each job by the clock runs; 5 unless set
#   CACHALOT_S3_PORT   where radosgw listens; 33510 unless set, and the monitor one above
#   CACHALOT_JOBS      a pattern of bash for the titles of the jobs that run; all unless set
#   CACHALOT_SIDES     the sides that are measured, with commas between; all there are unless set
#   S3BACKER_PLUGIN    nbdkit-s3backer-plugin.so of s3backer 2, if there is one: Debian 12 has no package of it
#
# Both have blocks of 64 KiB, room for 128 MiB in memory, at most 96 MiB of it dirty, 5 s until dirty data is stored, up to
# 64 requests at once, and a volume of 512 MiB of random bytes; each job finds what serves it started anew.
#
#   cachalot     fio's own client of network block devices over a Unix socket: no kernel's page cache, no file system.
#   in process   what `cachalot` serves the volume with, asked by `cachalot bench --volume` in the same process: no NBD, no fio.
#   s3backer     1.5 through FUSE with --directIO and direct=1: no page cache either. libfuse 2 lets the kernel hand on one
#                asynchronous operation at a time, so depth is threads of fio where the job is random. Its check of MD5 sums
#                and its pause between writes of a block are off, since radosgw shows what was written; it reads 16 blocks ahead.
#   over NBD     s3backer 2 as a plugin of nbdkit over a Unix socket, asked by the same client as `cachalot`, with the same
#                options and 32 threads of nbdkit, but without reading ahead in random jobs, where it fetches blocks for nothing.
#   page cache   s3backer as it mounts by default, and fio without direct=1: hits, and writes not yet stored, are in the
#                kernel's memory beside the 128 MiB, without a limit. For what an application sees, not to compare caches.
#
# fsync of s3backer 1.5 does nothing. So "all stored" counts the time until the mount, or the gateway, has been told to end
# and its process is gone; that of `in process` counts the time until its flush after the last operation is done.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ] || [ ! -e /dev/fuse ]; then
    echo "s3backer needs root and /dev/fuse" >&2
    exit 1
fi
# shellcheck source=scripts/need.sh
. scripts/need.sh
# shellcheck source=scripts/gateway.sh
. scripts/gateway.sh
# shellcheck source=scripts/speed.sh
. scripts/speed.sh
need fio fio
need nbdinfo libnbd-bin
need s3backer s3backer
plugin="${S3BACKER_PLUGIN:-}"
[ -z "$plugin" ] || need nbdkit nbdkit
cachalot="${CACHALOT:-target/release/cachalot}"
[ -n "${CACHALOT:-}" ] || cargo build --release --package cachalot-cli
seconds=${CACHALOT_SECONDS:-5} port=${CACHALOT_S3_PORT:-33510}
place="$(mktemp -d)"
server=
cleanup() {
    umount --lazy "$place/mnt" 2>/dev/null || true
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    scripts/cluster.sh down "$place/c"
    rm -rf "$place"
}
trap cleanup EXIT
mkdir "$place/mnt"
scripts/cluster.sh up "$place/c" --port "$((port + 1))" --rgw "$port" >/dev/null
# shellcheck source=/dev/null
. "$place/c/s3.env"
unset AWS_ENDPOINT AWS_ENDPOINT_URL AWS_ALLOW_HTTP
store="s3://$S3_BUCKET/cachalot?endpoint=http://127.0.0.1:$port&block_size=64KiB"
uri="nbd+unix:///disk?socket=$place/socket"

# What s3backer is told beside where its blocks are.
block_cache=(--blockCacheSize=2048 --blockCacheMaxDirty=1536 --blockCacheThreads=64 --blockCacheWriteDelay=5000 --readAhead=16
    --md5CacheSize=0 --md5CacheTime=0 --minWriteDelay=0)

# SIDE RW: what serves the volume begins, for a job.
begin() {
    local direct=(--directIO -o big_writes)
    case "$1" in
    cachalot)
        "$cachalot" serve "$store" disk --cache 128MiB --dirty 96MiB --target-dirty 96MiB --dirty-age 5s --writebacks 64 --admin none \
            --listen "unix:$place/socket" 2>>"$place/log" &
        server=$!
        until_served "$uri" "$server"
        return
        ;;
    "over NBD")
        local options=("${block_cache[@]//--/}")
        [ "${2#rand}" = "$2" ] || options+=(readAhead=0)
        nbdkit --foreground --unix "$place/socket" --threads 32 "$plugin" bucket="$S3_BUCKET" quiet=true \
            baseURL="http://127.0.0.1:$port/" accessId="$AWS_ACCESS_KEY_ID" accessKey="$AWS_SECRET_ACCESS_KEY" \
            prefix=s3backer/ size=512m blockSize=64k "${options[@]}" >>"$place/log" 2>&1 &
        server=$!
        until_served "nbd+unix:///?socket=$place/socket" "$server"
        return
        ;;
    "page cache") direct=(-o big_writes) ;;
    esac
    s3backer -f --quiet --baseURL="http://127.0.0.1:$port/" --accessId="$AWS_ACCESS_KEY_ID" --accessKey="$AWS_SECRET_ACCESS_KEY" \
        --prefix=s3backer/ --size=512m --blockSize=64k "${block_cache[@]}" "${direct[@]}" \
        "$S3_BUCKET" "$place/mnt" >>"$place/log" 2>&1 &
    server=$!
    until mountpoint --quiet "$place/mnt"; do
        kill -0 "$server" || { cat "$place/log" >&2 && exit 1; }
        read -r -t 0.05 <> <(:) || true
    done
}

# SIDE: it ends, with everything stored.
end() {
    case "$1" in
    cachalot | "over NBD") kill -TERM "$server" ;;
    *) umount "$place/mnt" ;;
    esac
    wait "$server"
    server=
}

# SIDE RW BLOCK DEPTH SIZE OPTION...: runs a job.
job() {
    local side=$1 rw=$2 bs=$3 depth=$4 size=$5 target=()
    shift 5
    case "$side" in
    cachalot) target=(--ioengine=nbd --uri="$uri" --iodepth="$depth") ;;
    "over NBD") target=(--ioengine=nbd --uri="nbd+unix:///?socket=$place/socket" --iodepth="$depth") ;;
    *)
        target=(--filename="$place/mnt/file" --allow_file_create=0 --direct=1)
        [ "$side" = s3backer ] || target=(--filename="$place/mnt/file" --allow_file_create=0 --direct=0)
        case "$rw" in
        rand*) target+=(--ioengine=psync --thread --numjobs="$depth") ;;
        *) target+=(--ioengine=libaio --iodepth="$depth") ;;
        esac
        ;;
    esac
    # norandommap: blocks are drawn alike, however many threads draw them.
    fio --name=job "${target[@]}" --rw="$rw" --bs="$bs" --size="$size" --group_reporting --norandommap --randrepeat=1 \
        --fallocate=none --output-format=json --output="$place/fio.json" --aux-path="$place" "$@"
}

# RW BLOCK DEPTH SIZE STATE UNTIL: runs a job without a gateway, from a process just started to all stored.
in_process() {
    local rw=$1 bs=$2 depth=$3 size=$4 state=$5 until=$6 options=(--warm-up 0s --duration "${seconds}s")
    # Once: 512 MiB in 128 KiB.
    [ "$until" = clock ] || options=(--operations 4096)
    [ "$state" = cold ] || options+=(--warm)
    case "$rw" in
    randread) options+=(--pattern uniform --read-share 1) ;;
    randwrite) options+=(--pattern uniform --read-share 0) ;;
    randrw) options+=(--pattern zipf --zipf-exponent 1.1 --read-share 0.7) ;;
    read) options+=(--pattern sequential --read-share 1) ;;
    write) options+=(--pattern sequential --read-share 0) ;;
    esac
    "$cachalot" bench --volume disk --store "$store" --mode cache --threads 1 --sets 1 --cache 128MiB --dirty 96MiB \
        --target-dirty 96MiB --dirty-age 5s --writebacks 64 --block-size "${bs}iB" --in-flight "$depth" --working-set "${size}iB" \
        "${options[@]}" --json >"$place/bench.json"
}

# Operations a second of the last job without a gateway, the larger 99th percentile in µs, and the rate with all stored.
bench_figures() {
    python3 -c '
import json, sys
side = json.load(open(sys.argv[1]))["cache"]
p99 = max(side[kind]["p99_ns"] for kind in ("reads", "writes")) / 1e3
print(side["ops_per_second"], p99, side["ops_per_second_settled"], sep="\t")
' "$place/bench.json"
}

# The contents: the same bytes for each.
head --bytes=512M /dev/urandom >"$place/content"
"$cachalot" import --quiet "$place/content" "$store" disk
begin s3backer write
dd if="$place/content" of="$place/mnt/file" bs=1M conv=notrunc oflag=direct status=none
end s3backer
rm "$place/content"

# title|rw|block|depth|size|state before|by the clock or once
jobs=(
    "4 KiB random reads of 64 MiB, warm|randread|4k|1|64m|warm|clock" "4 KiB random reads of 64 MiB, warm|randread|4k|32|64m|warm|clock"
    "4 KiB random reads of 512 MiB|randread|4k|1|512m|cold|clock" "4 KiB random reads of 512 MiB|randread|4k|32|512m|cold|clock"
    "4 KiB random writes of 64 MiB, warm|randwrite|4k|1|64m|warm|clock" "4 KiB random writes of 64 MiB, warm|randwrite|4k|32|64m|warm|clock"
    "4 KiB random writes of 64 MiB, cold|randwrite|4k|1|64m|cold|clock" "4 KiB random writes of 64 MiB, cold|randwrite|4k|32|64m|cold|clock"
    "4 KiB random writes of 512 MiB|randwrite|4k|1|512m|cold|clock" "4 KiB random writes of 512 MiB|randwrite|4k|32|512m|cold|clock"
    "4 KiB, zipf 1.1 over 512 MiB, 70 % reads|randrw|4k|32|512m|cold|clock"
    "128 KiB sequential writes of 512 MiB|write|128k|8|512m|cold|once"
    "128 KiB sequential reads of 512 MiB, cold|read|128k|1|512m|cold|once"
    "128 KiB sequential reads of 512 MiB, cold|read|128k|8|512m|cold|once"
)
sides=(cachalot "in process" s3backer)
[ -z "$plugin" ] || sides+=("over NBD")
sides+=("page cache")
[ -z "${CACHALOT_SIDES:-}" ] || IFS=, read -r -a sides <<<"$CACHALOT_SIDES"
for round in $(seq "${CACHALOT_ROUNDS:-3}"); do
    for row in "${jobs[@]}"; do
        IFS='|' read -r title rw bs depth size state until <<<"$row"
        # shellcheck disable=SC2053
        [[ "$title" == ${CACHALOT_JOBS:-*} ]] || continue
        options=()
        [ "$until" = once ] || options+=(--time_based --runtime="$seconds")
        [ "$rw" != randrw ] || options+=(--rwmixread=70 --random_distribution=zipf:1.1)
        for side in "${sides[@]}"; do
            if [ "$side" = "in process" ]; then
                in_process "$rw" "$bs" "$depth" "$size" "$state" "$until"
                read -r rate p99 stored < <(bench_figures)
            else
                begin "$side" "$rw"
                [ "$state" = cold ] || job "$side" read 128k 8 "$size"
                job "$side" "$rw" "$bs" "$depth" "$size" "${options[@]}"
                before=$EPOCHREALTIME
                end "$side"
                after=$EPOCHREALTIME
                read -r rate p99 operations ran < <(fio_figures "$place/fio.json")
                stored="$(python3 -c 'import sys; n, ran, a, b = map(float, sys.argv[1:]); print(n / (ran + b - a))' \
                    "$operations" "$ran" "$before" "$after")"
            fi
            printf '%s\t%s\t%s\t%s\t%s\n' "$title" "$depth" "$side" "$rate" "$p99" >>"$place/results"
            case "$rw" in *write | randrw)
                printf '%s, all stored\t%s\t%s\t%s\t-\n' "$title" "$depth" "$side" "$stored" >>"$place/results"
                ;;
            esac
            echo "$title, depth $depth, $side: $rate" >&2
        done
    done
    echo "round $round done" >&2
done
speed_table "$place/results" "${sides[@]}"
if [ "${sides[0]}" = cachalot ]; then
    echo
    speed_table "$place/results" "${sides[@]:1}"
fi
uptime

#!/usr/bin/env bash
# The cache over RADOS beside librbd with its own cache, on one cluster in memory, in turns: 4 KiB, the same sizes, depths and
# shares. Prints a table. Needs a machine that does nothing else; docs/BENCHMARKS.md has the figures.
#
#   CACHALOT_ROUNDS   how often each is measured; 3 unless set
#   CACHALOT_SECONDS  how long each time; 5 unless set
#   CACHALOT_PORT     where the cluster's monitor listens; 33490 unless set
#   CACHALOT_JOBS     a pattern of bash for the titles of the jobs that run; all unless set
#
#   cachalot       the library in the process that asks (`cachalot bench`): 256 MiB, 192 MiB of it dirty at most
#   write-back     librbd in the process that asks (fio's rbd engine): rbd_cache_policy = writeback, 256 MiB, 192 MiB dirty at most
#   write-around   the same with rbd_cache_policy = writearound: writes are answered before they are stored, nothing is kept
#   direct         the library's store without a cache: each write is answered when it is stored
#
# Each job runs for 3 s before it is measured, warm reads for 10 s. "All stored" counts the time until the flush after the last
# operation is done: that of fio's end_fsync, which its rbd engine turns into a flush of the image, and the cache's own.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/need.sh
. scripts/need.sh
# shellcheck source=scripts/speed.sh
. scripts/speed.sh
need fio fio
rounds=${CACHALOT_ROUNDS:-3} seconds=${CACHALOT_SECONDS:-5}
[ -n "${CACHALOT_BUILT:-}" ] || cargo build --release --package cachalot-cli --features object-store,rados
place="$(mktemp -d)"
trap 'scripts/cluster.sh down "$place/c"; rm -rf "$place"' EXIT
scripts/cluster.sh up "$place/c" --port "${CACHALOT_PORT:-33490}" >/dev/null
for policy in writeback writearound; do
    sed "s/^\[client\]/&\nrbd_cache = true\nrbd_cache_policy = $policy\nrbd_cache_writethrough_until_flush = false\nrbd_cache_size = 268435456\nrbd_cache_max_dirty = 201326592\nrbd_cache_target_dirty = 134217728/" \
        "$place/c/ceph.conf" >"$place/$policy.conf"
done
export CEPH_CONF="$place/writeback.conf"
rbd --pool cache create --size 1G image
rbd --pool cache bench --io-type write --io-size 4M --io-pattern seq --io-total 1G image >/dev/null

# TITLE DEPTH SIDE RATE P99 RATE-WITH-THE-FLUSH
told() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$5" >>"$place/results"
    case "$1" in *writes* | *mixed*) printf '%s, all stored\t%s\t%s\t%s\t-\n' "$1" "$2" "$3" "$6" >>"$place/results" ;; esac
    echo "$1, depth $2, $3: $4" >&2
}

# SIDE TITLE PATTERN SHARE DEPTH BYTES WARM-UP
librbd() {
    local conf=writeback rw rate p99 operations ran options=()
    [ "$1" = write-back ] || conf=writearound
    case "$3 $4" in
    "uniform 0") rw=randwrite ;;
    "uniform 1") rw=randread ;;
    "sequential 0") rw=write ;;
    zipf*) rw=randrw options=(--rwmixread=70 --random_distribution=zipf:1.1) ;;
    esac
    # invalidate=0: fio would empty librbd's cache at each pass.
    CEPH_CONF="$place/$conf.conf" fio --name=x --ioengine=rbd --clientname=admin --pool=cache --rbdname=image --bs=4k --invalidate=0 \
        --time_based --norandommap --end_fsync=1 --rw="$rw" "${options[@]}" --iodepth="$5" --size="${6%iB}" --ramp_time="$7" \
        --runtime="$seconds" --output-format=json --output="$place/fio.json" 2>/dev/null
    read -r rate p99 operations ran < <(fio_figures "$place/fio.json")
    # fio's own rate has the flush in its time.
    told "$2" "$5" "$1" "$(python3 -c "print($operations / $seconds)")" "$p99" "$rate"
}

# TITLE PATTERN SHARE DEPTH BYTES WARM-UP
ours() {
    local side rate p99 settled
    target/release/cachalot bench --store "rados://cache/bench?conf=$place/c/ceph.conf" --mode both --threads 1 --sets 1 \
        --block-size 4KiB --pattern "$2" --zipf-exponent 1.1 --cache 256MiB --dirty 192MiB --read-share "$3" --in-flight "$4" \
        --working-set "$5" --warm-up "${6}s" --duration "${seconds}s" --json >"$place/bench.json"
    while read -r side rate p99 settled; do
        told "$1" "$4" "$side" "$rate" "$p99" "$settled"
    done < <(python3 -c '
import json, sys
run = json.load(open(sys.argv[1]))
for name, side in (("cachalot", run["cache"]), ("direct", run["direct"])):
    p99 = max(side[kind]["p99_ns"] for kind in ("reads", "writes")) / 1e3
    print(name, side["ops_per_second"], p99, side["ops_per_second_settled"])' "$place/bench.json")
}

# title|pattern|share of reads|depth|size|seconds before it is measured: all that is read warm must have been read
jobs=(
    "random writes over 1 GiB|uniform|0|1|1GiB|3" "random writes over 1 GiB|uniform|0|32|1GiB|3"
    "sequential writes over 1 GiB|sequential|0|1|1GiB|3" "sequential writes over 1 GiB|sequential|0|32|1GiB|3"
    "random reads over 16 MiB, warm|uniform|1|1|16MiB|10" "random reads over 16 MiB, warm|uniform|1|32|16MiB|10"
    "mixed, 70 % reads, zipf 1.1 over 1 GiB|zipf|0.7|32|1GiB|3"
)
for round in $(seq "$rounds"); do
    for row in "${jobs[@]}"; do
        IFS='|' read -r title pattern share depth size warm_up <<<"$row"
        # shellcheck disable=SC2053
        [[ "$title" == ${CACHALOT_JOBS:-*} ]] || continue
        for side in write-back write-around; do
            librbd "$side" "$title" "$pattern" "$share" "$depth" "$size" "$warm_up"
        done
        ours "$title" "$pattern" "$share" "$depth" "$size" "$warm_up"
    done
    echo "round $round done" >&2
done
speed_table "$place/results" cachalot write-back write-around direct
uptime

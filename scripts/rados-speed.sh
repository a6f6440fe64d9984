#!/usr/bin/env bash
# The cache over RADOS beside librbd with its own cache, on one cluster in memory, alternated: 4 KiB, the same sizes and
# depths. Not part of the checks; docs/BENCHMARKS.md has the figures.
#
#   CACHALOT_ROUNDS   how often each is measured; 3 unless set
#   CACHALOT_SECONDS  how long each time; 5 unless set
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${CACHALOT_ROUNDS:-3} seconds=${CACHALOT_SECONDS:-5}
command -v fio >/dev/null || { echo "install fio first" >&2; exit 1; }
[ -n "${CACHALOT_BUILT:-}" ] || cargo build --release --package cachalot-cli --features object-store,rados
place="$(mktemp -d)"
trap 'scripts/cluster.sh down "$place/c"; rm -rf "$place"' EXIT
scripts/cluster.sh up "$place/c" --port 33490 >/dev/null
sed 's/^\[client\]/&\nrbd_cache = true\nrbd_cache_policy = writeback\nrbd_cache_writethrough_until_flush = false\nrbd_cache_size = 268435456\nrbd_cache_max_dirty = 201326592\nrbd_cache_target_dirty = 134217728/' \
    "$place/c/ceph.conf" >"$place/rbd.conf"
export CEPH_CONF="$place/rbd.conf"
rbd --pool cache create --size 1G image
rbd --pool cache bench --io-type write --io-size 4M --io-pattern seq --io-total 1G image >/dev/null

# SHARE DEPTH BYTES
librbd() {
    local rw=randwrite
    [ "$1" = 0 ] || rw=randread
    fio --name=x --ioengine=rbd --clientname=admin --pool=cache --rbdname=image --bs=4k --invalidate=0 --time_based \
        --rw=$rw --iodepth="$2" --size="$3" --ramp_time=3 --runtime="$seconds" --output-format=json 2>/dev/null |
        python3 -c 'import json, sys
text = sys.stdin.read()
job = json.loads(text[text.index("{"):])["jobs"][0]
side = max((job["read"], job["write"]), key=lambda side: side["total_ios"])
print("librbd    %8.0f/s  p99 %8.0f us" % (side["iops"], side["clat_ns"]["percentile"]["99.000000"] / 1e3))'
}
ours() {
    target/release/cachalot bench --store "rados://cache/bench?conf=$place/c/ceph.conf" --mode both --threads 1 --sets 1 \
        --block-size 4KiB --pattern uniform --cache 256MiB --dirty 192MiB --read-share "$1" --in-flight "$2" \
        --working-set "$3" --warm-up 3s --duration "${seconds}s" --json |
        python3 -c 'import json, sys
run = json.load(sys.stdin)
for name in ("cache", "direct"):
    side = run[name]
    ops = max((side["reads"], side["writes"]), key=lambda ops: ops["operations"])
    print("%-9s %8.0f/s  p99 %8.0f us  with the flush %8.0f/s" % (
        name, side["ops_per_second"], ops["p99_ns"] / 1e3, side["ops_per_second_settled"]))'
}
for round in $(seq "$rounds"); do
    for row in "0 1 1GiB" "0 32 1GiB" "1 1 16MiB" "1 32 16MiB"; do
        read -r share depth size <<<"$row"
        echo "round $round: reads $share, depth $depth, $size"
        librbd "$share" "$depth" "${size%iB}"
        ours "$share" "$depth" "$size"
    done
done
uptime

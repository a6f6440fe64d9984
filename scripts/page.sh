#!/usr/bin/env bash
# The page of `cachalot serve --metrics` in a browser without a screen: its numbers and charts are there, and change.
# With --screenshot FILE, keeps a picture of it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
need chromium chromium
need qemu-io qemu-utils
need curl curl

picture=
[ "${1:-}" != --screenshot ] || picture="$2"
cachalot="${CACHALOT:-target/release/cachalot}"
[ -n "${CACHALOT:-}" ] || cargo build --release --package cachalot-cli
place="$(mktemp -d)"
server= load=
cleanup() {
    for process in $load $server; do
        kill -KILL "$process" 2>/dev/null || true
    done
    rm -rf "$place"
}
trap cleanup EXIT
socket="$place/socket"
uri="nbd+unix:///disk?socket=$socket"

"$cachalot" serve "file:$place/store" disk second --create --size 64MiB --listen "unix:$socket" --cache 16MiB \
    --metrics 127.0.0.1:0 2>"$place/log" &
server=$!
url=
for _ in $(seq 200); do
    url="$(sed -n 's|^numbers at ||p' "$place/log")"
    [ -z "$url" ] || [ ! -e "$socket.ctl" ] || break
    read -r -t 0.05 <> <(:) || true
done
[ -n "$url" ] || { cat "$place/log"; exit 1; }
curl --silent --fail "${url}metrics" | has '^cachalot_write_bytes_total{volume="second"} 0$'

# Writes, reads and flushes without end.
while qemu-io -f raw -c 'write -P 1 0 8M' -c 'read 0 8M' -c 'read 32M 4M' -c flush "$uri" >/dev/null 2>&1; do
    :
done &
load=$!

browse() {
    chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$place/profile" \
        --window-size=1280,1000 --virtual-time-budget=90000 "$@" "$url" 2>"$place/chromium" \
        || { cat "$place/chromium"; exit 1; }
}
browse --dump-dom >"$place/first"
browse --dump-dom >"$place/second"
[ -z "$picture" ] || browse --screenshot="$picture" >/dev/null
kill "$load"
wait "$load" 2>/dev/null || true
load=

python3 - "$place/first" "$place/second" <<'PYTHON'
import re, sys
def look(path):
    page = open(path).read()
    assert 'class="silent"' not in page, "the page says that the server does not answer"
    samples = int(re.search(r'data-samples="(\d+)"', page).group(1))
    assert samples >= 3, f"{samples} samples"
    charts = re.findall(r'<section id="(\w+)">.*?<svg[^>]*>(.*?)</svg><div class="legend">(.*?)</div>', page, re.S)
    assert [chart[0] for chart in charts] == ["hits", "dirty", "rates", "latencies"], charts
    drawn = {}
    for name, svg, legend in charts:
        paths = re.findall(r'<path [^>]*d="([^"]*)"', svg)
        assert any(path.count("L") >= 2 for path in paths), f"{name} has no lines: {svg}"
        assert "NaN" not in svg and "undefined" not in svg + legend, f"{name}: {svg} {legend}"
        assert re.search(r"<b>[0-9]", legend), f"{name} has no numbers: {legend}"
        drawn[name] = paths
    written = dict(re.findall(r'<tr data-volume="(\w+)" data-written="(\d+)">', page))
    assert set(written) == {"disk", "second"}, written
    return drawn, int(written["disk"])
(first, before), (second, after) = look(sys.argv[1]), look(sys.argv[2])
assert after > before > 0, f"{before} and then {after} bytes written"
assert first["rates"] != second["rates"] and first["dirty"] != second["dirty"], "the charts do not move"
print(f"charts move; {before} bytes written, and then {after}")
PYTHON

"$cachalot" ctl --socket "$socket.ctl" drain
wait "$server"
server=
echo "the page shows what happens"

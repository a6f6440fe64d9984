#!/usr/bin/env bash
# Clients that were written elsewhere use the gateway: nbdinfo, nbdcopy, qemu, fio and libnbd. Ends with a server that
# is killed: what was flushed is there after a restart.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/need.sh
# shellcheck source=scripts/gateway.sh
. scripts/gateway.sh
need fio fio
need nbdinfo libnbd-bin
need qemu-img qemu-utils
need openssl openssl
# The system's own, for which the package of libnbd is.
python=/usr/bin/python3
"$python" -c 'import nbd' 2>/dev/null || need /usr/lib/python3/dist-packages/nbd.py python3-libnbd

cachalot="${CACHALOT:-target/release/cachalot}"
[ -n "${CACHALOT:-}" ] || cargo build --release --package cachalot-cli
place="$(mktemp -d)"
server=
cleanup() {
    if [ -n "$server" ]; then
        kill -KILL "$server" 2>/dev/null || true
        # What it has open would keep its store mounted.
        wait "$server" 2>/dev/null || true
    fi
    umount "$place/full" 2>/dev/null || true
    rm -rf "$place"
}
trap cleanup EXIT
socket="$place/socket"
uri="nbd+unix:///disk?socket=$socket"
store="file:$place/store"
size=$((64 << 20)) port=${CACHALOT_NBD_PORT:-33809}

start() {
    "$cachalot" serve "$store" disk --listen "unix:$socket" --cache 16MiB "$@" 2>>"$place/log" &
    server=$!
    for _ in $(seq 200); do
        if nbdinfo --size "$uri" >/dev/null 2>&1; then
            return
        fi
        read -r -t 0.05 <> <(:) || true
    done
    cat "$place/log"
    echo "the gateway does not answer" >&2
    exit 1
}
stop() {
    kill -TERM "$server"
    wait "$server"
    server=
}

start --create --size "$size"
echo "--- nbdinfo"
nbdinfo "$uri"
nbdinfo --list "nbd+unix://?socket=$socket" >/dev/null
nbdinfo --map "$uri" | has hole

echo "--- nbdcopy, both ways"
head --bytes="$size" /dev/urandom >"$place/original"
# A hole in the middle.
fallocate --punch-hole --offset $((8 << 20)) --length $((8 << 20)) "$place/original"
nbdcopy --connections=4 --flush "$place/original" "$uri"
nbdcopy --connections=4 "$uri" "$place/copy"
cmp "$place/original" "$place/copy"

echo "--- qemu-img and qemu-io"
qemu-img compare -f raw -F raw "$place/original" "$uri"
qemu-io -f raw \
    -c 'write -P 0x5a 1M 1M' -c 'read -P 0x5a 1M 1M' -c 'write -z 1M 64k' -c 'read -P 0 1M 64k' \
    -c 'discard 1088k 64k' -c 'read -P 0 1088k 64k' -c 'read -P 0x5a 1152k 64k' \
    -c 'write -f -P 0x11 3M 4k' -c 'write -z -u 4M 32k' -c 'read -P 0 4M 32k' -c flush "$uri" >"$place/io"
if grep -iE 'fail|error' "$place/io"; then
    exit 1
fi
qemu-img convert -n -f raw -O raw "$place/original" "$uri"
qemu-img compare -f raw -F raw "$place/original" "$uri"

echo "--- libnbd: the odd commands"
"$python" - "$uri" <<'PYTHON'
import sys, nbd
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated() and h.can_multi_conn() and h.can_cache() and h.can_fast_zero()
h.pwrite(b"x" * 100000, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(100000, 12345) == b"x" * 100000
h.cache(1 << 20, 0)
h.zero(50000, 20000, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(50000, 20000) == bytes(50000)
h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(4096, 0) == bytes(4096)
h.trim(65536, 1 << 20, nbd.CMD_FLAG_FUA)
assert h.pread(65536, 1 << 20) == bytes(65536)
seen = []
h.pread_structured(1 << 20, 0, lambda buf, off, what, err: seen.append(what))
assert nbd.READ_HOLE in seen and nbd.READ_DATA in seen, seen
told = []
h.block_status(32 << 20, 0, lambda name, off, entries, err: told.extend(entries))
assert told and sum(told[0::2]) <= 32 << 20, told
h.set_strict_mode(0)
for call, wanted in ((lambda: h.pread(10, h.get_size()), 22), (lambda: h.pwrite(b"1", h.get_size()), 28)):
    try:
        call()
        sys.exit("a request past the end went well")
    except nbd.Error as error:
        assert error.errnum == wanted, error
assert h.pread(1, 0) == b"\0"
h.flush()
h.shutdown()
PYTHON

echo "--- fio, which reads back and checks what it wrote"
fio_job() {
    fio --verify_state_save=0 --name="$1" --ioengine=nbd --uri="$uri" --size=16m --verify=crc32c --verify_fatal=1 --minimal --aux-path="$place" "${@:2}" \
        >"$place/fio" 2>&1 || {
        cat "$place/fio"
        exit 1
    }
}
fio_job random --rw=randwrite --bs=4k --iodepth=32
fio_job sequential --rw=write --bs=128k --iodepth=8
fio_job mixed --rw=randrw --bsrange=512-64k --blockalign=512 --iodepth=16
fio_job jobs --rw=randwrite --bs=4k --iodepth=8 --numjobs=4 --offset_increment=16m --fsync=64

echo "--- an operator beside them"
ctl() {
    "$cachalot" ctl --socket "$socket.ctl" "$@"
}
dirty() {
    ctl --json stats | "$python" -c 'import json, sys; print(json.load(sys.stdin)["volumes"][0]["gauges"]["dirty_bytes"])'
}
ctl stats | has 'write_back_bytes'
ctl flush
[ "$(dirty)" = 0 ]
ctl limits --dirty 4MiB --dirty-age 1s | has '4.0 MiB'
# Switched to and fro while fio writes and reads back; it sees no error, but for writes to what is read-only.
fio_job switched --rw=randwrite --bs=4k --iodepth=16 --numjobs=2 --offset_increment=16m --loops=4 &
fio=$!
switches=0
while kill -0 "$fio" 2>/dev/null; do
    ctl mode writethrough | has 'disk: writethrough'
    ctl mode writeback >/dev/null
    ctl release >/dev/null
    switches=$((switches + 2))
done
wait "$fio"
[ "$switches" -ge 2 ]
echo "$switches switches under load"
ctl mode read-only >/dev/null
[ "$(dirty)" = 0 ]
if qemu-io -f raw -c 'write 0 4k' "$uri" >"$place/io" 2>&1 && ! grep -qiE 'read-only|not permitted' "$place/io"; then
    echo "a read-only volume was written" >&2
    exit 1
fi
nbdinfo --is readonly "$uri"
ctl mode writeback --volume disk >/dev/null
nbdinfo --can write "$uri"
# What counts is the mode, not the flag that a connection was given when it was made.
"$python" - "$uri" "$cachalot" "$socket.ctl" <<'PYTHON'
import subprocess, sys, nbd
def switch(mode):
    subprocess.run([sys.argv[2], "ctl", "--socket", sys.argv[3], "mode", mode], check=True, stdout=subprocess.DEVNULL)
def connected():
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    h.set_strict_mode(0)
    return h
def refused(h):
    try:
        h.pwrite(b"r" * 512, 0)
    except nbd.Error as error:
        return error.errnum == 1
    return False
before = connected()
assert not before.is_read_only()
switch("read-only")
during = connected()
assert during.is_read_only() and not before.is_read_only()
assert refused(before) and refused(during)
switch("writeback")
assert during.is_read_only() and not refused(before) and not refused(during)
after = connected()
assert not after.is_read_only() and not refused(after)
for h in (before, during, after):
    h.shutdown()
PYTHON
if ctl flush --volume other 2>/dev/null; then
    echo "a volume that is not there was flushed" >&2
    exit 1
fi

echo "--- a crowd, garbage, and clients that do not read"
"$python" - "$socket" "$uri" <<'PYTHON'
import os, socket, struct, sys, nbd
held = []
for number in range(1000):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    held.append(s)
# Those that were turned away see the end; the others see the greeting.
greeted = 0
for s in held:
    try:
        greeted += s.recv(18)[:8] == b"NBDMAGIC"
    except ConnectionError:
        pass
assert 1 <= greeted <= 128, greeted
for s in held:
    try:
        s.sendall(os.urandom(4096))
    except OSError:
        pass
    s.close()
h = nbd.NBD()
for attempt in range(100):
    try:
        h = nbd.NBD()
        h.connect_uri(sys.argv[2])
        break
    except nbd.Error:
        pass
name = b"disk"
deaf = []
for number in range(8):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    s.sendall(struct.pack(">I", 3) + struct.pack(">QII", 0x49484156454F5054, 7, len(data)) + data)
    s.settimeout(0.2)
    try:
        for request in range(1000):
            s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, request, 0, 16 << 20))
    except OSError:
        pass
    deaf.append(s)
h.pwrite(b"y" * 4096, 0)
assert h.pread(4096, 0) == b"y" * 4096
h.flush()
h.shutdown()
PYTHON
grep VmHWM "/proc/$server/status"

echo "--- the gateway ends, and the volume is what it showed"
nbdcopy "$uri" "$place/shown"
ctl drain | has 'all is stored'
wait "$server"
server=
[ ! -e "$socket" ]
"$cachalot" export --quiet "$store" disk "$place/exported"
cmp "$place/shown" "$place/exported"

echo "--- a second signal gives up, and tells what is lost"
start --dirty-age 60s
"$python" - "$uri" <<'PYTHON'
import os, sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"v" * 1048576, 50 << 20)
# Without the flush of an orderly end.
os._exit(0)
PYTHON
kill -TERM "$server"
kill -INT "$server"
if wait "$server"; then
    echo "the gateway says that all is stored, and it is not" >&2
    exit 1
fi
server=
tail -n 1 "$place/log" | grep 'given up after a second signal: 1048576 bytes of unsynced data are lost'

echo "--- several volumes at once"
# Of different sizes: what is answered for one must not be the other's.
many="file:$place/many"
"$cachalot" volume create "$many" small --size 24MiB
"$cachalot" volume create "$many" large --size 48MiB
"$cachalot" volume create "$many" still --size 16MiB
head --bytes="$((16 << 20))" /dev/urandom >"$place/still"
"$cachalot" serve "$many" small large still --listen "unix:$socket" --cache 16MiB --dirty-age 60s 2>>"$place/log" &
server=$!
uri_of() { echo "nbd+unix:///$1?socket=$socket"; }
until_served "$(uri_of small)" "$server"
nbdinfo --list --json "nbd+unix://?socket=$socket" | "$python" -c '
import json, sys
told = {export["export-name"]: export["export-size"] for export in json.load(sys.stdin)["exports"]}
assert told == {"small": 24 << 20, "large": 48 << 20, "still": 16 << 20}, told'
nbdcopy --flush "$place/still" "$(uri_of still)"
jobs=()
for volume in small large; do
    fio --name="$volume" --ioengine=nbd --uri="$(uri_of "$volume")" --size=16m --rw=randwrite --bs=4k --iodepth=16 --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --minimal --aux-path="$place" >"$place/fio-$volume" 2>&1 &
    jobs+=($!)
done
for job in "${jobs[@]}"; do
    wait "$job" || {
        cat "$place"/fio-*
        exit 1
    }
done
# The same place of each, of which only one is written.
nbdcopy "$(uri_of large)" "$place/large"
qemu-io -f raw -c 'write -P 0x33 1M 2M' "$(uri_of small)" >/dev/null
nbdcopy "$(uri_of large)" "$place/copy"
cmp "$place/large" "$place/copy"
nbdcopy "$(uri_of still)" "$place/copy"
cmp "$place/still" "$place/copy"
nbdcopy "$(uri_of small)" "$place/small"
# Dirty in two of them when the signal comes: clients that leave without a flush.
"$cachalot" ctl --socket "$socket.ctl" flush >/dev/null
"$python" - "$(uri_of small)" "$(uri_of large)" <<'PYTHON'
import os, sys, nbd
for fill, uri in zip((b"s", b"l"), sys.argv[1:]):
    h = nbd.NBD()
    h.connect_uri(uri)
    h.pwrite(fill * 1048576, 20 << 20)
os._exit(0)
PYTHON
for fill in small:s large:l; do
    head --bytes=1048576 /dev/zero | tr '\0' "${fill#*:}" |
        dd of="$place/${fill%:*}" bs=1M seek=20 conv=notrunc status=none
done
"$cachalot" ctl --socket "$socket.ctl" --json stats | "$python" -c '
import json, sys
told = {volume["volume"]: volume for volume in json.load(sys.stdin)["volumes"]}
assert sorted(told) == ["large", "small", "still"], told.keys()
for name in "small", "large":
    assert told[name]["gauges"]["dirty_bytes"] >= 1 << 20, name
    assert told[name]["counters"]["write_bytes"] >= 17 << 20, name
assert told["still"]["gauges"]["dirty_bytes"] == 0'
stop
for volume in small large still; do
    "$cachalot" export --quiet "$many" "$volume" "$place/$volume.exported"
    cmp "$place/$volume" "$place/$volume.exported"
done

echo "--- the gateway ends while its store is full"
full="$place/full"
mkdir "$full"
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=16m none "$full"; then
    # Starts a gateway with 4 MiB unstored on a store without room, and asks it to end.
    end_without_room() {
        : >"$place/full.log"
        "$cachalot" serve "file:$full/store" disk --create --size 32MiB --listen "unix:$socket" --dirty-age 60s 2>"$place/full.log" &
        server=$!
        until_served "$uri" "$server"
        "$python" - "$uri" "$1" <<'PYTHON'
import os, sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(sys.argv[2].encode() * (4 << 20), 8 << 20)
os._exit(0)
PYTHON
        # Takes what room there is, to the last byte.
        dd if=/dev/zero of="$full/balloon" bs=64k status=none 2>/dev/null || true
        kill -TERM "$server"
        for _ in $(seq 100); do
            ! grep -q 'the store failed' "$place/full.log" || return 0
            kill -0 "$server"
            read -r -t 0.05 <> <(:) || true
        done
        cat "$place/full.log" >&2
        echo "no line tells of the stall" >&2
        return 1
    }
    end_without_room g
    # How much is left, how fast it goes, and why it does not.
    grep -m 1 '4.0 MiB left, .*/s; the store failed: .*the store is full' "$place/full.log"
    rm "$full/balloon"
    timeout 10 tail --pid="$server" -f /dev/null
    wait "$server"
    server=
    grep -q 'all is stored' "$place/full.log"
    "$cachalot" export --quiet "file:$full/store" disk "$place/full.exported"
    head --bytes=$((4 << 20)) /dev/zero | tr '\0' g | cmp - <(tail --bytes=+$(((8 << 20) + 1)) "$place/full.exported" | head --bytes=$((4 << 20)))
    rm -r "$full/store"
    for signal in TERM INT; do
        end_without_room h
        kill "-$signal" "$server"
        if wait "$server"; then
            echo "the gateway says that all is stored, and the store was full" >&2
            exit 1
        fi
        server=
        tail -n 1 "$place/full.log" | grep 'given up after a second signal: 4194304 bytes of unsynced data are lost'
        rm -r "$full/balloon" "$full/store"
    done
    umount "$full"
else
    echo "SKIPPED: this machine mounts no tmpfs for a store that is full" >&2
fi

echo "--- the gateway is killed after a flush"
start --dirty-age 60s
# Killed while the client is there: one that leaves may flush first.
"$python" - "$uri" "$server" <<'PYTHON'
import os, signal, sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"w" * 4096, 40 << 20, nbd.CMD_FLAG_FUA)
h.pwrite(b"w" * 1048576, 5 << 20)
h.flush()
os.kill(int(sys.argv[2]), signal.SIGKILL)
PYTHON
wait "$server" || true
server=
start
qemu-io -f raw -c 'read -P 0x77 5M 1M' -c 'read -P 0x77 40M 4k' "$uri" | tee "$place/io"
if grep -iE 'fail|error' "$place/io"; then
    exit 1
fi
stop

echo "--- encrypted, and only for those with a certificate"
# An authority, and a certificate for the server and for a client.
mkdir "$place/pki" "$place/pki/nobody"
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${new_key[@]}" -days 2 -subj /CN=authority -keyout "$place/ca-key.pem" -out "$place/pki/ca-cert.pem" 2>/dev/null
cp "$place/pki/ca-cert.pem" "$place/pki/nobody/"
for who in server client; do
    openssl req "${new_key[@]}" -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$place/pki/$who-key.pem" -out "$place/request" 2>/dev/null
    openssl x509 -req -in "$place/request" -CA "$place/pki/ca-cert.pem" -CAkey "$place/ca-key.pem" -days 2 \
        -copy_extensions copy -out "$place/pki/$who-cert.pem" 2>/dev/null
done
"$cachalot" serve "$store" disk --cache 16MiB --listen "127.0.0.1:$port" --admin none --tls-certificate "$place/pki/server-cert.pem" \
    --tls-key "$place/pki/server-key.pem" --tls-clients "$place/pki/ca-cert.pem" 2>>"$place/log" &
server=$!
encrypted="nbds://localhost:$port/disk?tls-certificates=$place/pki"
until_served "$encrypted" "$server"
nbdinfo "$encrypted" | has 'with TLS'
nbdcopy --flush "$place/original" "$encrypted"
nbdcopy "$encrypted" "$place/copy"
cmp "$place/original" "$place/copy"
for uri_of_stranger in "nbd://localhost:$port/disk" "nbds://localhost:$port/disk?tls-certificates=$place/pki/nobody"; do
    if nbdinfo --size "$uri_of_stranger" >/dev/null 2>&1; then
        echo "$uri_of_stranger was let in" >&2
        exit 1
    fi
done
stop

echo "all clients are content"

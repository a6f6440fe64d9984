#!/usr/bin/env bash
# File systems on the gateway, through nbdfuse and a loop device: ext4 and xfs, an exerciser that checks what it reads, and
# a gateway that is killed in the middle, after which every file that was synced is there. Needs root, /dev/fuse and loop
# devices; says so where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ] || [ ! -e /dev/fuse ] || [ ! -e /dev/loop-control ]; then
    echo "SKIPPED: file systems on the gateway need root, /dev/fuse and /dev/loop-control" >&2
    exit 0
fi
# shellcheck source=scripts/need.sh
. scripts/need.sh
need nbdinfo libnbd-bin
need nbdfuse nbdfuse
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
fsx="${FSX:-target/tools/bin/fsx}"
[ -x "$fsx" ] || cargo install --quiet --root target/tools --version 0.3.2 fsx
cachalot="${CACHALOT:-target/release/cachalot}"
[ -n "${CACHALOT:-}" ] || cargo build --release --package cachalot-cli

place="$(mktemp -d)"
socket="$place/socket" disk="$place/disk" mnt="$place/mnt" server= fuse=
uri="nbd+unix:///disk?socket=$socket"
cleanup() {
    umount --lazy "$mnt" 2>/dev/null || true
    umount --lazy "$disk" 2>/dev/null || true
    for process in $fuse $server; do
        kill -KILL "$process" 2>/dev/null || true
    done
    rm -rf "$place"
}
trap cleanup EXIT
mkdir "$mnt"

# Waits until a command succeeds.
until_true() {
    for _ in $(seq 400); do
        ! "$@" >/dev/null 2>&1 || return 0
        read -r -t 0.05 <> <(:) || true
    done
    cat "$place/log" >&2
    echo "in vain: $*" >&2
    exit 1
}
has_size() { [ "$(stat --format=%s "$disk")" -gt 0 ]; }
begin() {
    "$cachalot" serve "file:$place/store" disk --create --size 512MiB --cache 32MiB --dirty-age 60s \
        --listen "unix:$socket" --admin none 2>>"$place/log" &
    server=$!
    until_true nbdinfo --size "$uri"
    : >"$disk"
    nbdfuse "$disk" "$uri" &
    fuse=$!
    until_true has_size
}
end() {
    umount "$disk"
    wait "$fuse"
    kill -TERM "$server"
    wait "$server"
    fuse='' server=''
}
mounted() {
    if ! mount -o loop "$disk" "$mnt" 2>"$place/error"; then
        cat "$place/error" >&2
        echo "SKIPPED: this machine mounts no loop devices" >&2
        exit 0
    fi
}
check() {
    case "$1" in
    ext4) e2fsck -f -n "$disk" ;;
    xfs) xfs_repair -n "$disk" 2>/dev/null ;;
    esac
}

for kind in ext4 xfs; do
    echo "--- $kind: made, exercised, checked"
    rm -rf "$place/store"
    begin
    case "$kind" in
    ext4) mkfs.ext4 -q -F "$disk" ;;
    xfs) mkfs.xfs -q -f "$disk" ;;
    esac
    mounted
    "$fsx" -q -N 3000 -S "${CACHALOT_SEED:-7}" -P "$place" "$mnt/exercised"
    cp --recursive src "$mnt/src"
    umount "$mnt"
    check "$kind"
    end
    begin
    mounted
    diff --recursive src "$mnt/src"

    echo "--- $kind: the gateway is killed"
    : >"$place/synced"
    python3 - "$mnt" "$place/synced" <<'PYTHON' &
import hashlib, os, random, sys
directory, told = sys.argv[1], open(sys.argv[2], "w", buffering=1)
for number in range(1 << 30):
    content = random.randbytes(random.randint(1, 60000))
    path = f"{directory}/file-{number}"
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        parent = os.open(directory, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)
    except OSError:
        break
    told.write(f"file-{number} {hashlib.sha256(content).hexdigest()}\n")
PYTHON
    writer=$!
    enough() { [ "$(wc -l <"$place/synced")" -ge 100 ]; }
    until_true enough
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    wait "$writer"
    umount "$mnt"
    umount "$disk" || umount --lazy "$disk"
    wait "$fuse" || true
    rm -f "$socket"
    begin
    mounted
    umount "$mnt"
    check "$kind"
    mounted
    python3 - "$mnt" "$place/synced" <<'PYTHON'
import hashlib, sys
lines = [line.split() for line in open(sys.argv[2])]
for name, digest in lines:
    assert hashlib.sha256(open(f"{sys.argv[1]}/{name}", "rb").read()).hexdigest() == digest, name
print(f"{len(lines)} files that were synced are there")
PYTHON
    umount "$mnt"
    end
done

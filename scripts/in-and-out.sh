# Sourced by other scripts: takes a file into a volume and out again, compares the two, and tells how fast that was.
#
#   in_and_out COMMAND STORE VOLUME BYTES DIRECTORY
in_and_out() {
    local cachalot="$1" store="$2" volume="$3" bytes="$4" place="$5" started
    head --bytes="$bytes" /dev/urandom >"$place/original"
    # A hole, and an odd end.
    truncate --size=+8M "$place/original"
    printf 'the end' >>"$place/original"
    started=$EPOCHREALTIME
    "$cachalot" import --quiet --cache 256MiB "$place/original" "$store" "$volume"
    speed_of import "$started" "$bytes"
    started=$EPOCHREALTIME
    "$cachalot" export --quiet --cache 256MiB "$store" "$volume" "$place/back"
    speed_of export "$started" "$bytes"
    cmp "$place/original" "$place/back"
}

speed_of() {
    awk -v a="$2" -v b="$EPOCHREALTIME" -v n="$3" -v w="$1" \
        'BEGIN { printf "%s: %.1f s, %.0f MiB/s\n", w, b - a, n / 1048576 / (b - a) }'
}

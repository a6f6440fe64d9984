#!/usr/bin/env bash
# Counts the instructions of each step of `cachalot bench --scale` at one, four and sixteen times as much, under
# callgrind: figures that other work on the machine does not disturb. What starting the process costs is taken out by
# looking at how much more the second and the third need: four times as much more is linear, sixteen times is a square.
set -euo pipefail
cd "$(dirname "$0")/.."
# Valgrind has no vDSO where rustix would look for one.
export RUSTFLAGS="--cfg rustix_use_libc" CARGO_PROFILE_RELEASE_DEBUG=false
cargo build --release --quiet --package cachalot-cli --target-dir target/callgrind
steps="${*:-read_over_fetches waiting_reads waiting_flushes waiting_writes given_up_writes writes_through flush_extents flush_objects discard_extents discard_each trim_objects trim_sets flush_few_of_sets flush_sets}"
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null target/callgrind/release/cachalot bench --json --scale "$1" --factors "$2" 2>&1 >/dev/null |
        sed -n 's/.*Collected : //p'
}
echo "| step | instructions, once | four times | sixteen times | growth of what is more |"
echo "| --- | --- | --- | --- | --- |"
for step in $steps; do
    once="$(count "$step" 1)" four="$(count "$step" 4)" sixteen="$(count "$step" 16)"
    python3 -c '
import sys
step, (once, four, sixteen) = sys.argv[1], map(int, sys.argv[2:])
cells = [f"{count / 1e6:.1f} M" for count in (once, four, sixteen)]
print("|", " | ".join([step, *cells, f"{(sixteen - four) / (four - once):.1f}"]), "|")
' "$step" "$once" "$four" "$sixteen"
done

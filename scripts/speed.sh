# Sourced by scripts that measure the cache beside something else: what fio measured, and a table over all rounds. A line
# of results is: job, depth, side, operations a second, and the 99th percentile in µs or `-`, with tabs between.

# fio_figures FILE: operations a second of reads and writes together, the larger of their 99th percentiles in µs, how many
# operations there were, and seconds. Fails where fio met an error.
fio_figures() {
    python3 -c '
import json, sys
text = open(sys.argv[1]).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
assert job["error"] == 0, job["error"]
sides = [side for side in (job["read"], job["write"]) if side["total_ios"]]
p99 = max(side["clat_ns"]["percentile"]["99.000000"] for side in sides) / 1e3
print(sum(side["iops"] for side in sides), p99, sum(side["total_ios"] for side in sides),
      max(side["runtime"] for side in sides) / 1e3, sep="\t")
' "$1"
}

# speed_table FILE OURS OTHER...: medians with the least and the most, and how many times each other side ours is.
speed_table() {
    python3 - "$@" <<'PYTHON'
import statistics, sys
found = {}
for line in open(sys.argv[1]):
    job, depth, side, rate, p99 = line.rstrip("\n").split("\t")
    found.setdefault((job, depth), {}).setdefault(side, []).append((float(rate), p99))
ours, *others = sides = sys.argv[2:]
heads = ["job", "depth", *(f"{side}, /s (least to most), p99" for side in sides), *(f"of {side}" for side in others)]
print("| " + " | ".join(heads) + " |")
print("| --- " * len(heads) + "|")
for (job, depth), by_side in found.items():
    cells, medians = [], {}
    for side in sides:
        if side not in by_side:
            cells.append("")
            continue
        rates = [rate for rate, _ in by_side[side]]
        medians[side] = statistics.median(rates)
        cell = f"{medians[side]:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        p99 = [float(p99) for _, p99 in by_side[side] if p99 != "-"]
        cells.append(cell + (f", {statistics.median(p99):,.0f} µs" if p99 else ""))
    cells += [f"{medians[ours] / medians[side]:.2f}" if side in medians else "" for side in others]
    print(f"| {job} | {depth} | " + " | ".join(cells) + " |")
PYTHON
}

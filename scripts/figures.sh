#!/usr/bin/env bash
# Measures everything anew, on a machine that does nothing else, and writes it into docs/BENCHMARKS.md and docs/cases.svg.
# FIGURES=FILE takes the cases from an earlier `cachalot bench --case all --json`, PEERS=FILE the other caches from an
# earlier scripts/peers.sh. MEASURED names the commit they are of, NOTE is put beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --package cachalot-cli
mkdir -p target/figures
figures="${FIGURES:-target/figures/cases.json}"
peers="${PEERS:-target/figures/peers.md}"
[ -n "${FIGURES:-}" ] || target/release/cachalot bench --case all --json >"$figures"
[ -n "${PEERS:-}" ] || scripts/peers.sh >"$peers"
target/release/cachalot bench --from "$figures" --goals --chart docs/cases.svg >target/figures/goals.md
MEASURED="${MEASURED:-$(git log -1 --format=%h)}" python3 - "$figures" "$peers" <<'PYTHON'
import json, os, sys

def human(nanos):
    for below, unit, name in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms"), (float("inf"), 1e9, "s")):
        if nanos < below:
            return f"{nanos / unit:.3g} {name}"

def row(case):
    latency, store, memory = case["latencies"]["operation"], case["store"], case["memory"]
    spread, resident = case["ns_per_op"], memory["resident_overhead_per_4k"]
    cells = [
        case["label"],
        f"{human(spread['median'])} ({human(spread['min'])} to {human(spread['max'])})",
        human(case["cpu_ns_per_op"]["median"]), human(case["all_cpu_ns_per_op"]["median"]),
        f"{case['ops_per_second']['median']:,.0f}",
        *(human(latency[name]["median"]) for name in ("p50_ns", "p99_ns", "p999_ns", "max_ns")),
        "-" if case["hit_ratio"] is None else f"{case['hit_ratio']:.3f}",
        f"{store['read_bytes_mean']:.0f}" if store["operations"]["reads"] else "-",
        f"{store['write_bytes_mean']:.0f}" if store["operations"]["writes"] else "-",
        f"{memory['charged_overhead_per_4k']:.0f}, {'-' if resident is None else f'{resident:.0f}'}",
    ]
    return "| " + " | ".join(cells) + " |\n"

cases = json.load(open(sys.argv[1]))["cases"]
head = ["case", "an operation", "CPU", "CPU of all threads", "op/s", "p50", "p99", "p99.9", "max", "hits",
        "bytes of a store read", "of a store write", "overhead of 4 KiB, charged and grown"]
note = os.environ.get("NOTE", "")
figures = f"Measured at commit `{os.environ['MEASURED']}`. {note}".rstrip() + "\n\n" + open("target/figures/goals.md").read()
figures += "\nEvery case:\n\n| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|\n"
figures += "".join(map(row, cases)) + "\n"
for case in cases:
    for what, spread in case["more"].items():
        figures += f"- {case['label']}: {what}: {spread['median']:.1f} ({spread['min']:.1f} to {spread['max']:.1f})\n"
    for what, latency in case["latencies"].items():
        if what != "operation":
            quantiles = ", ".join(f"{name} {human(latency[key]['median'])}" for name, key in
                                  (("p50", "p50_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns"), ("max", "max_ns")))
            figures += f"- {case['label']}: {what}: {quantiles}\n"
peers = open(sys.argv[2]).read().split("\nWhat they are spared")[0]
page = open("docs/BENCHMARKS.md").read()
for name, text in (("figures", figures), ("peers", peers)):
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, rest = page.split(begin)
    page = before + begin + text.rstrip() + "\n" + end + rest.split(end)[1]
open("docs/BENCHMARKS.md", "w").write(page)
PYTHON

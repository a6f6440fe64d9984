//! Cachalot's hits and absorbed writes beside those of other caches in memory, with 4 KiB blocks and nothing evicted.
//!
//! The others keep whole blocks and know of no store: that is what they are spared, and the report says so.

mod caches;
mod timing;

use std::io::Write;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use caches::{BLOCK_BYTES, PEERS, Peer};
use timing::{Kind, Lap, Work, fill, lap};

/// Footprints in blocks: 4 MiB, which stays in the processor's caches more or less, and 256 MiB, which does not.
const FOOTPRINTS: [(&str, u64); 2] = [("4 MiB", 1 << 10), ("256 MiB", 1 << 16)];

/// Hits and absorbed writes of Cachalot beside those of other caches.
#[derive(Debug, Parser)]
struct Args {
    /// How often each loop runs; the figures are medians.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long each runs.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One loop of one cache.
#[derive(Debug, Serialize)]
struct Measured {
    cache: &'static str,
    lacks: &'static str,
    operation: &'static str,
    footprint: &'static str,
    threads: usize,
    /// Medians over the runs; with several threads, operations of all of them.
    ops_per_second: f64,
    ns_per_op: f64,
    cpu_ns_per_op: f64,
    ns_per_op_min: f64,
    ns_per_op_max: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let mut all = Vec::new();
    for (footprint, blocks) in FOOTPRINTS {
        for peer in &PEERS {
            let cache = (peer.start)(blocks)?;
            fill(&*cache, blocks);
            for (operation, kind) in [("hit", Kind::Hit), ("write", Kind::Write)] {
                for threads in [1, 2] {
                    let work = Work {
                        kind,
                        blocks,
                        threads,
                        time: Duration::try_from_secs_f64(args.seconds)?,
                    };
                    let laps: Vec<Lap> =
                        (0..args.runs.max(1)).map(|_| lap(&*cache, work)).collect();
                    let missed: u64 = laps.iter().map(|lap| lap.missed).sum();
                    if missed > 0 {
                        return Err(format!("{} lost {missed} blocks", peer.name).into());
                    }
                    all.push(measured(peer, (operation, footprint, threads), &laps));
                }
            }
        }
    }
    let text = if args.json {
        serde_json::to_string_pretty(&all)? + "\n"
    } else {
        table(&all)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn measured(
    peer: &Peer,
    (operation, footprint, threads): (&'static str, &'static str, usize),
    laps: &[Lap],
) -> Measured {
    let sorted = |of: fn(&Lap) -> f64| {
        let mut figures: Vec<f64> = laps.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures
    };
    let middle = |figures: &[f64]| figures.get(figures.len() / 2).copied().unwrap_or(0.0);
    let rates = sorted(|lap| lap.per_second);
    // What one caller waits for one operation.
    let nanos = |per_second: Option<&f64>| {
        per_second.map_or(0.0, |rate| threads as f64 * 1e9 / rate.max(1e-9))
    };
    Measured {
        cache: peer.name,
        lacks: peer.lacks,
        operation,
        footprint,
        threads,
        ops_per_second: middle(&rates),
        ns_per_op: nanos(Some(&middle(&rates))),
        cpu_ns_per_op: middle(&sorted(|lap| lap.cpu_nanos)),
        ns_per_op_min: nanos(rates.last()),
        ns_per_op_max: nanos(rates.first()),
    }
}

/// The figures as a table of Markdown, and what each cache is spared.
fn table(all: &[Measured]) -> String {
    let mut text = format!(
        "{BLOCK_BYTES} bytes at random, nothing evicted; ns of an operation as its caller waits (processor time)\n\n\
         | cache | footprint | hit, 1 thread | hit, 2 threads | write, 1 thread | write, 2 threads |\n\
         | --- | --- | --- | --- | --- | --- |\n"
    );
    for (footprint, _) in FOOTPRINTS {
        for peer in &PEERS {
            let cell = |operation: &str, threads: usize| {
                let found = all.iter().find(|one| {
                    (one.cache, one.footprint, one.operation, one.threads)
                        == (peer.name, footprint, operation, threads)
                });
                found.map_or_else(String::new, |one| {
                    format!("{:.0} ({:.0})", one.ns_per_op, one.cpu_ns_per_op)
                })
            };
            let cells = [("hit", 1), ("hit", 2), ("write", 1), ("write", 2)]
                .map(|(operation, threads)| cell(operation, threads))
                .join(" | ");
            text.push_str(&format!("| {} | {footprint} | {cells} |\n", peer.name));
        }
    }
    text.push_str("\nWhat they are spared:\n");
    for peer in PEERS.iter().filter(|peer| !peer.lacks.is_empty()) {
        text.push_str(&format!("- {}: {}\n", peer.name, peer.lacks));
    }
    text
}

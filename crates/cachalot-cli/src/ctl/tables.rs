//! Answers as people read them.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::protocol::{
    Answer, DrainProgress, GatewayStats, LimitsNow, VolumeDump, VolumeStats, numbers,
};
use crate::output::{escaped, human_bytes};

/// One answer, of one or more lines.
pub(super) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Stats(stats) => stats_text(stats),
        Answer::Dump { volumes } => volumes.iter().map(dump_text).collect(),
        Answer::Flushed { volumes } => format!("stored: {}\n", volumes.join(", ")),
        Answer::Limits(limits) => limits_text(limits),
        Answer::Draining(progress_now) => format!("{}\n", progress(progress_now)),
        Answer::Drained {} => "all is stored, and the server ends\n".to_owned(),
        Answer::Released { volumes } => {
            let line = |released: &super::protocol::Released| {
                let kept = human_bytes(released.kept_bytes);
                format!("{}: {kept} kept\n", released.volume)
            };
            volumes.iter().map(line).collect()
        }
        Answer::Modes { volumes } => volumes
            .iter()
            .map(|volume| format!("{}: {}\n", volume.volume, volume.mode.name()))
            .collect(),
        Answer::Failed(error) => format!("{error}\n"),
    }
}

/// One line: what is left, how fast it goes, how long it will take, and what stands in the way.
pub(crate) fn progress(progress: &DrainProgress) -> String {
    let mut line = format!(
        "{} left, {:.1} MiB/s",
        human_bytes(progress.left_bytes),
        progress.bytes_per_second / 1_048_576.0
    );
    if let Some(seconds) = progress.seconds_left {
        line.push_str(&format!(", {seconds:.0} s to go"));
    }
    if let Some(stall) = &progress.stall {
        line.push_str(&format!("; the store failed: {stall}"));
    }
    line
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    let columns = header.len();
    table.load_preset(presets::NOTHING).set_header(header);
    for number in 1..columns {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn shown(name: &str, number: u64) -> String {
    if name.ends_with("_bytes") || name.contains("_bytes_") {
        human_bytes(number)
    } else if let Some(millis) = name.strip_suffix("_nanos").map(|_| number / 1_000_000) {
        format!("{millis} ms")
    } else {
        number.to_string()
    }
}

/// The numbers of all volumes, and of the whole cache.
struct Numbers {
    volumes: Vec<Vec<(String, u64)>>,
    all: Vec<(String, u64)>,
}

impl Numbers {
    fn of<T: Serialize>(stats: &GatewayStats, all: &T, of: impl Fn(&VolumeStats) -> T) -> Self {
        let volumes = stats.volumes.iter();
        Self {
            volumes: volumes.map(|volume| numbers(&of(volume))).collect(),
            all: numbers(all),
        }
    }

    fn add_rows(&self, table: &mut Table) {
        for (row, (name, all)) in self.all.iter().enumerate() {
            let volumes = self.volumes.iter();
            let cells = volumes
                .map(|volume| volume.get(row).map_or(0, |(_, number)| *number))
                .chain([*all])
                .map(|number| shown(name, number));
            table.add_row(std::iter::once(name.clone()).chain(cells));
        }
    }
}

fn header(first: &str, stats: &GatewayStats) -> Vec<String> {
    let names = stats.volumes.iter().map(|volume| volume.volume.clone());
    std::iter::once(first.to_owned()).chain(names).collect()
}

fn volumes_table(stats: &GatewayStats) -> Table {
    let mut about = table(header("", stats));
    let mut row = |name: &str, cell: &dyn Fn(&VolumeStats) -> String| {
        let cells = stats.volumes.iter().map(cell);
        about.add_row(std::iter::once(name.to_owned()).chain(cells));
    };
    row("size", &|volume| human_bytes(volume.size_bytes));
    row("mode", &|volume| volume.mode.name().to_owned());
    row("hit ratio", &|volume| {
        format!("{:.1} %", volume.counters.hit_ratio() * 100.0)
    });
    row("store", &|volume| {
        let error = volume.last_error.as_deref();
        error.map_or_else(|| "well".to_owned(), escaped)
    });
    about
}

fn requests_table(stats: &GatewayStats) -> Table {
    let columns = [
        "volume",
        "request",
        "done",
        "failed",
        "under way",
        "half below",
        "99 % below",
    ];
    let mut requests = table(columns.map(str::to_owned).into());
    for volume in &stats.volumes {
        for (kind, request) in &volume.requests {
            requests.add_row([
                volume.volume.clone(),
                kind.clone(),
                request.done.to_string(),
                request.failed.to_string(),
                request.under_way.to_string(),
                format!("{} us", request.p50_micros),
                format!("{} us", request.p99_micros),
            ]);
        }
    }
    requests
}

fn stats_text(stats: &GatewayStats) -> String {
    let cache = &stats.cache;
    let mut columns = header("counted", stats);
    columns.push("all".to_owned());
    let mut counted = table(columns);
    Numbers::of(stats, &cache.counters, |volume| volume.counters).add_rows(&mut counted);
    Numbers::of(stats, &cache.gauges, |volume| volume.gauges).add_rows(&mut counted);
    format!(
        "{}\n\n{}\n\n{counted}\n\nserving for {:.0} s, {} clients; {} of {} used, {} of {} dirty; {} requests wait for room\n",
        volumes_table(stats),
        requests_table(stats),
        stats.uptime_seconds,
        stats.clients,
        human_bytes(cache.charged.room.unsigned_abs()),
        human_bytes(stats.limits.max_bytes),
        human_bytes(cache.charged.dirty.unsigned_abs()),
        human_bytes(stats.limits.max_dirty_bytes),
        cache.waiting_claims,
    )
}

fn limits_text(limits: &LimitsNow) -> String {
    let mut shown = table(vec!["limit".to_owned(), String::new()]);
    shown.add_row(["memory".to_owned(), human_bytes(limits.max_bytes)]);
    shown.add_row(["objects".to_owned(), limits.max_objects.to_string()]);
    shown.add_row(["dirty".to_owned(), human_bytes(limits.max_dirty_bytes)]);
    shown.add_row([
        "dirty, before writing back".to_owned(),
        human_bytes(limits.target_dirty_bytes),
    ]);
    let age = std::time::Duration::from_millis(limits.max_dirty_age_millis);
    shown.add_row(["age".to_owned(), format!("{age:?}")]);
    shown.add_row([
        "writebacks at once".to_owned(),
        limits.writebacks_in_flight.to_string(),
    ]);
    format!("{shown}\n")
}

fn dump_text(dump: &VolumeDump) -> String {
    let mut text = format!(
        "{}: {} objects, {} buffers\n",
        dump.volume, dump.objects, dump.buffers
    );
    for object in &dump.listed {
        let known = match (object.exists, object.complete) {
            (true, true) => "exists, complete",
            (true, false) => "exists",
            (false, true) => "absent",
            (false, false) => "unknown",
        };
        let name = escaped(&object.object.to_string());
        text.push_str(&format!("  {name}: {known}\n"));
        for buffer in &object.buffers {
            let (start, end) = (buffer.range.start(), buffer.range.end());
            text.push_str(&format!("    {start}..{end} {:?}\n", buffer.state));
        }
    }
    let more = dump.objects.saturating_sub(dump.listed.len());
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

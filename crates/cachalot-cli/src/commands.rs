//! The commands that answer at once: volumes and listings.

use comfy_table::{CellAlignment, Table, presets};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::cli::{LsArgs, VolumeCommand};
use crate::error::CliError;
use crate::output::{escaped, human_bytes, print, print_json};
use crate::store::{Listing, OpenFor};
use crate::volume::{VolumeInfo, VolumeLine, VolumeState, Volumes};

/// How many objects are asked for their size at once.
const CALLS_IN_FLIGHT: usize = 16;

/// Runs `cachalot volume ...`.
pub(crate) async fn volume(command: VolumeCommand) -> Result<(), CliError> {
    match command {
        VolumeCommand::Create {
            store,
            volume,
            size,
            layout,
            lock,
        } => {
            let layout = layout.layout()?;
            let volumes = Volumes::open(&store, OpenFor::Adding)?;
            let create = async |volumes: &Volumes| volumes.create(&volume, size, layout).await;
            volumes.alone(&volume, lock.break_lock, create).await?;
            print(&format!("created {volume}, {}\n", human_bytes(size)))
        }
        VolumeCommand::List { store, json } => {
            let lines = Volumes::open(&store, OpenFor::Reading)?.list().await?;
            if json {
                return print_json(&lines);
            }
            print(&volume_table(&lines))
        }
        VolumeCommand::Info {
            store,
            volume,
            json,
        } => {
            let info = Volumes::open(&store, OpenFor::Reading)?
                .info(&volume)
                .await?;
            if json {
                return print_json(&info);
            }
            print(&info_text(&info))
        }
        VolumeCommand::Resize {
            store,
            volume,
            size,
            shrink,
            lock,
        } => {
            let volumes = Volumes::open(&store, OpenFor::Changing)?;
            let resize = async |volumes: &Volumes| volumes.resize(&volume, size, shrink).await;
            let old = volumes.alone(&volume, lock.break_lock, resize).await?;
            print(&format!(
                "resized {volume} from {} to {}\n",
                human_bytes(old),
                human_bytes(size)
            ))
        }
        VolumeCommand::Remove {
            store,
            volume,
            lock,
        } => {
            let volumes = Volumes::open(&store, OpenFor::Changing)?;
            let remove = async |volumes: &Volumes| volumes.remove(&volume).await;
            let objects = volumes.alone(&volume, lock.break_lock, remove).await?;
            print(&format!(
                "removed {volume} and its {objects} data objects\n"
            ))
        }
    }
}

/// An object as `ls` shows it.
#[derive(Serialize)]
struct ObjectLine {
    name: String,
    size_bytes: u64,
}

/// Runs `cachalot ls`.
pub(crate) async fn ls(args: LsArgs) -> Result<(), CliError> {
    let backend = args.store.open(OpenFor::Reading)?;
    let mut all = Vec::new();
    let mut pages = Listing::new(&*backend, args.prefix);
    while let Some(page) = pages.next_page().await? {
        let lines: Vec<ObjectLine> = stream::iter(page)
            .map(async |name| {
                let stat = backend
                    .stat(name.clone())
                    .await
                    .map_err(CliError::store(format!("look at object {name}")))?;
                Ok::<_, CliError>(ObjectLine {
                    name: name.to_string(),
                    size_bytes: stat.size_bytes,
                })
            })
            .buffered(CALLS_IN_FLIGHT)
            .try_collect()
            .await?;
        if args.json {
            all.extend(lines);
        } else {
            let text: String = lines
                .iter()
                .map(|line| format!("{:>16} {}\n", line.size_bytes, escaped(&line.name)))
                .collect();
            print(&text)?;
        }
    }
    if args.json {
        return print_json(&all);
    }
    Ok(())
}

const fn state_text(state: Option<VolumeState>) -> &'static str {
    match state {
        Some(VolumeState::Complete) => "complete",
        Some(VolumeState::Importing) => "incomplete: its import has not ended",
        Some(VolumeState::Removing) => "half removed",
        None => "damaged header",
    }
}

fn volume_table(lines: &[VolumeLine]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["NAME", "SIZE", "OBJECT SIZE", "STATE"]);
    for line in lines {
        table.add_row([
            line.name.to_string(),
            line.size_bytes.map(human_bytes).unwrap_or_default(),
            line.layout
                .map(|layout| human_bytes(layout.object_size()))
                .unwrap_or_default(),
            state_text(line.state).to_owned(),
        ]);
    }
    for number in [1, 2] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

fn info_text(info: &VolumeInfo) -> String {
    let layout = &info.layout;
    let mut text = format!(
        "name          {}\nstore         {}\nstate         {}\nsize          {} ({} bytes)\nobject size   {}\n",
        info.name,
        info.store,
        state_text(Some(info.state)),
        human_bytes(info.size_bytes),
        info.size_bytes,
        human_bytes(layout.object_size()),
    );
    let more = format!(
        "stripe unit   {}\nstripe count  {}\ncreated       {}\ndata objects  {}, {} with their holes\n",
        human_bytes(layout.stripe_unit()),
        layout.stripe_count(),
        info.created,
        info.objects,
        human_bytes(info.object_bytes),
    );
    text.push_str(&more);
    if info.shrink_unfinished {
        text.push_str("note          a shrink was interrupted; the next resize ends it\n");
    }
    if info.one_header_copy_only {
        text.push_str("note          one of the header's two copies is damaged or missing; the next resize mends it\n");
    }
    text
}

//! Fuzz targets of the command line and the configuration file.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use cachalot::{CacheConfig, Limits, OFFSET_BYTES_MAX};
use clap::Parser;

use super::{
    CacheArgs, Cli, Command, LayoutArgs, StepList, VolumeCommand, config_of, parse_count,
    parse_exponent, parse_share, parse_size, parse_time,
};
use crate::ctl::protocol::{REQUEST_BYTES_MAX, Request};
use crate::error::{CliError, exit_code};
use crate::fuzz::{Choices, check_line};
use crate::output::{human_bytes, one_line};
use crate::{bench, simulate, usage_line};

/// Arguments are taken or refused in one line, and what they say of the cache, the layout and the workload is sound or
/// refused as a mistake of the caller.
pub(crate) fn command_line(input: &[u8]) {
    let words = input.split(|byte| *byte == 0);
    let words = words.map(|word| OsString::from_vec(word.to_vec()));
    let cli = match Cli::try_parse_from(std::iter::once("cachalot".into()).chain(words)) {
        Ok(cli) => cli,
        Err(error) => return check_line(&usage_line(&error)),
    };
    match cli.command {
        Command::Volume { command } => match command {
            VolumeCommand::Create { size, layout, .. } => {
                assert!(size <= OFFSET_BYTES_MAX);
                check_layout(layout);
            }
            VolumeCommand::Resize { size, .. } => assert!(size <= OFFSET_BYTES_MAX),
            VolumeCommand::List { .. }
            | VolumeCommand::Info { .. }
            | VolumeCommand::Remove { .. } => {}
        },
        Command::Import(args) => {
            check_layout(args.layout);
            check_cache(&args.cache);
        }
        Command::Export(args) => check_cache(&args.cache),
        Command::Ls(_) => {}
        Command::Serve(args) => {
            assert!(args.size.is_some() || !args.create);
            check_layout(args.layout);
            check_cache(&args.cache);
        }
        Command::Ctl(args) => {
            let request = args.command.request();
            let line = serde_json::to_string(&request).unwrap();
            assert!(line.len() <= REQUEST_BYTES_MAX);
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        Command::Bench(args) => {
            check_layout(args.layout);
            check_cache(&args.cache);
            match bench::workload_of(&args, None) {
                Ok(workload) => {
                    let bytes = workload.set_bytes() * workload.sets as u64;
                    assert!((1..=workload.working_set_bytes).contains(&bytes));
                }
                Err(error) => check_refusal(&error),
            }
        }
        Command::Simulate(args) => assert!(args.only.is_none() || args.seed.is_some()),
    }
}

fn check_refusal(error: &CliError) {
    check_line(&one_line(&error.to_string()));
    assert_eq!(error.exit_code(), exit_code::USAGE, "{error}");
}

fn check_layout(layout: LayoutArgs) {
    match layout.layout() {
        Ok(layout) => assert_eq!(layout.object_size() % layout.stripe_unit(), 0),
        Err(error) => check_refusal(&error),
    }
}

fn check_cache(cache: &CacheArgs) {
    if cache.config.is_some() {
        return;
    }
    match cache.config() {
        Ok(config) => check_config(&config),
        Err(error) => check_refusal(&error),
    }
}

/// A configuration that is serialized and read again is the same, as JSON and as TOML.
fn check_config(config: &CacheConfig) {
    let text = serde_json::to_string(config).unwrap();
    assert_eq!(serde_json::from_str::<CacheConfig>(&text).unwrap(), *config);
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let lines: String = fields
        .iter()
        .filter(|(_, value)| {
            value
                .as_u64()
                .is_none_or(|number| i64::try_from(number).is_ok())
        })
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    let read = config_of(&lines).unwrap();
    let expected = CacheConfig {
        max_objects: read.max_objects,
        arbiters: read.arbiters,
        writebacks_in_flight: read.writebacks_in_flight,
        ..config.clone()
    };
    assert_eq!(read, expected);
}

/// A configuration file is refused in one line, or gives limits that are sound or refused.
pub(crate) fn config_file(input: &[u8]) {
    let config = match config_of(&String::from_utf8_lossy(input)) {
        Ok(config) => config,
        Err(message) => return check_line(&message),
    };
    check_config(&config);
    match Limits::try_from(&config) {
        Ok(limits) => {
            assert!(limits.target_dirty_bytes <= limits.max_dirty_bytes);
            assert!(limits.max_dirty_bytes <= limits.max_bytes);
        }
        Err(error) => check_refusal(&error.into()),
    }
}

/// What the command takes as a size, time, count or share is in bounds, and reads the same when it is printed.
pub(crate) fn sizes_and_times(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match parse_size(&text) {
        Ok(size) => check_size(size),
        Err(error) => check_line(&one_line(&error)),
    }
    check_size(Choices::new(input).number() & OFFSET_BYTES_MAX);
    match parse_time(&text) {
        Ok(time) => {
            let printed = humantime::format_duration(time).to_string();
            assert_eq!(parse_time(&printed), Ok(time), "{printed}");
        }
        Err(error) => check_line(&one_line(&error)),
    }
    match parse_count(&text) {
        Ok(count) => {
            assert!((1..=65_536).contains(&count));
            assert_eq!(parse_count(&count.to_string()), Ok(count));
        }
        Err(error) => check_line(&one_line(&error)),
    }
    for (parse, max) in [(parse_share as fn(&str) -> _, 1.0), (parse_exponent, 10.0)] {
        match parse(&text) {
            Ok(number) => {
                assert!((0.0..=max).contains(&number));
                assert_eq!(parse(&number.to_string()), Ok(number));
            }
            Err(error) => check_line(&one_line(&error)),
        }
    }
}

fn check_size(size: u64) {
    assert!(size <= OFFSET_BYTES_MAX);
    assert_eq!(parse_size(&size.to_string()), Ok(size));
    assert_eq!(parse_size(&format!("{size} B")), Ok(size));
    for (unit, bits) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] {
        assert_eq!(
            parse_size(&format!("{}{unit}", size >> bits)),
            Ok(size >> bits << bits)
        );
    }
    // People are shown one digit behind the point.
    if let Ok(shown) = parse_size(&human_bytes(size)) {
        assert!(
            shown.abs_diff(size) <= size / 20 + 1,
            "{size} is shown as {shown}"
        );
    }
}

/// A list of steps is printed as it is read, and the command that a failure prints plays the steps that are left.
pub(crate) fn step_lists(input: &[u8]) {
    match String::from_utf8_lossy(input).parse::<StepList>() {
        Ok(list) => assert_eq!(list.to_string().parse(), Ok(list)),
        Err(error) => check_line(&one_line(&error)),
    }
    let mut choices = Choices::new(input);
    let (seed, steps) = (choices.number(), choices.below(1_000_001) as u32);
    let is_whole = choices.one_in(4);
    let mut list = StepList(std::collections::BTreeSet::new());
    while !choices.is_over() {
        list.0.insert(choices.number() as u32);
    }
    let only = (!is_whole).then_some(list);
    let line = simulate::replay(seed, steps, only.clone());
    let Command::Simulate(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
        panic!("another command is printed: {line}");
    };
    assert_eq!(
        (args.seed, args.steps, args.log),
        (Some(seed), steps, !is_whole)
    );
    assert_eq!(args.only, only);
    assert!(args.runs.is_none() && args.seconds.is_none());
}

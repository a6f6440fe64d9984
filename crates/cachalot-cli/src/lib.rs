//! The `cachalot` command: volumes on a store, copied in and out through the cache, and benchmarks of it.

mod bench;
mod cached;
mod cli;
mod commands;
mod ctl;
mod error;
#[cfg(test)]
mod fuzz;
#[cfg(all(fuzzing, not(test)))]
#[doc(hidden)]
pub mod fuzz;
mod output;
mod serve;
mod simulate;
mod store;
mod striped;
mod transfer;
mod volume;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::error::{CliError, exit_code};
use crate::output::one_line;

/// The threads that drive commands; benchmarks and stores have their own.
const WORKER_THREADS: usize = 2;

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(cli.command));
            // A thread that waits for the standard input would never end.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(CliError::Failed(format!(
            "cannot start the runtime: {error}"
        ))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                output::note(&format!("cachalot: {}", one_line(&error.to_string())));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), CliError> {
    if let Command::Bench(args) = command {
        // It clears away what it made, so it ends itself when it is interrupted.
        return Box::pin(bench::bench(*args)).await;
    }
    if let Command::Serve(args) = command {
        // It stores what it holds when it is interrupted.
        return Box::pin(serve::serve(*args)).await;
    }
    tokio::select! {
        result = dispatch(command) => result,
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Err(CliError::Interrupted),
            Err(error) => Err(CliError::Failed(format!("cannot wait for signals: {error}"))),
        },
    }
}

async fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Volume { command } => Box::pin(commands::volume(command)).await,
        Command::Import(args) => Box::pin(transfer::import(args)).await,
        Command::Export(args) => Box::pin(transfer::export(args)).await,
        Command::Ctl(args) => Box::pin(ctl::ctl(args)).await,
        Command::Ls(args) => Box::pin(commands::ls(args)).await,
        Command::Bench(args) => Box::pin(bench::bench(*args)).await,
        Command::Serve(args) => Box::pin(serve::serve(*args)).await,
        Command::Simulate(args) => tokio::task::spawn_blocking(move || simulate::simulate(&args))
            .await
            .unwrap_or_else(|_| Err(CliError::Failed("the simulation panicked".to_owned()))),
    }
}

/// Says in one line what is wrong with the command line; help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    let asked_for_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if asked_for_help {
        error.print().unwrap_or_default();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit_code::USAGE));
    }
    output::note(&format!("cachalot: {}", usage_line(error)));
    ExitCode::from(exit_code::USAGE)
}

/// Folds the report of the command line's parser into one line.
fn usage_line(error: &clap::Error) -> String {
    let report = error.to_string();
    let told = report.split("\n\nUsage:").next().unwrap_or(&report);
    let told = told
        .split("\n\nFor more information")
        .next()
        .unwrap_or(told);
    let told = told.strip_prefix("error: ").unwrap_or(told);
    let words: Vec<&str> = told.split_whitespace().collect();
    format!("{} (--help tells more)", one_line(&words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let error = Cli::try_parse_from(["cachalot", "volume", "create", "memory:"]).unwrap_err();
        assert_eq!(
            usage_line(&error),
            "the following required arguments were not provided: --size <SIZE> <VOLUME> (--help tells more)"
        );
        let error = Cli::try_parse_from(["cachalot", "ls", "ftp:x"]).unwrap_err();
        let line = usage_line(&error);
        assert!(line.contains("no kind of store called `ftp:`"), "{line}");
    }
}

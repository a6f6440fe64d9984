//! The `cachalot` command; everything is in the library beside it, where fuzzers reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    cachalot_cli::main()
}

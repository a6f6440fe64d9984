//! Measuring in a process of its own, which finds nothing that another measurement left.

use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use crate::error::CliError;

/// Runs this program with `options`, which make it print JSON; `label` names it where that fails.
pub(crate) fn run_apart<T: DeserializeOwned>(
    label: &str,
    options: &[String],
) -> Result<T, CliError> {
    let failed = |what: &str| CliError::Failed(format!("{label} {what}"));
    let this = std::env::current_exe().map_err(CliError::file("find", "this program"))?;
    let output = Command::new(this)
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(CliError::file("run", "this program"))?;
    if !output.status.success() {
        return Err(failed("failed"));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(&format!("made no sense: {error}")))
}

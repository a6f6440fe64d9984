//! The one place that writes to the standard output and the standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::CliError;

/// Writes `text` to the standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(output_error)
}

/// Writes `value` to the standard output as JSON, in lines that a person can read too.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::Failed(format!("cannot write JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Writes a line to the standard error; when even that is closed there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "{text}").unwrap_or_default();
}

/// Tells whoever reads the standard output apart from a disk that is full.
pub(crate) fn output_error(error: io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::OutputClosed;
    }
    CliError::File {
        doing: "write to",
        path: "the standard output".into(),
        source: error,
    }
}

/// A text as one line: without the line breaks and other characters that a terminal would obey.
pub(crate) fn one_line(text: &str) -> String {
    let plain = |letter: char| match letter {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
        letter => letter,
    };
    text.chars().map(plain).collect()
}

/// A name with what a terminal would obey in it written as `\n` or `\u{1b}`, so that it keeps to its line.
pub(crate) fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// A size as people write it.
pub(crate) fn human_bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

//! `cachalot ctl`: asks a running `cachalot serve`, over its admin socket.

pub(crate) mod args;
pub(crate) mod protocol;
mod tables;

pub(crate) use tables::progress as progress_line;

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use self::args::CtlArgs;
use self::protocol::{Answer, ControlError, ErrorKind};
use crate::error::CliError;
use crate::output::{note, one_line, print};
use crate::serve::default_admin_path;

/// No answer is longer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How long a server may take to be gone once it has said that it ends.
const END_MAX: Duration = Duration::from_secs(10);

/// Runs `cachalot ctl`.
pub(crate) async fn ctl(args: CtlArgs) -> Result<(), CliError> {
    let path = socket(&args)?;
    let stream = UnixStream::connect(&path)
        .await
        .map_err(CliError::file("connect to", &path))?;
    let (input, mut output) = stream.into_split();
    let mut line = serde_json::to_string(&args.command.request()).map_err(not_said)?;
    line.push('\n');
    // A server that turns this away answers, and may not listen.
    output.write_all(line.as_bytes()).await.unwrap_or_default();
    let mut input = BufReader::new(input);
    loop {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(ANSWER_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await;
        read.map_err(CliError::file("read from", &path))?;
        if line.last() != Some(&b'\n') {
            return Err(CliError::Failed(format!(
                "the server at {} went away before it answered",
                path.display()
            )));
        }
        let answer = serde_json::from_slice(&line).map_err(not_said)?;
        if ends_the_server(&answer) {
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut input, &mut nowhere);
            tokio::time::timeout(END_MAX, rest)
                .await
                .map(drop)
                .unwrap_or_default();
        }
        if let Answer::Failed(error) = answer {
            return Err(ControlError::new(error.kind, one_line(&error.message)).into());
        }
        if args.json {
            print(&String::from_utf8_lossy(&line))?;
        } else if let Answer::Draining(progress) = &answer {
            note(&tables::progress(progress));
        } else {
            print(&tables::answer(&answer))?;
        }
        if !matches!(answer, Answer::Draining(_)) {
            return Ok(());
        }
    }
}

/// Whether the server's process is about to end, and the connection with it.
fn ends_the_server(answer: &Answer) -> bool {
    match answer {
        Answer::Failed(error) => error.kind == ErrorKind::Lost,
        Answer::Drained {} => true,
        Answer::Stats(_)
        | Answer::Dump { .. }
        | Answer::Flushed { .. }
        | Answer::Limits(_)
        | Answer::Draining(_)
        | Answer::Released { .. }
        | Answer::Modes { .. } => false,
    }
}

fn not_said(error: serde_json::Error) -> CliError {
    let message = format!("the server and this command do not speak alike: {error}");
    ControlError::new(ErrorKind::Malformed, message).into()
}

fn socket(args: &CtlArgs) -> Result<PathBuf, CliError> {
    let known = args.socket.clone();
    known
        .or_else(|| default_admin_path(&args.listen))
        .ok_or_else(|| {
            CliError::Usage("say with --socket where the server's admin socket is".into())
        })
}

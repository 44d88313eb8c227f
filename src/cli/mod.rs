//! The command line: what was typed ([`args`], [`words`]), what it asks of a daemon ([`tables`]), and how the answer looks
//! ([`print`](mod@print)).

pub mod args;
pub mod bench;
pub mod capture;
pub mod container;
pub mod demo;
pub mod doctor;
mod lab;
pub mod print;
pub mod replay;
pub mod run;
pub mod tables;
pub mod trace;
pub mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Command, CommandLine};

use crate::cni;
use crate::control::client::ClientError;
use crate::error::{SetupError, errno};

/// Runs what was typed.
///
/// # Errors
/// As the command.
pub fn run(line: &CommandLine) -> Result<(), CliError> {
    let out = &mut io::stdout().lock();
    match &line.command {
        Command::Run { config } => run::run(config, &line.global),
        Command::Demo => {
            line.global.asks_nobody("usage: silk-vtep demo [--json]")?;
            demo::run(line.global.json)
        }
        Command::Doctor { config } => doctor::run(config.as_deref(), &line.global, out),
        Command::Bench(args) => {
            line.global
                .asks_nobody("usage: silk-vtep bench [--json] [--html FILE] ...")?;
            bench::run(args, line.global.json)
        }
        Command::Replay(args) => replay::run(args, &line.global, out),
        Command::Container(command) => container::run(command, &line.global, out),
        Command::Cni => {
            line.global.none(
                "the network's configuration on standard input",
                "usage: silk-vtep cni < CONFIGURATION",
            )?;
            Ok(cni::run()?)
        }
        Command::Capture(args) => capture::run(args, &line.global),
        Command::Trace(args) => trace::run(args, &line.global, out),
        Command::Table(command) => tables::run(command, &line.global, out),
    }
}

/// Why a command ended without doing what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong usage: exit status 2. One line that says what is wrong, one that says what is accepted.
    #[error(transparent)]
    Usage(#[from] words::UsageError),
    /// Anything else: exit status 1.
    #[error("{0}")]
    Failed(String),
    /// The CNI plugin has said it where a runtime reads it: exit status 1.
    #[error("standard output says why")]
    Told,
    /// Nobody reads our output any more, as with `| head`: no error, and no reason to go on.
    #[error("standard output is closed")]
    ClosedPipe,
}

impl CliError {
    /// Tells standard error, and gives the exit status.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::ClosedPipe => ExitCode::SUCCESS,
            Self::Usage(_) => self.tell(2),
            Self::Failed(_) => self.tell(1),
            Self::Told => ExitCode::FAILURE,
        }
    }

    fn tell(&self, status: u8) -> ExitCode {
        warn(self);
        ExitCode::from(status)
    }
}

impl From<cni::Told> for CliError {
    fn from(cni::Told: cni::Told) -> Self {
        Self::Told
    }
}

impl From<SetupError> for CliError {
    fn from(error: SetupError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("write to standard output: {}", errno(&error))),
        }
    }
}

/// A line on standard error. If that is closed too there is nobody left to tell.
pub(crate) fn warn(message: impl std::fmt::Display) {
    drop(writeln!(io::stderr(), "silk-vtep: {message}"));
}

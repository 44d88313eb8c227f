//! `silk-vtep run`: the daemon in the foreground, its log on standard error, one line on standard output when it is ready.

use std::io::{self, Write};
use std::path::Path;

use tracing_subscriber::EnvFilter;

use super::CliError;
use super::args::Global;
use super::words::UsageError;
use crate::daemon::{self, DaemonError, RunOptions};

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Wrong usage, and as [`daemon::run`].
pub fn run(config: &Path, global: &Global) -> Result<(), CliError> {
    check_usage(global).map_err(|wrong| UsageError {
        wrong: format!("run: {wrong}"),
        usage: "usage: silk-vtep run --config FILE [--socket PATH]",
    })?;
    log_to_stderr();
    let options = RunOptions {
        config: config.to_owned(),
        socket: global.socket.clone(),
    };
    Ok(daemon::run(&options, announce)?)
}

/// Options of the other commands that mean nothing here.
fn check_usage(global: &Global) -> Result<(), &'static str> {
    if global.name.is_some() {
        return Err("the device's name is `name` in the configuration, not `--name`");
    }
    if global.json {
        return Err("it prints one line and a log, no JSON (`-j`)");
    }
    Ok(())
}

/// Whoever started us may read one line and close the pipe; that is no reason to end.
fn announce(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `RUST_LOG` chooses what is logged; without it, what an operator should know.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second subscriber is refused; the first one serves as well.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(io::stderr)
        .try_init();
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        Self::Failed(error.to_string())
    }
}

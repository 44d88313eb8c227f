//! One `silk-vtep run` process in a cell's namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::LabError;
use super::ground::CellPlan;
use super::interrupt::Interrupt;
use super::process::Process;
use crate::control::Client;
use crate::error::{SetupError, errno};
use crate::netlink::Namespace;

/// Set-up takes well under a second; a busy host gets ten.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// A running daemon with its configuration, socket and output in a directory of its own. Stopped when dropped.
#[derive(Debug)]
pub(in crate::cli) struct Daemon {
    process: Process,
    directory: PathBuf,
}

impl Daemon {
    /// Starts the daemon of `cell` in `host` with the text of its configuration file; does not wait until it is ready.
    ///
    /// # Errors
    /// If its files cannot be written or the process not be started.
    pub(in crate::cli) fn start(
        cell: &CellPlan,
        configuration: &str,
        host: &Namespace,
        directory: PathBuf,
    ) -> Result<Self, SetupError> {
        let label = format!("daemon of cell {}", cell.name);
        let failed = |error: io::Error| SetupError::new("start", &label, errno(&error));
        fs::write(config_path(&directory), configuration).map_err(failed)?;
        let command = command(&directory).map_err(failed)?;
        let process = Process::start(command, host, &directory.join("daemon"), &label)?;
        Ok(Self { process, directory })
    }

    /// Waits for the one line that says it is ready.
    ///
    /// # Errors
    /// If it ends first, with the last thing it said; or takes too long.
    pub(in crate::cli) fn wait_until_ready(
        &mut self,
        interrupt: &Interrupt,
    ) -> Result<(), LabError> {
        let ready = interrupt.wait_for(READY_PATIENCE, || {
            if self.process.said().ends_with('\n') {
                return Ok(Some(()));
            }
            self.check()?;
            Ok(None)
        })?;
        let seconds = READY_PATIENCE.as_secs();
        ready.ok_or_else(|| {
            let said = self.process.last_words();
            self.process
                .failed(format_args!("not ready within {seconds} s: {said}"))
                .into()
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it ended, with the last thing it said.
    pub(in crate::cli) fn check(&mut self) -> Result<(), SetupError> {
        self.process.check()
    }

    /// A connection to its control socket.
    ///
    /// # Errors
    /// If nobody listens there.
    pub(in crate::cli) fn client(&self) -> Result<Client, SetupError> {
        Client::connect(&self.socket())
    }

    /// Where it listens.
    pub(in crate::cli) fn socket(&self) -> PathBuf {
        socket_path(&self.directory)
    }

    /// Process id, for those who look at it with other tools.
    pub(in crate::cli) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGTERM, and waits for the orderly end.
    ///
    /// # Errors
    /// If it ended otherwise, or only by SIGKILL.
    pub(in crate::cli) fn stop(self) -> Result<(), SetupError> {
        self.process.stop(|status: ExitStatus| status.success())
    }
}

fn command(directory: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("run")
        .arg("--config")
        .arg(config_path(directory))
        .arg("--socket")
        .arg(socket_path(directory));
    Ok(command)
}

fn config_path(directory: &Path) -> PathBuf {
    directory.join("cell.toml")
}

fn socket_path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

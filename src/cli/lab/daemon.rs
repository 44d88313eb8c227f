//! One `silk-vtep run` process in a cell's namespace.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LabError;
use super::ground::CellPlan;
use super::interrupt::Interrupt;
use crate::control::Client;
use crate::error::{SetupError, errno};
use crate::netlink::Namespace;

/// Set-up takes well under a second; a busy host gets ten.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// After SIGTERM; then comes SIGKILL.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const STOP_TICK: Duration = Duration::from_millis(10);

/// A running daemon with its configuration, socket and output in a directory of its own. Stopped when dropped.
#[derive(Debug)]
pub(in crate::cli) struct Daemon {
    child: Child,
    directory: PathBuf,
    label: String,
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
        let child = host.run(|| command(&directory)?.spawn())?.map_err(failed)?;
        Ok(Self {
            child,
            directory,
            label,
        })
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
            if self.said("stdout").ends_with('\n') {
                return Ok(Some(()));
            }
            self.check()?;
            Ok(None)
        })?;
        let seconds = READY_PATIENCE.as_secs();
        ready.ok_or_else(|| {
            self.failed(format_args!(
                "not ready within {seconds} s: {}",
                self.last_words()
            ))
            .into()
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it ended, with the last thing it said.
    pub(in crate::cli) fn check(&mut self) -> Result<(), SetupError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(self.failed(format_args!("ended, {status}: {}", self.last_words())))
            }
            Err(error) => Err(self.failed(errno(&error))),
        }
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
        self.child.id()
    }

    /// SIGTERM, and waits for the orderly end.
    ///
    /// # Errors
    /// If it ended otherwise, or only by SIGKILL.
    pub(in crate::cli) fn stop(mut self) -> Result<(), SetupError> {
        let stopped = self.end();
        let failed = |cause: String| SetupError::new("stop", &self.label, cause);
        match stopped {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(failed(format!("{status}: {}", self.last_words()))),
            Ok(None) => Err(failed(format!(
                "killed, {} s after SIGTERM",
                STOP_PATIENCE.as_secs()
            ))),
            Err(error) => Err(failed(errno(&error))),
        }
    }

    /// SIGTERM, a bounded wait, SIGKILL. `None` if it took the last. Does nothing to a process that ended before.
    fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        // A child that was not waited for keeps its id, so the signal cannot reach another process.
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(STOP_TICK);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }

    fn said(&self, stream: &str) -> String {
        fs::read_to_string(self.directory.join(stream)).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        self.said("stderr")
            .lines()
            .last()
            .unwrap_or("it said nothing")
            .to_owned()
    }

    fn failed(&self, cause: impl std::fmt::Display) -> SetupError {
        SetupError::new("run", &self.label, cause)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            crate::cli::warn(SetupError::new("stop", &self.label, errno(&error)));
        }
    }
}

fn command(directory: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("run")
        .arg("--config")
        .arg(config_path(directory))
        .arg("--socket")
        .arg(socket_path(directory))
        .stdin(Stdio::null())
        .stdout(File::create(directory.join("stdout"))?)
        .stderr(File::create(directory.join("stderr"))?)
        // Ctrl-C at the terminal is for whoever started us, who then stops the daemons in order.
        .process_group(0);
    Ok(command)
}

fn config_path(directory: &Path) -> PathBuf {
    directory.join("cell.toml")
}

fn socket_path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

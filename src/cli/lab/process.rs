//! A child process in a cell's namespace, with what it says in files.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{SetupError, errno};
use crate::netlink::Namespace;

/// After SIGTERM; then comes SIGKILL.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const STOP_TICK: Duration = Duration::from_millis(10);

/// A running child. Stopped when dropped.
#[derive(Debug)]
pub(in crate::cli) struct Process {
    child: Child,
    label: String,
    output: PathBuf,
}

impl Process {
    /// Starts `command` in `host`. What it says goes to `output` with `.out` and `.err` after it; `label` is for errors.
    ///
    /// # Errors
    /// If there is no such program, or its output cannot be written.
    pub(in crate::cli) fn start(
        mut command: Command,
        host: &Namespace,
        output: &Path,
        label: impl Into<String>,
    ) -> Result<Self, SetupError> {
        let (label, output) = (label.into(), output.to_owned());
        let spawned = host.run(|| {
            command
                .stdin(Stdio::null())
                .stdout(File::create(output.with_extension("out"))?)
                .stderr(File::create(output.with_extension("err"))?)
                // Ctrl-C at the terminal is for whoever started us, who then stops its children in order.
                .process_group(0)
                .spawn()
        })?;
        match spawned {
            Ok(child) => Ok(Self {
                child,
                label,
                output,
            }),
            Err(error) => Err(SetupError::new("start", label, errno(&error))),
        }
    }

    /// Process id, for those who look at it with other tools.
    pub(in crate::cli) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output.
    pub(in crate::cli) fn said(&self) -> String {
        fs::read_to_string(self.output.with_extension("out")).unwrap_or_default()
    }

    /// The last line it wrote to standard error.
    pub(in crate::cli) fn last_words(&self) -> String {
        let said = fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
        said.lines().last().unwrap_or("it said nothing").to_owned()
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

    /// What went wrong with it.
    pub(in crate::cli) fn failed(&self, cause: impl Display) -> SetupError {
        SetupError::new("run", &self.label, cause)
    }

    /// SIGTERM, and waits for the end. `is_orderly` says whether it ended as it should.
    ///
    /// # Errors
    /// If it ended otherwise, or only by SIGKILL.
    pub(in crate::cli) fn stop(
        mut self,
        is_orderly: impl FnOnce(ExitStatus) -> bool,
    ) -> Result<(), SetupError> {
        let stopped = self.end();
        let failed = |cause: String| SetupError::new("stop", &self.label, cause);
        match stopped {
            Ok(Some(status)) if is_orderly(status) => Ok(()),
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
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            crate::cli::warn(SetupError::new("stop", &self.label, errno(&error)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that runs `script` here, with a directory for its output.
    fn shell(script: &str) -> (Process, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a writable /tmp");
        let here = Namespace::current().expect("/proc is mounted");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let output = directory.path().join("shell");
        let process = Process::start(command, &here, &output, "shell").expect("sh");
        (process, directory)
    }

    fn ended(process: &mut Process) -> SetupError {
        loop {
            match process.check() {
                Ok(()) => thread::sleep(STOP_TICK),
                Err(error) => return error,
            }
        }
    }

    #[test]
    fn an_end_is_told_with_the_last_words() {
        let (mut process, _directory) = shell("echo out; echo first >&2; echo last >&2; exit 3");
        let error = ended(&mut process).to_string();
        assert!(
            error.contains("run shell") && error.contains("exit status: 3: last"),
            "{error}"
        );
        assert_eq!(process.said(), "out\n");
    }

    #[test]
    fn a_stop_is_in_order_if_the_status_is() {
        use std::os::unix::process::ExitStatusExt;
        let (process, _directory) = shell("exec sleep 1000");
        let by_signal = |status: ExitStatus| status.signal() == Some(Signal::SIGTERM as i32);
        assert_eq!(process.stop(by_signal).err(), None);
        let (process, _directory) = shell("exec sleep 1000");
        assert!(process.stop(|status| status.success()).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_not_started() {
        let here = Namespace::current().expect("/proc is mounted");
        let directory = tempfile::tempdir().expect("a writable /tmp");
        let command = Command::new("no-such-program");
        let output = directory.path().join("none");
        let error = Process::start(command, &here, &output, "nobody").expect_err("not there");
        assert_eq!(error.to_string(), "start nobody: ENOENT");
    }
}

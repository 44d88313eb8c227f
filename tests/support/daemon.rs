//! One `silk-vtep run` process of a cell, with its configuration, control socket and output in a directory of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{BOUND, Namespace, Process, Result, Wait, ensure, wait_until};

/// The daemon under test.
const SILK_VTEP: &str = env!("CARGO_BIN_EXE_silk-vtep");

/// Runs at the most once at a time; killed on drop.
pub(crate) struct Daemon {
    host: Arc<Namespace>,
    directory: TempDir,
    process: Option<Process>,
}

/// How a run ended that was not asked to.
pub(crate) struct Ended {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// What it said on standard error.
    pub(crate) stderr: String,
}

impl Daemon {
    /// A daemon for `host`, not started. Its state goes where its socket is.
    pub(crate) fn new(host: &Arc<Namespace>, config: &str) -> Result<Self> {
        let daemon = Self {
            host: Arc::clone(host),
            directory: TempDir::new()?,
            process: None,
        };
        daemon.write_config(config)?;
        Ok(daemon)
    }

    /// Replaces the configuration file; a running daemon reads it at the next reload.
    pub(crate) fn write_config(&self, config: &str) -> Result {
        Ok(fs::write(self.path("config.toml"), config)?)
    }

    /// The configuration file as it is now.
    pub(crate) fn config(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("config.toml"))?)
    }

    /// Starts it and waits for the line that says it is ready.
    pub(crate) fn start(&mut self) -> Result {
        self.start_under(&[])
    }

    /// The same, with words such as `setpriv ...` before its command.
    pub(crate) fn start_under(&mut self, prefix: &[&str]) -> Result {
        self.spawn(prefix)?;
        wait_until("the daemon is ready", || {
            if let Some(status) = self.process()?.ended()? {
                return Err(format!(
                    "the daemon ended before it was ready: {status}\n{}",
                    self.stderr()
                )
                .into());
            }
            let said = self.stdout();
            Ok(Wait::unless(said.ends_with('\n'), || {
                format!("stdout {said:?}, stderr {}", self.stderr())
            }))
        })
    }

    /// Runs it, with words such as `setpriv ...` before it, until it ends by itself.
    pub(crate) fn run_to_its_end(&mut self, prefix: &[&str]) -> Result<Ended> {
        self.spawn(prefix)?;
        self.wait_for_its_end()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_for_its_end(&mut self) -> Result<Ended> {
        let waited = self.process()?.wait();
        self.process = None;
        let stderr = self.stderr();
        let status = waited.map_err(|error| format!("{error}\nstderr: {stderr}"))?;
        Ok(Ended { status, stderr })
    }

    /// SIGTERM, and waits for the orderly end.
    pub(crate) fn terminate(&mut self) -> Result {
        self.process()?.signal(Signal::SIGTERM)?;
        let ended = self.wait_for_its_end()?;
        ensure!(
            ended.status.success(),
            "after SIGTERM: {}\n{}",
            ended.status,
            ended.stderr
        );
        Ok(())
    }

    /// SIGKILL: no chance to clean up.
    pub(crate) fn kill9(&mut self) -> Result {
        self.process()?.signal(Signal::SIGKILL)?;
        self.wait_for_its_end()?;
        Ok(())
    }

    /// SIGHUP: reads the configuration again. Returns at once.
    pub(crate) fn hang_up(&mut self) -> Result {
        self.process()?.signal(Signal::SIGHUP)
    }

    /// The running process.
    pub(crate) fn process(&mut self) -> Result<&mut Process> {
        Ok(self.process.as_mut().ok_or("the daemon is not running")?)
    }

    /// Runs one command of the command line against this daemon's socket and returns what it printed.
    pub(crate) fn ctl(&self, arguments: &str) -> Result<String> {
        let socket = self.socket();
        let socket = socket
            .to_str()
            .ok_or("a temporary directory has a plain name")?;
        self.host
            .exec(&format!("{SILK_VTEP} {arguments} --socket {socket}"))
    }

    /// Runs a command that must fail with this exit status, and say this on standard error.
    pub(crate) fn refuses(&self, arguments: &str, status: i32, expected: &str) -> Result {
        let said = self.ctl(arguments).err();
        let said = said
            .ok_or_else(|| format!("{arguments}: taken"))?
            .to_string();
        ensure!(
            said.contains(expected) && said.contains(&format!("exit status: {status}")),
            "{arguments}: {said}"
        );
        Ok(())
    }

    /// Starts one command of the command line against this daemon's socket and leaves it running. What it says on standard error goes to
    /// the file `errors`.
    pub(crate) fn start_ctl(&self, arguments: &str, errors: &Path) -> Result<Process> {
        let mut command = self.host.command(SILK_VTEP);
        command.args(arguments.split_whitespace());
        command.arg("--socket").arg(self.socket());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(errors)?)
            .spawn()?;
        Ok(Process::new(child))
    }

    /// Starts a shell in the host's namespace, where `$SILK_VTEP` is the command line and `$SOCKET` this daemon's socket. What it says on
    /// standard output goes to the file `output`.
    pub(crate) fn start_shell(&self, script: &str, output: &Path) -> Result<Process> {
        let mut command = self.host.command("sh");
        command.args(["-c", script]);
        command
            .env("SILK_VTEP", SILK_VTEP)
            .env("SOCKET", self.socket());
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Process::new(child))
    }

    /// Sends one request to the control socket and returns the value that answers it.
    pub(crate) fn request(&self, request: &Value) -> Result<Value> {
        let mut answer = self.conversation(&[&request.to_string()])?.remove(0);
        let value = answer.get_mut("ok").map(Value::take);
        Ok(value.ok_or_else(|| format!("the daemon refused: {answer}"))?)
    }

    /// Sends lines on one connection to the control socket, each after the answer to the one before; returns the answers.
    pub(crate) fn conversation(&self, lines: &[&str]) -> Result<Vec<Value>> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(BOUND))?;
        let mut answers = BufReader::new(stream.try_clone()?).lines();
        let answer_to = |line: &&str| {
            stream.write_all(format!("{line}\n").as_bytes())?;
            let answer = answers
                .next()
                .ok_or_else(|| format!("no answer to {line:.100}"))?;
            Ok(serde_json::from_str(&answer?)?)
        };
        lines.iter().map(answer_to).collect()
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// What this run has said on standard output.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.path("stdout")).unwrap_or_default()
    }

    /// What this run has said on standard error.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// The names in its directory that it made and that must not outlive it.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !["config.toml", "stdout", "stderr"].contains(&name.as_str()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn spawn(&mut self, prefix: &[&str]) -> Result {
        ensure!(self.process.is_none(), "the daemon runs already");
        let child = self
            .command(prefix)
            .stdin(Stdio::null())
            .stdout(File::create(self.path("stdout"))?)
            .stderr(File::create(self.path("stderr"))?)
            .spawn()?;
        self.process = Some(Process::new(child));
        Ok(())
    }

    fn command(&self, prefix: &[&str]) -> Command {
        let mut words = prefix.iter().copied().chain([SILK_VTEP]);
        let mut command = self.host.command(words.next().unwrap_or(SILK_VTEP));
        command.args(words);
        command
            .arg("run")
            .arg("--config")
            .arg(self.path("config.toml"));
        command.arg("--socket").arg(self.socket());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

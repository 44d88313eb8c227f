//! One call of the plugin, as a runtime makes it.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stage::{Stage, Waiting};
use crate::cli::lab::LabError;
use crate::error::{SetupError, errno};

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Version,
}

/// A call for one container. The calling thread must be in the cell's namespace.
pub(super) struct Call<'a> {
    pub(super) verb: Verb,
    pub(super) stage: &'a Stage,
    pub(super) container: &'a Waiting,
}

impl Call<'_> {
    /// Makes it: how long it took from before the process was started until it ended, and what it said.
    ///
    /// # Errors
    /// It could not be started, or failed.
    pub(super) fn make(&self) -> Result<(Duration, Value), LabError> {
        let mut command = self.command()?;
        let started = Instant::now();
        let output = self
            .output(&mut command)
            .map_err(|error| self.failed(&errno(&error)))?;
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(self.failed(&format!("{said}{told}")).into());
        }
        // DEL says nothing.
        Ok((took, serde_json::from_str(&said).unwrap_or_default()))
    }

    fn command(&self) -> Result<Command, SetupError> {
        let program = std::env::current_exe().map_err(|error| self.failed(&errno(&error)))?;
        let mut command = Command::new(program);
        command
            .arg("cni")
            .env_clear()
            .env("CNI_COMMAND", super::verb_name(self.verb))
            .env("CNI_CONTAINERID", &self.container.id)
            .env("CNI_NETNS", self.container.namespace.path())
            .env("CNI_IFNAME", "eth0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(path) = &self.stage.cni_path {
            command.env("CNI_PATH", path);
        }
        Ok(command)
    }

    fn output(&self, command: &mut Command) -> std::io::Result<Output> {
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        // One that ended before it read says why.
        let written = stdin.map(|mut stdin| stdin.write_all(self.stage.configuration.as_bytes()));
        let output = child.wait_with_output()?;
        if output.status.success() {
            written.transpose()?;
        }
        Ok(output)
    }

    fn failed(&self, cause: &str) -> SetupError {
        let verb = super::verb_name(self.verb);
        SetupError::new(
            "call the CNI plugin",
            format!("{verb} {}", self.container.id),
            cause.trim_end(),
        )
    }
}

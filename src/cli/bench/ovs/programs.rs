//! The programs of Open vSwitch, where they are installed.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{SetupError, errno};

/// Where distributions keep what only root needs, which may not be in the path of others.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where each program is.
#[derive(Debug)]
pub(in crate::cli::bench) struct Programs {
    /// The switch.
    pub(super) vswitchd: PathBuf,
    /// Its database.
    pub(super) server: PathBuf,
    /// What makes an empty database.
    pub(super) tool: PathBuf,
    /// What changes it.
    pub(super) vsctl: PathBuf,
    /// What speaks to the switch itself.
    pub(super) appctl: PathBuf,
}

impl Programs {
    /// Looks for them in PATH and where the system keeps its own.
    ///
    /// # Errors
    /// With those that are missing.
    pub(in crate::cli::bench) fn find() -> Result<Self, SetupError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from));
        Self::find_in(&dirs.collect::<Vec<_>>())
    }

    fn find_in(dirs: &[PathBuf]) -> Result<Self, SetupError> {
        let mut missing = Vec::new();
        let mut find = |name: &'static str| {
            let mut files = dirs.iter().map(|dir| dir.join(name));
            let found = files.find(|file| file.is_file());
            found.unwrap_or_else(|| {
                missing.push(name);
                PathBuf::new()
            })
        };
        let programs = Self {
            vswitchd: find("ovs-vswitchd"),
            server: find("ovsdb-server"),
            tool: find("ovsdb-tool"),
            vsctl: find("ovs-vsctl"),
            appctl: find("ovs-appctl"),
        };
        match missing.is_empty() {
            true => Ok(programs),
            false => Err(SetupError::new("find", missing.join(", "), "not installed")
                .mend("--against ovs needs Open vSwitch: apt install openvswitch-switch")),
        }
    }

    /// The switch's, as in `3.1.0`.
    ///
    /// # Errors
    /// If it does not run.
    pub(in crate::cli::bench) fn version(&self) -> Result<String, SetupError> {
        let output = Command::new(&self.vswitchd)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let output = output.map_err(|error| {
            SetupError::new("run", self.vswitchd.display().to_string(), errno(&error))
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(version_of(&text).unwrap_or("of unknown version").to_owned())
    }
}

/// Of `ovs-vswitchd (Open vSwitch) 3.1.0`, and what may follow on other lines.
fn version_of(text: &str) -> Option<&str> {
    text.lines().next()?.split_ascii_whitespace().last()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_mend() {
        let directory = tempfile::tempdir().expect("a writable /tmp");
        for name in ["ovs-vswitchd", "ovs-vsctl", "ovs-appctl"] {
            fs::write(directory.path().join(name), "").expect("a writable directory");
        }
        let dirs = [PathBuf::from("/nowhere"), directory.path().to_owned()];
        let error = Programs::find_in(&dirs)
            .expect_err("two are missing")
            .to_string();
        assert_eq!(
            error,
            "find ovsdb-server, ovsdb-tool: not installed \
             (--against ovs needs Open vSwitch: apt install openvswitch-switch)"
        );
        for name in ["ovsdb-server", "ovsdb-tool"] {
            fs::write(directory.path().join(name), "").expect("a writable directory");
        }
        let programs = Programs::find_in(&dirs).expect("all are there");
        assert_eq!(programs.tool, directory.path().join("ovsdb-tool"));
    }

    #[test]
    fn the_version_is_the_last_word_of_the_first_line() {
        let text = "ovs-vswitchd (Open vSwitch) 3.1.0\nDPDK 22.11.3\n";
        assert_eq!(version_of(text), Some("3.1.0"));
        assert_eq!(version_of(""), None);
    }
}

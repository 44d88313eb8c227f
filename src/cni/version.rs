//! Versions of the specification.

use std::io::{Read, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::environment::Command;
use super::error::CniError;

/// A version of the CNI specification that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// 0.3.1 with a misprint (its only change).
    V0_3_0,
    /// Results with interfaces; configurations in lists.
    V0_3_1,
    /// CHECK.
    V0_4_0,
    /// Addresses without `version`.
    V1_0_0,
    /// STATUS and GC; the MTU in results.
    V1_1_0,
}

const ALL: [Version; 5] = [
    Version::V0_3_0,
    Version::V0_3_1,
    Version::V0_4_0,
    Version::V1_0_0,
    Version::V1_1_0,
];

impl Version {
    /// The newest.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version called `name`, if it is spoken here.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|version| version.name() == name)
    }

    /// The version of a configuration that says `name`. One that says nothing, or an empty string, is of 0.1.0, which had no such key
    /// (libcni's `ConfigDecoder`).
    ///
    /// # Errors
    /// It is not spoken here.
    pub(super) fn of_config(name: Option<&str>) -> Result<Self, CniError> {
        let accepted = || ALL.map(Self::name).join(", ");
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Self::named(name).ok_or_else(|| {
                let accepted = accepted();
                CniError::version(format!("config is `{name}`, plugin supports {accepted}"))
            }),
            None => Err(CniError::version(format!(
                "config has no `cniVersion` and so is of 0.1.0, plugin supports {} (give the network configuration one of these as `cniVersion`)",
                accepted()
            ))),
        }
    }

    /// Whether it has `command`.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn check_has(self, command: Command) -> Result<(), CniError> {
        let since = match command {
            Command::Add | Command::Del | Command::Version => Self::V0_3_0,
            Command::Check => Self::V0_4_0,
            Command::Status | Command::Gc => Self::V1_1_0,
        };
        if self >= since {
            return Ok(());
        }
        Err(CniError::version(format!(
            "config version {} does not have {}, which is of {}",
            self.name(),
            command.name(),
            since.name()
        )))
    }
}

/// Answers VERSION, in the version asked in if it is spoken here.
pub(super) fn write(stdin: &mut dyn Read, stdout: &mut dyn Write) -> Result<(), CniError> {
    let mut bytes = Vec::new();
    // The runtime may send nothing, or what only a later version understands.
    let asked = stdin.read_to_end(&mut bytes).ok();
    let asked = asked.and_then(|_| serde_json::from_slice::<Value>(&bytes).ok());
    let asked = asked
        .as_ref()
        .and_then(|asked| asked["cniVersion"].as_str());
    let version = asked.and_then(Version::named).unwrap_or(Version::NEWEST);
    let answer = json!({
        "cniVersion": version.name(),
        "supportedVersions": ALL.map(Version::name),
    });
    print(&answer, stdout).map_err(|error| CniError::io("write the answer").because(error))
}

/// Writes JSON as Silk's plugin does: indented by four spaces.
pub(super) fn print(value: &impl Serialize, out: &mut dyn Write) -> Result<(), String> {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
    value
        .serialize(&mut serializer)
        .map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    let written = out.write_all(&bytes).and_then(|()| out.flush());
    written.map_err(|error| crate::error::errno(&error))
}

//! What a runtime says in the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use super::attachment::Attachment;
use super::error::CniError;
use crate::netlink::Namespace;
use crate::netlink::container::unfit_name;

/// The variables of the specification. One that is not UTF-8 is as good as none.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    command: String,
    container_id: String,
    netns: String,
    ifname: String,
    /// CNI_ARGS, as given.
    pub(super) args: String,
    /// CNI_PATH: where plugins are.
    pub(super) path: Vec<PathBuf>,
}

/// CNI_COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

const COMMANDS: [Command; 6] = [
    Command::Add,
    Command::Del,
    Command::Check,
    Command::Status,
    Command::Gc,
    Command::Version,
];

impl Command {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    /// Whether it is about one container.
    fn has_container(self) -> bool {
        match self {
            Self::Add | Self::Del | Self::Check => true,
            Self::Status | Self::Gc | Self::Version => false,
        }
    }
}

impl Environment {
    /// Asks `variable` for each.
    pub(super) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            let value = variable(name).and_then(|value| value.into_string().ok());
            value.unwrap_or_default()
        };
        let path = variable("CNI_PATH").unwrap_or_default();
        Self {
            command: text("CNI_COMMAND"),
            container_id: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            ifname: text("CNI_IFNAME"),
            args: text("CNI_ARGS"),
            path: std::env::split_paths(&path).collect(),
        }
    }

    pub(super) fn command(&self) -> Result<Command, CniError> {
        let known = COMMANDS
            .into_iter()
            .find(|known| known.name() == self.command);
        known.ok_or_else(|| match self.command.as_str() {
            "" => CniError::environment("required env variables [CNI_COMMAND] missing"),
            unknown => CniError::environment(format!("unknown CNI_COMMAND: {unknown}")).because(
                format!("accepted: {}", COMMANDS.map(Command::name).join(", ")),
            ),
        })
    }

    /// # Errors
    /// Those that `command` needs are not all there.
    pub(super) fn check_present(&self, command: Command) -> Result<(), CniError> {
        if !command.has_container() {
            return Ok(());
        }
        let netns_is_needed = command != Command::Del;
        let needed = [
            ("CNI_CONTAINERID", self.container_id.is_empty()),
            ("CNI_NETNS", self.netns.is_empty() && netns_is_needed),
            ("CNI_IFNAME", self.ifname.is_empty()),
        ];
        let missing = needed.into_iter().filter(|(_, missing)| *missing);
        let missing: Vec<_> = missing.map(|(name, _)| name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(",");
        Err(CniError::environment(format!(
            "required env variables [{missing}] missing"
        )))
    }

    /// # Errors
    /// One is not what it may be.
    pub(super) fn check_words(&self, command: Command) -> Result<(), CniError> {
        if !command.has_container() {
            return Ok(());
        }
        if !is_identifier(&self.container_id) {
            let wrong = format!(
                "invalid characters in CNI_CONTAINERID `{}`",
                self.container_id
            );
            return Err(CniError::environment(wrong).because(IDENTIFIER));
        }
        match unfit_name(&self.ifname) {
            None => Ok(()),
            Some(cause) => {
                let wrong = format!("CNI_IFNAME `{}` {cause}", self.ifname);
                Err(CniError::environment(wrong))
            }
        }
    }

    /// The container's link, in the network called `network`.
    pub(super) fn attachment(&self, network: &str) -> Attachment {
        Attachment {
            network: network.to_owned(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// CNI_NETNS, as given; may be empty for DEL.
    pub(super) fn netns(&self) -> &str {
        &self.netns
    }

    /// The container's namespace.
    ///
    /// # Errors
    /// CNI_NETNS is none, or the host's own.
    pub(super) fn namespace(&self) -> Result<Namespace, CniError> {
        let wrong = |details: String| {
            CniError::environment(format!("invalid CNI_NETNS `{}`", self.netns)).because(details)
        };
        // A bare name would be looked up where `ip netns` keeps its own.
        if !self.netns.contains('/') {
            return Err(wrong("not a path".to_owned()));
        }
        let namespace = Namespace::open(&self.netns).map_err(|error| wrong(error.to_string()))?;
        let host = Namespace::current().map_err(|error| wrong(error.to_string()))?;
        if host == namespace {
            return Err(CniError::host_namespace());
        }
        Ok(namespace)
    }
}

/// What an identifier is.
pub(super) const IDENTIFIER: &str =
    "accepted: letters, digits, `_`, `.` and `-`, the first a letter or a digit";

/// A container's id or a network's name, as libcni takes them. Both become names of files.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

//! The error object, and the specification's codes.

use std::fmt::Display;
use std::io::Write;

use serde_json::json;

use super::version::{Version, print};
use crate::control::client::ClientError;
use crate::control::container_store::StoreError;
use crate::error::SetupError;

/// CNI's error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    code: u32,
    msg: String,
    details: String,
}

// "Well-known Error Codes" of the specification; 8 is libcni's.
const VERSION: u32 = 1;
const ENVIRONMENT: u32 = 4;
const IO: u32 = 5;
const DECODING: u32 = 6;
const CONFIG: u32 = 7;
const NAMESPACE: u32 = 8;
const TRY_AGAIN: u32 = 11;
const UNAVAILABLE: u32 = 50;
const LIMITED: u32 = 51;
/// The first that is a plugin's own. Silk's plugin has no other.
const OWN: u32 = 100;

impl CniError {
    fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// A version that is not spoken here, or does not have the command.
    pub(super) fn version(details: String) -> Self {
        Self::new(VERSION, "incompatible CNI versions").because(details)
    }

    /// A variable that is missing or wrong; `msg` names it.
    pub(super) fn environment(msg: impl Into<String>) -> Self {
        Self::new(ENVIRONMENT, msg)
    }

    /// Standard input or output failed.
    pub(super) fn io(msg: &str) -> Self {
        Self::new(IO, msg)
    }

    /// What was given is not what it should be, as a text.
    pub(super) fn decoding(what: &str) -> Self {
        Self::new(DECODING, format!("decode {what}"))
    }

    /// The configuration says what cannot be.
    pub(super) fn config(details: impl Display) -> Self {
        Self::new(CONFIG, "invalid network configuration").because(details)
    }

    /// CNI_NETNS is the host's own namespace.
    pub(super) fn host_namespace() -> Self {
        Self::new(
            NAMESPACE,
            "plugin's netns and netns from CNI_NETNS should not be the same",
        )
    }

    /// ADD cannot be served now.
    pub(super) fn unavailable(error: &Self) -> Self {
        Self::new(UNAVAILABLE, "plugin not available").because(error.text())
    }

    /// ADD cannot be served now, and containers that are there may have lost their network.
    pub(super) fn limited(error: &Self) -> Self {
        Self::new(LIMITED, "plugin not available, limited connectivity").because(error.text())
    }

    /// One of our own steps, in Silk's words: `set up host`.
    pub(super) fn step(msg: &str, details: impl Display) -> Self {
        Self::new(OWN, msg).because(details)
    }

    /// A step for which somebody else took too long, or too much.
    pub(super) fn try_again(msg: &str, details: impl Display) -> Self {
        Self::new(TRY_AGAIN, msg).because(details)
    }

    /// The step `msg` met the daemon.
    pub(super) fn daemon(msg: &str, error: &ClientError) -> Self {
        match error {
            ClientError::Refused(failure) if failure.is_busy() => Self::try_again(msg, error),
            ClientError::Refused(_) | ClientError::Socket(_) => Self::step(msg, error),
        }
    }

    /// The step `msg` met the container store.
    pub(super) fn store(msg: &str, error: &StoreError) -> Self {
        match error {
            StoreError::Busy(_) => Self::try_again(msg, error),
            StoreError::Failed(_) => Self::step(msg, error),
        }
    }

    /// A link or an address could not be set up, in Silk's words for the step that failed.
    pub(super) fn wiring(error: &SetupError) -> Self {
        let msg = match error.operation.as_str() {
            "create veth pair" => "create veth pair",
            "set up host" => "set up host",
            "set up container" => "set up container",
            // What is wrong with container and address before anything is done.
            _ => "create config",
        };
        Self::step(msg, error)
    }

    /// Says why.
    pub(super) fn because(mut self, details: impl Display) -> Self {
        self.details = details.to_string();
        self
    }

    /// Says what could not be taken back, if anything.
    pub(super) fn and_undone(mut self, undone: Result<(), Self>) -> Self {
        if let Err(failure) = undone {
            self.details = format!("{}; left behind: {}", self.details, failure.text());
        }
        self
    }

    /// On one line.
    pub(super) fn text(&self) -> String {
        match self.details.as_str() {
            "" => self.msg.clone(),
            details => format!("{}: {details}", self.msg),
        }
    }

    /// Writes the object.
    pub(super) fn write(&self, version: Version, out: &mut dyn Write) -> Result<(), String> {
        let mut object = json!({
            "cniVersion": version.name(),
            "code": self.code,
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            object["details"] = self.details.as_str().into();
        }
        print(&object, out)
    }
}

//! One rule, and its parts.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::wire::GroupId;

/// Whether packets of a group may get to a destination, at ports of a protocol. Ordered by all that names a rule, then by its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyRule {
    /// The destinations; host bits are zero.
    pub destination: IpNet,
    /// Who speaks; never zero.
    pub group: GroupId,
    /// The protocol.
    pub proto: Proto,
    /// The destination ports; of ICMP all.
    pub ports: Ports,
    /// What becomes of what matches.
    pub action: Action,
}

impl PolicyRule {
    pub(super) fn truncated(&self) -> Self {
        Self {
            destination: self.destination.trunc(),
            ..*self
        }
    }
}

/// A protocol that rules know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
}

impl Proto {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The one that is written so.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proto| proto.name() == name)
    }

    /// False for ICMP.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        match self {
            Self::Tcp | Self::Udp => true,
            Self::Icmp => false,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a rule, or the default, does. Ordered as rules are looked at.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuses.
    Deny,
    /// Lets in.
    #[default]
    Accept,
}

impl Action {
    /// As a rule has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Accept => "accept",
        }
    }

    /// True for what a rule has that does not say it.
    #[must_use]
    pub fn is_accept(&self) -> bool {
        *self == Self::Accept
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A range of ports, both ends among them; written `80-90`, or `80` if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Text that is no range of ports: what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParsePortsError(String);

impl Ports {
    /// Every port, 0 too: a rule that names none.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// From `first` to `last`; `None` if they are reversed.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The lowest.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// True for every port.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromStr for Ports {
    type Err = ParsePortsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| ParsePortsError(format!("`{text}` {what}"));
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            Ok(_) | Err(_) => Err(wrong("is no port of 1 to 65535, nor two with a dash")),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        Self::new(first, last)
            .ok_or_else(|| wrong(&format!("is reversed (accepted: {last}-{first})")))
    }
}

impl TryFrom<String> for Ports {
    type Error = ParsePortsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["1", "80", "80-90", "1-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!("80-80".parse::<Ports>().unwrap().to_string(), "80");
    }

    #[test]
    fn ports_that_are_none_say_why() {
        for (text, told) in [
            ("90-80", "`90-80` is reversed (accepted: 80-90)"),
            ("0", "`0` is no port of 1 to 65535"),
            ("80-65536", "is no port"),
            ("80-", "is no port"),
            ("", "is no port"),
            ("80,90", "is no port"),
        ] {
            let error = text.parse::<Ports>().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}

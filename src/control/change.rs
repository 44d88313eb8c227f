//! One change to the tables, and why it may be refused.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Entry, Key, Origin};

/// One change, as JSON: `{"add":{"route":{"dst":"10.255.43.0/24","via":"10.255.43.0"}}}`, `{"del":{"peer":"10.0.16.14"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Refused if the entry's key is taken.
    Add(Entry),
    /// Takes the place of what has the entry's key, if anything has. A unicast MAC has one destination, so that an FDB entry takes
    /// the place of the one with its MAC.
    Replace(Entry),
    /// Refused if there is no such entry.
    Del(Key),
    /// Refused if there is no such entry, or if it is not word for word the one that is there.
    DelExact(Entry),
}

/// Who an entry stands and falls with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Itself.
    Entry(Origin),
    /// The peer with this underlay address, from which it follows.
    Peer(IpAddr, Origin),
}

impl Owner {
    /// Where the entry, or the peer it follows from, came from.
    #[must_use]
    pub fn origin(self) -> Origin {
        match self {
            Self::Entry(origin) | Self::Peer(_, origin) => origin,
        }
    }

    /// The peer's underlay address, of an entry that follows from one.
    #[must_use]
    pub fn peer(self) -> Option<IpAddr> {
        match self {
            Self::Entry(_) => None,
            Self::Peer(underlay, _) => Some(underlay),
        }
    }
}

/// Whose entry is in the way of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It was there before.
    Owner(Owner),
    /// An earlier change of the same request gave it.
    EarlierChange,
}

/// Why the directory does not take an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key is taken.
    #[error("{key} exists already ({holder})")]
    Exists {
        /// What is there.
        key: Key,
        /// Whose it is.
        holder: Holder,
    },
    /// There is nothing to delete.
    #[error("no {key}")]
    Absent {
        /// What is not there.
        key: Key,
    },
    /// What is there is not what was to be deleted.
    #[error("no {asked} (there is {held})")]
    Differs {
        /// What was to be deleted.
        asked: Box<Entry>,
        /// What has its key.
        held: Box<Entry>,
    },
    /// The entry follows from a peer and changes only with it.
    #[error("{key} follows from peer {peer}; change the peer")]
    Derived {
        /// The entry.
        key: Key,
        /// The peer's underlay address.
        peer: IpAddr,
    },
    /// The entry cannot work here, or contradicts another.
    #[error("{key}: {reason}")]
    Rule {
        /// The entry that was offered.
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
}

impl Refusal {
    /// What whoever asked for the change may do, where the refusal does not say it. A configuration's author has other means.
    pub(super) fn mend(&self) -> Option<&'static str> {
        match self {
            Self::Exists { holder, .. } => Some(match holder {
                Holder::Owner(Owner::Entry(_)) => "`replace` changes it",
                Holder::Owner(Owner::Peer(..)) => "change the peer",
                Holder::EarlierChange => "give it once",
            }),
            Self::Absent { .. } => Some("`show` tells what there is"),
            Self::Differs { .. } | Self::Derived { .. } | Self::Rule { .. } => None,
        }
    }
}

/// The change of a request that was refused, and the request with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct ChangeError {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Why.
    pub refusal: Refusal,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(prefix) => write!(f, "route {prefix}"),
            Self::Neigh(address) => write!(f, "neigh {address}"),
            Self::Fdb {
                mac,
                dst,
                port,
                vni,
            } => {
                write!(f, "fdb {mac} dst {dst}")?;
                port.map_or(Ok(()), |port| write!(f, " port {port}"))?;
                vni.map_or(Ok(()), |vni| write!(f, " vni {vni}"))
            }
            Self::Peer(underlay) => write!(f, "peer {underlay}"),
            Self::Group(address) => write!(f, "group {address}"),
            Self::Policy {
                dst,
                group,
                proto,
                ports,
            } => {
                write!(f, "policy {dst} group {group} proto {proto}")?;
                match ports.is_all() {
                    true => Ok(()),
                    false => write!(f, " ports {ports}"),
                }
            }
        }
    }
}

/// As [`Key`]'s, and all that it does not say: the words that `add` takes.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => {
                let subnets: Vec<_> = peer.subnets.iter().map(ToString::to_string).collect();
                let (subnets, underlay) = (subnets.join(","), peer.underlay);
                write!(f, "peer {subnets} underlay {underlay} mac {}", peer.mac)
            }
            Self::Route { via: Some(via), .. } => write!(f, "{} via {via}", self.key()),
            Self::Neigh { lladdr, .. } => write!(f, "{} lladdr {lladdr}", self.key()),
            Self::Group { id, .. } => write!(f, "{} id {id}", self.key()),
            Self::Policy { action, .. } if !action.is_accept() => {
                write!(f, "{} action {action}", self.key())
            }
            Self::Policy { .. } => write!(f, "{}", self.key()),
            Self::Route { via: None, .. } | Self::Fdb { .. } => write!(f, "{}", self.key()),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(origin) => write!(f, "{origin}"),
            Self::Peer(underlay, origin) => write!(f, "of peer {underlay}, {origin}"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(owner) => write!(f, "{owner}"),
            Self::EarlierChange => f.write_str("an earlier change of this request gives it"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Config => "config",
            Self::Live => "live",
            Self::Controller => "controller",
        })
    }
}

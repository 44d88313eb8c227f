//! What an operator can add, replace and delete: one kind of entry per table, and the peer that stands for three of them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::tables::policy::{Action, Ports, Proto};
use crate::tables::{FdbEntry, GroupEntry, Neighbor, PolicyRule, Route};
use crate::wire::{GroupId, MacAddr, Vni};

/// Where an entry came from. A reload replaces only what is of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The configuration file.
    Config,
    /// The control socket.
    Live,
    /// A Silk controller.
    Controller,
}

/// Another cell: the subnets its containers live in, the VTEP's MAC and underlay address. Silk calls it a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// One per family at the most. The address part is the VTEP's overlay address, host bits and all: `10.255.123.7/24` routes
    /// 10.255.123.0/24 via 10.255.123.7.
    pub subnets: Vec<IpNet>,
    /// The VTEP's underlay address; the key.
    pub underlay: IpAddr,
    /// The VTEP's MAC.
    pub mac: MacAddr,
}

impl PeerSpec {
    /// The MAC that follows from the subnets, as Silk derives it: `ee:ee` and the IPv4 address. `None` without an IPv4 subnet.
    #[must_use]
    pub fn derived_mac(subnets: &[IpNet]) -> Option<MacAddr> {
        subnets.iter().find_map(|subnet| match subnet {
            IpNet::V4(net) => Some(MacAddr::overlay(net.addr())),
            IpNet::V6(_) => None,
        })
    }

    /// One route per subnet, via the VTEP's overlay address.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.subnets.iter().map(|subnet| Route {
            prefix: subnet.trunc(),
            via: Some(subnet.addr()),
        })
    }

    /// One neighbour per subnet: the VTEP's overlay address at its MAC.
    pub fn neighbors(&self) -> impl Iterator<Item = Neighbor> + '_ {
        self.subnets.iter().map(|subnet| Neighbor {
            address: subnet.addr(),
            mac: self.mac,
        })
    }

    /// The VTEP's MAC at its underlay address.
    #[must_use]
    pub fn fdb_entry(&self) -> FdbEntry {
        FdbEntry {
            mac: self.mac,
            underlay: self.underlay,
            port: None,
            vni: None,
        }
    }
}

/// One entry of one table, as JSON: `{"route":{"dst":"10.255.43.0/24","via":"10.255.43.0"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// A route.
    Route {
        /// The prefix, host bits zero.
        dst: IpNet,
        /// The next hop; absent: the destination itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<IpAddr>,
    },
    /// A neighbour.
    Neigh {
        /// The overlay address.
        dst: IpAddr,
        /// Its MAC.
        lladdr: MacAddr,
    },
    /// A forwarding entry.
    Fdb {
        /// The inner destination.
        mac: MacAddr,
        /// The VTEP's underlay address.
        dst: IpAddr,
        /// Its UDP port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The VNI to send with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vni: Option<Vni>,
    },
    /// A peer.
    Peer(PeerSpec),
    /// A group.
    Group {
        /// The container.
        address: IpAddr,
        /// Its group.
        id: GroupId,
    },
    /// A rule of the group policy.
    Policy {
        /// The destinations, host bits zero.
        dst: IpNet,
        /// Who speaks.
        group: GroupId,
        /// The protocol.
        proto: Proto,
        /// The destination ports; absent: all.
        #[serde(default, skip_serializing_if = "Ports::is_all")]
        ports: Ports,
        /// What becomes of what matches; absent: it is let in.
        #[serde(default, skip_serializing_if = "Action::is_accept")]
        action: Action,
    },
}

/// What names an entry in its table: enough to delete it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Key {
    /// The prefix.
    Route(IpNet),
    /// The overlay address.
    Neigh(IpAddr),
    /// MAC, underlay address, port and VNI.
    Fdb {
        /// The inner destination.
        mac: MacAddr,
        /// The VTEP's underlay address.
        dst: IpAddr,
        /// Its UDP port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The VNI to send with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vni: Option<Vni>,
    },
    /// The underlay address.
    Peer(IpAddr),
    /// The container.
    Group(IpAddr),
    /// All of a rule but its action.
    Policy {
        /// The destinations, host bits zero.
        dst: IpNet,
        /// Who speaks.
        group: GroupId,
        /// The protocol.
        proto: Proto,
        /// The destination ports; absent: all.
        #[serde(default, skip_serializing_if = "Ports::is_all")]
        ports: Ports,
    },
}

impl Entry {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> Key {
        match *self {
            Self::Route { dst, .. } => Key::Route(dst.trunc()),
            Self::Neigh { dst, .. } => Key::Neigh(dst),
            Self::Fdb {
                mac,
                dst,
                port,
                vni,
            } => Key::Fdb {
                mac,
                dst,
                port,
                vni,
            },
            Self::Peer(ref peer) => Key::Peer(peer.underlay),
            Self::Group { address, .. } => Key::Group(address),
            Self::Policy {
                dst,
                group,
                proto,
                ports,
                action: _,
            } => Key::Policy {
                dst: dst.trunc(),
                group,
                proto,
                ports,
            },
        }
    }
}

impl From<GroupEntry> for Entry {
    fn from(group: GroupEntry) -> Self {
        Self::Group {
            address: group.address,
            id: group.id,
        }
    }
}

impl From<PolicyRule> for Entry {
    fn from(rule: PolicyRule) -> Self {
        let PolicyRule {
            destination: dst,
            group,
            proto,
            ports,
            action,
        } = rule;
        Self::Policy {
            dst,
            group,
            proto,
            ports,
            action,
        }
    }
}

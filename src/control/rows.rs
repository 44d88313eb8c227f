//! The rows of `show`: what travels to the client and what `-j` prints, with the keys of iproute2's own JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::config::VtepConfig;
use super::directory::Held;
use super::{Entry, LinkFacts, MarksFact, Origin, PeerSpec};
use crate::tables::{Df, OuterField, Tables};
use crate::wire::{GroupId, MacAddr, Vni};

/// A route, as `ip -j route show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// The prefix, written as iproute2 writes it: `default`, and a host without its length. Of `route get`, the address asked for.
    pub dst: String,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The device.
    pub dev: String,
    /// Our overlay address of the same family, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefsrc: Option<IpAddr>,
    /// Always empty.
    pub flags: Vec<String>,
    /// Of `route get`, the prefix that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<IpNet>,
    /// Where it came from.
    #[serde(flatten)]
    pub source: Source,
}

/// A neighbour, as `ip -j neigh show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighRow {
    /// The overlay address.
    pub dst: IpAddr,
    /// The device.
    pub dev: String,
    /// Its MAC.
    pub lladdr: MacAddr,
    /// Always `PERMANENT`.
    pub state: Vec<String>,
    /// Where it came from.
    #[serde(flatten)]
    pub source: Source,
}

/// A forwarding entry, as `bridge -j fdb show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// The inner destination.
    pub mac: MacAddr,
    /// The device.
    pub ifname: String,
    /// The VTEP's underlay address.
    pub dst: IpAddr,
    /// Its UDP port, if not the device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The VNI to send with, if not the device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// Always `self`.
    pub flags: Vec<String>,
    /// Always `permanent`.
    pub state: String,
    /// Where it came from.
    #[serde(flatten)]
    pub source: Source,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its subnets, each with the VTEP's overlay address.
    pub subnets: Vec<IpNet>,
    /// The VTEP's underlay address.
    pub underlay: IpAddr,
    /// The VTEP's MAC.
    pub mac: MacAddr,
    /// The largest packet that reaches it, where the path carries less than the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Where it came from.
    pub origin: Origin,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The container.
    pub address: IpAddr,
    /// Its group.
    pub id: GroupId,
    /// Where it came from.
    pub origin: Origin,
}

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who gave it, or the peer it follows from.
    pub origin: Origin,
    /// The underlay address of that peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
}

/// The device, as `ip -d -j link show` has a kernel vxlan device, and what only this one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Index of the TAP.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// `BROADCAST`, `UP`, ...
    pub flags: Vec<String>,
    /// In bytes.
    pub mtu: u32,
    /// Queueing discipline.
    pub qdisc: String,
    /// `UNKNOWN`, `DOWN`, ...
    pub operstate: String,
    /// Always `ether`.
    pub link_type: String,
    /// The TAP's MAC.
    pub address: MacAddr,
    /// Always `ff:ff:ff:ff:ff:ff`.
    pub broadcast: MacAddr,
    /// The tunnel.
    pub linkinfo: LinkInfo,
    /// What a kernel device does not have.
    pub silk_vtep: SilkVtep,
}

/// `linkinfo` of a [`LinkRow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Always `vxlan`.
    pub info_kind: String,
    /// Its settings.
    pub info_data: VxlanInfo,
}

/// The settings of a kernel vxlan device that this one has too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanInfo {
    /// The VNI.
    pub id: Vni,
    /// Our underlay address, IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Our underlay address, IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local6: Option<IpAddr>,
    /// The underlay device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Source ports.
    pub port_range: PortRange,
    /// UDP port we receive on and send to.
    pub port: u16,
    /// Always false.
    pub learning: bool,
    /// Outer TTL, unless it is inherited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Outer TOS, if it is not 0; 1: inherited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// `unset`, `set` or `inherit`; over IPv4 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub df: Option<String>,
    /// The kernel's default, without a meaning where nothing is learned.
    pub ageing: u32,
    /// Outer UDP checksums are filled in.
    pub udp_csum: bool,
    /// Over IPv6, they are not.
    #[serde(default)]
    pub udp_zero_csum6_tx: bool,
    /// Over IPv6, datagrams without one are taken.
    #[serde(default)]
    pub udp_zero_csum6_rx: bool,
    /// Group ids are carried.
    pub gbp: bool,
}

/// Source ports: [low, high).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first.
    pub low: u16,
    /// One past the last.
    pub high: u16,
}

/// What a kernel vxlan device does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilkVtep {
    /// Lanes.
    pub lanes: usize,
    /// Our overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// The overlay's prefixes.
    pub overlays: Vec<IpNet>,
    /// Frames for our own MAC are routed.
    pub routing: bool,
    /// Sources are checked against the tables.
    pub strict_source: bool,
    /// Where group ids come from: `bpf`, `table` or `off`.
    pub marks: String,
    /// Why from there, and how it stands.
    pub marks_why: String,
    /// What may keep marks from being carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks_trouble: Option<String>,
    /// How the group policy is enforced: `off`, or its default and exceptions.
    #[serde(default)]
    pub policy: String,
    /// Kernel features and their state.
    pub features: BTreeMap<String, String>,
}

const KERNEL_DEFAULT_AGEING_S: u32 = 300;

impl RouteRow {
    /// `None` if the entry is no route; so with the rows below.
    pub(super) fn new(held: &Held, vtep: &VtepConfig) -> Option<Self> {
        let Entry::Route { dst, via } = held.entry else {
            return None;
        };
        Some(Self {
            dst: iproute2_prefix(dst),
            gateway: via,
            dev: vtep.name.clone(),
            prefsrc: vtep
                .addresses
                .iter()
                .copied()
                .find(|a| a.is_ipv4() == dst.addr().is_ipv4()),
            flags: Vec::new(),
            matched: None,
            source: Source::of(held),
        })
    }

    /// The answer to `route get destination`, where this row is the route that matched.
    pub(super) fn for_destination(self, destination: IpAddr, prefix: IpNet) -> Self {
        Self {
            dst: destination.to_string(),
            matched: Some(prefix),
            ..self
        }
    }
}

impl NeighRow {
    pub(super) fn new(held: &Held, vtep: &VtepConfig) -> Option<Self> {
        let Entry::Neigh { dst, lladdr } = held.entry else {
            return None;
        };
        Some(Self {
            dst,
            dev: vtep.name.clone(),
            lladdr,
            state: vec!["PERMANENT".to_owned()],
            source: Source::of(held),
        })
    }
}

impl FdbRow {
    pub(super) fn new(held: &Held, vtep: &VtepConfig) -> Option<Self> {
        let Entry::Fdb {
            mac,
            dst,
            port,
            vni,
        } = held.entry
        else {
            return None;
        };
        Some(Self {
            mac,
            ifname: vtep.name.clone(),
            dst,
            port,
            vni,
            flags: vec!["self".to_owned()],
            state: "permanent".to_owned(),
            source: Source::of(held),
        })
    }
}

impl PeerRow {
    pub(super) fn new(held: &Held, tables: &Tables) -> Option<Self> {
        let Entry::Peer(PeerSpec {
            subnets,
            underlay,
            mac,
        }) = &held.entry
        else {
            return None;
        };
        Some(Self {
            subnets: subnets.clone(),
            underlay: *underlay,
            mac: *mac,
            mtu: tables
                .peers
                .lookup(*underlay)
                .and_then(|peer| peer.path_mtu.limit()),
            origin: held.owner.origin(),
        })
    }
}

impl GroupRow {
    pub(super) fn new(held: &Held) -> Option<Self> {
        let Entry::Group { address, id } = held.entry else {
            return None;
        };
        Some(Self {
            address,
            id,
            origin: held.owner.origin(),
        })
    }
}

impl Source {
    fn of(held: &Held) -> Self {
        Self {
            origin: held.owner.origin(),
            peer: held.owner.peer(),
        }
    }
}

impl LinkRow {
    pub(super) fn new(facts: LinkFacts, vtep: &VtepConfig, policy: String) -> Self {
        let (low, high) = facts.source_ports;
        let info_data = VxlanInfo {
            id: vtep.vni,
            local: Some(vtep.local).filter(IpAddr::is_ipv4),
            local6: Some(vtep.local).filter(IpAddr::is_ipv6),
            link: facts.underlay_device,
            port_range: PortRange { low, high },
            port: vtep.port,
            learning: false,
            ttl: vtep.outer.ttl.fixed(),
            tos: tos(vtep.outer.tos),
            df: vtep.local.is_ipv4().then(|| df(vtep.outer.df).to_owned()),
            ageing: KERNEL_DEFAULT_AGEING_S,
            udp_csum: vtep.udp_checksum,
            udp_zero_csum6_tx: vtep.local.is_ipv6() && !vtep.udp_checksum,
            udp_zero_csum6_rx: vtep.local.is_ipv6() && vtep.zero_checksum_rx,
            gbp: vtep.gbp,
        };
        Self {
            ifindex: facts.ifindex,
            ifname: vtep.name.clone(),
            flags: facts.flags,
            mtu: facts.mtu_bytes,
            qdisc: facts.qdisc,
            operstate: facts.operstate,
            link_type: "ether".to_owned(),
            address: facts.address,
            broadcast: MacAddr::BROADCAST,
            linkinfo: LinkInfo {
                info_kind: "vxlan".to_owned(),
                info_data,
            },
            silk_vtep: SilkVtep {
                policy,
                ..SilkVtep::new(vtep, facts.marks, facts.features)
            },
        }
    }
}

impl SilkVtep {
    fn new(vtep: &VtepConfig, marks: MarksFact, features: BTreeMap<String, String>) -> Self {
        Self {
            lanes: vtep.lanes.get(),
            addresses: vtep.addresses.clone(),
            overlays: vtep.overlays.clone(),
            routing: vtep.routing,
            strict_source: vtep.strict_source,
            marks: marks.from.to_owned(),
            marks_why: marks.why,
            marks_trouble: marks.trouble,
            policy: String::new(),
            features,
        }
    }
}

/// As netlink has it (IFLA_VXLAN_TOS).
fn tos(field: OuterField) -> Option<u8> {
    const INHERIT: u8 = 1;
    match field {
        OuterField::Fixed(0) => None,
        OuterField::Fixed(tos) => Some(tos),
        OuterField::Inherit => Some(INHERIT),
    }
}

fn df(df: Df) -> &'static str {
    match df {
        Df::Unset => "unset",
        Df::Set => "set",
        Df::Inherit => "inherit",
    }
}

fn iproute2_prefix(prefix: IpNet) -> String {
    if prefix.prefix_len() == 0 {
        "default".to_owned()
    } else if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_written_as_iproute2_writes_them() {
        for (prefix, text) in [
            ("10.255.43.0/24", "10.255.43.0/24"),
            ("10.255.43.7/32", "10.255.43.7"),
            ("0.0.0.0/0", "default"),
            ("fd00::/64", "fd00::/64"),
            ("fd00::1/128", "fd00::1"),
        ] {
            let prefix: IpNet = prefix.parse().expect("the table above holds prefixes");
            assert_eq!(iproute2_prefix(prefix), text);
        }
    }
}

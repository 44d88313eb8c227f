//! What the core's tests share: the two cells of the packet walk in `lib.rs`, and frames between their containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use etherparse::{IpNumber, PacketBuilder};

use super::{Egress, Encap, egress};
use crate::drop_reason::DropReason;
use crate::tables::{
    CounterRegistry, FdbEntry, GroupEntry, Local, Neighbor, Route, TableSpec, Tables,
};
use crate::wire::{GroupId, MacAddr, Mark};

pub(crate) const OWN_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 0);
pub(crate) const OWN_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 184);
pub(crate) const PEER_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 0);
pub(crate) const PEER_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 6);
pub(crate) const PEER_UNDERLAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 16, 14));
pub(crate) const OWN_MAC: MacAddr = MacAddr::overlay(OWN_VTEP);
pub(crate) const PEER_MAC: MacAddr = MacAddr::overlay(PEER_VTEP);
pub(crate) const GROUP: GroupId = GroupId(3);

pub(crate) fn local() -> Local {
    Local::silk("10.255.108.0/24".parse().expect("a prefix"))
}

/// One peer, one group.
pub(crate) fn spec() -> TableSpec {
    TableSpec {
        routes: vec![Route {
            prefix: "10.255.43.0/24".parse().expect("a prefix"),
            via: Some(PEER_VTEP.into()),
        }],
        neighbors: vec![Neighbor {
            address: PEER_VTEP.into(),
            mac: PEER_MAC,
        }],
        fdb: vec![fdb_entry(PEER_MAC, PEER_UNDERLAY)],
        groups: vec![GroupEntry {
            address: OWN_CONTAINER.into(),
            id: GROUP,
        }],
        policy: None,
    }
}

pub(crate) fn fdb_entry(mac: MacAddr, underlay: IpAddr) -> FdbEntry {
    FdbEntry {
        mac,
        underlay,
        port: None,
        vni: None,
    }
}

pub(crate) fn compile(local: Local, spec: &TableSpec) -> Tables {
    Tables::compile(Arc::new(local), spec, &mut CounterRegistry::new(1))
}

pub(crate) fn tables() -> Tables {
    compile(local(), &spec())
}

/// Without routing, the peer known by its FDB entry alone.
pub(crate) fn bridging() -> Tables {
    let plain = Local {
        routing: false,
        ..local()
    };
    let fdb_only = TableSpec {
        fdb: spec().fdb,
        ..TableSpec::default()
    };
    compile(plain, &fdb_only)
}

/// A UDP packet in an Ethernet frame, ECN bits in `tos`.
pub(crate) fn udp(macs: (MacAddr, MacAddr), addresses: (Ipv4Addr, Ipv4Addr), tos: u8) -> Vec<u8> {
    let mut header = etherparse::Ipv4Header::new(
        0,
        64,
        IpNumber::UDP,
        addresses.0.octets(),
        addresses.1.octets(),
    )
    .expect("an empty payload fits");
    header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
    header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
    let builder = PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets())
        .ip(etherparse::IpHeaders::Ipv4(
            header,
            etherparse::Ipv4Extensions::default(),
        ))
        .udp(40000, 53);
    let mut frame = Vec::new();
    builder
        .write(&mut frame, b"question")
        .expect("a Vec takes all");
    frame
}

/// What the host sends for a packet between the two containers: the VTEP's own MAC on both ends.
pub(crate) fn from_host(tos: u8) -> Vec<u8> {
    udp((OWN_MAC, OWN_MAC), (OWN_CONTAINER, PEER_CONTAINER), tos)
}

/// The UDP payload the peer sends for the way back.
pub(crate) fn from_peer(header: [u8; 8], tos: u8) -> Vec<u8> {
    let frame = udp((PEER_MAC, OWN_MAC), (PEER_CONTAINER, OWN_CONTAINER), tos);
    [&header[..], &frame].concat()
}

/// A packet between the two containers that is itself VXLAN, CE inside.
pub(crate) fn nested() -> Vec<u8> {
    let datagram = from_peer([8, 0, 0, 0, 0, 0, 9, 0], 3);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(OWN_MAC.octets(), OWN_MAC.octets())
        .ipv4(OWN_CONTAINER.octets(), PEER_CONTAINER.octets(), 64)
        .udp(40000, 4789)
        .write(&mut frame, &datagram)
        .expect("a Vec takes all");
    frame
}

/// A solicitation of our host for fd00::12:3456.
pub(crate) fn solicitation(source: Ipv6Addr) -> Vec<u8> {
    let target: Ipv6Addr = "fd00::12:3456".parse().expect("an address");
    let group: Ipv6Addr = "ff02::1:ff12:3456".parse().expect("an address");
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(OWN_MAC.octets(), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
        .ipv6(source.octets(), group.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &target.octets())
        .expect("a Vec takes all");
    frame
}

/// An ARP request from `sender` for `target`.
pub(crate) fn arp_request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(MacAddr::BROADCAST.octets());
    frame.extend(mac.octets());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.octets());
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// How the host's frame goes out.
pub(crate) fn encap<'t>(tables: &'t Tables, frame: &[u8]) -> Encap<'t> {
    match egress(tables, frame, Mark::NONE) {
        Egress::Encap(encap) => encap,
        other => panic!("expected encap, got {other:?}"),
    }
}

/// Why it does not.
pub(crate) fn drop_reason(tables: &Tables, frame: &[u8]) -> DropReason {
    match egress(tables, frame, Mark::NONE) {
        Egress::Drop(reason) => reason,
        other => panic!("expected drop, got {other:?}"),
    }
}

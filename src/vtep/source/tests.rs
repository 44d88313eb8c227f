//! Whose packets are taken, by both judges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;

use crate::drop_reason::DropReason;
use crate::tables::{Local, Neighbor, Route, Tables};
use crate::vtep::fixture::*;
use crate::vtep::{Egress, Ingress, Received, egress, ingress};
use crate::wire::arp::Request;
use crate::wire::{MacAddr, Mark};

const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x108, 0, 0, 0, 0, 0, 0x184);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x43, 0, 0, 0, 0, 0, 6);
const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The fixture's cell with both families and a default route to its peer.
fn wide(change: impl FnOnce(&mut Local)) -> Tables {
    let mut local = local();
    local.addresses.push("fd00:108::".parse().unwrap());
    local.subnets.push("fd00:108::/64".parse().unwrap());
    local.underlay = Some([10, 0, 32, 12].into());
    change(&mut local);
    let mut spec = spec();
    let via_v6: IpAddr = "fd00:43::".parse().unwrap();
    spec.routes.push(Route {
        prefix: "fd00:43::/64".parse().unwrap(),
        via: Some(via_v6),
    });
    spec.neighbors.push(Neighbor {
        address: via_v6,
        mac: PEER_MAC,
    });
    compile(local, &spec)
}

/// The same, and everything else is behind the peer too.
fn with_default_routes() -> Tables {
    let tables = wide(|_| ());
    let mut spec = spec();
    spec.routes = ["0.0.0.0/0", "::/0"]
        .map(|prefix| Route {
            prefix: prefix.parse().unwrap(),
            via: Some(PEER_VTEP.into()),
        })
        .into();
    compile((*tables.local).clone(), &spec)
}

fn of_peer(tables: &Tables, frame: &[u8]) -> Option<DropReason> {
    let datagram = [&[0x08, 0, 0, 0, 0, 0, 1, 0], frame].concat();
    let received = Received {
        source: PEER_UNDERLAY,
        tos: 0,
    };
    match ingress(tables, &datagram, received) {
        Ingress::Drop { reason, .. } => Some(reason),
        Ingress::Deliver(_) | Ingress::Unsolicited { .. } | Ingress::Reply { .. } => None,
    }
}

fn of_host(tables: &Tables, frame: &[u8]) -> Option<DropReason> {
    match egress(tables, frame, Mark::NONE) {
        Egress::Drop(reason) => Some(reason),
        Egress::Encap(_) => None,
        other => panic!("{other:?}"),
    }
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat()
}

fn udp_v6(macs: (MacAddr, MacAddr), source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets())
        .ipv6(source.octets(), destination.octets(), 64)
        .udp(1, 2)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

/// "`address` is at `mac`", by ARP to whoever `macs` says.
fn arp_reply(macs: (MacAddr, MacAddr), address: Ipv4Addr, mac: MacAddr) -> Vec<u8> {
    let asked = Request {
        sender_mac: macs.1,
        sender_ip: OWN_VTEP,
        target_ip: address,
    };
    let mut frame = asked.reply(mac).to_vec();
    frame[6..12].copy_from_slice(&macs.0.octets());
    frame
}

/// The same by neighbour discovery, from `source`.
fn advertisement(macs: (MacAddr, MacAddr), source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let body = [&target.octets()[..], &[2, 1], &macs.0.octets()].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets())
        .ipv6(source.octets(), OWN_V6.octets(), 255)
        .icmpv6_raw(136, 0, [0x20, 0, 0, 0])
        .write(&mut frame, &body)
        .unwrap();
    frame
}

const FROM_PEER: (MacAddr, MacAddr) = (PEER_MAC, OWN_MAC);

#[test]
fn nobody_speaks_for_us_even_where_a_route_leads_to_the_speaker() {
    for tables in [wide(|_| ()), with_default_routes()] {
        for own in [OWN_VTEP, OWN_CONTAINER] {
            let frame = udp(FROM_PEER, (own, OWN_CONTAINER), 0);
            let refused = Some(DropReason::OwnSourceAddress);
            assert_eq!(of_peer(&tables, &frame), refused, "{own}");
            assert_eq!(of_peer(&tables, &tagged(&frame)), refused, "{own}");
        }
        let frame = udp_v6(FROM_PEER, OWN_V6, OWN_V6);
        assert_eq!(of_peer(&tables, &frame), Some(DropReason::OwnSourceAddress));
    }
}

#[test]
fn a_vlan_tag_hides_no_source() {
    let tables = wide(|_| ());
    for (source, reason) in [
        (PEER_CONTAINER, None),
        (STRANGER, Some(DropReason::SourceNotPeers)),
    ] {
        let frame = tagged(&udp(FROM_PEER, (source, OWN_CONTAINER), 0));
        assert_eq!(of_peer(&tables, &frame), reason);
        assert_eq!(of_peer(&tables, &tagged(&frame)), reason);
    }
    for (source, reason) in [
        (PEER_V6, None),
        (STRANGER_V6, Some(DropReason::SourceNotPeers)),
    ] {
        let frame = udp_v6(FROM_PEER, source, OWN_V6);
        assert_eq!(of_peer(&tables, &frame), reason);
        assert_eq!(of_peer(&tables, &tagged(&frame)), reason);
    }
}

#[test]
fn behind_more_tags_than_are_looked_through_nobody_speaks() {
    let bridged = Local {
        routing: false,
        ..local()
    };
    let mut lax = local();
    lax.strict_source = false;
    let thrice = |frame: &[u8]| tagged(&tagged(&tagged(frame)));
    let own = (OWN_MAC, PEER_MAC);
    for (local, theirs, ours) in [
        (
            local(),
            Some(DropReason::SourceNotPeers),
            Some(DropReason::SourceNotLocal),
        ),
        (
            bridged,
            Some(DropReason::SourceNotPeers),
            Some(DropReason::SourceNotLocal),
        ),
        (lax, None, None),
    ] {
        let tables = compile(local, &spec());
        for frame in [
            udp(FROM_PEER, (OWN_CONTAINER, OWN_CONTAINER), 0),
            arp_reply(FROM_PEER, STRANGER, PEER_MAC),
            udp_v6(FROM_PEER, STRANGER_V6, OWN_V6),
        ] {
            assert_eq!(of_peer(&tables, &thrice(&frame)), theirs);
            assert_eq!(of_peer(&tables, &tagged(&thrice(&frame))), theirs);
        }
        let frame = udp(own, (STRANGER, PEER_CONTAINER), 0);
        assert_eq!(of_host(&tables, &thrice(&frame)), ours);
    }
}

#[test]
fn an_arp_packet_of_a_peer_is_about_the_peer() {
    let tables = wide(|_| ());
    for (address, mac, reason) in [
        (PEER_CONTAINER, PEER_MAC, None),
        (Ipv4Addr::UNSPECIFIED, PEER_MAC, None),
        (STRANGER, PEER_MAC, Some(DropReason::SourceNotPeers)),
        (OWN_CONTAINER, PEER_MAC, Some(DropReason::OwnSourceAddress)),
        (PEER_CONTAINER, OWN_MAC, Some(DropReason::OwnSourceMac)),
    ] {
        let frame = arp_reply(FROM_PEER, address, mac);
        assert_eq!(of_peer(&tables, &frame), reason, "{address} {mac}");
        assert_eq!(of_peer(&tables, &tagged(&frame)), reason, "{address} {mac}");
    }
    let request = arp_request(PEER_MAC, STRANGER, OWN_VTEP);
    let refused = of_peer(&tables, &request);
    assert_eq!(refused, Some(DropReason::SourceNotPeers), "not answered");
}

#[test]
fn an_advertisement_of_a_peer_is_about_the_peer() {
    let tables = wide(|_| ());
    for (source, target, reason) in [
        (PEER_V6, PEER_V6, None),
        (PEER_V6, STRANGER_V6, Some(DropReason::SourceNotPeers)),
        (STRANGER_V6, PEER_V6, Some(DropReason::SourceNotPeers)),
        (PEER_V6, OWN_V6, Some(DropReason::OwnSourceAddress)),
    ] {
        let frame = advertisement(FROM_PEER, source, target);
        assert_eq!(of_peer(&tables, &frame), reason, "{source} {target}");
        assert_eq!(of_peer(&tables, &tagged(&frame)), reason, "{source}");
    }
    let mut forged = advertisement(FROM_PEER, PEER_V6, PEER_V6);
    let mac = forged.len() - 6;
    forged[mac..].copy_from_slice(&OWN_MAC.octets());
    assert_eq!(of_peer(&tables, &forged), Some(DropReason::OwnSourceMac));
}

/// A redirect to `target`, from `source`.
fn redirect(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let body = [&target.octets()[..], &STRANGER_V6.octets()].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC.octets(), OWN_MAC.octets())
        .ipv6(source.octets(), OWN_V6.octets(), 255)
        .icmpv6_raw(137, 0, [0; 4])
        .write(&mut frame, &body)
        .unwrap();
    frame
}

#[test]
fn a_peer_redirects_to_itself_alone_and_never_to_us() {
    let bridging = wide(|local| local.routing = false);
    let own_vtep: Ipv6Addr = "fd00:108::".parse().unwrap();
    for (tables, target, reason) in [
        (&wide(|_| ()), PEER_V6, None),
        (&wide(|_| ()), STRANGER_V6, Some(DropReason::SourceNotPeers)),
        (&wide(|_| ()), OWN_V6, Some(DropReason::OwnSourceAddress)),
        // One bridge: who is where, the FDB alone says.
        (&bridging, STRANGER_V6, None),
        (&bridging, own_vtep, Some(DropReason::OwnSourceAddress)),
    ] {
        let frame = redirect(PEER_V6, target);
        assert_eq!(of_peer(tables, &frame), reason, "{target}");
        assert_eq!(of_peer(tables, &tagged(&frame)), reason, "{target}");
    }
}

/// From the unspecified address: is `target` free?
fn detection(mac: MacAddr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), 0).octets();
    let group = [&group[..14], &[b, c]].concat();
    let group: [u8; 16] = group.try_into().unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac.octets(), [0x33, 0x33, 0xff, a, b, c])
        .ipv6([0; 16], group, 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &target.octets())
        .unwrap();
    frame
}

#[test]
fn a_peer_may_look_whether_an_address_of_its_own_is_free_and_hears_that_ours_is_taken() {
    let own_vtep: Ipv6Addr = "fd00:108::".parse().unwrap();
    let other = MacAddr::new([2, 0, 0, 0, 0, 9]);
    let bridging = wide(|local| local.routing = false);
    for (tables, mac, target, reason) in [
        (&wide(|_| ()), PEER_MAC, PEER_V6, None),
        (&wide(|_| ()), PEER_MAC, own_vtep, None),
        (
            &wide(|_| ()),
            PEER_MAC,
            OWN_V6,
            Some(DropReason::OwnSourceAddress),
        ),
        (
            &wide(|_| ()),
            PEER_MAC,
            STRANGER_V6,
            Some(DropReason::SourceNotPeers),
        ),
        (&bridging, PEER_MAC, STRANGER_V6, None),
        (&bridging, PEER_MAC, own_vtep, None),
        (&bridging, other, own_vtep, Some(DropReason::SourceNotPeers)),
    ] {
        let frame = detection(mac, target);
        assert_eq!(of_peer(tables, &frame), reason, "{target} {mac}");
        assert_eq!(of_peer(tables, &tagged(&frame)), reason, "{target} {mac}");
    }
    // Answered: the peer's own tables know who answers.
    let asked = [
        &[0x08, 0, 0, 0, 0, 0, 1, 0],
        &detection(PEER_MAC, own_vtep)[..],
    ]
    .concat();
    let received = Received {
        source: PEER_UNDERLAY,
        tos: 0,
    };
    let tables = wide(|_| ());
    let Ingress::Reply { reply, .. } = ingress(&tables, &asked, received) else {
        panic!("expected a reply");
    };
    assert_eq!(reply.frame()[..6], PEER_MAC.octets());
    // From nowhere nothing else is said.
    let mut packet = udp_v6(FROM_PEER, Ipv6Addr::UNSPECIFIED, OWN_V6);
    assert_eq!(of_peer(&tables, &packet), Some(DropReason::SourceNotPeers));
    packet = detection(PEER_MAC, PEER_V6);
    packet[21] = 64;
    assert_eq!(of_peer(&tables, &packet), Some(DropReason::SourceNotPeers));
}

#[test]
fn an_advertisement_of_no_length_is_nobodys() {
    let tables = wide(|_| ());
    let open = |macs, source| {
        let mut frame = advertisement(macs, source, STRANGER_V6);
        // Hop-by-hop options, of padding, and a length as a jumbogram has it.
        frame.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
        frame[18..21].fill(0);
        frame
    };
    let theirs = of_peer(&tables, &open(FROM_PEER, PEER_V6));
    assert_eq!(theirs, Some(DropReason::SourceNotPeers));
    let ours = of_host(&tables, &open((OWN_MAC, PEER_MAC), OWN_V6));
    assert_eq!(ours, Some(DropReason::SourceNotLocal));
}

#[test]
fn by_fdb_alone_an_arp_packet_comes_from_its_senders_mac() {
    let tables = bridging();
    let other = MacAddr::new([2, 0, 0, 0, 0, 9]);
    let bridged = Ipv4Addr::new(10, 255, 108, 77);
    for (mac, address, reason) in [
        (PEER_MAC, bridged, None),
        (other, bridged, Some(DropReason::SourceNotPeers)),
        (PEER_MAC, OWN_VTEP, Some(DropReason::OwnSourceAddress)),
    ] {
        let macs = (mac, OWN_MAC);
        let arp = arp_reply(macs, address, mac);
        assert_eq!(of_peer(&tables, &arp), reason, "{mac} {address}");
        let udp = udp(macs, (address, OWN_CONTAINER), 0);
        assert_eq!(of_peer(&tables, &udp), reason, "{mac} {address}");
    }
}

#[test]
fn the_host_speaks_for_this_cell_alone() {
    let tables = wide(|_| ());
    let refused = Some(DropReason::SourceNotLocal);
    let to_peer = (OWN_MAC, PEER_MAC);
    for (source, reason) in [
        (OWN_CONTAINER, None),
        (OWN_VTEP, None),
        (STRANGER, refused),
        (PEER_CONTAINER, refused),
        (
            Ipv4Addr::new(10, 0, 32, 12),
            Some(DropReason::SourceIsUnderlay),
        ),
    ] {
        let routed = udp((OWN_MAC, OWN_MAC), (source, PEER_CONTAINER), 0);
        let bridged = udp(to_peer, (source, PEER_CONTAINER), 0);
        let tagged = tagged(&bridged);
        let arp = arp_reply(to_peer, source, OWN_MAC);
        for frame in [routed, bridged, tagged, arp] {
            assert_eq!(of_host(&tables, &frame), reason, "{source}");
        }
    }
    for (target, reason) in [(OWN_V6, None), (STRANGER_V6, refused)] {
        let frame = advertisement(to_peer, OWN_V6, target);
        assert_eq!(of_host(&tables, &frame), reason);
        assert_eq!(of_host(&tables, &tagged(&frame)), reason);
    }
}

#[test]
fn the_host_may_look_whether_an_address_of_this_cell_is_free() {
    let mut spec = spec();
    let everybody = fdb_entry(MacAddr::ZERO, PEER_UNDERLAY);
    spec.fdb.push(everybody);
    let local = (*wide(|local| local.routing = false).local).clone();
    let tables = compile(local, &spec);
    let mac = MacAddr::new([2, 0, 0, 0, 0, 9]);
    let refused = Some(DropReason::SourceNotLocal);
    for (target, reason) in [(OWN_V6, None), (STRANGER_V6, refused), (PEER_V6, refused)] {
        let frame = detection(mac, target);
        assert_eq!(of_host(&tables, &frame), reason, "{target}");
        assert_eq!(of_host(&tables, &tagged(&frame)), reason, "{target}");
    }
    // Of no valid detection's making.
    let nobodys = udp_v6((mac, PEER_MAC), Ipv6Addr::UNSPECIFIED, PEER_V6);
    assert_eq!(of_host(&tables, &nobodys), refused);
}

#[test]
fn without_strict_source_everybody_may_say_everything() {
    let tables = wide(|local| local.strict_source = false);
    let to_peer = (OWN_MAC, PEER_MAC);
    let host = [
        udp(to_peer, (STRANGER, PEER_CONTAINER), 0),
        arp_reply(to_peer, STRANGER, PEER_MAC),
        advertisement(to_peer, STRANGER_V6, STRANGER_V6),
    ];
    assert!(host.iter().all(|frame| of_host(&tables, frame).is_none()));
    let peer = [
        udp(FROM_PEER, (OWN_VTEP, OWN_CONTAINER), 0),
        arp_reply(FROM_PEER, OWN_VTEP, OWN_MAC),
        advertisement(FROM_PEER, OWN_V6, OWN_V6),
    ];
    assert!(peer.iter().all(|frame| of_peer(&tables, frame).is_none()));
}

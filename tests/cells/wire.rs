//! What a cell puts on the underlay and takes from it, byte for byte. The same cases run on the kernel's device, which proves them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, IpEcn, IpHeaders, Ipv4Header, PacketBuilder,
};
use silk_vtep::sys;
use socket2::SockRef;

use super::super::Case;
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Container, Injector, Kind, Lab, Outer, Plan, Result, Site, Sniffer, Stats, VTEP_NAME, Wait,
    ensure, ping, vtep_mac, wait_until,
};

/// Flows of the source-port test, and datagrams of each.
const FLOWS: usize = 64;
const DATAGRAMS_PER_FLOW: usize = 3;
/// Distinct outer ports that 64 flows must reach. A pool of 32 chosen by hash reaches 28 on average, and 16 but once in millions.
const ENOUGH_PORTS: usize = 16;

/// VXLAN header, VNI 1: I alone, and G and I with group 3.
const PLAIN_HEADER: [u8; 8] = [0x08, 0, 0, 0, 0, 0, 1, 0];
const GROUP_3_HEADER: [u8; 8] = [0x88, 0, 0, 3, 0, 0, 1, 0];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [Kernel, Silk] {
        let case = |name: &str, body: fn(&mut Lab) -> Result| {
            let name = format!("wire::{kind:?}::{name}").to_lowercase();
            // The sniffer wants packets, not super-frames.
            let plan = Plan::of(&[kind, kind]).without_offloads();
            Case::new(name, plan, body)
        };
        cases.extend([
            case(
                "a_flow_keeps_its_port_and_64_flows_use_many",
                flows_choose_ports,
            ),
            case(
                "outer_ttl_is_64_without_df_and_without_group",
                outer_header_has_the_defaults,
            ),
            case("ect0_is_carried_out", ect0_is_carried_out),
            case(
                "congestion_experienced_is_carried_in",
                congestion_is_carried_in,
            ),
        ]);
        cases.extend(outer_field_cases(kind));
    }
    cases.extend([
        Case::new(
            "wire::kernel::a_mark_is_sent_as_group",
            Plan::of(&[Kernel, Kernel]),
            a_mark_is_sent_as_group,
        ),
        Case::new(
            "wire::silk::zero_checksums_cross",
            Plan::of(&[Silk, Silk]).vtep_lines("udp_checksum = false"),
            pings_cross,
        ),
        Case::new(
            "wire::silk::zero_checksums_cross_over_v6",
            Plan::of(&[Silk, Silk])
                .v6()
                .vtep_lines("udp_checksum = false"),
            pings_cross,
        ),
        Case::new(
            "wire::silk::too_big_over_v6_is_dropped_not_fragmented",
            Plan::of(&[Silk, Silk]).v6(),
            too_big_over_v6_is_dropped,
        ),
        Case::new(
            "wire::silk::a_group_entry_is_sent",
            Plan::of(&[Silk, Silk]).group(3),
            a_group_entry_is_sent,
        ),
        silk_case(
            "congestion_experienced_on_not_ect_is_dropped",
            congestion_on_not_ect_is_dropped,
        ),
        silk_case("arp_is_answered_from_the_neighbor_table", arp_is_answered),
    ]);
    cases
}

fn silk_case(name: &str, body: fn(&mut Lab) -> Result) -> Case {
    Case::new(
        format!("wire::silk::{name}"),
        Plan::of(&[Silk, Kind::Kernel]),
        body,
    )
}

/// `ttl`, `tos` and `df`, the daemon and the kernel's device told alike.
fn outer_field_cases(kind: Kind) -> impl Iterator<Item = Case> {
    let plan = move || Plan::of(&[kind, kind]).without_offloads();
    let inherit = move || {
        plan()
            .vtep_lines("ttl = \"inherit\"\ntos = \"inherit\"\ndf = \"inherit\"")
            .kernel_words("ttl inherit tos inherit df inherit")
    };
    let name = move |name: &str| format!("wire::{kind:?}::{name}").to_lowercase();
    [
        Case::new(name("outer_fields_are_inherited"), inherit(), |lab| {
            fields_are_inherited(lab, false)
        }),
        Case::new(
            name("outer_fields_are_inherited_over_v6"),
            inherit().v6(),
            |lab| fields_are_inherited(lab, true),
        ),
        Case::new(
            name("outer_fields_are_fixed"),
            plan()
                .vtep_lines("ttl = 9\ntos = 0x28\ndf = \"set\"")
                .kernel_words("ttl 9 tos 0x28 df set"),
            |lab| {
                let outer = outer_of_one_datagram(lab, 0xba)?;
                ensure!(outer.dont_fragment, "outer DF is clear");
                let fields = (outer.ttl, outer.tos);
                ensure!(fields == (9, 0x2a), "outer TTL and TOS {fields:?}");
                Ok(())
            },
        ),
    ]
    .into_iter()
}

/// From containers' sockets whose packets have DF and have not, in turn.
fn fields_are_inherited(lab: &mut Lab, v6: bool) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let (socket, sink) = (a.udp()?, b.udp()?);
    socket.connect(sink.local_addr()?)?;
    let settings = [
        (libc::IP_PMTUDISC_DO, 0xb9, 33),
        (libc::IP_PMTUDISC_DONT, 0x28, 2),
        (libc::IP_PMTUDISC_DO, 0x03, 255),
    ];
    for (discover, tos, ttl) in settings {
        sys::udp::set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)?;
        SockRef::from(&socket).set_tos_v4(tos.into())?;
        socket.set_ttl(ttl)?;
        socket.send(b"one")?;
    }
    let port = socket.local_addr()?.port();
    let outers = sniffer.outers(settings.len(), |outer| {
        outer.inner_udp_source() == Some(port)
    })?;
    for (outer, (discover, tos, ttl)) in outers.iter().zip(settings) {
        let df = discover == libc::IP_PMTUDISC_DO;
        // The host forwards: one hop.
        let expected = (ttl as u8 - 1, if tos == 3 { 2 } else { tos }, df && !v6);
        let fields = (outer.ttl, outer.tos, outer.dont_fragment);
        ensure!(
            fields == expected,
            "outer TTL, TOS and DF {fields:?}, expected {expected:?}"
        );
    }
    Ok(())
}

fn flows_choose_ports(lab: &mut Lab) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let sink = b.udp()?;
    let flows = (0..FLOWS).map(|_| a.udp()).collect::<Result<Vec<_>>>()?;
    for _ in 0..DATAGRAMS_PER_FLOW {
        for flow in &flows {
            flow.send_to(b"flow", sink.local_addr()?)?;
        }
    }
    let mut ports: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    for outer in sniffer.outers(FLOWS * DATAGRAMS_PER_FLOW, |outer| {
        outer.inner_udp_source().is_some()
    })? {
        let flow = outer.inner_udp_source().ok_or("looked at above")?;
        ports.entry(flow).or_default().insert(outer.source_port);
    }
    ensure!(
        ports.len() == FLOWS,
        "{} flows of {FLOWS} seen",
        ports.len()
    );
    ensure!(
        ports.values().all(|of_flow| of_flow.len() == 1),
        "a flow used several ports: {ports:?}"
    );
    let distinct: BTreeSet<_> = ports.into_values().flatten().collect();
    ensure!(
        distinct.len() >= ENOUGH_PORTS,
        "{FLOWS} flows used {} ports: {distinct:?}",
        distinct.len()
    );
    Ok(())
}

fn outer_header_has_the_defaults(lab: &mut Lab) -> Result {
    let outer = outer_of_one_datagram(lab, 0)?;
    ensure!(outer.ttl == 64, "outer TTL {}", outer.ttl);
    ensure!(!outer.dont_fragment, "outer DF is set");
    ensure!(outer.tos == 0, "outer TOS {:#04x}", outer.tos);
    ensure!(
        outer.vxlan == PLAIN_HEADER,
        "VXLAN header {:02x?}",
        outer.vxlan
    );
    Ok(())
}

fn a_group_entry_is_sent(lab: &mut Lab) -> Result {
    let outer = outer_of_one_datagram(lab, 0)?;
    ensure!(
        outer.vxlan == GROUP_3_HEADER,
        "VXLAN header {:02x?}",
        outer.vxlan
    );
    Ok(())
}

fn pings_cross(lab: &mut Lab) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, 3, "")
}

/// As the kernel's device does: it fragments over IPv4 only.
fn too_big_over_v6_is_dropped(lab: &mut Lab) -> Result {
    const MTU: u32 = 1400;
    let to = lab.cells[1].site.container;
    lab.cells[0].host.ip(&format!("link set eth0 mtu {MTU}"))?;
    let from = &lab.cells[0].container()?.namespace;
    ensure!(
        ping(from, to, 1, &format!("-w 1 -s {MTU}")).is_err(),
        "a packet crossed in fragments"
    );
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("too-big") > 0, "not counted: {stats:?}");
    ping(&lab.cells[0].container()?.namespace, to, 1, "")
}

/// The kernel takes the group from the packet's mark.
fn a_mark_is_sent_as_group(lab: &mut Lab) -> Result {
    let (a, b) = (&lab.cells[0], lab.cells[1].container()?);
    let sniffer = Sniffer::start(&a.host)?;
    a.host.exec(&format!("ping -q -c 1 -m 3 {}", b.address))?;
    let local = a.site.underlay(false);
    let outer = sniffer.outers(1, |outer| outer.source == local)?.remove(0);
    ensure!(
        outer.vxlan == GROUP_3_HEADER,
        "VXLAN header {:02x?}",
        outer.vxlan
    );
    Ok(())
}

fn ect0_is_carried_out(lab: &mut Lab) -> Result {
    let outer = outer_of_one_datagram(lab, IpEcn::Ect0.value())?;
    ensure!(
        outer.tos == IpEcn::Ect0.value(),
        "outer TOS {:#04x}",
        outer.tos
    );
    Ok(())
}

/// Sends a UDP datagram of this TOS from the first cell's container to the second's; returns what the underlay saw of it.
fn outer_of_one_datagram(lab: &Lab, tos: u8) -> Result<Outer> {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let (socket, sink) = (a.udp()?, b.udp()?);
    SockRef::from(&socket).set_tos_v4(tos.into())?;
    socket.send_to(b"one", sink.local_addr()?)?;
    let port = socket.local_addr()?.port();
    sink.recv(&mut [0; 8])
        .map_err(|error| format!("the datagram did not arrive: {error}"))?;
    Ok(sniffer
        .outers(1, |outer| outer.inner_udp_source() == Some(port))?
        .remove(0))
}

fn congestion_is_carried_in(lab: &mut Lab) -> Result {
    let socket = lab.cells[0].container()?.udp()?;
    let container = lab.cells[0].container()?;
    let sniffer = Sniffer::start(&container.namespace)?;
    send_congested(lab, container, IpEcn::Ect0, socket.local_addr()?.port())?;
    socket
        .recv(&mut [0; 8])
        .map_err(|error| format!("the datagram did not arrive: {error}"))?;
    let inner_tos = sniffer.collect(1, |frame| frame.get(ETHERNET_BYTES + 1).copied())?;
    ensure!(
        inner_tos == [IpEcn::CongestionExperienced.value()],
        "inner TOS {inner_tos:02x?}"
    );
    Ok(())
}

/// RFC 6040 section 4.2: whoever sent that does not expect a mark, so that only a drop can tell him.
fn congestion_on_not_ect_is_dropped(lab: &mut Lab) -> Result {
    send_congested(lab, lab.cells[0].container()?, IpEcn::NotEct, 9)?;
    let daemon = lab.cells[0].daemon()?;
    wait_until("the packet was dropped", || {
        let stats = Stats::read(daemon)?;
        Ok(Wait::unless(stats.dropped("ecn-ce-not-ect") == 1, || {
            format!("{stats:?}")
        }))
    })
}

const ETHERNET_BYTES: usize = 14;

/// Sends the first cell, as the second would, a UDP packet for its container: congestion experienced outside, `inner` inside.
fn send_congested(lab: &Lab, to: &Container, inner: IpEcn, port: u16) -> Result {
    let (here, there) = (&lab.cells[0].site, &lab.cells[1].site);
    let mut header = Ipv4Header::new(
        0,
        64,
        etherparse::IpNumber::UDP,
        there.container.octets(),
        to.address.octets(),
    )?;
    header.ecn = inner;
    let frame = PacketBuilder::ethernet2(vtep_mac(there.vtep), vtep_mac(here.vtep))
        .ip(IpHeaders::Ipv4(header, Default::default()))
        .udp(4000, port);
    let mut datagram = PLAIN_HEADER.to_vec();
    frame.write(&mut datagram, b"marked")?;
    let socket = lab.cells[1]
        .host
        .run(|| Ok(UdpSocket::bind((there.underlay_v4, 0))?))?;
    SockRef::from(&socket).set_tos_v4(IpEcn::CongestionExperienced.value().into())?;
    socket.send_to(&datagram, (here.underlay_v4, 4789))?;
    Ok(())
}

fn arp_is_answered(lab: &mut Lab) -> Result {
    let (here, there) = (lab.cells[0].site, lab.cells[1].site);
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let injector = Injector::new(&lab.cells[0].host, VTEP_NAME)?;
    injector.send(&arp_request(&here, there.vtep)?)?;
    let reply = sniffer.collect(1, arp_reply)?.remove(0);
    ensure!(
        reply.sender_hw_addr() == vtep_mac(there.vtep),
        "answered with {:02x?}",
        reply.sender_hw_addr()
    );
    ensure!(
        reply.sender_protocol_addr() == there.vtep.octets(),
        "answered for {:?}",
        reply.sender_protocol_addr()
    );
    ensure!(
        reply.target_hw_addr() == vtep_mac(here.vtep),
        "answered to {:02x?}",
        reply.target_hw_addr()
    );
    Ok(())
}

fn arp_request(from: &Site, target: Ipv4Addr) -> Result<Vec<u8>> {
    let source = vtep_mac(from.vtep);
    let request = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &source,
        &from.vtep.octets(),
        &[0; 6],
        &target.octets(),
    )?;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(source, [0xff; 6])
        .arp(request)
        .write(&mut frame)?;
    Ok(frame)
}

fn arp_reply(frame: &[u8]) -> Option<ArpPacket> {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let arp = packet.net?.arp_ref()?.to_packet();
    (arp.operation == ArpOperation::REPLY).then_some(arp)
}

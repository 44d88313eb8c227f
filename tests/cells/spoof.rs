//! Packets in somebody else's name, put on the wire by a third host: none gets in, and each is counted under the reason that is so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use serde_json::Value;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Injector, Lab, Plan, Result, Site, Sniffer, Stats, VTEP_NAME, Wait, ensure, host_veth_name,
    ping, vtep_mac, wait_until,
};

const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const HEADER: [u8; 8] = [0x08, 0, 0, 0, 0, 0, 1, 0];
/// UDP port of what is delivered all the same; nobody listens.
const PORT: u16 = 9;

/// Every reason that a source can be refused for.
const REASONS: [&str; 7] = [
    "unknown-peer",
    "own-source-mac",
    "own-source-address",
    "source-not-peers",
    "source-not-local",
    "source-is-underlay",
    "absent-container",
];

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("spoof::{name}"), plan.overlay_v6(), body)
    };
    let three = || Plan::of(&[Silk, Silk, Silk]);
    let two = || Plan::of(&[Silk, Silk]);
    vec![
        case("a_third_host_speaks_for_nobody_else", three(), |lab| {
            third_host(lab, false)
        }),
        case(
            "a_third_host_speaks_for_nobody_else_over_v6",
            three().v6(),
            |lab| third_host(lab, true),
        ),
        case(
            "what_the_host_sends_is_from_this_cell",
            two(),
            host_speaks_for_this_cell,
        ),
        case(
            "a_container_in_anothers_name_is_refused",
            two(),
            container_in_anothers_name,
        ),
        case(
            "a_process_on_the_underlay_address_is_told_so",
            two(),
            process_on_the_underlay_address,
        ),
    ]
}

/// A frame that a third host sends, and the reason for which the first does not take it; `None`: it does.
struct Spoof {
    what: &'static str,
    /// Outer source address.
    from: IpAddr,
    frame: Vec<u8>,
    reason: Option<&'static str>,
}

fn third_host(lab: &mut Lab, v6: bool) -> Result {
    let [a, b, c] = [0, 1, 2].map(|index| lab.cells[index].site);
    let mac = mac_of(lab, 0)?;
    let wire = Injector::new(&lab.cells[2].host, "eth0")?;
    let sniffer = Sniffer::start(&lab.cells[0].container()?.namespace)?;
    let spoofs = spoofs(&a, &b, &c, v6)?;
    for spoof in &spoofs {
        let datagram = [&HEADER[..], &spoof.frame].concat();
        let packet = outer(mac, spoof.from, a.underlay(v6), &datagram)?;
        refused(lab, spoof.what, spoof.reason, || wire.send(&packet))?;
    }
    // The one honest packet is the proof that all the others had a way in.
    let honest = |frame: &[u8]| udp_port(frame).filter(|port| *port == PORT);
    let delivered = sniffer.collect(1, honest)?;
    ensure!(
        delivered.len() == 1,
        "{} packets got in, and one was honest",
        delivered.len()
    );
    Ok(())
}

/// To the first cell, from the third: as itself, as the second, as nobody, as the first itself.
fn spoofs(a: &Site, b: &Site, c: &Site, v6: bool) -> Result<Vec<Spoof>> {
    let (own, peer) = (vtep_mac(a.vtep), vtep_mac(c.vtep));
    let [a6, b6, c6] = [a, b, c].map(Site::vtep_v6);
    let stranger: IpAddr = match v6 {
        false => Ipv4Addr::new(10, 0, 99, 99).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 99, 99).into(),
    };
    let macs = (peer, own);
    let honest = udp(macs, c.container, a.container)?;
    let (as_b, as_a) = (b.underlay(v6), c.underlay(v6));
    let mine = |what, frame, reason| Spoof {
        what,
        from: as_a,
        frame,
        reason: Some(reason),
    };
    let theirs = "source-not-peers";
    let ours = "own-source-address";
    Ok(vec![
        Spoof {
            what: "a stranger",
            from: stranger,
            frame: honest.clone(),
            reason: Some("unknown-peer"),
        },
        Spoof {
            what: "the third in the second's outer name",
            from: as_b,
            frame: honest.clone(),
            reason: Some(theirs),
        },
        mine(
            "the second's container",
            udp(macs, b.container, a.container)?,
            theirs,
        ),
        mine(
            "nobody's address",
            udp(macs, STRANGER, a.container)?,
            theirs,
        ),
        mine(
            "the third's underlay address",
            udp(macs, c.underlay_v4, a.container)?,
            theirs,
        ),
        mine("our container", udp(macs, a.container, a.container)?, ours),
        mine("our VTEP", udp(macs, a.vtep, a.container)?, ours),
        mine(
            "our MAC",
            udp((own, own), c.container, a.container)?,
            "own-source-mac",
        ),
        mine(
            "the second behind a tag",
            tagged(&udp(macs, b.container, a.container)?),
            theirs,
        ),
        mine(
            "our container behind tags",
            tagged(&tagged(&udp(macs, a.container, a.container)?)),
            ours,
        ),
        mine(
            "the second behind three tags",
            tagged(&tagged(&tagged(&udp(macs, b.container, a.container)?))),
            theirs,
        ),
        mine("the second's v6 subnet", udp_v6(macs, b6, a6)?, theirs),
        mine(
            "nobody's v6 address",
            udp_v6(macs, STRANGER_V6, a6)?,
            theirs,
        ),
        mine("our v6 address", udp_v6(macs, a6, a6)?, ours),
        mine(
            "the second's v6 subnet behind a tag",
            tagged(&udp_v6(macs, b6, a6)?),
            theirs,
        ),
        mine(
            "an ARP reply about the second",
            arp(macs, ArpOperation::REPLY, b.vtep, peer, a.vtep)?,
            theirs,
        ),
        mine(
            "an ARP request of the second",
            arp(macs, ArpOperation::REQUEST, b.vtep, peer, a.vtep)?,
            theirs,
        ),
        mine(
            "an ARP reply about us",
            arp(macs, ArpOperation::REPLY, a.vtep, peer, a.vtep)?,
            ours,
        ),
        mine(
            "an ARP reply at our MAC",
            arp(macs, ArpOperation::REPLY, c.vtep, own, a.vtep)?,
            "own-source-mac",
        ),
        mine(
            "an ARP reply behind a tag",
            tagged(&arp(macs, ArpOperation::REPLY, b.vtep, peer, a.vtep)?),
            theirs,
        ),
        mine(
            "an advertisement of the second",
            advertisement(macs, c6, b6, a6)?,
            theirs,
        ),
        mine(
            "an advertisement of the second in a packet of no length",
            of_no_length(&advertisement(macs, c6, b6, a6)?),
            theirs,
        ),
        mine(
            "an advertisement by the second",
            advertisement(macs, b6, c6, a6)?,
            theirs,
        ),
        mine(
            "an advertisement of us",
            advertisement(macs, c6, a6, a6)?,
            ours,
        ),
        Spoof {
            what: "the third itself",
            from: as_a,
            frame: honest,
            reason: None,
        },
    ])
}

/// What a process with a raw socket on the TAP sends.
fn host_speaks_for_this_cell(lab: &mut Lab) -> Result {
    let [a, b] = [0, 1].map(|index| lab.cells[index].site);
    let tap = Injector::new(&lab.cells[0].host, VTEP_NAME)?;
    let (own, peer) = (vtep_mac(a.vtep), vtep_mac(b.vtep));
    let (routed, bridged) = ((own, own), (own, peer));
    let [a6, b6] = [a, b].map(|site| site.vtep_v6());
    let not_local = "source-not-local";
    let absent = Ipv4Addr::from(u32::from(a.vtep) + 99);
    let cases = [
        (
            "another cell's container",
            udp(routed, b.container, b.container)?,
            not_local,
        ),
        (
            "nobody's address",
            udp(routed, STRANGER, b.container)?,
            not_local,
        ),
        ("bridged", udp(bridged, STRANGER, b.container)?, not_local),
        (
            "behind a tag",
            tagged(&udp(bridged, STRANGER, b.container)?),
            not_local,
        ),
        (
            "nobody's v6 address",
            udp_v6(routed, STRANGER_V6, b6)?,
            not_local,
        ),
        (
            "behind three tags",
            tagged(&tagged(&tagged(&udp(bridged, STRANGER, b.container)?))),
            not_local,
        ),
        (
            "v6 behind a tag",
            tagged(&udp_v6(bridged, STRANGER_V6, b6)?),
            not_local,
        ),
        (
            "ARP",
            arp(bridged, ArpOperation::REPLY, STRANGER, own, b.vtep)?,
            not_local,
        ),
        (
            "an advertisement",
            advertisement(bridged, a6, STRANGER_V6, b6)?,
            not_local,
        ),
        (
            "the underlay address",
            udp(routed, a.underlay_v4, b.container)?,
            "source-is-underlay",
        ),
        // The destination is judged first: who it was from is not what is wrong.
        (
            "nobody's, to nobody",
            udp(routed, STRANGER, absent)?,
            "absent-container",
        ),
        (
            "the underlay's, to nobody",
            udp(routed, a.underlay_v4, absent)?,
            "absent-container",
        ),
    ];
    for (what, frame, reason) in cases {
        refused(lab, what, Some(reason), || tap.send(&frame))?;
    }
    refused(lab, "a container", None, || {
        tap.send(&udp(routed, a.container, b.container)?)
    })
}

/// The host's own reverse path filter, which `container add` sets, stands before ours: here it is off.
fn container_in_anothers_name(lab: &mut Lab) -> Result {
    let [a, b] = [0, 1].map(|index| lab.cells[index].site);
    let mac = vtep_mac(a.container);
    let veth = vtep_mac(a.container);
    let to_host = (mac, [0xaa, 0xaa, veth[2], veth[3], veth[4], veth[5]]);
    let container = Injector::new(&lab.cells[0].container()?.namespace, "eth0")?;
    let spoofed = udp(to_host, STRANGER, b.container)?;
    refused(lab, "what the host filters", None, || {
        container.send(&spoofed)
    })?;
    let host = &lab.cells[0].host;
    for link in ["all", &host_veth_name(a.container)] {
        let path = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
        host.run(|| Ok(std::fs::write(&path, "0")?))?;
    }
    refused(lab, "in another's name", Some("source-not-local"), || {
        container.send(&spoofed)
    })?;
    ping(&lab.cells[0].container()?.namespace, b.container, 1, "")
}

fn process_on_the_underlay_address(lab: &mut Lab) -> Result {
    let [a, b] = [0, 1].map(|index| lab.cells[index].site);
    let said = std::cell::RefCell::new(String::new());
    let host = std::sync::Arc::clone(&lab.cells[0].host);
    refused(lab, "ping", Some("source-is-underlay"), || {
        let tried = host.exec(&format!(
            "ping -n -c 1 -W 1 -I {} {}",
            a.underlay_v4, b.vtep
        ));
        *said.borrow_mut() = format!("{tried:?}");
        ensure!(tried.is_err(), "it was answered: {tried:?}");
        Ok(())
    })?;
    let (daemon, printed) = (lab.cells[0].daemon()?, "speaks from the underlay address");
    let stats = daemon.ctl("stats")?;
    ensure!(stats.contains(printed), "not explained:\n{stats}");
    // Left to itself it speaks from the VTEP's address.
    ping(&lab.cells[0].host, b.vtep, 1, "")
}

/// Wants the first cell to count what `send` sends under `reason` and under no other reason about sources; with `None` under none.
pub(super) fn refused(
    lab: &mut Lab,
    what: &str,
    reason: Option<&str>,
    send: impl FnOnce() -> Result,
) -> Result {
    let daemon = lab.cells[0].daemon()?;
    let counts = |stats: &Stats| REASONS.map(|reason| stats.dropped(reason));
    let mut expected = counts(&Stats::read(daemon)?);
    for (count, name) in expected.iter_mut().zip(REASONS) {
        *count += u64::from(reason == Some(name));
    }
    send()?;
    wait_until(what, || {
        let now = counts(&Stats::read(daemon)?);
        Ok(Wait::unless(now == expected, || {
            format!("{REASONS:?}: {now:?}, expected {expected:?}")
        }))
    })
}

pub(super) fn mac_of(lab: &Lab, index: usize) -> Result<[u8; 6]> {
    let links: Value = serde_json::from_str(&lab.cells[index].host.ip("-j link show eth0")?)?;
    let text = links[0]["address"].as_str().ok_or("a link without a MAC")?;
    let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
    let octets: Vec<u8> = octets.collect::<std::result::Result<_, _>>()?;
    Ok(octets.try_into().map_err(|_| "a MAC has six octets")?)
}

pub(super) fn outer(mac: [u8; 6], from: IpAddr, to: IpAddr, datagram: &[u8]) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 3], mac);
    let mut frame = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder
            .ipv4(from.octets(), to.octets(), 64)
            .udp(40_000, 4789)
            .write(&mut frame, datagram)?,
        (IpAddr::V6(from), IpAddr::V6(to)) => builder
            .ipv6(from.octets(), to.octets(), 64)
            .udp(40_000, 4789)
            .write(&mut frame, datagram)?,
        _ => return Err("of two families".into()),
    }
    Ok(frame)
}

type Macs = ([u8; 6], [u8; 6]);

fn udp((from, to): Macs, source: Ipv4Addr, destination: Ipv4Addr) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(40_000, PORT)
        .write(&mut frame, b"spoofed")?;
    Ok(frame)
}

fn udp_v6((from, to): Macs, source: Ipv6Addr, destination: Ipv6Addr) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv6(source.octets(), destination.octets(), 64)
        .udp(40_000, PORT)
        .write(&mut frame, b"spoofed")?;
    Ok(frame)
}

/// The sender's address and MAC in the body are those given.
fn arp(
    (from, to): Macs,
    operation: ArpOperation,
    sender: Ipv4Addr,
    sender_mac: [u8; 6],
    target: Ipv4Addr,
) -> Result<Vec<u8>> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender_mac,
        &sender.octets(),
        &to,
        &target.octets(),
    )?;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .arp(packet)
        .write(&mut frame)?;
    Ok(frame)
}

/// A neighbour advertisement of `target`, sent by `source`.
fn advertisement(
    (from, to): Macs,
    source: Ipv6Addr,
    target: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<Vec<u8>> {
    let body = [&target.octets()[..], &[2, 1], &from].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv6(source.octets(), destination.octets(), 255)
        .icmpv6_raw(136, 0, [0x20, 0, 0, 0])
        .write(&mut frame, &body)?;
    Ok(frame)
}

/// An IPv6 packet with hop-by-hop options and a length of 0, which a host takes to be as long as its frame.
pub(super) fn of_no_length(frame: &[u8]) -> Vec<u8> {
    let options = [frame[20], 0, 1, 4, 0, 0, 0, 0];
    let mut open = [&frame[..54], &options, &frame[54..]].concat();
    open[18..21].fill(0);
    open
}

/// Behind a tag of VLAN 0, which a host takes for none.
pub(super) fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat()
}

fn udp_port(frame: &[u8]) -> Option<u16> {
    match etherparse::SlicedPacket::from_ethernet(frame)
        .ok()?
        .transport?
    {
        etherparse::TransportSlice::Udp(udp) => Some(udp.destination_port()),
        _ => None,
    }
}

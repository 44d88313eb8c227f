//! Frames for seeds.

use std::net::IpAddr;

use etherparse::{IpNumber, PacketBuilder};

use super::super::repair::{Checksum, repair};

pub(super) const OWN: [u8; 6] = [0xee, 0xee, 10, 255, 108, 0];
pub(super) const PEER: [u8; 6] = [0xee, 0xee, 10, 255, 43, 0];
pub(super) const OWN_V4: &str = "10.255.108.184";
pub(super) const PEER_V4: &str = "10.255.43.6";
pub(super) const OWN_V6: &str = "fd00:0:0:6c::b8";
pub(super) const PEER_V6: &str = "fd00:0:0:2b::6";

/// A UDP packet between two addresses of one family.
pub(super) fn udp(macs: ([u8; 6], [u8; 6]), ends: (&str, &str), tos: u8) -> Vec<u8> {
    let ends = (address(ends.0), address(ends.1));
    let ethernet = PacketBuilder::ethernet2(macs.0, macs.1);
    let mut frame = Vec::new();
    let written = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet
            .ipv4(source.octets(), destination.octets(), 64)
            .udp(40_000, 53)
            .write(&mut frame, b"question"),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet
            .ipv6(source.octets(), destination.octets(), 64)
            .udp(40_000, 53)
            .write(&mut frame, b"question"),
        ends => panic!("{ends:?} are of two families"),
    };
    written.expect("a Vec takes all");
    if frame[12] == 0x08 {
        frame[15] = tos;
    } else {
        frame[14] |= tos >> 4;
        frame[15] |= tos << 4;
    }
    repair(&mut frame, Checksum::Complete);
    frame
}

/// A frame of some type.
pub(super) fn ethernet(macs: ([u8; 6], [u8; 6]), ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = macs;
    [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// With VLAN tags of these types behind the addresses.
pub(super) fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for tag in tags {
        tagged.extend(tag.to_be_bytes());
        tagged.extend([0, 5]);
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// "Who has `target`?", of the MAC `sender`.
pub(super) fn arp_request(sender: [u8; 6], from: &str, target: &str) -> Vec<u8> {
    let body = [0, 1, 8, 0, 6, 4, 0, 1];
    let [from, target] = [from, target].map(|text| match address(text) {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => panic!("{address} is no IPv4 address"),
    });
    let packet = [&body[..], &sender, &from, &[0; 6], &target].concat();
    ethernet((sender, [0xff; 6]), 0x0806, &packet)
}

/// The same for IPv6. From the unspecified address it is duplicate address detection.
pub(super) fn solicitation(sender: [u8; 6], from: &str, target: &str, options: &[u8]) -> Vec<u8> {
    let [from, target] = [from, target].map(|text| match address(text) {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => panic!("{address} is no IPv6 address"),
    });
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target[13..]);
    let mac = [0x33, 0x33, group[12], group[13], group[14], group[15]];
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(sender, mac)
        .ipv6(from, group, 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &[&target, options].concat())
        .expect("a Vec takes all");
    frame
}

/// An IPv6 packet with hop-by-hop options and a length of 0, as a jumbogram has it.
pub(super) fn of_no_length(frame: &[u8]) -> Vec<u8> {
    let options = [frame[20], 0, 1, 4, 0, 0, 0, 0];
    let mut open = [&frame[..54], &options, &frame[54..]].concat();
    open[18..21].fill(0);
    open
}

/// A first fragment, or a later one.
pub(super) fn fragment(first: bool) -> Vec<u8> {
    let mut frame = udp((OWN, OWN), (OWN_V4, PEER_V4), 0);
    let word: u16 = if first { 0x2000 } else { 0x0003 };
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    repair(&mut frame, Checksum::Complete);
    frame
}

/// A packet of a protocol without ports.
pub(super) fn icmp() -> Vec<u8> {
    let mut frame = Vec::new();
    let IpAddr::V4(source) = address(OWN_V4) else {
        panic!("IPv4")
    };
    let IpAddr::V4(destination) = address(PEER_V4) else {
        panic!("IPv4")
    };
    PacketBuilder::ethernet2(OWN, OWN)
        .ipv4(source.octets(), destination.octets(), 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut frame, b"ping")
        .expect("a Vec takes all");
    assert_eq!(frame[23], IpNumber::ICMP.0);
    frame
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

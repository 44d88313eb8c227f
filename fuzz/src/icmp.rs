//! "Too big": what senders are told, and what is believed of what routers say.
//!
//! ```text
//! 0 | MTU (4) | Ethernet frame ...                          which is too big
//! 1 | v6 | MTU (4) | packet (2) | nonce (8) | quote ...      in answer to a probe
//! ```
//! The number is the lowest bit of the first byte; its second bit repairs the frame, the third makes of the quote's front the
//! probe's, as much of it as there is of the quote. `v6` has further such bits: the lowest one is the family, the next says that the host told it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use silk_vtep::io::{Asked, FRONT_LEN, Told};
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::icmp::{LEN_MAX, write_too_big};

use super::repair::{Checksum, fold, repair, sum};

const ANSWER: u8 = 1;
const REPAIRED: u8 = 2;
const QUOTED: u8 = 4;

/// Nobody is told who may not be, everybody else is, in a message that another library reads; and no answer moves a bound where nothing
/// vouches for it.
pub fn target(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    if how & ANSWER == 0 {
        message(how, rest);
    } else {
        answer(how, rest);
    }
}

fn message(how: u8, rest: &[u8]) {
    let Some((mtu, frame)) = rest.split_first_chunk() else {
        return;
    };
    let (mtu, mut frame) = (u32::from_be_bytes(*mtu), frame.to_vec());
    if how & REPAIRED != 0 {
        repair(&mut frame, Checksum::Complete);
    }
    let Some(view) = Frame::new_checked(&frame) else {
        return;
    };
    // Every byte of what is returned has to be written.
    let [first, second] = [0, 0xff].map(|filling| {
        let mut room = [filling; LEN_MAX];
        write_too_big(view, mtu, &mut room).map(<[u8]>::to_vec)
    });
    assert_eq!(first, second);
    assert_eq!(first.is_some(), may_be_told(&frame, mtu), "{frame:02x?}");
    if let Some(message) = first {
        check(&frame, mtu, &message);
    }
}

fn check(frame: &[u8], mtu: u32, message: &[u8]) {
    assert_eq!(message[..6], frame[6..12]);
    assert_eq!(message[6..12], frame[..6]);
    let sliced = SlicedPacket::from_ethernet(message).expect("a whole packet");
    let packet = &frame[14..];
    let most = match (sliced.net, sliced.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
            let header = ip.header();
            assert_eq!(header.source()[..], packet[16..20]);
            assert_eq!(header.destination()[..], packet[12..16]);
            let checksum = header.to_header().calc_header_checksum();
            assert_eq!(header.header_checksum(), checksum);
            let next_hop_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
            assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
            assert_eq!(fold(sum(icmp.slice())), 0xffff);
            assert!(packet.starts_with(icmp.payload()));
            576
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            let (source, destination) = (ip.header().source(), ip.header().destination());
            assert_eq!(source[..], packet[24..40]);
            assert_eq!(destination[..], packet[8..24]);
            assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu });
            assert!(icmp.is_checksum_valid(source, destination));
            assert!(packet.starts_with(icmp.payload()));
            1280
        }
        other => panic!("{other:?}"),
    };
    // All of the packet, or as much as a message may have.
    let headers = if frame[12] == 0x08 { 28 } else { 48 };
    assert_eq!(message.len() - 14, most.min(headers + packet.len()));
}

/// By the standards' text: RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e).
fn may_be_told(frame: &[u8], mtu: u32) -> bool {
    if (frame[0] | frame[6]) & 1 != 0 {
        return false;
    }
    let packet = &frame[14..];
    match frame[12..14] {
        [0x08, 0x00] if packet.len() >= 20 => mtu >= 576 && may_be_told_v4(packet),
        [0x86, 0xdd] if packet.len() >= 40 => mtu >= 1280 && may_be_told_v6(packet),
        _ => false,
    }
}

fn may_be_told_v4(packet: &[u8]) -> bool {
    let address =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let (source, destination) = (address(12), address(16));
    let many = |address: Ipv4Addr| address.is_broadcast() || address.is_multicast();
    let is_whole = packet[6] & 0x3f == 0 && packet[7] == 0;
    let header_len = usize::from(packet[0] & 15) * 4;
    let is_honest = packet[0] >> 4 == 4 && header_len >= 20 && header_len <= packet.len();
    let is_one =
        !many(source) && !many(destination) && source.octets()[0] != 0 && !source.is_loopback();
    let is_error = || {
        let kind = packet.get(header_len);
        packet[9] == 1 && kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12))
    };
    packet[6] & 0x40 != 0 && is_whole && is_honest && is_one && !is_error()
}

fn may_be_told_v6(packet: &[u8]) -> bool {
    let address = |at: usize| -> Ipv6Addr {
        let octets: [u8; 16] = std::array::from_fn(|index| packet[at + index]);
        octets.into()
    };
    let (source, destination) = (address(8), address(24));
    if source.is_unspecified()
        || source.is_loopback()
        || source.is_multicast()
        || destination.is_multicast()
    {
        return false;
    }
    let len = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    if packet[0] >> 4 != 6 || packet.len() < len {
        return false;
    }
    let (packet, mut kind, mut at) = (&packet[..len], packet[6], 40);
    // More than nine headers in front are refused.
    for _ in 0..9 {
        let here = packet.get(at..).unwrap_or_default();
        let (Some(&next), units) = (here.first(), here.get(1)) else {
            return !matches!(kind, 0 | 43 | 44 | 51 | 60 | 58);
        };
        let units = units.copied().map(usize::from);
        let len = match (kind, units) {
            (0 | 43 | 60, Some(units)) => 8 + 8 * units,
            (51, Some(units)) => 8 + 4 * units,
            (44, Some(_)) if here.len() >= 8 => {
                if here[2] != 0 || here[3] & 0xf8 != 0 {
                    return false;
                }
                8
            }
            (0 | 43 | 44 | 51 | 60, _) => return false,
            (58, _) => return next >= 128 && next != 137,
            _ => return true,
        };
        if here.len() < len {
            return false;
        }
        (kind, at) = (next, at + len);
    }
    false
}

fn answer(how: u8, rest: &[u8]) {
    let Some((&[family, a, b, c, d, high, low], rest)) = rest.split_first_chunk() else {
        return;
    };
    let Some((nonce, quoted)) = rest.split_first_chunk() else {
        return;
    };
    let (is_v6, by_host) = (family & 1 != 0, family & 2 != 0);
    let local = match is_v6 {
        true => IpAddr::V6(Ipv6Addr::LOCALHOST),
        false => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let (mtu, packet_bytes) = (
        u32::from_be_bytes([a, b, c, d]),
        u32::from(u16::from_be_bytes([high, low])),
    );
    let asked = Asked::new(local, *nonce, packet_bytes);
    assert_eq!(asked.front()[..], [b"\0\0\0\0silk", &nonce[..]].concat());
    let mut quoted = quoted.to_vec();
    if how & QUOTED != 0 {
        let len = quoted.len().min(FRONT_LEN);
        quoted[..len].copy_from_slice(&asked.front()[..len]);
    }
    let told = Told {
        mtu,
        by_host,
        quoted: &quoted,
    };
    let is_ours = quoted.iter().zip(asked.front()).all(|(a, b)| a == b);
    let vouched = by_host || quoted.len() >= FRONT_LEN;
    let least = match (is_v6, vouched) {
        (false, true) => 576,
        (true, true) => 1280,
        (false, false) => 1330,
        (true, false) => 1350,
    };
    let expected = (is_ours && mtu.max(least) < packet_bytes).then_some(mtu.max(least));
    assert_eq!(asked.believed(&told), expected);
}

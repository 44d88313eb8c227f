//! "Too big" in ICMP: fragmentation needed and DF set (RFC 792, RFC 1191), packet too big (RFC 4443), as a tunnel in Linux writes them
//! into the network behind it (`iptunnel_pmtud_build_icmp`, `iptunnel_pmtud_build_icmpv6`); and port unreachable, as iptables' REJECT.
//!
//! ```text
//!  0           14           34 or 54                         42 or 62
//! | Ethernet  | IP          | type| code| checksum| 0 .. MTU | the packet, as much of it as fits        (of "too big")
//! | Ethernet  | IP          | type| code| checksum| 0        | the packet, as much of it as fits        (of unreachable)
//! ```
//!
//! They come from the address that the packet was for, as if the last link to it were the narrow one: an address of our own would be taken
//! for spoofed by the very host it is ours on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::checksum;
use super::ethernet::{self, Frame};
use super::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4, Ipv6, Network, protocol};

/// Bytes of the longest frame that is written here.
pub const LEN_MAX: usize = ethernet::HEADER_LEN + IPV6_PACKET_MAX;

/// The least MTU that is told to IPv4: what every host takes (RFC 1812 section 4.3.2.3).
pub const IPV4_MTU_MIN: u32 = 576;
/// The least MTU that is told to IPv6: what every link carries (RFC 8201 section 4).
pub const IPV6_MTU_MIN: u32 = 1280;

/// Bytes of the longest message: what every host takes, and every link carries (RFC 4443 section 3.2).
const IPV4_PACKET_MAX: usize = IPV4_MTU_MIN as usize;
const IPV6_PACKET_MAX: usize = IPV6_MTU_MIN as usize;

const _: () = assert!(IPV4_PACKET_MAX <= IPV6_PACKET_MAX);

const HEADER_LEN: usize = 8;
const CHECKSUM: Range<usize> = 2..4;

/// Type and code of ICMP.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PORT_UNREACHABLE: [u8; 2] = [3, 3];
/// Type and code of ICMPv6.
const PORT_UNREACHABLE_V6: [u8; 2] = [1, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];

/// ICMP messages that are never answered by another (`icmp_is_err`): destination unreachable, source quench, redirect, time exceeded,
/// parameter problem.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// ICMPv6 types from here on are no errors (RFC 4443 section 2.1).
const ICMPV6_QUERIES: u8 = 128;
const ICMPV6_REDIRECT: u8 = 137;

const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// Writes the message that tells the sender of the packet in `frame` that packets of `mtu` bytes get through; returns the frame that goes
/// back to it. `None` if nobody may be told: IPv4 without DF, a fragment, an ICMP error, an address or MAC of many, a frame with a VLAN tag
/// or without IP, an MTU below what every host takes (576 bytes, for IPv6 1280).
#[must_use]
pub fn write_too_big<'a>(
    frame: Frame<'_>,
    mtu: u32,
    out: &'a mut [u8; LEN_MAX],
) -> Option<&'a [u8]> {
    let message = match Network::parse(frame).ok()? {
        Network::V4(ip) => {
            if !ip.dont_fragment() || mtu < IPV4_MTU_MIN {
                return None;
            }
            let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
            (FRAGMENTATION_NEEDED, [0, 0, high, low])
        }
        Network::V6(_) if mtu < IPV6_MTU_MIN => return None,
        Network::V6(_) => (PACKET_TOO_BIG, mtu.to_be_bytes()),
        Network::Other => return None,
    };
    write(frame, message, out)
}

/// Writes the message that tells the sender of the packet in `frame` that nobody listens there; returns the frame that goes back to it.
/// `None` if nobody may be told: a fragment of IPv4, an ICMP error, an address or MAC of many, a frame with a VLAN tag or without IP.
#[must_use]
pub fn write_port_unreachable<'a>(
    frame: Frame<'_>,
    out: &'a mut [u8; LEN_MAX],
) -> Option<&'a [u8]> {
    let kind = match Network::parse(frame).ok()? {
        Network::V4(_) => PORT_UNREACHABLE,
        Network::V6(_) => PORT_UNREACHABLE_V6,
        Network::Other => return None,
    };
    write(frame, (kind, [0; 4]), out)
}

/// A message: its type and code, and what follows its checksum.
type Message = ([u8; 2], [u8; 4]);

fn write<'a>(frame: Frame<'_>, message: Message, out: &'a mut [u8; LEN_MAX]) -> Option<&'a [u8]> {
    if frame.destination().is_multicast() || frame.source().is_multicast() {
        return None;
    }
    let packet_len = match Network::parse(frame).ok()? {
        Network::V4(ip) if may_be_told_v4(ip) => write_v4(ip, message, out),
        Network::V6(ip) if may_be_told_v6(ip) => write_v6(ip, message, out),
        Network::V4(_) | Network::V6(_) | Network::Other => return None,
    };
    out[ethernet::DESTINATION].copy_from_slice(&frame.source().octets());
    out[ethernet::SOURCE].copy_from_slice(&frame.destination().octets());
    out[ethernet::ETHERTYPE].copy_from_slice(&frame.ethertype().0.to_be_bytes());
    Some(&out[..ethernet::HEADER_LEN + packet_len])
}

/// RFC 1122 section 3.2.2 and `iptunnel_pmtud_check_icmp`.
fn may_be_told_v4(ip: Ipv4<'_>) -> bool {
    let many = |address: Ipv4Addr| address.is_broadcast() || address.is_multicast();
    let source = ip.source();
    if ip.is_fragment() || many(ip.destination()) {
        return false;
    }
    if many(source) || source.octets()[0] == 0 || source.is_loopback() {
        return false;
    }
    let Some(payload) = ip.header_len().and_then(|len| ip.bytes().get(len..)) else {
        return false;
    };
    let is_error = ip.protocol() == protocol::ICMP
        && payload
            .first()
            .is_none_or(|kind| ICMP_ERRORS.contains(kind));
    ip.version() == 4 && !is_error
}

/// RFC 4443 section 2.4 (e) and `iptunnel_pmtud_check_icmpv6`. A packet for many may be "too big" by (e.3), but the answer's source would be
/// its destination, and no packet comes from many (RFC 4291 section 2.7).
fn may_be_told_v6(ip: Ipv6<'_>) -> bool {
    let source = ip.source();
    if ip.destination().is_multicast() {
        return false;
    }
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return false;
    }
    let Some((protocol, payload)) = ip.upper_layer() else {
        return false;
    };
    let is_error = protocol == protocol::ICMPV6
        && payload
            .first()
            .is_none_or(|&kind| kind < ICMPV6_QUERIES || kind == ICMPV6_REDIRECT);
    !is_error
}

/// Writes the IPv4 packet behind the Ethernet header; returns its length.
fn write_v4(ip: Ipv4<'_>, (kind, rest): Message, out: &mut [u8]) -> usize {
    let quoted = quote(ip.bytes(), IPV4_PACKET_MAX - IPV4_HEADER_LEN);
    let packet_len = IPV4_HEADER_LEN + HEADER_LEN + quoted.len();
    let packet = &mut out[ethernet::HEADER_LEN..][..packet_len];
    let (header, message) = packet.split_at_mut(IPV4_HEADER_LEN);

    header.fill(0);
    header[0] = 0x45;
    // At most IPV4_PACKET_MAX.
    header[2..4].copy_from_slice(&(packet_len as u16).to_be_bytes());
    header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header[8..10].copy_from_slice(&[TTL, protocol::ICMP]);
    header[12..16].copy_from_slice(&ip.destination().octets());
    header[16..20].copy_from_slice(&ip.source().octets());
    let sum = !checksum::fold(checksum::sum(0, header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());

    write_message(message, kind, rest, quoted, 0);
    packet_len
}

/// Writes the IPv6 packet behind the Ethernet header; returns its length.
fn write_v6(ip: Ipv6<'_>, (kind, rest): Message, out: &mut [u8]) -> usize {
    let quoted = quote(ip.bytes(), IPV6_PACKET_MAX - IPV6_HEADER_LEN);
    let payload_len = HEADER_LEN + quoted.len();
    let packet_len = IPV6_HEADER_LEN + payload_len;
    let packet = &mut out[ethernet::HEADER_LEN..][..packet_len];
    let (header, message) = packet.split_at_mut(IPV6_HEADER_LEN);
    let (source, destination) = (ip.destination(), ip.source());

    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    // At most IPV6_PACKET_MAX.
    header[4..6].copy_from_slice(&(payload_len as u16).to_be_bytes());
    header[6..8].copy_from_slice(&[protocol::ICMPV6, TTL]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());

    let addresses: [IpAddr; 2] = [source, destination].map(Ipv6Addr::into);
    let [source, destination] = addresses;
    let pseudo_header =
        checksum::pseudo_header(source, destination, protocol::ICMPV6, payload_len as u32);
    write_message(message, kind, rest, quoted, pseudo_header);
    packet_len
}

/// As much of the packet as `room` holds beside the message's own header.
fn quote(packet: &[u8], room: usize) -> &[u8] {
    &packet[..packet.len().min(room - HEADER_LEN)]
}

/// `sum`: what the checksum covers besides the message.
fn write_message(message: &mut [u8], kind: [u8; 2], rest: [u8; 4], quoted: &[u8], sum: u64) {
    message[..2].copy_from_slice(&kind);
    message[CHECKSUM].fill(0);
    message[4..HEADER_LEN].copy_from_slice(&rest);
    message[HEADER_LEN..].copy_from_slice(quoted);
    let sum = !checksum::fold(checksum::sum(sum, message));
    message[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{
        Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    };
    use etherparse::{icmpv4, icmpv6};
    use proptest::prelude::*;

    use super::*;

    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    const V4: [[u8; 4]; 2] = [[10, 255, 108, 184], [10, 255, 43, 6]];
    const V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    ];
    /// Of the fragment word in a frame.
    const FRAGMENT: usize = 20;

    fn v4(payload: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(MACS[0], MACS[1])
            .ipv4(V4[0], V4[1], 7)
            .udp(40_000, 53)
            .write(&mut frame, &vec![9; payload])
            .unwrap();
        frame[FRAGMENT] = 0x40;
        frame
    }

    fn v6(payload: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(MACS[0], MACS[1])
            .ipv6(V6[0].octets(), V6[1].octets(), 7)
            .udp(40_000, 53)
            .write(&mut frame, &vec![9; payload])
            .unwrap();
        frame
    }

    fn told(frame: &[u8], mtu: u32) -> Option<Vec<u8>> {
        // Not zero, so that every byte has to be written.
        let mut out = [0xee; LEN_MAX];
        let frame = Frame::new_checked(frame).unwrap();
        write_too_big(frame, mtu, &mut out).map(<[u8]>::to_vec)
    }

    #[test]
    fn ipv4_is_told_that_fragmentation_is_needed() {
        let frame = v4(1400);
        let message = told(&frame, 1350).unwrap();
        assert_eq!(message[..6], MACS[0]);
        assert_eq!(message[6..12], MACS[1]);
        assert_eq!(message.len(), 14 + 576);
        let packet = SlicedPacket::from_ethernet(&message).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            panic!("no IPv4");
        };
        let header = ip.header();
        assert_eq!((header.source(), header.destination()), (V4[1], V4[0]));
        assert_eq!(
            header.to_header().calc_header_checksum(),
            header.header_checksum()
        );
        let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else {
            panic!("no ICMP");
        };
        let next_hop_mtu = 1350;
        let expected = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
        assert_eq!(
            icmp.icmp_type(),
            Icmpv4Type::DestinationUnreachable(expected)
        );
        assert_eq!(checksum::fold(checksum::sum(0, icmp.slice())), 0xffff);
        assert_eq!(icmp.payload(), &frame[14..][..548]);
    }

    #[test]
    fn ipv6_is_told_that_the_packet_is_too_big() {
        let frame = v6(1400);
        let message = told(&frame, 1350).unwrap();
        assert_eq!(message.len(), 14 + 1280);
        let packet = SlicedPacket::from_ethernet(&message).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
            panic!("no ICMPv6");
        };
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1350 });
        assert!(icmp.is_checksum_valid(V6[1].octets(), V6[0].octets()));
        assert_eq!(icmp.payload(), &frame[14..][..1232]);
        assert_eq!(message[22..38], V6[1].octets());
        assert_eq!(message[38..54], V6[0].octets());
    }

    #[test]
    fn short_packets_are_quoted_whole() {
        for (frame, headers) in [(v4(100), 28), (v6(100), 48)] {
            let message = told(&frame, 1280).unwrap();
            assert_eq!(message[14 + headers..], frame[14..]);
        }
    }

    #[test]
    fn an_mtu_that_every_host_takes_anyway_is_not_told() {
        assert!(told(&v4(1400), 576).is_some() && told(&v4(1400), 575).is_none());
        assert!(told(&v6(1400), 1280).is_some() && told(&v6(1400), 1279).is_none());
    }

    #[test]
    fn ipv4_without_df_and_fragments_are_not_told() {
        for word in [0x0000_u16, 0x6000, 0x4001] {
            let mut frame = v4(1400);
            frame[FRAGMENT..][..2].copy_from_slice(&word.to_be_bytes());
            assert_eq!(told(&frame, 1350), None, "{word:#06x}");
        }
    }

    #[test]
    fn who_asks_at_a_port_that_is_closed_is_told_so() {
        for (mut frame, source, destination) in [
            (v4(100), V4[1].to_vec(), V4[0].to_vec()),
            (v6(100), V6[1].octets().to_vec(), V6[0].octets().to_vec()),
        ] {
            // Whether it may be fragmented does not matter.
            if source.len() == 4 {
                frame[FRAGMENT] = 0;
            }
            let mut out = [0xee; LEN_MAX];
            let refused = Frame::new_checked(&frame).unwrap();
            let message = write_port_unreachable(refused, &mut out).unwrap();
            assert_eq!(
                (&message[..6], &message[6..12]),
                (&MACS[0][..], &MACS[1][..])
            );
            let packet = SlicedPacket::from_ethernet(message).unwrap();
            match packet.transport {
                Some(TransportSlice::Icmpv4(icmp)) => {
                    let expected = icmpv4::DestUnreachableHeader::Port;
                    let kind = Icmpv4Type::DestinationUnreachable(expected);
                    assert_eq!(icmp.icmp_type(), kind);
                    assert_eq!(checksum::fold(checksum::sum(0, icmp.slice())), 0xffff);
                    assert_eq!(icmp.payload(), &frame[14..]);
                    assert_eq!(
                        (&message[26..30], &message[30..34]),
                        (&source[..], &destination[..])
                    );
                }
                Some(TransportSlice::Icmpv6(icmp)) => {
                    let expected = icmpv6::DestUnreachableCode::Port;
                    let kind = Icmpv6Type::DestinationUnreachable(expected);
                    assert_eq!(icmp.icmp_type(), kind);
                    assert!(icmp.is_checksum_valid(V6[1].octets(), V6[0].octets()));
                    assert_eq!(icmp.payload(), &frame[14..]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn ipv6_first_fragments_are_told_and_later_ones_not() {
        for (offset, is_told) in [(1_u16, true), (8, false)] {
            let mut frame = v6(1400);
            frame[20] = protocol::FRAGMENT;
            frame[54..62].copy_from_slice(&[17, 0, 0, 0, 0, 0, 0, 5]);
            frame[56..58].copy_from_slice(&offset.to_be_bytes());
            assert_eq!(told(&frame, 1350).is_some(), is_told, "{offset}");
        }
    }

    #[test]
    fn errors_are_not_answered_and_pings_are() {
        let unreachable = icmpv4::DestUnreachableHeader::Host;
        let echo = etherparse::IcmpEchoHeader { id: 1, seq: 1 };
        for (kind, is_told) in [
            (Icmpv4Type::EchoRequest(echo), true),
            (Icmpv4Type::DestinationUnreachable(unreachable), false),
        ] {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(MACS[0], MACS[1])
                .ipv4(V4[0], V4[1], 7)
                .icmpv4(kind)
                .write(&mut frame, &[0; 1400])
                .unwrap();
            frame[FRAGMENT] = 0x40;
            assert_eq!(told(&frame, 1350).is_some(), is_told);
        }
        let unreachable = icmpv6::DestUnreachableCode::Address;
        for (kind, is_told) in [
            (Icmpv6Type::EchoRequest(echo), true),
            (Icmpv6Type::DestinationUnreachable(unreachable), false),
        ] {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(MACS[0], MACS[1])
                .ipv6(V6[0].octets(), V6[1].octets(), 7)
                .icmpv6(kind)
                .write(&mut frame, &[0; 1400])
                .unwrap();
            assert_eq!(told(&frame, 1350).is_some(), is_told);
        }
    }

    /// `frame`, IPv6, with these extension headers between its own header and what it carries; the first of them is of kind `first`.
    fn extended(mut frame: Vec<u8>, first: u8, extensions: &[u8]) -> Vec<u8> {
        frame.splice(54..54, extensions.iter().copied());
        let len = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame[20] = first;
        frame
    }

    #[test]
    fn errors_are_not_answered_wherever_in_a_first_fragment_they_stand() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let fragment = |next: u8| [next, 0, 0, 1, 0, 0, 0, 5];
        for (first, extensions) in [
            (44, fragment(58).to_vec()),
            (44, [fragment(60), options(58)].concat()),
            (0, [options(44), fragment(60), options(58)].concat()),
        ] {
            // Echo request, and time exceeded.
            for (kind, is_told) in [(128, true), (3, false)] {
                let mut frame = v6(1000);
                frame[54] = kind;
                let frame = extended(frame, first, &extensions);
                assert_eq!(told(&frame, 1280).is_some(), is_told, "{first}, {kind}");
            }
        }
    }

    #[test]
    fn many_are_not_told_and_nobody_is_told_of_many() {
        let mut to_all = v4(1400);
        to_all[..6].fill(0xff);
        let mut from_all = v4(1400);
        from_all[26..30].fill(0xff);
        let mut to_group = v4(1400);
        to_group[30] = 224;
        let mut to_group_v6 = v6(1400);
        to_group_v6[38] = 0xff;
        let mut from_none = v6(1400);
        from_none[22..38].fill(0);
        let mut tagged = v4(1400);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        for frame in [to_all, from_all, to_group, to_group_v6, from_none, tagged] {
            assert_eq!(told(&frame, 1350), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 14..200), ethertype in 0..3_usize, mtu: u32,
        ) {
            let mut frame = bytes;
            frame[0] &= 0xfe;
            frame[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0]][ethertype]);
            if let Some(message) = told(&frame, mtu) {
                let sliced = SlicedPacket::from_ethernet(&message);
                prop_assert!(sliced.is_ok(), "{:?}", sliced);
            }
        }
    }
}

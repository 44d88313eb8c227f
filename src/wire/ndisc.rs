//! IPv6 neighbour discovery (RFC 4861): solicitations to answer, and the advertisement as the kernel's `vxlan_na_create` writes it.
//!
//! ```text
//!  0           14    54    55    56        58               62       78
//! | Ethernet  | IPv6| type| code| checksum| flags, reserved| target | options: type, length in units of 8 bytes, value
//! ```

use std::net::Ipv6Addr;
use std::ops::Range;

use super::ethernet::{self, EtherType, Frame};
use super::ip::{self, IPV6_HEADER_LEN, Ipv6, Network};
use super::{MacAddr, checksum, field};

/// Bytes of a frame with a neighbour advertisement and its target link-layer address option.
pub const ADVERTISEMENT_LEN: usize = 14 + 40 + 24 + 8;

/// Bytes of a solicitation or advertisement without options.
const MESSAGE_LEN: usize = 24;
/// Bytes of a redirect without options: the destination that it is about follows the target (RFC 4861 section 4.5).
const REDIRECT_LEN: usize = 40;
const TYPE_AND_CODE: Range<usize> = 0..2;
const CHECKSUM: Range<usize> = 2..4;
const FLAGS: usize = 4;
const TARGET: Range<usize> = 8..24;
/// A link-layer address option behind the message.
const OPTION: Range<usize> = 24..32;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Bytes per unit of an option's length field.
const OPTION_UNIT: usize = 8;
/// What no router has lowered: proof that the sender is on the link.
const HOP_LIMIT: u8 = 255;

const ICMP_OFFSET: usize = ethernet::HEADER_LEN + IPV6_HEADER_LEN;

const _: () = assert!(TARGET.end == MESSAGE_LEN);
const _: () = assert!(ADVERTISEMENT_LEN == ICMP_OFFSET + OPTION.end);

/// "Who has `target`?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Ethernet source of the frame, or the source link-layer address option where there is one.
    pub sender_mac: MacAddr,
    /// IPv6 source; unspecified in duplicate address detection.
    pub sender_ip: Ipv6Addr,
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The upper half of the traffic class, which the answer takes over (`vxlan_na_create`).
    pub priority: u8,
}

impl Solicitation {
    /// A valid solicitation (RFC 4861 section 7.1.1: hop limit 255, code 0, checksum right, no option of length 0, target not
    /// multicast; from the unspecified address only to a solicited-node address and without the asker's link-layer address);
    /// anything else is `None`, one behind IPv6 extension headers included, as for the kernel's `neigh_reduce`.
    #[must_use]
    pub fn parse(frame: Frame<'_>) -> Option<Self> {
        match Network::parse(frame) {
            Ok(Network::V6(ip)) => Self::of(ip, frame.source()),
            _ => None,
        }
    }

    /// In a packet of a frame from `source`.
    fn of(ip: Ipv6<'_>, source: MacAddr) -> Option<Self> {
        let message = message(ip)?;
        let target = Ipv6Addr::from(field::<16>(message, TARGET));
        if target.is_multicast() {
            return None;
        }
        let option = source_option(&message[MESSAGE_LEN..]).ok()?;
        if ip.source().is_unspecified()
            && (option.is_some() || !is_solicited_node(ip.destination()))
        {
            return None;
        }
        Some(Self {
            sender_mac: option.unwrap_or(source),
            sender_ip: ip.source(),
            target,
            priority: ip.traffic_class() >> 4,
        })
    }

    /// The advertisement: S and O set, hop limit 255, target link-layer address `mac`; R as `router`.
    ///
    /// Duplicate address detection is answered to all nodes with S clear (RFC 4861 section 7.2.4), in a frame for the asker
    /// alone (RFC 6085). The kernel answers it to the unspecified address, which nobody receives.
    #[must_use]
    pub fn advertisement(&self, mac: MacAddr, router: bool) -> [u8; ADVERTISEMENT_LEN] {
        let (destination, solicited) = if self.sender_ip.is_unspecified() {
            (ALL_NODES, 0)
        } else {
            (self.sender_ip, SOLICITED)
        };
        let router = if router { ROUTER } else { 0 };
        let mut frame = [0; ADVERTISEMENT_LEN];
        frame[ethernet::DESTINATION].copy_from_slice(&self.sender_mac.octets());
        frame[ethernet::SOURCE].copy_from_slice(&mac.octets());
        frame[ethernet::ETHERTYPE].copy_from_slice(&EtherType::IPV6.0.to_be_bytes());
        frame[ethernet::HEADER_LEN..ICMP_OFFSET].copy_from_slice(&ip_header(self, destination));

        let message = &mut frame[ICMP_OFFSET..];
        message[TYPE_AND_CODE].copy_from_slice(&[NEIGHBOR_ADVERTISEMENT, 0]);
        message[FLAGS] = router | solicited | OVERRIDE;
        message[TARGET].copy_from_slice(&self.target.octets());
        message[OPTION].copy_from_slice(&target_option(mac));
        let sum = !checksum::fold(sum(self.target, destination, message));
        message[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

/// The address that a packet asks for to take it: by a valid solicitation from the unspecified address (RFC 4862 section 5.4.2).
#[must_use]
#[inline]
pub fn tentative(ip: Ipv6<'_>) -> Option<Ipv6Addr> {
    if !ip.source().is_unspecified() {
        return None;
    }
    Solicitation::of(ip, MacAddr::ZERO).map(|asked| asked.target)
}

/// The address and the MAC that an ICMPv6 `message` says its sender has: an advertisement of its target, a redirect of the better first
/// hop, for which nobody is to speak but itself, and whichever message with a link-layer address option of that. Whether the message holds otherwise is not looked at: who hears it may be less strict.
#[must_use]
pub fn sender(message: &[u8]) -> Option<(Option<Ipv6Addr>, Option<MacAddr>)> {
    let (kind, options) = match *message.first()? {
        ROUTER_SOLICITATION => (SOURCE_LINK_LAYER_ADDRESS, 8),
        ROUTER_ADVERTISEMENT => (SOURCE_LINK_LAYER_ADDRESS, 16),
        NEIGHBOR_SOLICITATION => (SOURCE_LINK_LAYER_ADDRESS, MESSAGE_LEN),
        NEIGHBOR_ADVERTISEMENT => (TARGET_LINK_LAYER_ADDRESS, MESSAGE_LEN),
        REDIRECT => (TARGET_LINK_LAYER_ADDRESS, REDIRECT_LEN),
        _ => return None,
    };
    let options = message.get(options..)?;
    let advertised = matches!(message[0], NEIGHBOR_ADVERTISEMENT | REDIRECT);
    let address = advertised.then(|| field::<16>(message, TARGET).into());
    Some((address, link_layer_address(kind, options)))
}

/// The first option of that kind, as far as the options can be read.
fn link_layer_address(kind: u8, mut options: &[u8]) -> Option<MacAddr> {
    while let Some(&[found, units]) = options.first_chunk() {
        let len = usize::from(units) * OPTION_UNIT;
        let (option, rest) = options.split_at_checked(len).filter(|_| len > 0)?;
        if found == kind {
            return Some(MacAddr::new(field(option, 2..8)));
        }
        options = rest;
    }
    None
}

/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// ff02::1:ff00:0/104 (RFC 4291 section 2.7.1).
fn is_solicited_node(address: Ipv6Addr) -> bool {
    address.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]
}

/// The bytes of a solicitation with its options, `MESSAGE_LEN` at the least, after the checks that concern neither.
fn message(ip: Ipv6<'_>) -> Option<&[u8]> {
    let end = IPV6_HEADER_LEN + usize::from(ip.payload_len());
    let message = ip.bytes().get(IPV6_HEADER_LEN..end)?;
    let valid = ip.version() == 6
        && ip.next_header() == ip::protocol::ICMPV6
        && ip.hop_limit() == HOP_LIMIT
        && message.len() >= MESSAGE_LEN
        && message[TYPE_AND_CODE] == [NEIGHBOR_SOLICITATION, 0]
        && checksum::fold(sum(ip.source(), ip.destination(), message)) == 0xffff;
    valid.then_some(message)
}

/// An option of length 0 or past the end.
struct MalformedOption;

/// The source link-layer address, if there is one.
fn source_option(mut options: &[u8]) -> Result<Option<MacAddr>, MalformedOption> {
    let mut found = None;
    while let Some(&[kind, units]) = options.first_chunk() {
        let len = usize::from(units) * OPTION_UNIT;
        if len == 0 {
            return Err(MalformedOption);
        }
        let (option, rest) = options.split_at_checked(len).ok_or(MalformedOption)?;
        if kind == SOURCE_LINK_LAYER_ADDRESS {
            found = found.or(Some(MacAddr::new(field(option, 2..8))));
        }
        options = rest;
    }
    match options {
        [] => Ok(found),
        _ => Err(MalformedOption),
    }
}

fn target_option(mac: MacAddr) -> [u8; OPTION_UNIT] {
    let [a, b, c, d, e, f] = mac.octets();
    [TARGET_LINK_LAYER_ADDRESS, 1, a, b, c, d, e, f]
}

/// The IPv6 header of an advertisement.
fn ip_header(question: &Solicitation, destination: Ipv6Addr) -> [u8; IPV6_HEADER_LEN] {
    const PAYLOAD_LEN: u8 = (MESSAGE_LEN + OPTION_UNIT) as u8;
    let mut header = [0; IPV6_HEADER_LEN];
    header[..8].copy_from_slice(&[
        0x60 | question.priority,
        0,
        0,
        0,
        0,
        PAYLOAD_LEN,
        ip::protocol::ICMPV6,
        HOP_LIMIT,
    ]);
    header[8..24].copy_from_slice(&question.target.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// The checksum's sum over pseudo-header and message.
fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u64 {
    let len = u32::try_from(message.len()).expect("an IPv6 payload is shorter than 64 KiB");
    let pseudo =
        checksum::pseudo_header(source.into(), destination.into(), ip::protocol::ICMPV6, len);
    checksum::sum(pseudo, message)
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    const ASKER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const WANTED: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);
    const SOLICITED_NODE: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff12, 0x3456);
    const SOURCE_OPTION: [u8; 8] = [1, 1, 0xee, 0xee, 1, 2, 3, 4];
    const ANSWER: MacAddr = MacAddr::new([0xee, 0xee, 9, 9, 9, 9]);

    /// What a test changes in an otherwise valid solicitation.
    struct Asked<'a> {
        source: Ipv6Addr,
        destination: Ipv6Addr,
        target: Ipv6Addr,
        code: u8,
        hop_limit: u8,
        options: &'a [u8],
    }

    impl Default for Asked<'_> {
        fn default() -> Self {
            Self {
                source: ASKER,
                destination: SOLICITED_NODE,
                target: WANTED,
                code: 0,
                hop_limit: HOP_LIMIT,
                options: &SOURCE_OPTION,
            }
        }
    }

    impl Asked<'_> {
        fn frame(&self) -> Vec<u8> {
            let mut frame = Vec::new();
            let body = [&self.target.octets(), self.options].concat();
            PacketBuilder::ethernet2([2; 6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
                .ipv6(
                    self.source.octets(),
                    self.destination.octets(),
                    self.hop_limit,
                )
                .icmpv6_raw(NEIGHBOR_SOLICITATION, self.code, [0; 4])
                .write(&mut frame, &body)
                .unwrap();
            frame
        }

        fn parse(&self) -> Option<Solicitation> {
            parse(&self.frame())
        }
    }

    fn parse(bytes: &[u8]) -> Option<Solicitation> {
        Solicitation::parse(Frame::new_checked(bytes).unwrap())
    }

    #[test]
    fn reads_a_solicitation_and_prefers_its_option_to_the_ethernet_source() {
        let mut expected = Solicitation {
            sender_mac: MacAddr::new([0xee, 0xee, 1, 2, 3, 4]),
            sender_ip: ASKER,
            target: WANTED,
            priority: 0,
        };
        assert_eq!(Asked::default().parse(), Some(expected));
        let nonce_first = [&[14, 1, 0, 0, 0, 0, 0, 0], &SOURCE_OPTION[..]].concat();
        let asked = Asked {
            options: &nonce_first,
            ..Asked::default()
        };
        assert_eq!(asked.parse(), Some(expected));
        let asked = Asked {
            options: &[],
            ..Asked::default()
        };
        expected.sender_mac = MacAddr::new([2; 6]);
        assert_eq!(asked.parse(), Some(expected));
    }

    #[test]
    fn refuses_what_rfc_4861_refuses() {
        let valid = Asked::default;
        let unspecified = Ipv6Addr::UNSPECIFIED;
        for (fault, asked) in [
            (
                "hop limit",
                Asked {
                    hop_limit: 254,
                    ..valid()
                },
            ),
            ("code", Asked { code: 1, ..valid() }),
            (
                "multicast target",
                Asked {
                    target: ALL_NODES,
                    ..valid()
                },
            ),
            (
                "option of length 0",
                Asked {
                    options: &[1, 0, 2, 2, 2, 2, 2, 2],
                    ..valid()
                },
            ),
            (
                "option past the end",
                Asked {
                    options: &[1, 2, 2, 2, 2, 2, 2, 2],
                    ..valid()
                },
            ),
            (
                "half an option",
                Asked {
                    options: &[1],
                    ..valid()
                },
            ),
            (
                "address in detection",
                Asked {
                    source: unspecified,
                    ..valid()
                },
            ),
            (
                "detection not to a solicited node",
                Asked {
                    source: unspecified,
                    destination: ALL_NODES,
                    options: &[],
                    ..valid()
                },
            ),
        ] {
            assert_eq!(asked.parse(), None, "{fault}");
        }
    }

    #[test]
    fn refuses_any_flipped_bit_that_the_checksum_covers() {
        let frame = Asked::default().frame();
        for bit in 22 * 8..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn refuses_a_frame_cut_short_and_ignores_padding() {
        let frame = Asked::default().frame();
        for len in ethernet::HEADER_LEN..frame.len() {
            assert_eq!(parse(&frame[..len]), None, "{len} bytes");
        }
        let padded = [&frame[..], &[0; 8]].concat();
        assert_eq!(parse(&padded), parse(&frame));
    }

    #[test]
    fn advertisement_has_the_kernels_bytes() {
        let sent = Asked::default()
            .parse()
            .unwrap()
            .advertisement(ANSWER, false);
        let icmp = [
            &[0x88, 0, sent[56], sent[57], 0x60, 0, 0, 0][..],
            &WANTED.octets(),
            &[2, 1, 0xee, 0xee, 9, 9, 9, 9],
        ]
        .concat();
        let expected = [
            &[0xee, 0xee, 1, 2, 3, 4, 0xee, 0xee, 9, 9, 9, 9, 0x86, 0xdd][..],
            &[0x60, 0, 0, 0, 0, 32, 58, 255],
            &WANTED.octets(),
            &ASKER.octets(),
            &icmp,
        ]
        .concat();
        assert_eq!(sent, expected[..]);
        assert_checksum_holds(&sent);
    }

    #[test]
    fn advertisement_takes_over_half_of_the_traffic_class() {
        let mut asked = Asked::default().frame();
        asked[14..16].copy_from_slice(&[0x6a, 0xb0]);
        let sent = parse(&asked).unwrap().advertisement(ANSWER, false);
        assert_eq!(sent[14..18], [0x6a, 0, 0, 0]);
        assert_checksum_holds(&sent);
    }

    #[test]
    fn router_flag_is_the_callers() {
        let sent = Asked::default()
            .parse()
            .unwrap()
            .advertisement(ANSWER, true);
        assert_eq!(sent[ICMP_OFFSET + FLAGS], 0xe0);
        assert_checksum_holds(&sent);
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all_nodes_unsolicited() {
        let asked = Asked {
            source: Ipv6Addr::UNSPECIFIED,
            options: &[],
            ..Asked::default()
        };
        let sent = asked.parse().unwrap().advertisement(ANSWER, false);
        assert_eq!(sent[..6], [2; 6]);
        assert_eq!(sent[38..54], ALL_NODES.octets());
        assert_eq!(sent[ICMP_OFFSET + FLAGS], 0x20);
        assert_checksum_holds(&sent);
    }

    fn assert_checksum_holds(frame: &[u8]) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else {
            panic!("{sliced:?} is no ICMPv6");
        };
        assert!(matches!(
            icmp.icmp_type(),
            Icmpv6Type::NeighborAdvertisement(_)
        ));
        let (source, destination) = (field(frame, 22..38), field(frame, 38..54));
        assert!(icmp.is_checksum_valid(source, destination));
    }
}

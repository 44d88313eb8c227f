//! What surrounds an IP packet on a link: which kinds of captured link can be read, and where the packet starts.

use super::HostDrop;
use crate::wire::ethernet::{EtherType, Frame, MAX_VLAN_TAGS};

/// What a captured packet starts with (LINKTYPE_* of the pcap formats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header (1).
    Ethernet,
    /// An IP header of either version (101).
    Raw,
    /// An IPv4 header (228).
    Ipv4,
    /// An IPv6 header (229).
    Ipv6,
    /// The pseudo-header of Linux's `any` device (113).
    Cooked,
    /// Its second version (276).
    Cooked2,
    /// Anything else, by its number.
    Other(u32),
}

/// An IP packet by what its link says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    V4(&'a [u8]),
    V6(&'a [u8]),
}

impl Link {
    /// By its number in a capture file, of which the upper half tells of other things (the length of frame check sequences).
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number & 0xffff {
            1 => Self::Ethernet,
            101 => Self::Raw,
            113 => Self::Cooked,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            276 => Self::Cooked2,
            other => Self::Other(other),
        }
    }

    /// The IP packet in `bytes`, link padding included.
    pub(super) fn packet(self, bytes: &[u8]) -> Result<Packet<'_>, HostDrop> {
        match self {
            Self::Ethernet => {
                let frame = Frame::new_checked(bytes).ok_or(HostDrop::ShortFrame)?;
                let (ethertype, packet) = frame.untagged();
                of_type(ethertype, packet)
            }
            Self::Raw => match bytes.first().map(|byte| byte >> 4) {
                Some(4) => Ok(Packet::V4(bytes)),
                Some(6) => Ok(Packet::V6(bytes)),
                Some(_) => Err(HostDrop::NotIp),
                None => Err(HostDrop::ShortFrame),
            },
            Self::Ipv4 => Ok(Packet::V4(bytes)),
            Self::Ipv6 => Ok(Packet::V6(bytes)),
            Self::Cooked => cooked(bytes),
            Self::Cooked2 => cooked2(bytes),
            Self::Other(_) => Err(HostDrop::ForeignLink),
        }
    }
}

/// Packet types of packet(7) that the host's stack does not take: for another host, and sent by this one.
const OTHER_HOST: u8 = 3;
const OUTGOING: u8 = 4;

/// ```text
/// | packet type | ARPHRD | address length | address, 8 | protocol |
/// ```
fn cooked(bytes: &[u8]) -> Result<Packet<'_>, HostDrop> {
    let (header, packet) = bytes
        .split_first_chunk::<16>()
        .ok_or(HostDrop::ShortFrame)?;
    check_packet_type(header[1])?;
    tagged(
        EtherType(u16::from_be_bytes([header[14], header[15]])),
        packet,
    )
}

/// ```text
/// | protocol | reserved, 2 | ifindex, 4 | ARPHRD, 2 | packet type, 1 | address length, 1 | address, 8 |
/// ```
fn cooked2(bytes: &[u8]) -> Result<Packet<'_>, HostDrop> {
    let (header, packet) = bytes
        .split_first_chunk::<20>()
        .ok_or(HostDrop::ShortFrame)?;
    check_packet_type(header[10])?;
    tagged(
        EtherType(u16::from_be_bytes([header[0], header[1]])),
        packet,
    )
}

fn check_packet_type(packet_type: u8) -> Result<(), HostDrop> {
    match packet_type {
        OTHER_HOST | OUTGOING => Err(HostDrop::NotForUs),
        _ => Ok(()),
    }
}

/// As [`Frame::untagged`], where no Ethernet header stands before the tags.
fn tagged(mut ethertype: EtherType, mut packet: &[u8]) -> Result<Packet<'_>, HostDrop> {
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(ethertype, EtherType::VLAN | EtherType::PROVIDER_VLAN) {
            break;
        }
        let ([_, _, a, b], rest) = packet.split_first_chunk().ok_or(HostDrop::ShortFrame)?;
        ethertype = EtherType(u16::from_be_bytes([*a, *b]));
        packet = rest;
    }
    of_type(ethertype, packet)
}

fn of_type(ethertype: EtherType, packet: &[u8]) -> Result<Packet<'_>, HostDrop> {
    match ethertype {
        EtherType::IPV4 => Ok(Packet::V4(packet)),
        EtherType::IPV6 => Ok(Packet::V6(packet)),
        _ => Err(HostDrop::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_packet_behind_every_link() {
        let cooked = [&[0, 0, 0, 1, 0, 6][..], &[2; 8], &[0x08, 0x00, 0x45]].concat();
        let cooked2 = [
            &[0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6][..],
            &[2; 8],
            &[0x60],
        ]
        .concat();
        let vlan = [&[2; 12][..], &[0x81, 0, 0, 7, 0x08, 0x00, 0x45]].concat();
        let v4 = Ok(Packet::V4(&[0x45]));
        let v6 = Ok(Packet::V6(&[0x60]));
        for (number, bytes, packet) in [
            (1, &vlan[..], v4),
            (101, &[0x45], v4),
            (101, &[0x60], v6),
            (101, &[0x10], Err(HostDrop::NotIp)),
            (101, &[], Err(HostDrop::ShortFrame)),
            (228, &[0x45], v4),
            (229, &[0x60], v6),
            (113, &cooked, v4),
            (276, &cooked2, v6),
            (0x2400_0001, &vlan, v4),
            (105, &vlan, Err(HostDrop::ForeignLink)),
            (1, &vlan[..13], Err(HostDrop::ShortFrame)),
            (113, &cooked[..15], Err(HostDrop::ShortFrame)),
            (276, &cooked2[..19], Err(HostDrop::ShortFrame)),
        ] {
            assert_eq!(Link::from_number(number).packet(bytes), packet, "{number}");
        }
    }

    #[test]
    fn what_the_host_sent_or_overheard_is_not_for_it() {
        for packet_type in [OTHER_HOST, OUTGOING] {
            let cooked = [&[0, packet_type][..], &[0; 12], &[0x08, 0x00, 0x45]].concat();
            assert_eq!(Link::Cooked.packet(&cooked), Err(HostDrop::NotForUs));
        }
    }
}

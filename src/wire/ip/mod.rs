//! The fields of IPv4 (RFC 791) and IPv6 (RFC 8200) headers that a tunnel endpoint reads or writes.

mod fragment;
mod ipv4;
mod ipv6;
mod transport;
mod upper;

use std::net::IpAddr;

pub use fragment::{FRAGMENT_HEADER_LEN_MAX, Fragmenter};
pub use ipv4::Ipv4;
pub(in crate::wire) use ipv6::Payload;
pub use ipv6::{Ipv6, MAX_EXTENSIONS};
pub use transport::Transport;
pub use upper::{Piece, Upper};

use super::Ecn;
use super::ethernet::{self, EtherType, Frame};

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_HEADER_LEN: usize = 40;

/// Protocol numbers (IANA) this crate knows.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IPv6 hop-by-hop options: a header that others follow.
    pub const HOP_BY_HOP: u8 = 0;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// The network layer of a frame, by its ethertype.
#[derive(Clone, Copy, Debug)]
pub enum Network<'a> {
    /// Ethertype 0x0800 and 20 bytes at least.
    V4(Ipv4<'a>),
    /// Ethertype 0x86dd and 40 bytes at least.
    V6(Ipv6<'a>),
    /// Another ethertype.
    Other,
}

/// A frame that says IPv4 or IPv6 and is too short for the header: the kernel drops it (`pskb_inet_may_pull`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame is too short for the IP header its type promises")]
pub struct Truncated;

impl<'a> Network<'a> {
    /// By the frame's own ethertype: a VLAN tag makes it `Other`, as for `vxlan_xmit`.
    ///
    /// # Errors
    /// `Truncated` if the ethertype promises a header that is not there.
    pub fn parse(frame: Frame<'a>) -> Result<Self, Truncated> {
        Self::of(frame.ethertype(), frame.payload())
    }

    /// By the ethertype behind any VLAN tags ([`Frame::untagged`]).
    ///
    /// # Errors
    /// `Truncated` if the ethertype promises a header that is not there.
    pub fn parse_untagged(frame: Frame<'a>) -> Result<Self, Truncated> {
        let (ethertype, packet) = frame.untagged();
        Self::of(ethertype, packet)
    }

    fn of(ethertype: EtherType, packet: &'a [u8]) -> Result<Self, Truncated> {
        match ethertype {
            EtherType::IPV4 => Ipv4::new_checked(packet).map(Self::V4).ok_or(Truncated),
            EtherType::IPV6 => Ipv6::new_checked(packet).map(Self::V6).ok_or(Truncated),
            _ => Ok(Self::Other),
        }
    }

    /// Source and destination, if it is IP.
    #[must_use]
    pub fn addresses(self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::V4(ip) => Some((ip.source().into(), ip.destination().into())),
            Self::V6(ip) => Some((ip.source().into(), ip.destination().into())),
            Self::Other => None,
        }
    }

    /// The TOS or traffic class octet, if it is IP.
    #[must_use]
    pub fn tos(self) -> Option<u8> {
        match self {
            Self::V4(ip) => Some(ip.tos()),
            Self::V6(ip) => Some(ip.traffic_class()),
            Self::Other => None,
        }
    }

    /// The TTL or hop limit, if it is IP.
    #[must_use]
    pub fn ttl(self) -> Option<u8> {
        match self {
            Self::V4(ip) => Some(ip.ttl()),
            Self::V6(ip) => Some(ip.hop_limit()),
            Self::Other => None,
        }
    }

    /// Whether routers may fragment it: IPv4 without DF, and what is not IP, since nothing forbids it.
    #[must_use]
    pub fn may_be_fragmented(self) -> bool {
        match self {
            Self::V4(ip) => !ip.dont_fragment(),
            Self::V6(_) => false,
            Self::Other => true,
        }
    }

    /// The ECN bits, if it is IP.
    #[must_use]
    pub fn ecn(self) -> Option<Ecn> {
        self.tos().map(Ecn::from_tos)
    }
}

/// Writes ECN bits into the IP header of an untagged frame and mends the IPv4 header checksum incrementally
/// (`INET_ECN_set_ce`, `INET_ECN_set_ect1`). A frame that is not IP, or too short, is left alone.
pub fn write_ecn(frame: &mut [u8], ecn: Ecn) {
    let Some(ethertype) = Frame::new_checked(frame).map(Frame::ethertype) else {
        return;
    };
    let packet = &mut frame[ethernet::HEADER_LEN..];
    match ethertype {
        EtherType::IPV4 => ipv4::write_ecn(packet, ecn),
        EtherType::IPV6 => ipv6::write_ecn(packet, ecn),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::wire::checksum;

    const ECN: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    fn ipv4_frame() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    fn ipv6_frame() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([1; 16], [2; 16], 64)
            .udp(1, 2)
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    fn network(frame: &[u8]) -> Network<'_> {
        Network::parse(Frame::new_checked(frame).unwrap()).unwrap()
    }

    #[test]
    fn tells_the_families_and_their_addresses() {
        let addresses = network(&ipv4_frame()).addresses();
        assert_eq!(
            addresses,
            Some(([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        );
        let addresses = network(&ipv6_frame()).addresses();
        assert_eq!(addresses, Some(([1_u8; 16].into(), [2_u8; 16].into())));
    }

    #[test]
    fn arp_is_neither() {
        let mut frame = ipv4_frame();
        frame[ethernet::ETHERTYPE].copy_from_slice(&[0x08, 0x06]);
        assert!(matches!(network(&frame), Network::Other));
        assert_eq!(network(&frame).addresses(), None);
        assert_eq!(network(&frame).ecn(), None);
    }

    #[test]
    fn refuses_a_header_cut_short() {
        for (frame, header_len) in [(ipv4_frame(), 20), (ipv6_frame(), 40)] {
            let end = ethernet::HEADER_LEN + header_len;
            let parse = |end| Network::parse(Frame::new_checked(&frame[..end]).unwrap());
            assert!(parse(end).is_ok());
            assert!(parse(end - 1).is_err());
        }
    }

    #[test]
    fn looks_through_vlan_tags_only_when_asked() {
        let mut frame = ipv4_frame();
        frame.splice(12..12, [0x81, 0, 0, 7]);
        let frame = Frame::new_checked(&frame).unwrap();
        assert!(matches!(Network::parse(frame), Ok(Network::Other)));
        assert!(matches!(Network::parse_untagged(frame), Ok(Network::V4(_))));
    }

    #[test]
    fn written_ecn_is_read_back_and_the_checksum_holds() {
        for before in ECN {
            for after in ECN {
                let mut frame = ipv4_frame();
                frame[15] = 0xb8;
                write_ecn(&mut frame, before);
                frame[24..26].fill(0);
                let sum = checksum::sum(0, &frame[14..34]);
                frame[24..26].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());

                write_ecn(&mut frame, after);
                assert_eq!(network(&frame).tos(), Some(0xb8 | after as u8));
                let sum = checksum::sum(0, &frame[14..34]);
                assert_eq!(checksum::fold(sum), 0xffff, "{before:?} to {after:?}");
            }
        }
    }

    #[test]
    fn written_ecn_leaves_the_rest_of_an_ipv6_header() {
        for ecn in ECN {
            let mut frame = ipv6_frame();
            frame[14..18].copy_from_slice(&[0x6f, 0xcf, 0xff, 0xff]);
            write_ecn(&mut frame, ecn);
            assert_eq!(frame[14..18], [0x6f, 0xcf | (ecn as u8) << 4, 0xff, 0xff]);
            assert_eq!(network(&frame).ecn(), Some(ecn));
            assert_eq!(frame[18..], ipv6_frame()[18..]);
        }
    }

    #[test]
    fn writes_ecn_neither_into_arp_nor_behind_a_vlan_tag_nor_past_the_end() {
        let mut arp = ipv4_frame();
        arp[ethernet::ETHERTYPE].copy_from_slice(&[0x08, 0x06]);
        let mut tagged = ipv4_frame();
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        for frame in [arp, tagged, ipv4_frame()[..33].to_vec(), vec![0; 13]] {
            let mut written = frame.clone();
            write_ecn(&mut written, Ecn::Ce);
            assert_eq!(written, frame);
        }
    }
}

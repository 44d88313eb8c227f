//! What an IP packet carries, for who decides by it: the protocol, the transport header, and which piece of a fragmented packet it is.
//! Where [`Transport`](super::Transport) knows whole packets only, this knows fragments and what ICMP errors quote too.

use super::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, TCP};
use super::{IPV6_HEADER_LEN, Ipv4, Ipv6, MAX_EXTENSIONS, Network};

/// Bytes of an IPv6 fragment header (RFC 8200 section 4.5).
const FRAGMENT_HEADER_LEN: usize = 8;

/// Where a fragment begins that has TCP's flags and not its ports. No stack cuts there: it would write over what the first fragment was
/// let in for (RFC 3128), where a host takes fragments that overlap. Linux does not.
const FLAGS_UNIT: u16 = 8;

/// What follows the IP header and its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper<'a> {
    /// The protocol (see [`super::protocol`]).
    pub protocol: u8,
    /// Of what this is a piece.
    pub piece: Piece,
    /// The transport header and what follows it; of a later fragment, its part of that.
    pub bytes: &'a [u8],
}

/// A whole packet, or the identification of the one that this is a fragment of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The fragment with the transport header.
    First(u32),
    /// One without.
    Later(u32),
}

impl Piece {
    fn of(offset: u16, more: bool, id: u32) -> Self {
        match (offset, more) {
            // An IPv6 packet may have a fragment header and be whole (RFC 6946).
            (0, false) => Self::Whole,
            (0, true) => Self::First(id),
            _ => Self::Later(id),
        }
    }
}

impl<'a> Network<'a> {
    /// What the packet carries. `None` if it is not IP or its header lies: a version other than its type's, lengths that do not fit,
    /// extension headers that cannot be walked (hop-by-hop, routing, destination options and fragment are, eight at the most), or it is
    /// an IPv4 fragment made to overlap TCP's flags.
    #[must_use]
    #[inline]
    pub fn upper(self) -> Option<Upper<'a>> {
        match self {
            Self::V4(ip) => of_v4(ip, ip.bytes().get(..usize::from(ip.total_len()))?),
            Self::V6(ip) => {
                let len = IPV6_HEADER_LEN + usize::from(ip.payload_len());
                of_v6(ip, ip.bytes().get(..len)?)
            }
            Self::Other => None,
        }
    }

    /// As [`upper`](Self::upper), of a packet that an ICMP error quotes: its end may be missing.
    #[must_use]
    pub fn quoted_upper(self) -> Option<Upper<'a>> {
        match self {
            Self::V4(ip) => of_v4(ip, ip.bytes()),
            Self::V6(ip) => of_v6(ip, ip.bytes()),
            Self::Other => None,
        }
    }
}

#[inline]
fn of_v4<'a>(ip: Ipv4<'a>, packet: &'a [u8]) -> Option<Upper<'a>> {
    let is_over_flags = ip.protocol() == TCP && ip.fragment_offset() == FLAGS_UNIT;
    if ip.version() != 4 || is_over_flags {
        return None;
    }
    Some(Upper {
        protocol: ip.protocol(),
        piece: Piece::of(ip.fragment_offset(), ip.more_fragments(), ip.id().into()),
        bytes: packet.get(ip.header_len()?..)?,
    })
}

fn of_v6<'a>(ip: Ipv6<'a>, packet: &'a [u8]) -> Option<Upper<'a>> {
    if ip.version() != 6 {
        return None;
    }
    let mut protocol = ip.next_header();
    let mut bytes = &packet[IPV6_HEADER_LEN..];
    let mut piece = Piece::Whole;
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [next, units] = *bytes.first_chunk()?;
                protocol = next;
                bytes = bytes.get((usize::from(units) + 1) * 8..)?;
            }
            FRAGMENT if piece == Piece::Whole => {
                let (header, rest) = bytes.split_first_chunk::<FRAGMENT_HEADER_LEN>()?;
                let [next, _, high, low, id @ ..] = *header;
                let word = u16::from_be_bytes([high, low]);
                piece = Piece::of(word >> 3, word & 1 != 0, u32::from_be_bytes(id));
                (protocol, bytes) = (next, rest);
                if matches!(piece, Piece::Later(_)) {
                    break;
                }
            }
            _ => break,
        }
    }
    let is_walked = matches!(piece, Piece::Later(_))
        || !matches!(
            protocol,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT
        );
    is_walked.then_some(Upper {
        protocol,
        piece,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ethernet::Frame;
    use crate::wire::ip::protocol;

    fn v4(word: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0x12, 0x34, 0, 0];
        packet[6..8].copy_from_slice(&word.to_be_bytes());
        packet.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(payload);
        packet
    }

    /// An IPv6 packet of `rest`, whose first header is `next`.
    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
        packet.extend([[0xfd; 16], [0xfe; 16]].concat());
        packet.extend(rest);
        packet
    }

    fn network(packet: &[u8]) -> Network<'_> {
        match packet[0] >> 4 {
            4 => Network::V4(Ipv4::new_checked(packet).unwrap()),
            _ => Network::V6(Ipv6::new_checked(packet).unwrap()),
        }
    }

    fn upper(packet: &[u8]) -> Option<(u8, Piece, usize)> {
        let upper = network(packet).upper()?;
        Some((upper.protocol, upper.piece, upper.bytes.len()))
    }

    #[test]
    fn ipv4_pieces_are_told_apart() {
        for (word, piece) in [
            (0x4000, Piece::Whole),
            (0x2000, Piece::First(0x1234)),
            (0x2001, Piece::Later(0x1234)),
            (0x0001, Piece::Later(0x1234)),
        ] {
            assert_eq!(upper(&v4(word, &[0; 8])), Some((17, piece, 8)), "{word:x}");
        }
    }

    #[test]
    fn a_fragment_over_tcps_flags_is_none() {
        for (word, expected) in [
            (0x0001, None),
            (0x2001, None),
            (0x0002, Some((6, Piece::Later(0x1234), 8))),
        ] {
            let mut packet = v4(word, &[0; 8]);
            packet[9] = 6;
            assert_eq!(upper(&packet), expected, "{word:x}");
        }
    }

    #[test]
    fn ipv6_pieces_are_told_apart() {
        let fragment = |word: u16| [&[17, 0][..], &word.to_be_bytes(), &[0, 0, 1, 5]].concat();
        for (word, piece) in [
            (0, Piece::Whole),
            (1, Piece::First(0x105)),
            (9, Piece::Later(0x105)),
            (8, Piece::Later(0x105)),
        ] {
            let rest = [fragment(word), vec![0; 8]].concat();
            assert_eq!(upper(&v6(44, &rest)), Some((17, piece, 8)), "{word:x}");
        }
    }

    #[test]
    fn options_before_and_behind_a_fragment_header_are_walked() {
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let first = [44, 0, 0, 1, 0, 0, 0, 9];
        let rest = [options(60), options(44), first, options(6), [0; 8]].concat();
        let mut packet = v6(0, &rest);
        packet[40 + 16] = 60;
        assert_eq!(upper(&packet), Some((6, Piece::First(9), 8)));
    }

    #[test]
    fn a_second_fragment_header_and_a_cut_off_option_are_refused() {
        let fragment = |next| [next, 0, 0, 1, 0, 0, 0, 9];
        let twice = [fragment(44), fragment(17), [0; 8]].concat();
        assert_eq!(upper(&v6(44, &twice)), None);
        assert_eq!(upper(&v6(0, &[17, 1, 1, 4, 0, 0, 0, 0])), None);
    }

    #[test]
    fn a_packet_that_is_cut_off_is_read_where_it_is_quoted_alone() {
        for packet in [v4(0, &[1; 40]), v6(17, &[1; 40])] {
            let cut = &packet[..packet.len() - 32];
            assert_eq!(network(cut).upper(), None);
            let upper = network(cut).quoted_upper().unwrap();
            assert_eq!((upper.protocol, upper.bytes), (17, &[1; 8][..]));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_transport_on_whole_packets(v6: bool, payload in proptest::collection::vec(any::<u8>(), 0..60), padding in 0..9_usize) {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let builder = if v6 { builder.ipv6([1; 16], [2; 16], 3) } else { builder.ipv4([1; 4], [2; 4], 3) };
            let mut frame = Vec::new();
            builder.udp(5, 6).write(&mut frame, &payload).unwrap();
            frame.resize(frame.len() + padding, 0);
            let frame = Frame::new_checked(&frame).unwrap();
            let network = Network::parse(frame).unwrap();
            let upper = network.upper().unwrap();
            prop_assert_eq!(upper.piece, Piece::Whole);
            prop_assert_eq!(upper.protocol, protocol::UDP);
            prop_assert_eq!(upper.bytes, network.transport(frame).unwrap().segment(frame));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 40..120), v6: bool) {
            let mut bytes = bytes;
            bytes[0] = bytes[0] & 0xf | if v6 { 0x60 } else { 0x40 };
            let _ = network(&bytes).upper();
            let _ = network(&bytes).quoted_upper();
        }
    }
}

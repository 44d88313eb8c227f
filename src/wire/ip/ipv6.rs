//! IPv6 (RFC 8200), and the way through its extension headers.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |version| traffic class |              flow label               |
//! |        payload length         |  next header  |   hop limit   |
//! |                       source, 16 bytes                        |
//! |                     destination, 16 bytes                     |
//! ```

use std::net::Ipv6Addr;
use std::ops::Range;

use super::IPV6_HEADER_LEN as HEADER_LEN;
use super::protocol::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::wire::{Ecn, field};

const FIRST_WORD: Range<usize> = 0..4;
const PAYLOAD_LEN: Range<usize> = 4..6;
const NEXT_HEADER: usize = 6;
const HOP_LIMIT: usize = 7;
const SOURCE: Range<usize> = 8..24;
const DESTINATION: Range<usize> = 24..40;

const _: () = assert!(DESTINATION.end == HEADER_LEN);

/// The byte of the first word that holds the ECN bits, and how far up they stand in it.
const ECN_BYTE: usize = 1;
const ECN_SHIFT: u32 = 4;

/// Bytes of a fragment header, and the offset in its second word.
const FRAGMENT_LEN: usize = 8;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// Extension headers to walk: twice the four that RFC 8200 section 4.1 lets an honest packet have.
pub const MAX_EXTENSIONS: usize = 8;

/// A checked view of an IPv6 header: 40 bytes at least, so the accessors cannot panic. Nothing else is promised: version
/// and payload length may lie.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// `None` if `bytes` is shorter than a header.
    #[must_use]
    pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk()?;
        Some(Self { header, bytes })
    }

    /// The version field; 6 in an honest header.
    #[must_use]
    pub fn version(self) -> u8 {
        self.header[0] >> 4
    }

    /// The traffic class octet, ECN bits included.
    #[must_use]
    pub fn traffic_class(self) -> u8 {
        let [class, ..] = (self.first_word() << 4).to_be_bytes();
        class
    }

    /// Bytes behind this header, extension headers included, as the header has it; 0 in a jumbogram.
    #[must_use]
    pub fn payload_len(self) -> u16 {
        u16::from_be_bytes(field(self.header, PAYLOAD_LEN))
    }

    /// What follows this header: an extension header or the protocol of the payload (see [`super::protocol`]).
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.header[NEXT_HEADER]
    }

    /// The hop limit.
    #[must_use]
    pub fn hop_limit(self) -> u8 {
        self.header[HOP_LIMIT]
    }

    /// The source address.
    #[must_use]
    pub fn source(self) -> Ipv6Addr {
        field::<16>(self.header, SOURCE).into()
    }

    /// The destination address.
    #[must_use]
    pub fn destination(self) -> Ipv6Addr {
        field::<16>(self.header, DESTINATION).into()
    }

    /// The header and everything behind it, padding included.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The payload's protocol, the header with its extensions, and the payload. `None` for a version other than 6, a length
    /// that lies, a fragment, or extension headers that run past the end or the bound.
    pub(in crate::wire) fn split(self) -> Option<(u8, &'a [u8], &'a [u8])> {
        match self.payload()? {
            Payload::Of(protocol, headers, payload) => Some((protocol, headers, payload)),
            Payload::Fragment | Payload::OutOfReach => None,
        }
    }

    /// What is behind the extension headers. `None` for a version other than 6, a length that lies, or extension headers that run past
    /// the end.
    pub(in crate::wire) fn payload(self) -> Option<Payload<'a>> {
        if self.version() != 6 {
            return None;
        }
        // A jumbogram's, and Linux does not ask whether it is one: to it the packet is as long as the frame (`ip6_rcv_core`).
        if self.payload_len() == 0 && self.next_header() == HOP_BY_HOP {
            return Some(Payload::OutOfReach);
        }
        let packet = self
            .bytes
            .get(..HEADER_LEN + usize::from(self.payload_len()))?;
        let mut protocol = self.next_header();
        let mut offset = HEADER_LEN;
        for _ in 0..MAX_EXTENSIONS {
            if !is_extension(protocol) {
                break;
            }
            let [next, units] = *packet.get(offset..)?.first_chunk()?;
            protocol = next;
            offset += (usize::from(units) + 1) * 8;
        }
        if protocol == FRAGMENT {
            return Some(Payload::Fragment);
        }
        if is_extension(protocol) {
            return Some(Payload::OutOfReach);
        }
        let (headers, payload) = packet.split_at_checked(offset)?;
        Some(Payload::Of(protocol, headers, payload))
    }

    /// What the packet carries, or begins to carry if it is a first fragment: the protocol, and as much of the payload as is here. It is
    /// found behind every header that the kernel walks (`ipv6_skip_exthdr`). `None` for later fragments and wherever
    /// the way there is not honest.
    pub(in crate::wire) fn upper_layer(self) -> Option<(u8, &'a [u8])> {
        let len = HEADER_LEN + usize::from(self.payload_len());
        let packet = self.bytes.get(..len).filter(|_| self.version() == 6)?;
        let mut protocol = self.next_header();
        let mut rest = &packet[HEADER_LEN..];
        for _ in 0..=MAX_EXTENSIONS {
            let [next, units] = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT | AUTHENTICATION => {
                    *rest.first_chunk()?
                }
                _ => return Some((protocol, rest)),
            };
            let len = match protocol {
                FRAGMENT => {
                    let [_, _, high, low, ..] = *rest.first_chunk::<FRAGMENT_LEN>()?;
                    if u16::from_be_bytes([high, low]) & FRAGMENT_OFFSET != 0 {
                        return None;
                    }
                    FRAGMENT_LEN
                }
                AUTHENTICATION => (usize::from(units) + 2) * 4,
                _ => (usize::from(units) + 1) * 8,
            };
            (protocol, rest) = (next, rest.get(len..)?);
        }
        None
    }

    fn first_word(self) -> u32 {
        u32::from_be_bytes(field(self.header, FIRST_WORD))
    }
}

/// What an IPv6 packet carries.
pub(in crate::wire) enum Payload<'a> {
    /// A payload of this protocol: the header with its extensions, and the payload.
    Of(u8, &'a [u8], &'a [u8]),
    /// A part of a payload.
    Fragment,
    /// More than [`MAX_EXTENSIONS`] headers, and then something; or whatever a length of 0 before hop-by-hop options leaves open.
    OutOfReach,
}

fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)
}

/// Writes the ECN bits of the header at the start of `packet`; too short a packet is left alone.
pub(super) fn write_ecn(packet: &mut [u8], ecn: Ecn) {
    if let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() {
        header[ECN_BYTE] = header[ECN_BYTE] & !(3 << ECN_SHIFT) | (ecn as u8) << ECN_SHIFT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and `rest`, whose first header is `next`.
    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x6b, 0x81, 0x23, 0x45, 0, rest.len() as u8, next, 64];
        bytes.extend([[0xfd; 16], [0xfe; 16]].concat());
        bytes.extend(rest);
        bytes
    }

    fn split(bytes: &[u8]) -> Option<(u8, usize, usize)> {
        let (protocol, headers, payload) = Ipv6::new_checked(bytes).unwrap().split()?;
        Some((protocol, headers.len(), payload.len()))
    }

    #[test]
    fn reads_its_fields() {
        let bytes = packet(17, &[1, 2, 3]);
        let ip = Ipv6::new_checked(&bytes).unwrap();
        assert_eq!((ip.version(), ip.traffic_class()), (6, 0xb8));
        assert_eq!(
            (ip.payload_len(), ip.next_header(), ip.hop_limit()),
            (3, 17, 64)
        );
        assert_eq!(ip.source(), Ipv6Addr::from([0xfd; 16]));
        assert_eq!(ip.destination(), Ipv6Addr::from([0xfe; 16]));
        assert_eq!(ip.bytes(), bytes);
    }

    #[test]
    fn walks_hop_by_hop_routing_and_destination_options() {
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let long = [[6, 1, 1, 12, 0, 0, 0, 0], [0; 8]].concat();
        let rest = [&options(43)[..], &options(60), &long, &[0; 20]].concat();
        assert_eq!(split(&packet(0, &rest)), Some((6, 40 + 32, 20)));
    }

    #[test]
    fn walks_eight_extension_headers_and_no_ninth() {
        for (count, found) in [(8, Some((17, 40 + 64, 8))), (9, None)] {
            let mut rest = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count - 1);
            rest.extend([17, 0, 1, 4, 0, 0, 0, 0]);
            rest.extend([0; 8]);
            assert_eq!(split(&packet(60, &rest)), found, "{count} headers");
        }
    }

    #[test]
    fn a_fragment_has_no_transport_header_even_behind_options() {
        let fragment = [17, 0, 0, 1, 0, 0, 0, 9];
        assert_eq!(split(&packet(44, &fragment)), None);
        let rest = [[44, 0, 1, 4, 0, 0, 0, 0], fragment].concat();
        assert_eq!(split(&packet(0, &rest)), None);
    }

    fn upper_layer(bytes: &[u8]) -> Option<(u8, usize)> {
        let (protocol, payload) = Ipv6::new_checked(bytes).unwrap().upper_layer()?;
        Some((protocol, payload.len()))
    }

    #[test]
    fn what_a_first_fragment_carries_is_found_wherever_its_header_stands() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let fragment = |next: u8, offset: u8| [next, 0, 0, offset << 3 | 1, 0, 0, 0, 9];
        let authentication = |next: u8| [[next, 2, 0, 0], [0; 4], [1; 4], [2; 4]].concat();
        for (first, headers) in [
            (44, fragment(58, 0).to_vec()),
            (0, [options(44), fragment(58, 0)].concat()),
            (44, [fragment(60, 0), options(58)].concat()),
            (
                0,
                [options(43), options(44), fragment(60, 0), options(58)].concat(),
            ),
            (51, authentication(58)),
            (44, [&fragment(51, 0)[..], &authentication(58)].concat()),
        ] {
            let bytes = packet(first, &[&headers[..], &[128, 0, 0, 0]].concat());
            assert_eq!(upper_layer(&bytes), Some((58, 4)), "{headers:?}");
            assert_eq!(upper_layer(&bytes[..bytes.len() - 1]), None, "cut off");
        }
        let later = [&options(44)[..], &fragment(58, 1), &[0; 8]].concat();
        assert_eq!(upper_layer(&packet(0, &later)), None);
        let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 2);
        assert_eq!(upper_layer(&packet(60, &endless)), None);
    }

    #[test]
    fn extension_headers_past_the_end_are_refused() {
        assert_eq!(split(&packet(0, &[17, 1, 1, 4, 0, 0, 0, 0])), None);
        assert_eq!(split(&packet(0, &[17])), None);
        assert_eq!(
            split(&packet(0, &[17, 0, 1, 4, 0, 0, 0, 0])),
            Some((17, 48, 0))
        );
    }

    #[test]
    fn lying_lengths_and_versions_are_refused() {
        let honest = packet(17, &[0; 8]);
        assert_eq!(split(&honest), Some((17, 40, 8)));
        assert_eq!(split(&honest[..47]), None);
        let mut lying = honest.clone();
        lying[0] = 0x4b;
        assert_eq!(split(&lying), None);
    }
}

//! IPv4 (RFC 791).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |version|  IHL  |   TOS     |ECN|         total length          |
//! |              id               |R|D|M|    fragment offset      |
//! |      TTL      |   protocol    |           checksum            |
//! |                            source                             |
//! |                          destination                          |
//! ```

use std::net::Ipv4Addr;
use std::ops::Range;

use super::IPV4_HEADER_LEN as HEADER_LEN;
use crate::wire::{Ecn, checksum, field};

const VERSION_IHL: usize = 0;
const TOS: usize = 1;
const TOTAL_LEN: Range<usize> = 2..4;
const ID: Range<usize> = 4..6;
const FRAGMENT: Range<usize> = 6..8;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
const CHECKSUM: Range<usize> = 10..12;
const SOURCE: Range<usize> = 12..16;
const DESTINATION: Range<usize> = 16..20;

const _: () = assert!(DESTINATION.end == HEADER_LEN);

/// The 16-bit word that holds the TOS octet, as the checksum sees it.
const TOS_WORD: Range<usize> = VERSION_IHL..TOS + 1;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A checked view of an IPv4 header: 20 bytes at least, so the accessors cannot panic. Nothing else is promised: version,
/// header length and total length may lie.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// `None` if `bytes` is shorter than a header without options.
    #[must_use]
    pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk()?;
        Some(Self { header, bytes })
    }

    /// The version field; 4 in an honest header.
    #[must_use]
    pub fn version(self) -> u8 {
        self.header[VERSION_IHL] >> 4
    }

    /// Bytes of the header with its options; `None` if the field says less than 20 or more than there is.
    #[must_use]
    pub fn header_len(self) -> Option<usize> {
        let len = usize::from(self.header[VERSION_IHL] & 0xf) * 4;
        (HEADER_LEN..=self.bytes.len())
            .contains(&len)
            .then_some(len)
    }

    /// The TOS octet, ECN bits included.
    #[must_use]
    pub fn tos(self) -> u8 {
        self.header[TOS]
    }

    /// Bytes of header and payload, as the header has it.
    #[must_use]
    pub fn total_len(self) -> u16 {
        u16::from_be_bytes(field(self.header, TOTAL_LEN))
    }

    /// The identification.
    #[must_use]
    pub fn id(self) -> u16 {
        u16::from_be_bytes(field(self.header, ID))
    }

    /// The DF bit.
    #[must_use]
    pub fn dont_fragment(self) -> bool {
        self.fragment_word() & DONT_FRAGMENT != 0
    }

    /// The MF bit: fragments follow this one.
    #[must_use]
    pub fn more_fragments(self) -> bool {
        self.fragment_word() & MORE_FRAGMENTS != 0
    }

    /// Bytes of the packet before this fragment's; a multiple of eight.
    #[must_use]
    pub fn fragment_offset(self) -> u16 {
        (self.fragment_word() & FRAGMENT_OFFSET) * 8
    }

    /// True for every piece of a fragmented packet, the first included.
    #[must_use]
    pub fn is_fragment(self) -> bool {
        self.fragment_word() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// The time to live.
    #[must_use]
    pub fn ttl(self) -> u8 {
        self.header[TTL]
    }

    /// The protocol of the payload (see [`super::protocol`]).
    #[must_use]
    pub fn protocol(self) -> u8 {
        self.header[PROTOCOL]
    }

    /// The header checksum field, unverified.
    #[must_use]
    pub fn checksum(self) -> u16 {
        u16::from_be_bytes(field(self.header, CHECKSUM))
    }

    /// The source address.
    #[must_use]
    pub fn source(self) -> Ipv4Addr {
        field::<4>(self.header, SOURCE).into()
    }

    /// The destination address.
    #[must_use]
    pub fn destination(self) -> Ipv4Addr {
        field::<4>(self.header, DESTINATION).into()
    }

    /// The header and everything behind it, padding included.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The header with its options, and the payload, by an honest header's word; else `None`.
    pub(super) fn split(self) -> Option<(&'a [u8], &'a [u8])> {
        if self.version() != 4 {
            return None;
        }
        let packet = self.bytes.get(..usize::from(self.total_len()))?;
        packet.split_at_checked(self.header_len()?)
    }

    fn fragment_word(self) -> u16 {
        u16::from_be_bytes(field(self.header, FRAGMENT))
    }
}

/// Writes the ECN bits of the header at the start of `packet`; too short a packet is left alone.
pub(super) fn write_ecn(packet: &mut [u8], ecn: Ecn) {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    let old = u16::from_be_bytes(field(header, TOS_WORD));
    header[TOS] = header[TOS] & !3 | ecn as u8;
    let new = u16::from_be_bytes(field(header, TOS_WORD));
    if new != old {
        let sum = u16::from_be_bytes(field(header, CHECKSUM));
        let mended = mended(sum, old, new);
        header[CHECKSUM].copy_from_slice(&mended.to_be_bytes());
    }
}

/// The checksum after its header's first word changed, by the kernel's sum (`csum16_add` in `IP_ECN_set_ce` and `IP_ECN_set_ect1`; RFC
/// 1141). RFC 1624 writes 0 where that leaves 0xffff, its equal.
fn mended(checksum: u16, old: u16, new: u16) -> u16 {
    checksum::fold(u64::from(checksum) + u64::from(old) + u64::from(!new))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 24] = [
        0x46, 0xb9, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0x3f, 0x11, 0xab, 0xcd, 10, 255, 108, 184,
        10, 255, 43, 6, 1, 1, 1, 0,
    ];

    #[test]
    fn a_checksum_is_mended_as_the_kernel_does() {
        // ECT(0) to CE, ECT(1) to CE, ECT(0) to ECT(1); what `csum16_add` leaves of each.
        for (old, new, sums) in [
            (
                0x4502,
                0x4503,
                [(0, 0xfffe), (1, 0xffff), (0x1234, 0x1233), (0xffff, 0xfffe)],
            ),
            (
                0x4501,
                0x4503,
                [(0, 0xfffd), (2, 0xffff), (0x1234, 0x1232), (0xffff, 0xfffd)],
            ),
            (
                0x4502,
                0x4501,
                [(0, 1), (0xfffe, 0xffff), (0x1234, 0x1235), (0xffff, 1)],
            ),
        ] {
            for (before, after) in sums {
                assert_eq!(
                    mended(before, old, new),
                    after,
                    "{before:#x}: {old:#x} to {new:#x}"
                );
            }
        }
    }

    #[test]
    fn reads_its_fields() {
        let ip = Ipv4::new_checked(&PACKET).unwrap();
        assert_eq!((ip.version(), ip.header_len()), (4, Some(24)));
        assert_eq!((ip.tos(), ip.total_len(), ip.id()), (0xb9, 24, 0x1234));
        assert_eq!((ip.ttl(), ip.protocol(), ip.checksum()), (63, 17, 0xabcd));
        assert_eq!(ip.source(), Ipv4Addr::new(10, 255, 108, 184));
        assert_eq!(ip.destination(), Ipv4Addr::new(10, 255, 43, 6));
        assert_eq!(ip.bytes(), PACKET);
    }

    #[test]
    fn header_length_is_checked_against_the_bytes() {
        let mut packet = PACKET;
        for (ihl, len) in [
            (0, None),
            (4, None),
            (5, Some(20)),
            (6, Some(24)),
            (7, None),
        ] {
            packet[0] = 0x40 | ihl;
            assert_eq!(Ipv4::new_checked(&packet).unwrap().header_len(), len);
        }
    }

    #[test]
    fn more_fragments_or_an_offset_make_a_fragment() {
        let mut packet = PACKET;
        for (word, dont_fragment, is_fragment, offset) in [
            (0x0000_u16, false, false, 0),
            (0x4000, true, false, 0),
            (0x8000, false, false, 0),
            (0x2000, false, true, 0),
            (0x0001, false, true, 8),
            (0x3fff, false, true, 65_528),
        ] {
            packet[6..8].copy_from_slice(&word.to_be_bytes());
            let ip = Ipv4::new_checked(&packet).unwrap();
            assert_eq!(ip.dont_fragment(), dont_fragment, "{word:#x}");
            assert_eq!(ip.is_fragment(), is_fragment, "{word:#x}");
            assert_eq!(ip.fragment_offset(), offset, "{word:#x}");
        }
    }

    #[test]
    fn ecn_already_there_leaves_the_checksum_as_it_is() {
        let mut packet = PACKET;
        packet[CHECKSUM].fill(0xff);
        let before = packet;
        write_ecn(&mut packet, Ecn::Ect1);
        assert_eq!(packet, before);
    }
}

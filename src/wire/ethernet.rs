//! Ethernet II frames: addresses and type. Forwarding does not look through VLAN tags, as in `vxlan_xmit`; the flow hash and
//! the checksum offload do ([`Frame::untagged`]).
//!
//! ```text
//!  0           6           12    14
//! | destination |   source  | type|  payload
//! ```

use std::ops::Range;

use super::MacAddr;

/// Bytes of an Ethernet header.
pub const HEADER_LEN: usize = 14;
/// Where the destination address stands.
pub const DESTINATION: Range<usize> = 0..6;
/// Where the source address stands.
pub const SOURCE: Range<usize> = 6..12;
/// Where the type stands.
pub const ETHERTYPE: Range<usize> = 12..14;
/// VLAN tags that [`Frame::untagged`] looks through: a customer's and a provider's.
pub const MAX_VLAN_TAGS: usize = 2;
/// Bytes of a VLAN tag behind its type.
pub const VLAN_TAG_LEN: usize = 4;

const _: () = assert!(ETHERTYPE.end == HEADER_LEN);

/// The type of what a frame carries, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// A customer's VLAN tag (802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// A provider's VLAN tag (802.1ad).
    pub const PROVIDER_VLAN: Self = Self(0x88a8);
}

/// A checked view of a frame: 14 bytes at least, so the accessors cannot panic.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a>(&'a [u8]);

impl<'a> Frame<'a> {
    /// `None` if `bytes` is shorter than a header.
    #[must_use]
    pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= HEADER_LEN).then_some(Self(bytes))
    }

    /// The destination address.
    #[must_use]
    pub fn destination(self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.header();
        MacAddr::new([a, b, c, d, e, f])
    }

    /// The source address.
    #[must_use]
    pub fn source(self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header();
        MacAddr::new([a, b, c, d, e, f])
    }

    /// The type.
    #[must_use]
    pub fn ethertype(self) -> EtherType {
        let [.., a, b] = *self.header();
        EtherType(u16::from_be_bytes([a, b]))
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.0[HEADER_LEN..]
    }

    /// Type and payload behind the VLAN tags, [`MAX_VLAN_TAGS`] at the most. The payload runs to the end of the frame.
    #[must_use]
    pub fn untagged(self) -> (EtherType, &'a [u8]) {
        let (mut ethertype, mut payload) = (self.ethertype(), self.payload());
        for _ in 0..MAX_VLAN_TAGS {
            if !matches!(ethertype, EtherType::VLAN | EtherType::PROVIDER_VLAN) {
                break;
            }
            let Some(([_, _, a, b], rest)) = payload.split_first_chunk() else {
                break;
            };
            ethertype = EtherType(u16::from_be_bytes([*a, *b]));
            payload = rest;
        }
        (ethertype, payload)
    }

    /// The whole frame.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    fn header(self) -> &'a [u8; HEADER_LEN] {
        self.0
            .first_chunk()
            .expect("new_checked saw HEADER_LEN bytes")
    }
}

/// Writes another destination address into a frame of at least six bytes.
///
/// # Panics
/// If `frame` is shorter.
pub fn write_destination(frame: &mut [u8], mac: MacAddr) {
    frame[DESTINATION].copy_from_slice(&mac.octets());
}

/// Writes another source address into a frame of at least twelve bytes.
///
/// # Panics
/// If `frame` is shorter.
pub fn write_source(frame: &mut [u8], mac: MacAddr) {
    frame[SOURCE].copy_from_slice(&mac.octets());
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x06, 13, 14];

    #[test]
    fn reads_its_fields() {
        let frame = Frame::new_checked(&FRAME).unwrap();
        assert_eq!(frame.destination(), MacAddr::new([1, 2, 3, 4, 5, 6]));
        assert_eq!(frame.source(), MacAddr::new([7, 8, 9, 10, 11, 12]));
        assert_eq!(frame.ethertype(), EtherType::ARP);
        assert_eq!(frame.payload(), [13, 14]);
        assert_eq!(frame.bytes(), FRAME);
    }

    #[test]
    fn takes_fourteen_bytes_and_no_less() {
        assert!(Frame::new_checked(&FRAME[..13]).is_none());
        assert!(Frame::new_checked(&FRAME[..14]).is_some_and(|frame| frame.payload().is_empty()));
    }

    #[test]
    fn writes_the_destination_alone() {
        let mut frame = FRAME;
        write_destination(&mut frame, MacAddr::BROADCAST);
        assert_eq!(frame[DESTINATION], [0xff; 6]);
        assert_eq!(frame[6..], FRAME[6..]);
    }

    #[test]
    fn writes_the_source_alone() {
        let mut frame = FRAME;
        write_source(&mut frame, MacAddr::BROADCAST);
        assert_eq!(frame[SOURCE], [0xff; 6]);
        assert_eq!(frame[..6], FRAME[..6]);
        assert_eq!(frame[12..], FRAME[12..]);
    }

    /// The addresses of `FRAME` and then `rest`.
    fn tagged(rest: &[u8]) -> Vec<u8> {
        [&FRAME[..12], rest].concat()
    }

    #[test]
    fn looks_through_two_tags_and_no_third() {
        for (rest, ethertype, payload) in [
            (&[0x08, 0x00, 1][..], 0x0800, &[1][..]),
            (&[0x81, 0, 0, 5, 0x08, 0x00, 1], 0x0800, &[1]),
            (
                &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5, 0x86, 0xdd, 1],
                0x86dd,
                &[1],
            ),
            (
                &[0x88, 0xa8, 0, 6, 0x81, 0, 0, 5, 0x81, 0, 0, 4, 8, 0],
                0x8100,
                &[0, 4, 8, 0],
            ),
            (&[0x81, 0, 0, 5, 0x08], 0x8100, &[0, 5, 0x08]),
        ] {
            let bytes = tagged(rest);
            let frame = Frame::new_checked(&bytes).unwrap();
            assert_eq!(frame.untagged(), (EtherType(ethertype), payload));
        }
    }
}

//! Where the fields stand that change when a stream is cut or joined.

use std::ops::Range;

/// IPv4 (RFC 791).
pub(super) mod ipv4 {
    use std::ops::Range;

    pub(in crate::offload) const TOTAL_LEN: Range<usize> = 2..4;
    pub(in crate::offload) const ID: Range<usize> = 4..6;
    pub(in crate::offload) const FRAGMENT: Range<usize> = 6..8;
    pub(in crate::offload) const CHECKSUM: Range<usize> = 10..12;
    /// The DF bit of the `FRAGMENT` word.
    pub(in crate::offload) const DONT_FRAGMENT: u16 = 0x4000;
}

/// IPv6 (RFC 8200).
pub(super) mod ipv6 {
    use std::ops::Range;

    pub(in crate::offload) const PAYLOAD_LEN: Range<usize> = 4..6;
}

/// TCP (RFC 9293 section 3.1).
pub(super) mod tcp {
    use std::ops::Range;

    /// Bytes of a header without options.
    pub(in crate::offload) const HEADER_LEN: usize = 20;
    pub(in crate::offload) const SEQUENCE: Range<usize> = 4..8;
    /// The byte with the header's length in words of four bytes, in its high half.
    pub(in crate::offload) const DATA_OFFSET: usize = 12;
    pub(in crate::offload) const FLAGS: usize = 13;
    pub(in crate::offload) const WINDOW: Range<usize> = 14..16;
    pub(in crate::offload) const CHECKSUM: Range<usize> = 16..18;

    pub(in crate::offload) const FIN: u8 = 0x01;
    pub(in crate::offload) const SYN: u8 = 0x02;
    pub(in crate::offload) const RST: u8 = 0x04;
    pub(in crate::offload) const PSH: u8 = 0x08;
    pub(in crate::offload) const URG: u8 = 0x20;
    pub(in crate::offload) const CWR: u8 = 0x80;
}

/// UDP (RFC 768).
pub(super) mod udp {
    use std::ops::Range;

    /// Bytes of the header.
    pub(in crate::offload) const HEADER_LEN: usize = 8;
    pub(in crate::offload) const LEN: Range<usize> = 4..6;
    pub(in crate::offload) const CHECKSUM: Range<usize> = 6..8;
}

const _: () = assert!(tcp::CHECKSUM.end <= tcp::HEADER_LEN);
const _: () = assert!(udp::CHECKSUM.end == udp::HEADER_LEN);

/// The field of two bytes at `at`.
///
/// # Panics
/// If it is not inside `header`.
pub(super) fn read_u16(header: &[u8], at: Range<usize>) -> u16 {
    let [high, low] = header[at] else {
        unreachable!("every range of this module that is read so is two bytes long")
    };
    u16::from_be_bytes([high, low])
}

/// Writes the field of two bytes at `at`.
///
/// # Panics
/// If it is not inside `header`.
pub(super) fn write_u16(header: &mut [u8], at: Range<usize>, value: u16) {
    header[at].copy_from_slice(&value.to_be_bytes());
}

/// The sequence number of a TCP header.
///
/// # Panics
/// If `header` is shorter than a TCP header.
pub(super) fn read_sequence(header: &[u8]) -> u32 {
    let [a, b, c, d] = header[tcp::SEQUENCE] else {
        unreachable!("the range is four bytes long")
    };
    u32::from_be_bytes([a, b, c, d])
}

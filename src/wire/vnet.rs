//! `virtio_net_hdr`: what a TAP opened with IFF_VNET_HDR puts before each frame (include/uapi/linux/virtio_net.h).
//!
//! ```text
//!  0      1         2       4         6           8            10
//! | flags| gso_type| hdr_len| gso_size| csum_start| csum_offset|     little-endian on the hosts we build for: native order
//! ```

use std::ops::Range;

use super::field;

/// Bytes of the header a TAP uses unless TUNSETVNETHDRSZ says otherwise.
pub const HEADER_LEN: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum at csum_start + csum_offset holds only the pseudo-header sum.
pub const NEEDS_CSUM: u8 = 1;

/// VIRTIO_NET_HDR_GSO_ECN, a bit of the gso_type byte.
const GSO_ECN: u8 = 0x80;

const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const HDR_LEN: Range<usize> = 2..4;
const GSO_SIZE: Range<usize> = 4..6;
const CSUM_START: Range<usize> = 6..8;
const CSUM_OFFSET: Range<usize> = 8..10;

const _: () = assert!(CSUM_OFFSET.end == HEADER_LEN);

/// What kind of super-frame follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GsoType {
    /// An ordinary frame.
    #[default]
    None,
    /// TCP over IPv4 (VIRTIO_NET_HDR_GSO_TCPV4).
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of equal size (VIRTIO_NET_HDR_GSO_UDP_L4).
    UdpL4,
}

impl GsoType {
    /// The gso_type byte without its ECN bit; `None` for what no TUNSETOFFLOAD of ours asks for (UFO).
    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::TcpV4),
            4 => Some(Self::TcpV6),
            5 => Some(Self::UdpL4),
            _ => None,
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::TcpV4 => 1,
            Self::TcpV6 => 4,
            Self::UdpL4 => 5,
        }
    }

    /// True for the types that may carry the ECN bit.
    #[must_use]
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::TcpV4 | Self::TcpV6)
    }
}

/// One header, decoded. The default is the header of an ordinary frame whose checksums are complete: ten zero bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum at `csum_start + csum_offset` is partial.
    pub needs_csum: bool,
    /// Kind of super-frame.
    pub gso_type: GsoType,
    /// VIRTIO_NET_HDR_GSO_ECN: the first segment has CWR.
    pub ecn: bool,
    /// Bytes of all headers of the frame; a hint, never to be trusted on reading.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Offset in the frame where checksumming starts.
    pub csum_start: u16,
    /// Offset from there of the checksum field.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// `None` for a GSO type that was never asked for, ECN on one that is not TCP included. Flags but NEEDS_CSUM are hints
    /// (the kernel sets DATA_VALID on frames it has verified) and are left out.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let gso_type = GsoType::from_wire(bytes[GSO_TYPE] & !GSO_ECN)?;
        let ecn = bytes[GSO_TYPE] & GSO_ECN != 0;
        if ecn && !gso_type.is_tcp() {
            return None;
        }
        Some(Self {
            needs_csum: bytes[FLAGS] & NEEDS_CSUM != 0,
            gso_type,
            ecn,
            hdr_len: u16::from_ne_bytes(field(bytes, HDR_LEN)),
            gso_size: u16::from_ne_bytes(field(bytes, GSO_SIZE)),
            csum_start: u16::from_ne_bytes(field(bytes, CSUM_START)),
            csum_offset: u16::from_ne_bytes(field(bytes, CSUM_OFFSET)),
        })
    }

    /// The ten bytes. `ecn` is written for TCP types only: with another the kernel refuses the frame.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let ecn = self.ecn && self.gso_type.is_tcp();
        let mut bytes = [0; HEADER_LEN];
        bytes[FLAGS] = if self.needs_csum { NEEDS_CSUM } else { 0 };
        bytes[GSO_TYPE] = self.gso_type.to_wire() | if ecn { GSO_ECN } else { 0 };
        bytes[HDR_LEN].copy_from_slice(&self.hdr_len.to_ne_bytes());
        bytes[GSO_SIZE].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[CSUM_START].copy_from_slice(&self.csum_start.to_ne_bytes());
        bytes[CSUM_OFFSET].copy_from_slice(&self.csum_offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn default_is_ten_zero_bytes() {
        assert_eq!(VnetHeader::default().emit(), [0; HEADER_LEN]);
        assert_eq!(
            VnetHeader::parse(&[0; HEADER_LEN]),
            Some(VnetHeader::default())
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn writes_a_super_frame_as_the_kernel_does() {
        let header = VnetHeader {
            needs_csum: true,
            gso_type: GsoType::TcpV6,
            ecn: true,
            hdr_len: 0x0056,
            gso_size: 0x0536,
            csum_start: 0x0036,
            csum_offset: 0x0010,
        };
        let bytes = [1, 0x84, 0x56, 0, 0x36, 5, 0x36, 0, 0x10, 0];
        assert_eq!(header.emit(), bytes);
        assert_eq!(VnetHeader::parse(&bytes), Some(header));
    }

    #[test]
    fn takes_only_the_types_asked_for() {
        let accepted: Vec<u8> = (0..=u8::MAX)
            .filter(|byte| VnetHeader::parse(&[0, *byte, 0, 0, 0, 0, 0, 0, 0, 0]).is_some())
            .collect();
        assert_eq!(accepted, [0, 1, 4, 5, 0x81, 0x84]);
    }

    #[test]
    fn ignores_flags_that_are_hints() {
        for (flags, needs_csum) in [(0x02, false), (0x04, false), (0x07, true)] {
            let header = VnetHeader::parse(&[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            assert_eq!(header.needs_csum, needs_csum, "flags {flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn what_was_parsed_is_emitted_but_for_hint_flags(bytes: [u8; HEADER_LEN]) {
            if let Some(header) = VnetHeader::parse(&bytes) {
                let mut expected = bytes;
                expected[FLAGS] &= NEEDS_CSUM;
                prop_assert_eq!(header.emit(), expected);
            }
        }

        #[test]
        fn what_is_emitted_can_be_parsed(
            needs_csum: bool,
            gso_type in prop::sample::select(vec![GsoType::None, GsoType::TcpV4, GsoType::TcpV6, GsoType::UdpL4]),
            ecn: bool,
            [hdr_len, gso_size, csum_start, csum_offset]: [u16; 4],
        ) {
            let ecn = ecn && gso_type.is_tcp();
            let header = VnetHeader { needs_csum, gso_type, ecn, hdr_len, gso_size, csum_start, csum_offset };
            prop_assert_eq!(VnetHeader::parse(&header.emit()), Some(header));
        }
    }
}

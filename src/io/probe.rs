//! Trying a TAP with super-frames of two tiny segments, for a MAC that nobody has.

use std::io::IoSlice;

use super::Tap;
use crate::wire::ethernet;
use crate::wire::ip::IPV4_HEADER_LEN;
use crate::wire::vnet::{GsoType, VnetHeader};

/// Locally administered, and no VTEP's or container's.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
const TRANSPORT: usize = ethernet::HEADER_LEN + IPV4_HEADER_LEN;
const SEGMENT_BYTES: usize = 8;

/// Whether the TAP takes super-frames of this type: some kernels refuse them all (6.6.44). Asked while the link is down, which gives
/// EIO behind all checks of the frame, or up, with a frame that is nobody's.
pub(super) fn takes_super_frames(tap: &mut impl Tap, gso_type: GsoType) -> bool {
    let (header, frame) = super_frame(gso_type);
    let sent = tap.send(&[IoSlice::new(&header.emit()), IoSlice::new(&frame)]);
    sent.map_or_else(|error| error.raw_os_error() == Some(libc::EIO), |()| true)
}

/// A super-frame of `gso_type`, over IPv4, with the header it is written under. Addresses are of TEST-NET-1 (RFC 5737), TTL 1.
fn super_frame(gso_type: GsoType) -> (VnetHeader, Vec<u8>) {
    let (protocol, header_len, checksum_offset) = match gso_type {
        GsoType::UdpL4 => (17, 8, 6),
        GsoType::None | GsoType::TcpV4 | GsoType::TcpV6 => (6, 20, 16),
    };
    let payload_len = 2 * SEGMENT_BYTES;
    let mut frame = vec![0; TRANSPORT + header_len + payload_len];
    frame[..6].copy_from_slice(&NOBODY);
    frame[6..12].copy_from_slice(&NOBODY);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip_len = (IPV4_HEADER_LEN + header_len + payload_len) as u8;
    frame[14..TRANSPORT].copy_from_slice(&[
        0x45, 0, 0, ip_len, 0, 0, 0, 0, 1, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ]);
    if gso_type == GsoType::UdpL4 {
        frame[TRANSPORT + 5] = (header_len + payload_len) as u8;
    } else {
        // Data offset, then ACK.
        frame[TRANSPORT + 12..TRANSPORT + 14].copy_from_slice(&[0x50, 0x10]);
    }
    let header = VnetHeader {
        needs_csum: true,
        gso_type,
        hdr_len: (TRANSPORT + header_len) as u16,
        gso_size: SEGMENT_BYTES as u16,
        csum_start: TRANSPORT as u16,
        csum_offset: checksum_offset,
        ..VnetHeader::default()
    };
    (header, frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::Segmenter;

    #[test]
    fn probe_frames_are_honest_super_frames() {
        for gso_type in [GsoType::TcpV4, GsoType::UdpL4] {
            let (header, frame) = super_frame(gso_type);
            let segmenter = Segmenter::new(&frame, &header).expect("honest");
            assert_eq!(segmenter.segments(), 2);
        }
    }
}

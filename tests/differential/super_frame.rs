//! Frames larger than a packet, as a host gives them to a card that cuts them.

use silk_vtep::wire::vnet::{GsoType, VnetHeader};

use super::case::Stimulus;
use super::frames::{IPV6, Inner};

/// VIRTIO_NET_HDR_GSO_ECN, in the byte of the type.
const GSO_ECN: u8 = 0x80;

/// The super-frame of a TCP or UDP frame, cut every `gso_size` bytes of payload: its checksum unfinished.
pub(crate) fn super_frame(frame: Inner, gso_size: u16) -> Stimulus {
    let start = frame.transport();
    let is_v6 = frame.0[12..14] == IPV6.to_be_bytes();
    let (gso_type, csum_offset, header_len) = match (frame.is_tcp(), is_v6) {
        (true, false) => (GsoType::TcpV4, 16, 20),
        (true, true) => (GsoType::TcpV6, 16, 20),
        (false, _) => (GsoType::UdpL4, 6, 8),
    };
    let start = u16::try_from(start).expect("headers are short");
    let header = VnetHeader {
        needs_csum: true,
        csum_start: start,
        csum_offset,
        gso_type,
        ecn: false,
        hdr_len: start + header_len,
        gso_size,
    };
    Stimulus {
        vnet: Some(header.emit()),
        ..Stimulus::of(frame.partial().0)
    }
}

/// The card is told that the first segment alone has CWR.
pub(crate) fn with_ecn(mut stimulus: Stimulus) -> Stimulus {
    if let Some(vnet) = &mut stimulus.vnet {
        vnet[1] |= GSO_ECN;
    }
    stimulus
}

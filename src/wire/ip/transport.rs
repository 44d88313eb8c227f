//! Where a frame's transport header is.

use super::Network;
use crate::wire::ethernet::Frame;

/// A transport header located in a frame; all of it lies inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The protocol (see [`super::protocol`]).
    pub protocol: u8,
    /// Bytes of the frame before the IP header.
    pub network_offset: usize,
    /// Bytes of the frame before the transport header.
    pub offset: usize,
    /// Bytes of transport header and payload, by the IP header; Ethernet padding is not counted.
    pub len: usize,
}

impl Transport {
    /// Bytes of the IP header with its options or extensions.
    #[must_use]
    pub fn network_header_len(self) -> usize {
        self.offset - self.network_offset
    }

    /// The transport header and its payload. `frame` is the one this was located in.
    ///
    /// # Panics
    /// May panic if it is another.
    #[must_use]
    pub fn segment(self, frame: Frame<'_>) -> &[u8] {
        &frame.bytes()[self.offset..self.offset + self.len]
    }
}

impl Network<'_> {
    /// The transport header in `frame`, the one this was parsed from. `None` if it is not IP, a fragment, or its header lies:
    /// a version other than its type's, lengths that do not fit, IPv6 extension headers that cannot be walked (hop-by-hop,
    /// routing and destination options are, eight at the most).
    #[must_use]
    #[inline]
    pub fn transport(self, frame: Frame<'_>) -> Option<Transport> {
        let (protocol, headers, payload, packet) = match self {
            Network::V4(ip) if ip.is_fragment() => return None,
            Network::V4(ip) => {
                let (headers, payload) = ip.split()?;
                (ip.protocol(), headers, payload, ip.bytes())
            }
            Network::V6(ip) => {
                let (protocol, headers, payload) = ip.split()?;
                (protocol, headers, payload, ip.bytes())
            }
            Network::Other => return None,
        };
        // The view runs to the end of its frame, so its length tells where it starts.
        let network_offset = frame.bytes().len().checked_sub(packet.len())?;
        Some(Transport {
            protocol,
            network_offset,
            offset: network_offset + headers.len(),
            len: payload.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::wire::ip::protocol;

    fn frame() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    fn locate(frame: &[u8]) -> Option<Transport> {
        let frame = Frame::new_checked(frame).unwrap();
        Network::parse_untagged(frame).unwrap().transport(frame)
    }

    #[test]
    fn padding_is_not_part_of_the_segment() {
        let mut bytes = frame();
        bytes.extend([0xee; 10]);
        let transport = locate(&bytes).unwrap();
        assert_eq!(transport.protocol, protocol::UDP);
        assert_eq!((transport.network_offset, transport.offset), (14, 34));
        assert_eq!((transport.network_header_len(), transport.len), (20, 15));
        let segment = transport.segment(Frame::new_checked(&bytes).unwrap());
        assert_eq!(segment, &frame()[34..]);
    }

    #[test]
    fn offsets_count_vlan_tags() {
        let mut frame = frame();
        frame.splice(12..12, [0x88, 0xa8, 0, 6, 0x81, 0, 0, 7]);
        let transport = locate(&frame).unwrap();
        assert_eq!((transport.network_offset, transport.offset), (22, 42));
    }

    #[test]
    fn options_are_part_of_the_network_header() {
        let mut frame = frame();
        frame[14] = 0x46;
        let transport = locate(&frame).unwrap();
        assert_eq!((transport.offset, transport.len), (38, 11));
    }

    #[test]
    fn headers_that_lie_have_no_transport() {
        for (at, value) in [
            (14, 0x65), // version 6
            (14, 0x44), // header length 16
            (14, 0x4f), // header length 60
            (17, 19),   // total length under the header's
            (17, 36),   // total length over the frame's
        ] {
            let mut frame = frame();
            frame[at] = value;
            assert_eq!(locate(&frame), None, "byte {at} = {value:#x}");
        }
    }

    #[test]
    fn fragments_have_no_transport() {
        for (word, found) in [([0x20, 0], false), ([0, 1], false), ([0x40, 0], true)] {
            let mut frame = frame();
            frame[20..22].copy_from_slice(&word);
            assert_eq!(locate(&frame).is_some(), found, "{word:x?}");
        }
    }
}

//! The headers of a run's first frame: what the others are held against, and what the super-frame goes out under.

use super::super::fields::{ipv4, ipv6, read_sequence, read_u16, tcp, udp, write_u16};
use super::super::partial::Checksum;
use super::super::transport::Protocol;
use super::candidate::Candidate;
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::wire::vnet::{GsoType, VnetHeader};
use crate::wire::{checksum, ethernet};

/// Bytes of the longest headers that merge: Ethernet, IPv6 and TCP with all its options.
const LEN_MAX: usize = ethernet::HEADER_LEN + IPV6_HEADER_LEN + 60;

const NETWORK_OFFSET: usize = ethernet::HEADER_LEN;

/// Plain headers, Ethernet to transport. A frame whose headers are like them is plain too, and of the same flow.
#[derive(Debug)]
pub(super) struct Headers {
    bytes: [u8; LEN_MAX],
    len: usize,
    transport_offset: usize,
    protocol: Protocol,
    gso_type: GsoType,
    /// The pseudo-header's sum for a length of 0.
    pseudo: u64,
}

impl Headers {
    /// Like no frame's.
    pub(super) fn none() -> Self {
        Self {
            bytes: [0; LEN_MAX],
            len: LEN_MAX,
            transport_offset: NETWORK_OFFSET + IPV6_HEADER_LEN,
            protocol: Protocol::Tcp,
            gso_type: GsoType::None,
            pseudo: 0,
        }
    }

    /// Takes over the candidate's.
    pub(super) fn set(&mut self, candidate: &Candidate<'_>) {
        let headers = candidate.headers();
        let segment = candidate.segment();
        let (source, _) = segment.addresses;
        self.bytes[..headers.len()].copy_from_slice(headers);
        self.len = headers.len();
        self.transport_offset = segment.transport.offset;
        self.protocol = segment.protocol;
        self.gso_type = segment.protocol.gso_type(source);
        self.pseudo = u64::from(checksum::fold(segment.pseudo_header(0)));
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether every byte is equal but those of lengths, checksums, identification, sequence number and PSH.
    pub(super) fn are_like(&self, headers: &[u8]) -> bool {
        let (below, transport) = self.bytes().split_at(self.transport_offset);
        let (others_below, others) = headers.split_at(self.transport_offset);
        // Ports first: they tell most flows apart.
        transport[..4] == others[..4]
            && below[..NETWORK_OFFSET] == others_below[..NETWORK_OFFSET]
            && self.is_network_like(&others_below[NETWORK_OFFSET..])
            && (self.protocol == Protocol::Udp || is_tcp_like(transport, others))
    }

    /// Whether the identification is that of the frame `place` behind the first, or means nothing (RFC 6864 section 4.1).
    /// `headers` are like these.
    pub(super) fn is_id_at(&self, place: usize, headers: &[u8]) -> bool {
        let (first, other) = (&self.bytes[NETWORK_OFFSET..], &headers[NETWORK_OFFSET..]);
        let is_atomic = !self.is_v4() || read_u16(first, ipv4::FRAGMENT) & ipv4::DONT_FRAGMENT != 0;
        // Identifications wrap.
        is_atomic
            || read_u16(other, ipv4::ID) == read_u16(first, ipv4::ID).wrapping_add(place as u16)
    }

    /// What the transport's checksum field holds of a frame with headers like these. `None` if it is wrong, or a length or the IPv4
    /// header's checksum is.
    pub(super) fn checksum_held(&self, frame: &[u8]) -> Option<Checksum> {
        let segment = &frame[self.transport_offset..];
        let network = &frame[NETWORK_OFFSET..self.transport_offset];
        let is_network_honest = if self.is_v4() {
            usize::from(read_u16(network, ipv4::TOTAL_LEN)) == network.len() + segment.len()
                && checksum::fold(checksum::sum(0, network)) == u16::MAX
        } else {
            usize::from(read_u16(network, ipv6::PAYLOAD_LEN)) == segment.len()
        };
        let (field, is_transport_honest) = match self.protocol {
            Protocol::Tcp => (read_u16(segment, tcp::CHECKSUM), true),
            Protocol::Udp => {
                let field = read_u16(segment, udp::CHECKSUM);
                let is_len_honest = usize::from(read_u16(segment, udp::LEN)) == segment.len();
                (field, is_len_honest && field != 0)
            }
        };
        if !(is_network_honest && is_transport_honest) {
            return None;
        }
        Checksum::of(field, self.pseudo + segment.len() as u64, segment)
    }

    /// The sequence number in headers like these; UDP has none.
    pub(super) fn sequence_of(&self, headers: &[u8]) -> Option<u32> {
        match self.protocol {
            Protocol::Tcp => Some(read_sequence(&headers[self.transport_offset..])),
            Protocol::Udp => None,
        }
    }

    /// Whether headers like these have PSH.
    pub(super) fn has_push(&self, headers: &[u8]) -> bool {
        self.protocol == Protocol::Tcp
            && headers[self.transport_offset + tcp::FLAGS] & tcp::PSH != 0
    }

    /// Makes them a super-frame's: lengths, PSH of the last frame, the IPv4 checksum, and the transport's as the pseudo-header's
    /// sum, to which the host or its card adds the rest.
    pub(super) fn patch(&mut self, payload_len: usize, gso_size: usize, push: bool) -> VnetHeader {
        let len = length(self.len - self.transport_offset + payload_len);
        let partial = checksum::fold(self.pseudo + u64::from(len));
        self.patch_network(len);
        let transport = &mut self.bytes[self.transport_offset..self.len];
        match self.protocol {
            Protocol::Tcp => {
                transport[tcp::FLAGS] |= if push { tcp::PSH } else { 0 };
                write_u16(transport, tcp::CHECKSUM, partial);
            }
            Protocol::Udp => {
                write_u16(transport, udp::LEN, len);
                write_u16(transport, udp::CHECKSUM, partial);
            }
        }
        VnetHeader {
            gso_type: self.gso_type,
            ecn: false, // CWR is never merged
            hdr_len: length(self.len),
            gso_size: length(gso_size),
            ..self.unfinished()
        }
    }

    /// The header that leaves the checksum of a frame with headers like these to the host.
    pub(super) fn unfinished(&self) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            csum_start: length(self.transport_offset),
            csum_offset: self.protocol.checksum_offset(),
            ..VnetHeader::default()
        }
    }

    fn patch_network(&mut self, segment_len: u16) {
        let is_v4 = self.is_v4();
        let header = &mut self.bytes[NETWORK_OFFSET..self.transport_offset];
        if is_v4 {
            let len = length(header.len() + usize::from(segment_len));
            write_u16(header, ipv4::TOTAL_LEN, len);
            write_u16(header, ipv4::CHECKSUM, 0);
            let checksum = !checksum::fold(checksum::sum(0, header));
            write_u16(header, ipv4::CHECKSUM, checksum);
        } else {
            write_u16(header, ipv6::PAYLOAD_LEN, segment_len);
        }
    }

    fn is_network_like(&self, other: &[u8]) -> bool {
        let first = &self.bytes[NETWORK_OFFSET..];
        if self.is_v4() {
            first[..2] == other[..2] // version, header length, TOS
                && first[6..10] == other[6..10] // fragment word, TTL, protocol
                && first[12..20] == other[12..20] // addresses
        } else {
            first[..4] == other[..4] && first[6..40] == other[6..40] // all but the length
        }
    }

    /// Without options or extension headers, the length tells.
    fn is_v4(&self) -> bool {
        self.transport_offset == NETWORK_OFFSET + IPV4_HEADER_LEN
    }
}

/// Whether all is equal that `tcp_gro_receive` compares, and the urgent pointer, that nothing is lost.
fn is_tcp_like(first: &[u8], other: &[u8]) -> bool {
    first[8..tcp::FLAGS] == other[8..tcp::FLAGS] // acknowledgement, header length
        && (first[tcp::FLAGS] ^ other[tcp::FLAGS]) & !tcp::PSH == 0
        && first[tcp::WINDOW] == other[tcp::WINDOW]
        && first[tcp::CHECKSUM.end..] == other[tcp::CHECKSUM.end..] // urgent pointer, options
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("no part is longer than SUPER_FRAME_LEN_MAX, a u16")
}

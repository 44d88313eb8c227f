//! Underlay packets, as a peer sends them to the VXLAN port, right or wrong.

use super::frames::{IPV4, IPV6, Inner};
use super::sums;

/// The host's MAC on its wire.
pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// VXLAN's port.
pub(crate) const PORT: u16 = 4789;
/// The device's.
pub(crate) const VNI: u32 = 100;

const UDP: u8 = 17;
const UDP_BYTES: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

/// The underlay address of host `n`, 1 being ours.
pub(crate) const fn v4(n: u8) -> [u8; 4] {
    [10, 0, 0, n]
}

/// The same in IPv6.
pub(crate) const fn v6(n: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]
}

/// What the UDP checksum is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    Good,
    Zero,
    Bad,
}

/// An underlay packet in the making.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    v6: bool,
    source: u8,
    destination: u8,
    foreign_source: bool,
    port: u16,
    tos: u8,
    ttl: u8,
    checksum: Checksum,
    bad_header_checksum: bool,
    /// Added to the UDP length field.
    udp_length: i32,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Datagram {
    /// VXLAN header and inner frame, from peer 2.
    pub(crate) fn new(v6: bool, header: [u8; 8], inner: &Inner) -> Self {
        Self::of_payload(v6, [&header[..], &inner.0].concat())
    }

    /// Any UDP payload, from peer 2.
    pub(crate) fn of_payload(v6: bool, payload: Vec<u8>) -> Self {
        Self {
            v6,
            source: 2,
            destination: 1,
            foreign_source: false,
            port: PORT,
            tos: 0,
            ttl: 64,
            checksum: Checksum::Good,
            bad_header_checksum: false,
            udp_length: 0,
            options: Vec::new(),
            payload,
        }
    }

    /// From host `n`.
    pub(crate) fn from(mut self, n: u8) -> Self {
        self.source = n;
        self
    }

    /// From an address of another network.
    pub(crate) fn off_subnet(mut self) -> Self {
        self.foreign_source = true;
        self
    }

    /// To host `n`.
    pub(crate) fn to(mut self, n: u8) -> Self {
        self.destination = n;
        self
    }

    /// To another port.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With this TOS or traffic class.
    pub(crate) fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// With this TTL or hop limit.
    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With this checksum.
    pub(crate) fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// With a wrong IPv4 header checksum.
    pub(crate) fn bad_header_checksum(mut self) -> Self {
        self.bad_header_checksum = true;
        self
    }

    /// With a UDP length that is wrong by so much.
    pub(crate) fn udp_length(mut self, delta: i32) -> Self {
        self.udp_length = delta;
        self
    }

    /// With IPv4 options, a multiple of four bytes.
    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// The whole packet, from its Ethernet header on.
    pub(crate) fn packet(&self) -> Vec<u8> {
        self.ip(&self.segment(), 0, false, false)
    }

    /// The same, but from our host to another: its Ethernet addresses the other way.
    pub(crate) fn outbound(&self) -> Vec<u8> {
        let mut packet = self.packet();
        packet[..6].copy_from_slice(&[2, 0, 0, 0, 0, self.destination]);
        packet[6..12].copy_from_slice(&HOST_MAC);
        packet
    }

    /// The packet as fragments: each range of the UDP segment is one, its start a multiple of 8. The one that ends it says so.
    pub(crate) fn fragments(&self, ranges: &[std::ops::Range<usize>]) -> Vec<Vec<u8>> {
        let segment = self.segment();
        let fragment = |range: &std::ops::Range<usize>| {
            let end = range.end.min(segment.len());
            let more = end < segment.len();
            self.ip(&segment[range.start..end], range.start, more, true)
        };
        ranges.iter().map(fragment).collect()
    }

    /// Bytes of the UDP segment.
    pub(crate) fn segment_len(&self) -> usize {
        UDP_BYTES + self.payload.len()
    }

    fn addresses(&self) -> Vec<u8> {
        match (self.v6, self.foreign_source) {
            (false, false) => [v4(self.source), v4(self.destination)].concat(),
            (false, true) => [[192, 0, 2, 7], v4(self.destination)].concat(),
            (true, false) => [v6(self.source), v6(self.destination)].concat(),
            (true, true) => {
                let mut source = v6(7);
                source[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
                [source, v6(self.destination)].concat()
            }
        }
    }

    fn segment(&self) -> Vec<u8> {
        let len = (self.segment_len() as i32 + self.udp_length).clamp(0, 0xffff) as u16;
        let mut segment = Vec::with_capacity(self.segment_len());
        segment.extend(50_000_u16.to_be_bytes());
        segment.extend(self.port.to_be_bytes());
        segment.extend(len.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(&self.payload);
        let covered = usize::from(len).min(segment.len());
        let sum = sums::transport(&self.addresses(), UDP, &segment[..covered]);
        let sum = match self.checksum {
            Checksum::Good => sum,
            Checksum::Zero => 0,
            // Neither zero nor what it was.
            Checksum::Bad => sum ^ 0x5500 | 1 ^ sum & 1,
        };
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn ip(&self, payload: &[u8], offset: usize, more: bool, is_fragment: bool) -> Vec<u8> {
        let mut packet = HOST_MAC.to_vec();
        packet.extend([2, 0, 0, 0, 0, self.source]);
        let offset = (offset as u16) | u16::from(more);
        if self.v6 {
            packet.extend(IPV6.to_be_bytes());
            packet.extend(self.ipv6_header(payload.len(), is_fragment));
            if is_fragment {
                packet.extend([UDP, 0]);
                packet.extend(offset.to_be_bytes());
                packet.extend([0, 0, 0x12, 0x34]);
            }
        } else {
            // In IPv4 the offset counts eights in 13 bits, and MF stands above them.
            let field = offset >> 3 | u16::from(more) << 13;
            packet.extend(IPV4.to_be_bytes());
            packet.extend(self.ipv4_header(payload.len(), field));
        }
        packet.extend(payload);
        packet
    }

    fn ipv4_header(&self, payload: usize, fragment: u16) -> Vec<u8> {
        let len = 20 + self.options.len();
        let mut header = vec![0x40 | (len / 4) as u8, self.tos];
        header.extend(((len + payload) as u16).to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, UDP, 0, 0]);
        header.extend(self.addresses());
        header.extend(&self.options);
        let sum = sums::complement(&header) ^ if self.bad_header_checksum { 0x55 } else { 0 };
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6_header(&self, payload: usize, is_fragment: bool) -> Vec<u8> {
        let (next, extra) = if is_fragment {
            (FRAGMENT_HEADER, 8)
        } else {
            (UDP, 0)
        };
        let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
        header.extend(((extra + payload) as u16).to_be_bytes());
        header.extend([next, self.ttl]);
        header.extend(self.addresses());
        header
    }
}

//! A frame that may begin a run.

use std::net::IpAddr;

use super::super::fields::{ipv4, read_u16, tcp};
use super::super::partial::Checksum;
use super::super::transport::{Protocol, Segment};
use super::CoalesceOptions;
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Network};
use crate::wire::{checksum, ethernet};

/// Flags of segments that are never merged.
const EXCLUDED_FLAGS: u8 = tcp::FIN | tcp::SYN | tcp::RST | tcp::URG | tcp::CWR;

/// What orders frames: within one flow, they leave as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    // The part that most often differs stands first.
    ports: [u8; 4],
    protocol: Protocol,
    addresses: (IpAddr, IpAddr),
}

impl Flow {
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        let ports = segment.bytes.first_chunk();
        Self {
            ports: *ports.expect("a parsed segment has its header"),
            protocol: segment.protocol,
            addresses: segment.addresses,
        }
    }

    /// Source and destination.
    pub(super) fn addresses(&self) -> (IpAddr, IpAddr) {
        self.addresses
    }

    /// No packet's: source and destination are not of one family.
    pub(super) fn none() -> Self {
        Self {
            ports: [0; 4],
            protocol: Protocol::Tcp,
            addresses: ([0; 4].into(), [0_u8; 16].into()),
        }
    }
}

/// A whole frame with payload whose headers are plain and whose checksums are right, or the transport's partial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    segment: Segment<'a>,
    frame: &'a [u8],
    header_len: usize,
    checksum: Checksum,
}

impl<'a> Candidate<'a> {
    /// `segment` is `frame`'s. `None` if it must pass alone. The cheap reasons come first, the payload is read last.
    pub(super) fn of(
        segment: Segment<'a>,
        frame: &'a [u8],
        options: &CoalesceOptions,
    ) -> Option<Self> {
        let header_len = segment.transport.offset + segment.header_len()?;
        let fit = is_enabled(segment.protocol, options)
            && is_plain_network(&segment)
            && segment.transport.offset + segment.bytes.len() == frame.len()
            && header_len < frame.len()
            && frame.len() - ethernet::HEADER_LEN <= options.mtu_bytes as usize
            && is_plain_transport(&segment);
        if !fit {
            return None;
        }
        let checksum = segment.checksum_held()?;
        Some(Self {
            segment,
            frame,
            header_len,
            checksum,
        })
    }

    pub(super) fn frame(&self) -> &'a [u8] {
        self.frame
    }

    pub(super) fn checksum(&self) -> Checksum {
        self.checksum
    }

    pub(super) fn segment(&self) -> &Segment<'a> {
        &self.segment
    }

    /// All headers, Ethernet to transport.
    pub(super) fn headers(&self) -> &'a [u8] {
        &self.frame[..self.header_len]
    }
}

fn is_enabled(protocol: Protocol, options: &CoalesceOptions) -> bool {
    match protocol {
        Protocol::Tcp => options.tcp,
        Protocol::Udp => options.udp,
    }
}

/// Right behind Ethernet, without options or extensions, not to be fragmented further, and unspoilt.
fn is_plain_network(segment: &Segment<'_>) -> bool {
    let len = segment.transport.network_header_len();
    let is_untagged = segment.transport.network_offset == ethernet::HEADER_LEN;
    is_untagged
        && match segment.network {
            Network::V4(ip) => {
                let header = ip.bytes().first_chunk::<IPV4_HEADER_LEN>();
                len == IPV4_HEADER_LEN && header.is_some_and(is_sound_ipv4)
            }
            Network::V6(_) => len == IPV6_HEADER_LEN,
            Network::Other => false,
        }
}

fn is_sound_ipv4(header: &[u8; IPV4_HEADER_LEN]) -> bool {
    read_u16(header, ipv4::FRAGMENT) & !ipv4::DONT_FRAGMENT == 0
        && checksum::fold(checksum::sum(0, header)) == u16::MAX
}

fn is_plain_transport(segment: &Segment<'_>) -> bool {
    match segment.protocol {
        Protocol::Tcp => segment.bytes[tcp::FLAGS] & EXCLUDED_FLAGS == 0,
        Protocol::Udp => segment.checksum() != 0 && segment.udp_length_is_honest(),
    }
}

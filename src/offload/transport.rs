//! The TCP or UDP segment of a frame, as cutting, joining and finishing checksums need it.

use std::net::IpAddr;

use super::fields::{read_u16, tcp, udp};
use crate::wire::checksum;
use crate::wire::ethernet::Frame;
use crate::wire::ip::{Network, Transport, protocol};
use crate::wire::vnet::GsoType;

/// The transport protocols that have offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn of(number: u8) -> Option<Self> {
        match number {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            _ => None,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    /// The type of its super-frames between addresses of this one's family.
    pub(super) const fn gso_type(self, address: IpAddr) -> GsoType {
        match (self, address) {
            (Self::Tcp, IpAddr::V4(_)) => GsoType::TcpV4,
            (Self::Tcp, IpAddr::V6(_)) => GsoType::TcpV6,
            (Self::Udp, _) => GsoType::UdpL4,
        }
    }

    /// Where the checksum stands in the header.
    pub(super) const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => tcp::CHECKSUM.start as u16,
            Self::Udp => udp::CHECKSUM.start as u16,
        }
    }

    /// Bytes of a header without options.
    const fn header_len_min(self) -> usize {
        match self {
            Self::Tcp => tcp::HEADER_LEN,
            Self::Udp => udp::HEADER_LEN,
        }
    }
}

/// The TCP or UDP segment of a frame that is no fragment. Its header, without options, is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) network: Network<'a>,
    /// Source and destination.
    pub(super) addresses: (IpAddr, IpAddr),
    pub(super) protocol: Protocol,
    pub(super) transport: Transport,
    /// Header and payload, without Ethernet padding.
    pub(super) bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Looks through VLAN tags. `None` if it is neither, or a header lies about lengths (see [`Network::transport`]).
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let frame = Frame::new_checked(frame)?;
        let network = Network::parse_untagged(frame).ok()?;
        let transport = network.transport(frame)?;
        let protocol = Protocol::of(transport.protocol)?;
        let bytes = transport.segment(frame);
        (bytes.len() >= protocol.header_len_min()).then_some(Self {
            network,
            addresses: network.addresses()?,
            protocol,
            transport,
            bytes,
        })
    }

    /// Bytes of the transport header; `None` if it lies.
    pub(super) fn header_len(&self) -> Option<usize> {
        let len = match self.protocol {
            Protocol::Tcp => usize::from(self.bytes[tcp::DATA_OFFSET] >> 4) * 4,
            Protocol::Udp => udp::HEADER_LEN,
        };
        (self.protocol.header_len_min()..=self.bytes.len())
            .contains(&len)
            .then_some(len)
    }

    /// Whether the UDP length is the segment's; true for TCP, which has none.
    pub(super) fn udp_length_is_honest(&self) -> bool {
        match self.protocol {
            Protocol::Tcp => true,
            Protocol::Udp => read_u16(self.bytes, udp::LEN) == self.len(),
        }
    }

    /// The checksum field.
    pub(super) fn checksum(&self) -> u16 {
        match self.protocol {
            Protocol::Tcp => read_u16(self.bytes, tcp::CHECKSUM),
            Protocol::Udp => read_u16(self.bytes, udp::CHECKSUM),
        }
    }

    /// The sum of the pseudo-header for a segment of `len` bytes between the same addresses, not folded. Never 0.
    pub(super) fn pseudo_header(&self, len: u16) -> u64 {
        let (source, destination) = self.addresses;
        checksum::pseudo_header(source, destination, self.protocol.number(), len.into())
    }

    /// Bytes of header and payload, as the pseudo-header has them.
    pub(super) fn len(&self) -> u16 {
        u16::try_from(self.bytes.len()).expect("an IP payload is shorter than 64 KiB")
    }
}

//! The host's IP layer: `ip_rcv_core` and `ip6_rcv_core`, as far as a packet tells.

use std::net::IpAddr;

use super::HostDrop;
use super::link::Packet;
use crate::wire::checksum;
use crate::wire::ip::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4, Ipv6, MAX_EXTENSIONS};

/// Bytes of an IPv6 fragment header.
const FRAGMENT_HEADER_LEN: usize = 8;

/// What the IP header says, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// TOS or traffic class.
    pub(super) tos: u8,
    pub(super) content: Content<'a>,
}

/// What a packet carries, link padding cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// All of `protocol`'s bytes.
    Whole { protocol: u8, payload: &'a [u8] },
    /// Some of them.
    Fragment(Fragment<'a>),
}

/// A piece of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment<'a> {
    pub(super) id: u32,
    /// Of the packet; for IPv6 what the fragment header names, which the first fragment decides.
    pub(super) protocol: u8,
    /// Bytes of the packet before this piece.
    pub(super) offset: usize,
    /// Another piece follows.
    pub(super) more: bool,
    pub(super) bytes: &'a [u8],
    /// Bytes of the headers that the whole packet will have before its payload.
    pub(super) header_len: usize,
}

/// Checks a packet's header. `snapped`: the capture holds less than the wire did.
pub(super) fn parse(packet: Packet<'_>, snapped: bool) -> Result<Header<'_>, HostDrop> {
    let short = |reason| {
        if snapped {
            HostDrop::TruncatedCapture
        } else {
            reason
        }
    };
    match packet {
        Packet::V4(bytes) => parse_v4(bytes, short),
        Packet::V6(bytes) => parse_v6(bytes, short),
    }
}

/// `short`: the reason for bytes that are not there.
fn parse_v4(bytes: &[u8], short: impl Fn(HostDrop) -> HostDrop) -> Result<Header<'_>, HostDrop> {
    let ip = Ipv4::new_checked(bytes).ok_or_else(|| short(HostDrop::IpLength))?;
    let header_len = usize::from(bytes[0] & 0xf) * 4;
    if ip.version() != 4 || header_len < IPV4_HEADER_LEN {
        return Err(HostDrop::IpHeader);
    }
    let header = bytes.get(..header_len);
    let header = header.ok_or_else(|| short(HostDrop::IpLength))?;
    if checksum::fold(checksum::sum(0, header)) != u16::MAX {
        return Err(HostDrop::IpChecksum);
    }
    let total_len = usize::from(ip.total_len());
    if total_len < header_len {
        return Err(HostDrop::IpLength);
    }
    let packet = bytes.get(..total_len);
    let packet = packet.ok_or_else(|| short(HostDrop::IpLength))?;
    let payload = &packet[header_len..];
    let content = if ip.is_fragment() {
        Content::Fragment(Fragment {
            id: ip.id().into(),
            protocol: ip.protocol(),
            offset: ip.fragment_offset().into(),
            more: ip.more_fragments(),
            bytes: payload,
            header_len,
        })
    } else {
        Content::Whole {
            protocol: ip.protocol(),
            payload,
        }
    };
    Ok(Header {
        source: ip.source().into(),
        destination: ip.destination().into(),
        tos: ip.tos(),
        content,
    })
}

fn parse_v6(bytes: &[u8], short: impl Fn(HostDrop) -> HostDrop) -> Result<Header<'_>, HostDrop> {
    let ip = Ipv6::new_checked(bytes).ok_or_else(|| short(HostDrop::IpLength))?;
    if ip.version() != 6 {
        return Err(HostDrop::IpHeader);
    }
    let packet = bytes.get(..IPV6_HEADER_LEN + usize::from(ip.payload_len()));
    let packet = packet.ok_or_else(|| short(HostDrop::IpLength))?;
    Ok(Header {
        source: ip.source().into(),
        destination: ip.destination().into(),
        tos: ip.traffic_class(),
        content: extensions(ip.next_header(), &packet[IPV6_HEADER_LEN..])?,
    })
}

/// Walks IPv6 extension headers to the payload or to a fragment header. What options ask for is not looked at.
pub(super) fn extensions(first: u8, packet: &[u8]) -> Result<Content<'_>, HostDrop> {
    let (mut protocol, mut rest) = (first, packet);
    for _ in 0..=MAX_EXTENSIONS {
        let len = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [_, units, _, left] = *rest.first_chunk().ok_or(HostDrop::IpExtension)?;
                if protocol == ROUTING && left != 0 {
                    return Err(HostDrop::IpExtension);
                }
                (usize::from(units) + 1) * 8
            }
            FRAGMENT => {
                let header = rest.first_chunk().ok_or(HostDrop::IpExtension)?;
                let before = packet.len() - rest.len();
                match fragment(header, &rest[FRAGMENT_HEADER_LEN..], before) {
                    Some(fragment) => return Ok(Content::Fragment(fragment)),
                    None => FRAGMENT_HEADER_LEN,
                }
            }
            _ => {
                return Ok(Content::Whole {
                    protocol,
                    payload: rest,
                });
            }
        };
        protocol = *rest.first().ok_or(HostDrop::IpExtension)?;
        rest = rest.get(len..).ok_or(HostDrop::IpExtension)?;
    }
    Err(HostDrop::IpExtension)
}

/// `None` for an atomic fragment, which is a whole packet (RFC 6946).
fn fragment<'a>(
    header: &[u8; FRAGMENT_HEADER_LEN],
    bytes: &'a [u8],
    header_len: usize,
) -> Option<Fragment<'a>> {
    let [protocol, _, high, low, id @ ..] = *header;
    let word = u16::from_be_bytes([high, low]);
    let (offset, more) = (usize::from(word & !7), word & 1 != 0);
    (more || offset != 0).then_some(Fragment {
        id: u32::from_be_bytes(id),
        protocol,
        offset,
        more,
        bytes,
        header_len,
    })
}

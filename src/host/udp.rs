//! The host's UDP layer: `__udp4_lib_rcv` and `__udp6_lib_rcv`, up to the daemon's socket.

use std::net::{IpAddr, SocketAddr};

use super::{HostDrop, Rules};
use crate::wire::ip::protocol;
use crate::wire::vxlan::{self, Header};
use crate::wire::{checksum, ethernet};

/// Bytes of a UDP header: source port, destination port, length, checksum.
pub(super) const HEADER_LEN: usize = 8;

/// A datagram that reaches the daemon's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// What a `recvmsg` would give.
    pub payload: &'a [u8],
}

/// Source and destination of a packet.
pub(super) type Ends = (IpAddr, IpAddr);

/// Checks the segment that an IP packet carries.
pub(super) fn receive<'a>(
    rules: &Rules,
    ends: Ends,
    tos: u8,
    segment: &'a [u8],
) -> Result<Datagram<'a>, HostDrop> {
    let header: &[u8; HEADER_LEN] = segment.first_chunk().ok_or(HostDrop::UdpLength)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let len = match usize::from(word(4)) {
        // A jumbogram's (RFC 2675); Linux takes it for the rest of any packet.
        0 if ends.0.is_ipv6() => segment.len(),
        len => len,
    };
    if len < HEADER_LEN {
        return Err(HostDrop::UdpLength);
    }
    let segment = segment.get(..len).ok_or(HostDrop::UdpLength)?;
    check_checksum(rules, ends, word(6), segment)?;
    let (source, destination) = (word(0), word(2));
    if destination != rules.port || ends.1.is_ipv6() != rules.local.is_ipv6() {
        return Err(HostDrop::NoSocket);
    }
    Ok(Datagram {
        source: SocketAddr::new(ends.0, source),
        destination: SocketAddr::new(ends.1, destination),
        tos,
        payload: &segment[HEADER_LEN..],
    })
}

/// The payload of a segment that goes to the daemon's port elsewhere.
pub(super) fn sent<'a>(rules: &Rules, segment: &'a [u8]) -> Option<&'a [u8]> {
    let (header, payload) = segment.split_first_chunk::<HEADER_LEN>()?;
    let destination = u16::from_be_bytes([header[2], header[3]]);
    (destination == rules.port).then_some(payload)
}

fn check_checksum(
    rules: &Rules,
    (source, destination): Ends,
    field: u16,
    segment: &[u8],
) -> Result<(), HostDrop> {
    if field == 0 {
        return if source.is_ipv4() || rules.zero_checksum_v6 {
            Ok(())
        } else {
            Err(HostDrop::UdpNoChecksum)
        };
    }
    // Below 2^16: a slice of one IP packet.
    let len = segment.len() as u32;
    let pseudo = checksum::pseudo_header(source, destination, protocol::UDP, len);
    if checksum::fold(checksum::sum(pseudo, segment)) == u16::MAX {
        Ok(())
    } else if field != checksum::fold(pseudo) {
        Err(HostDrop::UdpChecksum)
    } else if is_joined(&segment[HEADER_LEN..]) {
        Err(HostDrop::JoinedDatagrams)
    } else {
        Err(HostDrop::UdpPartialChecksum)
    }
}

/// True if `payload` looks like several datagrams of one VXLAN segment, one behind the other: all of one length but the last, which may be
/// shorter (`udp_gro_receive_segment`; `__udp_gso_segment`). A capture does not tell the length, so each is tried that has one VNI's
/// header wherever a datagram would begin.
fn is_joined(payload: &[u8]) -> bool {
    let Some((head, _)) = payload.split_first_chunk() else {
        return false;
    };
    let shortest = vxlan::HEADER_LEN + ethernet::HEADER_LEN;
    let lengths = shortest..=payload.len().saturating_sub(shortest);
    lengths.into_iter().any(|len| {
        let mut datagrams = payload.chunks(len);
        datagrams.all(|datagram| {
            datagram.len() >= shortest && datagram.first_chunk().is_some_and(|h| is_alike(head, h))
        })
    })
}

/// Headers of one VNI: only the group may differ, since flows share ports.
fn is_alike(a: &[u8; vxlan::HEADER_LEN], b: &[u8; vxlan::HEADER_LEN]) -> bool {
    let vni = |header| Header::parse_vni(header).ok();
    vni(a).is_some() && vni(a) == vni(b) && (a[7], b[7]) == (0, 0)
}

//! What stood before a datagram, as far as it is known.
//!
//! A socket tells of a datagram who sent it from which port under which TOS, and no more: MACs are made up (02:00 and the address's last
//! bytes), TTL 64, no DF, ID 0, over IPv4 no UDP checksum.

use std::net::SocketAddr;

use crate::control::capture::CapturedPacket;
use crate::host::Outgoing;
use crate::tables::DEFAULT_TTL;

/// Ethernet, IPv6 and UDP headers.
pub(super) const BYTES_MAX: usize = 14 + 40 + 8;
/// The largest payload of a UDP datagram over IPv4.
pub(super) const PAYLOAD_MAX: usize = 65_507;

/// Makes outer headers of datagrams that arrived at one socket.
pub(super) struct Outer {
    local: SocketAddr,
    frame: Vec<u8>,
    /// The whole datagram, what was cut off as zeros: lengths and checksum are made of it.
    payload: Vec<u8>,
}

impl Outer {
    pub(super) fn new(local: SocketAddr) -> Self {
        Self {
            local,
            frame: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// The datagram in an Ethernet frame, as much of it as there is, and how many bytes the frame had.
    pub(super) fn put_before(
        &mut self,
        packet: &CapturedPacket,
        sender: SocketAddr,
        bytes: &[u8],
    ) -> (&[u8], usize) {
        let bytes = &bytes[..bytes.len().min(PAYLOAD_MAX)];
        let whole = packet.len.clamp(bytes.len(), PAYLOAD_MAX);
        self.payload.clear();
        self.payload.extend_from_slice(bytes);
        self.payload.resize(whole, 0);
        let source = SocketAddr::new(sender.ip().to_canonical(), sender.port());
        let outgoing = Outgoing {
            source,
            destination: self.local,
            ttl: DEFAULT_TTL,
            tos: packet.tos.unwrap_or(0),
            dont_fragment: false,
            id: 0,
            checksum: source.is_ipv6(),
        };
        self.frame.clear();
        // It fits, and who sends to a socket is of its family.
        let _ = outgoing.emit(&[&self.payload], &mut self.frame);
        let len = self.frame.len();
        self.frame.truncate(len.saturating_sub(whole - bytes.len()));
        (&self.frame, len)
    }
}

//! In-memory twins of the devices: a [`MemoryTap`] for the host's side, and [`MemoryUnderlay`] ports joined by what the caller moves
//! between them. No root, no clock, no threads.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{Datagram, Tap, Transmit, Underlay};
use crate::wire::vnet;

/// A TAP whose host is two queues.
#[derive(Debug, Default)]
pub struct MemoryTap {
    from_host: VecDeque<Bytes>,
    to_host: VecDeque<Bytes>,
}

impl MemoryTap {
    /// The host sends an Ethernet frame, its checksums complete.
    pub fn host_sends(&mut self, frame: &[u8]) {
        let packet = [&[0; vnet::HEADER_LEN], frame].concat();
        self.from_host.push_back(packet.into());
    }

    /// The host sends a packet as a TAP gives it, the virtio_net_hdr first.
    pub fn host_sends_packet(&mut self, packet: Bytes) {
        self.from_host.push_back(packet);
    }

    /// The next packet the host got, the virtio_net_hdr first.
    pub fn host_receives(&mut self) -> Option<Bytes> {
        self.to_host.pop_front()
    }
}

impl Tap for MemoryTap {
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self.from_host.pop_front().ok_or_else(would_block)?;
        Ok(copy(&next, packet))
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.to_host.push_back(Bytes::copy_from_slice(packet));
        Ok(())
    }
}

/// A datagram on the in-memory wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireDatagram {
    /// Sender's address and port.
    pub source: SocketAddr,
    /// Receiver's address and port.
    pub destination: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// The UDP payload.
    pub payload: Bytes,
}

/// A VXLAN port whose wire is two queues.
#[derive(Debug)]
pub struct MemoryUnderlay {
    local: IpAddr,
    sent: VecDeque<WireDatagram>,
    arrived: VecDeque<WireDatagram>,
}

/// First source port of the pool that the flow hash chooses among.
const FIRST_SOURCE_PORT: u16 = 32768;

impl MemoryUnderlay {
    /// A port that sends from `local`.
    #[must_use]
    pub fn new(local: IpAddr) -> Self {
        Self {
            local,
            sent: VecDeque::new(),
            arrived: VecDeque::new(),
        }
    }

    /// The next datagram sent, to be carried to another port, lost or changed.
    pub fn take_sent(&mut self) -> Option<WireDatagram> {
        self.sent.pop_front()
    }

    /// A datagram arrives.
    pub fn arrive(&mut self, datagram: WireDatagram) {
        self.arrived.push_back(datagram);
    }
}

impl Underlay for MemoryUnderlay {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Datagram> {
        let next = self.arrived.pop_front().ok_or_else(would_block)?;
        Ok(Datagram {
            len: copy(&next.payload, buffer),
            truncated: next.payload.len() > buffer.len(),
            source: next.source,
            tos: next.tos,
            overflowed: None,
        })
    }

    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        let port = FIRST_SOURCE_PORT + (transmit.flow_hash >> 27) as u16;
        self.sent.push_back(WireDatagram {
            source: SocketAddr::new(self.local, port),
            destination: transmit.destination,
            tos: transmit.tos,
            payload: Bytes::copy_from_slice(transmit.payload),
        });
        Ok(())
    }
}

/// What a descriptor says that does not block, errno and all.
fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

/// Copies what fits; returns how much that is.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

//! Devices, and the lane that joins them to the core.
//!
//! A [`Lane`] owns one [`Tap`] queue and one [`Underlay`] port. Both are traits with two implementations: the kernel's
//! ([`TapQueue`], [`UdpPort`]) and an in-memory twin ([`memory`]), so that tests and embedders run the very loop the daemon runs.
//! [`worker`] drives a lane over kernel devices from readiness events.

mod buffer;
mod fault;
mod lane;
pub mod memory;
mod tap;
mod udp;
pub mod worker;

use std::io;
use std::net::SocketAddr;

pub use buffer::PacketBuffer;
pub use fault::Fault;
pub use lane::{Lane, LaneError, Progress};
pub use tap::TapQueue;
pub use udp::{PortHolder, SOURCE_PORTS, UdpOptions, UdpPort};

pub use crate::sys::udp::Datagram;

/// One queue of a TAP opened with IFF_VNET_HDR: every packet is a virtio_net_hdr and an Ethernet frame.
pub trait Tap {
    /// Reads one packet; returns its bytes.
    ///
    /// # Errors
    /// `WouldBlock` if none is there; others as [`Fault::of_tap_read`] explains them.
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize>;

    /// Writes one packet whole.
    ///
    /// # Errors
    /// As [`Fault::of_tap_write`] explains them.
    fn send(&mut self, packet: &[u8]) -> io::Result<()>;
}

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Underlay address and port.
    pub destination: SocketAddr,
    /// Chooses the source port: one flow, one port.
    pub flow_hash: u32,
    /// TOS or traffic class.
    pub tos: u8,
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// A VXLAN port on the underlay: receives on one socket, sends from a pool of source ports.
pub trait Underlay {
    /// Reads one datagram.
    ///
    /// # Errors
    /// `WouldBlock` if none is there; others as [`Fault::of_receive`] explains them.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Datagram>;

    /// Sends one datagram.
    ///
    /// # Errors
    /// As [`Fault::of_send`] explains them.
    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()>;
}

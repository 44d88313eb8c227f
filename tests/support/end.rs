//! One end of some traffic.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

use super::{BOUND, Namespace, Result};

/// Room for a burst that a busy machine reads late, in bytes: a loss must be the tunnel's, not a test's.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// An address, and the namespace that has it.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) address: IpAddr,
}

impl End<'_> {
    /// A UDP socket on a port of its own, with room for bursts and a bound on every receive.
    pub(crate) fn udp(&self) -> Result<UdpSocket> {
        let address = self.address;
        let socket = self.namespace.run(|| Ok(UdpSocket::bind((address, 0))?))?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
        socket.set_read_timeout(Some(BOUND))?;
        Ok(socket)
    }
}

/// Receives one datagram. A process that was stopped and goes on, or thawed, is told of it by every receive that has a bound (signal(7)).
pub(crate) fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

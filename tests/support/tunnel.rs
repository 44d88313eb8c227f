//! Datagrams of a peer without its daemon: what is inside them, no stack and no VTEP would send.

use std::net::UdpSocket;

use nix::sys::socket::{setsockopt, sockopt};

use super::{Cell, Result, ensure};

/// As many datagrams as one send is cut into at the most (`UDP_MAX_SEGMENTS` before Linux 6.9).
const RUN: usize = 64;

/// Sends from a cell's underlay address to another's VXLAN port, beside the cell's own VTEP.
pub(crate) struct Tunnel(UdpSocket);

impl Tunnel {
    /// From the first cell to the second, over the IPv4 underlay.
    pub(crate) fn between(from: &Cell, to: &Cell) -> Result<Self> {
        let (source, to) = (from.site.underlay_v4, (to.site.underlay_v4, 4789));
        let socket = from.host.run(|| Ok(UdpSocket::bind((source, 0))?))?;
        socket.connect(to)?;
        Ok(Self(socket))
    }

    /// Sends `frame` under VNI 1 and, unless that is 0, `group`.
    pub(crate) fn send(&self, group: u16, frame: &[u8]) -> Result {
        self.0.send(&datagram(group, frame))?;
        Ok(())
    }

    /// Sends frames of one size, many with one system call (UDP_SEGMENT).
    pub(crate) fn send_runs(&self, frames: impl IntoIterator<Item = (u16, Vec<u8>)>) -> Result {
        let (mut run, mut each) = (Vec::new(), 0);
        for (group, frame) in frames {
            let datagram = datagram(group, &frame);
            if each == 0 {
                each = datagram.len();
                setsockopt(&self.0, sockopt::UdpGsoSegment, &i32::try_from(each)?)?;
            }
            ensure!(datagram.len() == each, "frames of two sizes");
            run.extend(datagram);
            if run.len() == RUN * each {
                self.0.send(&run)?;
                run.clear();
            }
        }
        if !run.is_empty() {
            self.0.send(&run)?;
        }
        setsockopt(&self.0, sockopt::UdpGsoSegment, &0)?;
        Ok(())
    }
}

fn datagram(group: u16, frame: &[u8]) -> Vec<u8> {
    let [high, low] = group.to_be_bytes();
    let flags = if group == 0 { 0x08 } else { 0x88 };
    [&[flags, 0, high, low, 0, 0, 1, 0], frame].concat()
}

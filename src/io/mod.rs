//! Devices, and the lane that joins them to the core.
//!
//! A [`Lane`] owns one [`Tap`] queue and one [`Underlay`] port. Both are traits with two implementations: the kernel's
//! ([`TapQueue`], [`UdpPort`]) and an in-memory twin ([`memory`]), so that tests and embedders run the very loop the daemon runs.
//! [`worker`] drives a lane over kernel devices from readiness events.

mod arena;
mod arrivals;
pub mod capture;
mod denied;
pub mod express;
mod fault;
pub mod flows;
mod guard;
mod lane;
mod limiter;
mod mark_tags;
pub mod memory;
mod moderation;
mod offloads;
mod path_answer;
mod path_probe;
mod probe;
pub mod source_ports;
mod steering;
mod tap;
mod udp;
pub mod worker;

use std::io::{self, IoSlice};
use std::net::SocketAddr;

/// What [`Lane::new`] takes its tables in, of the crate `arc-swap`.
pub use arc_swap::ArcSwap;
pub use arrivals::Arrivals;
pub use capture::Captures;
pub use denied::{Denied, DeniedFlow};
pub use express::Express;
pub use fault::Fault;
pub use guard::Guard;
pub use lane::{Lane, LaneError, LaneOptions, Progress, run_max_segs};
pub use mark_tags::MarkTags;
pub use offloads::{Offload, OffloadState, Offloads};
pub use path_answer::{Asked, FRONT_LEN, Told};
pub use path_probe::{PathProbe, RouteMtu};
pub use source_ports::{DEFAULT_SOURCE_PORTS, SOURCE_PORTS};
pub use steering::Steering;
pub(crate) use steering::not_loaded;
pub use tap::{TapOffloads, TapQueue};
pub(crate) use udp::BUFFER_BYTES;
pub use udp::{PortHolder, UdpOptions, UdpPort, supports_gro, supports_gso};

pub use crate::sys::udp::Datagram;
use crate::vtep::Outer;

/// One queue of a TAP opened with IFF_VNET_HDR: every packet is a virtio_net_hdr and an Ethernet frame.
pub trait Tap {
    /// Reads one packet; returns its bytes.
    ///
    /// # Errors
    /// `WouldBlock` if none is there; others as [`Fault::of_tap_read`] explains them.
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize>;

    /// Writes one packet whole, gathered from `slices`: the virtio_net_hdr, then the frame.
    ///
    /// # Errors
    /// As [`Fault::of_tap_write`] explains them.
    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()>;
}

/// UDP payloads of equal length, but for the last, which may be shorter. Each is gathered from as many slices.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    slices: &'a [IoSlice<'a>],
    slices_each: usize,
}

impl<'a> Run<'a> {
    /// A payload for every `slices_each` of `slices`.
    ///
    /// # Panics
    /// If `slices` is not a whole number of payloads, or none.
    #[must_use]
    pub fn new(slices: &'a [IoSlice<'a>], slices_each: usize) -> Self {
        assert!(!slices.is_empty() && slices.len().is_multiple_of(slices_each));
        Self {
            slices,
            slices_each,
        }
    }

    /// How many payloads there are, 1 at the least.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slices.len() / self.slices_each
    }

    /// The slices of all payloads in order.
    #[must_use]
    pub fn slices(&self) -> &'a [IoSlice<'a>] {
        self.slices
    }

    /// Each payload as a run of its own.
    pub fn each(&self) -> impl Iterator<Item = Self> + use<'a> {
        let slices_each = self.slices_each;
        let payloads = self.slices.chunks_exact(slices_each);
        payloads.map(move |slices| Self {
            slices,
            slices_each,
        })
    }

    /// Bytes of every payload but the last.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        len(&self.slices[..self.slices_each])
    }

    /// Bytes of all payloads.
    #[must_use]
    pub fn total_len(&self) -> usize {
        (self.count() - 1) * self.payload_len()
            + len(&self.slices[self.slices.len() - self.slices_each..])
    }
}

fn len(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

/// Datagrams to send: one, or several that the host is to cut.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Underlay address and port.
    pub destination: SocketAddr,
    /// The source port's number, as [`Underlay::source`] gave it.
    pub source: usize,
    /// The fields of the IP header that depend on what is inside.
    pub outer: Outer,
    /// What to send.
    pub run: Run<'a>,
}

/// A VXLAN port on the underlay: receives on one socket, sends from a pool of source ports.
pub trait Underlay {
    /// Reads what is there, one message at the least and as many as `arrivals` has room for.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; others as [`Fault::of_receive`] explains them.
    fn recv(&mut self, arrivals: &mut Arrivals) -> io::Result<()>;

    /// Datagrams that the host dropped before they were read, since the port was opened; wraps. `None`: it does not tell.
    fn dropped(&mut self) -> Option<u32>;

    /// The number of the source port for a flow: one flow, one port.
    fn source(&self, flow_hash: u32) -> usize;

    /// Sends the run whole, or nothing of it.
    ///
    /// # Errors
    /// As [`Fault::of_send`] explains them.
    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_knows_its_lengths() {
        let slices = [b"hh", b"ab", b"hh", b"c."].map(|bytes| IoSlice::new(bytes));
        let short = [
            IoSlice::new(b"hh"),
            IoSlice::new(b"abc"),
            IoSlice::new(b"hh"),
            IoSlice::new(b"d"),
        ];
        let whole = Run::new(&slices, 2);
        assert_eq!(
            (whole.count(), whole.payload_len(), whole.total_len()),
            (2, 4, 8)
        );
        let ragged = Run::new(&short, 2);
        assert_eq!((ragged.payload_len(), ragged.total_len()), (5, 8));
        let lens: Vec<usize> = ragged.each().map(|one| one.total_len()).collect();
        assert_eq!(lens, [5, 3]);
    }
}

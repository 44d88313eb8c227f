//! How a frame goes to the underlay, and when it does not fit.

use std::net::IpAddr;
use std::sync::Arc;

use super::Outer;
use crate::drop_reason::DropReason;
use crate::tables::{Destination, Peer};
use crate::wire::ethernet::{self, Frame};
use crate::wire::icmp;
use crate::wire::ip::Network;
use crate::wire::vxlan::{self, Header};
use crate::wire::{MacAddr, Mark};

/// How a frame is encapsulated.
#[derive(Debug, Clone)]
pub struct Encap<'t> {
    /// Where it goes: one destination, or several for head-end replication; never none. Their order is the FDB's; [`copies`](Self::copies)
    /// has the order in which they are sent.
    pub destinations: &'t [Destination],
    /// The inner destination MAC to write, if routing changed it.
    pub destination_mac: Option<MacAddr>,
    /// Who is speaking; `None`: no group is sent.
    pub mark: Option<Mark>,
    /// The outer IP header.
    pub outer: Outer,
    /// Chooses the outer source port.
    pub flow_hash: u32,
}

/// A frame that does not fit the path to its peer and must not be fragmented.
#[derive(Debug, Clone)]
pub struct TooBig<'t> {
    /// Whom it was for.
    pub peer: &'t Arc<Peer>,
    /// The largest packet that fits, in bytes behind the Ethernet header.
    pub mtu: u32,
}

impl TooBig<'_> {
    /// Who would be told of `frame`, the one that was judged: it bounds how often. `None`: nobody.
    #[must_use]
    pub fn listener(&self, frame: &[u8]) -> Option<IpAddr> {
        let network = Network::parse(Frame::new_checked(frame)?).ok()?;
        network.addresses().map(|(source, _)| source)
    }

    /// Why `frame`, the one that was judged, is dropped: whether there is a word for it that its sender could be told.
    #[must_use]
    pub fn reason(&self, frame: &[u8]) -> DropReason {
        let least = match Frame::new_checked(frame).map(Network::parse) {
            Some(Ok(Network::V4(_))) => icmp::IPV4_MTU_MIN,
            Some(Ok(Network::V6(_))) => icmp::IPV6_MTU_MIN,
            Some(Ok(Network::Other) | Err(_)) | None => 0,
        };
        if self.mtu < least {
            DropReason::PathBelowMinimum
        } else {
            DropReason::PathMtu
        }
    }

    /// The frame that tells the sender of `frame`, the one that was judged. It goes back to the host, as often as the caller thinks fit;
    /// `None` if nobody may be told ([`icmp::write_too_big`]).
    #[must_use]
    pub fn message<'a>(&self, frame: &[u8], out: &'a mut [u8; icmp::LEN_MAX]) -> Option<&'a [u8]> {
        icmp::write_too_big(Frame::new_checked(frame)?, self.mtu, out)
    }
}

impl<'t> Encap<'t> {
    /// Whether a frame of `frame_len` bytes gets to `destination`: a copy of the frame, or a segment of a super-frame.
    #[must_use]
    #[inline]
    pub fn carries(&self, destination: &Destination, frame_len: usize) -> bool {
        self.limit(destination)
            .is_none_or(|mtu| frame_len <= ethernet::HEADER_LEN + mtu as usize)
    }

    /// The largest packet that gets to `destination` in one piece, if it must and a bound is known.
    #[inline]
    fn limit(&self, destination: &Destination) -> Option<u32> {
        let must_be_whole = self.outer.df || destination.underlay.is_ipv6();
        must_be_whole
            .then(|| destination.peer.path_mtu.limit())
            .flatten()
    }

    /// The bound that a frame of this length does not keep, or each segment of a super-frame, and whose it is. Copies for several are
    /// each a matter of its own, and nobody is told of them.
    #[inline]
    pub(super) fn exceeds(&self, frame_len: impl FnOnce() -> usize) -> Option<TooBig<'t>> {
        let [only] = self.destinations else {
            return None;
        };
        let mtu = self.limit(only)?;
        (!self.carries(only, frame_len())).then_some(TooBig {
            peer: &only.peer,
            mtu,
        })
    }

    /// The destinations in the order in which the kernel's device sends its copies: the first one's goes last (`vxlan_xmit`).
    pub fn copies(&self) -> impl Iterator<Item = &'t Destination> + use<'t> {
        let (first, others) = self.destinations.split_at(self.destinations.len().min(1));
        others.iter().chain(first)
    }

    /// The VXLAN header of the copy for `destination`.
    #[must_use]
    pub fn header(&self, destination: &Destination) -> [u8; vxlan::HEADER_LEN] {
        Header {
            vni: destination.vni,
            mark: self.mark,
        }
        .emit()
    }
}

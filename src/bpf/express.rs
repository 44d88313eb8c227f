//! The express path: TCP of a container leaves as VXLAN without passing through the daemon.
//!
//! A lane decides, as for any frame, and leaves word of it in a map; from then on the program at the TAP's transmit side puts the headers
//! that were decided on in front of whole super-frames, in the kernel, and hands them to the underlay's device. Nothing is copied, and
//! where the wire carries tunnel super-frames nothing is cut.
//!
//! ```text
//! host --express--> underlay device                 a flow with a decision of this generation
//!          |
//!          v a frame it does not take, untouched
//!        marks --> TAP queue --lane--> underlay
//! ```
//!
//! **What it takes**: Ethernet and IPv4 without options, VLAN tag, fragments or padding, with TCP behind; a [`FlowKey`] with a [`Decision`]
//! whose generation is the one in force, whose MACs are the frame's and whose path carries the largest segment. Who writes a new
//! generation has therefore taken back every decision at once, and 0 stops the program.
//!
//! **The outer UDP checksum** covers the payload, which nobody here reads. But a TCP segment whose own checksum is right, or will be, sums
//! to a number that its pseudo-header alone decides (Documentation/networking/checksum-offloads.rst, "LCO"), so headers and length
//! suffice. The kernel copies the checksum of a super-frame to each segment it cuts (`__skb_udp_tunnel_segment`, without
//! SKB_GSO_UDP_TUNNEL_CSUM): it is written for one segment if all are of one length. Where the last is shorter it is 0, which every
//! receiver takes (RFC 7348 section 5). A container whose TCP checksum is wrong thus has its datagram dropped by the peer's host instead of
//! its segment by the receiver.
//!
//! **What leaves** is routed by its outer addresses over the device decided on (`bpf_redirect_neigh`, so Linux 5.10), with the mark 0 as
//! from a socket; it does not pass through netfilter's output hooks. Without a route or a next hop that answers the kernel drops it, and
//! it counts as sent all the same.

mod layout;
mod program;

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

pub use layout::{COUNT_LEN, DECISION_LEN, FLOW_KEY_LEN, GENERATION_LEN};
pub use program::emit;

use crate::wire::{MacAddr, vxlan};

/// The maps that the program reads and counts in, by descriptor. They belong to the caller and outlive the loading of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// An LRU hash: [`FlowKey`] to [`Decision`].
    pub flows: RawFd,
    /// An array of one `u64`: the generation in force. 0: no frame is taken.
    pub generation: RawFd,
    /// A per-CPU array of [`Count`].
    pub counts: RawFd,
}

/// All of a TCP frame that a decision may depend on, apart from its MACs and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Of the inner IPv4 header.
    pub source: Ipv4Addr,
    /// Of the inner IPv4 header.
    pub destination: Ipv4Addr,
    /// Of the TCP header.
    pub source_port: u16,
    /// Of the TCP header.
    pub destination_port: u16,
    /// `skb->mark`.
    pub mark: u32,
    /// Of the inner IPv4 header, ECN among it.
    pub tos: u8,
    /// Of the inner IPv4 header, as the frame has it on its way to the TAP.
    pub ttl: u8,
    /// Of the inner IPv4 header.
    pub dont_fragment: bool,
}

/// What is to be done with the frames of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Counts only while this is the generation in force.
    pub generation: u64,
    /// Number of the underlay's device.
    pub interface: u32,
    /// Where the frames are counted: an index of [`Maps::counts`]. Without such a slot no frame is taken.
    pub slot: u32,
    /// The largest frame that is taken, Ethernet header included; of a super-frame, its largest segment. The kernel fragments nothing that
    /// leaves this way, whatever the outer DF says: what the underlay's device does not carry is lost.
    pub frame_len_max: u32,
    /// False: the outer UDP checksum is 0.
    pub udp_checksum: bool,
    /// The destination MAC that a frame must have.
    pub frame_destination: MacAddr,
    /// The source MAC that a frame must have, and keeps.
    pub frame_source: MacAddr,
    /// The inner destination MAC it gets.
    pub inner_destination: MacAddr,
    /// Of the outer IPv4 header.
    pub source: Ipv4Addr,
    /// Of the outer IPv4 header.
    pub destination: Ipv4Addr,
    /// Of the outer UDP header.
    pub source_port: u16,
    /// Of the outer UDP header.
    pub destination_port: u16,
    /// The VXLAN header.
    pub vxlan: [u8; vxlan::HEADER_LEN],
    /// Of the outer IPv4 header.
    pub tos: u8,
    /// Of the outer IPv4 header.
    pub ttl: u8,
    /// Of the outer IPv4 header.
    pub dont_fragment: bool,
}

/// What one CPU has sent for one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Datagrams: the segments of each super-frame.
    pub packets: u64,
    /// Bytes of the inner frames in them, Ethernet headers included.
    pub bytes: u64,
}

impl FlowKey {
    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FLOW_KEY_LEN] {
        layout::flow_key(self)
    }
}

impl Decision {
    /// As the map has it for the frames of `flow`, and no other.
    #[must_use]
    pub fn to_bytes(&self, flow: &FlowKey) -> [u8; DECISION_LEN] {
        layout::decision(self, flow)
    }
}

impl Count {
    /// Out of the map.
    #[must_use]
    pub fn from_bytes(bytes: [u8; COUNT_LEN]) -> Self {
        layout::parse_count(bytes)
    }
}

impl std::iter::Sum for Count {
    /// Of all CPUs.
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, count| Self {
            packets: sum.packets.wrapping_add(count.packets),
            bytes: sum.bytes.wrapping_add(count.bytes),
        })
    }
}

#[cfg(test)]
mod tests;

//! Ingress: frames of one flow that arrive together become one super-frame for one TAP write.
//!
//! # Who owns what
//!
//! The caller keeps what it received in buffers of its own and names frames by [`Slice`]: a buffer's number and a range in it.
//! The coalescer reads a frame during [`push`](Coalescer::push) only. It keeps a copy of the headers of each run's first frame,
//! patches that, and refers to payload by slices; the buffers are neither borrowed nor written, so a frame can still be written as
//! it came ([`Merged::frames`]) if the TAP refuses the super-frame. The one duty: [`flush`](Coalescer::flush) before a buffer
//! is used again, which is at the end of a batch.
//!
//! ```text
//! buffers   | VXLAN | headers | payload 0 |     | VXLAN | headers | payload 1 |   ...
//!                                  |                                   |
//! writev    [vnet header, headers, payload 0, payload 1, ...]
//!                            ^ a patched copy, in the run
//! ```
//!
//! All storage is reserved by [`Coalescer::new`]; no call after it allocates.
//!
//! # What may merge
//!
//! The rules are the kernel's (`tcp_gro_receive`, `udp_gro_receive_segment`, `inet_gro_receive`, `ipv6_gro_receive`), but where noted:
//! * Equal [`MergeKey`], and every header byte equal but those of lengths, checksums, IPv4 identification, TCP sequence number and
//!   PSH. So equal are MACs, TTL, TOS with its ECN bits (write them before pushing), DF, flow label, ports, acknowledgement, window
//!   and all TCP options. IPv4 identifications count up unless DF is set (RFC 6864: then they mean nothing; the kernel also
//!   wants them equal or counting).
//! * No VLAN tag, no IPv4 option, no IPv6 extension header, no Ethernet padding, no fragment, nothing over the MTU.
//! * Payload in every frame, no longer than the first one's. Sequence numbers join. Never SYN, FIN (the kernel takes it as a last
//!   one), RST, URG, CWR.
//! * UDP only with a checksum, and only if the TAP takes USO.
//! * The IPv4 header's checksum is right: a super-frame asserts to the host that it is.
//! * The transport's is right too, or partial, as a kernel peer's are whose wire has no card at its end. In one run both may stand: of
//!   a super-frame the host gets the pseudo-header's sum alone, whatever the frames came with, and takes the payload as sound, as it
//!   takes that of a partial frame alone. A checksum that is neither merges with nothing.
//! * PSH, a shorter frame, [`SLICES_MAX`] frames or 65,535 bytes end a run.
//!
//! Everything else passes alone and as it is, under the header [`vnet_header`](super::vnet_header) gives, after the open run of
//! its flow: order within a flow is kept. What hides its ports (a fragment) follows all runs between its addresses.

mod candidate;
mod headers;
mod merged;
mod run;

use std::net::IpAddr;

use super::partial::{Checksum, udp_vnet_header};
use super::transport::Segment;
use crate::wire::ethernet::Frame;
use crate::wire::ip::Network;
use crate::wire::vnet::VnetHeader;
use crate::wire::vxlan;
use candidate::{Candidate, Flow};
pub use merged::{Merged, Slice};
use run::Run;

/// Flows with an open run at a time. One more and the oldest run is written: a batch rarely holds frames of more.
pub const RUNS_MAX: usize = 16;

/// Frames of one run: as many as the kernel's UDP GRO makes one (`UDP_GRO_CNT_MAX`), and more than 64 KiB hold at usual MTUs.
pub const SLICES_MAX: usize = 64;

/// Bytes of the largest super-frame. Its IP length fits its field with an Ethernet header to spare.
pub const SUPER_FRAME_LEN_MAX: usize = u16::MAX as usize;

/// What the tunnel knows of a frame and merged frames have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeKey {
    /// The underlay address it came from.
    pub source: IpAddr,
    /// The outer TOS or traffic class it came under.
    pub tos: u8,
    /// The VXLAN header it came under.
    pub header: [u8; vxlan::HEADER_LEN],
}

/// What the TAP takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoalesceOptions {
    /// The TAP's MTU. Larger frames do not merge (see [`vnet_header`](super::vnet_header) for those that are partial).
    pub mtu_bytes: u32,
    /// TCP super-frames. Without, no TCP merges.
    pub tcp: bool,
    /// UDP super-frames (USO). Without, no UDP merges.
    pub udp: bool,
}

/// Merges the frames of a batch. Never keeps a frame over [`flush`](Self::flush).
#[derive(Debug)]
pub struct Coalescer {
    options: CoalesceOptions,
    runs: Box<[Run; RUNS_MAX]>,
    /// A permutation of the runs: the first `open` of it, oldest first, are open.
    order: [usize; RUNS_MAX],
    open: usize,
}

impl Coalescer {
    /// No run is open.
    #[must_use]
    pub fn new(options: CoalesceOptions) -> Self {
        Self {
            options,
            runs: Box::new(std::array::from_fn(|_| Run::vacant())),
            order: std::array::from_fn(|index| index),
            open: 0,
        }
    }

    /// What the TAP takes from now on; open runs go on as they began.
    pub fn set_options(&mut self, options: CoalesceOptions) {
        self.options = options;
    }

    /// Takes the next frame: `frame` is what stands at `at`. `out` is given what can be written, in order; perhaps nothing yet.
    ///
    /// # Panics
    /// If `frame` is not as long as `at`.
    pub fn push(
        &mut self,
        key: &MergeKey,
        at: Slice,
        frame: &[u8],
        out: &mut impl FnMut(&Merged<'_>),
    ) {
        if self.extend(key, at, frame, out) {
            return;
        }
        let Some(segment) = Segment::parse(frame) else {
            self.close_between(addresses(frame), out);
            return out(&Merged::alone(&at, VnetHeader::default()));
        };
        let flow = Flow::of(&segment);
        self.close_flow(&flow, out);
        match Candidate::of(segment, frame, &self.options) {
            Some(candidate) => {
                let position = self.vacate(out);
                self.run_mut(position).begin(key, &flow, &candidate, at);
                self.close_if_sealed(position, out);
            }
            None => {
                let header = segment.vnet_header(self.options.mtu_bytes);
                out(&Merged::alone(&at, header));
            }
        }
    }

    /// Takes the next frame if it continues an open run; else nothing is done. Whatever a tunnel decides by MACs, IP addresses, ECN
    /// bits and [`MergeKey`] it has then decided already, for the run's first frame. Checksums are no part of that: each frame's is
    /// looked at here.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn extend(
        &mut self,
        key: &MergeKey,
        at: Slice,
        frame: &[u8],
        out: &mut impl FnMut(&Merged<'_>),
    ) -> bool {
        assert_eq!(at.len(), frame.len(), "{at:?} is another frame");
        let Some((position, checksum)) = self.continued_by(key, frame) else {
            return false;
        };
        self.run_mut(position).append(frame, checksum, at);
        self.close_if_sealed(position, out);
        true
    }

    /// Takes a frame that is a UDP super-frame already, `gso_size` bytes of payload to a segment. It passes alone.
    pub fn push_super_frame(
        &mut self,
        at: Slice,
        frame: &[u8],
        gso_size: u16,
        out: &mut impl FnMut(&Merged<'_>),
    ) {
        self.close_between(addresses(frame), out);
        out(&Merged::alone(&at, udp_vnet_header(frame, gso_size)));
    }

    /// Gives all that is open to `out`, oldest run first. The buffers may be used again afterwards.
    pub fn flush(&mut self, out: &mut impl FnMut(&Merged<'_>)) {
        while self.open > 0 {
            self.close(0, out);
        }
    }

    /// Where in `order` the run is that the frame continues, and what its checksum is. The newest first: frames of one flow come in
    /// bursts.
    fn continued_by(&self, key: &MergeKey, frame: &[u8]) -> Option<(usize, Checksum)> {
        (0..self.open).rev().find_map(|position| {
            let checksum = self.run(position).continued_by(key, frame)?;
            Some((position, checksum))
        })
    }

    /// Opens the next run, to be begun.
    fn vacate(&mut self, out: &mut impl FnMut(&Merged<'_>)) -> usize {
        if self.open == RUNS_MAX {
            self.close(0, out);
        }
        self.open += 1;
        self.open - 1
    }

    fn close_if_sealed(&mut self, position: usize, out: &mut impl FnMut(&Merged<'_>)) {
        if self.run(position).is_sealed() {
            self.close(position, out);
        }
    }

    /// Closes the flow's run, if it has one.
    fn close_flow(&mut self, flow: &Flow, out: &mut impl FnMut(&Merged<'_>)) {
        let position = (0..self.open).find(|position| self.run(*position).flow() == flow);
        if let Some(position) = position {
            self.close(position, out);
        }
    }

    /// Closes all runs between the two addresses.
    fn close_between(
        &mut self,
        addresses: Option<(IpAddr, IpAddr)>,
        out: &mut impl FnMut(&Merged<'_>),
    ) {
        let mut position = 0;
        while position < self.open {
            if Some(self.run(position).flow().addresses()) == addresses {
                self.close(position, out);
            } else {
                position += 1;
            }
        }
    }

    fn close(&mut self, position: usize, out: &mut impl FnMut(&Merged<'_>)) {
        let run = self.order[position];
        self.order[position..self.open].rotate_left(1);
        self.open -= 1;
        out(&self.runs[run].finish());
    }

    fn run(&self, position: usize) -> &Run {
        &self.runs[self.order[position]]
    }

    fn run_mut(&mut self, position: usize) -> &mut Run {
        &mut self.runs[self.order[position]]
    }
}

/// Source and destination of whatever is IP.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let frame = Frame::new_checked(frame)?;
    Network::parse_untagged(frame).ok()?.addresses()
}

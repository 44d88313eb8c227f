//! In-memory twins of the devices: a [`MemoryTap`] for the host's side, a [`MemoryUnderlay`] for the network's. No root, no clock, no
//! threads: a frame or datagram is where the caller put it until a lane reads it.
//!
//! ```text
//! host_sends --> MemoryTap --> Lane --> MemoryUnderlay --> take_sent ----.
//!                                                                        |  Wire, or whatever the caller likes
//! host_receives <-- MemoryTap <-- Lane <-- MemoryUnderlay <-- arrive <---'
//! ```
//!
//! [`MemoryCell`] is all of one line together with its tables and counters; a [`Wire`] joins cells and loses, doubles and reorders what it
//! carries. `examples/two_cores.rs` has two cells exchange flows, `examples/fuzz_harness.rs` feeds one whatever bytes it is given.

mod cell;
mod wire;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{Arrivals, Datagram, Run, SOURCE_PORTS, Tap, Transmit, Underlay};
use crate::vtep::Outer;
use crate::wire::vnet::{self, GsoType, VnetHeader};

pub use cell::MemoryCell;
pub use wire::{Damage, Faults, OVERTAKEN_MAX, Wire};

/// A TAP whose host is two queues.
#[derive(Debug, Default)]
pub struct MemoryTap {
    from_host: VecDeque<Bytes>,
    to_host: VecDeque<Bytes>,
    /// Larger super-frames are refused, virtio_net_hdr and all.
    super_frame_max_bytes: Option<usize>,
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

    /// From now on super-frames are refused with EINVAL, as by some kernels.
    pub fn refuse_super_frames(&mut self) {
        self.refuse_super_frames_above(0);
    }

    /// From now on super-frames of more bytes than this, virtio_net_hdr and all, are refused with EINVAL.
    pub fn refuse_super_frames_above(&mut self, max_bytes: usize) {
        self.super_frame_max_bytes = Some(max_bytes);
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

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let packet = gather(slices);
        let header = packet.first_chunk().and_then(VnetHeader::parse);
        let is_super_frame = header.is_some_and(|header| header.gso_type != GsoType::None);
        let too_large = (self.super_frame_max_bytes).is_some_and(|max| packet.len() > max);
        if is_super_frame && too_large {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.to_host.push_back(packet);
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
    /// The fields of the outer header that depend on what is inside.
    pub outer: Outer,
    /// The UDP payload.
    pub payload: Bytes,
}

/// A VXLAN port whose wire is two queues.
#[derive(Debug)]
pub struct MemoryUnderlay {
    local: IpAddr,
    sent: VecDeque<WireDatagram>,
    arrived: VecDeque<WireDatagram>,
    sends: usize,
    refuses_runs: bool,
    joins_runs: bool,
}

/// Datagrams of one message at the most (`UDP_GRO_CNT_MAX`).
const JOINED_MAX: usize = 64;

/// Datagrams of one send at the most (`UDP_MAX_SEGMENTS` before Linux 6.9).
const RUN_MAX: usize = 64;

/// Bytes of one send at the most: what an IPv4 datagram can hold.
const DATAGRAM_MAX: usize = 65_507;

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
            sends: 0,
            refuses_runs: false,
            joins_runs: false,
        }
    }

    /// From now on a run of more than one datagram is refused with EIO, as by a host without segmentation.
    pub fn refuse_runs(&mut self) {
        self.refuses_runs = true;
    }

    /// From now on datagrams that arrive one behind the other from one port are joined as UDP_GRO joins them: equal in length, but for
    /// the last, which may be shorter.
    pub fn join_runs(&mut self) {
        self.joins_runs = true;
    }

    /// The address it sends from.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        self.local
    }

    /// How many sends there were, each of one datagram or a run of them.
    #[must_use]
    pub fn sends(&self) -> usize {
        self.sends
    }

    /// The next datagram sent, to be carried to another port, lost or changed.
    pub fn take_sent(&mut self) -> Option<WireDatagram> {
        self.sent.pop_front()
    }

    /// A datagram arrives.
    pub fn arrive(&mut self, datagram: WireDatagram) {
        self.arrived.push_back(datagram);
    }

    /// Why a host would not send it (`udp_sendmsg`, `udp_send_skb`).
    fn refusal(&self, run: &Run<'_>) -> Option<i32> {
        if run.total_len() > DATAGRAM_MAX {
            Some(libc::EMSGSIZE)
        } else if run.count() > RUN_MAX {
            Some(libc::EINVAL)
        } else {
            (run.count() > 1 && self.refuses_runs).then_some(libc::EIO)
        }
    }

    /// Moves the datagrams that can be joined behind `first` into `room`; returns their bytes.
    fn join(&mut self, first: &WireDatagram, room: &mut [u8]) -> usize {
        let mut joined = 0;
        let joined_max = if self.joins_runs { JOINED_MAX } else { 1 };
        for _ in 1..joined_max {
            let next = self.arrived.pop_front_if(|next| {
                let len = next.payload.len();
                next.source == first.source
                    && next.outer.tos == first.outer.tos
                    && (1..=first.payload.len()).contains(&len)
                    && len <= room.len() - joined
            });
            let Some(next) = next else { break };
            joined += copy(&next.payload, &mut room[joined..]);
            if next.payload.len() < first.payload.len() {
                break;
            }
        }
        joined
    }
}

impl Underlay for MemoryUnderlay {
    fn recv(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        let (bytes, slot_bytes, messages) = arrivals.parts();
        for slot in bytes.chunks_exact_mut(slot_bytes) {
            let Some(next) = self.arrived.pop_front() else {
                break;
            };
            let len = copy(&next.payload, slot);
            let joined = self.join(&next, &mut slot[len..]);
            messages.push(Datagram {
                len: len + joined,
                truncated: next.payload.len() > slot_bytes,
                source: next.source,
                tos: next.outer.tos,
                segment_bytes: (joined > 0).then_some(len as u16),
            });
        }
        if messages.is_empty() {
            return Err(would_block());
        }
        Ok(())
    }

    fn dropped(&mut self) -> Option<u32> {
        None
    }

    fn source(&self, flow_hash: u32) -> usize {
        flow_hash as usize % SOURCE_PORTS
    }

    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        let run = transmit.run;
        if let Some(errno) = self.refusal(&run) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let port = FIRST_SOURCE_PORT + transmit.source as u16;
        self.sends += 1;
        let datagrams = cut(&run).map(|payload| WireDatagram {
            source: SocketAddr::new(self.local, port),
            destination: transmit.destination,
            outer: transmit.outer,
            payload,
        });
        self.sent.extend(datagrams);
        Ok(())
    }
}

/// The datagrams that a host makes of a run: it knows how long the first is, not how long each was meant to be.
fn cut(run: &Run<'_>) -> impl Iterator<Item = Bytes> {
    let mut left = gather(run.slices());
    let each = run.payload_len();
    (0..run.count()).map(move |_| left.split_to(left.len().min(each)))
}

/// What a descriptor says that does not block, errno and all.
fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

fn gather(slices: &[IoSlice<'_>]) -> Bytes {
    slices
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect()
}

/// Copies what fits; returns how much that is.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

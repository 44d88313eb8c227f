//! One captured packet.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::worker::Direction;
use super::Seen;
use crate::drop_reason::DropReason;
use crate::vtep::Fate;
use crate::wire::{Mark, Vni};

/// A packet as the lane saw it, and what became of it. Allocated once and used again and again.
#[derive(Debug)]
pub struct Record {
    /// Since 1970.
    pub at: Duration,
    /// From the host, or from the underlay.
    pub direction: Direction,
    /// What became of it.
    pub fate: Fate,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// The group with D and A; `None`: no group.
    pub mark: Option<Mark>,
    /// In the VXLAN header, if it is known.
    pub vni: Option<Vni>,
    /// To whom it goes, the first of them, or who sent it.
    pub peer: Option<IpAddr>,
    /// How many copies go out: more than one in head-end replication.
    pub copies: usize,
    /// What the outer headers said of a packet from the underlay.
    pub sender: Option<Sender>,
    /// Bytes that the packet has.
    pub len: usize,
    /// The first of them, from the Ethernet header of a packet from the host, from the VXLAN header of one from the underlay.
    pub bytes: Vec<u8>,
}

/// What the socket tells of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Outer source address and port.
    pub source: SocketAddr,
    /// Outer TOS or traffic class.
    pub tos: u8,
}

impl Record {
    /// Room for that many bytes.
    pub(super) fn with_capacity(snap_bytes: usize) -> Self {
        Self {
            at: Duration::ZERO,
            direction: Direction::Egress,
            fate: Fate::Drop,
            reason: None,
            mark: None,
            vni: None,
            peer: None,
            copies: 0,
            sender: None,
            len: 0,
            bytes: Vec::with_capacity(snap_bytes),
        }
    }

    /// Takes a packet over, as much of it as there is room for.
    pub(super) fn fill<'p>(
        &mut self,
        at: Duration,
        seen: &Seen<'_>,
        parts: impl Iterator<Item = &'p [u8]>,
    ) {
        self.at = at;
        self.direction = seen.direction;
        self.fate = seen.fate;
        self.reason = seen.reason;
        self.mark = seen.mark;
        self.vni = seen.vni;
        self.peer = seen.peer();
        self.copies = seen.destinations.len();
        self.sender = seen.sender;
        self.len = 0;
        self.bytes.clear();
        for part in parts {
            self.len += part.len();
            let room = self.bytes.capacity() - self.bytes.len();
            self.bytes.extend_from_slice(&part[..part.len().min(room)]);
        }
    }
}

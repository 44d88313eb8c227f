//! One capture: its filter, and a queue for each lane.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender as Give, bounded};

use super::super::worker::Direction;
use super::record::Sender;
use super::{Filter, Record};
use crate::drop_reason::DropReason;
use crate::tables::{Destination, Peer};
use crate::vtep::{Encap, Fate};
use crate::wire::vxlan::{self, Header};
use crate::wire::{Mark, Vni};

/// The most that is kept of a packet: more than any has.
pub const SNAP_BYTES_MAX: usize = 1 << 17;
/// What is kept of a packet unless said: all of one that any link carries, and the head of a super-frame.
pub const SNAP_BYTES: usize = 1 << 11;
/// Memory of one lane's queue, whatever the snap length is.
const QUEUE_BYTES: usize = 8 << 20;
/// Packets in one lane's queue, however little is kept of each.
const QUEUE_RECORDS_MAX: usize = 4096;

const _: () = assert!(QUEUE_BYTES / SNAP_BYTES_MAX >= 64);
const _: () = assert!(QUEUE_BYTES / SNAP_BYTES == QUEUE_RECORDS_MAX);

/// What a lane says of a packet.
#[derive(Debug)]
pub(in crate::io) struct Seen<'a> {
    pub(super) direction: Direction,
    pub(super) fate: Fate,
    pub(super) reason: Option<DropReason>,
    pub(super) mark: Option<Mark>,
    pub(super) vni: Option<Vni>,
    pub(super) destinations: &'a [Destination],
    /// Where there are no destinations.
    other: Option<IpAddr>,
    pub(super) sender: Option<Sender>,
}

impl<'a> Seen<'a> {
    /// A packet from the host.
    fn from_host(fate: Fate) -> Self {
        Self {
            direction: Direction::Egress,
            fate,
            reason: None,
            mark: None,
            vni: None,
            destinations: &[],
            other: None,
            sender: None,
        }
    }

    /// From the host to the underlay.
    pub(in crate::io) fn sent(encap: &Encap<'a>) -> Self {
        Self {
            mark: encap.mark,
            vni: encap.destinations.first().map(|first| first.vni),
            destinations: encap.destinations,
            ..Self::from_host(Fate::Encap)
        }
    }

    /// From the host, and answered.
    pub(in crate::io) fn answered() -> Self {
        Self::from_host(Fate::Reply)
    }

    /// From the host to nowhere.
    pub(in crate::io) fn dropped(reason: DropReason, peer: Option<&Arc<Peer>>) -> Self {
        Self {
            reason: Some(reason),
            other: peer.map(|peer| peer.underlay),
            ..Self::from_host(Fate::Drop)
        }
    }

    /// From the underlay. Whatever can be read of the header is told; with `gbp` the group too.
    pub(in crate::io) fn arrived(
        sender: Sender,
        datagram: &[u8],
        gbp: bool,
        fate: Fate,
        reason: Option<DropReason>,
    ) -> Self {
        let header = datagram.first_chunk::<{ vxlan::HEADER_LEN }>();
        let vni = header.and_then(|header| Header::parse_vni(header).ok());
        let parsed = header.and_then(|header| Header::parse(header, gbp).ok());
        Self {
            direction: Direction::Ingress,
            fate,
            reason,
            mark: parsed.and_then(|header| header.mark),
            vni,
            destinations: &[],
            other: Some(sender.source.ip().to_canonical()),
            sender: Some(sender),
        }
    }

    /// To whom it goes first, or who sent it.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        let first = self.destinations.first();
        first.map(|to| to.underlay.ip()).or(self.other)
    }

    /// Whether a copy goes there, or it is from there.
    pub(super) fn is_of(&self, peer: IpAddr) -> bool {
        let mut destinations = self.destinations.iter();
        destinations.any(|to| to.underlay.ip() == peer) || self.other == Some(peer)
    }

    /// The inner frame, in the bytes that the packet begins with.
    fn frame<'p>(&self, first: &'p [u8]) -> &'p [u8] {
        match self.direction {
            Direction::Egress => first,
            Direction::Ingress => first.get(vxlan::HEADER_LEN..).unwrap_or_default(),
        }
    }
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// That the filter wanted.
    pub wanted: u64,
    /// Of them, left out since no record was free.
    pub missed: u64,
}

/// One capture.
#[derive(Debug)]
pub(super) struct Session {
    filter: Filter,
    snap_bytes: usize,
    queues: Box<[Queue]>,
}

/// The two threads of a lane give, the reader takes; records go round.
#[derive(Debug)]
struct Queue {
    free: (Give<Box<Record>>, Receiver<Box<Record>>),
    full: (Give<Box<Record>>, Receiver<Box<Record>>),
    /// By direction.
    wanted: [AtomicU64; 2],
    missed: [AtomicU64; 2],
}

impl Session {
    pub(super) fn new(lanes: usize, filter: Filter, snap_bytes: usize) -> Self {
        let snap_bytes = snap_bytes.clamp(1, SNAP_BYTES_MAX);
        Self {
            filter,
            snap_bytes,
            queues: (0..lanes).map(|_| Queue::new(snap_bytes)).collect(),
        }
    }

    pub(super) fn snap_bytes(&self) -> usize {
        self.snap_bytes
    }

    pub(super) fn offer<'p>(
        &self,
        lane: usize,
        seen: &Seen<'_>,
        first: &'p [u8],
        rest: impl Iterator<Item = &'p [u8]>,
    ) {
        if self.filter.wants(seen, seen.frame(first)) {
            self.queues[lane].put(seen, std::iter::once(first).chain(rest));
        }
    }

    /// Each queue is emptied once round: what lanes put in meanwhile may be the next round's.
    pub(super) fn drain(&self, mut each: impl FnMut(&Record)) {
        let taken = self.queues.iter().flat_map(|queue| {
            let waiting = queue.full.1.len();
            let records = queue.full.1.try_iter().take(waiting);
            records.map(move |record| (queue, record))
        });
        let mut taken: Vec<_> = taken.collect();
        taken.sort_by_key(|(_, record)| record.at);
        for (queue, record) in taken {
            each(&record);
            // There is a place for each: as many go round as it holds.
            let _ = queue.free.0.try_send(record);
        }
    }

    pub(super) fn count(&self, direction: Direction) -> Count {
        let index = direction as usize;
        let queues = self.queues.iter();
        queues.fold(Count::default(), |sum, queue| Count {
            wanted: sum.wanted + queue.wanted[index].load(Relaxed),
            missed: sum.missed + queue.missed[index].load(Relaxed),
        })
    }
}

impl Queue {
    fn new(snap_bytes: usize) -> Self {
        let records = (QUEUE_BYTES / snap_bytes).min(QUEUE_RECORDS_MAX);
        let queue = Self {
            free: bounded(records),
            full: bounded(records),
            wanted: Default::default(),
            missed: Default::default(),
        };
        for _ in 0..records {
            let record = Box::new(Record::with_capacity(snap_bytes));
            // It holds as many.
            let _ = queue.free.0.try_send(record);
        }
        queue
    }

    fn put<'p>(&self, seen: &Seen<'_>, parts: impl Iterator<Item = &'p [u8]>) {
        let index = seen.direction as usize;
        self.wanted[index].fetch_add(1, Relaxed);
        let Ok(mut record) = self.free.1.try_recv() else {
            self.missed[index].fetch_add(1, Relaxed);
            return;
        };
        record.fill(now(), seen, parts);
        // As many records go round as it holds.
        let _ = self.full.0.try_send(record);
    }
}

/// Since 1970; a clock before that is at fault, and zero as good as any.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

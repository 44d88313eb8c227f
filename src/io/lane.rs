//! The lane: one TAP queue, one underlay port, and the core between them.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Datagram, Fault, PacketBuffer, Tap, Transmit, Underlay};
use crate::counters::{Counters, Shard};
use crate::drop_reason::DropReason;
use crate::offload;
use crate::tables::{Destination, Peer, Tables};
use crate::vtep::{self, Deliver, Egress, Encap, Ingress, Received, Reply};
use crate::wire::vnet::{self, VnetHeader};
use crate::wire::{ethernet, ip};

/// Packets of one direction before the other has its turn, and before the snapshot is loaded anew: the time one direction can keep
/// the other waiting is that of 64 packets, about a tenth of a millisecond.
const BATCH: usize = 64;

/// How often in a row a descriptor may fail without giving a packet before the lane gives up rather than spin.
const PASSING_FAULTS_MAX: usize = 1024;

/// How often one datagram is offered to the underlay: twice, since the first try may report an earlier datagram's fate.
const SEND_TRIES: usize = 2;

/// Where a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing more to read: wait for an event.
    Drained,
    /// The batch was full: there may be more.
    More,
}

/// Why a lane ended. A packet never ends one.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The TAP was deleted, or reading it failed for good.
    #[error("the TAP is gone: {0}")]
    Tap(#[source] io::Error),
    /// The receiving socket failed for good.
    #[error("the underlay socket failed: {0}")]
    Underlay(#[source] io::Error),
    /// The thread could not wait for events.
    #[error("poll: {0}")]
    Poll(#[source] io::Error),
}

/// One TAP queue and one underlay port, joined by the core. Shares nothing it writes: counters are its own shard.
#[derive(Debug)]
pub struct Lane<T, U> {
    index: usize,
    tap: T,
    underlay: U,
    tables: Arc<ArcSwap<Tables>>,
    counters: Arc<Counters>,
    mtu_bytes: u32,
    buffer: PacketBuffer,
    overflowed: u32,
    passing_faults: usize,
}

impl<T: Tap, U: Underlay> Lane<T, U> {
    /// Lane `index` of those that `counters` has shards for. `mtu_bytes`: the TAP's, to tell super-frames from frames.
    pub fn new(
        index: usize,
        tap: T,
        underlay: U,
        tables: Arc<ArcSwap<Tables>>,
        counters: Arc<Counters>,
        mtu_bytes: u32,
    ) -> Self {
        Self {
            index,
            tap,
            underlay,
            tables,
            counters,
            mtu_bytes,
            buffer: PacketBuffer::default(),
            overflowed: 0,
            passing_faults: 0,
        }
    }

    /// The TAP queue.
    pub fn tap(&mut self) -> &mut T {
        &mut self.tap
    }

    /// The underlay port.
    pub fn underlay(&mut self) -> &mut U {
        &mut self.underlay
    }

    /// From the overlay to the underlay: up to a batch of 64 frames under one snapshot.
    ///
    /// # Errors
    /// The TAP is gone.
    pub fn egress_batch(&mut self) -> Result<Progress, LaneError> {
        let tables = self.tables.load_full();
        for _ in 0..BATCH {
            match self.tap.recv(self.buffer.packet_room()) {
                Ok(len) => {
                    self.passing_faults = 0;
                    self.buffer.set_packet_len(len);
                    self.egress_packet(&tables);
                }
                Err(error) => match self.judge_fault(Fault::of_tap_read(&error)) {
                    Fault::Empty => return Ok(Progress::Drained),
                    Fault::Passing => {}
                    Fault::Packet(reason) => self.shard().count_drop(reason),
                    Fault::Gone => return Err(LaneError::Tap(error)),
                },
            }
        }
        Ok(Progress::More)
    }

    /// From the underlay to the overlay: up to a batch of 64 datagrams under one snapshot.
    ///
    /// # Errors
    /// The socket or the TAP is gone.
    pub fn ingress_batch(&mut self) -> Result<Progress, LaneError> {
        let tables = self.tables.load_full();
        for _ in 0..BATCH {
            match self.underlay.recv(self.buffer.datagram_room()) {
                Ok(datagram) => {
                    self.passing_faults = 0;
                    self.buffer.set_datagram_len(datagram.len);
                    self.ingress_datagram(&tables, &datagram)?;
                }
                Err(error) => match self.judge_fault(Fault::of_receive(&error)) {
                    Fault::Empty => return Ok(Progress::Drained),
                    Fault::Passing => {}
                    Fault::Packet(reason) => self.shard().count_drop(reason),
                    Fault::Gone => return Err(LaneError::Underlay(error)),
                },
            }
        }
        Ok(Progress::More)
    }

    /// A fault that passes, or takes a packet, too often in a row is the device's.
    fn judge_fault(&mut self, fault: Fault) -> Fault {
        if matches!(fault, Fault::Passing | Fault::Packet(_)) {
            self.passing_faults += 1;
            if self.passing_faults > PASSING_FAULTS_MAX {
                return Fault::Gone;
            }
        }
        fault
    }

    fn egress_packet(&mut self, tables: &Tables) {
        let header = VnetHeader::parse(self.buffer.vnet_header());
        let finished = header
            .is_some_and(|header| offload::complete(self.buffer.frame_mut(), &header).is_ok());
        if !finished {
            return self.shard().count_drop(DropReason::BadVnetHeader);
        }
        match vtep::egress(tables, self.buffer.frame()) {
            Egress::Encap(encap) => self.encap(&encap),
            Egress::Reply(reply) => self.reply_to_host(&reply),
            Egress::Drop(reason) => self.shard().count_drop(reason),
        }
    }

    fn encap(&mut self, encap: &Encap<'_>) {
        if let Some(mac) = encap.destination_mac {
            ethernet::write_destination(self.buffer.frame_mut(), mac);
        }
        for destination in encap.destinations {
            self.send_copy(encap, destination);
        }
    }

    fn send_copy(&mut self, encap: &Encap<'_>, destination: &Destination) {
        let bytes = self.buffer.frame().len();
        let transmit = Transmit {
            destination: destination.underlay,
            flow_hash: encap.flow_hash,
            tos: encap.tos,
            payload: self.buffer.datagram(&encap.header(destination)),
        };
        let sent = send(&mut self.underlay, &transmit);
        for shard in self.shards(Some(&destination.peer)) {
            match sent {
                Ok(()) => shard.count_tx(bytes),
                Err(reason) => shard.count_drop(reason),
            }
        }
    }

    fn reply_to_host(&mut self, reply: &Reply) {
        self.buffer.set_frame(reply.frame());
        let packet = self.buffer.packet(&[0; vnet::HEADER_LEN]);
        match self.tap.send(packet) {
            Ok(()) => self.shard().count_reply(),
            Err(error) => self.shard().count_drop(write_drop(&error)),
        }
    }

    fn ingress_datagram(&mut self, tables: &Tables, datagram: &Datagram) -> Result<(), LaneError> {
        self.count_overflow(datagram.overflowed);
        let received = Received {
            source: datagram.source.ip().to_canonical(),
            tos: datagram.tos,
        };
        if datagram.truncated {
            let peer = tables.peers.lookup(received.source);
            self.count_drop(peer, DropReason::TruncatedDatagram);
            return Ok(());
        }
        let room = self.buffer.datagram_room();
        match vtep::ingress(tables, &room[..datagram.len], received) {
            Ingress::Deliver(deliver) => return self.deliver(&deliver),
            Ingress::Reply { reply, peer } => self.reply_to_peer(tables, &reply, peer),
            Ingress::Drop { reason, peer } => self.count_drop(peer, reason),
        }
        Ok(())
    }

    fn deliver(&mut self, deliver: &Deliver<'_>) -> Result<(), LaneError> {
        let frame = self.buffer.frame_mut();
        if let Some(ecn) = deliver.ecn {
            ip::write_ecn(frame, ecn);
        }
        let bytes = frame.len();
        let header = offload::vnet_header(frame, self.mtu_bytes);
        let sent = self.tap.send(self.buffer.packet(&header.emit()));
        for shard in self.shards(deliver.peer) {
            match &sent {
                Ok(()) => shard.count_rx(bytes),
                Err(error) => shard.count_drop(write_drop(error)),
            }
        }
        match sent {
            Err(error) if Fault::of_tap_write(&error) == Fault::Gone => Err(LaneError::Tap(error)),
            _ => Ok(()),
        }
    }

    /// An answer from the core takes the way of any frame of the host.
    fn reply_to_peer(&mut self, tables: &Tables, reply: &Reply, peer: Option<&Arc<Peer>>) {
        self.buffer.set_frame(reply.frame());
        match vtep::egress(tables, reply.frame()) {
            Egress::Encap(encap) => {
                self.shards(peer).for_each(Shard::count_reply);
                self.encap(&encap);
            }
            Egress::Reply(_) => self.count_drop(peer, DropReason::NoFdbEntry),
            Egress::Drop(reason) => self.count_drop(peer, reason),
        }
    }

    /// SO_RXQ_OVFL counts since the socket was made, and wraps.
    fn count_overflow(&mut self, overflowed: Option<u32>) {
        let Some(total) = overflowed else { return };
        let fresh = total.wrapping_sub(self.overflowed);
        if fresh > 0 {
            self.overflowed = total;
            self.shard()
                .count_drops(DropReason::ReceiveQueueFull, fresh.into());
        }
    }

    fn count_drop(&self, peer: Option<&Arc<Peer>>, reason: DropReason) {
        self.shards(peer).for_each(|shard| shard.count_drop(reason));
    }

    fn shard(&self) -> &Shard {
        self.counters.lane(self.index)
    }

    /// The device's shard, and the peer's if there is one.
    fn shards<'a>(&'a self, peer: Option<&'a Arc<Peer>>) -> impl Iterator<Item = &'a Shard> {
        let of_peer = peer.map(|peer| peer.counters.lane(self.index));
        std::iter::once(self.shard()).chain(of_peer)
    }
}

/// Offers one datagram, again where the first error was an earlier datagram's.
fn send(underlay: &mut impl Underlay, transmit: &Transmit<'_>) -> Result<(), DropReason> {
    for _ in 0..SEND_TRIES {
        match underlay
            .send(transmit)
            .map_err(|error| Fault::of_send(&error))
        {
            Ok(()) => return Ok(()),
            Err(Fault::Packet(reason)) => return Err(reason),
            Err(Fault::Passing | Fault::Empty) => {}
            Err(Fault::Gone) => break,
        }
    }
    Err(DropReason::UnderlaySendFailed)
}

/// Why a frame that the TAP did not take is lost; one written to a deleted TAP counts as to a downed one.
fn write_drop(error: &io::Error) -> DropReason {
    match Fault::of_tap_write(error) {
        Fault::Packet(reason) => reason,
        _ => DropReason::TapDown,
    }
}

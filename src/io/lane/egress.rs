//! From the overlay to the underlay: a frame of the TAP becomes a datagram, a super-frame a run of them.

use std::io::IoSlice;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;

use super::express::Offers;
use super::fragments::{Narrow, Whole};
use super::outbox::{Outbox, RUN_BYTES_MAX, RUN_MAX};
use super::sender::{Hop, Sender};
use super::{BATCH, LaneError, Patience, Progress, Scope};
use crate::drop_reason::DropReason;
use crate::io::arena::{Arena, Packet};
use crate::io::capture::Seen;
use crate::io::limiter::Limiter;
use crate::io::{Fault, Run, Tap, Underlay};
use crate::offload::{self, HEADER_LEN_MAX, Segmenter};
use crate::tables::Peer;
use crate::vtep::{self, Egress as Verdict, Encap, Reply, TooBig};
use crate::wire::ethernet::Frame;
use crate::wire::vnet::{self, GsoType, VnetHeader};
use crate::wire::{Mark, ethernet, icmp, mark_tag, vxlan};

/// Headers of one segment, the VXLAN header first.
pub(super) const SLOT_BYTES: usize = vxlan::HEADER_LEN + HEADER_LEN_MAX;

/// Room for the headers of a run's segments.
pub(super) type Slots = [[u8; SLOT_BYTES]; RUN_MAX];

/// What the direction keeps from batch to batch.
#[derive(Debug)]
pub(super) struct Egress {
    arena: Arena,
    slots: Box<Slots>,
    whole: Whole,
    patience: Patience,
    told: Told,
    offers: Offers,
}

/// How senders are told that their packets do not fit.
#[derive(Debug)]
struct Told {
    limiter: Limiter,
    message: Box<[u8; icmp::LEN_MAX]>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            arena: Arena::default(),
            slots: Box::new([[0; SLOT_BYTES]; RUN_MAX]),
            whole: Whole::default(),
            patience: Patience::default(),
            told: Told {
                limiter: Limiter::default(),
                message: Box::new([0; icmp::LEN_MAX]),
            },
            offers: Offers::default(),
        }
    }
}

impl Egress {
    /// Up to a batch of packets under one snapshot.
    pub(super) fn batch(
        &mut self,
        tap: &mut impl Tap,
        underlay: &mut impl Underlay,
        scope: &Scope<'_>,
    ) -> Result<Progress, LaneError> {
        let sender = Sender { underlay, scope };
        let mut batch = Batch {
            arena: &mut self.arena,
            slots: &mut self.slots,
            whole: &mut self.whole,
            told: &mut self.told,
            offers: &mut self.offers,
            outbox: Outbox::default(),
            sender,
        };
        let progress = batch.read(tap, &mut self.patience);
        batch.finish();
        let is_drained = matches!(progress, Ok(Progress::Drained | Progress::Idle));
        self.offers.settle(is_drained, scope.express.as_ref());
        progress
    }

    /// An answer from the core takes the way of any frame of the host.
    pub(super) fn reply_to_peer(
        &mut self,
        reply: &Reply,
        peer: Option<&Arc<Peer>>,
        underlay: &mut impl Underlay,
        scope: &Scope<'_>,
    ) {
        if self.send_to_peer(reply.frame(), peer, underlay, scope) {
            scope.shards(peer).for_each(|shard| shard.count_reply());
        }
    }

    /// Tells `listener`, the sender of `frame`, that policy refused it, if it may be told once more. Nobody hears of what does not get there.
    pub(super) fn reject(
        &mut self,
        frame: &[u8],
        (listener, now): (IpAddr, Instant),
        peer: Option<&Arc<Peer>>,
        underlay: &mut impl Underlay,
        scope: &Scope<'_>,
    ) {
        if !self.told.limiter.allows(listener, now) {
            return;
        }
        let mut room = [0; icmp::LEN_MAX];
        let refused = Frame::new_checked(frame);
        let message = refused.and_then(|frame| icmp::write_port_unreachable(frame, &mut room));
        if let Some(message) = message {
            self.told.limiter.count(listener, now);
            self.send_to_peer(message, peer, underlay, scope);
        }
    }

    /// Judges and sends a frame of our own; false if it goes nowhere.
    fn send_to_peer(
        &mut self,
        frame: &[u8],
        peer: Option<&Arc<Peer>>,
        underlay: &mut impl Underlay,
        scope: &Scope<'_>,
    ) -> bool {
        let drop = |reason| scope.drop_frame(peer, reason, frame);
        match vtep::egress(scope.tables, frame, Mark::NONE) {
            Verdict::Encap(encap) => {
                let mut batch = Batch {
                    arena: &mut self.arena,
                    slots: &mut self.slots,
                    whole: &mut self.whole,
                    told: &mut self.told,
                    offers: &mut self.offers,
                    outbox: Outbox::default(),
                    sender: Sender { underlay, scope },
                };
                let packet = batch.arena.put(frame);
                let packet = packet.expect("between batches the arena is empty");
                batch.encap(packet, &encap, &VnetHeader::default());
                batch.finish();
                return true;
            }
            Verdict::Reply(_) => drop(DropReason::NoFdbEntry),
            // No path is narrow enough for that.
            Verdict::TooBig(_) | Verdict::Fragment { .. } => drop(DropReason::PathMtu),
            Verdict::Drop(reason) => drop(reason),
        }
        false
    }
}

/// One batch on its way.
struct Batch<'a, 't, U> {
    arena: &'a mut Arena,
    slots: &'a mut Slots,
    whole: &'a mut Whole,
    told: &'a mut Told,
    offers: &'a mut Offers,
    outbox: Outbox<'t>,
    sender: Sender<'a, 't, U>,
}

impl<'t, U: Underlay> Batch<'_, 't, U> {
    fn read(&mut self, tap: &mut impl Tap, patience: &mut Patience) -> Result<Progress, LaneError> {
        for index in 0..BATCH {
            let Some(room) = self.arena.room() else {
                return Ok(Progress::More);
            };
            match tap.recv(room) {
                Ok(len) => {
                    patience.renew();
                    let packet = self.arena.take(len);
                    self.packet(packet, tap);
                }
                Err(error) => match patience.judge(Fault::of_tap_read(&error)) {
                    Fault::Empty => return Ok(Progress::empty_after(index)),
                    Fault::Gone => return Err(LaneError::Tap(error)),
                    Fault::Packet(reason) => self.sender.scope.shard().count_drop(reason),
                    Fault::Passing | Fault::Refused => {}
                },
            }
        }
        Ok(Progress::More)
    }

    fn finish(mut self) {
        self.outbox.flush(self.arena, &mut self.sender);
        self.arena.clear();
    }

    fn packet(&mut self, packet: Packet, tap: &mut impl Tap) {
        let scope = self.sender.scope;
        let header = VnetHeader::parse(self.arena.vnet_header(packet));
        let header = header.filter(|header| self.finish_checksum(packet, header));
        let Some(header) = header else {
            return self.drop(packet, None, DropReason::BadVnetHeader);
        };
        let mark = match self.take_mark(packet) {
            Ok(mark) => mark,
            Err(reason) => return self.drop(packet, None, reason),
        };
        let frame = self.arena.frame(packet);
        let verdict = if header.gso_type == GsoType::None {
            vtep::egress(scope.tables, frame, mark)
        } else {
            vtep::egress_super_frame(scope.tables, frame, mark, || segment_len(frame, &header))
        };
        if let Some(guarded) = &scope.guarded {
            guarded.note(frame, &verdict);
        }
        match verdict {
            Verdict::Encap(encap) => {
                scope.capture(frame, || Seen::sent(&encap));
                if let Some(express) = &scope.express {
                    let kind = (mark, header.gso_type);
                    self.offers.note(frame, kind, &encap, express);
                }
                self.encap(packet, &encap, &header);
            }
            Verdict::Reply(reply) => reply_to_host(&reply, frame, tap, scope),
            Verdict::Fragment { encap, mtu } => {
                scope.capture(frame, || Seen::sent(&encap));
                self.fragment(packet, &encap, mtu, &header);
            }
            Verdict::TooBig(too_big) => self.too_big(packet, &too_big, tap),
            Verdict::Drop(reason) => self.drop(packet, None, reason),
        }
    }

    /// Counts it as dropped.
    fn drop(&self, packet: Packet, peer: Option<&Arc<Peer>>, reason: DropReason) {
        let frame = self.arena.frame(packet);
        self.sender.scope.drop_frame(peer, reason, frame);
    }

    /// The packet's mark. If it came in place of the source MAC, that is put back, whatever becomes of the mark: a frame may have waited
    /// in the TAP since the programs were there.
    fn take_mark(&mut self, packet: Packet) -> Result<Mark, DropReason> {
        let scope = self.sender.scope;
        let frame = self.arena.frame_mut(packet);
        match mark_tag::take(frame, scope.tables.local.mac) {
            None => Ok(Mark::NONE),
            Some(Mark::NONE) => Err(DropReason::ForgedMark),
            Some(mark) => {
                let is_heard = scope.mark_tags.are_on();
                Ok(if is_heard { mark } else { Mark::NONE })
            }
        }
    }

    /// Sends it in fragments that fit; of a super-frame, each segment.
    fn fragment(&mut self, packet: Packet, encap: &Encap<'t>, mtu: u32, header: &VnetHeader) {
        if let Some(mac) = encap.destination_mac {
            ethernet::write_destination(self.arena.frame_mut(packet), mac);
        }
        let frame = self.arena.frame(packet);
        let segmenter = match header.gso_type {
            GsoType::None => None,
            GsoType::TcpV4 | GsoType::TcpV6 | GsoType::UdpL4 => match Segmenter::new(frame, header)
            {
                Ok(segmenter) => Some(segmenter),
                Err(_) => return self.drop(packet, None, DropReason::BadVnetHeader),
            },
        };
        for destination in encap.copies() {
            let hop = self.sender.hop(destination, encap);
            self.outbox.flush_beside(&hop, self.arena, &mut self.sender);
            let mut narrow = Narrow {
                hop,
                vxlan: encap.header(destination),
                mtu,
                slots: self.slots,
            };
            match &segmenter {
                Some(cut) => narrow.send_segments(frame, cut, self.whole, &mut self.sender),
                None => narrow.send_fragments(frame, &mut self.sender),
            }
        }
        if header.gso_type != GsoType::None {
            self.arena.give_back(packet);
        }
    }

    /// Counts it, and tells its sender if it may be told once more.
    fn too_big(&mut self, packet: Packet, too_big: &TooBig<'_>, tap: &mut impl Tap) {
        let frame = self.arena.frame(packet);
        self.drop(packet, Some(too_big.peer), too_big.reason(frame));
        let Some(listener) = too_big.listener(frame) else {
            return;
        };
        let now = Instant::now();
        if !self.told.limiter.allows(listener, now) {
            return;
        }
        if let Some(message) = too_big.message(frame, &mut self.told.message) {
            self.told.limiter.count(listener, now);
            let header = [0; vnet::HEADER_LEN];
            // What the TAP does not take is said again: the packet comes again.
            let _ = tap.send(&[IoSlice::new(&header), IoSlice::new(message)]);
        }
    }

    /// Finishes what the host left to a network card; segments of a super-frame get their checksums when they are cut.
    fn finish_checksum(&mut self, packet: Packet, header: &VnetHeader) -> bool {
        header.gso_type != GsoType::None
            || offload::complete(self.arena.frame_mut(packet), header).is_ok()
    }

    fn encap(&mut self, packet: Packet, encap: &Encap<'t>, header: &VnetHeader) {
        if let Some(mac) = encap.destination_mac {
            ethernet::write_destination(self.arena.frame_mut(packet), mac);
        }
        if header.gso_type == GsoType::None {
            self.encap_frame(packet, encap);
        } else {
            self.encap_super_frame(packet, encap, header);
            self.arena.give_back(packet);
        }
    }

    fn encap_frame(&mut self, packet: Packet, encap: &Encap<'t>) {
        if let [destination] = encap.destinations {
            let hop = self.sender.hop(destination, encap);
            let header = encap.header(destination);
            self.arena.set_vxlan_header(packet, &header);
            return self.outbox.push(packet, hop, self.arena, &mut self.sender);
        }
        self.outbox.flush(self.arena, &mut self.sender);
        let frame_len = self.arena.frame(packet).len();
        for destination in encap.copies() {
            if !encap.carries(destination, frame_len) {
                self.drop(packet, Some(&destination.peer), DropReason::PathMtu);
                continue;
            }
            let hop = self.sender.hop(destination, encap);
            let header = encap.header(destination);
            self.arena.set_vxlan_header(packet, &header);
            let slices = [IoSlice::new(self.arena.datagram(packet))];
            self.sender.send(Run::new(&slices, 1), &hop);
        }
    }

    fn encap_super_frame(&mut self, packet: Packet, encap: &Encap<'t>, header: &VnetHeader) {
        let Ok(segmenter) = Segmenter::new(self.arena.frame(packet), header) else {
            return self.drop(packet, None, DropReason::BadVnetHeader);
        };
        for destination in encap.copies() {
            if !encap.carries(destination, segmenter.segment_len()) {
                self.drop(packet, Some(&destination.peer), DropReason::PathMtu);
                continue;
            }
            let hop = self.sender.hop(destination, encap);
            self.outbox.flush_beside(&hop, self.arena, &mut self.sender);
            let cut = Cut {
                frame: self.arena.frame(packet),
                segmenter: &segmenter,
                vxlan: encap.header(destination),
            };
            for run in cut.runs() {
                cut.send(run, self.slots, &hop, &mut self.sender);
            }
        }
    }
}

/// Bytes of the largest segment; of what cannot be cut, which is dropped as that later on, nothing.
fn segment_len(frame: &[u8], header: &VnetHeader) -> usize {
    Segmenter::new(frame, header).map_or(0, |segmenter| segmenter.segment_len())
}

/// Answers `question`.
fn reply_to_host(reply: &Reply, question: &[u8], tap: &mut impl Tap, scope: &Scope<'_>) {
    let header = [0; vnet::HEADER_LEN];
    match tap.send(&[IoSlice::new(&header), IoSlice::new(reply.frame())]) {
        Ok(()) => {
            scope.shard().count_reply();
            scope.capture(question, Seen::answered);
        }
        Err(error) => scope.drop_frame(None, Fault::write_drop(&error), question),
    }
}

/// A super-frame to be cut under one VXLAN header. Payload stays where it is.
struct Cut<'a> {
    frame: &'a [u8],
    segmenter: &'a Segmenter<'a>,
    vxlan: [u8; vxlan::HEADER_LEN],
}

impl Cut<'_> {
    /// The segments of each send.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let datagram_len = vxlan::HEADER_LEN + self.segmenter.segment_len();
        let run_max = (RUN_BYTES_MAX / datagram_len).clamp(1, RUN_MAX);
        let segments = self.segmenter.segments();
        let starts = (0..segments).step_by(run_max);
        starts.map(move |start| start..segments.min(start + run_max))
    }

    fn send(
        &self,
        run: Range<usize>,
        slots: &mut Slots,
        hop: &Hop<'_>,
        sender: &mut Sender<'_, '_, impl Underlay>,
    ) {
        let mut slices: ArrayVec<IoSlice<'_>, { 2 * RUN_MAX }> = ArrayVec::new();
        for (index, slot) in run.zip(slots) {
            let (vxlan_room, headers) = slot.split_at_mut(vxlan::HEADER_LEN);
            vxlan_room.copy_from_slice(&self.vxlan);
            let payload = self.segmenter.emit(index, headers);
            let header_len = vxlan::HEADER_LEN + self.segmenter.header_len();
            slices.push(IoSlice::new(&slot[..header_len]));
            slices.push(IoSlice::new(&self.frame[payload]));
        }
        sender.send(Run::new(&slices, 2), hop);
    }
}

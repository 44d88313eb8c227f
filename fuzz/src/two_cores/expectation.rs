//! What must come of what a cell is given, one packet at a time, and whether it did.

use std::collections::BTreeMap;
use std::net::IpAddr;

use silk_vtep::DropReason;
use silk_vtep::counters::Totals;
use silk_vtep::io::SOURCE_PORTS;
use silk_vtep::io::memory::{MemoryCell, WireDatagram};
use silk_vtep::offload;
use silk_vtep::tables::MarkSource;
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};
use silk_vtep::wire::{Ecn, flow, icmp, ip};

use super::super::naive::{Incoming, Naive, Outgoing, path};
use super::super::offload::harness::{self, Flow};
use super::super::repair::{fold, sum};
use super::cell::MTU_BYTES;

/// First of the source ports of a port in memory.
const FIRST_SOURCE_PORT: u16 = 32768;
/// How a source MAC begins that is a mark.
const TAG: [u8; 2] = [3, 1];

/// What a cell's host does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    /// The lane was told that the TAP does.
    pub(super) takes_super_frames: bool,
    /// And it does not.
    pub(super) refuses: bool,
    /// Datagrams of one sender are joined.
    pub(super) joins: bool,
    /// Marks cross the TAP.
    pub(super) tags: bool,
}

/// What is to happen.
pub(super) struct Expectation<'a> {
    naive: &'a Naive,
    underlay: IpAddr,
    host: Host,
    sent: Vec<WireDatagram>,
    to_host: Vec<Vec<u8>>,
    /// Messages of packets that are too big; a bound says how many of them are sent.
    too_big: Vec<Vec<u8>>,
    totals: Totals,
}

impl<'a> Expectation<'a> {
    pub(super) fn new(naive: &'a Naive, underlay: IpAddr, host: Host) -> Self {
        Self {
            naive,
            underlay,
            host,
            sent: Vec::new(),
            to_host: Vec::new(),
            too_big: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// A packet of the TAP: virtio_net_hdr and frame.
    pub(super) fn host_sent(&mut self, packet: &[u8]) {
        let (header, frame) = packet.split_at(vnet::HEADER_LEN);
        let header = header.first_chunk().and_then(VnetHeader::parse);
        let Some(header) = header else {
            return self.drop(DropReason::BadVnetHeader);
        };
        let mut frame = frame.to_vec();
        if header.gso_type == GsoType::None && offload::complete(&mut frame, &header).is_err() {
            return self.drop(DropReason::BadVnetHeader);
        }
        let mark = match self.take_mark(&mut frame) {
            Ok(mark) => mark,
            Err(reason) => return self.drop(reason),
        };
        match self.naive.outgoing(&frame, mark) {
            Err(reason) => self.drop(reason),
            Ok(Outgoing::Reply(reply)) => {
                self.totals.replies += 1;
                self.to_host.push(reply);
            }
            Ok(outgoing) => self.encapsulate(&frame, &header, outgoing),
        }
    }

    /// A datagram of the underlay.
    pub(super) fn arrived(&mut self, datagram: &WireDatagram) {
        let source = datagram.source.ip().to_canonical();
        let verdict = self
            .naive
            .incoming(&datagram.payload, source, datagram.outer.tos);
        match verdict {
            Err(reason) => self.drop(reason),
            Ok(Incoming::Reply(reply)) => self.reply(&reply),
            Ok(Incoming::Deliver { mark, ecn }) => {
                self.deliver(&datagram.payload[8..], mark, ecn);
            }
        }
    }

    /// Whether the host may be told that a packet is too big.
    pub(super) fn may_tell(&self) -> bool {
        !self.too_big.is_empty()
    }

    /// Has `cell` do it, and checks that this happened and nothing else; returns what was sent. If the host may be told something, it is
    /// told something at the least if it `must_tell`.
    pub(super) fn check(
        mut self,
        cell: &mut MemoryCell,
        forward: fn(&mut MemoryCell),
        must_tell: bool,
    ) -> Vec<WireDatagram> {
        let before = cell.totals();
        forward(cell);
        assert_eq!(since(&before, &cell.totals()), self.totals);
        let sent: Vec<_> = std::iter::from_fn(|| cell.underlay().take_sent()).collect();
        assert_eq!(by_hop(&sent), by_hop(&self.sent));
        let packets = std::iter::from_fn(|| cell.tap().host_receives());
        let mut frames: Vec<_> = packets.flat_map(|packet| of_host(&packet)).collect();
        let may_tell = self.may_tell();
        let mut has_told = false;
        // In order, and none twice: there is one for each packet that was dropped.
        let mut too_big = std::mem::take(&mut self.too_big).into_iter();
        frames.retain(|frame| {
            let is_told = is_too_big(frame) && too_big.any(|one| one == *frame);
            has_told |= is_told;
            !is_told
        });
        assert!(has_told || !may_tell || !must_tell, "nobody was told");
        assert_eq!(by_flow(frames), by_flow(self.to_host));
        sent
    }

    fn drop(&mut self, reason: DropReason) {
        self.totals.drops[reason as usize] += 1;
    }

    fn encapsulate(&mut self, frame: &[u8], header: &VnetHeader, outgoing: Outgoing) {
        let Outgoing::Encap { mac, outer, copies } = outgoing else {
            return;
        };
        let original = frame;
        let hash = flow::hash(Frame::new_checked(frame).expect("else it had been dropped"));
        let mut frame = frame.to_vec();
        if let Some(mac) = mac {
            frame[..6].copy_from_slice(&mac.octets());
        }
        let frames = match header.gso_type {
            GsoType::None => Ok(vec![frame]),
            _ => harness::cut(&frame, header),
        };
        let Ok(frames) = frames else {
            return self.drop(DropReason::BadVnetHeader);
        };
        let port = FIRST_SOURCE_PORT + (hash as usize % SOURCE_PORTS) as u16;
        let largest = frames.iter().map(Vec::len).max().unwrap_or(0);
        let is_only = copies.len() == 1;
        for (destination, header) in copies {
            let frames = match self.naive.exceeded(&outer, &destination, largest) {
                None => frames.clone(),
                Some(limit) if is_only && path::may_be_fragmented(original) => {
                    self.fragmented(&frames, limit)
                }
                Some(limit) => {
                    let reason = path::reason(original, limit);
                    self.drop(if is_only { reason } else { DropReason::PathMtu });
                    if is_only {
                        self.too_big.extend(too_big(original, limit));
                    }
                    continue;
                }
            };
            for frame in &frames {
                self.totals.tx_packets += 1;
                self.totals.tx_bytes += frame.len() as u64;
                self.sent.push(WireDatagram {
                    source: (self.underlay, port).into(),
                    destination,
                    outer,
                    payload: [&header[..], frame].concat().into(),
                });
            }
        }
    }

    /// Those that do not fit in fragments.
    fn fragmented(&mut self, frames: &[Vec<u8>], limit: u32) -> Vec<Vec<u8>> {
        let mut fitting = Vec::new();
        for frame in frames {
            if frame.len() <= 14 + limit as usize {
                fitting.push(frame.clone());
                continue;
            }
            match path::fragments(frame, limit) {
                Some(fragments) => fitting.extend(fragments),
                None => self.drop(DropReason::PathMtu),
            }
        }
        fitting
    }

    /// An answer of ours goes out as if the host had sent it.
    fn reply(&mut self, reply: &[u8]) {
        match self.naive.outgoing(reply, 0) {
            Err(reason) => self.drop(reason),
            Ok(Outgoing::Reply(_)) => self.drop(DropReason::NoFdbEntry),
            Ok(Outgoing::Encap { outer, copies, .. })
                if copies.len() == 1
                    && (self.naive.exceeded(&outer, &copies[0].0, reply.len())).is_some() =>
            {
                self.drop(DropReason::PathMtu);
            }
            Ok(outgoing) => {
                self.totals.replies += 1;
                self.encapsulate(reply, &VnetHeader::default(), outgoing);
            }
        }
    }

    /// A mark that stands in place of the source MAC, which is put back.
    fn take_mark(&self, frame: &mut [u8]) -> Result<u32, DropReason> {
        if frame.len() < 14 || frame[6..8] != TAG {
            return Ok(0);
        }
        let mark = u32::from_be_bytes([frame[8], frame[9], frame[10], frame[11]]);
        if mark == 0 {
            return Err(DropReason::ForgedMark);
        }
        frame[6..12].copy_from_slice(&self.naive.local.mac.octets());
        Ok(if self.host.tags { mark } else { 0 })
    }

    fn put_mark(&self, frame: &mut [u8], mark: Option<u32>) {
        let written = self.host.tags && self.naive.local.marks == MarkSource::Packet;
        let mark = mark.filter(|mark| written && *mark != 0);
        if mark.is_some() || frame[6..8] == TAG {
            frame[6..8].copy_from_slice(&TAG);
            frame[8..12].copy_from_slice(&mark.unwrap_or(0).to_be_bytes());
        }
    }

    fn deliver(&mut self, inner: &[u8], mark: Option<u32>, ecn: Option<u8>) {
        let mut frame = inner.to_vec();
        if let Some(ecn) = ecn {
            ip::write_ecn(&mut frame, Ecn::from_tos(ecn));
        }
        self.put_mark(&mut frame, mark);
        let header = offload::vnet_header(&frame, MTU_BYTES);
        let whole = self.host.takes_super_frames && !self.host.refuses;
        let is_super_frame = header.gso_type != GsoType::None;
        if is_super_frame && !whole && harness::cut(&frame, &header).is_err() {
            return self.drop(DropReason::TapRefused);
        }
        self.totals.partial_checksums += u64::from(header.needs_csum);
        self.totals.rx_packets += 1;
        self.totals.rx_bytes += inner.len() as u64;
        self.to_host.extend(finished(&header, frame));
    }
}

/// What the sender of a frame is told; the target `icmp` holds the codec against etherparse.
fn too_big(frame: &[u8], limit: u32) -> Option<Vec<u8>> {
    let mut room = [0; icmp::LEN_MAX];
    let frame = Frame::new_checked(frame)?;
    icmp::write_too_big(frame, limit, &mut room).map(<[u8]>::to_vec)
}

/// Whether it may be such a message.
fn is_too_big(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame[23] == 1,
        [0x86, 0xdd] => frame[20] == 58 && frame.get(54) == Some(&2),
        _ => false,
    }
}

/// What the host makes of a packet it got.
fn of_host(packet: &[u8]) -> Vec<Vec<u8>> {
    let (header, frame) = packet.split_at(vnet::HEADER_LEN);
    let header = header.first_chunk().and_then(VnetHeader::parse);
    finished(&header.expect("we wrote it"), frame.to_vec())
}

/// The frame with its checksum complete, or the frames that a card would cut it into.
fn finished(header: &VnetHeader, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
    if header.gso_type == GsoType::None {
        offload::complete(&mut frame, header).expect("we wrote the header");
        return vec![frame];
    }
    // A kernel peer's super-frame that lies about its lengths is the host's to refuse.
    harness::cut(&frame, header).unwrap_or_else(|_| vec![frame])
}

fn since(before: &Totals, after: &Totals) -> Totals {
    Totals {
        tx_packets: after.tx_packets - before.tx_packets,
        tx_bytes: after.tx_bytes - before.tx_bytes,
        rx_packets: after.rx_packets - before.rx_packets,
        rx_bytes: after.rx_bytes - before.rx_bytes,
        replies: after.replies - before.replies,
        partial_checksums: after.partial_checksums - before.partial_checksums,
        drops: std::array::from_fn(|n| after.drops[n] - before.drops[n]),
    }
}

/// Destination, source port, VNI and inner destination: within these order is kept, between them it need not be.
type Hop = (std::net::SocketAddr, u16, [u8; 3], [u8; 6]);

fn by_hop(datagrams: &[WireDatagram]) -> BTreeMap<Hop, Vec<&WireDatagram>> {
    let mut hops: BTreeMap<Hop, Vec<&WireDatagram>> = BTreeMap::new();
    for datagram in datagrams {
        let bytes = &datagram.payload;
        let vni = [bytes[4], bytes[5], bytes[6]];
        let mac = std::array::from_fn(|index| bytes[8 + index]);
        let hop = (datagram.destination, datagram.source.port(), vni, mac);
        hops.entry(hop).or_default().push(datagram);
    }
    hops
}

/// In order within a flow; frames of none in an order of their own.
fn by_flow(frames: Vec<Vec<u8>>) -> BTreeMap<Option<Flow>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Option<Flow>, Vec<Vec<u8>>> = BTreeMap::new();
    for frame in frames {
        let flow = harness::flow(&frame);
        let frame = with_one_zero(without_id(frame));
        flows.entry(flow).or_default().push(frame);
    }
    if let Some(others) = flows.get_mut(&None) {
        others.sort_unstable();
    }
    flows
}

/// Where a TCP checksum is 0 in one's complement arithmetic, who finishes it may write either zero: the kernel writes 0xffff for a frame
/// (`skb_checksum_help`), and 0 for the segments it cuts. Plain headers only, as no others are joined.
fn with_one_zero(mut frame: Vec<u8>) -> Vec<u8> {
    let is_tcp = |at: usize| frame.get(at) == Some(&6);
    let field = match frame.get(12..15) {
        Some([0x08, 0x00, 0x45]) if is_tcp(23) => 50..52,
        Some([0x86, 0xdd, _]) if is_tcp(20) => 70..72,
        _ => return frame,
    };
    if let Some(field) = frame.get_mut(field)
        && *field == [0xff; 2]
    {
        field.fill(0);
    }
    frame
}

/// With DF an identification means nothing (RFC 6864 section 4.1), and a card counts it up; not where the header's checksum is wrong,
/// since such a frame is never cut.
fn without_id(mut frame: Vec<u8>) -> Vec<u8> {
    let is_v4 = frame.len() >= 34 && frame[12..14] == [0x08, 0x00];
    if is_v4 && frame[20] & 0x40 != 0 && fold(sum(&frame[14..34])) == 0xffff {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

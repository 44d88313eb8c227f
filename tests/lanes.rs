//! Lanes over the in-memory twins: two cells, several lanes each, and a wire that carries each datagram to whichever lane it likes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use silk_vtep::DropReason;
use silk_vtep::control::PeerSpec;
use silk_vtep::counters::Counters;
use silk_vtep::io::memory::{MemoryTap, MemoryUnderlay};
use silk_vtep::io::{Lane, LaneError, Progress, Tap};
use silk_vtep::tables::{CounterRegistry, Local, TableSpec, Tables};
use silk_vtep::wire::{MacAddr, vnet, vxlan};

const LANES: usize = 2;
const MTU: u32 = 1450;

/// A cell whose devices are in memory.
struct Cell {
    vtep: Ipv4Addr,
    underlay: IpAddr,
    tables: Arc<ArcSwap<Tables>>,
    counters: Arc<Counters>,
    lanes: Vec<Lane<MemoryTap, MemoryUnderlay>>,
}

impl Cell {
    fn new(number: u8, peers: &[u8]) -> Self {
        let vtep = vtep_address(number);
        let underlay = underlay_address(number);
        let tables = Arc::new(ArcSwap::from_pointee(compile(number, peers)));
        let counters = Arc::new(Counters::new(LANES));
        let lane = |index| {
            let (tables, counters) = (Arc::clone(&tables), Arc::clone(&counters));
            Lane::new(
                index,
                MemoryTap::default(),
                MemoryUnderlay::new(underlay),
                tables,
                counters,
                MTU,
            )
        };
        Self {
            vtep,
            underlay,
            lanes: (0..LANES).map(lane).collect(),
            tables,
            counters,
        }
    }

    /// The host sends a packet of this cell's container 2 to `to`'s container 2, through `lane`.
    fn send(&mut self, lane: usize, to: &Self, port: u16, payload: &[u8]) {
        let mac = MacAddr::overlay(self.vtep).octets();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(mac, mac)
            .ipv4(container(self.vtep), container(to.vtep), 64)
            .udp(port, port)
            .write(&mut frame, payload)
            .expect("a Vec takes all");
        self.lanes[lane].tap().host_sends(&frame);
        self.lanes[lane]
            .egress_batch()
            .expect("memory does not fail");
    }

    /// The payloads the host received, from all lanes.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let taps = self.lanes.iter_mut().map(Lane::tap);
        taps.flat_map(|tap| std::iter::from_fn(|| tap.host_receives()).collect::<Vec<_>>())
            .map(|packet| udp_payload(&packet[vnet::HEADER_LEN..]))
            .collect()
    }
}

fn vtep_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, number, 0)
}

fn underlay_address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn container(vtep: Ipv4Addr) -> [u8; 4] {
    let [a, b, c, _] = vtep.octets();
    [a, b, c, 2]
}

fn peer(number: u8) -> PeerSpec {
    PeerSpec {
        subnets: vec![
            format!("{}/24", vtep_address(number))
                .parse()
                .expect("a prefix"),
        ],
        underlay: underlay_address(number),
        mac: MacAddr::overlay(vtep_address(number)),
    }
}

fn compile(number: u8, peers: &[u8]) -> Tables {
    let vtep = vtep_address(number);
    let local = Local::silk(format!("{vtep}/24").parse().expect("a prefix"));
    let peers: Vec<_> = peers.iter().map(|&number| peer(number)).collect();
    let spec = TableSpec {
        routes: peers.iter().flat_map(PeerSpec::routes).collect(),
        neighbors: peers.iter().flat_map(PeerSpec::neighbors).collect(),
        fdb: peers.iter().map(PeerSpec::fdb_entry).collect(),
        groups: Vec::new(),
    };
    Tables::compile(Arc::new(local), &spec, &mut CounterRegistry::new(LANES))
}

fn udp_payload(frame: &[u8]) -> Vec<u8> {
    match SlicedPacket::from_ethernet(frame)
        .expect("a whole frame")
        .transport
    {
        Some(TransportSlice::Udp(udp)) => udp.payload().to_vec(),
        other => panic!("expected UDP, got {other:?}"),
    }
}

/// Carries everything `from` sent to lane `lane` of `to`; returns the source ports it saw.
fn carry(from: &mut Cell, to: &mut Cell, lane: usize) -> Vec<u16> {
    let mut ports = Vec::new();
    for sender in &mut from.lanes {
        while let Some(datagram) = sender.underlay().take_sent() {
            assert_eq!(datagram.destination, (to.underlay, vxlan::PORT).into());
            ports.push(datagram.source.port());
            to.lanes[lane].underlay().arrive(datagram);
        }
    }
    to.lanes[lane]
        .ingress_batch()
        .expect("memory does not fail");
    ports
}

#[test]
fn a_flows_two_directions_may_use_different_lanes() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    for (out, back) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
        a.send(out, &b, 53, b"question");
        carry(&mut a, &mut b, back);
        assert_eq!(b.received(), [b"question"]);
        b.send(out, &a, 53, b"answer");
        carry(&mut b, &mut a, back);
        assert_eq!(a.received(), [b"answer"]);
    }
}

#[test]
fn a_flow_keeps_its_source_port_on_every_lane_and_both_ways() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    let mut ports = Vec::new();
    for lane in [0, 1, 0] {
        a.send(lane, &b, 5000, b"x");
        ports.extend(carry(&mut a, &mut b, 0));
        b.send(lane, &a, 5000, b"y");
        ports.extend(carry(&mut b, &mut a, 0));
    }
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
}

#[test]
fn many_flows_use_many_source_ports() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    for port in 1000..1064 {
        a.send(0, &b, port, b"x");
    }
    let mut ports = carry(&mut a, &mut b, 0);
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() >= 20, "{ports:?}");
}

#[test]
fn a_swap_of_tables_is_seen_by_the_next_batch_and_keeps_nothing_back() {
    let (mut a, mut b) = (Cell::new(1, &[]), Cell::new(2, &[1]));
    a.send(0, &b, 53, b"too early");
    assert!(carry(&mut a, &mut b, 0).is_empty());
    a.tables.store(Arc::new(compile(1, &[2])));
    a.send(0, &b, 53, b"in time");
    carry(&mut a, &mut b, 0);
    assert_eq!(b.received(), [b"in time"]);
    let totals = a.counters.totals();
    assert_eq!(totals.tx_packets, 1);
    assert_eq!(
        totals.drops().collect::<Vec<_>>(),
        [(DropReason::NoRoute, 1)]
    );
}

#[test]
fn each_packet_is_counted_once_for_the_device_and_once_for_its_peer() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    a.send(1, &b, 53, b"question");
    carry(&mut a, &mut b, 0);
    let frame_bytes = 14 + 20 + 8 + 8;
    let peer_of_a = a
        .tables
        .load()
        .peers
        .lookup(b.underlay)
        .expect("a peer")
        .counters
        .totals();
    for totals in [peer_of_a, a.counters.lane(1).totals()] {
        assert_eq!((totals.tx_packets, totals.tx_bytes), (1, frame_bytes));
    }
    let totals = b.counters.totals();
    assert_eq!((totals.rx_packets, totals.rx_bytes), (1, frame_bytes));
}

#[test]
fn a_datagram_of_any_length_is_delivered_or_counted() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    a.send(0, &b, 53, b"question");
    let whole = a.lanes[0].underlay().take_sent().expect("sent");
    let sent = whole.payload.len();
    for len in 0..=sent {
        let mut part = whole.clone();
        part.payload.truncate(len);
        b.lanes[0].underlay().arrive(part);
        b.lanes[0].ingress_batch().expect("memory does not fail");
    }
    let totals = b.counters.totals();
    let dropped: u64 = totals.drops().map(|(_, n)| n).sum();
    assert_eq!(totals.rx_packets + dropped, sent as u64 + 1);
    assert_eq!(dropped, (vxlan::HEADER_LEN + 14 + 20) as u64);
}

/// A TAP whose reads fail with EINVAL so many times, and then have nothing.
struct BadFrames(usize);

impl Tap for BadFrames {
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let errno = match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                libc::EINVAL
            }
            None => libc::EAGAIN,
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until nothing is left; returns how that ended and what was counted.
fn drain(bad_frames: usize) -> (Result<Progress, LaneError>, Vec<(DropReason, u64)>) {
    let tables = Arc::new(ArcSwap::from_pointee(compile(1, &[2])));
    let counters = Arc::new(Counters::new(LANES));
    let underlay = MemoryUnderlay::new(underlay_address(1));
    let tap = BadFrames(bad_frames);
    let mut lane = Lane::new(0, tap, underlay, tables, Arc::clone(&counters), MTU);
    loop {
        match lane.egress_batch() {
            Ok(Progress::More) => {}
            end => return (end, counters.totals().drops().collect()),
        }
    }
}

#[test]
fn a_frame_the_tap_cannot_hand_over_is_a_counted_drop() {
    let (end, drops) = drain(3);
    assert_eq!(end.expect("the TAP is there"), Progress::Drained);
    assert_eq!(drops, [(DropReason::BadVnetHeader, 3)]);
}

#[test]
fn a_tap_that_hands_over_nothing_else_ends_the_lane() {
    let (end, _) = drain(usize::MAX);
    assert!(matches!(end, Err(LaneError::Tap(_))), "{end:?}");
}

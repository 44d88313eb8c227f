//! Policy on lanes: what a verdict is shared by, what is noted and looked up on other lanes, and floods.

use std::sync::Arc;
use std::time::Instant;

use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice, icmpv4};
use silk_vtep::DropReason;
use silk_vtep::io::flows::{FlowCounts, FlowLimits};
use silk_vtep::io::memory::WireDatagram;
use silk_vtep::io::{Guard, Progress};
use silk_vtep::tables::policy::{Action, Ports, Proto, Regime};
use silk_vtep::tables::{Changed, CounterRegistry, PolicyRule, PolicySpec, TableSpec};
use silk_vtep::vtep::Outer;
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};
use silk_vtep::wire::{GroupId, MacAddr, vxlan};

use crate::cell::{Cell, LANES, carry, container, options, underlay_address};

const SYN: u8 = 1;
const SYN_ACK: u8 = 2;
const ACK: u8 = 3;

/// The cell that enforces, with room for so many flows, and a peer.
fn cell(rules: &[PolicyRule], size: usize) -> (Cell, Cell, Arc<Guard>) {
    let limits = FlowLimits {
        size,
        ..FlowLimits::default()
    };
    let guard = Arc::new(Guard::new(limits));
    let options = silk_vtep::io::LaneOptions {
        guard: Arc::clone(&guard),
        ..options()
    };
    let cell = Cell::with_options(1, &[2], &options);
    enforce(&cell, Some(rules));
    (cell, Cell::new(2, &[1]), guard)
}

fn enforce(cell: &Cell, rules: Option<&[PolicyRule]>) {
    let spec = TableSpec {
        policy: rules.map(|rules| PolicySpec {
            regime: Regime::default(),
            rules: rules.to_vec(),
        }),
        ..TableSpec::default()
    };
    let changed = Changed {
        policy: true,
        ..Changed::default()
    };
    let mut registry = CounterRegistry::new(LANES);
    let next = cell.tables.load().update(&spec, changed, &mut registry);
    cell.tables.store(Arc::new(next));
}

fn accept(group: u16, proto: Proto, ports: &str) -> PolicyRule {
    PolicyRule {
        destination: "10.255.1.0/24".parse().expect("a prefix"),
        group: GroupId(group),
        proto,
        ports: match ports {
            "" => Ports::ALL,
            ports => ports.parse().expect("ports"),
        },
        action: Action::Accept,
    }
}

/// A TCP frame of the peer's container to ours.
fn tcp(from_port: u16, to_port: u16, kind: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(from_port, to_port, sequence, 1000);
    (header.syn, header.ack) = (kind != ACK, kind != SYN);
    frame_between(2, 1, header, payload)
}

fn frame_between(from: u8, to: u8, header: etherparse::TcpHeader, payload: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(crate::cell::vtep_address);
    let macs = match to.octets()[2] {
        1 => [MacAddr::overlay(from), MacAddr::overlay(to)],
        _ => [MacAddr::overlay(from); 2],
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs[0].octets(), macs[1].octets())
        .ipv4(container(from), container(to), 64)
        .tcp_header(header)
        .write(&mut frame, payload)
        .expect("a Vec takes all");
    frame
}

/// What our host sends to the peer's container.
fn host_sends(cell: &mut Cell, lane: usize, ports: (u16, u16), kind: u8) {
    let mut header = etherparse::TcpHeader::new(ports.0, ports.1, 1, 1000);
    (header.syn, header.ack) = (kind != ACK, kind != SYN);
    let frame = frame_between(1, 2, header, b"");
    cell.lanes[lane].tap().host_sends(&frame);
    cell.lanes[lane]
        .egress_batch()
        .expect("memory does not fail");
}

/// It arrives from the peer under this group.
fn arrive(cell: &mut Cell, lane: usize, group: u16, frame: &[u8]) {
    let [high, low] = group.to_be_bytes();
    let header: [u8; vxlan::HEADER_LEN] = [0x88, 0, high, low, 0, 0, 1, 0];
    cell.lanes[lane].underlay().arrive(WireDatagram {
        source: (underlay_address(2), 40_000).into(),
        destination: (underlay_address(1), vxlan::PORT).into(),
        outer: Outer {
            tos: 0,
            ttl: 64,
            df: false,
        },
        payload: [&header[..], frame].concat().into(),
    });
}

fn ingress(cell: &mut Cell, lane: usize) {
    let mut batch = || {
        cell.lanes[lane]
            .ingress_batch()
            .expect("memory does not fail")
    };
    while batch() == Progress::More {}
}

/// Packets that the host got, and their bytes of TCP payload, super-frames as one.
fn received(cell: &mut Cell) -> Vec<usize> {
    let taps = cell.lanes.iter_mut().map(|lane| lane.tap());
    taps.flat_map(|tap| std::iter::from_fn(|| tap.host_receives()).collect::<Vec<_>>())
        .map(|packet| packet.len() - vnet::HEADER_LEN - 14 - 20 - 20)
        .collect()
}

fn denied(cell: &Cell) -> u64 {
    cell.counters.totals().drops[DropReason::PolicyDenied as usize]
}

fn counts(guard: &Guard) -> FlowCounts {
    guard.flows.counts(guard.flows.moment(Instant::now()))
}

#[test]
fn a_run_shares_one_verdict_and_takes_no_other_group_in() {
    let (mut cell, _, _) = cell(&[accept(3, Proto::Tcp, "80")], 64);
    let segment = |n: u32, port| tcp(4000, port, ACK, 1 + n * 100, &[7; 100]);
    for n in 0..10 {
        arrive(&mut cell, 0, 3, &segment(n, 80));
        // The same bytes of a group that may not, and the same group at a port where it may not.
        arrive(&mut cell, 0, 4, &segment(n, 80));
        arrive(&mut cell, 0, 3, &segment(n, 81));
    }
    ingress(&mut cell, 0);
    assert_eq!(received(&mut cell).iter().sum::<usize>(), 1000);
    assert_eq!(denied(&cell), 20);
    // In a row they are one: as many as one read gives.
    for n in 10..18 {
        arrive(&mut cell, 0, 3, &segment(n, 80));
    }
    ingress(&mut cell, 0);
    assert_eq!(received(&mut cell), [800]);
}

#[test]
fn a_reply_is_let_in_on_another_lane() {
    let (mut cell, _, guard) = cell(&[], 64);
    let reply = tcp(80, 4000, SYN_ACK, 1, b"");
    arrive(&mut cell, 1, 3, &reply);
    ingress(&mut cell, 1);
    assert_eq!((received(&mut cell).len(), denied(&cell)), (0, 1));
    host_sends(&mut cell, 0, (4000, 80), SYN);
    arrive(&mut cell, 1, 3, &reply);
    ingress(&mut cell, 1);
    assert_eq!((received(&mut cell).len(), denied(&cell)), (1, 1));
    assert_eq!(counts(&guard).established, 1);
}

#[test]
fn a_super_frame_notes_its_flow_once() {
    let (mut cell, peer, guard) = cell(&[], 64);
    let packet = crate::runs::tcp_packet(&cell, &peer, 1, &[7; 10_000]);
    let header = packet.first_chunk().and_then(VnetHeader::parse);
    assert_eq!(header.map(|header| header.gso_type), Some(GsoType::TcpV4));
    cell.lanes[0].tap().host_sends_packet(packet);
    cell.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(counts(&guard).entries, 1);
    arrive(&mut cell, 1, 9, &tcp(5201, 40_000, ACK, 1, b"reply"));
    ingress(&mut cell, 1);
    assert_eq!(received(&mut cell), [5]);
}

#[test]
fn without_a_policy_nothing_is_noted_and_nothing_refused() {
    let (mut cell, _, guard) = cell(&[], 64);
    enforce(&cell, None);
    host_sends(&mut cell, 0, (4000, 80), SYN);
    arrive(&mut cell, 0, 3, &tcp(81, 4000, SYN, 1, b""));
    ingress(&mut cell, 0);
    assert_eq!((received(&mut cell).len(), denied(&cell)), (1, 0));
    assert_eq!(counts(&guard).entries, 0);
}

#[test]
fn what_does_not_go_out_is_not_noted() {
    let (mut cell, _, guard) = cell(&[], 64);
    // To nobody we know.
    let header = etherparse::TcpHeader::new(4000, 80, 1, 1000);
    let frame = frame_between(1, 9, header, b"");
    cell.lanes[0].tap().host_sends(&frame);
    cell.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(counts(&guard).entries, 0);
}

#[test]
fn a_sender_is_told_as_often_as_a_bound_allows() {
    let (mut cell, mut peer, guard) = cell(&[], 64);
    for n in 0..100 {
        arrive(&mut cell, 0, 3, &tcp(4000, 80, SYN, n, b""));
    }
    ingress(&mut cell, 0);
    assert_eq!((received(&mut cell).len(), denied(&cell)), (0, 100));
    // The peer takes them from us as from anybody.
    carry(&mut cell, &mut peer, 0);
    let told: Vec<_> = std::iter::from_fn(|| peer.lanes[0].tap().host_receives()).collect();
    assert!((1..=7).contains(&told.len()), "{}", told.len());
    for packet in told {
        let packet = SlicedPacket::from_ethernet(&packet[vnet::HEADER_LEN..]);
        let Some(TransportSlice::Icmpv4(icmp)) = packet.expect("a frame").transport else {
            panic!("no ICMP");
        };
        let port = icmpv4::DestUnreachableHeader::Port;
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(port));
    }
    // Nor do our own answers begin flows.
    assert_eq!(counts(&guard).entries, 0);
    let rows = guard.denied.rows();
    assert_eq!(
        (rows.len(), rows[0].packets, rows[0].group),
        (1, 100, GroupId(3))
    );
}

#[test]
fn nobody_is_told_of_a_connection_that_a_restart_made_unknown() {
    let (mut cell, mut peer, guard) = cell(&[], 64);
    for (seq, flags) in [(1, ACK), (2, SYN_ACK)] {
        arrive(&mut cell, 0, 3, &tcp(80, 4000, flags, seq, b"on"));
    }
    ingress(&mut cell, 0);
    carry(&mut cell, &mut peer, 0);
    assert_eq!((received(&mut cell).len(), denied(&cell)), (0, 2));
    assert!(peer.lanes[0].tap().host_receives().is_none());
    // Our side sends again what was not acknowledged, and the flow is known.
    host_sends(&mut cell, 0, (4000, 80), ACK);
    arrive(&mut cell, 1, 3, &tcp(80, 4000, ACK, 1, b"on"));
    ingress(&mut cell, 1);
    assert_eq!((received(&mut cell), denied(&cell)), (vec![2], 2));
    assert_eq!(counts(&guard).entries, 1);
    // Who begins one is told as ever.
    carry(&mut cell, &mut peer, 0);
    while peer.lanes[0].tap().host_receives().is_some() {}
    arrive(&mut cell, 0, 3, &tcp(80, 4001, SYN, 1, b""));
    ingress(&mut cell, 0);
    carry(&mut cell, &mut peer, 0);
    assert!(peer.lanes[0].tap().host_receives().is_some());
}

/// Sources are ports here: to the table it is all one.
#[test]
fn a_syn_flood_neither_fills_the_table_nor_stops_what_is_established() {
    let (mut cell, _, guard) = cell(&[accept(3, Proto::Tcp, "80")], 64);
    host_sends(&mut cell, 0, (4000, 80), SYN);
    arrive(&mut cell, 0, 3, &tcp(80, 4000, SYN_ACK, 1, b""));
    ingress(&mut cell, 0);
    assert_eq!(received(&mut cell).len(), 1);
    for source in 1..=20_000 {
        arrive(&mut cell, 0, 3, &tcp(source, 80, SYN, 1, b""));
        ingress(&mut cell, 0);
        // The container answers each.
        host_sends(&mut cell, 0, (80, source), SYN_ACK);
        cell.lanes[0].underlay().take_sent();
    }
    assert_eq!(received(&mut cell).len(), 20_000);
    assert_eq!((counts(&guard).entries, counts(&guard).evicted), (1, 0));
    // One of our own containers floods.
    for port in 1..=20_000 {
        host_sends(&mut cell, 0, (port, 443), SYN);
        cell.lanes[0].underlay().take_sent();
    }
    let counts = counts(&guard);
    assert_eq!((counts.entries, counts.evicted_established), (64, 0));
    arrive(&mut cell, 1, 3, &tcp(80, 4000, ACK, 2, b"still there"));
    ingress(&mut cell, 1);
    assert_eq!(received(&mut cell), [11]);
}

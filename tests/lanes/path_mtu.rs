//! Paths that carry less than the device's MTU promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use etherparse::{Icmpv4Type, SlicedPacket, TransportSlice, icmpv4};
use silk_vtep::DropReason;
use silk_vtep::io::Progress;
use silk_vtep::offload::{HEADER_LEN_MAX, Segmenter};
use silk_vtep::tables::{Df, Local, OuterRules};
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};

use crate::cell::{Cell, compile_with, underlay_address};
use crate::runs::{tcp_packet, udp_frame};

const LIMIT: u32 = 600;

/// Two cells. The first sends with DF, and its path to the second carries packets of `LIMIT` bytes.
fn cells() -> (Cell, Cell) {
    let (a, b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    let outer = OuterRules {
        df: Df::Set,
        ..OuterRules::default()
    };
    let tables = compile_with(1, &[2], Vec::new(), |local| Local { outer, ..local });
    let peer = tables.peers.lookup(underlay_address(2)).expect("a peer");
    peer.path_mtu.set_limit(Some(LIMIT));
    a.tables.store(Arc::new(tables));
    (a, b)
}

fn with_df(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0x40;
    frame
}

/// The MTUs that the host was told.
fn told(cell: &mut Cell) -> Vec<u16> {
    let packets = std::iter::from_fn(|| cell.lanes[0].tap().host_receives());
    packets
        .map(|packet| {
            let packet = SlicedPacket::from_ethernet(&packet[vnet::HEADER_LEN..]);
            let Some(TransportSlice::Icmpv4(icmp)) = packet.expect("a whole frame").transport
            else {
                panic!("no ICMP");
            };
            match icmp.icmp_type() {
                Icmpv4Type::DestinationUnreachable(
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
                ) => next_hop_mtu,
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

#[test]
fn who_sends_what_does_not_fit_is_told_and_it_is_counted() {
    let (mut a, b) = cells();
    let headers = 28;
    for payload in [LIMIT as usize - headers, LIMIT as usize - headers + 1] {
        let frame = with_df(udp_frame(&a, &b, 5000, 0, &vec![7; payload]));
        a.lanes[0].tap().host_sends(&frame);
    }
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(told(&mut a), [600]);
    let totals = a.counters.totals();
    assert_eq!(totals.tx_packets, 1);
    assert_eq!(
        totals.drops().collect::<Vec<_>>(),
        [(DropReason::PathMtu, 1)]
    );
    let tables = a.tables.load();
    let peer = tables.peers.lookup(b.underlay).expect("a peer");
    let of_peer = peer.counters.totals();
    assert_eq!(of_peer.drops[DropReason::PathMtu as usize], 1);
}

#[test]
fn of_a_super_frame_the_segments_count_and_its_sender_is_told_once() {
    let (mut a, b) = cells();
    let mut packet = tcp_packet(&a, &b, 1, &[7; 5000]).to_vec();
    packet[vnet::HEADER_LEN + 20] = 0x40;
    a.lanes[0].tap().host_sends_packet(packet.clone().into());
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(told(&mut a), [600]);
    assert_eq!(a.counters.totals().tx_packets, 0);
    // Segments of 500 bytes fit.
    packet[4..6].copy_from_slice(&500_u16.to_ne_bytes());
    a.lanes[0].tap().host_sends_packet(packet.into());
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert!(told(&mut a).is_empty());
    assert_eq!(a.counters.totals().tx_packets, 10);
}

#[test]
fn what_nobody_can_be_told_of_is_counted_as_that() {
    let (mut a, b) = cells();
    for mtu in [576, 575] {
        let tables = a.tables.load();
        let peer = tables.peers.lookup(b.underlay).expect("a peer");
        peer.path_mtu.set_limit(Some(mtu));
        let frame = with_df(udp_frame(&a, &b, 5000, 0, &[7; 1000]));
        a.lanes[0].tap().host_sends(&frame);
        a.lanes[0].egress_batch().expect("memory does not fail");
    }
    assert_eq!(told(&mut a), [576]);
    let totals = a.counters.totals();
    let expected = [(DropReason::PathMtu, 1), (DropReason::PathBelowMinimum, 1)];
    assert_eq!(totals.drops().collect::<Vec<_>>(), expected);
}

#[test]
fn what_its_sender_is_not_told_of_uses_up_nothing() {
    let (mut a, b) = cells();
    let error = {
        let mut frame = with_df(udp_frame(&a, &b, 5000, 0, &[3; 1000]));
        // ICMP: destination unreachable.
        (frame[23], frame[34]) = (1, 3);
        frame
    };
    for _ in 0..40 {
        a.lanes[0].tap().host_sends(&error);
    }
    let frame = with_df(udp_frame(&a, &b, 5000, 0, &[7; 1000]));
    a.lanes[0].tap().host_sends(&frame);
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(told(&mut a), [600]);
}

#[test]
fn one_sender_does_not_silence_the_others_whatever_flows_it_has() {
    let (mut a, b) = cells();
    let from = |container: u8, port: u16| {
        let mut frame = with_df(udp_frame(&a, &b, port, 0, &[7; 1000]));
        frame[29] = container;
        frame
    };
    let loud: Vec<_> = (0..64_u16).map(|n| from(2, 5000 + n)).collect();
    let others: Vec<_> = (10..26).map(|container| from(container, 5000)).collect();
    // Longer than any class has something left to be told.
    let loud: Vec<_> = loud.iter().cycle().take(64 * 8).collect();
    for frame in loud.into_iter().chain(&others) {
        a.lanes[0].tap().host_sends(frame);
    }
    while a.lanes[0].egress_batch().expect("memory does not fail") == Progress::More {}
    let mut quiet = 0;
    while let Some(packet) = a.lanes[0].tap().host_receives() {
        // To whom the message goes.
        quiet += usize::from(packet[vnet::HEADER_LEN + 33] != 2);
    }
    // Of 1024 classes, three of them share one with it once in a million.
    assert!(quiet >= 14, "{quiet} of 16 were told");
}

#[test]
fn one_flow_is_told_so_often_and_no_more() {
    let (mut a, b) = cells();
    let frame = with_df(udp_frame(&a, &b, 5000, 0, &[7; 1000]));
    let start = Instant::now();
    for _ in 0..60 {
        a.lanes[0].tap().host_sends(&frame);
    }
    a.lanes[0].egress_batch().expect("memory does not fail");
    let others = start.elapsed().as_millis() / 100;
    let told = told(&mut a).len();
    assert!((1..=6 + others as usize).contains(&told), "{told}");
    let drops = a.counters.totals().drops;
    assert_eq!(drops[DropReason::PathMtu as usize], 60);
}

#[test]
fn what_has_no_df_is_fragmented_before_it_is_encapsulated() {
    let (mut a, mut b) = cells();
    let payload: Vec<u8> = (0..1300).map(|n| n as u8).collect();
    let mut frame = udp_frame(&a, &b, 5000, 0, &payload);
    frame[20] = 0;
    a.lanes[0].tap().host_sends(&frame);
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert!(told(&mut a).is_empty());
    let mut arrived = Vec::new();
    while let Some(datagram) = a.lanes[0].underlay().take_sent() {
        assert!(datagram.outer.df && datagram.payload.len() <= 8 + 14 + LIMIT as usize);
        b.lanes[0].underlay().arrive(datagram);
    }
    b.lanes[0].ingress_batch().expect("memory does not fail");
    while let Some(packet) = b.lanes[0].tap().host_receives() {
        arrived.extend_from_slice(&packet[vnet::HEADER_LEN + 34..]);
    }
    assert_eq!(arrived, frame[34..], "put together");
    assert_eq!(a.counters.totals().tx_packets, 3);
}

/// A USO super-frame as the TAP gives it.
fn udp_packet(from: &Cell, to: &Cell, payload: &[u8]) -> Vec<u8> {
    let header = VnetHeader {
        gso_type: GsoType::UdpL4,
        gso_size: 1000,
        ..VnetHeader::default()
    };
    let frame = udp_frame(from, to, 5000, 0, payload);
    [&header.emit()[..], &frame].concat()
}

/// The frames that a card would make of a super-frame without DF.
fn segments(packet: &[u8]) -> Vec<Vec<u8>> {
    let (header, frame) = packet.split_at(vnet::HEADER_LEN);
    let header = VnetHeader::parse(header.try_into().expect("ten bytes")).expect("we wrote it");
    let segmenter = Segmenter::new(frame, &header).expect("an honest super-frame");
    let segment = |index| {
        let mut slot = [0; HEADER_LEN_MAX];
        let payload = segmenter.emit(index, &mut slot);
        [&slot[..segmenter.header_len()], &frame[payload]].concat()
    };
    (0..segmenter.segments()).map(segment).collect()
}

#[test]
fn a_super_frame_without_df_arrives_whole_in_fragments_of_its_segments() {
    let payload: Vec<u8> = (0..5300).map(|n| (n % 251) as u8).collect();
    for tcp in [true, false] {
        let (mut a, mut b) = cells();
        let mut packet = match tcp {
            true => tcp_packet(&a, &b, 1, &payload).to_vec(),
            false => udp_packet(&a, &b, &payload),
        };
        packet[vnet::HEADER_LEN + 20] = 0;
        a.lanes[0].tap().host_sends_packet(packet.clone().into());
        a.lanes[0].egress_batch().expect("memory does not fail");
        assert!(told(&mut a).is_empty());
        // Five segments in two fragments each, and one that fits as it is; a send for each segment.
        let totals = a.counters.totals();
        assert_eq!((totals.tx_packets, totals.drops().count()), (11, 0));
        assert_eq!(a.lanes[0].underlay().sends(), 6);
        while let Some(datagram) = a.lanes[0].underlay().take_sent() {
            assert!(datagram.outer.df && datagram.payload.len() <= 8 + 14 + LIMIT as usize);
            b.lanes[0].underlay().arrive(datagram);
        }
        b.lanes[0].ingress_batch().expect("memory does not fail");
        let mut arrived: BTreeMap<[u8; 2], Vec<u8>> = BTreeMap::new();
        while let Some(packet) = b.lanes[0].tap().host_receives() {
            let frame = &packet[vnet::HEADER_LEN..];
            let whole = arrived.entry([frame[18], frame[19]]).or_default();
            let offset = u16::from_be_bytes([frame[20] & 0x1f, frame[21]]) * 8;
            assert_eq!(whole.len(), usize::from(offset));
            whole.extend_from_slice(&frame[34..]);
        }
        let expected = segments(&packet).into_iter();
        let expected = expected.map(|segment| ([segment[18], segment[19]], segment[34..].to_vec()));
        assert_eq!(arrived, expected.collect(), "tcp: {tcp}");
    }
}

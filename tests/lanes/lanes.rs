//! Several lanes a cell: what they share and what they do not.

use std::sync::Arc;

use silk_vtep::DropReason;
use silk_vtep::wire::{vnet, vxlan};

use crate::cell::{Cell, carry, compile};

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

/// A peer whose kernel leaves checksums to a card sends the pseudo-header's sum alone.
#[test]
fn a_partial_checksum_is_counted_once_for_the_device_and_once_for_its_peer() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    a.send(0, &b, 53, b"complete");
    a.send(0, &b, 53, b"partial!");
    let complete = a.lanes[0].underlay().take_sent().expect("sent");
    let mut partial = a.lanes[0].underlay().take_sent().expect("sent");
    let mut payload = partial.payload.to_vec();
    let frame = &mut payload[vxlan::HEADER_LEN..];
    let words = frame[26..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = sum + 17 + 16;
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    frame[40..42].copy_from_slice(&folded.to_be_bytes());
    partial.payload = payload.into();
    for datagram in [complete, partial] {
        b.lanes[0].underlay().arrive(datagram);
        b.lanes[0].ingress_batch().expect("memory does not fail");
    }
    let tables = b.tables.load();
    let peer = tables.peers.lookup(a.underlay).expect("a peer");
    for totals in [b.counters.totals(), peer.counters.totals()] {
        assert_eq!((totals.rx_packets, totals.partial_checksums), (2, 1));
    }
    let packets = std::iter::from_fn(|| b.lanes[0].tap().host_receives());
    let unfinished: Vec<_> = packets.map(|packet| packet[0] & vnet::NEEDS_CSUM).collect();
    assert_eq!(unfinished, [0, 1]);
}

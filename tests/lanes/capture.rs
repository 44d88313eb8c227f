//! What a capture shows: each packet once with what became of it, and what the counters count.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use silk_vtep::DropReason;
use silk_vtep::counters::Counters;
use silk_vtep::io::capture::{Capture, Filter, SNAP_BYTES_MAX};
use silk_vtep::io::memory::{MemoryTap, MemoryUnderlay};
use silk_vtep::io::worker::Direction;
use silk_vtep::io::{Arrivals, Lane, Tap, Transmit, Underlay};
use silk_vtep::vtep::Fate;
use silk_vtep::wire::MacAddr;

use crate::cell::{Cell, LANES, carry, compile, options, underlay_address};
use crate::runs::{tcp_packet, udp_frame};

/// What was shown, and how often.
type Shown = BTreeMap<(&'static str, Option<DropReason>), u64>;

fn start(cell: &Cell, filter: Filter) -> Capture {
    let started = cell.captures.start(LANES, filter, SNAP_BYTES_MAX);
    started.expect("no other runs")
}

fn shown(capture: &mut Capture) -> Shown {
    let mut shown = Shown::new();
    capture.drain(|record| {
        assert_eq!(record.bytes.len(), record.len, "nothing is cut off");
        *shown
            .entry((record.fate.name(), record.reason))
            .or_default() += 1;
    });
    shown
}

fn arp_request(from: &Cell, target: [u8; 4]) -> Vec<u8> {
    let mac = MacAddr::overlay(from.vtep).octets();
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [
        &[0xff; 6][..],
        &mac,
        &head,
        &mac,
        &from.vtep.octets(),
        &[0; 6],
        &target,
    ]
    .concat()
}

#[test]
fn every_packet_is_shown_once_and_as_it_is_counted() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    b.lanes[0].underlay().join_runs();
    let mut of_a = start(&a, Filter::default());
    let mut of_b = start(&b, Filter::default());
    let elsewhere = Cell::new(9, &[]);
    let tap = a.lanes[0].tap();
    let (small, foreign) = {
        let a = &Cell::new(1, &[2]);
        (
            udp_frame(a, &b, 7, 0, b"payload"),
            udp_frame(a, &elsewhere, 7, 0, b"payload"),
        )
    };
    tap.host_sends(&small);
    tap.host_sends(&foreign);
    tap.host_sends(b"short");
    let (own, question) = (Cell::new(1, &[2]), [10, 255, 2, 0]);
    tap.host_sends(&arp_request(&own, question));
    tap.host_sends_packet(tcp_packet(&own, &b, 1, &[7; 5000]));
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(
        shown(&mut of_a),
        Shown::from([
            (("encap", None), 2),
            (("reply", None), 1),
            (("drop", Some(DropReason::NoRoute)), 1),
            (("drop", Some(DropReason::ShortFrame)), 1),
        ])
    );
    carry(&mut a, &mut b, 0);
    let totals = b.counters.totals();
    assert_eq!(totals.rx_packets, 6, "five segments, and one small packet");
    assert_eq!(shown(&mut of_b), Shown::from([(("deliver", None), 6)]));
    let count = of_b.count(Direction::Ingress);
    assert_eq!((count.wanted, count.missed), (6, 0));
    assert_eq!(of_b.count(Direction::Egress).wanted, 0);
}

#[test]
fn a_packet_is_shown_as_it_came() {
    let (mut a, mut b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    let mut of_a = start(&a, Filter::default());
    let mut of_b = start(&b, Filter::default());
    let frame = udp_frame(&a, &b, 7, 2, b"payload");
    a.lanes[1].tap().host_sends(&frame);
    a.lanes[1].egress_batch().expect("memory does not fail");
    let sent = a.lanes[1].underlay().take_sent().expect("it was sent");
    let mut congested = sent.clone();
    congested.outer.tos = 3;
    let underlay = b.lanes[0].underlay();
    underlay.arrive(congested.clone());
    b.lanes[0].ingress_batch().expect("memory does not fail");
    of_a.drain(|record| {
        assert_eq!(record.bytes, frame, "not as it is sent, routed");
        assert_eq!(record.peer, Some(b.underlay));
    });
    let mut seen = 0;
    of_b.drain(|record| {
        seen += 1;
        assert_eq!(record.bytes, congested.payload, "before ECN is written");
        let sender = record.sender.expect("from the underlay");
        assert_eq!((sender.source, sender.tos), (congested.source, 3));
    });
    assert_eq!(seen, 1);
}

#[test]
fn a_filter_leaves_out_what_it_does_not_want() {
    let (mut a, b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    let own = Cell::new(1, &[2]);
    let drops = Filter {
        drops: true,
        ..Filter::default()
    };
    let to_b = Filter {
        peer: Some(b.underlay),
        address: Some("10.255.2.0/24".parse().expect("a prefix")),
        ..Filter::default()
    };
    let (mut drops, mut to_b) = (start(&a, drops), start(&a, to_b));
    let tap = a.lanes[0].tap();
    tap.host_sends(&udp_frame(&own, &b, 7, 0, b"payload"));
    tap.host_sends(&udp_frame(&own, &Cell::new(9, &[]), 7, 0, b"payload"));
    a.lanes[0].egress_batch().expect("memory does not fail");
    let dropped = ("drop", Some(DropReason::NoRoute));
    assert_eq!(shown(&mut drops), Shown::from([(dropped, 1)]));
    assert_eq!(shown(&mut to_b), Shown::from([(("encap", None), 1)]));
}

/// Devices that give what they have and take nothing.
struct Full<T>(T);

impl Tap for Full<MemoryTap> {
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        self.0.recv(packet)
    }

    fn send(&mut self, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

impl Underlay for Full<MemoryUnderlay> {
    fn recv(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        self.0.recv(arrivals)
    }

    fn dropped(&mut self) -> Option<u32> {
        self.0.dropped()
    }

    fn source(&self, flow_hash: u32) -> usize {
        self.0.source(flow_hash)
    }

    fn send(&mut self, _: &Transmit<'_>) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOBUFS))
    }
}

/// They were on their way and are shown as that; what then became of them is shown too.
#[test]
fn what_a_device_does_not_take_is_shown_again_as_dropped() {
    let (mut a, b) = (Cell::new(1, &[2]), Cell::new(2, &[1]));
    let frame = udp_frame(&a, &b, 7, 0, b"payload");
    a.lanes[0].tap().host_sends(&frame);
    a.lanes[0].egress_batch().expect("memory does not fail");
    let sent = a.lanes[0].underlay().take_sent().expect("it was sent");

    let options = options();
    let tables = Arc::new(ArcSwap::from_pointee(compile(2, &[1])));
    let counters = Arc::new(Counters::new(LANES));
    let mut lane = Lane::new(
        0,
        Full(MemoryTap::default()),
        Full(MemoryUnderlay::new(underlay_address(2))),
        tables,
        Arc::clone(&counters),
        &options,
    );
    let mut capture = options
        .captures
        .start(LANES, Filter::default(), SNAP_BYTES_MAX)
        .expect("no other runs");
    lane.underlay().0.arrive(sent.clone());
    lane.ingress_batch().expect("the TAP is there, and down");
    lane.tap()
        .0
        .host_sends(&udp_frame(&b, &a, 7, 0, b"payload"));
    let own = Cell::new(2, &[1]);
    lane.tap()
        .0
        .host_sends_packet(tcp_packet(&own, &a, 1, &[7; 5000]));
    lane.egress_batch().expect("the TAP is there");
    let mut bytes = Vec::new();
    let mut shown = Shown::new();
    capture.drain(|record| {
        *shown
            .entry((record.fate.name(), record.reason))
            .or_default() += 1;
        if record.reason == Some(DropReason::TapDown) {
            assert_eq!(record.fate, Fate::Drop);
            bytes = record.bytes.clone();
        }
    });
    assert_eq!(
        shown,
        Shown::from([
            (("deliver", None), 1),
            (("drop", Some(DropReason::TapDown)), 1),
            (("encap", None), 2),
            (("drop", Some(DropReason::UnderlayBusy)), 6),
        ])
    );
    assert_eq!(bytes, sent.payload);
    let dropped: BTreeMap<_, _> = counters.totals().drops().collect();
    let counted = BTreeMap::from([(DropReason::UnderlayBusy, 6), (DropReason::TapDown, 1)]);
    assert_eq!(dropped, counted);
}

//! The packet path allocates nothing: a counting allocator watches the core, the offload functions and the lane at work.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use etherparse::PacketBuilder;
use silk_vtep::counters::Counters;
use silk_vtep::io::capture::Filter;
use silk_vtep::io::worker::Direction;
use silk_vtep::io::{
    Arrivals, Datagram, Lane, LaneOptions, MarkTags, OffloadState, Offloads, Tap, Transmit,
    Underlay,
};
use silk_vtep::offload::{
    CoalesceOptions, Coalescer, HEADER_LEN_MAX, MergeKey, Merged, RUNS_MAX, Segmenter, Slice,
};
use silk_vtep::tables::policy::{Action, Ports, Proto, Regime};
use silk_vtep::tables::{
    Changed, CounterRegistry, Df, FdbEntry, GroupEntry, Local, MarkSource, Neighbor, PolicyRule,
    PolicySpec, Route, TableSpec, Tables,
};
use silk_vtep::vtep::{self, Egress, Ingress, Received};
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};
use silk_vtep::wire::{GroupId, MacAddr, Mark, checksum, vxlan};

const PACKETS: usize = 256;
const OWN_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 0);
const OWN_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 184);
const PEER_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 0);
const PEER_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 6);
const PEER_UNDERLAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 16, 14));
const HEADER: [u8; vxlan::HEADER_LEN] = [0x88, 0, 0, 3, 0, 0, 1, 0];

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, counting what each thread asks of it: tests run side by side.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[allow(
    unsafe_code,
    reason = "there is no other way to watch an allocator, and this is no part of the library"
)]
// SAFETY: every call goes to `System` as it came, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System`, by `alloc` or `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the pointer came from `System`, and the caller keeps to the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How often `work` allocates on this thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_allocator_counts() {
    assert_eq!(
        allocations(|| drop(black_box(Vec::<u8>::with_capacity(64)))),
        1
    );
}

fn tables() -> Tables {
    tables_with(MarkSource::Table)
}

fn tables_with(marks: MarkSource) -> Tables {
    let silk = Local::silk("10.255.108.0/24".parse().expect("a prefix"));
    let local = Local { marks, ..silk };
    let (address, mac) = (PEER_VTEP.into(), MacAddr::overlay(PEER_VTEP));
    let fdb = |mac| FdbEntry {
        mac,
        underlay: PEER_UNDERLAY,
        port: None,
        vni: None,
    };
    let spec = TableSpec {
        routes: vec![Route {
            prefix: "10.255.43.0/24".parse().expect("a prefix"),
            via: Some(address),
        }],
        neighbors: vec![Neighbor { address, mac }],
        fdb: vec![fdb(mac), fdb(MacAddr::ZERO)],
        groups: vec![GroupEntry {
            address: OWN_CONTAINER.into(),
            id: GroupId(3),
        }],
        policy: None,
    };
    Tables::compile(Arc::new(local), &spec, &mut CounterRegistry::new(1))
}

fn udp(macs: [MacAddr; 2], source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs[0].octets(), macs[1].octets())
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(40_000, 53)
        .write(&mut frame, b"question")
        .expect("a Vec takes all");
    frame
}

fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mac = MacAddr::overlay(sender).octets();
    [
        &MacAddr::BROADCAST.octets()[..],
        &mac,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &mac,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat()
}

#[test]
fn encap_allocates_nothing_whatever_the_verdict() {
    let tables = tables();
    let [own, peer] = [OWN_VTEP, PEER_VTEP].map(MacAddr::overlay);
    let routed = udp([own, own], OWN_CONTAINER, PEER_CONTAINER);
    let bridged = udp([own, peer], OWN_CONTAINER, PEER_CONTAINER);
    let flooded = udp(
        [own, MacAddr::BROADCAST],
        OWN_CONTAINER,
        Ipv4Addr::BROADCAST,
    );
    let unroutable = udp([own, own], OWN_CONTAINER, Ipv4Addr::new(192, 0, 2, 1));
    let frames = [
        routed,
        bridged,
        flooded,
        unroutable,
        arp_request(OWN_VTEP, PEER_VTEP),
        vec![0; 5],
    ];
    let mut verdicts = [0; 3];
    let allocated = allocations(|| {
        for frame in frames.iter().cycle().take(PACKETS * frames.len()) {
            match vtep::egress(&tables, frame, Mark::NONE) {
                Egress::Encap(encap) => {
                    black_box(encap.header(&encap.destinations[0]));
                    verdicts[0] += 1;
                }
                Egress::Reply(_) => verdicts[1] += 1,
                other @ (Egress::TooBig(_) | Egress::Fragment { .. }) => {
                    panic!("no path is narrow: {other:?}")
                }
                Egress::Drop(_) => verdicts[2] += 1,
            }
        }
    });
    assert_eq!(verdicts, [3 * PACKETS, PACKETS, 2 * PACKETS]);
    assert_eq!(allocated, 0);
}

#[test]
fn decap_allocates_nothing_whatever_the_verdict() {
    let tables = tables();
    let [own, peer] = [OWN_VTEP, PEER_VTEP].map(MacAddr::overlay);
    let datagram = |frame: Vec<u8>| [&HEADER[..], &frame].concat();
    let delivered = datagram(udp([peer, own], PEER_CONTAINER, OWN_CONTAINER));
    let forged = datagram(udp([peer, own], OWN_CONTAINER, OWN_CONTAINER));
    let asked = datagram(arp_request(PEER_VTEP, OWN_VTEP));
    let datagrams = [delivered, forged, asked, vec![0; 5]];
    let received = Received {
        source: PEER_UNDERLAY,
        tos: 0,
    };
    let mut verdicts = [0; 3];
    let allocated = allocations(|| {
        for datagram in datagrams.iter().cycle().take(PACKETS * datagrams.len()) {
            match vtep::ingress(&tables, datagram, received) {
                Ingress::Deliver(_) => verdicts[0] += 1,
                Ingress::Unsolicited { .. } => panic!("there is no policy"),
                Ingress::Reply { .. } => verdicts[1] += 1,
                Ingress::Drop { .. } => verdicts[2] += 1,
            }
        }
    });
    assert_eq!(verdicts, [PACKETS, PACKETS, 2 * PACKETS]);
    assert_eq!(allocated, 0);
}

/// A super-frame of flow `n` and its header.
fn super_frame(tcp: bool, n: u16) -> (VnetHeader, Vec<u8>) {
    const SEGMENT_LEN: u16 = 500;
    let payload = [7; 20 * SEGMENT_LEN as usize];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 1, 1], 64);
    let mut frame = Vec::new();
    let port = 40_000 + n;
    let written = if tcp {
        let builder = builder.tcp(port, 80, 1, 1000).ack(7);
        builder.write(&mut frame, &payload)
    } else {
        builder.udp(port, 53).write(&mut frame, &payload)
    };
    written.expect("a Vec takes all");
    let header = VnetHeader {
        gso_type: if tcp { GsoType::TcpV4 } else { GsoType::UdpL4 },
        gso_size: SEGMENT_LEN,
        ..VnetHeader::default()
    };
    (header, frame)
}

#[test]
fn segment_allocates_nothing() {
    for tcp in [true, false] {
        let (header, frame) = super_frame(tcp, 0);
        let mut segments = 0;
        let allocated = allocations(|| {
            for _ in 0..PACKETS {
                let mut slot = [0; HEADER_LEN_MAX];
                let segmenter = Segmenter::new(&frame, &header).expect("an honest super-frame");
                for index in 0..segmenter.segments() {
                    black_box(segmenter.emit(index, &mut slot));
                    segments += 1;
                }
            }
        });
        assert_eq!((segments, allocated), (20 * PACKETS, 0), "tcp: {tcp}");
    }
}

/// The frames of a super-frame, behind each other.
fn cut(header: &VnetHeader, frame: &[u8], buffer: &mut Vec<u8>) -> Vec<Slice> {
    let segmenter = Segmenter::new(frame, header).expect("an honest super-frame");
    let append = |index| {
        let mut slot = [0; HEADER_LEN_MAX];
        let payload = segmenter.emit(index, &mut slot);
        let start = buffer.len();
        buffer.extend_from_slice(&slot[..segmenter.header_len()]);
        buffer.extend_from_slice(&frame[payload]);
        let end = buffer.len();
        Slice {
            buffer: 0,
            start,
            end,
        }
    };
    (0..segmenter.segments()).map(append).collect()
}

/// One flow more than there are runs, half a super-frame of each in turn: runs are begun, continued, driven out by others and flushed.
#[test]
fn coalesce_allocates_nothing() {
    let mut buffer = Vec::new();
    let flows: Vec<_> = (0..=RUNS_MAX as u16)
        .map(|n| {
            let (header, frame) = super_frame(n % 2 == 0, n);
            cut(&header, &frame, &mut buffer)
        })
        .collect();
    let options = CoalesceOptions {
        mtu_bytes: 1410,
        tcp: true,
        udp: true,
    };
    let key = MergeKey {
        source: PEER_UNDERLAY,
        tos: 0,
        header: HEADER,
    };
    let mut coalescer = Coalescer::new(options);
    let mut merged = 0;
    let mut out = |frame: &Merged<'_>| merged += usize::from(black_box(frame.frame_len()) > 0);
    let allocated = allocations(|| {
        for burst in [0..10, 10..20] {
            for at in flows.iter().flat_map(|flow| &flow[burst.clone()]) {
                coalescer.push(&key, *at, &buffer[at.range()], &mut out);
            }
        }
        coalescer.flush(&mut out);
    });
    assert_eq!((merged, allocated), (2 * flows.len(), 0));
}

/// A TAP that gives the same packets again and again, as many as are left, and forgets what it is given.
struct Tape {
    packets: Vec<Vec<u8>>,
    left: usize,
    written: usize,
}

impl Tap for Tape {
    fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(1).ok_or_else(would_block)?;
        let next = &self.packets[self.left % self.packets.len()];
        packet[..next.len()].copy_from_slice(next);
        Ok(next.len())
    }

    fn send(&mut self, _: &[IoSlice<'_>]) -> io::Result<()> {
        self.written += 1;
        Ok(())
    }
}

/// A wire that does the same. Runs are those of UDP_GRO.
struct Loop {
    messages: Vec<(Vec<u8>, Option<u16>)>,
    left: usize,
    sent: usize,
}

impl Underlay for Loop {
    fn recv(&mut self, arrivals: &mut Arrivals) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(would_block)?;
        let (bytes, _, messages) = arrivals.parts();
        let (next, segment_bytes) = &self.messages[self.left % self.messages.len()];
        bytes[..next.len()].copy_from_slice(next);
        messages.push(Datagram {
            len: next.len(),
            truncated: false,
            source: (PEER_UNDERLAY, 40_000).into(),
            tos: 0,
            segment_bytes: *segment_bytes,
        });
        Ok(())
    }

    fn dropped(&mut self) -> Option<u32> {
        Some(0)
    }

    fn source(&self, _: u32) -> usize {
        0
    }

    fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sent += transmit.run.count();
        Ok(())
    }
}

fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

/// A TCP super-frame of twenty segments: as the TAP gives it, and as UDP_GRO gives what a peer made of it.
fn tcp_stream() -> (Vec<u8>, (Vec<u8>, Option<u16>)) {
    let (mut header, frame) = super_frame(true, 0);
    header.needs_csum = true;
    (header.csum_start, header.csum_offset) = (34, 16);
    let route = |from: [u8; 4], to: [u8; 4], macs: [MacAddr; 2]| {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&macs[1].octets());
        frame[6..12].copy_from_slice(&macs[0].octets());
        frame[26..30].copy_from_slice(&from);
        frame[30..34].copy_from_slice(&to);
        // The pseudo-header's share, which the segmenter takes up: addresses, protocol, length.
        let tcp_len = frame.len() as u64 - 34;
        let sum = checksum::sum(6 + tcp_len, &frame[26..34]);
        frame[50..52].copy_from_slice(&checksum::fold(sum).to_be_bytes());
        frame
    };
    let [own, peer] = [OWN_VTEP, PEER_VTEP].map(MacAddr::overlay);
    let [here, there] = [OWN_CONTAINER, PEER_CONTAINER].map(|address| address.octets());
    let outgoing = [&header.emit()[..], &route(here, there, [own, own])].concat();
    let incoming = route(there, here, [peer, own]);
    let segmenter = Segmenter::new(&incoming, &header).expect("an honest super-frame");
    let mut joined = Vec::new();
    for index in 0..segmenter.segments() {
        let mut slot = [0; HEADER_LEN_MAX];
        let payload = segmenter.emit(index, &mut slot);
        joined.extend(HEADER);
        joined.extend(&slot[..segmenter.header_len()]);
        joined.extend(&incoming[payload]);
    }
    let datagram_len = (joined.len() / segmenter.segments()) as u16;
    (outgoing, (joined, Some(datagram_len)))
}

#[test]
fn the_lane_allocates_nothing_in_either_direction() {
    lane_allocates_nothing(MarkSource::Table, false, None);
}

#[test]
fn a_lane_whose_packets_are_captured_allocates_nothing() {
    lane_allocates_nothing(MarkSource::Table, true, None);
}

/// Twenty segments of 554 bytes to a peer whose path carries packets of 300: two fragments each.
#[test]
fn a_lane_that_fragments_allocates_nothing() {
    let (mut outgoing, _) = tcp_stream();
    outgoing[vnet::HEADER_LEN + 20] = 0;
    let tap = Tape {
        packets: vec![outgoing],
        left: 0,
        written: 0,
    };
    let underlay = Loop {
        messages: Vec::new(),
        left: 0,
        sent: 0,
    };
    let mut tables = tables();
    let mut local = (*tables.local).clone();
    local.outer.df = Df::Set;
    tables.local = Arc::new(local);
    let peer = tables.peers.lookup(PEER_UNDERLAY).expect("a peer");
    peer.path_mtu.set_limit(Some(300));
    let options = LaneOptions::with_all_offloads(1410);
    let tables = Arc::new(ArcSwap::from_pointee(tables));
    let counters = Arc::new(Counters::new(1));
    let mut lane = Lane::new(0, tap, underlay, tables, counters, &options);
    lane.egress_batch().expect("nothing fails");
    let allocated = allocations(|| {
        for _ in 0..PACKETS {
            lane.tap().left = 1;
            lane.egress_batch().expect("nothing fails");
        }
    });
    assert_eq!((lane.underlay().sent, allocated), (2 * 20 * PACKETS, 0));
}

#[test]
fn a_lane_that_carries_marks_allocates_nothing() {
    lane_allocates_nothing(MarkSource::Packet, false, None);
}

/// What is told to the log aside: that is bounded by time.
#[test]
fn a_lane_that_enforces_a_policy_allocates_nothing() {
    let policy = PolicySpec {
        regime: Regime {
            reject: false,
            log_per_second: 0,
            ..Regime::default()
        },
        rules: vec![PolicyRule {
            destination: "10.255.108.0/24".parse().expect("a prefix"),
            group: GroupId(3),
            proto: Proto::Tcp,
            ports: Ports::ALL,
            action: Action::Accept,
        }],
    };
    lane_allocates_nothing(MarkSource::Table, false, Some(policy));
}

/// With `captured` by a reader that is too slow: records run out, and packets are left out. With a policy, one that lets the peer's stream
/// in and not its small packet.
fn lane_allocates_nothing(marks: MarkSource, captured: bool, policy: Option<PolicySpec>) {
    let let_in = usize::from(policy.is_none());
    let [own, peer] = [OWN_VTEP, PEER_VTEP].map(MacAddr::overlay);
    let plain = |frame: Vec<u8>| [&VnetHeader::default().emit()[..], &frame].concat();
    let (outgoing, incoming) = tcp_stream();
    let small = udp([peer, own], PEER_CONTAINER, OWN_CONTAINER);
    let tap = Tape {
        packets: vec![
            outgoing,
            plain(udp([own, own], OWN_CONTAINER, PEER_CONTAINER)),
            plain(udp(
                [own, MacAddr::BROADCAST],
                OWN_CONTAINER,
                PEER_CONTAINER,
            )),
            plain(arp_request(OWN_VTEP, PEER_VTEP)),
            plain(vec![0; 5]),
        ],
        left: 0,
        written: 0,
    };
    let underlay = Loop {
        messages: vec![
            incoming,
            ([&HEADER[..], &small].concat(), None),
            (vec![0; 5], None),
        ],
        left: 0,
        sent: 0,
    };
    let counters = Arc::new(Counters::new(1));
    let options = LaneOptions {
        mtu_bytes: 1410,
        offloads: Arc::new(Offloads::from_fn(|_| OffloadState::On)),
        mark_tags: Arc::new(MarkTags::new(true)),
        captures: Arc::default(),
        express: None,
        guard: Arc::default(),
    };
    let filter = Filter {
        address: Some("10.255.0.0/16".parse().expect("a prefix")),
        ..Filter::default()
    };
    let capture = captured.then(|| options.captures.start(1, filter, 10_000));
    let spec = TableSpec {
        policy,
        ..TableSpec::default()
    };
    let changed = Changed {
        policy: true,
        ..Changed::default()
    };
    let tables = tables_with(marks).update(&spec, changed, &mut CounterRegistry::new(1));
    let tables = Arc::new(ArcSwap::from_pointee(tables));
    let mut lane = Lane::new(0, tap, underlay, tables, Arc::clone(&counters), &options);
    // The first look at a snapshot makes the thread known to `ArcSwap`, the first at the flows makes room for them.
    lane.egress_batch().expect("nothing fails");
    let flows = &options.guard.flows;
    assert_eq!(flows.counts(flows.moment(Instant::now())).entries, 0);
    let allocated = allocations(|| {
        for _ in 0..PACKETS {
            lane.tap().left = lane.tap().packets.len();
            lane.egress_batch().expect("nothing fails");
            lane.underlay().left = lane.underlay().messages.len();
            while lane.underlay().left > 0 {
                lane.ingress_batch().expect("nothing fails");
            }
        }
    });
    if let Some(capture) = capture {
        let capture = capture.expect("no other runs");
        let [out, into] = Direction::ALL.map(|direction| capture.count(direction));
        assert!(out.wanted >= 4 * PACKETS as u64 && into.wanted >= 21 * PACKETS as u64);
        assert!(into.missed > 0 && into.missed < into.wanted);
    }
    let totals = counters.totals();
    assert_eq!(lane.underlay().sent, (20 + 1 + 1) * PACKETS);
    assert_eq!(totals.rx_packets, ((20 + let_in) * PACKETS) as u64);
    // Of the peer's twenty segments one super-frame, one small packet, and the answer to the host's question.
    assert_eq!(lane.tap().written, (2 + let_in) * PACKETS);
    let dropped: u64 = totals.drops().map(|(_, count)| count).sum();
    let refused = ((3 - let_in) * PACKETS) as u64;
    assert_eq!((dropped, allocated), (refused, 0));
}

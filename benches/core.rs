//! The core alone, nanoseconds per packet: judging a frame of the host, writing its destination MAC and making its header (`encap`);
//! judging a peer's datagram (`decap`; with IPv6 inside, of one peer, `decap v6`). Inner frames of 64, 512 and 1,450 bytes, 1, 1,000 and 10,000 peers. No I/O, no allocation.
//!
//! Packets come in batches of 64 in buffers of their own, as a lane reads them. Addresses and ports are written into the batch before
//! its clock starts, so the packets are as warm as a read leaves them, while the tables are as cold as they are: every packet is for
//! another peer, all of them in turn in random order, from one of 250 containers that have a group each.
//!
//! ```text
//! cargo bench --bench core
//! ```

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use etherparse::PacketBuilder;
use silk_vtep::control::PeerSpec;
use silk_vtep::tables::{CounterRegistry, GroupEntry, Local, TableSpec, Tables};
use silk_vtep::vtep::{self, Egress, Ingress, Received};
use silk_vtep::wire::{GroupId, MacAddr, Mark, ethernet, vxlan};

const PEERS: [u32; 3] = [1, 1_000, 10_000];
const FRAME_LENS: [usize; 3] = [64, 512, 1_450];
/// Packets that a lane handles between two looks at the clock or the snapshot.
const BATCH: usize = 64;
const CONTAINERS: u8 = 250;

/// Our own cell's /24; peers have others in 10.128.0.0/9.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
const HEADER: [u8; vxlan::HEADER_LEN] = [0x88, 0, 0, 3, 0, 0, 1, 0];

const IP_SOURCE: Range<usize> = 26..30;
const IP_DESTINATION: Range<usize> = 30..34;
const PORT: Range<usize> = 34..36;

criterion_group!(benches, encap, decap, decap_v6);
criterion_main!(benches);

fn encap(c: &mut Criterion) {
    let mut group = c.benchmark_group("encap");
    each_case(&mut group, |tables, peers, frame_len| {
        let mac = MacAddr::overlay(OWN);
        let mut frames = vec![frame(mac, frame_len); BATCH];
        let prepare = |frame: &mut Vec<u8>, n: u32, peer: u32| {
            let addresses = (container(OWN, n), container(subnet(peer), n));
            address(frame, addresses, n as u16);
        };
        let peers = shuffled(peers);
        move |iters| {
            time(&mut frames, &peers, iters, prepare, |frame| {
                encap_one(&tables, frame)
            })
        }
    });
}

fn encap_one(tables: &Tables, frame: &mut [u8]) {
    let Egress::Encap(encap) = vtep::egress(tables, frame, Mark::NONE) else {
        panic!("every destination has a peer");
    };
    if let Some(mac) = encap.destination_mac {
        ethernet::write_destination(frame, mac);
    }
    black_box(encap.header(&encap.destinations[0]));
    black_box((encap.flow_hash, encap.outer));
}

fn decap(c: &mut Criterion) {
    let mut group = c.benchmark_group("decap");
    each_case(&mut group, |tables, peers, frame_len| {
        let inner = frame(MacAddr::overlay(OWN), frame_len);
        let datagram = [&HEADER[..], &inner].concat();
        let received = Received {
            source: OWN.into(),
            tos: 0,
        };
        let mut datagrams = vec![(datagram, received); BATCH];
        let prepare = |(datagram, received): &mut (Vec<u8>, Received), n: u32, peer: u32| {
            let inner = &mut datagram[vxlan::HEADER_LEN..];
            inner[ethernet::SOURCE].copy_from_slice(&MacAddr::overlay(subnet(peer)).octets());
            let addresses = (container(subnet(peer), n), container(OWN, n));
            address(inner, addresses, n as u16);
            received.source = underlay(peer).into();
        };
        let peers = shuffled(peers);
        move |iters| {
            time(
                &mut datagrams,
                &peers,
                iters,
                prepare,
                |(datagram, received)| {
                    decap_one(&tables, datagram, *received);
                },
            )
        }
    });
}

fn decap_v6(c: &mut Criterion) {
    let [ours, theirs] = ["fd00:1::", "fd00:2::"].map(|text| text.parse::<Ipv6Addr>());
    let (ours, theirs) = (ours.expect("an address"), theirs.expect("an address"));
    let mut local = Local::silk(format!("{OWN}/24").parse().expect("a prefix"));
    local
        .subnets
        .push(format!("{ours}/64").parse().expect("a prefix"));
    let peer = PeerSpec {
        subnets: vec![format!("{theirs}/64").parse().expect("a prefix")],
        underlay: underlay(0).into(),
        mac: MacAddr::overlay(subnet(0)),
    };
    let spec = TableSpec {
        routes: peer.routes().collect(),
        neighbors: peer.neighbors().collect(),
        fdb: vec![peer.fdb_entry()],
        ..TableSpec::default()
    };
    let tables = Tables::compile(Arc::new(local), &spec, &mut CounterRegistry::new(1));
    let mut datagram = HEADER.to_vec();
    PacketBuilder::ethernet2(
        MacAddr::overlay(subnet(0)).octets(),
        MacAddr::overlay(OWN).octets(),
    )
    .ipv6(theirs.octets(), ours.octets(), 64)
    .udp(1024, 53)
    .write(&mut datagram, &[0; 22])
    .expect("a Vec takes all");
    let received = Received {
        source: underlay(0).into(),
        tos: 0,
    };
    let mut datagrams = vec![datagram; BATCH];
    c.bench_function("decap v6", |b| {
        b.iter_custom(|iters| {
            let prepare = |datagram: &mut Vec<u8>, n: u32, _| datagram[45] = n as u8;
            time(&mut datagrams, &[0], iters, prepare, |datagram| {
                decap_one(&tables, datagram, received);
            })
        });
    });
}

fn decap_one(tables: &Tables, datagram: &[u8], received: Received) {
    let Ingress::Deliver(deliver) = vtep::ingress(tables, datagram, received) else {
        panic!("every sender is a peer");
    };
    black_box((deliver.mark, deliver.ecn, deliver.peer));
}

/// Measures what `case` returns for each number of peers and length: it runs so many packets and tells how long they took.
fn each_case<R: FnMut(u64) -> Duration>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    case: impl Fn(Arc<Tables>, u32, usize) -> R,
) {
    for peers in PEERS {
        let tables = Arc::new(tables(peers));
        for len in FRAME_LENS {
            let mut run = case(Arc::clone(&tables), peers, len);
            group.bench_function(format!("{len} B/{peers} peers"), |b| {
                b.iter_custom(&mut run)
            });
        }
    }
}

/// The time that `packets` packets take in `handle`, batch by batch.
fn time<P>(
    batch: &mut [P],
    peers: &[u32],
    packets: u64,
    prepare: impl Fn(&mut P, u32, u32),
    handle: impl Fn(&mut P),
) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut next = 0;
    for first in (0..packets).step_by(BATCH) {
        let batch = &mut batch[..BATCH.min((packets - first) as usize)];
        for packet in batch.iter_mut() {
            prepare(packet, next, peers[next as usize % peers.len()]);
            next = next.wrapping_add(1);
        }
        let start = Instant::now();
        batch.iter_mut().for_each(&handle);
        elapsed += start.elapsed();
    }
    elapsed
}

fn tables(peers: u32) -> Tables {
    let local = Local::silk(format!("{OWN}/24").parse().expect("a prefix"));
    let peers: Vec<_> = (0..peers)
        .map(|n| PeerSpec {
            subnets: vec![format!("{}/24", subnet(n)).parse().expect("a prefix")],
            underlay: underlay(n).into(),
            mac: MacAddr::overlay(subnet(n)),
        })
        .collect();
    let group = |n: u8| GroupEntry {
        address: container(OWN, n.into()).into(),
        id: GroupId(1 + u16::from(n)),
    };
    let spec = TableSpec {
        routes: peers.iter().flat_map(PeerSpec::routes).collect(),
        neighbors: peers.iter().flat_map(PeerSpec::neighbors).collect(),
        fdb: peers.iter().map(PeerSpec::fdb_entry).collect(),
        groups: (0..CONTAINERS).map(group).collect(),
        policy: None,
    };
    Tables::compile(Arc::new(local), &spec, &mut CounterRegistry::new(1))
}

/// Peer `n`'s /24, scattered over 10.128.0.0/9 as leases are. The multiplier is odd, so no two are the same.
fn subnet(n: u32) -> Ipv4Addr {
    let number = n.wrapping_mul(0x9e37_79b1) & 0x7fff;
    Ipv4Addr::from_bits(0x0a80_0000 | number << 8)
}

fn underlay(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xac10_0000 | n)
}

/// A container of the cell with `subnet`: another for another `n`, most of the time.
fn container(subnet: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.to_bits() + 2 + n % u32::from(CONTAINERS))
}

/// A UDP packet in a frame of `len` bytes to `mac`.
fn frame(mac: MacAddr, len: usize) -> Vec<u8> {
    const HEADERS_LEN: usize = 42;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([0xee; 6], mac.octets())
        .ipv4([0; 4], [0; 4], 64)
        .udp(0, 53)
        .write(&mut frame, &vec![0; len - HEADERS_LEN])
        .expect("a Vec takes all");
    frame
}

fn address(frame: &mut [u8], (source, destination): (Ipv4Addr, Ipv4Addr), port: u16) {
    frame[IP_SOURCE].copy_from_slice(&source.octets());
    frame[IP_DESTINATION].copy_from_slice(&destination.octets());
    frame[PORT].copy_from_slice(&port.to_be_bytes());
    // Encapsulation wrote the peer's; the host wrote ours.
    frame[ethernet::DESTINATION].copy_from_slice(&MacAddr::overlay(OWN).octets());
}

/// The numbers below `count` in an order without structure (Fisher and Yates, multiplicative hash).
fn shuffled(count: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut random = 1_u64;
    for last in (1..numbers.len()).rev() {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        numbers.swap(last, (random >> 33) as usize % (last + 1));
    }
    numbers
}

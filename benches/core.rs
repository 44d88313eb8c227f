//! The core alone, one packet at a time: judging a frame of the host and writing its header (`encap`), judging a peer's datagram
//! (`decap`), with 10, 1,000 and 100,000 peers, every packet of another flow to another peer. Packets per second; no I/O, no allocation.
//!
//! ```text
//! cargo bench --bench core
//! ```

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use silk_vtep::control::PeerSpec;
use silk_vtep::tables::{CounterRegistry, Local, TableSpec, Tables};
use silk_vtep::vtep::{self, Egress, Ingress, Received};
use silk_vtep::wire::{MacAddr, ethernet, vxlan};

const PEERS: [u32; 3] = [10, 1_000, 100_000];
/// Packets prepared, so that look-ups do not all hit one cache line.
const PACKETS: u32 = 1024;
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
const HEADER: [u8; vxlan::HEADER_LEN] = [0x88, 0, 0, 3, 0, 0, 1, 0];

/// Peer `n`'s subnet starts here: /28s, so that 100,000 fit in 10.0.0.0/8.
fn subnet(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(OWN) + (n + 1) * 16)
}

fn underlay(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + n)
}

fn tables(peers: u32) -> Tables {
    let local = Local::silk(format!("{OWN}/28").parse().expect("a prefix"));
    let peers: Vec<_> = (0..peers)
        .map(|n| PeerSpec {
            subnets: vec![format!("{}/28", subnet(n)).parse().expect("a prefix")],
            underlay: underlay(n).into(),
            mac: MacAddr::overlay(subnet(n)),
        })
        .collect();
    let spec = TableSpec {
        routes: peers.iter().flat_map(PeerSpec::routes).collect(),
        neighbors: peers.iter().flat_map(PeerSpec::neighbors).collect(),
        fdb: peers.iter().map(PeerSpec::fdb_entry).collect(),
        groups: Vec::new(),
    };
    Tables::compile(Arc::new(local), &spec, &mut CounterRegistry::new(1))
}

/// A peer spread over all of them, by a multiplicative hash of the packet's number.
fn peer_of(packet: u32, peers: u32) -> u32 {
    packet.wrapping_mul(2_654_435_761) % peers
}

fn frame(macs: (MacAddr, MacAddr), addresses: (Ipv4Addr, Ipv4Addr), port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets())
        .ipv4(addresses.0.octets(), addresses.1.octets(), 64)
        .udp(port, 53)
        .write(&mut frame, &[0; 22])
        .expect("a Vec takes all");
    frame
}

fn container(subnet: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet) + 2)
}

fn encap(c: &mut Criterion) {
    let mut group = c.benchmark_group("encap");
    group.throughput(Throughput::Elements(PACKETS.into()));
    for peers in PEERS {
        let tables = tables(peers);
        let mac = MacAddr::overlay(OWN);
        let frames: Vec<_> = (0..PACKETS)
            .map(|n| {
                frame(
                    (mac, mac),
                    (container(OWN), container(subnet(peer_of(n, peers)))),
                    n as u16,
                )
            })
            .collect();
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter_batched_ref(
                || frames.clone(),
                |frames| encap_all(&tables, frames),
                BatchSize::LargeInput,
            );
        });
    }
}

fn encap_all(tables: &Tables, frames: &mut [Vec<u8>]) {
    for frame in frames {
        let Egress::Encap(encap) = vtep::egress(tables, frame) else {
            panic!("every destination has a peer");
        };
        if let Some(mac) = encap.destination_mac {
            ethernet::write_destination(frame, mac);
        }
        black_box(encap.header(&encap.destinations[0]));
    }
}

fn decap(c: &mut Criterion) {
    let mut group = c.benchmark_group("decap");
    group.throughput(Throughput::Elements(PACKETS.into()));
    for peers in PEERS {
        let tables = tables(peers);
        let datagrams: Vec<_> = (0..PACKETS)
            .map(|n| {
                let peer = peer_of(n, peers);
                let macs = (MacAddr::overlay(subnet(peer)), MacAddr::overlay(OWN));
                let inner = frame(macs, (container(subnet(peer)), container(OWN)), n as u16);
                let source: IpAddr = underlay(peer).into();
                ([&HEADER[..], &inner].concat(), Received { source, tos: 0 })
            })
            .collect();
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter(|| decap_all(&tables, &datagrams));
        });
    }
}

fn decap_all(tables: &Tables, datagrams: &[(Vec<u8>, Received)]) {
    for (datagram, received) in datagrams {
        let Ingress::Deliver(deliver) = vtep::ingress(tables, datagram, *received) else {
            panic!("every sender is a peer");
        };
        black_box(deliver.mark);
    }
}

criterion_group!(benches, encap, decap);
criterion_main!(benches);

//! The program in a userspace machine, against the same function in Rust.

use std::collections::BTreeMap;

use etherparse::{IpFragOffset, Ipv4Header, Ipv6FragmentHeader, PacketBuilder, ip_number};
use proptest::prelude::*;

use super::*;
use crate::sys::bpf_machine;

/// The queue's number before the kernel takes it modulo the queues that are open.
fn steer(frame: &[u8]) -> u64 {
    bpf_machine::run(&program(), frame)
}

/// The same function, written down once more.
fn model(frame: &[u8]) -> u64 {
    let mut offset = 14;
    let mut head = [0; 16];
    head[..14].copy_from_slice(&bytes::<14>(frame, 0));
    for _ in 0..2 {
        if head[12..14] != [0x81, 0x00] && head[12..14] != [0x88, 0xa8] {
            break;
        }
        head[12..14].copy_from_slice(&bytes::<2>(frame, offset + 2));
        offset += 4;
    }
    let (words, protocol) = match head[12..14] {
        [0x08, 0x00] => {
            let header = bytes::<20>(frame, offset);
            offset += 4 * usize::from(header[0] & 0x0f);
            let fragment = header[6] & 0x3f != 0 || header[7] != 0;
            let transport = transport(frame, header[9], (!fragment).then_some(offset));
            (header[12..].to_vec(), Some(transport))
        }
        [0x86, 0xdd] => {
            let header = bytes::<40>(frame, offset);
            let transport = transport(frame, header[6], Some(offset + 40));
            (header[8..].to_vec(), Some(transport))
        }
        _ => (head.to_vec(), None),
    };
    let words = [words, protocol.map_or(vec![], |word| word.to_vec())].concat();
    let hash = words.chunks(8).fold(SEED, |hash, word| {
        let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        let product = (hash ^ word).wrapping_mul(KEY);
        product ^ product >> 32
    });
    hash.wrapping_mul(KEY) >> 48
}

fn transport(frame: &[u8], protocol: u8, ports_at: Option<usize>) -> [u8; 8] {
    let has_ports = [6, 17, 132].contains(&protocol);
    let ports = ports_at.filter(|_| has_ports);
    let [a, b, c, d] = ports.map_or([0; 4], |at| bytes(frame, at));
    [a, b, c, d, protocol, 0, 0, 0]
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    let there = frame.get(at..at + N);
    there.map_or([0; N], |bytes| bytes.try_into().expect("N bytes"))
}

/// What may differ between packets.
#[derive(Clone, Debug)]
struct Packet {
    macs: [[u8; 6]; 2],
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    v6: bool,
    tcp: bool,
    ttl: u8,
    payload: Vec<u8>,
    tags: usize,
}

const PACKET: Packet = Packet {
    macs: [[2; 6], [4; 6]],
    addresses: [[10; 16], [11; 16]],
    ports: [40_000, 80],
    v6: false,
    tcp: true,
    ttl: 64,
    payload: Vec::new(),
    tags: 0,
};

impl Packet {
    fn frame(&self) -> Vec<u8> {
        let [source, destination] = self.addresses;
        let v4 = |address: [u8; 16]| bytes::<4>(&address, 0);
        let builder = PacketBuilder::ethernet2(self.macs[0], self.macs[1]);
        let builder = if self.v6 {
            builder.ipv6(source, destination, self.ttl)
        } else {
            builder.ipv4(v4(source), v4(destination), self.ttl)
        };
        let mut frame = Vec::new();
        let [source, destination] = self.ports;
        let written = if self.tcp {
            let tcp = builder.tcp(source, destination, 1, 1);
            tcp.write(&mut frame, &self.payload)
        } else {
            let udp = builder.udp(source, destination);
            udp.write(&mut frame, &self.payload)
        };
        written.expect("a Vec takes all");
        for tag in [[0x81, 0, 0, 7], [0x88, 0xa8, 0, 8]].iter().take(self.tags) {
            frame.splice(12..12, *tag);
        }
        frame
    }
}

fn packet() -> impl Strategy<Value = Packet> {
    let fields = (
        any::<[[u8; 6]; 2]>(),
        any::<[[u8; 16]; 2]>(),
        any::<[u16; 2]>(),
        any::<(bool, bool, u8)>(),
        prop::collection::vec(any::<u8>(), 0..64),
        0..=2_usize,
    );
    fields.prop_map(
        |(macs, addresses, ports, (v6, tcp, ttl), payload, tags)| Packet {
            macs,
            addresses,
            ports,
            v6,
            tcp,
            ttl,
            payload,
            tags,
        },
    )
}

/// Flows on each of `queues`, as the kernel reduces the result.
fn spread(queues: u64, flows: impl IntoIterator<Item = Packet>) -> Vec<usize> {
    let mut counts = BTreeMap::from_iter((0..queues).map(|queue| (queue, 0)));
    for flow in flows {
        *counts.entry(steer(&flow.frame()) % queues).or_default() += 1;
    }
    counts.into_values().collect()
}

/// 1,000 flows on four queues: 250 each, and five standard deviations (13.7) to either side.
fn assert_even(counts: &[usize]) {
    let even = counts.iter().all(|count| (181..=319).contains(count));
    assert!(even, "{counts:?}");
}

#[test]
fn random_flows_spread_evenly() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let flows = (0..1000).map(|_| packet().new_tree(&mut runner).expect("no filter").current());
    assert_even(&spread(4, flows));
}

#[test]
fn flows_that_differ_in_one_field_spread_evenly() {
    for v6 in [false, true] {
        for end in [0, 1] {
            let flow = |n: u16| {
                let mut packet = Packet { v6, ..PACKET };
                packet.ports[end] = n;
                packet
            };
            assert_even(&spread(4, (30_000..31_000).map(flow)));
            let flow = |n: u16| {
                let mut packet = Packet { v6, ..PACKET };
                packet.addresses[end][2..4].copy_from_slice(&n.to_be_bytes());
                packet
            };
            assert_even(&spread(4, (0..1000).map(flow)));
        }
    }
}

#[test]
fn results_have_sixteen_bits() {
    let most = (0..1000)
        .map(|port| {
            steer(
                &Packet {
                    ports: [port, 80],
                    ..PACKET
                }
                .frame(),
            )
        })
        .max();
    assert!(
        most.is_some_and(|most| (0xf000..=0xffff).contains(&most)),
        "{most:?}"
    );
}

#[test]
fn protocols_are_steered_apart() {
    let udp = Packet {
        tcp: false,
        ..PACKET
    };
    assert_ne!(steer(&PACKET.frame()), steer(&udp.frame()));
}

#[test]
fn a_protocol_without_ports_goes_by_addresses() {
    let echo = |id, to| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], to, 64)
            .icmpv4_echo_request(id, 1)
            .write(&mut frame, b"payload")
            .expect("a Vec takes all");
        steer(&frame)
    };
    assert_eq!(echo(1, [10, 0, 0, 2]), echo(2, [10, 0, 0, 2]));
    assert_ne!(echo(1, [10, 0, 0, 2]), echo(1, [10, 0, 0, 3]));
}

#[test]
fn ipv4_options_do_not_count() {
    let mut frame = PACKET.frame();
    frame[14] = 0x46;
    frame.splice(34..34, [1, 1, 1, 0]);
    assert_eq!(steer(&frame), steer(&PACKET.frame()));
}

#[test]
fn all_fragments_of_a_datagram_go_together() {
    let fragment = |offset, more_fragments, payload: &[u8]| {
        let mut header =
            Ipv4Header::new(payload.len() as u16, 64, ip_number::UDP, [10; 4], [11; 4])
                .expect("short enough");
        header.fragment_offset = IpFragOffset::try_new(offset).expect("small enough");
        header.more_fragments = more_fragments;
        steer(&[&[2; 12][..], &[0x08, 0x00], &header.to_bytes(), payload].concat())
    };
    let first = fragment(0, true, &[1, 2, 3, 4, 0, 40, 0, 0]);
    assert_eq!(first, fragment(1, true, &[9; 8]));
    assert_eq!(first, fragment(0x100, true, &[8; 8]));
    assert_eq!(first, fragment(2, false, &[7; 16]));
}

#[test]
fn all_ipv6_fragments_of_a_datagram_go_together() {
    let fragment = |offset, more, payload: [u8; 8]| {
        let mut frame = Packet { v6: true, ..PACKET }.frame();
        frame.truncate(54);
        frame[20] = 44;
        let offset = IpFragOffset::try_new(offset).expect("small enough");
        let header = Ipv6FragmentHeader::new(ip_number::UDP, offset, more, 5);
        steer(&[&frame[..], &header.to_bytes(), &payload].concat())
    };
    assert_eq!(fragment(0, true, [1; 8]), fragment(1, false, [9; 8]));
}

#[test]
fn what_is_not_ip_goes_by_macs_and_type() {
    let arp = |source: u8, body: u8| {
        let mut frame = vec![0xff; 6];
        frame.extend([source; 6]);
        frame.extend([0x08, 0x06]);
        frame.extend([body; 28]);
        steer(&frame)
    };
    assert_eq!(arp(2, 1), arp(2, 9));
    assert_ne!(arp(2, 1), arp(3, 1));
}

proptest! {
    #[test]
    fn does_what_the_model_does(packet in packet()) {
        let frame = packet.frame();
        prop_assert_eq!(steer(&frame), model(&frame));
    }

    #[test]
    fn does_what_the_model_does_with_fragments_options_and_cut_frames(
        packet in packet(), first_bytes: u64, protocol in prop::sample::select(vec![6_u8, 17, 132, 44, 1]), cut in 0..100_usize,
    ) {
        let mut frame = packet.frame();
        let ip = 14 + 4 * packet.tags;
        frame[ip..ip + 8].copy_from_slice(&first_bytes.to_ne_bytes());
        frame[ip + if packet.v6 { 6 } else { 9 }] = protocol;
        prop_assert_eq!(steer(&frame), model(&frame));
        frame.truncate(cut);
        prop_assert_eq!(steer(&frame), model(&frame));
    }

    #[test]
    fn does_what_the_model_does_with_any_bytes(frame in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(steer(&frame), model(&frame));
    }

    #[test]
    fn is_a_function_of_the_flow_alone(there in packet(), other in packet()) {
        let same_flow = Packet {
            addresses: there.addresses,
            ports: there.ports,
            v6: there.v6,
            tcp: there.tcp,
            ..other
        };
        prop_assert_eq!(steer(&there.frame()), steer(&same_flow.frame()));
    }
}

//! The program in a userspace machine, with another library's headers as the judge.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use etherparse::{
    IpNumber, Ipv4Header, NetHeaders, PacketHeaders, TcpHeader, TcpOptionElement, TransportHeader,
    UdpHeader,
};
use proptest::prelude::*;

use super::*;
use crate::bpf::{Program, marks};
use crate::sys::bpf::{self, ProgramType};
use crate::sys::bpf_machine::{self, Host, Skb};
use crate::sys::bpf_map::{Map, MapKind};
use crate::wire::{ethernet, mark_tag};

const MAPS: Maps = Maps {
    flows: 3,
    generation: 4,
    counts: 5,
};
const OWN: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 108, 0]);
const PEER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
const FLOW: FlowKey = FlowKey {
    source: Ipv4Addr::new(10, 255, 108, 184),
    destination: Ipv4Addr::new(10, 255, 43, 6),
    source_port: 40_000,
    destination_port: 8080,
    mark: 0x48_0003,
    tos: 0xb9,
    ttl: 63,
    dont_fragment: true,
};
const DECISION: Decision = Decision {
    generation: 7,
    interface: 11,
    slot: 2,
    frame_len_max: 1424,
    udp_checksum: true,
    frame_destination: OWN,
    frame_source: OWN,
    inner_destination: PEER,
    source: Ipv4Addr::new(10, 0, 32, 12),
    destination: Ipv4Addr::new(10, 0, 16, 14),
    source_port: 51_515,
    destination_port: 4789,
    vxlan: [0x88, 0, 0, 3, 0, 0, 1, 0],
    tos: 0x01,
    ttl: 64,
    dont_fragment: true,
};
const ID: u16 = 0xbeef;
/// TC_ACT_REDIRECT.
const REDIRECT: u32 = 7;
/// TC_ACT_UNSPEC.
const NEXT: u32 = u32::MAX;

fn program() -> Program {
    marks::egress(OWN, Some(MAPS))
}

/// A value as the machine holds it.
fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "values are whole words");
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

/// A host on which `decision` was made for `flow` and is in force.
fn host(flow: &FlowKey, decision: &Decision) -> Host {
    let map = |key: &[u8], value: &[u8]| bpf_machine::Map {
        key_len: key.len(),
        entries: HashMap::from([(key.to_vec(), words(value))]),
    };
    let index = |index: u32| index.to_ne_bytes();
    let generation = decision.generation.to_ne_bytes();
    Host {
        maps: HashMap::from([
            (MAPS.flows, map(&flow.to_bytes(), &decision.to_bytes(flow))),
            (MAPS.generation, map(&index(0), &generation)),
            (MAPS.counts, map(&index(decision.slot), &[0; COUNT_LEN])),
        ]),
        // The upper half is none of the header's.
        random: 0xdead_0000 | u32::from(u16::from_ne_bytes(ID.to_be_bytes())),
        ..Host::default()
    }
}

/// A packet of `flow` as the host sends it to the TAP, its checksums right.
fn skb(flow: &FlowKey, payload: &[u8]) -> Skb {
    Skb {
        mark: flow.mark,
        packet: frame(flow, OWN, 0, payload),
        ..Skb::default()
    }
}

fn frame(flow: &FlowKey, destination: MacAddr, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(flow.source_port, flow.destination_port, sequence, 512);
    tcp.ack = true;
    tcp.set_options(&[TcpOptionElement::Timestamp(1, 2)])
        .expect("short");
    frame_of(flow, destination, tcp, payload)
}

fn frame_of(flow: &FlowKey, destination: MacAddr, tcp: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut ip = ip_header(
        tcp.header_len() + payload.len(),
        flow.ttl,
        IpNumber::TCP,
        [flow.source, flow.destination],
    );
    set_tos(&mut ip, flow.tos);
    ip.dont_fragment = flow.dont_fragment;
    ip.header_checksum = ip.calc_header_checksum();
    let mut tcp = tcp;
    tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).expect("short");
    let mut frame = [destination.octets(), OWN.octets()].concat();
    frame.extend([0x08, 0x00]);
    ip.write_raw(&mut frame).unwrap();
    tcp.write(&mut frame).unwrap();
    frame.extend(payload);
    frame
}

fn ip_header(
    payload_len: usize,
    ttl: u8,
    protocol: IpNumber,
    [source, destination]: [Ipv4Addr; 2],
) -> Ipv4Header {
    let len = u16::try_from(payload_len).expect("a packet's");
    Ipv4Header::new(len, ttl, protocol, source.octets(), destination.octets()).expect("short")
}

fn set_tos(ip: &mut Ipv4Header, tos: u8) {
    ip.dscp = (tos >> 2).try_into().expect("six bits");
    ip.ecn = (tos & 3).try_into().expect("two bits");
}

/// What `decision` makes of an inner frame, its Ethernet header left out; `udp_checksum` as computed if None.
fn datagram(decision: &Decision, inner: &[u8], udp_checksum: Option<u16>) -> Vec<u8> {
    let payload = [&decision.vxlan, inner].concat();
    let addresses = [decision.source, decision.destination];
    let mut ip = ip_header(8 + payload.len(), decision.ttl, IpNumber::UDP, addresses);
    set_tos(&mut ip, decision.tos);
    ip.identification = ID;
    ip.dont_fragment = decision.dont_fragment;
    ip.header_checksum = ip.calc_header_checksum();
    let (source, destination) = (decision.source_port, decision.destination_port);
    let mut udp = UdpHeader::with_ipv4_checksum(source, destination, &ip, &payload).expect("short");
    if let Some(checksum) = udp_checksum {
        udp.checksum = checksum;
    }
    let mut bytes = Vec::new();
    ip.write_raw(&mut bytes).unwrap();
    udp.write(&mut bytes).unwrap();
    [bytes, payload].concat()
}

fn counted(host: &Host, slot: u32) -> Count {
    let value = &host.maps[&MAPS.counts].entries[&slot.to_ne_bytes()[..]];
    Count {
        packets: value[0],
        bytes: value[1],
    }
}

/// Has the packet taken; what stands behind the Ethernet header then.
fn taken<'a>(skb: &'a mut Skb, host: &mut Host) -> &'a [u8] {
    let before = skb.packet.clone();
    assert_eq!(bpf_machine::run_in(&program(), skb, host) as u32, REDIRECT);
    assert_eq!(skb.mark, 0, "it is in the header");
    let (ethernet, rest) = skb.packet.split_at(ethernet::HEADER_LEN);
    assert_eq!(
        ethernet,
        &before[..ethernet::HEADER_LEN],
        "for the next hop's"
    );
    rest
}

/// The outer UDP checksum.
fn udp_checksum(datagram: &[u8]) -> u16 {
    u16::from_be_bytes([datagram[26], datagram[27]])
}

#[test]
fn a_frame_leaves_under_the_headers_decided_on() {
    let mut host = host(&FLOW, &DECISION);
    let mut skb = skb(&FLOW, b"payload");
    let expected = datagram(&DECISION, &frame(&FLOW, PEER, 0, b"payload"), None);
    let frame_len = skb.packet.len() as u64;
    assert_eq!(taken(&mut skb, &mut host), expected);
    assert_eq!(host.left_by, Some(DECISION.interface));
    let once = Count {
        packets: 1,
        bytes: frame_len,
    };
    assert_eq!(counted(&host, DECISION.slot), once);

    let packet = PacketHeaders::from_ip_slice(&skb.packet[ethernet::HEADER_LEN..]).unwrap();
    let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) =
        (packet.net, packet.transport)
    else {
        panic!("{:?}", skb.packet);
    };
    let computed = udp.calc_checksum_ipv4(&ip, packet.payload.slice());
    assert_eq!(Ok(udp.checksum), computed);
}

#[test]
fn the_udp_checksum_is_left_out_on_demand() {
    let decision = Decision {
        udp_checksum: false,
        ..DECISION
    };
    let expected = datagram(&decision, &frame(&FLOW, PEER, 0, b"x"), Some(0));
    let mut skb = skb(&FLOW, b"x");
    assert_eq!(taken(&mut skb, &mut host(&FLOW, &decision)), expected);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_its_complement() {
    let checksum_from = |source_port| {
        let decision = Decision {
            source_port,
            ..DECISION
        };
        udp_checksum(taken(&mut skb(&FLOW, b"x"), &mut host(&FLOW, &decision)))
    };
    // What is missing from all ones is added to the port.
    let port = u32::from(DECISION.source_port) + u32::from(checksum_from(DECISION.source_port));
    let port = (port & 0xffff) + (port >> 16);
    assert_eq!(checksum_from(port as u16), 0xffff);
    assert_ne!(checksum_from(port as u16 + 1), 0xffff);
}

#[test]
fn a_super_frame_has_the_checksum_of_each_of_its_segments() {
    for count in [2, 3, 40] {
        let payload: Vec<u8> = (0..count * 1000).map(|i| (i * 7 / 3) as u8).collect();
        let mut whole = skb(&FLOW, &payload);
        whole.gso_size = 1000;
        let mut host = host(&FLOW, &DECISION);
        let whole = taken(&mut whole, &mut host);
        let mut bytes = 0;
        for (index, part) in payload.chunks(1000).enumerate() {
            let inner = frame(&FLOW, PEER, 1000 * index as u32, part);
            let segment = datagram(&DECISION, &inner, None);
            assert_eq!(udp_checksum(whole), udp_checksum(&segment), "{index}");
            bytes += inner.len() as u64;
        }
        let inner = frame(&FLOW, PEER, 0, &payload);
        let checksum = Some(udp_checksum(whole));
        assert_eq!(whole, datagram(&DECISION, &inner, checksum));
        let packets = payload.len() as u64 / 1000;
        assert_eq!(counted(&host, DECISION.slot), Count { packets, bytes });
    }
}

#[test]
fn a_super_frame_with_a_shorter_end_has_no_udp_checksum() {
    for len in [1001, 1999, 2001, 39_999] {
        let payload = vec![7; len];
        let mut whole = skb(&FLOW, &payload);
        whole.gso_size = 1000;
        let mut host = host(&FLOW, &DECISION);
        let inner = frame(&FLOW, PEER, 0, &payload);
        let expected = datagram(&DECISION, &inner, Some(0));
        assert_eq!(taken(&mut whole, &mut host), expected, "{len}");
        let count = Count {
            packets: len.div_ceil(1000) as u64,
            bytes: payload
                .chunks(1000)
                .map(|part| frame(&FLOW, PEER, 0, part).len() as u64)
                .sum(),
        };
        assert_eq!(counted(&host, DECISION.slot), count, "{len}");
    }
}

/// The host would not send one; but if it does, a frame's is part of what is checked, and what is cut gets new ones.
#[test]
fn a_wrong_checksum_of_the_inner_ip_header_makes_no_other_wrong() {
    let mut whole = skb(&FLOW, &[7; 1000]);
    whole.packet[24] ^= 0x55;
    let inner = [&PEER.octets(), &whole.packet[6..]].concat();
    let expected = datagram(&DECISION, &inner, None);
    assert_eq!(taken(&mut whole, &mut host(&FLOW, &DECISION)), expected);

    let mut cut = skb(&FLOW, &[7; 2000]);
    cut.gso_size = 1000;
    cut.packet[24] ^= 0x55;
    let segment = datagram(&DECISION, &frame(&FLOW, PEER, 0, &[7; 1000]), None);
    let cut = udp_checksum(taken(&mut cut, &mut host(&FLOW, &DECISION)));
    assert_eq!(cut, udp_checksum(&segment));
}

#[test]
fn a_super_frame_of_one_segment_is_a_frame() {
    for len in [0, 1, 999, 1000] {
        let payload = vec![7; len];
        let mut whole = skb(&FLOW, &payload);
        whole.gso_size = 1000;
        let mut host = host(&FLOW, &DECISION);
        let inner = frame(&FLOW, PEER, 0, &payload);
        assert_eq!(
            taken(&mut whole, &mut host),
            datagram(&DECISION, &inner, None)
        );
        let (packets, bytes) = (1, inner.len() as u64);
        assert_eq!(counted(&host, DECISION.slot), Count { packets, bytes });
    }
}

#[test]
fn counts_add_up() {
    let mut host = host(&FLOW, &DECISION);
    for _ in 0..3 {
        taken(&mut skb(&FLOW, b"payload"), &mut host);
    }
    let once = frame(&FLOW, PEER, 0, b"payload").len() as u64;
    let (packets, bytes) = (3, 3 * once);
    assert_eq!(counted(&host, DECISION.slot), Count { packets, bytes });
}

/// What the mark's program alone makes of a frame is what it makes of one that the express path leaves alone.
fn assert_left_alone(what: &str, skb: &Skb, host: &mut Host) {
    let (mut alone, mut behind) = (skb.clone(), skb.clone());
    let expected = bpf_machine::run_on(&marks::egress(OWN, None), &mut alone) as u32;
    assert_eq!(expected, NEXT);
    let returned = bpf_machine::run_in(&program(), &mut behind, host) as u32;
    assert_eq!((returned, behind), (expected, alone), "{what}");
    assert_eq!(host.left_by, None, "{what}");
    if let Some(value) = host.maps[&MAPS.counts].entries.values().next() {
        assert_eq!(value, &[0; 2], "{what}");
    }
}

#[test]
fn frames_of_another_kind_are_left_alone() {
    type Change = fn(&mut Skb);
    let changes: [(&str, Change); 24] = [
        ("a VLAN tag beside the frame", |skb| skb.vlan_present = true),
        ("a VLAN tag in the frame", |skb| {
            skb.packet.splice(12..12, [0x81, 0, 0, 1]).for_each(drop);
        }),
        ("IPv6", |skb| {
            skb.packet[12..14].copy_from_slice(&[0x86, 0xdd])
        }),
        ("version 6", |skb| skb.packet[14] = 0x65),
        ("options", |skb| skb.packet[14] = 0x46),
        ("a header too short", |skb| skb.packet[14] = 0x44),
        ("UDP", |skb| skb.packet[23] = 17),
        ("the first fragment", |skb| skb.packet[20] |= 0x20),
        ("a later fragment", |skb| skb.packet[21] = 1),
        ("a fragment far behind", |skb| skb.packet[20] |= 0x10),
        ("the reserved bit", |skb| skb.packet[20] |= 0x80),
        ("padding", |skb| skb.packet.push(0)),
        ("an end that is missing", |skb| {
            skb.packet.pop();
        }),
        ("no length, as BIG TCP has it", |skb| {
            skb.packet[16..18].copy_from_slice(&[0, 0]);
        }),
        ("a TCP header too short", |skb| skb.packet[46] = 0x40),
        ("a TCP header longer than the packet", |skb| {
            skb.packet[46] = 0xf0;
        }),
        ("another mark", |skb| skb.mark += 1),
        ("no mark", |skb| skb.mark = 0),
        ("another destination MAC", |skb| skb.packet[5] ^= 1),
        ("another first byte of it", |skb| skb.packet[0] ^= 2),
        ("another source MAC", |skb| skb.packet[11] ^= 1),
        ("a forged tag", |skb| {
            let tag = mark_tag::emit(crate::wire::Mark(3));
            ethernet::write_source(&mut skb.packet, tag);
        }),
        ("another port", |skb| skb.packet[35] ^= 1),
        ("another address", |skb| skb.packet[33] ^= 1),
    ];
    for (what, change) in changes {
        let mut skb = skb(&FLOW, b"payload");
        change(&mut skb);
        assert_left_alone(what, &skb, &mut host(&FLOW, &DECISION));
    }
}

#[test]
fn frames_cut_off_anywhere_are_left_alone() {
    let whole = skb(&FLOW, b"");
    // A MAC is needed for the mark.
    for len in 12..whole.packet.len() {
        let mut skb = whole.clone();
        skb.packet.truncate(len);
        assert_left_alone("cut", &skb, &mut host(&FLOW, &DECISION));
        if len >= ethernet::HEADER_LEN + 20 {
            let total = (len - ethernet::HEADER_LEN) as u16;
            skb.packet[16..18].copy_from_slice(&total.to_be_bytes());
            assert_left_alone("cut, and says so", &skb, &mut host(&FLOW, &DECISION));
        }
    }
}

#[test]
fn each_field_of_a_flow_counts() {
    let tos = FLOW.tos ^ 1;
    let others = [
        FlowKey {
            source: Ipv4Addr::new(11, 255, 108, 184),
            ..FLOW
        },
        FlowKey {
            destination: Ipv4Addr::new(10, 255, 43, 7),
            ..FLOW
        },
        FlowKey {
            source_port: FLOW.source_port + 1,
            ..FLOW
        },
        FlowKey {
            destination_port: FLOW.destination_port + 1,
            ..FLOW
        },
        FlowKey {
            mark: FLOW.mark + 1,
            ..FLOW
        },
        FlowKey { tos, ..FLOW },
        FlowKey {
            ttl: FLOW.ttl - 1,
            ..FLOW
        },
        FlowKey {
            dont_fragment: false,
            ..FLOW
        },
    ];
    for other in others {
        let what = format!("{other:?}");
        assert_left_alone(&what, &skb(&other, b"x"), &mut host(&FLOW, &DECISION));
        taken(&mut skb(&other, b"x"), &mut host(&other, &DECISION));
    }
}

#[test]
fn frames_too_large_for_the_path_are_left_alone() {
    let head = frame(&FLOW, OWN, 0, b"").len();
    let fits = DECISION.frame_len_max as usize - head;
    taken(&mut skb(&FLOW, &vec![7; fits]), &mut host(&FLOW, &DECISION));
    let large = skb(&FLOW, &vec![7; fits + 1]);
    assert_left_alone("one byte more", &large, &mut host(&FLOW, &DECISION));

    let mut cut = skb(&FLOW, &vec![7; 10 * fits]);
    cut.gso_size = fits as u32;
    taken(&mut cut.clone(), &mut host(&FLOW, &DECISION));
    cut.gso_size += 1;
    assert_left_alone("one byte a segment", &cut, &mut host(&FLOW, &DECISION));
    // One segment, and that no larger than the payload.
    let mut short = skb(&FLOW, &vec![7; fits]);
    short.gso_size = u16::MAX.into();
    taken(&mut short, &mut host(&FLOW, &DECISION));
}

#[test]
fn frames_whose_outer_packet_would_have_no_length_are_left_alone() {
    let head = frame(&FLOW, OWN, 0, b"").len() - ethernet::HEADER_LEN;
    let mut largest = skb(&FLOW, &vec![7; 65_535 - 50 - head]);
    largest.gso_size = 1000;
    let datagram = taken(&mut largest, &mut host(&FLOW, &DECISION));
    assert_eq!(datagram[2..4], [0xff, 0xff]);
    let mut larger = skb(&FLOW, &vec![7; 65_536 - 50 - head]);
    larger.gso_size = 1000;
    assert_left_alone("65536", &larger, &mut host(&FLOW, &DECISION));
}

#[test]
fn without_a_decision_in_force_frames_are_left_alone() {
    type Change = fn(&mut Host);
    fn map(host: &mut Host, map: RawFd) -> &mut HashMap<Vec<u8>, Vec<u64>> {
        &mut host.maps.get_mut(&map).expect("there are three").entries
    }
    fn value(host: &mut Host, number: RawFd) -> &mut [u64] {
        map(host, number).values_mut().next().expect("one")
    }
    let changes: [(&str, Change); 8] = [
        ("no entry", |host| map(host, MAPS.flows).clear()),
        ("off", |host| value(host, MAPS.generation)[0] = 0),
        ("a newer generation", |host| {
            value(host, MAPS.generation)[0] += 1;
        }),
        ("a generation that differs far above", |host| {
            value(host, MAPS.generation)[0] += 1 << 40;
        }),
        ("no generation", |host| map(host, MAPS.generation).clear()),
        ("no slot", |host| map(host, MAPS.counts).clear()),
        ("no room", |host| host.is_full = true),
        ("off, and so decided", |host| {
            value(host, MAPS.generation)[0] = 0;
            let off = Decision {
                generation: 0,
                ..DECISION
            };
            value(host, MAPS.flows).copy_from_slice(&words(&off.to_bytes(&FLOW)));
        }),
    ];
    for (what, change) in changes {
        let mut host = host(&FLOW, &DECISION);
        change(&mut host);
        assert_left_alone(what, &skb(&FLOW, b"payload"), &mut host);
    }
}

/// As a program may see an entry whose room has gone to another flow, or is going there.
#[test]
fn a_decision_for_another_flow_or_two_halves_of_two_count_as_none() {
    let other = FlowKey {
        destination_port: FLOW.destination_port + 1,
        ..FLOW
    };
    let theirs = Decision {
        inner_destination: MacAddr::new([0xee, 0xee, 10, 255, 44, 0]),
        destination: Ipv4Addr::new(10, 0, 16, 15),
        source_port: 51_516,
        vxlan: [0x88, 0, 0, 4, 0, 0, 1, 0],
        slot: 3,
        ..DECISION
    };
    let [ours, theirs] = [DECISION.to_bytes(&FLOW), theirs.to_bytes(&other)].map(|all| words(&all));
    for written in 0..=ours.len() {
        let mut host = host(&FLOW, &DECISION);
        let torn = [&theirs[..written], &ours[written..]].concat();
        let is_ours = torn == ours;
        for value in host
            .maps
            .get_mut(&MAPS.flows)
            .expect("there")
            .entries
            .values_mut()
        {
            value.copy_from_slice(&torn);
        }
        let mut skb = skb(&FLOW, b"payload");
        if is_ours {
            taken(&mut skb, &mut host);
        } else {
            assert_left_alone(&format!("{written} words"), &skb, &mut host);
        }
    }
}

#[test]
fn the_kernel_takes_the_program_where_programs_may_be_loaded() {
    let is_denied =
        |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS));
    let map = |kind, key_len, value_len| Map::create(kind, "express_test", key_len, value_len, 4);
    let maps = [
        map(MapKind::LruHash, FLOW_KEY_LEN, DECISION_LEN),
        map(MapKind::Array, 4, GENERATION_LEN),
        map(MapKind::PerCpuArray, 4, COUNT_LEN),
    ];
    let [Ok(flows), Ok(generation), Ok(counts)] = &maps else {
        let denied = |map: &io::Result<Map>| map.as_ref().is_err_and(is_denied);
        assert!(maps.iter().all(denied), "{maps:?}");
        return;
    };
    let [flows, generation, counts] =
        [flows, generation, counts].map(|map| map.as_fd().as_raw_fd());
    let maps = Maps {
        flows,
        generation,
        counts,
    };
    let program = marks::egress(OWN, Some(maps));
    let loaded = bpf::load(ProgramType::SchedCls, "express_test", &program);
    let refused = loaded.as_ref().err();
    assert!(
        refused.is_none_or(|refused| is_denied(&refused.error)),
        "{loaded:?}"
    );
}

prop_compose! {
    fn flows()(
        source: [u8; 4],
        destination: [u8; 4],
        ports: [u16; 2],
        mark: u32,
        [tos, ttl]: [u8; 2],
        dont_fragment: bool,
    ) -> FlowKey {
        let [source_port, destination_port] = ports;
        FlowKey {
            source: source.into(),
            destination: destination.into(),
            source_port,
            destination_port,
            mark,
            tos,
            ttl,
            dont_fragment,
        }
    }
}

prop_compose! {
    fn decisions()(
        source: [u8; 4],
        destination: [u8; 4],
        ports: [u16; 2],
        vxlan: [u8; 8],
        mac: [u8; 6],
        [tos, ttl]: [u8; 2],
        dont_fragment: bool,
    ) -> Decision {
        let [source_port, destination_port] = ports;
        Decision {
            source: source.into(),
            destination: destination.into(),
            source_port,
            destination_port,
            vxlan,
            inner_destination: MacAddr::new(mac),
            tos,
            ttl,
            dont_fragment,
            ..DECISION
        }
    }
}

proptest! {
    /// Whatever is sent and whatever was decided, a receiver finds what another library would have sent.
    #[test]
    fn every_frame_leaves_as_it_should(
        flow in flows(),
        decision in decisions(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut skb = skb(&flow, &payload);
        let inner = frame(&flow, decision.inner_destination, 0, &payload);
        let expected = datagram(&decision, &inner, None);
        prop_assert_eq!(taken(&mut skb, &mut host(&flow, &decision)), expected);
    }

    /// The same where the sums come near their bounds.
    #[test]
    fn frames_of_ones_and_zeros_leave_as_they_should(ones: [bool; 12]) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = ones.map(|one| if one { u8::MAX } else { 0 });
        let flow = FlowKey {
            source: [a; 4].into(),
            destination: [b; 4].into(),
            source_port: u16::from_ne_bytes([c; 2]),
            destination_port: u16::from_ne_bytes([d; 2]),
            ..FLOW
        };
        let decision = Decision {
            source: [e; 4].into(),
            destination: [f; 4].into(),
            source_port: u16::from_ne_bytes([g; 2]),
            destination_port: u16::from_ne_bytes([h; 2]),
            vxlan: [i; 8],
            inner_destination: MacAddr::new([j; 6]),
            tos: k,
            ttl: l,
            ..DECISION
        };
        let mut skb = skb(&flow, &[a; 20]);
        let inner = frame(&flow, decision.inner_destination, 0, &[a; 20]);
        let expected = datagram(&decision, &inner, None);
        prop_assert_eq!(taken(&mut skb, &mut host(&flow, &decision)), expected);
    }

    /// Nothing that a host may send makes the program fall, and what it does not take it does not touch.
    #[test]
    fn no_bytes_are_too_strange(
        change in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..8),
        gso_size: u16,
    ) {
        let mut skb = skb(&FLOW, b"payload");
        for (at, byte) in change {
            *at.get_mut(&mut skb.packet) = byte;
        }
        skb.gso_size = gso_size.into();
        let mut host = host(&FLOW, &DECISION);
        let returned = bpf_machine::run_in(&program(), &mut skb.clone(), &mut host) as u32;
        if returned == REDIRECT {
            prop_assert!(counted(&host, DECISION.slot).packets >= 1);
        } else {
            assert_left_alone("strange", &skb, &mut host);
        }
    }
}

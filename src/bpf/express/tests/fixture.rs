//! A flow, the decision on it, and a host for the program to run on; what it makes of a frame, and what should become of it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use etherparse::{IpNumber, Ipv4Header, TcpHeader, TcpOptionElement, UdpHeader};

use crate::bpf::express::{COUNT_LEN, Count, Decision, FlowKey, Maps};
use crate::bpf::{Program, marks};
use crate::sys::bpf_machine::{self, Host, Skb};
use crate::wire::{MacAddr, ethernet};

pub(super) const MAPS: Maps = Maps {
    flows: 3,
    generation: 4,
    counts: 5,
};
pub(super) const OWN: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 108, 0]);
pub(super) const PEER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
pub(super) const FLOW: FlowKey = FlowKey {
    source: Ipv4Addr::new(10, 255, 108, 184),
    destination: Ipv4Addr::new(10, 255, 43, 6),
    source_port: 40_000,
    destination_port: 8080,
    mark: 0x48_0003,
    tos: 0xb9,
    ttl: 63,
    dont_fragment: true,
};
pub(super) const DECISION: Decision = Decision {
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
pub(super) const ID: u16 = 0xbeef;
/// TC_ACT_REDIRECT.
pub(super) const REDIRECT: u32 = 7;
/// TC_ACT_UNSPEC.
pub(super) const NEXT: u32 = u32::MAX;

pub(super) fn program() -> Program {
    marks::egress(OWN, Some(MAPS))
}

/// A value as the machine holds it.
pub(super) fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "values are whole words");
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

/// A host on which `decision` was made for `flow` and is in force.
pub(super) fn host(flow: &FlowKey, decision: &Decision) -> Host {
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
pub(super) fn skb(flow: &FlowKey, payload: &[u8]) -> Skb {
    Skb {
        mark: flow.mark,
        packet: frame(flow, OWN, 0, payload),
        ..Skb::default()
    }
}

pub(super) fn frame(
    flow: &FlowKey,
    destination: MacAddr,
    sequence: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut tcp = TcpHeader::new(flow.source_port, flow.destination_port, sequence, 512);
    tcp.ack = true;
    tcp.set_options(&[TcpOptionElement::Timestamp(1, 2)])
        .expect("short");
    frame_of(flow, destination, tcp, payload)
}

pub(super) fn frame_of(
    flow: &FlowKey,
    destination: MacAddr,
    tcp: TcpHeader,
    payload: &[u8],
) -> Vec<u8> {
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

pub(super) fn ip_header(
    payload_len: usize,
    ttl: u8,
    protocol: IpNumber,
    [source, destination]: [Ipv4Addr; 2],
) -> Ipv4Header {
    let len = u16::try_from(payload_len).expect("a packet's");
    Ipv4Header::new(len, ttl, protocol, source.octets(), destination.octets()).expect("short")
}

pub(super) fn set_tos(ip: &mut Ipv4Header, tos: u8) {
    ip.dscp = (tos >> 2).try_into().expect("six bits");
    ip.ecn = (tos & 3).try_into().expect("two bits");
}

/// What `decision` makes of an inner frame, its Ethernet header left out; `udp_checksum` as computed if None.
pub(super) fn datagram(decision: &Decision, inner: &[u8], udp_checksum: Option<u16>) -> Vec<u8> {
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

pub(super) fn counted(host: &Host, slot: u32) -> Count {
    let value = &host.maps[&MAPS.counts].entries[&slot.to_ne_bytes()[..]];
    Count {
        packets: value[0],
        bytes: value[1],
    }
}

/// Has the packet taken; what stands behind the Ethernet header then.
pub(super) fn taken<'a>(skb: &'a mut Skb, host: &mut Host) -> &'a [u8] {
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
pub(super) fn udp_checksum(datagram: &[u8]) -> u16 {
    u16::from_be_bytes([datagram[26], datagram[27]])
}

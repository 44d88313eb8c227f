//! The hash that chooses a flow's outer source port.
//!
//! Symmetric: A to B and B to A hash alike. Inputs are those of the kernel's flow dissector as measured: IP addresses, protocol,
//! TCP/UDP/SCTP ports where the packet is no fragment; not MACs, VNI, TOS, TTL, VLAN ids or ICMP ids. All ARP shares one value; all
//! fragments of a flow share one. VLAN tags (0x8100, 0x88a8, two at the most) are looked through.
//!
//! No seed: a flow keeps its port over restarts, and both ends agree on it. Who wants to crowd one port can send one flow anyway.

use std::net::Ipv6Addr;

use super::ethernet::Frame;
use super::field;
use super::ip::{Network, Transport, protocol};

/// Numbers without structure: the first 256 bits of pi's fraction, each word made odd.
const KEYS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
];

/// A 32-bit hash of the frame's flow, mixed well enough that `hash * n >> 32` chooses evenly among `n`.
#[must_use]
pub fn hash(frame: Frame<'_>) -> u32 {
    hash_network(
        frame,
        Network::parse_untagged(frame).unwrap_or(Network::Other),
    )
}

/// As [`hash`], for who knows already what [`Network::parse`] makes of the frame.
#[must_use]
#[inline]
pub fn hash_parsed(frame: Frame<'_>, network: Network<'_>) -> u32 {
    match network {
        // There may be IP behind a VLAN tag.
        Network::Other => hash(frame),
        ip => hash_network(frame, ip),
    }
}

#[inline]
fn hash_network(frame: Frame<'_>, network: Network<'_>) -> u32 {
    let transport = network.transport(frame);
    let [source, destination] = transport
        .and_then(|transport| ports(frame, transport))
        .unwrap_or_default();
    match network {
        Network::V4(ip) => {
            let end = |address: u32, port| u64::from(address) << 16 | u64::from(port);
            let source = end(ip.source().to_bits(), source);
            let destination = end(ip.destination().to_bits(), destination);
            combine(source, destination, ip.protocol())
        }
        Network::V6(ip) => {
            let protocol = transport.map_or(ip.next_header(), |transport| transport.protocol);
            let source = ipv6_end(ip.source(), source);
            let destination = ipv6_end(ip.destination(), destination);
            combine(source, destination, protocol)
        }
        Network::Other => {
            let (ethertype, _) = frame.untagged();
            combine(u64::from(ethertype.0), 0, 0)
        }
    }
}

/// Source and destination port of a protocol that has them there.
fn ports(frame: Frame<'_>, transport: Transport) -> Option<[u16; 2]> {
    if !matches!(
        transport.protocol,
        protocol::TCP | protocol::UDP | protocol::SCTP
    ) {
        return None;
    }
    let header = transport.segment(frame).first_chunk::<4>()?;
    Some([field(header, 0..2), field(header, 2..4)].map(u16::from_be_bytes))
}

/// One end of an IPv6 flow in 64 bits.
fn ipv6_end(address: Ipv6Addr, port: u16) -> u64 {
    let octets = address.octets();
    let [high, low] = [field(&octets, 0..8), field(&octets, 8..16)].map(u64::from_be_bytes);
    mix(high ^ KEYS[2], low ^ KEYS[3]).wrapping_add(u64::from(port))
}

/// The ends in an order of their own, so that direction does not count.
fn combine(a: u64, b: u64, protocol: u8) -> u32 {
    let ends = mix(a.min(b) ^ KEYS[0], a.max(b) ^ KEYS[1]);
    (mix(ends ^ u64::from(protocol), KEYS[2]) >> 32) as u32
}

/// The full product's two halves, xored: every input bit reaches every output bit.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use etherparse::{IpFragOffset, Ipv4Header, PacketBuilder, ip_number};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ethernet;

    /// What may differ between packets.
    #[derive(Clone, Copy, Debug)]
    struct Packet {
        macs: [[u8; 6]; 2],
        addresses: [[u8; 16]; 2],
        ports: [u16; 2],
        v6: bool,
        tcp: bool,
        ttl: u8,
    }

    const PACKET: Packet = Packet {
        macs: [[2; 6], [4; 6]],
        addresses: [[10; 16], [11; 16]],
        ports: [40_000, 80],
        v6: false,
        tcp: true,
        ttl: 64,
    };

    impl Packet {
        fn frame(self) -> Vec<u8> {
            let [source, destination] = self.addresses;
            let builder = PacketBuilder::ethernet2(self.macs[0], self.macs[1]);
            let builder = if self.v6 {
                builder.ipv6(source, destination, self.ttl)
            } else {
                builder.ipv4(field(&source, 0..4), field(&destination, 0..4), self.ttl)
            };
            let [source, destination] = self.ports;
            let mut frame = Vec::new();
            if self.tcp {
                let builder = builder.tcp(source, destination, 1, 1);
                builder.write(&mut frame, b"payload").unwrap();
            } else {
                let builder = builder.udp(source, destination);
                builder.write(&mut frame, b"payload").unwrap();
            }
            frame
        }

        fn reverse(mut self) -> Self {
            self.macs.reverse();
            self.addresses.reverse();
            self.ports.reverse();
            self
        }

        fn hash(self) -> u32 {
            hash_of(&self.frame())
        }
    }

    fn hash_of(frame: &[u8]) -> u32 {
        hash(Frame::new_checked(frame).unwrap())
    }

    fn buckets(hashes: impl Iterator<Item = u32>) -> usize {
        let buckets: BTreeSet<u64> = hashes.map(|hash| (u64::from(hash) * 32) >> 32).collect();
        buckets.len()
    }

    #[test]
    fn flows_that_differ_in_one_port_spread() {
        for (v6, tcp) in [(false, true), (false, false), (true, true), (true, false)] {
            for at in [0, 1] {
                for base in [0, 1024, 40_000, 65_472] {
                    let spread = buckets((base..=base + 63).map(|port| {
                        let mut packet = Packet { v6, tcp, ..PACKET };
                        packet.ports[at] = port;
                        packet.hash()
                    }));
                    assert!(
                        spread >= 20,
                        "{spread} buckets: v6 {v6}, tcp {tcp}, {at}, {base}"
                    );
                }
            }
        }
    }

    #[test]
    fn flows_that_differ_in_one_address_spread() {
        for (v6, last) in [(false, 3), (true, 7), (true, 15)] {
            let spread = buckets((0..64).map(|host| {
                let mut packet = Packet { v6, ..PACKET };
                packet.addresses[1][last] = host;
                packet.hash()
            }));
            assert!(spread >= 20, "{spread} buckets: v6 {v6}, byte {last}");
        }
    }

    #[test]
    fn is_the_same_in_every_build() {
        let hashes = [PACKET, Packet { v6: true, ..PACKET }].map(Packet::hash);
        assert_eq!(hashes, [1_392_418_851, 2_206_666_464]);
    }

    #[test]
    fn protocols_hash_apart() {
        assert_ne!(
            PACKET.hash(),
            Packet {
                tcp: false,
                ..PACKET
            }
            .hash()
        );
    }

    #[test]
    fn all_arp_shares_one_value() {
        let arp = |fill| {
            let mut frame = [fill; 42];
            frame[ethernet::ETHERTYPE].copy_from_slice(&[0x08, 0x06]);
            hash_of(&frame)
        };
        assert_eq!(arp(1), arp(2));
    }

    #[test]
    fn icmp_ids_do_not_count() {
        let echo = |id| {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .icmpv4_echo_request(id, 1)
                .write(&mut frame, b"payload")
                .unwrap();
            hash_of(&frame)
        };
        assert_eq!(echo(1), echo(2));
    }

    #[test]
    fn fragments_of_a_flow_share_one_value() {
        let fragment = |offset, more_fragments, payload: &[u8]| {
            let mut header =
                Ipv4Header::new(payload.len() as u16, 64, ip_number::UDP, [10; 4], [11; 4])
                    .unwrap();
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.more_fragments = more_fragments;
            let mut frame = vec![2; 12];
            frame.extend([0x08, 0x00]);
            frame.extend(header.to_bytes());
            frame.extend(payload);
            hash_of(&frame)
        };
        let first = fragment(0, true, &[1, 2, 3, 4, 0, 40, 0, 0]);
        assert_eq!(first, fragment(1, true, &[9; 8]));
        assert_eq!(first, fragment(2, false, &[7; 16]));
    }

    #[test]
    fn ipv6_fragments_of_a_flow_share_one_value() {
        let fragment = |word: u16, payload: [u8; 8]| {
            let mut frame = Packet {
                v6: true,
                tcp: false,
                ..PACKET
            }
            .frame();
            frame.truncate(54);
            frame[18..21].copy_from_slice(&[0, 16, 44]);
            let [high, low] = word.to_be_bytes();
            frame.extend([17, 0, high, low, 0, 0, 0, 5]);
            frame.extend(payload);
            hash_of(&frame)
        };
        assert_eq!(fragment(1, [1; 8]), fragment(8, [9; 8]));
    }

    proptest! {
        #[test]
        fn both_directions_hash_alike_whatever_mac_ttl_or_vlan(
            macs: [[u8; 6]; 2], addresses: [[u8; 16]; 2], ports: [u16; 2], v6: bool, tcp: bool, ttl: u8, vlan: u16,
        ) {
            let there = Packet { macs, addresses, ports, v6, tcp, ttl };
            let back = Packet { macs: PACKET.macs, ttl: 1, ..there.reverse() };
            prop_assert_eq!(there.hash(), back.hash());
            let mut tagged = there.frame();
            let [high, low] = vlan.to_be_bytes();
            tagged.splice(12..12, [0x81, 0, high, low]);
            prop_assert_eq!(hash_of(&tagged), there.hash());
        }
    }
}

//! What becomes of frames that are taken.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use proptest::prelude::*;

use super::fixture::*;
use crate::bpf::express::{Count, Decision, FlowKey};
use crate::wire::{MacAddr, ethernet};

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
}

//! Many packets at once: what leaves in one send, what is judged once and what reaches the host as one super-frame is byte for byte
//! what it would have been one by one.

use std::sync::Arc;

use bytes::Bytes;
use etherparse::PacketBuilder;
use proptest::collection::vec;
use proptest::prelude::*;
use silk_vtep::io::memory::WireDatagram;
use silk_vtep::io::{Offload, OffloadState};
use silk_vtep::offload::{self, Segmenter};
use silk_vtep::tables::{Df, Local, OuterField, OuterRules};
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};
use silk_vtep::wire::{MacAddr, vxlan};

use crate::cell::{Cell, compile_with, container, udp_payload};

/// Headers of a TCP frame over IPv4.
const TCP_HEADERS_LEN: usize = 14 + 20 + 20;
const MSS: u16 = 1000;

fn cells() -> (Cell, Cell) {
    (Cell::new(1, &[2]), Cell::new(2, &[1]))
}

pub(crate) fn udp_frame(from: &Cell, to: &Cell, port: u16, tos: u8, payload: &[u8]) -> Vec<u8> {
    let mac = MacAddr::overlay(from.vtep).octets();
    let mut frame = Vec::new();
    let mut ip = etherparse::Ipv4Header::new(
        0,
        64,
        etherparse::IpNumber::UDP,
        container(from.vtep),
        container(to.vtep),
    )
    .expect("room for a payload");
    ip.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
    ip.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
    PacketBuilder::ethernet2(mac, mac)
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        .udp(port, port)
        .write(&mut frame, payload)
        .expect("a Vec takes all");
    frame
}

/// A TSO super-frame of `payload` as the TAP gives it: the checksum field holds the pseudo-header's sum.
pub(crate) fn tcp_packet(from: &Cell, to: &Cell, sequence: u32, payload: &[u8]) -> Bytes {
    let mac = MacAddr::overlay(from.vtep).octets();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, mac)
        .ipv4(container(from.vtep), container(to.vtep), 64)
        .tcp(40_000, 5201, sequence, 1000)
        .ack(1)
        .write(&mut frame, payload)
        .expect("a Vec takes all");
    let (source, destination) = (from.vtep.octets(), to.vtep.octets());
    let addresses = [source, destination]
        .map(|[a, b, c, _]| [a, b, c, 2])
        .concat();
    let len = (20 + payload.len()) as u32;
    let words = addresses
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum::<u32>() + 6 + len;
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[14 + 20 + 16..][..2].copy_from_slice(&(folded as u16).to_be_bytes());
    let header = VnetHeader {
        needs_csum: true,
        gso_type: GsoType::TcpV4,
        hdr_len: TCP_HEADERS_LEN as u16,
        gso_size: MSS,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    [&header.emit()[..], &frame].concat().into()
}

/// Moves all that lane 0 of `from` sent to lane 0 of `to`.
fn carry(from: &mut Cell, to: &mut Cell) {
    while let Some(datagram) = from.lanes[0].underlay().take_sent() {
        to.lanes[0].underlay().arrive(datagram);
    }
    to.lanes[0].ingress_batch().expect("memory does not fail");
}

/// What the host got, in order, super-frames cut as the host would cut them.
fn frames_of_host(cell: &mut Cell) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(packet) = cell.lanes[0].tap().host_receives() {
        let header = packet
            .first_chunk()
            .and_then(VnetHeader::parse)
            .expect("a header");
        let frame = &packet[vnet::HEADER_LEN..];
        if header.gso_type == GsoType::None {
            frames.push(frame.to_vec());
            continue;
        }
        let segmenter = Segmenter::new(frame, &header).expect("a super-frame of ours is honest");
        frames.extend((0..segmenter.segments()).map(|index| {
            let mut headers = vec![0; segmenter.header_len()];
            let payload = segmenter.emit(index, &mut headers);
            [&headers, &frame[payload]].concat()
        }));
    }
    frames
}

#[test]
fn packets_share_a_send_only_if_their_outer_headers_are_equal() {
    let (mut a, b) = cells();
    let outer = OuterRules {
        ttl: OuterField::Inherit,
        df: Df::Inherit,
        ..OuterRules::default()
    };
    a.tables
        .store(Arc::new(compile_with(1, &[2], Vec::new(), |local| Local {
            outer,
            ..local
        })));
    // TTL and the byte of the fragment word with DF.
    let fields = [(9, 0x40), (9, 0x40), (8, 0x40), (8, 0), (8, 0), (8, 0x40)];
    for (ttl, fragment) in fields {
        let mut frame = udp_frame(&a, &b, 5000, 0, b"payload");
        (frame[22], frame[20]) = (ttl, fragment);
        a.lanes[0].tap().host_sends(&frame);
    }
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(a.lanes[0].underlay().sends(), 4);
    let sent: Vec<_> = std::iter::from_fn(|| a.lanes[0].underlay().take_sent()).collect();
    let seen: Vec<_> = sent
        .iter()
        .map(|sent| (sent.outer.ttl, sent.outer.df))
        .collect();
    assert_eq!(seen, fields.map(|(ttl, fragment)| (ttl, fragment != 0)));
}

#[test]
fn a_super_frame_is_judged_once_and_its_segments_have_equal_outer_headers() {
    let (mut a, b) = cells();
    let outer = OuterRules {
        ttl: OuterField::Inherit,
        tos: OuterField::Inherit,
        df: Df::Inherit,
    };
    a.tables
        .store(Arc::new(compile_with(1, &[2], Vec::new(), |local| Local {
            outer,
            ..local
        })));
    let mut packet = tcp_packet(&a, &b, 1, &[7; 5 * MSS as usize]).to_vec();
    let ip = &mut packet[vnet::HEADER_LEN + 14..];
    (ip[1], ip[6], ip[8]) = (0xb9, 0x40, 33);
    a.lanes[0].tap().host_sends_packet(packet.into());
    a.lanes[0].egress_batch().expect("memory does not fail");
    let sent: Vec<_> = std::iter::from_fn(|| a.lanes[0].underlay().take_sent()).collect();
    assert_eq!(sent.len(), 5);
    for datagram in sent {
        let outer = datagram.outer;
        assert_eq!((outer.tos, outer.ttl, outer.df), (0xb9, 33, true));
    }
}

#[test]
fn equal_small_packets_of_one_batch_share_a_send() {
    let (mut a, b) = cells();
    for n in 0..10 {
        let frame = udp_frame(&a, &b, 5000, 0, &[n; 64]);
        a.lanes[0].tap().host_sends(&frame);
    }
    a.lanes[0].egress_batch().expect("memory does not fail");
    assert_eq!(a.lanes[0].underlay().sends(), 1);
    assert_eq!(a.counters.totals().tx_packets, 10);
}

#[test]
fn a_super_frame_does_not_overtake_what_its_flow_sent_before() {
    let (mut a, mut b) = cells();
    let small = tcp_packet(&a, &b, 0, b"first");
    let large = tcp_packet(&a, &b, 5, &[7; 3500]);
    let mut plain = small.to_vec();
    plain[..vnet::HEADER_LEN].copy_from_slice(
        &VnetHeader {
            needs_csum: true,
            csum_start: 34,
            csum_offset: 16,
            ..VnetHeader::default()
        }
        .emit(),
    );
    a.lanes[0].tap().host_sends_packet(plain.into());
    a.lanes[0].tap().host_sends_packet(large);
    a.lanes[0].egress_batch().expect("memory does not fail");
    carry(&mut a, &mut b);
    let frames = frames_of_host(&mut b);
    let lens: Vec<usize> = frames
        .iter()
        .map(|frame| frame.len() - TCP_HEADERS_LEN)
        .collect();
    assert_eq!(lens, [5, 1000, 1000, 1000, 500]);
}

#[test]
fn a_stream_of_super_frames_arrives_byte_for_byte_on_every_rung() {
    let stream: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    for (refuses_runs, refuses_super_frames, joins) in [
        (false, false, true),
        (false, false, false),
        (true, false, true),
        (false, true, true),
        (true, true, false),
    ] {
        let (mut a, mut b) = cells();
        if refuses_runs {
            a.lanes[0].underlay().refuse_runs();
        }
        if refuses_super_frames {
            b.lanes[0].tap().refuse_super_frames();
        }
        if joins {
            b.lanes[0].underlay().join_runs();
        }
        let mut arrived = Vec::new();
        for (index, chunk) in stream.chunks(50_000).enumerate() {
            let packet = tcp_packet(&a, &b, (index * 50_000) as u32, chunk);
            a.lanes[0].tap().host_sends_packet(packet);
            a.lanes[0].egress_batch().expect("memory does not fail");
            carry(&mut a, &mut b);
            let frames = frames_of_host(&mut b);
            arrived.extend(
                frames
                    .into_iter()
                    .flat_map(|frame| frame[TCP_HEADERS_LEN..].to_vec()),
            );
        }
        assert!(
            arrived == stream,
            "{refuses_runs} {refuses_super_frames} {joins}"
        );
        assert_eq!(a.counters.totals().tx_packets, 200);
        assert_eq!(b.counters.totals().rx_packets, 200);
        let refused = |was: bool| {
            if was {
                OffloadState::Refused
            } else {
                OffloadState::On
            }
        };
        // Of this peer alone: nothing is said of others.
        assert_eq!(a.offloads.state(Offload::UdpGso), OffloadState::On);
        assert_eq!(refuses_peer(&a, &b), refuses_runs);
        assert_eq!(
            b.offloads.state(Offload::TapCoalescing),
            refused(refuses_super_frames)
        );
        // One refusal is enough to learn, but for what is already on its way in the batch.
        assert_eq!(a.offloads.refusals(), u64::from(refuses_runs));
        assert_eq!(b.offloads.refusals() > 0, refuses_super_frames);
    }
}

/// Whether `from` sends runs to `to` one by one.
fn refuses_peer(from: &Cell, to: &Cell) -> bool {
    let tables = from.tables.load();
    let peer = tables.peers.lookup(to.underlay).expect("a peer");
    peer.segmentation.is_refused()
}

/// What `frame` is with its TCP checksum left to a card, as a kernel peer's veth leaves it.
fn with_partial_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let words = frame[26..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = sum + 6 + (frame.len() - 34) as u32;
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[50..52].copy_from_slice(&(folded as u16).to_be_bytes());
    frame
}

#[test]
fn segments_with_partial_checksums_are_joined_and_each_is_counted_once() {
    for refuses in [false, true] {
        let (mut a, mut b) = cells();
        if refuses {
            b.lanes[0].tap().refuse_super_frames();
        }
        let packet = tcp_packet(&a, &b, 0, &[7; 5_000]);
        a.lanes[0].tap().host_sends_packet(packet);
        a.lanes[0].egress_batch().expect("memory does not fail");
        let mut complete = Vec::new();
        while let Some(mut datagram) = a.lanes[0].underlay().take_sent() {
            let (vxlan, frame) = datagram.payload.split_at(vxlan::HEADER_LEN);
            complete.push(frame.to_vec());
            // The second is as a card would send it.
            if complete.len() != 2 {
                let frame = with_partial_checksum(frame.to_vec());
                datagram.payload = [vxlan, &frame].concat().into();
            }
            b.lanes[0].underlay().arrive(datagram);
        }
        b.lanes[0].ingress_batch().expect("memory does not fail");
        let packets: Vec<_> = std::iter::from_fn(|| {
            b.lanes[0]
                .tap()
                .host_receives()
                .map(|packet| packet.to_vec())
        })
        .collect();
        let headers: Vec<_> = packets
            .iter()
            .filter_map(|packet| VnetHeader::parse(packet.first_chunk()?))
            .collect();
        if refuses {
            let unfinished: Vec<_> = headers.iter().map(|header| header.needs_csum).collect();
            assert_eq!(unfinished, [true, false, true, true, true]);
            for ((packet, header), complete) in packets.iter().zip(&headers).zip(&complete) {
                let mut frame = packet[vnet::HEADER_LEN..].to_vec();
                offload::complete(&mut frame, header).expect("a header of ours");
                assert!(frame == *complete);
            }
        } else {
            assert_eq!(headers.len(), 1);
            assert_eq!(headers[0].gso_type, GsoType::TcpV4);
            let frame = &packets[0][vnet::HEADER_LEN..];
            assert_eq!(
                frame,
                with_partial_checksum(frame.to_vec()),
                "for the host to finish"
            );
            assert_eq!(frame[TCP_HEADERS_LEN..], [7; 5_000]);
        }
        let tables = b.tables.load();
        let peer = tables.peers.lookup(a.underlay).expect("a peer");
        for totals in [b.counters.totals(), peer.counters.totals()] {
            assert_eq!((totals.rx_packets, totals.partial_checksums), (5, 4));
        }
    }
}

/// A container may have made a frame so that the TAP refuses it; others' super-frames are not to suffer.
#[test]
fn a_super_frame_that_the_tap_refuses_turns_nothing_off_while_it_takes_honest_ones() {
    let (mut a, mut b) = cells();
    b.lanes[0].underlay().join_runs();
    b.lanes[0].tap().refuse_super_frames_above(10_000);
    for len in [5_000, 20_000] {
        let packet = tcp_packet(&a, &b, 0, &vec![7; len]);
        a.lanes[0].tap().host_sends_packet(packet);
        a.lanes[0].egress_batch().expect("memory does not fail");
        carry(&mut a, &mut b);
    }
    assert_eq!(b.offloads.state(Offload::TapCoalescing), OffloadState::On);
    assert_eq!(b.offloads.refusals(), 1);
    let own = MacAddr::overlay(b.vtep).octets();
    let frames = frames_of_host(&mut b).into_iter();
    let delivered = frames.filter(|frame| frame.starts_with(&own)).count();
    assert_eq!(delivered, 25, "each segment once");
    assert_eq!(b.counters.totals().rx_packets, 25);
}

/// A packet of the host.
#[derive(Clone, Debug)]
struct Small {
    port: u16,
    tos: u8,
    len: usize,
}

fn small() -> impl Strategy<Value = Small> {
    let len = prop_oneof![3 => Just(64_usize), 1 => 0..1400_usize];
    (
        5000..5004_u16,
        prop_oneof![4 => Just(0_u8), 1 => Just(2_u8)],
        len,
    )
        .prop_map(|(port, tos, len)| Small { port, tos, len })
}

/// What may happen to a datagram on the way.
#[derive(Clone, Debug)]
enum Mishap {
    None,
    Lost,
    Bit(usize, u8),
    OuterTos(u8),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        8 => Just(Mishap::None),
        1 => Just(Mishap::Lost),
        // Mostly in the headers.
        3 => (0..60_usize, 0..8_u8).prop_map(|(at, bit)| Mishap::Bit(at, bit)),
        1 => (0..4_u8).prop_map(Mishap::OuterTos),
    ]
}

fn befall(mut datagram: WireDatagram, mishap: &Mishap) -> Option<WireDatagram> {
    match *mishap {
        Mishap::None => {}
        Mishap::Lost => return None,
        Mishap::Bit(at, bit) => {
            let mut payload = datagram.payload.to_vec();
            let at = at % payload.len();
            payload[at] ^= 1 << bit;
            datagram.payload = payload.into();
        }
        Mishap::OuterTos(tos) => datagram.outer.tos = tos,
    }
    Some(datagram)
}

/// Identification and checksum of a sound IPv4 header with DF taken out: cutting a super-frame numbers its segments, DF or not
/// (`inet_gso_segment`), and with DF the number means nothing (RFC 6864).
fn without_id(mut frame: Vec<u8>) -> Vec<u8> {
    let header = &mut frame[14..34];
    let sum: u32 = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let is_sound = (sum & 0xffff) + (sum >> 16) == 0xffff;
    if is_sound && header[6] & 0x40 != 0 {
        header[4..6].fill(0);
        header[10..12].fill(0);
    }
    frame
}

proptest! {
    #[test]
    fn batches_keep_every_packet_and_each_flows_order(packets in vec(small(), 1..150)) {
        let (mut a, b) = cells();
        for (n, packet) in packets.iter().enumerate() {
            let mut payload = vec![0; packet.len + 2];
            payload[..2].copy_from_slice(&(n as u16).to_be_bytes());
            let frame = udp_frame(&a, &b, packet.port, packet.tos, &payload);
            a.lanes[0].tap().host_sends(&frame);
        }
        for _ in 0..3 {
            a.lanes[0].egress_batch().expect("memory does not fail");
        }
        let mut seen = Vec::new();
        while let Some(datagram) = a.lanes[0].underlay().take_sent() {
            let payload = udp_payload(&datagram.payload[vxlan::HEADER_LEN..]);
            let n = usize::from(u16::from_be_bytes([payload[0], payload[1]]));
            prop_assert_eq!(payload.len(), packets[n].len + 2);
            prop_assert_eq!(datagram.outer.tos, packets[n].tos);
            seen.push(n);
        }
        for port in 5000..5004 {
            let of_flow: Vec<usize> = seen.iter().copied().filter(|&n| packets[n].port == port).collect();
            prop_assert!(of_flow.is_sorted(), "port {}: {:?}", port, of_flow);
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..packets.len()).collect::<Vec<_>>());
        prop_assert!(a.lanes[0].underlay().sends() <= packets.len());
    }

    /// A run shares one verdict, so each datagram of it must be one that would have had that verdict alone.
    #[test]
    fn joined_datagrams_fare_as_they_would_alone(
        packets in vec((small(), mishap()), 1..100),
        large in vec((0..5_u16, mishap()), 0..60),
    ) {
        let (mut a, mut joined) = cells();
        let mut alone = Cell::new(2, &[1]);
        for (n, (packet, _)) in packets.iter().enumerate() {
            let frame = udp_frame(&a, &joined, packet.port, packet.tos, &vec![n as u8; packet.len]);
            a.lanes[0].tap().host_sends(&frame);
        }
        for n in 0..large.len() / 20 {
            let packet = tcp_packet(&a, &joined, n as u32 * 20_000, &vec![n as u8; 20_000]);
            a.lanes[0].tap().host_sends_packet(packet);
        }
        for _ in 0..4 {
            a.lanes[0].egress_batch().expect("memory does not fail");
        }
        joined.lanes[0].underlay().join_runs();
        let mut mishaps = packets.iter().map(|(_, mishap)| mishap).chain(large.iter().map(|(_, mishap)| mishap));
        while let Some(datagram) = a.lanes[0].underlay().take_sent() {
            let mishap = mishaps.next().unwrap_or(&Mishap::None);
            let Some(datagram) = befall(datagram, mishap) else { continue };
            alone.lanes[0].underlay().arrive(datagram.clone());
            alone.lanes[0].ingress_batch().expect("memory does not fail");
            joined.lanes[0].underlay().arrive(datagram);
        }
        for _ in 0..4 {
            joined.lanes[0].ingress_batch().expect("memory does not fail");
        }
        let (one, other) = (joined.counters.totals(), alone.counters.totals());
        prop_assert_eq!(one, other);
        let [mut one, mut other] = [&mut joined, &mut alone]
            .map(|cell| frames_of_host(cell).into_iter().map(without_id).collect::<Vec<_>>());
        // Flows of one batch may change places; within a flow the order is a test of the coalescer's.
        one.sort_unstable();
        other.sort_unstable();
        prop_assert_eq!(one, other);
    }
}

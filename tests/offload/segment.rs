//! Cutting super-frames.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use silk_vtep::offload::{BadSuperFrame, HEADER_LEN_MAX, SEGMENTS_MAX, Segmenter};
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};

use super::frames::{ACK, CWR, ECE, FIN, PSH, Packet, checksums_are_right, noise};
use super::harness::cut;
use super::strategies::any_packet;

fn tcp(v6: bool, payload_len: usize) -> Packet {
    Packet::new(v6, true, noise(1, payload_len))
}

fn udp(v6: bool, payload_len: usize) -> Packet {
    Packet::new(v6, false, noise(1, payload_len))
}

fn flags(frame: &[u8]) -> u8 {
    frame[34 + 13]
}

#[test]
fn fin_and_psh_are_the_last_segments_and_cwr_the_firsts() {
    let mut packet = tcp(false, 3000);
    packet.flags = ACK | ECE | FIN | PSH | CWR;
    let (header, frame) = packet.super_frame(1000);
    let flags: Vec<u8> = cut(&frame, &header)
        .unwrap()
        .iter()
        .map(|f| flags(f))
        .collect();
    assert_eq!(flags, [ACK | ECE | CWR, ACK | ECE, ACK | ECE | FIN | PSH]);
}

#[test]
fn a_frame_of_one_segment_is_finished() {
    for packet in [
        tcp(false, 1000),
        tcp(true, 999),
        udp(false, 1),
        udp(true, 0),
    ] {
        let (header, frame) = packet.super_frame(1000);
        let segmenter = Segmenter::new(&frame, &header).unwrap();
        assert_eq!(segmenter.segments(), 1);
        assert_eq!(segmenter.segment_len(), frame.len());
        assert_eq!(cut(&frame, &header).unwrap(), [packet.frame()]);
    }
}

#[test]
fn all_segments_but_the_last_are_of_the_segment_length() {
    let (header, frame) = tcp(false, 2500).super_frame(1000);
    let segmenter = Segmenter::new(&frame, &header).unwrap();
    assert_eq!(
        (segmenter.header_len(), segmenter.segment_len()),
        (54, 1054)
    );
    let lens: Vec<usize> = cut(&frame, &header).unwrap().iter().map(Vec::len).collect();
    assert_eq!(lens, [1054, 1054, 554]);
}

#[test]
fn udp_over_ipv4_may_go_without_a_checksum() {
    let mut packet = udp(false, 100);
    packet.udp_checksum = false;
    let header = VnetHeader {
        needs_csum: false,
        ..packet.super_frame(60).0
    };
    let frames = cut(&packet.frame(), &header).unwrap();
    assert!(frames.iter().all(|frame| frame[40..42] == [0, 0]));
}

#[test]
fn a_computed_udp_checksum_of_zero_is_written_as_ones() {
    let mut packet = udp(false, 0);
    packet.payload = vec![0; 4];
    let frame = packet.frame();
    // The checksum as payload makes the sum all ones, and its complement 0.
    packet.payload[2..].copy_from_slice(&frame[40..42]);
    let (header, frame) = packet.super_frame(1000);
    let frames = cut(&frame, &header).unwrap();
    assert_eq!(frames[0][40..42], [0xff, 0xff]);
    assert!(checksums_are_right(&frames[0]));
}

#[test]
fn a_pseudo_header_with_another_destination_is_kept() {
    // Behind an IPv6 routing header the sender sums the final destination's address.
    let (header, mut frame) = udp(true, 100).super_frame(60);
    let field = u16::from_be_bytes([frame[60], frame[61]]);
    frame[60..62].copy_from_slice(&(field - 1).to_be_bytes());
    let frames = cut(&frame, &header).unwrap();
    let honest: Vec<_> = udp(true, 100).cut(60).iter().map(Packet::frame).collect();
    for (frame, honest) in frames.iter().zip(honest) {
        let [field, expected] = [frame, &honest].map(|f| u16::from_be_bytes([f[60], f[61]]));
        assert_eq!(field, expected + 1);
    }
}

#[test]
fn header_length_is_not_believed() {
    let (header, frame) = tcp(false, 3000).super_frame(1000);
    let expected = cut(&frame, &header);
    for hdr_len in [0, 1, 54, 55, u16::MAX] {
        let lying = VnetHeader { hdr_len, ..header };
        assert_eq!(cut(&frame, &lying), expected);
    }
}

#[test]
fn frames_without_a_gso_type_are_refused() {
    let (header, frame) = tcp(false, 3000).super_frame(1000);
    let header = VnetHeader {
        gso_type: GsoType::None,
        ..header
    };
    assert_eq!(cut(&frame, &header), Err(BadSuperFrame::NotSegmented));
}

#[test]
fn headers_that_are_not_of_the_type_are_refused() {
    let types = [GsoType::TcpV4, GsoType::TcpV6, GsoType::UdpL4];
    for packet in [
        tcp(false, 100),
        tcp(true, 100),
        udp(false, 100),
        udp(true, 100),
    ] {
        let (header, frame) = packet.super_frame(50);
        for gso_type in types.into_iter().filter(|other| *other != header.gso_type) {
            let lying = VnetHeader { gso_type, ..header };
            assert_eq!(cut(&frame, &lying), Err(BadSuperFrame::Headers(gso_type)));
        }
    }
}

#[test]
fn a_tcp_header_length_that_lies_is_refused() {
    let (header, frame) = tcp(false, 20).super_frame(50);
    for (words, honest) in [(4, false), (5, true), (10, true), (11, false)] {
        let mut lying = frame.clone();
        lying[34 + 12] = words << 4;
        assert_eq!(cut(&lying, &header).is_ok(), honest, "{words} words");
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let (header, frame) = udp(false, 100).super_frame(50);
    let padded = [&frame[..], &[0]].concat();
    assert_eq!(cut(&padded, &header), Err(BadSuperFrame::Length));
    let mut lying = frame.clone();
    lying[39] -= 1;
    assert_eq!(cut(&lying, &header), Err(BadSuperFrame::Length));
    let short = &frame[..frame.len() - 1];
    let refused = BadSuperFrame::Headers(GsoType::UdpL4);
    assert_eq!(cut(short, &header), Err(refused));
}

#[test]
fn a_checksum_field_elsewhere_is_refused_if_it_counts() {
    let (header, frame) = tcp(false, 3000).super_frame(1000);
    for (csum_start, csum_offset) in [(33, 16), (34, 15), (34, 17), (0, 50), (u16::MAX, u16::MAX)] {
        let lying = VnetHeader {
            csum_start,
            csum_offset,
            ..header
        };
        let refused = BadSuperFrame::ChecksumField {
            start: csum_start,
            offset: csum_offset,
        };
        assert_eq!(cut(&frame, &lying), Err(refused));
        let without = VnetHeader {
            needs_csum: false,
            ..lying
        };
        assert_eq!(cut(&frame, &without), cut(&frame, &header));
    }
}

#[test]
fn segment_sizes_are_bounded_below() {
    let (header, frame) = tcp(false, SEGMENTS_MAX + 1).super_frame(1);
    let none = VnetHeader {
        gso_size: 0,
        ..header
    };
    assert_eq!(cut(&frame, &none), Err(BadSuperFrame::NoSegmentSize));
    let refused = BadSuperFrame::Segments(SEGMENTS_MAX + 1);
    assert_eq!(cut(&frame, &header), Err(refused));
    let (header, frame) = tcp(false, SEGMENTS_MAX).super_frame(1);
    assert_eq!(cut(&frame, &header).unwrap().len(), SEGMENTS_MAX);
}

#[test]
fn headers_too_long_for_a_slot_are_refused() {
    // Destination options (RFC 8200 section 4.6) before the transport header.
    let with_options = |len: u8| {
        let (mut header, mut frame) = tcp(true, 100).super_frame(50);
        let options = [&[6, len / 8 - 1][..], &vec![0; usize::from(len) - 2]].concat();
        frame.splice(54..54, options);
        frame[20] = 60;
        let payload_len = u16::from_be_bytes([frame[18], frame[19]]) + u16::from(len);
        frame[18..20].copy_from_slice(&payload_len.to_be_bytes());
        header.csum_start += u16::from(len);
        cut(&frame, &header).map(|frames| frames.len())
    };
    assert_eq!(with_options(168), Ok(2));
    assert_eq!(with_options(176), Err(BadSuperFrame::HeaderLength(250)));
}

#[test]
#[should_panic(expected = "no segment 3")]
fn there_is_no_segment_behind_the_last() {
    let (header, frame) = tcp(false, 3000).super_frame(1000);
    let segmenter = Segmenter::new(&frame, &header).unwrap();
    segmenter.emit(3, &mut [0; HEADER_LEN_MAX]);
}

/// A super-frame of up to 64 KiB and where to cut it.
fn any_super_packet() -> impl Strategy<Value = (Packet, u16)> {
    let sizes = prop_oneof![3 => 1_usize..4000, 1 => 4000_usize..65_000];
    sizes.prop_flat_map(|len| {
        let gso_size_min = u16::try_from(len.div_ceil(SEGMENTS_MAX)).unwrap();
        let gso_sizes = prop_oneof![gso_size_min..gso_size_min + 100, 500_u16..2000];
        (any_packet(len, false), gso_sizes)
    })
}

proptest! {
    #[test]
    fn segments_are_those_of_the_naive_way((packet, gso_size) in any_super_packet(), partial: bool) {
        prop_assume!(!packet.payload.is_empty());
        let (header, frame) = if partial {
            packet.super_frame(gso_size)
        } else {
            let header = VnetHeader { needs_csum: false, ..packet.super_frame(gso_size).0 };
            (header, packet.frame())
        };
        let mut packets = packet.cut(gso_size.into());
        if partial {
            packets.iter_mut().for_each(|packet| packet.udp_checksum = true);
        }
        let frames = cut(&frame, &header).unwrap();
        prop_assert_eq!(frames.len(), packets.len());
        for (frame, packet) in frames.iter().zip(&packets) {
            prop_assert!(checksums_are_right(frame));
            prop_assert!(*frame == packet.frame(), "not {packet:?}");
        }
    }

    #[test]
    fn no_bytes_panic(frame in vec(any::<u8>(), 0..300), header: [u8; vnet::HEADER_LEN]) {
        if let Some(header) = VnetHeader::parse(&header) {
            let _ = cut(&frame, &header);
        }
    }

    #[test]
    fn a_mangled_super_frame_is_refused_or_cut_without_a_lost_byte(
        packet in any_packet(3000, false),
        mangling in vec((any::<Index>(), any::<u8>()), 0..4),
        header in any_lie(),
        cut_short in prop::option::of(any::<Index>()),
    ) {
        let (honest, mut frame) = packet.super_frame(1 + header.gso_size % 2000);
        for (at, value) in mangling {
            let at = at.index(packet.header_len());
            frame[at] = value;
        }
        if let Some(len) = cut_short {
            frame.truncate(len.index(frame.len()));
        }
        for header in [honest, header] {
            let Ok(segmenter) = Segmenter::new(&frame, &header) else { continue };
            let header_len = segmenter.header_len();
            let frames = cut(&frame, &header).unwrap();
            let payload: Vec<u8> = frames.iter().flat_map(|frame| &frame[header_len..]).copied().collect();
            prop_assert_eq!(&payload, &frame[header_len..]);
            let (last, others) = frames.split_last().unwrap();
            prop_assert!(others.iter().all(|frame| frame.len() == segmenter.segment_len()));
            prop_assert!(last.len() <= segmenter.segment_len());
        }
    }
}

/// A header that has to do with a frame only by chance.
fn any_lie() -> impl Strategy<Value = VnetHeader> {
    let types = prop::sample::select(vec![
        GsoType::None,
        GsoType::TcpV4,
        GsoType::TcpV6,
        GsoType::UdpL4,
    ]);
    let starts = prop_oneof![Just(34_u16), Just(54), any::<u16>()];
    let offsets = prop_oneof![Just(6_u16), Just(16), any::<u16>()];
    let gso_sizes = prop_oneof![0_u16..3, 500..2000_u16, any::<u16>()];
    (
        any::<[bool; 2]>(),
        types,
        any::<u16>(),
        gso_sizes,
        starts,
        offsets,
    )
        .prop_map(
            |([needs_csum, ecn], gso_type, hdr_len, gso_size, csum_start, csum_offset)| {
                VnetHeader {
                    needs_csum,
                    gso_type,
                    ecn,
                    hdr_len,
                    gso_size,
                    csum_start,
                    csum_offset,
                }
            },
        )
}

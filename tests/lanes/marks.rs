//! Marks, as they cross the TAP: in place of a frame's source MAC.

use silk_vtep::DropReason;
use silk_vtep::offload::Segmenter;
use silk_vtep::tables::{GroupEntry, Local, MarkSource};
use silk_vtep::wire::ethernet::{self, Frame};
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};
use silk_vtep::wire::vxlan::{self, Header};
use silk_vtep::wire::{GroupId, MacAddr, Mark, mark_tag};

use crate::cell::{Cell, container};
use crate::runs::{tcp_packet, udp_frame};

/// Two cells that take marks from `marks`. The group table of each has group 9 for its container.
fn cells(marks: MarkSource) -> (Cell, Cell) {
    [(1, 2), (2, 1)]
        .map(|(own, peer)| cell(own, peer, marks))
        .into()
}

fn cell(own: u8, peer: u8, marks: MarkSource) -> Cell {
    let cell = Cell::new(own, &[peer]);
    let group = GroupEntry {
        address: container(cell.vtep).into(),
        id: GroupId(9),
    };
    cell.recompile(&[peer], vec![group], |local| Local { marks, ..local });
    cell
}

fn mac(cell: &Cell) -> MacAddr {
    MacAddr::overlay(cell.vtep)
}

/// The host sends a frame that its program gave this source.
fn host_sends(from: &mut Cell, to: &Cell, source: MacAddr) {
    let mut frame = udp_frame(from, to, 5000, 0, b"who is it?");
    ethernet::write_source(&mut frame, source);
    from.lanes[0].tap().host_sends(&frame);
    from.lanes[0].egress_batch().expect("memory does not fail");
}

/// The VXLAN header and inner source MAC of each datagram sent.
fn sent(cell: &mut Cell) -> Vec<(Header, MacAddr)> {
    std::iter::from_fn(|| cell.lanes[0].underlay().take_sent())
        .map(|datagram| {
            let (header, frame) = datagram.payload.split_at(vxlan::HEADER_LEN);
            let header = header.try_into().expect("eight bytes");
            let frame = Frame::new_checked(frame).expect("a frame");
            let header = Header::parse(header, true).expect("a header of ours");
            (header, frame.source())
        })
        .collect()
}

/// What one frame of source MAC `source` became: the mark sent, or why it was dropped.
fn judged(cells: (Cell, Cell), source: MacAddr) -> Result<Option<Mark>, DropReason> {
    let (mut a, b) = cells;
    host_sends(&mut a, &b, source);
    let drops: Vec<_> = a.counters.totals().drops().collect();
    match (&sent(&mut a)[..], &drops[..]) {
        (&[(header, source)], []) => {
            assert_eq!(source, mac(&a), "the TAP's own MAC is back");
            Ok(header.mark)
        }
        (&[], &[(reason, 1)]) => Err(reason),
        other => panic!("sent and dropped: {other:?}"),
    }
}

#[test]
fn the_packets_own_mark_is_sent_and_no_other() {
    let own = |source| judged(cells(MarkSource::Packet), source);
    let a = mac(&cells(MarkSource::Packet).0);
    assert_eq!(own(a), Ok(None), "whatever the group table says");
    for (mark, sent) in [
        (3, 3),
        (0x0048_abcd, 0x0048_abcd),
        (0xffff_0000, 0x0048_0000),
        (0xdead_beef, 0x0008_beef),
    ] {
        assert_eq!(own(mark_tag::emit(Mark(mark))), Ok(Some(Mark(sent))));
    }
}

#[test]
fn a_forged_mark_is_a_counted_drop() {
    for marks in [MarkSource::Packet, MarkSource::Table, MarkSource::Off] {
        assert_eq!(
            judged(cells(marks), mark_tag::emit(Mark::NONE)),
            Err(DropReason::ForgedMark)
        );
    }
}

/// A frame that waited in the TAP, or a program that an earlier daemon left.
#[test]
fn a_tag_that_nobody_asked_for_means_nothing_and_leaves_no_trace() {
    let tag = mark_tag::emit(Mark(3));
    let group = Mark::from(GroupId(9));
    assert_eq!(judged(cells(MarkSource::Table), tag), Ok(Some(group)));
    assert_eq!(judged(cells(MarkSource::Off), tag), Ok(None));
    let detached = cells(MarkSource::Packet);
    detached.0.mark_tags.set(false);
    assert_eq!(judged(detached, tag), Ok(None));
}

#[test]
fn every_segment_of_a_super_frame_has_the_mark_and_the_taps_mac() {
    let (mut a, b) = cells(MarkSource::Packet);
    let mut packet = tcp_packet(&a, &b, 0, &[7; 20_000]).to_vec();
    let frame = &mut packet[vnet::HEADER_LEN..];
    ethernet::write_source(frame, mark_tag::emit(Mark(0x0040_0003)));
    a.lanes[0].tap().host_sends_packet(packet.into());
    a.lanes[0].egress_batch().expect("memory does not fail");
    let sent = sent(&mut a);
    assert_eq!(sent.len(), 20);
    for (header, source) in sent {
        assert_eq!((header.mark, source), (Some(Mark(0x0040_0003)), mac(&a)));
    }
}

/// What the host gets of a frame: its source MAC, with what the peer sent it under.
fn delivered(to: Cell, from: &Cell, header: [u8; 8], source: MacAddr) -> MacAddr {
    let mut to = to;
    let mut frame = udp_frame(from, &to, 5000, 0, b"it is me");
    ethernet::write_source(&mut frame, source);
    let payload = [&header[..], &frame].concat().into();
    let mut sent = {
        let mut sender = Cell::new(2, &[1]);
        sender.send(0, &to, 5000, b"");
        sender.lanes[0].underlay().take_sent().expect("sent")
    };
    sent.payload = payload;
    to.lanes[0].underlay().arrive(sent);
    to.lanes[0].ingress_batch().expect("memory does not fail");
    let packet = to.lanes[0].tap().host_receives().expect("delivered");
    let got = &packet[vnet::HEADER_LEN..];
    let (macs, rest) = got.split_at(ethernet::SOURCE.end);
    assert_eq!(rest, &frame[ethernet::SOURCE.end..]);
    assert_eq!(macs[ethernet::DESTINATION], frame[ethernet::DESTINATION]);
    assert_eq!(packet[..vnet::HEADER_LEN], [0; vnet::HEADER_LEN]);
    Frame::new_checked(got).expect("a frame").source()
}

fn word(word: u32) -> [u8; 8] {
    (u64::from(word) << 32 | 1 << 8).to_be_bytes()
}

#[test]
fn the_host_is_told_the_mark_that_a_kernel_device_would_leave() {
    for (header, mark) in [
        (0x8800_0003, Some(3)),
        (0x8848_1234, Some(0x0048_1234)),
        (0x88b7_1234, Some(0x1234)),
        (0x8800_0000, None),
        (0x0800_0000, None),
        (0x0800_1234, None),
    ] {
        let (to, from) = cells(MarkSource::Packet);
        let told = delivered(to, &from, word(header), mac(&from));
        let tag = mark.map(|mark| mark_tag::emit(Mark(mark)));
        assert_eq!(told, tag.unwrap_or(mac(&from)), "{header:#x}");
    }
}

#[test]
fn no_peers_mac_becomes_a_mark() {
    let forged = mark_tag::emit(Mark(3));
    for marks in [MarkSource::Packet, MarkSource::Table, MarkSource::Off] {
        for (header, told) in [(0x0800_0000, 0), (0x8800_0000, 0), (0x8800_0005, 5)] {
            let (to, from) = cells(marks);
            let told = if marks == MarkSource::Packet { told } else { 0 };
            assert_eq!(
                delivered(to, &from, word(header), forged),
                mark_tag::emit(Mark(told)),
                "{marks:?} {header:#x}"
            );
        }
    }
}

#[test]
fn without_programs_the_host_is_told_nothing() {
    let group_3 = word(0x8800_0003);
    for marks in [MarkSource::Table, MarkSource::Off] {
        let (to, from) = cells(marks);
        assert_eq!(delivered(to, &from, group_3, mac(&from)), mac(&from));
    }
    let (to, from) = cells(MarkSource::Packet);
    to.mark_tags.set(false);
    assert_eq!(delivered(to, &from, group_3, mac(&from)), mac(&from));
}

/// Runs of one mark are joined, and their one header says it; another mark is another run.
#[test]
fn a_joined_run_has_the_one_mark_of_its_frames() {
    let (mut a, mut b) = cells(MarkSource::Packet);
    for (round, mark) in [3, 3, 4].into_iter().enumerate() {
        let mut packet = tcp_packet(&a, &b, round as u32 * 10_000, &[7; 10_000]).to_vec();
        ethernet::write_source(&mut packet[vnet::HEADER_LEN..], mark_tag::emit(Mark(mark)));
        a.lanes[0].tap().host_sends_packet(packet.into());
    }
    a.lanes[0].egress_batch().expect("memory does not fail");
    while let Some(datagram) = a.lanes[0].underlay().take_sent() {
        b.lanes[0].underlay().arrive(datagram);
    }
    for _ in 0..4 {
        b.lanes[0].ingress_batch().expect("memory does not fail");
    }
    let packets = std::iter::from_fn(|| b.lanes[0].tap().host_receives());
    let mut segments = Vec::new();
    let mut writes = 0;
    for packet in packets {
        writes += 1;
        let header = packet.first_chunk().and_then(VnetHeader::parse);
        let header = header.expect("a header");
        let frame = &packet[vnet::HEADER_LEN..];
        let source = Frame::new_checked(frame).expect("a frame").source();
        let count = match header.gso_type {
            GsoType::None => 1,
            _ => Segmenter::new(frame, &header).expect("honest").segments(),
        };
        segments.extend(std::iter::repeat_n(mark_tag::parse(source), count));
    }
    assert!(writes < segments.len(), "none were joined");
    let of = |mark| {
        segments
            .iter()
            .filter(|&&tag| tag == Some(Mark(mark)))
            .count()
    };
    assert_eq!((of(3), of(4), segments.len()), (20, 10, 30));
}

/// A TAP that takes no super-frames is given each frame, with its mark.
#[test]
fn frames_written_one_by_one_have_the_mark_too() {
    let (mut a, mut b) = cells(MarkSource::Packet);
    let mut packet = tcp_packet(&a, &b, 0, &[7; 5_000]).to_vec();
    ethernet::write_source(&mut packet[vnet::HEADER_LEN..], mark_tag::emit(Mark(3)));
    a.lanes[0].tap().host_sends_packet(packet.into());
    a.lanes[0].egress_batch().expect("memory does not fail");
    b.lanes[0].tap().refuse_super_frames();
    while let Some(datagram) = a.lanes[0].underlay().take_sent() {
        b.lanes[0].underlay().arrive(datagram);
    }
    b.lanes[0].ingress_batch().expect("memory does not fail");
    let sources: Vec<_> = std::iter::from_fn(|| b.lanes[0].tap().host_receives())
        .map(|packet| Frame::new_checked(&packet[vnet::HEADER_LEN..]).map(Frame::source))
        .collect();
    assert_eq!(sources, [Some(mark_tag::emit(Mark(3))); 5]);
}

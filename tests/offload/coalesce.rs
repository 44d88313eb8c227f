//! Joining frames: the rules one by one.

use silk_vtep::offload::{CoalesceOptions, RUNS_MAX, SLICES_MAX};
use silk_vtep::wire::checksum;
use silk_vtep::wire::vnet::{GsoType, VnetHeader};

use super::frames::{ACK, CWR, ECE, FIN, PSH, Packet, RST, SYN, URG, make_partial, noise};
use super::harness::{Arrival, OPTIONS, assert_faithful, coalesce, groups};

const KINDS: [(bool, bool); 4] = [(false, true), (true, true), (false, false), (true, false)];

/// `count` packets of 100 bytes that follow one another.
fn packets(v6: bool, tcp: bool, count: usize) -> Vec<Packet> {
    Packet::new(v6, tcp, noise(7, 100 * count)).cut(100)
}

fn arrivals(packets: &[Packet]) -> Vec<Arrival> {
    packets.iter().map(Arrival::from).collect()
}

fn groups_of(packets: &[Packet]) -> Vec<Vec<usize>> {
    groups(OPTIONS, &arrivals(packets))
}

/// What becomes of four packets of a kind if the third is changed.
fn with_third(v6: bool, tcp: bool, change: impl Fn(&mut Packet)) -> Vec<Vec<usize>> {
    let mut packets = packets(v6, tcp, 4);
    change(&mut packets[2]);
    groups_of(&packets)
}

fn alone(indices: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
    indices.into_iter().map(|index| vec![index]).collect()
}

#[test]
fn frames_that_follow_one_another_become_one() {
    for (v6, tcp) in KINDS {
        assert_eq!(groups_of(&packets(v6, tcp, 5)), [[0, 1, 2, 3, 4]]);
    }
}

#[test]
fn a_super_frame_has_lengths_of_its_own_and_a_partial_checksum() {
    for (v6, tcp) in KINDS {
        let mut packet = Packet::new(v6, tcp, noise(3, 350));
        packet.flags = ACK | PSH;
        let (header, frame) = packet.super_frame(100);
        let written = coalesce(OPTIONS, &[arrivals(&packet.cut(100))]);
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].header, header);
        assert_eq!(written[0].frame, frame);
    }
}

#[test]
fn a_frame_alone_passes_untouched() {
    for (v6, tcp) in KINDS {
        let arrivals = arrivals(&packets(v6, tcp, 1));
        let written = coalesce(OPTIONS, std::slice::from_ref(&arrivals));
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].header, VnetHeader::default());
        assert_eq!(written[0].frame, arrivals[0].frame);
    }
}

#[test]
fn nothing_merges_over_a_flush() {
    let packets = arrivals(&packets(false, true, 4));
    let (first, second) = packets.split_at(2);
    let written = coalesce(OPTIONS, &[first.to_vec(), second.to_vec()]);
    let groups: Vec<_> = written
        .into_iter()
        .map(|written| written.arrivals)
        .collect();
    assert_eq!(groups, [[0, 1], [2, 3]]);
}

#[test]
fn psh_and_short_segments_end_a_run() {
    let third = with_third(false, true, |packet| packet.flags |= PSH);
    assert_eq!(third, [vec![0, 1, 2], vec![3]]);
    for (v6, tcp) in KINDS {
        let third = with_third(v6, tcp, |packet| packet.payload.truncate(99));
        assert_eq!(third, [vec![0, 1, 2], vec![3]]);
    }
}

#[test]
fn a_longer_segment_begins_a_run() {
    for (v6, tcp) in KINDS {
        let third = with_third(v6, tcp, |packet| packet.payload.push(0));
        // The fourth is shorter than the third; its sequence number overlaps if it has one.
        let expected = if tcp {
            vec![vec![0, 1], vec![2], vec![3]]
        } else {
            vec![vec![0, 1], vec![2, 3]]
        };
        assert_eq!(third, expected);
    }
}

#[test]
fn segments_without_payload_pass_alone_behind_their_flow() {
    for (v6, tcp) in KINDS {
        let third = with_third(v6, tcp, |packet| packet.payload.clear());
        assert_eq!(third, [vec![0, 1], vec![2], vec![3]]);
    }
}

#[test]
fn special_flags_never_merge() {
    for flag in [SYN, FIN, RST, URG, CWR] {
        let third = with_third(false, true, |packet| packet.flags |= flag);
        assert_eq!(third, [vec![0, 1], vec![2], vec![3]], "flag {flag:#x}");
        let mut all = packets(true, true, 3);
        all.iter_mut().for_each(|packet| packet.flags |= flag);
        assert_eq!(groups_of(&all), alone(0..3), "flag {flag:#x}");
    }
}

#[test]
fn an_echo_of_congestion_merges_with_its_like() {
    let mut all = packets(false, true, 3);
    all.iter_mut().for_each(|packet| packet.flags |= ECE);
    assert_eq!(groups_of(&all), [[0, 1, 2]]);
}

#[test]
fn lost_doubled_and_swapped_segments_break_a_stream() {
    let all = packets(false, true, 6);
    let in_order = |order: [usize; 5]| order.map(|index| all[index].clone());
    assert_eq!(
        groups_of(&in_order([0, 1, 3, 4, 5])),
        [vec![0, 1], vec![2, 3, 4]]
    );
    assert_eq!(
        groups_of(&in_order([0, 1, 1, 2, 3])),
        [vec![0, 1], vec![2, 3, 4]]
    );
    assert_eq!(
        groups_of(&in_order([0, 2, 1, 3, 4])),
        [vec![0], vec![1], vec![2], vec![3, 4]]
    );
}

#[test]
fn datagrams_merge_in_the_order_they_came() {
    let mut all = packets(true, false, 4);
    all.swap(1, 2);
    assert_eq!(groups_of(&all), [[0, 1, 2, 3]]);
}

#[test]
fn identifications_count_up_unless_df_is_set() {
    for tcp in [true, false] {
        for (dont_fragment, expected) in [(true, vec![vec![0, 1, 2]]), (false, alone(0..3))] {
            let mut all = packets(false, tcp, 3);
            for packet in &mut all {
                packet.dont_fragment = dont_fragment;
                packet.id = 5;
            }
            assert_eq!(groups_of(&all), expected);
        }
    }
    let mut wrapping = packets(false, true, 5);
    wrapping
        .iter_mut()
        .for_each(|packet| packet.dont_fragment = false);
    assert_eq!(wrapping[2].id, 0);
    assert_eq!(groups_of(&wrapping), [[0, 1, 2, 3, 4]]);
}

/// The second frame's IPv4 and transport checksums, computed again.
fn mend(frame: &mut [u8], v6: bool, tcp: bool) {
    let (offset, addresses) = if v6 { (54, 22..54) } else { (34, 26..34) };
    let field = offset + if tcp { 16 } else { 6 };
    frame[field..field + 2].fill(0);
    if !v6 {
        frame[24..26].fill(0);
        let sum = !checksum::fold(checksum::sum(0, &frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let len = u64::try_from(frame.len() - offset).unwrap();
    let pseudo = checksum::sum(len + if tcp { 6 } else { 17 }, &frame[addresses]);
    let sum = !checksum::fold(checksum::sum(pseudo, &frame[offset..]));
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn every_other_header_bit_must_be_equal() {
    for (v6, tcp) in KINDS {
        let transport = if v6 { 54 } else { 34 };
        let honest = arrivals(&packets(v6, tcp, 2));
        let header_len = packets(v6, tcp, 1)[0].header_len();
        for bit in 0..header_len * 8 {
            let mut spoilt = honest.clone();
            let frame = &mut spoilt[1].frame;
            frame[bit / 8] ^= 0x80 >> (bit % 8);
            mend(frame, v6, tcp);
            let byte = bit / 8;
            let is_id = !v6 && (18..20).contains(&byte);
            let is_ip_checksum = !v6 && (24..26).contains(&byte);
            let checksum = transport + if tcp { 16 } else { 6 };
            let is_checksum = (checksum..checksum + 2).contains(&byte);
            let is_psh = tcp && byte == transport + 13 && bit % 8 == 4;
            let may_differ = is_id || is_ip_checksum || is_checksum || is_psh;
            let merged = groups(OPTIONS, &spoilt).len() == 1;
            assert_eq!(
                merged,
                may_differ,
                "v6 {v6}, tcp {tcp}, byte {byte}, bit {}",
                bit % 8
            );
        }
    }
}

#[test]
fn options_merge_if_they_are_equal() {
    let mut all = packets(false, true, 3);
    for packet in &mut all {
        packet.tcp_options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    }
    assert_eq!(groups_of(&all), [[0, 1, 2]]);
    all[2].tcp_options[7] += 1;
    assert_eq!(groups_of(&all), [vec![0, 1], vec![2]]);
}

#[test]
fn frames_from_another_tunnel_do_not_merge() {
    for (v6, tcp) in KINDS {
        let honest = arrivals(&packets(v6, tcp, 4));
        for change in [
            (|arrival| arrival.key.source = [10, 0, 32, 13].into()) as fn(&mut Arrival),
            |arrival| arrival.key.header[3] ^= 1,
            |arrival| arrival.key.header[6] ^= 1,
        ] {
            let mut spoilt = honest.clone();
            change(&mut spoilt[2]);
            assert_eq!(groups(OPTIONS, &spoilt), [vec![0, 1], vec![2], vec![3]]);
        }
    }
}

/// Spoils the first or the third of four frames, which then passes alone.
fn assert_alone(v6: bool, tcp: bool, what: &str, spoil: impl Fn(&mut Vec<u8>)) {
    for (index, expected) in [
        (0, vec![vec![0], vec![1, 2, 3]]),
        (2, vec![vec![0, 1], vec![2], vec![3]]),
    ] {
        let mut arrivals = arrivals(&packets(v6, tcp, 4));
        spoil(&mut arrivals[index].frame);
        let groups = groups(OPTIONS, &arrivals);
        assert_eq!(groups, expected, "v6 {v6}, tcp {tcp}, {what} of {index}");
    }
}

#[test]
fn wrong_checksums_pass_alone_behind_their_flow() {
    for (v6, tcp) in KINDS {
        let header_len = packets(v6, tcp, 1)[0].header_len();
        assert_alone(v6, tcp, "payload", |frame| frame[header_len] ^= 0x10);
        if !v6 {
            assert_alone(v6, tcp, "IPv4 checksum", |frame| frame[24] ^= 0x10);
        }
    }
}

#[test]
fn udp_lengths_that_lie_pass_alone() {
    for v6 in [false, true] {
        assert_alone(v6, false, "UDP length", |frame| {
            let offset = if v6 { 54 } else { 34 };
            frame[offset + 5] -= 1;
            mend(frame, v6, false);
        });
    }
}

#[test]
fn datagrams_without_a_checksum_pass_alone() {
    assert_alone(false, false, "no checksum", |frame| frame[40..42].fill(0));
    assert_alone(false, false, "no checksum, though 0 fits", |frame| {
        // The checksum as payload makes the sum all ones, whose complement is 0.
        frame[42..44].fill(0);
        mend(frame, false, false);
        frame.copy_within(40..42, 42);
        frame[40..42].fill(0);
    });
}

#[test]
fn a_partial_checksum_alone_has_a_header_that_says_so() {
    for (v6, tcp) in KINDS {
        let packet = &packets(v6, tcp, 1)[0];
        let (header, partial) = packet.super_frame(0);
        let written = coalesce(OPTIONS, &[vec![Arrival::new(partial.clone())]]);
        let expected = VnetHeader {
            gso_type: GsoType::None,
            hdr_len: 0,
            ..header
        };
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].header, expected);
        assert_eq!(written[0].frame, partial);
        assert_eq!(written[0].partial, 1);
    }
}

#[test]
fn partial_checksums_merge_with_their_like_and_with_complete_ones() {
    for (v6, tcp) in KINDS {
        let mut packet = Packet::new(v6, tcp, noise(3, 400));
        packet.flags = ACK | PSH;
        let (header, frame) = packet.super_frame(100);
        for partial in 0..1_u32 << 4 {
            let mut arrivals = arrivals(&packet.cut(100));
            for (place, arrival) in arrivals.iter_mut().enumerate() {
                if partial >> place & 1 != 0 {
                    make_partial(&mut arrival.frame);
                }
            }
            let written = coalesce(OPTIONS, std::slice::from_ref(&arrivals));
            assert_faithful(OPTIONS, &arrivals, &written);
            assert_eq!(written.len(), 1, "v6 {v6}, tcp {tcp}, {partial:04b}");
            assert_eq!(written[0].header, header);
            assert_eq!(written[0].frame, frame);
            assert_eq!(written[0].partial, partial.count_ones());
        }
    }
}

#[test]
fn checksums_neither_right_nor_partial_pass_alone_among_partial_ones() {
    for (v6, tcp) in KINDS {
        for (index, expected) in [
            (0, vec![vec![0], vec![1, 2, 3]]),
            (2, vec![vec![0, 1], vec![2], vec![3]]),
        ] {
            let mut arrivals = arrivals(&packets(v6, tcp, 4));
            for arrival in &mut arrivals {
                make_partial(&mut arrival.frame);
            }
            let field = if v6 { 54 } else { 34 } + if tcp { 16 } else { 6 };
            arrivals[index].frame[field] ^= 0x10;
            let written = coalesce(OPTIONS, std::slice::from_ref(&arrivals));
            assert_faithful(OPTIONS, &arrivals, &written);
            let groups: Vec<_> = written.iter().map(|packet| &packet.arrivals).collect();
            assert_eq!(groups, expected.iter().collect::<Vec<_>>());
            let wrong = &written[expected.iter().position(|group| *group == [index]).unwrap()];
            assert_eq!(wrong.header, VnetHeader::default());
            assert_eq!(wrong.partial, 0);
        }
    }
}

#[test]
fn a_spoilt_ipv4_header_passes_alone_whatever_the_transports_checksum_is() {
    for tcp in [true, false] {
        assert_alone(false, tcp, "IPv4 checksum", |frame| {
            make_partial(frame);
            frame[24] ^= 0x10;
        });
    }
}

/// Verification comes first: what is right is not counted as partial.
#[test]
fn a_complete_checksum_that_equals_the_pseudo_sum_is_complete() {
    for (v6, tcp) in KINDS {
        let mut arrivals = arrivals(&packets(v6, tcp, 3));
        let (start, addresses) = if v6 { (54, 22..54) } else { (34, 26..34) };
        let payload = packets(v6, tcp, 1)[0].header_len();
        let frame = &mut arrivals[1].frame;
        make_partial(frame);
        frame[payload..payload + 2].fill(0);
        // The payload's first word makes the sum over all what a complete checksum makes it.
        let len = u64::try_from(frame.len() - start).unwrap();
        let pseudo = checksum::sum(len + if tcp { 6 } else { 17 }, &frame[addresses]);
        let word = !checksum::fold(checksum::sum(pseudo, &frame[start..]));
        frame[payload..payload + 2].copy_from_slice(&word.to_be_bytes());
        let written = coalesce(OPTIONS, std::slice::from_ref(&arrivals));
        assert_faithful(OPTIONS, &arrivals, &written);
        assert_eq!((written.len(), written[0].partial), (1, 0));
    }
}

#[test]
fn a_kernel_peers_super_frame_passes_as_one() {
    let packet = Packet::new(false, true, noise(1, 9000));
    let (_, frame) = packet.super_frame(0);
    let written = coalesce(OPTIONS, &[vec![Arrival::new(frame.clone())]]);
    assert_eq!(written[0].frame, frame);
    let VnetHeader {
        gso_type, gso_size, ..
    } = written[0].header;
    assert_eq!((gso_type, gso_size), (GsoType::TcpV4, 1460));
}

#[test]
fn frames_that_are_not_plain_pass_alone() {
    for tcp in [true, false] {
        let tagged = with_third(false, tcp, |packet| packet.vlans = vec![7]);
        assert_eq!(tagged, [vec![0, 1], vec![2], vec![3]]);
        let options = with_third(false, tcp, |packet| packet.ip_options = vec![1; 4]);
        assert_eq!(options, [vec![0, 1], vec![2], vec![3]]);
        let mut padded = arrivals(&packets(false, tcp, 4));
        padded[2].frame.extend([0; 4]);
        assert_eq!(groups(OPTIONS, &padded), [vec![0, 1], vec![2], vec![3]]);
    }
}

#[test]
fn frames_over_the_mtu_pass_alone() {
    for (v6, tcp) in KINDS {
        let packets = packets(v6, tcp, 3);
        let mtu_bytes = u32::try_from(packets[0].frame().len() - 14).unwrap();
        let options = CoalesceOptions {
            mtu_bytes,
            ..OPTIONS
        };
        assert_eq!(groups(options, &arrivals(&packets)), [[0, 1, 2]]);
        let options = CoalesceOptions {
            mtu_bytes: mtu_bytes - 1,
            ..OPTIONS
        };
        assert_eq!(groups(options, &arrivals(&packets)), alone(0..3));
    }
}

#[test]
fn a_fragment_follows_all_runs_between_its_addresses() {
    let host = |host, port| {
        let mut packets = packets(false, true, 2);
        for packet in &mut packets {
            (packet.host, packet.port) = (host, port);
        }
        arrivals(&packets)
    };
    let mut all = [host(1, 1), host(2, 1), host(1, 2)].concat();
    let mut fragment = packets(false, false, 1)[0].frame();
    fragment[20] = 0x20;
    all.push(Arrival::new(fragment));
    assert_eq!(
        groups(OPTIONS, &all),
        [vec![0, 1], vec![4, 5], vec![6], vec![2, 3]]
    );
}

#[test]
fn protocols_can_be_switched_off_one_by_one() {
    let both = [packets(false, true, 2), packets(false, false, 2)].concat();
    for (tcp, udp, expected) in [
        (true, true, vec![vec![0, 1], vec![2, 3]]),
        (true, false, vec![vec![2], vec![3], vec![0, 1]]),
        (false, true, vec![vec![0], vec![1], vec![2, 3]]),
        (false, false, alone(0..4)),
    ] {
        let options = CoalesceOptions {
            tcp,
            udp,
            ..OPTIONS
        };
        assert_eq!(groups(options, &arrivals(&both)), expected);
    }
}

#[test]
fn flows_between_each_other_merge_apart() {
    let mut flows = [
        packets(false, true, 3),
        packets(true, true, 3),
        packets(false, false, 3),
    ];
    flows[2].iter_mut().for_each(|packet| packet.host = 9);
    let mixed: Vec<_> = (0..9).map(|n| flows[n % 3][n / 3].clone()).collect();
    assert_eq!(groups_of(&mixed), [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
}

#[test]
fn one_flow_too_many_writes_the_oldest() {
    let mut all = Vec::new();
    for host in 0..=u8::try_from(RUNS_MAX).unwrap() {
        let mut packets = packets(false, true, 2);
        packets.iter_mut().for_each(|packet| packet.host = host);
        all.push(packets);
    }
    let firsts = all.iter().map(|packets| packets[0].clone());
    let seconds = all.iter().map(|packets| packets[1].clone());
    let groups = groups_of(&firsts.chain(seconds).collect::<Vec<_>>());
    // The last flow's first frame drives out flow 0, whose second drives out flow 1, and so on.
    assert_eq!(groups[0], [0]);
    assert_eq!(groups[1], [1]);
    let merged = groups.iter().filter(|group| group.len() > 1).count();
    assert_eq!(merged, 0);
}

#[test]
fn a_run_ends_at_its_bound_of_frames() {
    for (v6, tcp) in KINDS {
        let lens: Vec<_> = groups_of(&packets(v6, tcp, 2 * SLICES_MAX + 1))
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lens, [SLICES_MAX, SLICES_MAX, 1]);
    }
}

#[test]
fn a_run_ends_before_64_kib() {
    for (v6, tcp) in KINDS {
        let packet = Packet::new(v6, tcp, noise(1, 64 * 1400));
        let mut packets = Vec::new();
        for (index, chunk) in packet.payload.chunks(1400).enumerate() {
            let mut next = Packet::new(v6, tcp, chunk.to_vec());
            next.sequence = packet
                .sequence
                .wrapping_add(u32::try_from(index * 1400).unwrap());
            packets.push(next);
        }
        let groups = groups_of(&packets);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [46, 18]);
    }
}

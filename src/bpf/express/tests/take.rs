//! Which frames are taken, and that nothing happens to others.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use proptest::prelude::*;

use super::fixture::*;
use crate::bpf::express::{Decision, FlowKey};
use crate::bpf::marks;
use crate::sys::bpf_machine::{self, Host, Skb};
use crate::wire::{MacAddr, ethernet, mark_tag};

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

proptest! {
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

//! Both programs in a userspace machine.

use proptest::prelude::*;

use super::*;
use crate::sys::bpf_machine::{self, Skb};
use crate::wire::{Mark, mark_tag};

const OWN: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 108, 0]);
const OTHER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);
/// As the program returns it: the upper half of the register is nothing the kernel looks at.
const NEXT: u32 = super::NEXT.cast_unsigned();

fn frame(source: MacAddr) -> Vec<u8> {
    let macs = [OWN.octets(), source.octets()].concat();
    [&macs, &[0x08, 0x00, 0x45][..], &[7; 40]].concat()
}

/// A packet of `mark` and `source`, and what became of both.
fn run(program: &Program, mark: u32, source: MacAddr) -> (u32, MacAddr) {
    let mut skb = Skb {
        mark,
        packet: frame(source),
        ..Skb::default()
    };
    assert_eq!(bpf_machine::run_on(program, &mut skb) as u32, NEXT);
    let octets = skb.packet[ethernet::SOURCE].try_into().expect("six bytes");
    let source = MacAddr::new(octets);
    // Nothing else is touched.
    assert_eq!(skb.packet, frame(source));
    (skb.mark, source)
}

#[test]
fn marks_leave_as_tags_and_only_in_place_of_our_own_mac() {
    let egress = egress(OWN, None);
    for mark in [3, 0x1234, 0x0048_abcd, 0x8000_0000, 0xdead_beef, u32::MAX] {
        let tag = mark_tag::emit(Mark(mark));
        assert_eq!(run(&egress, mark, OWN), (mark, tag));
        assert_eq!(run(&egress, mark, OTHER), (mark, OTHER));
    }
    assert_eq!(run(&egress, 0, OWN), (0, OWN));
    assert_eq!(run(&egress, 0, OTHER), (0, OTHER));
}

#[test]
fn a_forged_tag_leaves_with_its_mark_gone() {
    let none = mark_tag::emit(Mark::NONE);
    for forged in [0, 3, u32::MAX] {
        for mark in [0, 5] {
            let source = mark_tag::emit(Mark(forged));
            assert_eq!(run(&egress(OWN, None), mark, source), (mark, none));
        }
    }
}

#[test]
fn tags_arrive_as_marks_and_the_mac_is_a_stations_again() {
    let ingress = ingress();
    for mark in [0, 3, 0x0048_abcd, 0xdead_beef, u32::MAX] {
        let source = mark_tag::emit(Mark(mark));
        assert_eq!(
            run(&ingress, 0, source),
            (mark, mark_tag::LOST_SOURCE),
            "{mark:#x}"
        );
    }
    for source in [OWN, OTHER, mark_tag::LOST_SOURCE] {
        assert_eq!(run(&ingress, 9, source), (9, source), "left alone");
    }
}

#[test]
fn what_cannot_be_written_passes_without_a_mark_unless_it_was_forged() {
    let returned = |program: &Program, source| {
        let mut skb = Skb {
            mark: 3,
            packet: frame(source),
            ..Skb::default()
        };
        let returned = bpf_machine::run_on_read_only(program, &mut skb) as u32;
        assert_eq!(skb.packet, frame(source));
        returned
    };
    assert_eq!(returned(&egress(OWN, None), OWN), NEXT);
    assert_eq!(
        returned(&egress(OWN, None), mark_tag::emit(Mark(3))),
        SHOT.cast_unsigned()
    );
    assert_eq!(returned(&ingress(), mark_tag::emit(Mark(3))), NEXT);
}

#[test]
fn frames_too_short_for_a_mac_pass() {
    for program in [egress(OWN, None), ingress()] {
        for len in 0..12 {
            let packet = frame(mark_tag::emit(Mark(3)))[..len].to_vec();
            let mut skb = Skb {
                mark: 3,
                packet: packet.clone(),
                ..Skb::default()
            };
            assert_eq!(bpf_machine::run_on(&program, &mut skb) as u32, NEXT);
            assert_eq!((skb.mark, skb.packet), (3, packet));
        }
    }
}

proptest! {
    /// Whatever the host sends, the lane sees the mark of a frame of ours, no mark, or that somebody forged one.
    #[test]
    fn no_mac_becomes_a_mark(mark: u32, source: [u8; 6], is_tag: bool) {
        let mut source = source;
        if is_tag {
            source[..2].copy_from_slice(&PREFIX);
        }
        let (_, after) = run(&egress(OWN, None), mark, MacAddr::new(source));
        let seen = mark_tag::parse(after);
        prop_assert!(seen.is_none() || seen == Some(Mark::NONE), "{after}");
    }

    #[test]
    fn a_mark_goes_there_and_back(mark: u32) {
        let (_, tag) = run(&egress(OWN, None), mark, OWN);
        prop_assert_eq!(run(&ingress(), 0, tag).0, mark);
    }
}

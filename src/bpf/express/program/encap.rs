//! The headers that a frame gets, and its way out.

use std::ops::Range;

use super::{
    COUNT, HEAD_LEN, IP, IP_DESTINATION, IP_SOURCE, PACKET, REST, SEGMENT_LEN, SEGMENTS, SKB_MARK,
    SUM, TCP, TOTAL_LEN, in_decision, in_head, in_memory, stack_address,
};
use crate::bpf::Register::{Frame, R0, R1, R2, R3, R4, R5};
use crate::bpf::express::layout::{
    BYTES, HEADERS, HEADERS_LEN, INTERFACE, IP_SUM, PACKETS, UDP_CHECKSUM, UDP_SUM,
};
use crate::bpf::{Alu, Assembler, Condition, Helper, Label, Operand, Register, Size};
use crate::wire::ethernet;
use crate::wire::ip::{IPV4_HEADER_LEN, protocol};

/// TC_ACT_SHOT (linux/pkt_cls.h): the packet is dropped.
const SHOT: i32 = 2;

/// BPF_ADJ_ROOM_MAC: the room is between the Ethernet header and the IPv4 header.
const BEHIND_MAC: i32 = 1;
/// BPF_F_ADJ_ROOM_FIXED_GSO, _ENCAP_L3_IPV4, _ENCAP_L4_UDP, _ENCAP_L2_ETH, and BPF_F_ADJ_ROOM_ENCAP_L2(14): the size of segments stays,
/// and from now on this is a tunnel's packet, as `udp_tunnel_handle_offloads` would make it. (_ENCAP_L2_ETH since Linux 5.13; an older
/// kernel refuses, and no frame is taken.)
const TUNNEL: u64 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 6 | (ethernet::HEADER_LEN as u64) << 56;

/// What the outer UDP length has more than the inner total length.
const UDP_OVERHEAD: usize = HEADERS_LEN - IPV4_HEADER_LEN;

// Fields of the headers to come, which have zeros there.
const OUTER_TOTAL_LEN: usize = 2;
const OUTER_ID: usize = 4;
const OUTER_CHECKSUM: usize = 10;
const OUTER_UDP_LEN: usize = IPV4_HEADER_LEN + 4;
const OUTER_UDP_CHECKSUM: usize = IPV4_HEADER_LEN + 6;

/// The last that may fail, and the first that changes the packet.
pub(super) fn room(code: &mut Assembler, alone: Label) {
    code.mov(R1, PACKET);
    code.mov(R2, HEADERS_LEN as i32);
    code.mov(R3, BEHIND_MAC);
    code.wide_mov(R4, TUNNEL);
    code.call(Helper::SkbAdjustRoom);
    code.jump_if(Condition::NotEqual, R0, 0, alone);
}

/// Length, identification and checksum (RFC 791 section 3.1).
pub(super) fn outer_ip(code: &mut Assembler) {
    code.load(Size::Word, SUM, Frame, in_decision(&IP_SUM));
    length(code, TOTAL_LEN, HEADERS_LEN as i32);
    code.store(Size::Half, Frame, in_headers(OUTER_TOTAL_LEN), R1);
    code.alu(Alu::Add, SUM, R1);
    code.call(Helper::PrandomU32);
    code.alu(Alu::And, R0, 0xffff);
    code.store(Size::Half, Frame, in_headers(OUTER_ID), R0);
    code.alu(Alu::Add, SUM, R0);
    complement(code, SUM, R1);
    code.store(Size::Half, Frame, in_headers(OUTER_CHECKSUM), SUM);
}

/// Length, and the checksum if one can be right for every segment.
pub(super) fn outer_udp(code: &mut Assembler) {
    let [unchecked, cut, some] = code.labels();
    length(code, TOTAL_LEN, UDP_OVERHEAD as i32);
    code.store(Size::Half, Frame, in_headers(OUTER_UDP_LEN), R1);
    code.load(Size::Word, R1, Frame, in_decision(&UDP_CHECKSUM));
    code.jump_if(Condition::Equal, R1, 0, unchecked);
    code.load(Size::Double, R1, Frame, REST);
    code.jump_if(Condition::NotEqual, R1, 0, unchecked);

    // A segment's length, in the header and in the pseudo-header.
    code.load(Size::Word, SUM, Frame, in_decision(&UDP_SUM));
    length(code, SEGMENT_LEN, UDP_OVERHEAD as i32);
    code.alu(Alu::Add, SUM, R1);
    code.alu(Alu::Add, SUM, R1);

    // What is cut gets IPv4 headers whose checksum is right (`inet_gso_segment`), so they add 0.
    code.load(Size::Double, R1, Frame, SEGMENTS);
    code.jump_if(Condition::NotEqual, R1, 1, cut);
    for at in (IP..TCP).step_by(4) {
        code.load(Size::Word, R1, Frame, in_head(at));
        code.alu(Alu::Add, SUM, R1);
    }
    code.bind(cut);

    // TCP whose checksum is right adds up to 0 with its pseudo-header, so to the complement without.
    length(code, SEGMENT_LEN, -(IPV4_HEADER_LEN as i32));
    code.alu(Alu::Add, R1, in_memory(protocol::TCP.into()));
    for field in [IP_SOURCE, IP_DESTINATION] {
        code.load(Size::Word, R2, Frame, in_head(field));
        code.alu(Alu::Add, R1, R2);
    }
    complement(code, R1, R2);
    code.alu(Alu::Add, SUM, R1);
    complement(code, SUM, R1);
    code.jump_if(Condition::NotEqual, SUM, 0, some);
    // 0 would say that there is none (RFC 768).
    code.mov(SUM, 0xffff);
    code.bind(some);
    code.store(Size::Half, Frame, in_headers(OUTER_UDP_CHECKSUM), SUM);
    code.bind(unchecked);
}

/// The headers into the room, the count, and away.
pub(super) fn send(code: &mut Assembler) {
    let [lost] = code.labels();
    code.mov(R1, PACKET);
    // Behind the Ethernet header, which the next hop's will replace.
    code.mov(R2, ethernet::HEADER_LEN as i32);
    stack_address(code, R3, in_headers(0));
    code.mov(R4, HEADERS_LEN as i32);
    // No checksum covers them that the kernel keeps.
    code.mov(R5, 0);
    code.call(Helper::SkbStoreBytes);
    // Cannot be, with the room just made; but what has the room without the headers is no packet any more.
    code.jump_if(Condition::NotEqual, R0, 0, lost);
    // The mark is in the VXLAN header, and would else choose the outer packet's route.
    code.mov(R1, 0);
    code.store(Size::Word, PACKET, SKB_MARK, R1);

    code.load(Size::Double, R1, Frame, SEGMENTS);
    add_to(code, &PACKETS, R1);
    // Each segment has all the headers, and their payloads together are the frame's.
    code.load(Size::Double, R2, Frame, HEAD_LEN);
    code.alu(Alu::Sub, R1, 1);
    code.alu(Alu::Mul, R1, R2);
    code.load(Size::Double, R2, Frame, TOTAL_LEN);
    code.alu(Alu::Add, R1, R2);
    code.alu(Alu::Add, R1, ethernet::HEADER_LEN as i32);
    add_to(code, &BYTES, R1);

    code.load(Size::Word, R1, Frame, in_decision(&INTERFACE));
    for unused in [R2, R3, R4] {
        code.mov(unused, 0);
    }
    code.call(Helper::RedirectNeigh);
    code.exit();

    code.bind(lost);
    code.mov(R0, SHOT);
    code.exit();
}

/// Adds to the count. No other program runs on this CPU meanwhile that counts there.
fn add_to(code: &mut Assembler, field: &Range<usize>, number: Register) {
    let offset = field.start as i16;
    code.load(Size::Double, R3, COUNT, offset);
    code.alu(Alu::Add, R3, number);
    code.store(Size::Double, COUNT, offset, R3);
}

/// R1 is the length at `place` and some more, as two bytes of a header are loaded.
fn length(code: &mut Assembler, place: i16, more: impl Into<Operand>) {
    code.load(Size::Double, R1, Frame, place);
    code.alu(Alu::Add, R1, more);
    code.to_big_endian_half(R1);
}

/// Folds a sum to 16 bits and inverts those (RFC 1071). It is less than 2^35: after one round less than 2^20, after two less than 2^17.
fn complement(code: &mut Assembler, sum: Register, scratch: Register) {
    for _ in 0..3 {
        code.mov(scratch, sum);
        code.alu(Alu::Shr, scratch, 16);
        code.alu(Alu::And, sum, 0xffff);
        code.alu(Alu::Add, sum, scratch);
    }
    code.alu(Alu::Xor, sum, 0xffff);
}

/// Where a byte of the headers to come is.
fn in_headers(at: usize) -> i16 {
    in_decision(&HEADERS) + at as i16
}

//! The program's instructions.

use std::ops::Range;
use std::os::fd::RawFd;

use super::Maps;
use super::layout::{
    BYTES, DECISION_LEN, DONT_FRAGMENT, FLOW_KEY_LEN, FRAME_LEN_MAX, GENERATION, HEADERS,
    HEADERS_LEN, INTERFACE, IP_SUM, MACS, PACKETS, SEAL, SEAL_FACTOR, SEAL_SHIFT, SLOT,
    UDP_CHECKSUM, UDP_SUM, WORD,
};
use crate::bpf::Register::{Frame, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
use crate::bpf::{Alu, Assembler, Condition, Helper, Label, Operand, Register, Size};
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ip::{IPV4_HEADER_LEN, protocol};

/// TC_ACT_SHOT (linux/pkt_cls.h): the packet is dropped.
const SHOT: i32 = 2;

// `offsetof(struct __sk_buff, ...)` (linux/bpf.h).
const SKB_LEN: i16 = 0;
const SKB_MARK: i16 = 8;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_GSO_SIZE: i16 = 176;

/// BPF_ADJ_ROOM_MAC: the room is between the Ethernet header and the IPv4 header.
const BEHIND_MAC: i32 = 1;
/// BPF_F_ADJ_ROOM_FIXED_GSO, _ENCAP_L3_IPV4, _ENCAP_L4_UDP, _ENCAP_L2_ETH, and BPF_F_ADJ_ROOM_ENCAP_L2(14): the size of segments stays,
/// and from now on this is a tunnel's packet, as `udp_tunnel_handle_offloads` would make it. (_ENCAP_L2_ETH since Linux 5.13; an older
/// kernel refuses, and no frame is taken.)
const TUNNEL: u64 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 6 | (ethernet::HEADER_LEN as u64) << 56;

/// Of a TCP header without options (RFC 9293 section 3.1).
const TCP_HEADER_LEN: usize = 20;
/// The largest total length of an inner packet whose outer one has a length.
const TOTAL_LEN_MAX: usize = u16::MAX as usize - HEADERS_LEN;
/// What the outer UDP length has more than the inner total length.
const UDP_OVERHEAD: usize = HEADERS_LEN - IPV4_HEADER_LEN;

// Fields of the headers in the frame (RFC 791, RFC 9293).
const IP: usize = ethernet::HEADER_LEN;
const IP_VERSION: usize = IP;
const IP_TOS: usize = IP + 1;
const IP_TOTAL_LEN: usize = IP + 2;
const IP_FRAGMENT: usize = IP + 6;
const IP_TTL: usize = IP + 8;
const IP_PROTOCOL: usize = IP + 9;
const IP_SOURCE: usize = IP + 12;
const IP_DESTINATION: usize = IP + 16;
const TCP: usize = IP + IPV4_HEADER_LEN;
const TCP_DATA_OFFSET: usize = TCP + 12;
const FRAME_HEADERS_LEN: usize = TCP + TCP_HEADER_LEN;

// Fields of the headers to come, which have zeros there.
const OUTER_TOTAL_LEN: usize = 2;
const OUTER_ID: usize = 4;
const OUTER_CHECKSUM: usize = 10;
const OUTER_UDP_LEN: usize = IPV4_HEADER_LEN + 4;
const OUTER_UDP_CHECKSUM: usize = IPV4_HEADER_LEN + 6;

/// The packet, an `skb`.
const PACKET: Register = R6;
/// The generation in force; later a sum.
const FORCE: Register = R7;
const SUM: Register = R7;
/// Where the decision is in its map, until it is copied.
const VALUE: Register = R8;
/// The count in its map.
const COUNT: Register = R9;

// On the stack, from its end on.
const INDEX: i16 = -4;
/// The frame's headers, so that words in IPv4 and TCP are aligned.
const HEAD: i16 = -8 - FRAME_HEADERS_LEN as i16;
/// The flow, with zeros up to a whole word.
const KEY: i16 = -88;
const DECISION: i16 = KEY - DECISION_LEN as i16;
/// The inner total length; the same of the largest segment; Ethernet, IPv4 and TCP headers; segments; what the last one is shorter by,
/// if that is not 0.
const TOTAL_LEN: i16 = DECISION - 8;
const SEGMENT_LEN: i16 = DECISION - 16;
const HEAD_LEN: i16 = DECISION - 24;
const SEGMENTS: i16 = DECISION - 32;
const REST: i16 = DECISION - 40;

// The verifier wants words on the stack aligned, and the stack is 512 bytes.
const _: () = assert!((HEAD + IP as i16) % 8 == 0 && KEY % 8 == 0 && DECISION % 8 == 0);
const _: () = assert!(KEY + FLOW_KEY_LEN.next_multiple_of(WORD) as i16 <= HEAD && REST >= -512);
// As `WIDTHS` has it.
const _: () =
    assert!(MACS.start % 8 == 2 && (HEAD + ethernet::DESTINATION.start as i16).rem_euclid(8) == 2);

/// Puts the express path before what `code` does next. R1 is the packet (`skb`) where it begins, and again where it leaves a frame alone,
/// which it then has not touched.
pub fn emit(code: &mut Assembler, maps: Maps) {
    let [alone] = code.labels();
    code.mov(PACKET, R1);
    generation(code, maps.generation, alone);
    headers(code, alone);
    segments(code);
    decision(code, maps.flows, alone);
    fitness(code, alone);
    count(code, maps.counts, alone);
    room(code, alone);
    outer_ip(code);
    outer_udp(code);
    send(code);
    code.bind(alone);
    code.mov(R1, PACKET);
}

/// Whether anything is to be taken at all: asked first, since it costs next to nothing.
fn generation(code: &mut Assembler, map: RawFd, alone: Label) {
    code.load(Size::Word, R1, PACKET, SKB_VLAN_PRESENT);
    code.jump_if(Condition::NotEqual, R1, 0, alone);
    code.store(Size::Word, Frame, INDEX, 0);
    look_up(code, map, INDEX, alone);
    code.load(Size::Double, FORCE, R0, 0);
    code.jump_if(Condition::Equal, FORCE, 0, alone);
}

/// Ethernet, IPv4 and TCP, all there, nothing behind, on the stack from [`HEAD`].
fn headers(code: &mut Assembler, alone: Label) {
    code.mov(R1, PACKET);
    code.mov(R2, 0);
    stack_address(code, R3, HEAD);
    code.mov(R4, FRAME_HEADERS_LEN as i32);
    code.call(Helper::SkbLoadBytes);
    code.jump_if(Condition::NotEqual, R0, 0, alone);
    for (size, field, value) in [
        (
            Size::Half,
            ethernet::ETHERTYPE.start,
            in_memory(EtherType::IPV4.0),
        ),
        // Version 4, five words: no options.
        (Size::Byte, IP_VERSION, 0x45),
        (Size::Byte, IP_PROTOCOL, protocol::TCP.into()),
    ] {
        code.load(size, R1, Frame, in_head(field));
        code.jump_if(Condition::NotEqual, R1, value, alone);
    }
    // All but "don't fragment".
    code.load(Size::Half, R1, Frame, in_head(IP_FRAGMENT));
    code.jump_if(Condition::AnyBit, R1, in_memory(!DONT_FRAGMENT), alone);

    code.load(Size::Half, R1, Frame, in_head(IP_TOTAL_LEN));
    code.to_big_endian_half(R1);
    code.load(Size::Word, R2, PACKET, SKB_LEN);
    code.alu(Alu::Sub, R2, ethernet::HEADER_LEN as i32);
    code.jump_if(Condition::NotEqual, R1, R2, alone);
    code.jump_if(Condition::Greater, R1, TOTAL_LEN_MAX as i32, alone);
    code.store(Size::Double, Frame, TOTAL_LEN, R1);

    // Words, in the upper half of the byte.
    code.load(Size::Byte, R3, Frame, in_head(TCP_DATA_OFFSET));
    code.alu(Alu::And, R3, 0xf0);
    code.alu(Alu::Shr, R3, 2);
    code.jump_if(Condition::Less, R3, TCP_HEADER_LEN as i32, alone);
    code.alu(Alu::Add, R3, IPV4_HEADER_LEN as i32);
    code.jump_if(Condition::Greater, R3, R1, alone);
    code.alu(Alu::Add, R3, ethernet::HEADER_LEN as i32);
    code.store(Size::Double, Frame, HEAD_LEN, R3);
}

/// How many there will be, how long, and whether all alike.
fn segments(code: &mut Assembler) {
    let [whole, known] = code.labels();
    code.load(Size::Double, R1, Frame, TOTAL_LEN);
    code.load(Size::Word, R2, PACKET, SKB_GSO_SIZE);
    code.load(Size::Double, R3, Frame, HEAD_LEN);
    code.alu(Alu::Sub, R3, ethernet::HEADER_LEN as i32);
    // The payload.
    code.mov(R4, R1);
    code.alu(Alu::Sub, R4, R3);
    code.jump_if(Condition::Equal, R2, 0, whole);
    code.jump_if(Condition::Less, R4, R2, whole);
    code.jump_if(Condition::Equal, R4, R2, whole);
    code.alu(Alu::Add, R3, R2);
    code.store(Size::Double, Frame, SEGMENT_LEN, R3);
    code.mov(R5, R4);
    code.alu(Alu::Add, R5, R2);
    code.alu(Alu::Sub, R5, 1);
    code.alu(Alu::Div, R5, R2);
    code.store(Size::Double, Frame, SEGMENTS, R5);
    code.alu(Alu::Mod, R4, R2);
    code.store(Size::Double, Frame, REST, R4);
    code.jump(known);

    code.bind(whole);
    code.store(Size::Double, Frame, SEGMENT_LEN, R1);
    code.store(Size::Double, Frame, SEGMENTS, 1);
    code.store(Size::Double, Frame, REST, 0);
    code.bind(known);
}

/// A copy of the flow's, on the stack from [`DECISION`], if it is of this flow and this generation.
fn decision(code: &mut Assembler, map: RawFd, alone: Label) {
    // As `layout::flow_key` has it.
    for (at, from) in [(0, IP_SOURCE), (4, IP_DESTINATION), (8, TCP)] {
        code.load(Size::Word, R1, Frame, in_head(from));
        code.store(Size::Word, Frame, KEY + at, R1);
    }
    code.load(Size::Word, R1, PACKET, SKB_MARK);
    code.store(Size::Word, Frame, KEY + 12, R1);
    code.store(Size::Double, Frame, KEY + 16, 0);
    for (at, from) in [(16, IP_TOS), (17, IP_TTL)] {
        code.load(Size::Byte, R1, Frame, in_head(from));
        code.store(Size::Byte, Frame, KEY + at, R1);
    }
    let [may_be_cut] = code.labels();
    code.load(Size::Half, R1, Frame, in_head(IP_FRAGMENT));
    code.jump_if(Condition::Equal, R1, 0, may_be_cut);
    code.store(Size::Byte, Frame, KEY + 18, 1);
    code.bind(may_be_cut);

    look_up(code, map, KEY, alone);
    code.mov(VALUE, R0);
    seal(code);
    code.load(Size::Double, R2, VALUE, SEAL.start as i16);
    code.jump_if(Condition::NotEqual, R0, R2, alone);
    code.load(Size::Double, R1, Frame, in_decision(&GENERATION));
    code.jump_if(Condition::NotEqual, R1, FORCE, alone);
}

/// Copies what the decision has behind its seal. R0 is the seal of that and the flow, as `layout::seal` makes it.
fn seal(code: &mut Assembler) {
    code.mov(R0, 0);
    code.wide_mov(R3, SEAL_FACTOR);
    for at in (0..FLOW_KEY_LEN as i16).step_by(WORD) {
        code.load(Size::Double, R1, Frame, KEY + at);
        mix(code);
    }
    for at in (SEAL.end as i16..DECISION_LEN as i16).step_by(WORD) {
        code.load(Size::Double, R1, VALUE, at);
        code.store(Size::Double, Frame, DECISION + at, R1);
        mix(code);
    }
}

/// R1 into the seal of R0, by the factor of R3.
fn mix(code: &mut Assembler) {
    code.alu(Alu::Xor, R0, R1);
    code.alu(Alu::Mul, R0, R3);
    code.mov(R1, R0);
    code.alu(Alu::Shr, R1, SEAL_SHIFT);
    code.alu(Alu::Xor, R0, R1);
}

/// Whether the frame is one the decision is for.
fn fitness(code: &mut Assembler, alone: Label) {
    /// Twelve bytes that begin two behind a double word.
    const WIDTHS: [(i16, Size); 4] = [
        (0, Size::Half),
        (2, Size::Word),
        (6, Size::Word),
        (10, Size::Half),
    ];
    for (at, size) in WIDTHS {
        code.load(size, R1, Frame, HEAD + at);
        code.load(size, R2, Frame, in_decision(&MACS) + at);
        code.jump_if(Condition::NotEqual, R1, R2, alone);
    }
    code.load(Size::Double, R1, Frame, SEGMENT_LEN);
    code.alu(Alu::Add, R1, ethernet::HEADER_LEN as i32);
    code.load(Size::Word, R2, Frame, in_decision(&FRAME_LEN_MAX));
    code.jump_if(Condition::Greater, R1, R2, alone);
}

/// Where it will be counted.
fn count(code: &mut Assembler, map: RawFd, alone: Label) {
    code.load(Size::Word, R1, Frame, in_decision(&SLOT));
    code.store(Size::Word, Frame, INDEX, R1);
    look_up(code, map, INDEX, alone);
    code.mov(COUNT, R0);
}

/// The last that may fail, and the first that changes the packet.
fn room(code: &mut Assembler, alone: Label) {
    code.mov(R1, PACKET);
    code.mov(R2, HEADERS_LEN as i32);
    code.mov(R3, BEHIND_MAC);
    code.wide_mov(R4, TUNNEL);
    code.call(Helper::SkbAdjustRoom);
    code.jump_if(Condition::NotEqual, R0, 0, alone);
}

/// Length, identification and checksum (RFC 791 section 3.1).
fn outer_ip(code: &mut Assembler) {
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
fn outer_udp(code: &mut Assembler) {
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
fn send(code: &mut Assembler) {
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

/// R0 is the address of what `map` has for the key at `key`.
fn look_up(code: &mut Assembler, map: RawFd, key: i16, absent: Label) {
    code.mov_map(R1, map);
    stack_address(code, R2, key);
    code.call(Helper::MapLookupElem);
    code.jump_if(Condition::Equal, R0, 0, absent);
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

fn stack_address(code: &mut Assembler, register: Register, place: i16) {
    code.mov(register, Frame);
    code.alu(Alu::Add, register, i32::from(place));
}

/// Where a byte of the frame is on the stack.
fn in_head(at: usize) -> i16 {
    HEAD + at as i16
}

/// Where a field of the decision is.
fn in_decision(field: &Range<usize>) -> i16 {
    DECISION + field.start as i16
}

/// Where a byte of the headers to come is.
fn in_headers(at: usize) -> i16 {
    in_decision(&HEADERS) + at as i16
}

/// Two bytes of a header as a load finds them.
fn in_memory(number: u16) -> i32 {
    u16::from_ne_bytes(number.to_be_bytes()).into()
}

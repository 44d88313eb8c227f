//! Whether a frame is one to take: nothing here changes it.

use std::os::fd::RawFd;

use super::{
    COUNT, DECISION, FORCE, FRAME_HEADERS_LEN, HEAD, HEAD_LEN, INDEX, IP_DESTINATION, IP_FRAGMENT,
    IP_PROTOCOL, IP_SOURCE, IP_TOS, IP_TOTAL_LEN, IP_TTL, IP_VERSION, KEY, PACKET, REST,
    SEGMENT_LEN, SEGMENTS, SKB_GSO_SIZE, SKB_LEN, SKB_MARK, SKB_VLAN_PRESENT, TCP, TCP_DATA_OFFSET,
    TCP_HEADER_LEN, TOTAL_LEN, VALUE, in_decision, in_head, in_memory, stack_address,
};
use crate::bpf::Register::{Frame, R0, R1, R2, R3, R4, R5};
use crate::bpf::express::layout::{
    DECISION_LEN, DONT_FRAGMENT, FLOW_KEY_LEN, FRAME_LEN_MAX, GENERATION, HEADERS_LEN, MACS, SEAL,
    SEAL_FACTOR, SEAL_SHIFT, SLOT, WORD,
};
use crate::bpf::{Alu, Assembler, Condition, Helper, Label, Size};
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ip::{IPV4_HEADER_LEN, protocol};

/// The largest total length of an inner packet whose outer one has a length.
const TOTAL_LEN_MAX: usize = u16::MAX as usize - HEADERS_LEN;

/// Whether anything is to be taken at all: asked first, since it costs next to nothing.
pub(super) fn generation(code: &mut Assembler, map: RawFd, alone: Label) {
    code.load(Size::Word, R1, PACKET, SKB_VLAN_PRESENT);
    code.jump_if(Condition::NotEqual, R1, 0, alone);
    code.store(Size::Word, Frame, INDEX, 0);
    look_up(code, map, INDEX, alone);
    code.load(Size::Double, FORCE, R0, 0);
    code.jump_if(Condition::Equal, FORCE, 0, alone);
}

/// Ethernet, IPv4 and TCP, all there, nothing behind, on the stack from [`HEAD`].
pub(super) fn headers(code: &mut Assembler, alone: Label) {
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
pub(super) fn segments(code: &mut Assembler) {
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
pub(super) fn decision(code: &mut Assembler, map: RawFd, alone: Label) {
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
pub(super) fn fitness(code: &mut Assembler, alone: Label) {
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
pub(super) fn count(code: &mut Assembler, map: RawFd, alone: Label) {
    code.load(Size::Word, R1, Frame, in_decision(&SLOT));
    code.store(Size::Word, Frame, INDEX, R1);
    look_up(code, map, INDEX, alone);
    code.mov(COUNT, R0);
}

/// R0 is the address of what `map` has for the key at `key`.
fn look_up(code: &mut Assembler, map: RawFd, key: i16, absent: Label) {
    code.mov_map(R1, map);
    stack_address(code, R2, key);
    code.call(Helper::MapLookupElem);
    code.jump_if(Condition::Equal, R0, 0, absent);
}

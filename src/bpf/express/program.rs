//! The program's instructions: what it [takes](take), and what it makes of it ([`encap`]). Here is what both know: registers, the stack,
//! and where in the frame what is.

mod encap;
mod take;

use std::ops::Range;

use super::Maps;
use super::layout::{DECISION_LEN, FLOW_KEY_LEN, MACS, WORD};
use crate::bpf::Register::{Frame, R1, R6, R7, R8, R9};
use crate::bpf::{Alu, Assembler, Register};
use crate::wire::ethernet;
use crate::wire::ip::IPV4_HEADER_LEN;

// `offsetof(struct __sk_buff, ...)` (linux/bpf.h).
const SKB_LEN: i16 = 0;
const SKB_MARK: i16 = 8;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_GSO_SIZE: i16 = 176;

/// Of a TCP header without options (RFC 9293 section 3.1).
const TCP_HEADER_LEN: usize = 20;

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
/// The inner total length.
const TOTAL_LEN: i16 = DECISION - 8;
/// The same of the largest segment.
const SEGMENT_LEN: i16 = DECISION - 16;
/// Bytes of the inner Ethernet, IPv4 and TCP headers.
const HEAD_LEN: i16 = DECISION - 24;
/// How many datagrams there will be.
const SEGMENTS: i16 = DECISION - 32;
/// Payload of the last of several, if that is shorter than the others; else 0.
const REST: i16 = DECISION - 40;

// The verifier wants words on the stack aligned, and the stack is 512 bytes.
const _: () = assert!((HEAD + IP as i16) % 8 == 0 && KEY % 8 == 0 && DECISION % 8 == 0);
const _: () = assert!(KEY + FLOW_KEY_LEN.next_multiple_of(WORD) as i16 <= HEAD && REST >= -512);
// As `take::fitness` compares them.
const _: () =
    assert!(MACS.start % 8 == 2 && (HEAD + ethernet::DESTINATION.start as i16).rem_euclid(8) == 2);

/// Puts the express path before what `code` does next. R1 is the packet (`skb`) where it begins, and again where it leaves a frame alone,
/// which it then has not touched.
pub fn emit(code: &mut Assembler, maps: Maps) {
    let [alone] = code.labels();
    code.mov(PACKET, R1);
    take::generation(code, maps.generation, alone);
    take::headers(code, alone);
    take::segments(code);
    take::decision(code, maps.flows, alone);
    take::fitness(code, alone);
    take::count(code, maps.counts, alone);
    encap::room(code, alone);
    encap::outer_ip(code);
    encap::outer_udp(code);
    encap::send(code);
    code.bind(alone);
    code.mov(R1, PACKET);
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

/// Two bytes of a header as a load finds them.
fn in_memory(number: u16) -> i32 {
    u16::from_ne_bytes(number.to_be_bytes()).into()
}

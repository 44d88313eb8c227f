//! Keys and values as the maps hold them, and where in them the program finds what.
//!
//! A decision holds the headers that a frame gets as they will be in it, with zeros where the frame itself decides, and their sums, so
//! that the program adds up only the rest.
//!
//! ```text
//!   0 seal                                                    u64
//!   8 generation                                              u64
//!  16 interface, slot                                         u32 each
//!  24 frame_len_max                                           u32
//!  28 udp_checksum                                            u32, 0 or 1
//!  32 sum of the outer IPv4 header                            u32, in the host's order, not folded
//!  36 sum of the outer pseudo-header and all behind it        u32, without the two lengths
//!  40 outer IPv4, UDP, VXLAN, inner Ethernet                  50 bytes
//!  90 destination and source MAC that a frame must have       12 bytes
//! 102 zeros
//! 104
//! ```
//!
//! **The seal** is a number made of the flow and of all that follows. A hash gives the room of an entry that goes to the next that comes
//! (`prealloc_lru_pop`), whoever on another CPU may still be reading there: a program would send a packet the way of another flow's, or
//! by half of each. It takes a copy, and believes it if the seal fits.

use std::ops::Range;

use super::{Count, Decision, FlowKey};
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ip::{IPV4_HEADER_LEN, protocol};
use crate::wire::vxlan;

/// Bytes of a [`FlowKey`].
pub const FLOW_KEY_LEN: usize = 20;
/// Bytes of a [`Decision`].
pub const DECISION_LEN: usize = 104;
/// Bytes of a [`Count`].
pub const COUNT_LEN: usize = 16;
/// Bytes of the generation in force, a `u64` in the host's order.
pub const GENERATION_LEN: usize = 8;

const UDP_HEADER_LEN: usize = 8;
/// All that a frame gets in front of its IPv4 header but the outer Ethernet header.
pub(super) const HEADERS_LEN: usize =
    IPV4_HEADER_LEN + UDP_HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;

// A decision's fields.
pub(super) const SEAL: Range<usize> = 0..8;
pub(super) const GENERATION: Range<usize> = 8..16;
pub(super) const INTERFACE: Range<usize> = 16..20;
pub(super) const SLOT: Range<usize> = 20..24;
pub(super) const FRAME_LEN_MAX: Range<usize> = 24..28;
pub(super) const UDP_CHECKSUM: Range<usize> = 28..32;
pub(super) const IP_SUM: Range<usize> = 32..36;
pub(super) const UDP_SUM: Range<usize> = 36..40;
pub(super) const HEADERS: Range<usize> = 40..40 + HEADERS_LEN;
pub(super) const MACS: Range<usize> = HEADERS.end..HEADERS.end + 12;

// A count's fields.
pub(super) const PACKETS: Range<usize> = 0..8;
pub(super) const BYTES: Range<usize> = 8..16;

// The kernel rounds values up to eight bytes, and so leaves no gap here.
const _: () = assert!(HEADERS_LEN == 50 && MACS.end == 102 && DECISION_LEN.is_multiple_of(8));
// Words in it are aligned as they are in the frame and on the program's stack.
const _: () = assert!(HEADERS.start.is_multiple_of(8) && MACS.start % 8 == 2);

/// Bytes of the words that a seal is made of.
pub(super) const WORD: usize = 8;
/// By this the seal is multiplied with each word: odd, so that none is lost, and without a pattern (2^64 divided by the golden ratio).
pub(super) const SEAL_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// And so many of its upper bits are mixed into the lower.
pub(super) const SEAL_SHIFT: i32 = 32;

/// Don't fragment, in the fifth word of an IPv4 header (RFC 791 section 3.1).
pub(super) const DONT_FRAGMENT: u16 = 1 << 14;

pub(super) fn flow_key(key: &FlowKey) -> [u8; FLOW_KEY_LEN] {
    let mut bytes = [0; FLOW_KEY_LEN];
    bytes[0..4].copy_from_slice(&key.source.octets());
    bytes[4..8].copy_from_slice(&key.destination.octets());
    bytes[8..10].copy_from_slice(&key.source_port.to_be_bytes());
    bytes[10..12].copy_from_slice(&key.destination_port.to_be_bytes());
    bytes[12..16].copy_from_slice(&key.mark.to_ne_bytes());
    bytes[16] = key.tos;
    bytes[17] = key.ttl;
    bytes[18] = key.dont_fragment.into();
    bytes
}

pub(super) fn decision(decision: &Decision, flow: &FlowKey) -> [u8; DECISION_LEN] {
    let headers = headers(decision);
    let [ip, behind] = [&headers[..IPV4_HEADER_LEN], &headers[IPV4_HEADER_LEN..]];
    // The pseudo-header (RFC 768): addresses and protocol.
    let pseudo = sum(&ip[12..20]) + sum(&[0, protocol::UDP]);
    let mut bytes = [0; DECISION_LEN];
    bytes[GENERATION].copy_from_slice(&decision.generation.to_ne_bytes());
    bytes[HEADERS].copy_from_slice(&headers);
    for (field, value) in [
        (INTERFACE, decision.interface),
        (SLOT, decision.slot),
        (FRAME_LEN_MAX, decision.frame_len_max),
        (UDP_CHECKSUM, decision.udp_checksum.into()),
        (IP_SUM, sum(ip)),
        (UDP_SUM, pseudo + sum(behind)),
    ] {
        bytes[field].copy_from_slice(&value.to_ne_bytes());
    }
    let [destination, source] =
        [decision.frame_destination, decision.frame_source].map(|mac| mac.octets());
    bytes[MACS].copy_from_slice([destination, source].as_flattened());
    let seal = seal(&flow_key(flow), &bytes[SEAL.end..]);
    bytes[SEAL].copy_from_slice(&seal.to_ne_bytes());
    bytes
}

/// Of a flow, filled up with zeros to a whole word, and of what a decision has behind its seal.
fn seal(flow: &[u8; FLOW_KEY_LEN], rest: &[u8]) -> u64 {
    let mut key = [0; FLOW_KEY_LEN.next_multiple_of(WORD)];
    key[..FLOW_KEY_LEN].copy_from_slice(flow);
    let words = [&key[..], rest]
        .into_iter()
        .flat_map(|bytes| bytes.as_chunks::<WORD>().0);
    words.fold(0, |seal, word| {
        let mixed = (seal ^ u64::from_ne_bytes(*word)).wrapping_mul(SEAL_FACTOR);
        mixed ^ mixed >> SEAL_SHIFT
    })
}

pub(super) fn parse_count(bytes: [u8; COUNT_LEN]) -> Count {
    let number = |field: Range<usize>| {
        let field = bytes[field].try_into().expect("eight bytes");
        u64::from_ne_bytes(field)
    };
    Count {
        packets: number(PACKETS),
        bytes: number(BYTES),
    }
}

/// Lengths, identification and checksums are the frame's affair and zero here.
fn headers(decision: &Decision) -> [u8; HEADERS_LEN] {
    let mut bytes = [0; HEADERS_LEN];
    let (ip, rest) = bytes.split_at_mut(IPV4_HEADER_LEN);
    let (udp, rest) = rest.split_at_mut(UDP_HEADER_LEN);
    let (vxlan, inner) = rest.split_at_mut(vxlan::HEADER_LEN);
    let fragment = if decision.dont_fragment {
        DONT_FRAGMENT
    } else {
        0
    };
    // Version 4, five words.
    ip[0] = 0x45;
    ip[1] = decision.tos;
    ip[6..8].copy_from_slice(&fragment.to_be_bytes());
    ip[8] = decision.ttl;
    ip[9] = protocol::UDP;
    ip[12..16].copy_from_slice(&decision.source.octets());
    ip[16..20].copy_from_slice(&decision.destination.octets());
    udp[0..2].copy_from_slice(&decision.source_port.to_be_bytes());
    udp[2..4].copy_from_slice(&decision.destination_port.to_be_bytes());
    vxlan.copy_from_slice(&decision.vxlan);
    ethernet::write_destination(inner, decision.inner_destination);
    ethernet::write_source(inner, decision.frame_source);
    inner[ethernet::ETHERTYPE].copy_from_slice(&EtherType::IPV4.0.to_be_bytes());
    bytes
}

/// 16-bit words as a load finds them, added up (RFC 1071 section 2 (B)). Of an even number of bytes, and few.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks();
    debug_assert!(rest.is_empty());
    words
        .iter()
        .map(|word| u32::from(u16::from_ne_bytes(*word)))
        .sum()
}

//! Which TAP queue, and so which lane, a packet of the host goes to: a pure function of its flow.
//!
//! Left alone, the kernel moves a flow to the queue its last reply was written on (`tun_flow_update`), in mid-burst, and packets on the
//! old queue are overtaken by those on the new one. A program attached by TUNSETSTEERINGEBPF decides instead.
//!
//! The flow is: addresses and protocol, and ports of TCP, UDP and SCTP. Of what is not IP: MACs and type. One or two VLAN tags are
//! looked through. Fragments, the first among them, go by addresses and protocol alone, so that a datagram's fragments stay in order;
//! a flow that sends both fragments and whole packets may use two lanes. Behind IPv6 extension headers no ports are looked for.
//! Bytes that a packet does not have count as zero.
//!
//! The program returns 16 bits and knows nothing of the number of queues: `tun_ebpf_select_queue` takes the result, which it keeps in 16
//! bits, modulo the queues that are open. No seed, as in [`wire::flow`](crate::wire::flow): a daemon that was killed and came back
//! steers as before.

use super::Register::{Frame, R0, R1, R2, R3, R4, R6, R7, R8, R9};
use super::{Alu, Assembler, Condition, Helper, Label, Program, Register, Size};
use crate::wire::ethernet::{self, EtherType, MAX_VLAN_TAGS};
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};

/// What the kernel calls it: at most 15 of letters, digits and `_`.
pub const NAME: &str = "silk_steering";
const _: () = assert!(NAME.len() <= 15);

/// Odd, without structure: from pi's fraction.
const KEY: u64 = 0x243f_6a88_85a3_08d3;
const SEED: u64 = 0x1319_8a2e_0370_7345;

/// The packet, an `skb`.
const PACKET: Register = R6;
const HASH: Register = R7;
/// Where the header to be read next begins, from the start of the frame.
const OFFSET: Register = R8;
const MULTIPLIER: Register = R9;

/// On the stack, the Ethernet header: 14 bytes, and two of zeros to make two words of it.
const ETHERNET: i16 = -16;
const ETHERTYPE: i16 = ETHERNET + ethernet::ETHERTYPE.start as i16;
/// The IPv6 header: 40 bytes, addresses from 8.
const IPV6: i16 = ETHERNET - IPV6_HEADER_LEN as i16;
const IPV6_NEXT_HEADER: i16 = IPV6 + 6;
const IPV6_ADDRESSES: i16 = IPV6 + 8;
/// The IPv4 header, in the same place: 20 bytes, both addresses from 12 in one word.
const IPV4: i16 = -44;
const IPV4_FRAGMENT: i16 = IPV4 + 6;
const IPV4_PROTOCOL: i16 = IPV4 + 9;
const IPV4_ADDRESSES: i16 = IPV4 + 12;
/// One word: both ports, the protocol, and zeros.
const TRANSPORT: i16 = IPV6 - 8;
const PROTOCOL: i16 = TRANSPORT + 4;

/// More fragments, or an offset.
const IPV4_FRAGMENT_BITS: u16 = 0x3fff;

// The verifier wants words on the stack aligned.
const _: () = assert!(ETHERNET % 8 == 0 && IPV6_ADDRESSES % 8 == 0 && TRANSPORT % 8 == 0);
const _: () = assert!(IPV4_ADDRESSES % 8 == 0 && IPV4 + IPV4_HEADER_LEN as i16 <= ETHERNET);

/// The program, of type BPF_PROG_TYPE_SOCKET_FILTER.
#[must_use]
pub fn program() -> Program {
    let mut code = Assembler::new();
    let [ipv4, ipv6, ports, transport, end] = code.labels();
    begin(&mut code);
    skip_vlan_tags(&mut code);
    code.load(Size::Half, R1, Frame, ETHERTYPE);
    code.jump_if(Condition::Equal, R1, network_order(EtherType::IPV4.0), ipv4);
    code.jump_if(Condition::Equal, R1, network_order(EtherType::IPV6.0), ipv6);
    mix_word(&mut code, ETHERNET);
    mix_word(&mut code, ETHERNET + 8);
    code.jump(end);

    code.bind(ipv4);
    read_ipv4(&mut code, transport);
    code.jump(ports);

    code.bind(ipv6);
    read_ipv6(&mut code);

    code.bind(ports);
    read_ports(&mut code, transport);

    code.bind(transport);
    mix_word(&mut code, TRANSPORT);

    code.bind(end);
    code.mov(R0, HASH);
    code.alu(Alu::Mul, R0, MULTIPLIER);
    code.alu(Alu::Shr, R0, 48);
    code.exit();
    code.finish()
}

fn begin(code: &mut Assembler) {
    code.mov(PACKET, R1);
    code.wide_mov(MULTIPLIER, KEY);
    code.wide_mov(HASH, SEED);
    code.store(Size::Double, Frame, ETHERNET + 8, 0);
    code.store(Size::Double, Frame, TRANSPORT, 0);
    code.mov(OFFSET, 0);
    read(code, 0, ETHERNET, ethernet::HEADER_LEN);
    code.mov(OFFSET, ethernet::HEADER_LEN as i32);
}

/// Puts the type behind the tags in the place of the frame's own.
fn skip_vlan_tags(code: &mut Assembler) {
    let [untagged] = code.labels();
    for _ in 0..MAX_VLAN_TAGS {
        let [tagged] = code.labels();
        let provider = network_order(EtherType::PROVIDER_VLAN.0);
        code.load(Size::Half, R1, Frame, ETHERTYPE);
        code.jump_if(
            Condition::Equal,
            R1,
            network_order(EtherType::VLAN.0),
            tagged,
        );
        code.jump_if(Condition::NotEqual, R1, provider, untagged);
        code.bind(tagged);
        read(code, 2, ETHERTYPE, 2);
        code.alu(Alu::Add, OFFSET, 4);
    }
    code.bind(untagged);
}

/// Addresses and protocol; of a fragment that is all.
fn read_ipv4(code: &mut Assembler, fragment: Label) {
    read(code, 0, IPV4, IPV4_HEADER_LEN);
    mix_word(code, IPV4_ADDRESSES);
    code.load(Size::Byte, R1, Frame, IPV4_PROTOCOL);
    code.store(Size::Byte, Frame, PROTOCOL, R1);
    code.load(Size::Half, R1, Frame, IPV4_FRAGMENT);
    code.jump_if(
        Condition::AnyBit,
        R1,
        network_order(IPV4_FRAGMENT_BITS),
        fragment,
    );
    // The header's length in words of four bytes is in the low half of its first byte.
    code.load(Size::Byte, R1, Frame, IPV4);
    code.alu(Alu::And, R1, 0x0f);
    code.alu(Alu::Shl, R1, 2);
    code.alu(Alu::Add, OFFSET, R1);
}

/// Addresses and the next header, which for a fragment says so (44) and is no protocol with ports.
fn read_ipv6(code: &mut Assembler) {
    read(code, 0, IPV6, IPV6_HEADER_LEN);
    for word in 0..4 {
        mix_word(code, IPV6_ADDRESSES + 8 * word);
    }
    code.load(Size::Byte, R1, Frame, IPV6_NEXT_HEADER);
    code.store(Size::Byte, Frame, PROTOCOL, R1);
    code.alu(Alu::Add, OFFSET, IPV6_HEADER_LEN as i32);
}

/// The first four bytes behind the IP header, if the protocol has ports there.
fn read_ports(code: &mut Assembler, none: Label) {
    let [some] = code.labels();
    code.load(Size::Byte, R1, Frame, PROTOCOL);
    code.jump_if(Condition::Equal, R1, i32::from(protocol::TCP), some);
    code.jump_if(Condition::Equal, R1, i32::from(protocol::UDP), some);
    code.jump_if(Condition::NotEqual, R1, i32::from(protocol::SCTP), none);
    code.bind(some);
    read(code, 0, TRANSPORT, 4);
}

/// Reads `len` bytes, `skip` behind the offset, to `to` on the stack; all zeros if the packet is too short.
fn read(code: &mut Assembler, skip: i32, to: i16, len: usize) {
    code.mov(R1, PACKET);
    code.mov(R2, OFFSET);
    code.alu(Alu::Add, R2, skip);
    code.mov(R3, Frame);
    code.alu(Alu::Add, R3, i32::from(to));
    code.mov(R4, len as i32);
    code.call(Helper::SkbLoadBytes);
}

/// `hash = (hash ^ word) * KEY`, then the upper half, where every bit has had its say, over the lower.
fn mix_word(code: &mut Assembler, at: i16) {
    code.load(Size::Double, R1, Frame, at);
    code.alu(Alu::Xor, HASH, R1);
    code.alu(Alu::Mul, HASH, MULTIPLIER);
    code.mov(R1, HASH);
    code.alu(Alu::Shr, R1, 32);
    code.alu(Alu::Xor, HASH, R1);
}

/// A 16-bit field as a load finds it.
fn network_order(value: u16) -> i32 {
    value.to_be().into()
}

#[cfg(test)]
mod tests;

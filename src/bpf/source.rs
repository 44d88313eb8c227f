//! A container speaks over IPv6 with its own address alone: a tc program on the host's end of its link, which stands there for what
//! `rp_filter` is to IPv4. The kernel has no such switch for IPv6.
//!
//! It sees every frame that the container sends, after the host has taken one VLAN tag off (`__netif_receive_skb_core`). Behind another
//! tag the host might still find IPv6, so frames with one are dropped; all others but IPv6 pass.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::Register::{Frame, R0, R1, R2, R3, R4, R6};
use super::{Alu, Assembler, Condition, Helper, Program, Register, Size};
use crate::wire::ethernet::{self, EtherType};

/// What the kernel calls the program: at most 15 of letters, digits and `_`. By this it is found again.
pub const NAME: &str = "silk_source_in";
const _: () = assert!(NAME.len() <= 15);

/// TC_ACT_UNSPEC (linux/pkt_cls.h), which is TCX_NEXT: on with the next program.
const NEXT: i32 = -1;
/// TC_ACT_SHOT: the packet is dropped.
const SHOT: i32 = 2;

/// Where an untagged frame has the source of its IPv6 header (RFC 8200 section 3).
const SOURCE: Range<usize> = ethernet::HEADER_LEN + 8..ethernet::HEADER_LEN + 24;

/// The packet, an `skb`.
const PACKET: Register = R6;
/// On the stack: the address in two aligned words, and the type.
const HIGH: i16 = -16;
const LOW: i16 = -8;
const TYPE: i16 = -24;

/// The program on the receive side of the host's end, of type BPF_PROG_TYPE_SCHED_CLS. `own` is the container's address.
#[must_use]
pub fn ingress(own: Ipv6Addr) -> Program {
    let mut code = Assembler::new();
    let [next, refused] = code.labels();
    code.mov(PACKET, R1);
    read(&mut code, ethernet::ETHERTYPE, TYPE);
    // Without a type it is nothing that the host takes.
    code.jump_if(Condition::NotEqual, R0, 0, next);
    code.load(Size::Half, R1, Frame, TYPE);
    for tag in [EtherType::VLAN, EtherType::PROVIDER_VLAN] {
        code.jump_if(Condition::Equal, R1, in_memory(tag), refused);
    }
    code.jump_if(Condition::NotEqual, R1, in_memory(EtherType::IPV6), next);
    read(&mut code, SOURCE, HIGH);
    code.jump_if(Condition::NotEqual, R0, 0, refused);
    let [high, low] = words(own);
    for (place, word) in [(HIGH, high), (LOW, low)] {
        code.load(Size::Double, R1, Frame, place);
        code.wide_mov(R2, word);
        code.jump_if(Condition::NotEqual, R1, R2, refused);
    }

    code.bind(next);
    code.mov(R0, NEXT);
    code.exit();

    code.bind(refused);
    code.mov(R0, SHOT);
    code.exit();
    code.finish()
}

/// Copies bytes of the frame to a place on the stack. R0 is 0 if they are all there.
fn read(code: &mut Assembler, bytes: Range<usize>, place: i16) {
    code.mov(R1, PACKET);
    code.mov(R2, bytes.start as i32);
    code.mov(R3, Frame);
    code.alu(Alu::Add, R3, i32::from(place));
    code.mov(R4, bytes.len() as i32);
    code.call(Helper::SkbLoadBytes);
}

/// As a load finds it in a frame.
fn in_memory(kind: EtherType) -> i32 {
    u16::from_ne_bytes(kind.0.to_be_bytes()).into()
}

/// An address as two loads find it.
fn words(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64].map(u64::to_be)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::sys::bpf_machine;

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x108, 0, 0, 0, 0, 0, 0x184);
    const TO: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x43, 0, 0, 0, 0, 0, 6);

    fn is_let_through(frame: &[u8]) -> bool {
        let mut skb = bpf_machine::Skb {
            packet: frame.to_vec(),
            ..bpf_machine::Skb::default()
        };
        let returned = bpf_machine::run_on(&ingress(OWN), &mut skb) as u32;
        assert_eq!(skb.packet, frame, "only read");
        match returned.cast_signed() {
            NEXT => true,
            SHOT => false,
            other => panic!("{other}"),
        }
    }

    fn from(source: Ipv6Addr) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6(source.octets(), TO.octets(), 64)
            .udp(1, 2)
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    #[test]
    fn a_container_speaks_with_its_own_address_alone() {
        assert!(is_let_through(&from(OWN)));
        for bit in 0..128 {
            let other = Ipv6Addr::from_bits(OWN.to_bits() ^ 1 << bit);
            assert!(!is_let_through(&from(other)), "{other}");
        }
        assert!(!is_let_through(&from(Ipv6Addr::UNSPECIFIED)));
    }

    #[test]
    fn a_tag_that_the_host_has_left_hides_nothing() {
        for kind in [[0x81, 0], [0x88, 0xa8]] {
            for source in [OWN, TO] {
                let frame = from(source);
                let tagged = [&frame[..12], &kind, &[0, 0], &frame[12..]].concat();
                assert!(!is_let_through(&tagged), "{kind:x?}");
            }
        }
    }

    #[test]
    fn what_is_not_ipv6_passes_and_what_is_cut_off_does_not() {
        let mut v4 = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 255, 108, 184], [10, 255, 43, 6], 64)
            .udp(1, 2)
            .write(&mut v4, b"payload")
            .unwrap();
        assert!(is_let_through(&v4));
        let frame = from(OWN);
        for len in 0..frame.len() {
            let whole = !(ethernet::HEADER_LEN..SOURCE.end).contains(&len);
            assert_eq!(is_let_through(&frame[..len]), whole, "{len} bytes");
        }
    }
}

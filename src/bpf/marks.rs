//! How `skb->mark` crosses the TAP: two tc programs, one for each direction, that carry it in the form of
//! [`wire::mark_tag`](crate::wire::mark_tag).
//!
//! ```text
//! host --egress program--> TAP queue --lane--> underlay       mark, if the source MAC is the TAP's own -> tag
//! host <-ingress program-- TAP queue <-lane-- underlay        tag -> mark, and a MAC that is nobody's
//! ```
//!
//! **Egress** sees every frame on its way to the TAP's reader. A marked one whose source is the TAP's own MAC gets the tag: its source
//! is known, so the lane can put it back. All others pass as they are, without a mark. A frame that already has a tag was not ours: its
//! mark is overwritten with 0, which no frame of ours has, and the lane drops and counts it. So nobody gains a group by writing a MAC.
//!
//! **Ingress** sees every frame that is written to the TAP, before netfilter does. The source MAC of a tagged one is lost: it becomes
//! [`LOST_SOURCE`]. Frames without a tag are left alone, as a kernel device leaves alone what has no G flag.
//!
//! Both return TC_ACT_UNSPEC: other programs on the device run as if ours were not there. Packets are read and written by helper
//! calls and not directly, so that both run in a userspace machine, and on kernels that never heard of tcx.

use super::Register::{Frame, R0, R1, R2, R3, R4, R5, R6, R7};
use super::{Assembler, Condition, Helper, Program, Register, Size, express};
use crate::wire::mark_tag::{LOST_SOURCE, PREFIX};
use crate::wire::{MacAddr, ethernet};

/// What the kernel calls the egress program: at most 15 of letters, digits and `_`. A daemon knows what one before it left by this.
pub const EGRESS_NAME: &str = "silk_marks_out";
/// The same for the ingress program.
pub const INGRESS_NAME: &str = "silk_marks_in";
const _: () = assert!(EGRESS_NAME.len() <= 15 && INGRESS_NAME.len() <= 15);

/// TC_ACT_UNSPEC (linux/pkt_cls.h), which is TCX_NEXT: on with the next program.
const NEXT: i32 = -1;
/// TC_ACT_SHOT: the packet is dropped.
const SHOT: i32 = 2;

/// `offsetof(struct __sk_buff, mark)` (linux/bpf.h).
const SKB_MARK: i16 = 8;

/// The packet, an `skb`.
const PACKET: Register = R6;
const MARK: Register = R7;

const MAC_LEN: usize = ethernet::SOURCE.end - ethernet::SOURCE.start;
/// On the stack, the source MAC: its last four bytes, a tag's mark, are one aligned word.
const SOURCE: i16 = -(MAC_LEN as i16);
const TAG_MARK: i16 = SOURCE + PREFIX.len() as i16;
/// Two zero bytes and the source MAC, to compare as one.
const SOURCE_WORD: i16 = -8;

// The verifier wants words on the stack aligned.
const _: () = assert!(TAG_MARK % 4 == 0 && SOURCE_WORD % 8 == 0);

/// The program on the TAP's transmit side, of type BPF_PROG_TYPE_SCHED_CLS. `own` is the TAP's MAC. With maps the [`express`] path stands
/// in front: what that takes needs no tag.
#[must_use]
pub fn egress(own: MacAddr, express: Option<express::Maps>) -> Program {
    let mut code = Assembler::new();
    if let Some(maps) = express {
        express::emit(&mut code, maps);
    }
    let [forged, next] = code.labels();
    read_source(&mut code);
    code.jump_if(Condition::NotEqual, R0, 0, next);
    code.load(Size::Half, R1, Frame, SOURCE);
    code.jump_if(Condition::Equal, R1, in_memory(PREFIX), forged);
    code.load(Size::Word, MARK, PACKET, SKB_MARK);
    code.jump_if(Condition::Equal, MARK, 0, next);
    code.load(Size::Double, R1, Frame, SOURCE_WORD);
    code.wide_mov(R2, source_word(own));
    code.jump_if(Condition::NotEqual, R1, R2, next);
    code.to_big_endian_word(MARK);
    write_source(&mut code, PREFIX, MARK);

    // A tag that cannot be written is none: the frame passes without a mark.
    code.bind(next);
    code.mov(R0, NEXT);
    code.exit();

    code.bind(forged);
    code.mov(MARK, 0);
    write_source(&mut code, PREFIX, MARK);
    code.jump_if(Condition::Equal, R0, 0, next);
    code.mov(R0, SHOT);
    code.exit();
    code.finish()
}

/// The program on the TAP's receive side, of type BPF_PROG_TYPE_SCHED_CLS.
#[must_use]
pub fn ingress() -> Program {
    let mut code = Assembler::new();
    let [next] = code.labels();
    read_source(&mut code);
    code.jump_if(Condition::NotEqual, R0, 0, next);
    code.load(Size::Half, R1, Frame, SOURCE);
    code.jump_if(Condition::NotEqual, R1, in_memory(PREFIX), next);
    code.load(Size::Word, MARK, Frame, TAG_MARK);
    code.to_big_endian_word(MARK);
    code.store(Size::Word, PACKET, SKB_MARK, MARK);
    let [a, b, rest @ ..] = LOST_SOURCE.octets();
    code.mov(MARK, i32::from_ne_bytes(rest));
    write_source(&mut code, [a, b], MARK);
    code.bind(next);
    code.mov(R0, NEXT);
    code.exit();
    code.finish()
}

/// R0 is 0 if the frame has a source MAC.
fn read_source(code: &mut Assembler) {
    code.mov(PACKET, R1);
    code.store(Size::Double, Frame, SOURCE_WORD, 0);
    address_source(code);
    code.call(Helper::SkbLoadBytes);
}

/// `prefix`, then the four bytes of `rest` as they are in memory. R0 is 0 if that was possible.
fn write_source(code: &mut Assembler, prefix: [u8; 2], rest: Register) {
    code.store(Size::Half, Frame, SOURCE, in_memory(prefix));
    code.store(Size::Word, Frame, TAG_MARK, rest);
    code.mov(R1, PACKET);
    address_source(code);
    // No checksum covers a MAC.
    code.mov(R5, 0);
    code.call(Helper::SkbStoreBytes);
}

/// The arguments between the packet and the flags: offset in the frame, place on the stack, bytes.
fn address_source(code: &mut Assembler) {
    code.mov(R2, ethernet::SOURCE.start as i32);
    code.mov(R3, Frame);
    code.alu(super::Alu::Add, R3, i32::from(SOURCE));
    code.mov(R4, MAC_LEN as i32);
}

/// Two bytes as a load finds them.
fn in_memory(bytes: [u8; 2]) -> i32 {
    u16::from_ne_bytes(bytes).into()
}

/// A MAC as the load of [`SOURCE_WORD`] finds it.
fn source_word(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_ne_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests;

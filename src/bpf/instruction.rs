//! One instruction, its operands, and its eight bytes (`struct bpf_insn`).
//!
//! ```text
//!  0      1          2        4           8
//! | code | src  dst | offset | immediate |      offset and immediate in the host's order
//! ```

// Instruction classes and addressing (linux/bpf_common.h, linux/bpf.h).
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const JMP: u8 = 0x05;
const ALU64: u8 = 0x07;
const MEM: u8 = 0x60;
/// BPF_K: the second operand is the immediate.
const IMMEDIATE: u8 = 0x00;
/// BPF_X: the second operand is a register.
const REGISTER: u8 = 0x08;
const ALU: u8 = 0x04;
/// BPF_END and BPF_TO_BE: bytes in big-endian order.
const TO_BIG_ENDIAN: u8 = 0xd0 | 0x08;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

/// A register of 64 bits. Calls take their arguments in R1 to R5, destroy those, and answer in R0; R6 to R9 survive them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Register {
    R0 = 0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// The end of the stack's 512 bytes, read-only: offsets from it are negative.
    Frame,
}

/// A second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The value of a register.
    Register(Register),
    /// A number, sign-extended to 64 bits.
    Immediate(i32),
}

impl From<Register> for Operand {
    fn from(register: Register) -> Self {
        Self::Register(register)
    }
}

impl From<i32> for Operand {
    fn from(number: i32) -> Self {
        Self::Immediate(number)
    }
}

impl Operand {
    /// The flag in the code, the register if any, the immediate if any.
    fn encoding(self) -> (u8, u8, i32) {
        match self {
            Self::Register(register) => (REGISTER, register as u8, 0),
            Self::Immediate(number) => (IMMEDIATE, 0, number),
        }
    }
}

/// Arithmetic on 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    /// Without sign; 0 if the operand is 0.
    Div = 0x30,
    And = 0x50,
    Shl = 0x60,
    /// Shifts in zeros.
    Shr = 0x70,
    /// What [`Div`](Alu::Div) leaves; all of it if the operand is 0.
    Mod = 0x90,
    Xor = 0xa0,
    Mov = 0xb0,
}

/// When to jump, on 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// The operands are equal.
    Equal = 0x10,
    /// The first is greater, both without sign (BPF_JGT).
    Greater = 0x20,
    /// They have a bit in common (BPF_JSET).
    AnyBit = 0x40,
    /// They differ.
    NotEqual = 0x50,
    /// The first is less, both without sign (BPF_JLT, since Linux 4.14).
    Less = 0xa0,
}

/// Bytes of a load or store. Loads fill the rest of the register with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// One.
    Byte = 0x10,
    /// Two.
    Half = 0x08,
    /// Four.
    Word = 0x00,
    /// Eight.
    Double = 0x18,
}

/// A function of the kernel's (linux/bpf.h, `___BPF_FUNC_MAPPER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Helper {
    /// `bpf_map_lookup_elem(map, key)`: the address of the key's value, or 0.
    MapLookupElem = 1,
    /// `bpf_get_prandom_u32()`: a number that nobody should rely on not knowing.
    PrandomU32 = 7,
    /// `bpf_skb_store_bytes(skb, offset, from, len, flags)`: 0, or an error and nothing written. `offset` as below.
    SkbStoreBytes = 9,
    /// `bpf_skb_load_bytes(skb, offset, to, len)`: 0, or -EFAULT and zeros at `to` if the packet has not all of those bytes. `offset` is
    /// from the Ethernet header where the TAP or tc runs the program.
    SkbLoadBytes = 26,
    /// `bpf_skb_adjust_room(skb, len, mode, flags)`: room for headers, filled with zeros; 0, or an error and the packet as it was.
    SkbAdjustRoom = 50,
    /// `bpf_redirect_neigh(interface, parameters, len, flags)`: TC_ACT_REDIRECT, to be returned: the packet leaves by that device with an
    /// Ethernet header for the next hop of its destination. Since Linux 5.10.
    RedirectNeigh = 152,
}

/// What the number of a [`wide_mov`](Instruction::wide_mov) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wide {
    Number = 0,
    /// BPF_PSEUDO_MAP_FD: a descriptor, in whose place the kernel puts the map's address.
    Map = 1,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    pub(super) offset: i16,
    immediate: i32,
}

impl Instruction {
    pub(super) fn alu(operation: Alu, destination: Register, operand: Operand) -> Self {
        let (flag, source, immediate) = operand.encoding();
        Self {
            code: ALU64 | operation as u8 | flag,
            destination: destination as u8,
            source,
            offset: 0,
            immediate,
        }
    }

    /// Two slots: the number's lower half, then its upper.
    pub(super) fn wide_mov(destination: Register, kind: Wide, number: u64) -> [Self; 2] {
        let half = |code, destination, source, immediate: u64| Self {
            code,
            destination,
            source,
            offset: 0,
            immediate: immediate as i32,
        };
        [
            half(
                LD | Size::Double as u8,
                destination as u8,
                kind as u8,
                number,
            ),
            half(0, 0, 0, number >> 32),
        ]
    }

    /// The lower `bits`, 16 or 32, in big-endian order, zeros above.
    pub(super) fn to_big_endian(register: Register, bits: i32) -> Self {
        Self {
            code: ALU | TO_BIG_ENDIAN,
            destination: register as u8,
            source: 0,
            offset: 0,
            immediate: bits,
        }
    }

    pub(super) fn load(size: Size, destination: Register, base: Register, offset: i16) -> Self {
        Self {
            code: LDX | MEM | size as u8,
            destination: destination as u8,
            source: base as u8,
            offset,
            immediate: 0,
        }
    }

    pub(super) fn store(size: Size, base: Register, offset: i16, operand: Operand) -> Self {
        let (_, source, immediate) = operand.encoding();
        let class = match operand {
            Operand::Register(_) => STX,
            Operand::Immediate(_) => ST,
        };
        Self {
            code: class | MEM | size as u8,
            destination: base as u8,
            source,
            offset,
            immediate,
        }
    }

    /// The offset is filled in when the label's place is known.
    pub(super) fn jump_if(condition: Condition, register: Register, operand: Operand) -> Self {
        let (flag, source, immediate) = operand.encoding();
        Self {
            code: JMP | condition as u8 | flag,
            destination: register as u8,
            source,
            offset: 0,
            immediate,
        }
    }

    pub(super) fn jump() -> Self {
        Self::bare(JMP, 0)
    }

    pub(super) fn call(helper: Helper) -> Self {
        Self::bare(JMP | CALL, helper as i32)
    }

    pub(super) fn exit() -> Self {
        Self::bare(JMP | EXIT, 0)
    }

    fn bare(code: u8, immediate: i32) -> Self {
        Self {
            code,
            destination: 0,
            source: 0,
            offset: 0,
            immediate,
        }
    }

    pub(super) fn bytes(self) -> [u8; 8] {
        // Bit-fields fill a byte from its low end on little-endian machines, from its high end on the others.
        let registers = if cfg!(target_endian = "little") {
            self.source << 4 | self.destination
        } else {
            self.destination << 4 | self.source
        };
        let [a, b] = self.offset.to_ne_bytes();
        let [c, d, e, f] = self.immediate.to_ne_bytes();
        [self.code, registers, a, b, c, d, e, f]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another assembler is the oracle; it knows little-endian machines only.
    #[cfg(target_endian = "little")]
    #[test]
    fn bytes_are_those_of_another_assembler() {
        use Register::*;
        let alu = |operation, operand| vec![Instruction::alu(operation, R7, operand)];
        let load = |size| vec![Instruction::load(size, R1, Frame, -16)];
        let store = |size, operand| vec![Instruction::store(size, Frame, -16, operand)];
        let jump = |condition, operand| vec![Instruction::jump_if(condition, R1, operand)];
        for (text, instructions) in [
            ("add r7, -2", alu(Alu::Add, (-2).into())),
            ("sub r7, 14", alu(Alu::Sub, 14.into())),
            ("div r7, r2", alu(Alu::Div, R2.into())),
            ("mod r7, r2", alu(Alu::Mod, R2.into())),
            ("mul r7, r9", alu(Alu::Mul, R9.into())),
            ("and r7, 15", alu(Alu::And, 15.into())),
            ("lsh r7, 2", alu(Alu::Shl, 2.into())),
            ("rsh r7, 32", alu(Alu::Shr, 32.into())),
            ("xor r7, r1", alu(Alu::Xor, R1.into())),
            ("mov r7, r10", alu(Alu::Mov, Frame.into())),
            (
                "lddw r9, 0x1122334455667788",
                Instruction::wide_mov(R9, Wide::Number, 0x1122_3344_5566_7788).to_vec(),
            ),
            ("be16 r7", vec![Instruction::to_big_endian(R7, 16)]),
            ("be32 r7", vec![Instruction::to_big_endian(R7, 32)]),
            ("ldxb r1, [r10-16]", load(Size::Byte)),
            ("ldxh r1, [r10-16]", load(Size::Half)),
            ("ldxw r1, [r10-16]", load(Size::Word)),
            ("ldxdw r1, [r10-16]", load(Size::Double)),
            ("stxb [r10-16], r3", store(Size::Byte, R3.into())),
            ("stdw [r10-16], 5", store(Size::Double, 5.into())),
            ("jeq r1, -7, +0", jump(Condition::Equal, (-7).into())),
            ("jne r1, r2, +0", jump(Condition::NotEqual, R2.into())),
            ("jgt r1, r2, +0", jump(Condition::Greater, R2.into())),
            ("jlt r1, 20, +0", jump(Condition::Less, 20.into())),
            ("jset r1, 7, +0", jump(Condition::AnyBit, 7.into())),
            ("ja +0", vec![Instruction::jump()]),
            ("call 26", vec![Instruction::call(Helper::SkbLoadBytes)]),
            ("exit", vec![Instruction::exit()]),
        ] {
            let bytes: Vec<_> = instructions
                .into_iter()
                .flat_map(Instruction::bytes)
                .collect();
            assert_eq!(rbpf::assembler::assemble(text), Ok(bytes), "{text}");
        }
    }

    /// The other assembler has no word for it.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_map_is_a_number_that_says_it_is_one() {
        let slots = Instruction::wide_mov(Register::R1, Wide::Map, 7).map(Instruction::bytes);
        assert_eq!(slots, [[0x18, 0x11, 0, 0, 7, 0, 0, 0], [0; 8]]);
    }
}

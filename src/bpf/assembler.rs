//! Instructions in a row, and labels for the places jumps go to.

use std::os::fd::RawFd;

use super::Program;
use super::instruction::{Alu, Condition, Helper, Instruction, Operand, Register, Size, Wide};

/// A place in a program, to be bound once; jumps may come before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Appends instructions; [`finish`](Assembler::finish) resolves the jumps.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    instructions: Vec<Instruction>,
    /// By label: the index of the instruction that follows it.
    places: Vec<Option<usize>>,
    /// Index of a jump, and where it goes.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// New labels.
    #[must_use]
    pub fn labels<const N: usize>(&mut self) -> [Label; N] {
        std::array::from_fn(|_| {
            self.places.push(None);
            Label(self.places.len() - 1)
        })
    }

    /// Puts `label` before the next instruction.
    ///
    /// # Panics
    /// If it has a place already.
    pub fn bind(&mut self, label: Label) {
        let before = self.places[label.0].replace(self.instructions.len());
        assert_eq!(before, None, "{label:?} is bound once");
    }

    /// `destination = destination <operation> operand`, or the operand itself for [`Alu::Mov`].
    pub fn alu(&mut self, operation: Alu, destination: Register, operand: impl Into<Operand>) {
        self.instructions
            .push(Instruction::alu(operation, destination, operand.into()));
    }

    /// `destination = operand`.
    pub fn mov(&mut self, destination: Register, operand: impl Into<Operand>) {
        self.alu(Alu::Mov, destination, operand);
    }

    /// `destination = number`, all 64 bits of it.
    pub fn wide_mov(&mut self, destination: Register, number: u64) {
        self.instructions
            .extend(Instruction::wide_mov(destination, Wide::Number, number));
    }

    /// `destination` = the map of that descriptor, to look something up in.
    ///
    /// # Panics
    /// If it is negative, which no descriptor is.
    pub fn mov_map(&mut self, destination: Register, map: RawFd) {
        let map = u64::try_from(map).expect("a descriptor is not negative");
        self.instructions
            .extend(Instruction::wide_mov(destination, Wide::Map, map));
    }

    /// The lower two bytes of `register` as big-endian memory has them, and back; zeros above.
    pub fn to_big_endian_half(&mut self, register: Register) {
        self.instructions
            .push(Instruction::to_big_endian(register, 16));
    }

    /// The lower four bytes of `register` as big-endian memory has them, and back; zeros above.
    pub fn to_big_endian_word(&mut self, register: Register) {
        self.instructions
            .push(Instruction::to_big_endian(register, 32));
    }

    /// Reads `size` at `base + offset`.
    pub fn load(&mut self, size: Size, destination: Register, base: Register, offset: i16) {
        self.instructions
            .push(Instruction::load(size, destination, base, offset));
    }

    /// Writes `size` at `base + offset`.
    pub fn store(&mut self, size: Size, base: Register, offset: i16, operand: impl Into<Operand>) {
        self.instructions
            .push(Instruction::store(size, base, offset, operand.into()));
    }

    /// Goes to `label`.
    pub fn jump(&mut self, label: Label) {
        self.jump_by(Instruction::jump(), label);
    }

    /// Goes to `label` if `register` and `operand` are so.
    pub fn jump_if(
        &mut self,
        condition: Condition,
        register: Register,
        operand: impl Into<Operand>,
        label: Label,
    ) {
        self.jump_by(
            Instruction::jump_if(condition, register, operand.into()),
            label,
        );
    }

    /// Calls the kernel.
    pub fn call(&mut self, helper: Helper) {
        self.instructions.push(Instruction::call(helper));
    }

    /// Ends the program with the result in R0.
    pub fn exit(&mut self) {
        self.instructions.push(Instruction::exit());
    }

    /// The program.
    ///
    /// # Panics
    /// If a jump goes to a label that was never bound, or over more than 32,767 instructions: a mistake in the program that shows the
    /// first time it is assembled.
    #[must_use]
    pub fn finish(mut self) -> Program {
        for (at, label) in self.jumps {
            let place = self.places[label.0].expect("a label that is jumped to is bound");
            let distance = place as isize - (at as isize + 1);
            self.instructions[at].offset =
                i16::try_from(distance).expect("a program is shorter than a jump's reach");
        }
        let bytes = self.instructions.into_iter().map(Instruction::bytes);
        bytes.collect()
    }

    fn jump_by(&mut self, jump: Instruction, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.instructions.push(jump);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Register::{R0, R1};

    fn run(code: Assembler) -> u64 {
        let program = code.finish();
        let machine = rbpf::EbpfVmNoData::new(Some(program.as_flattened())).expect("valid");
        machine.execute_program().expect("runs to its end")
    }

    #[test]
    fn jumps_go_forward_and_back_over_wide_instructions() {
        let mut code = Assembler::new();
        let [again, done] = code.labels();
        code.mov(R0, 0);
        code.mov(R1, 5);
        code.bind(again);
        code.jump_if(Condition::Equal, R1, 0, done);
        code.wide_mov(Register::R2, 1 << 40);
        code.alu(Alu::Add, R0, Register::R2);
        code.alu(Alu::Add, R1, -1);
        code.jump(again);
        code.bind(done);
        code.exit();
        assert_eq!(run(code), 5 << 40);
    }

    #[test]
    fn conditions_are_told_apart() {
        for (condition, operand, taken) in [
            (Condition::Equal, 6, true),
            (Condition::Equal, 2, false),
            (Condition::NotEqual, 2, true),
            (Condition::NotEqual, 6, false),
            (Condition::Greater, 5, true),
            (Condition::Greater, 6, false),
            (Condition::Greater, -1, false),
            (Condition::Less, 7, true),
            (Condition::Less, 6, false),
            (Condition::Less, -1, true),
            (Condition::AnyBit, 2, true),
            (Condition::AnyBit, 9, false),
        ] {
            let mut code = Assembler::new();
            let [there] = code.labels();
            code.mov(R0, 1);
            code.mov(R1, 6);
            code.jump_if(condition, R1, operand, there);
            code.mov(R0, 0);
            code.bind(there);
            code.exit();
            assert_eq!(run(code), u64::from(taken), "{condition:?} {operand}");
        }
    }

    #[test]
    fn what_is_stored_is_loaded_in_each_size() {
        for (size, read) in [
            (Size::Byte, 0x88),
            (Size::Half, 0x7788),
            (Size::Word, 0x5566_7788),
            (Size::Double, 0x1122_3344_5566_7788),
        ] {
            let mut code = Assembler::new();
            code.wide_mov(R1, 0x1122_3344_5566_7788);
            code.store(Size::Double, Register::Frame, -8, 0);
            code.store(size, Register::Frame, -8, R1);
            code.load(size, R0, Register::Frame, -8);
            code.exit();
            assert_eq!(run(code), read, "{size:?}");
        }
    }

    #[test]
    #[should_panic(expected = "a label that is jumped to is bound")]
    fn a_jump_to_nowhere_does_not_assemble() {
        let mut code = Assembler::new();
        let [nowhere] = code.labels();
        code.jump(nowhere);
        let _ = code.finish();
    }

    #[test]
    #[should_panic(expected = "is bound once")]
    fn a_label_has_one_place() {
        let mut code = Assembler::new();
        let [label] = code.labels();
        code.bind(label);
        code.bind(label);
    }
}

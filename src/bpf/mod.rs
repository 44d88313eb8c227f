//! Programs for the kernel's BPF machine, assembled here: no compiler, no object file, nothing to install.
//!
//! [`Assembler`] turns instructions and labels into what `bpf(2)` takes; [`steering`] is the program that chooses the TAP queue,
//! [`marks`] are those that carry `skb->mark` across the TAP, [`express`] lets TCP past it, [`source`] keeps a container to its IPv6
//! address. Pure: [`sys::bpf`](crate::sys::bpf) loads programs, [`sys::bpf_map`](crate::sys::bpf_map) makes their maps,
//! [`io::Steering`](crate::io::Steering), [`netlink::MarkPrograms`](crate::netlink::MarkPrograms) and
//! [`netlink::container`](crate::netlink::container) attach them. The instruction set is the kernel's
//! (Documentation/bpf/standardization/instruction-set.rst).

mod assembler;
pub mod express;
mod instruction;
pub mod marks;
pub mod source;
pub mod steering;

pub use assembler::{Assembler, Label};
pub use instruction::{Alu, Condition, Helper, Operand, Register, Size};

/// Instructions as the kernel reads them: one `struct bpf_insn` of eight bytes each.
pub type Program = Vec<[u8; 8]>;

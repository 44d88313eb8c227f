//! A BPF machine in user space, for tests: runs a program on a packet without root. Compiled into tests only.

use std::cell::RefCell;

/// `bpf_skb_load_bytes` (linux/bpf.h).
const SKB_LOAD_BYTES: u32 = 26;

thread_local! {
    /// The packet of the program that runs on this thread: a helper is a plain function and is told nothing else.
    static PACKET: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What `program` returns for `packet`.
///
/// # Panics
/// If the machine refuses the program, or it reads or writes outside its stack.
pub(crate) fn run(program: &[[u8; 8]], packet: &[u8]) -> u64 {
    PACKET.with_borrow_mut(|own| packet.clone_into(own));
    let mut machine = rbpf::EbpfVmNoData::new(Some(program.as_flattened())).expect("it is valid");
    machine
        .register_helper(SKB_LOAD_BYTES, skb_load_bytes)
        .expect("any number may be registered");
    machine.execute_program().expect("it stays in its memory")
}

/// As in net/core/filter.c: what is not all there leaves zeros.
fn skb_load_bytes(_skb: u64, offset: u64, to: u64, len: u64, _: u64) -> u64 {
    let (offset, len) = (offset as u32 as usize, len as u32 as usize);
    let bytes = PACKET.with_borrow(|packet| packet.get(offset..)?.get(..len).map(<[u8]>::to_vec));
    let result = if bytes.is_some() {
        0
    } else {
        -i64::from(libc::EFAULT)
    };
    let bytes = bytes.unwrap_or_else(|| vec![0; len]);
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: programs under test pass `len` bytes of their stack, as the kernel's verifier makes sure where they are loaded.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), len) };
    result.cast_unsigned()
}

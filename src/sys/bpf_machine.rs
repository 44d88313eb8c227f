//! A BPF machine in user space, for tests: runs a program on a packet without root. Compiled into tests only.

use std::cell::RefCell;

/// Helpers (linux/bpf.h).
const SKB_STORE_BYTES: u32 = 9;
const SKB_LOAD_BYTES: u32 = 26;

/// Bytes of `struct __sk_buff`, and where in it the mark is.
const SKB_LEN: usize = 192;
const SKB_MARK: std::ops::Range<usize> = 8..12;

thread_local! {
    /// The packet of the program that runs on this thread: a helper is a plain function and is told nothing else.
    static PACKET: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Arguments in R1 to R5, the result in R0.
type Helper = fn(u64, u64, u64, u64, u64) -> u64;

/// A packet as a tc program gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skb {
    /// `skb->mark`.
    pub(crate) mark: u32,
    /// From the Ethernet header.
    pub(crate) packet: Vec<u8>,
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

/// What `program` returns for `skb`, and what it does to it.
///
/// # Panics
/// If the machine refuses the program, or it reads or writes outside its stack and its `struct __sk_buff`.
pub(crate) fn run_on(program: &[[u8; 8]], skb: &mut Skb) -> u64 {
    run_with(program, skb, skb_store_bytes)
}

/// The same for a packet that cannot be made writable, as on a host out of memory.
///
/// # Panics
/// As [`run_on`].
pub(crate) fn run_on_read_only(program: &[[u8; 8]], skb: &mut Skb) -> u64 {
    run_with(program, skb, |_, _, _, _, _| error(libc::EFAULT))
}

fn run_with(program: &[[u8; 8]], skb: &mut Skb, store: Helper) -> u64 {
    PACKET.with_borrow_mut(|own| skb.packet.clone_into(own));
    let mut context = [0; SKB_LEN];
    context[SKB_MARK].copy_from_slice(&skb.mark.to_ne_bytes());
    let mut machine = rbpf::EbpfVmRaw::new(Some(program.as_flattened())).expect("it is valid");
    for (number, helper) in [
        (SKB_LOAD_BYTES, skb_load_bytes as Helper),
        (SKB_STORE_BYTES, store),
    ] {
        machine
            .register_helper(number, helper)
            .expect("any number may be registered");
    }
    let returned = machine.execute_program(&mut context);
    let mark = context[SKB_MARK].try_into().expect("four bytes");
    skb.mark = u32::from_ne_bytes(mark);
    skb.packet = PACKET.take();
    returned.expect("it stays in its memory")
}

/// As in net/core/filter.c: what is not all there leaves zeros.
fn skb_load_bytes(_skb: u64, offset: u64, to: u64, len: u64, _: u64) -> u64 {
    let (offset, len) = (offset as u32 as usize, len as u32 as usize);
    let bytes = PACKET.with_borrow(|packet| packet.get(offset..)?.get(..len).map(<[u8]>::to_vec));
    let result = if bytes.is_some() {
        0
    } else {
        error(libc::EFAULT)
    };
    let bytes = bytes.unwrap_or_else(|| vec![0; len]);
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: programs under test pass `len` bytes of their stack, as the kernel's verifier makes sure where they are loaded.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), len) };
    result
}

/// As in net/core/filter.c: all or nothing.
fn skb_store_bytes(_skb: u64, offset: u64, from: u64, len: u64, flags: u64) -> u64 {
    let (offset, len) = (offset as u32 as usize, len as u32 as usize);
    if flags != 0 {
        return error(libc::EINVAL);
    }
    let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
    // SAFETY: programs under test pass `len` bytes of their stack, as the kernel's verifier makes sure where they are loaded.
    let bytes = unsafe { std::slice::from_raw_parts(from, len) };
    PACKET.with_borrow_mut(|packet| {
        let room = packet
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..len));
        room.map_or_else(
            || error(libc::EFAULT),
            |room| {
                room.copy_from_slice(bytes);
                0
            },
        )
    })
}

/// As the kernel returns it.
fn error(errno: i32) -> u64 {
    (-i64::from(errno)).cast_unsigned()
}

//! A BPF machine in user space, for tests: runs a program on a packet without root. Compiled into tests only.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::RawFd;

/// Helpers (linux/bpf.h).
const MAP_LOOKUP_ELEM: u32 = 1;
const PRANDOM_U32: u32 = 7;
const SKB_STORE_BYTES: u32 = 9;
const SKB_LOAD_BYTES: u32 = 26;
const SKB_ADJUST_ROOM: u32 = 50;
const REDIRECT_NEIGH: u32 = 152;

/// Bytes of `struct __sk_buff`, and where in it is what.
const SKB_LEN: usize = 192;
const SKB_PACKET_LEN: Range<usize> = 0..4;
const SKB_MARK: Range<usize> = 8..12;
const SKB_VLAN_PRESENT: Range<usize> = 20..24;
const SKB_GSO_SIZE: Range<usize> = 176..180;

/// BPF_ADJ_ROOM_MAC, and the Ethernet header behind which that is.
const ROOM_MAC: u64 = 1;
const ETHERNET_LEN: usize = 14;
/// TC_ACT_REDIRECT.
const REDIRECT: u64 = 7;

thread_local! {
    /// The packet of the program that runs on this thread: a helper is a plain function and is told nothing else.
    static PACKET: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// And the host it runs on.
    static HOST: RefCell<Host> = RefCell::default();
}

/// Arguments in R1 to R5, the result in R0.
type Helper = fn(u64, u64, u64, u64, u64) -> u64;

/// A packet as a tc program gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skb {
    /// `skb->mark`.
    pub(crate) mark: u32,
    /// From the Ethernet header.
    pub(crate) packet: Vec<u8>,
    /// `skb->gso_size`: 0, or the packet is a super-frame.
    pub(crate) gso_size: u32,
    /// `skb->vlan_present`.
    pub(crate) vlan_present: bool,
}

/// What a program finds beside its packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// By descriptor.
    pub(crate) maps: HashMap<RawFd, Map>,
    /// What is as good as random.
    pub(crate) random: u32,
    /// There is no room for headers.
    pub(crate) is_full: bool,
    /// By which device the packet left.
    pub(crate) left_by: Option<u32>,
}

/// Keys, all of one length, and values in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    pub(crate) key_len: usize,
    pub(crate) entries: HashMap<Vec<u8>, Vec<u64>>,
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
    run_with(program, skb, &mut Host::default(), skb_store_bytes)
}

/// The same on a host with maps.
///
/// # Panics
/// As [`run_on`]; the values of maps are the program's to read and write.
pub(crate) fn run_in(program: &[[u8; 8]], skb: &mut Skb, host: &mut Host) -> u64 {
    run_with(program, skb, host, skb_store_bytes)
}

/// The same for a packet that cannot be made writable, as on a host out of memory.
///
/// # Panics
/// As [`run_on`].
pub(crate) fn run_on_read_only(program: &[[u8; 8]], skb: &mut Skb) -> u64 {
    let refuse = |_, _, _, _, _| error(libc::EFAULT);
    run_with(program, skb, &mut Host::default(), refuse)
}

fn run_with(program: &[[u8; 8]], skb: &mut Skb, host: &mut Host, store: Helper) -> u64 {
    PACKET.with_borrow_mut(|own| skb.packet.clone_into(own));
    let mut context = [0; SKB_LEN];
    for (field, value) in [
        (SKB_PACKET_LEN, skb.packet.len() as u32),
        (SKB_MARK, skb.mark),
        (SKB_VLAN_PRESENT, skb.vlan_present.into()),
        (SKB_GSO_SIZE, skb.gso_size),
    ] {
        context[field].copy_from_slice(&value.to_ne_bytes());
    }
    let mut machine = rbpf::EbpfVmRaw::new(Some(program.as_flattened())).expect("it is valid");
    for (number, helper) in [
        (MAP_LOOKUP_ELEM, map_lookup_elem as Helper),
        (PRANDOM_U32, prandom_u32),
        (SKB_LOAD_BYTES, skb_load_bytes),
        (SKB_STORE_BYTES, store),
        (SKB_ADJUST_ROOM, skb_adjust_room),
        (REDIRECT_NEIGH, redirect_neigh),
    ] {
        machine
            .register_helper(number, helper)
            .expect("any number may be registered");
    }
    for map in host.maps.values_mut() {
        for value in map.entries.values_mut() {
            let start = address_of(value);
            machine.register_allowed_memory(start..start + size_of_val(&value[..]) as u64);
        }
    }
    HOST.with_borrow_mut(|own| std::mem::swap(own, host));
    let returned = machine.execute_program(&mut context);
    HOST.with_borrow_mut(|own| std::mem::swap(own, host));
    let mark = context[SKB_MARK].try_into().expect("four bytes");
    skb.mark = u32::from_ne_bytes(mark);
    skb.packet = PACKET.take();
    returned.expect("it stays in its memory")
}

/// As the machine writes to it.
fn address_of(value: &mut [u64]) -> u64 {
    value.as_mut_ptr().expose_provenance() as u64
}

/// As in kernel/bpf/helpers.c; the map is its descriptor here.
fn map_lookup_elem(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    let find = |host: &mut Host| {
        let map = host.maps.get_mut(&RawFd::try_from(map).ok()?)?;
        let key = std::ptr::with_exposed_provenance::<u8>(key as usize);
        // SAFETY: programs under test pass as many bytes of their stack as the map's keys have, as the kernel's verifier makes sure where
        // they are loaded.
        let key = unsafe { std::slice::from_raw_parts(key, map.key_len) };
        map.entries.get_mut(key).map(|value| address_of(value))
    };
    HOST.with_borrow_mut(find).unwrap_or(0)
}

fn prandom_u32(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    HOST.with_borrow(|host| host.random.into())
}

/// As in net/core/filter.c, for room behind the Ethernet header of an IPv4 packet.
fn skb_adjust_room(_skb: u64, len: u64, mode: u64, _flags: u64, _: u64) -> u64 {
    if HOST.with_borrow(|host| host.is_full) {
        return error(libc::ENOMEM);
    }
    if mode != ROOM_MAC {
        return error(libc::EOPNOTSUPP);
    }
    let zeros = std::iter::repeat_n(0, len as u32 as usize);
    let room = ETHERNET_LEN..ETHERNET_LEN;
    PACKET.with_borrow_mut(|packet| packet.splice(room, zeros).for_each(drop));
    0
}

/// As in net/core/filter.c.
fn redirect_neigh(interface: u64, parameters: u64, len: u64, flags: u64, _: u64) -> u64 {
    assert_eq!([parameters, len, flags], [0; 3], "none are passed here");
    HOST.with_borrow_mut(|host| host.left_by = Some(interface as u32));
    REDIRECT
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

//! Programs on a device's two sides: tcx, since Linux 6.6, by bpf(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

use super::bpf::{NAME_LEN, bpf};

// Commands (`enum bpf_cmd`).
const PROG_ATTACH: c_int = 8;
const PROG_DETACH: c_int = 9;
const PROG_GET_FD_BY_ID: c_int = 13;
const OBJ_GET_INFO_BY_FD: c_int = 15;
const PROG_QUERY: c_int = 16;

// Flags of PROG_ATTACH.
const REPLACE: u32 = 1 << 2;
const BEFORE: u32 = 1 << 3;

/// The most programs on one side of a device (BPF_MPROG_MAX).
const PROGRAMS_MAX: usize = 64;

/// A side of a device (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    /// What the device received, on its way to the host (BPF_TCX_INGRESS).
    Ingress = 46,
    /// What the host sends, on its way to the device (BPF_TCX_EGRESS).
    Egress = 47,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];
}

/// What the kernel tells of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its number, no other program's while it lives.
    pub id: u32,
    /// As whoever loaded it called it.
    pub name: String,
}

/// The part of `union bpf_attr` that PROG_ATTACH and PROG_DETACH read.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// The part that PROG_QUERY reads and writes.
#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The part that PROG_GET_FD_BY_ID reads.
#[repr(C)]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part that OBJ_GET_INFO_BY_FD reads.
#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`, the kernel writes no more than it is given room for.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lens: [u32; 2],
    instructions: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_LEN],
}

const _: () = assert!(size_of::<AttachAttributes>() == 32 && size_of::<QueryAttributes>() == 64);
const _: () = assert!(std::mem::offset_of!(Info, name) == 64 && size_of::<Info>() == 80);

/// BPF_PROG_ATTACH: `program` runs before all others on that side, or in the place of `replaced`. The device holds it, so the
/// descriptor may be closed, and it stays until it is detached or the device goes.
///
/// # Errors
/// EINVAL before Linux 6.6, EPERM without CAP_NET_ADMIN, ENODEV if the device is gone, ENOENT if `replaced` is not there.
pub fn attach(
    interface: u32,
    side: Side,
    program: impl AsFd,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target_ifindex: interface,
        attach_bpf_fd: number(program.as_fd()),
        attach_type: side as u32,
        attach_flags: if replaced.is_some() { REPLACE } else { BEFORE },
        replace_bpf_fd: replaced.map_or(0, number),
        ..AttachAttributes::default()
    };
    // SAFETY: these are PROG_ATTACH's attributes; there are no addresses in them.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// BPF_PROG_DETACH: `program` no longer runs on that side.
///
/// # Errors
/// ENOENT if it does not, EPERM without CAP_NET_ADMIN, ENODEV if the device is gone.
pub fn detach(interface: u32, side: Side, program: impl AsFd) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target_ifindex: interface,
        attach_bpf_fd: number(program.as_fd()),
        attach_type: side as u32,
        ..AttachAttributes::default()
    };
    // SAFETY: these are PROG_DETACH's attributes; there are no addresses in them.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// BPF_PROG_QUERY: the numbers of the programs on that side, in the order they run.
///
/// # Errors
/// EINVAL before Linux 6.6, EPERM without CAP_NET_ADMIN, ENODEV if the device is gone.
pub fn attached(interface: u32, side: Side) -> io::Result<Vec<u32>> {
    let mut ids = vec![0; PROGRAMS_MAX];
    let mut attributes = QueryAttributes {
        target_ifindex: interface,
        attach_type: side as u32,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: PROGRAMS_MAX as u32,
        ..QueryAttributes::default()
    };
    // SAFETY: these are PROG_QUERY's attributes; the one address in them is of room for `count` numbers, which outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// BPF_PROG_GET_FD_BY_ID: somebody's program.
///
/// # Errors
/// ENOENT if it is gone, EPERM without CAP_SYS_ADMIN.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = IdAttributes {
        id,
        ..IdAttributes::default()
    };
    // SAFETY: these are PROG_GET_FD_BY_ID's attributes; there are no addresses in them.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) }?;
    // SAFETY: the kernel has just made the descriptor for us, closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// BPF_OBJ_GET_INFO_BY_FD of a program.
///
/// # Errors
/// EINVAL if it is none.
pub fn info(program: impl AsFd) -> io::Result<ProgramInfo> {
    let mut info = Info::default();
    let mut attributes = InfoAttributes {
        bpf_fd: number(program.as_fd()),
        info_len: size_of::<Info>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: these are OBJ_GET_INFO_BY_FD's attributes; the one address in them is of `info`, whose true size is given and which outlives
    // the call. Any bytes are an `Info`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let name = info.name.split(|&byte| byte == 0).next();
    Ok(ProgramInfo {
        id: info.id,
        name: String::from_utf8_lossy(name.unwrap_or_default()).into_owned(),
    })
}

/// As the attributes hold it: descriptors are never negative.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

//! TAP queues: /dev/net/tun and its ioctls (linux/if_tun.h).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_short, c_uint};

/// The device node.
pub const NODE: &str = "/dev/net/tun";

/// How queues are opened: Ethernet frames, no packet information, a virtio_net_hdr before each, several queues.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// Opens the device node, not yet attached to an interface.
///
/// # Errors
/// ENOENT or EACCES where the host has no tun driver or hides it.
pub fn open() -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(NODE)
        .map(Into::into)
}

/// TUNSETIFF: attaches `fd` as one queue of the TAP `name`, which is created if it is not there.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; EINVAL if `name` is a tun device of other flags, or too long; EBUSY if it is not multi-queue and taken;
/// E2BIG with more than 256 queues.
pub fn attach(fd: impl AsFd, name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: FLAGS as c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call; its name ends in a zero byte, being shorter.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// TUNSETPERSIST: whether the device outlives its queues.
///
/// # Errors
/// EBADFD if the device is gone.
pub fn set_persist(fd: impl AsFd, persist: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            libc::TUNSETPERSIST,
            c_int::from(persist),
        )
    })
}

/// TUNSETOFFLOAD: which unfinished frames (TUN_F_*) the reader takes. Device-wide, and kept by a persistent device.
///
/// # Errors
/// EINVAL for a flag the kernel does not know.
pub fn set_offload(fd: impl AsFd, flags: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, flags) })
}

/// TUNSETSTEERINGEBPF, since Linux 4.16: `program`, a socket filter, chooses the queue of each packet; `None`: the kernel does again.
/// Device-wide, and kept by a persistent device. The device holds the program, so the descriptor may be closed.
///
/// # Errors
/// EINVAL if it is no socket filter, or the kernel is older; EBADFD if the device is gone.
pub fn set_steering(fd: impl AsFd, program: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let program: c_int = program.map_or(-1, |program| program.as_raw_fd());
    // SAFETY: TUNSETSTEERINGEBPF reads one int, which lives through the call.
    check(unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            libc::TUNSETSTEERINGEBPF,
            &raw const program,
        )
    })
}

/// TUN_F_CSUM: frames whose checksum is not finished.
pub const CSUM: c_uint = 0x01;
/// TUN_F_TSO4 and TUN_F_TSO6, and TUN_F_TSO_ECN: TCP super-frames, CWR among their flags or not.
pub const TSO: c_uint = 0x02 | 0x04 | 0x08;
/// TUN_F_USO4 and TUN_F_USO6, since Linux 6.2: UDP super-frames.
pub const USO: c_uint = 0x20 | 0x40;

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The descriptor of `device`, which keeps it open.
pub fn borrow(device: &tun::Device) -> BorrowedFd<'_> {
    // SAFETY: the device closes its descriptor when dropped, and is borrowed for as long as the result.
    unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) }
}

//! What kind of namespace a descriptor stands for (ioctl_nsfs(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// True if `fd` is a network namespace.
///
/// # Errors
/// The errno of `ioctl(NS_GET_NSTYPE)`: ENOTTY if `fd` is no namespace at all.
pub fn is_network_namespace(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; `fd` is open while borrowed.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(kind == libc::CLONE_NEWNET)
}

//! The error queue of a UDP socket (IP_RECVERR): what became of datagrams that did not arrive.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::c_int;

/// One error, and as much of the datagram it concerns as whoever told of it quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketError {
    /// EMSGSIZE, ECONNREFUSED and their like.
    pub errno: c_int,
    /// The host's own stack tells, no ICMP message (SO_EE_ORIGIN_LOCAL).
    pub is_local: bool,
    /// Of EMSGSIZE: the MTU that it did not fit, in bytes of the IP packet.
    pub info: u32,
    /// Bytes of the payload that were quoted, now in the buffer.
    pub quoted: usize,
}

/// Room for one `sock_extended_err` and the address behind it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

const CONTROL_LEN: usize = 128;
const ERROR_LEN: usize = mem::size_of::<libc::sock_extended_err>();
// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(
    CONTROL_LEN
        >= unsafe {
            libc::CMSG_SPACE((ERROR_LEN + mem::size_of::<libc::sockaddr_in6>()) as u32) as usize
        }
);
const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// recvmsg(2) with MSG_ERRQUEUE, not blocking: the next error.
///
/// # Errors
/// EAGAIN if there is none.
pub fn next_error(fd: impl AsFd, quote: &mut [u8]) -> io::Result<SocketError> {
    let mut control = Control([0; CONTROL_LEN]);
    let mut bytes = libc::iovec {
        iov_base: quote.as_mut_ptr().cast(),
        iov_len: quote.len(),
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = ptr::null_mut();
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    // SAFETY: every pointer in `message` is to a local or to `quote`, with its true length, and outlives the call.
    let received = unsafe {
        libc::recvmsg(
            fd.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    let quoted = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg filled in `message`, and `control` is still there.
    let error = unsafe { extended_error(&message) };
    let error = error.ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))?;
    Ok(SocketError {
        // errno is positive and small.
        errno: error.ee_errno as c_int,
        is_local: error.ee_origin == libc::SO_EE_ORIGIN_LOCAL,
        info: error.ee_info,
        quoted,
    })
}

/// The control message that tells of an error.
///
/// # Safety
/// The kernel filled in `message`, and what it points to is still there.
unsafe fn extended_error(message: &libc::msghdr) -> Option<libc::sock_extended_err> {
    // SAFETY: the kernel wrote msg_controllen bytes of well-formed control messages; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a non-null header points at a whole cmsghdr.
        let kind = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if matches!(
            kind,
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            // SAFETY: both kinds carry a sock_extended_err at the front; the read is unaligned.
            return Some(unsafe {
                libc::CMSG_DATA(header)
                    .cast::<libc::sock_extended_err>()
                    .read_unaligned()
            });
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// getsockopt(2) of an int.
///
/// # Errors
/// What the kernel says of this option.
pub fn option(fd: impl AsFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value is a local int, given with its size.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;
    use crate::sys::udp::set_option;

    #[test]
    fn a_port_that_nobody_listens_on_is_told_with_what_was_sent() {
        for (address, level, option) in [
            (
                Ipv4Addr::LOCALHOST.into(),
                libc::IPPROTO_IP,
                libc::IP_RECVERR,
            ),
            (
                std::net::IpAddr::from(Ipv6Addr::LOCALHOST),
                libc::IPPROTO_IPV6,
                libc::IPV6_RECVERR,
            ),
        ] {
            let bind = || UdpSocket::bind((address, 0)).expect("loopback has a free port");
            let (from, gone) = (bind(), bind());
            set_option(&from, level, option, 1).expect("any kernel has it");
            from.connect(gone.local_addr().expect("bound"))
                .expect("loopback is reached");
            drop(gone);
            let mut quote = [0; 16];
            let none = next_error(&from, &mut quote).expect_err("nothing was sent");
            assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
            from.send(b"is anybody there").expect("sent");
            let error = next_error(&from, &mut quote).expect("loopback answers at once");
            assert_eq!((error.errno, error.quoted), (libc::ECONNREFUSED, 16));
            assert!(!error.is_local);
            assert_eq!(&quote, b"is anybody there");
        }
    }
}

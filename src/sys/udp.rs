//! UDP datagrams with their control messages: sendmsg(2), recvmsg(2), and the options `socket2` lacks.

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_void};
use socket2::{SockAddr, SockAddrStorage};

/// One received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes written to the buffer.
    pub len: usize,
    /// The datagram was longer than the buffer (MSG_TRUNC).
    pub truncated: bool,
    /// Who sent it.
    pub source: SocketAddr,
    /// TOS or traffic class (IP_RECVTOS, IPV6_RECVTCLASS); 0 without the option.
    pub tos: u8,
    /// Datagrams this socket has dropped for want of buffer since it was made (SO_RXQ_OVFL); `None` without the option.
    pub overflowed: Option<u32>,
}

/// Room for the control messages asked for: TOS or traffic class, and the overflow count. Aligned as `cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

const CONTROL_LEN: usize = 128;
// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(CONTROL_LEN >= 3 * unsafe { libc::CMSG_SPACE(4) } as usize);
const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// recvmsg(2), not blocking.
///
/// # Errors
/// EAGAIN if nothing is there, or what the socket has pending.
pub fn recv(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut storage = SockAddrStorage::zeroed();
    let mut control = Control([0; CONTROL_LEN]);
    let mut iov = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut storage).cast();
    message.msg_namelen = storage.size_of();
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    // SAFETY: every pointer in `message` is to a local or to `buffer`, with its true length, and outlives the call.
    let received =
        unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg wrote `msg_namelen` bytes of a socket address.
    let source = unsafe { SockAddr::new(storage, message.msg_namelen) };
    let (tos, overflowed) = control_values(&message);
    Ok(Datagram {
        len,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        source: source
            .as_socket()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?,
        tos,
        overflowed,
    })
}

/// TOS and overflow count among the control messages of a message that recvmsg filled in.
fn control_values(message: &libc::msghdr) -> (u8, Option<u32>) {
    let (mut tos, mut overflowed) = (0, None);
    // SAFETY: the kernel wrote msg_controllen bytes of well-formed control messages; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a non-null header points at a whole cmsghdr.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        // SAFETY: each of the kinds read below carries at least as many bytes as are read; reads are unaligned.
        unsafe {
            let data = libc::CMSG_DATA(header);
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    tos = data.cast::<c_int>().read_unaligned() as u8
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    overflowed = Some(data.cast::<u32>().read_unaligned())
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (tos, overflowed)
}

/// sendmsg(2), not blocking: one datagram to `destination`, gathered from `slices`, with `tos` as TOS or traffic class.
///
/// # Errors
/// EAGAIN or ENOBUFS if queues are full, EMSGSIZE, ENETUNREACH and their like, ECONNREFUSED for an earlier datagram.
pub fn send(
    fd: impl AsFd,
    destination: &SockAddr,
    slices: &[IoSlice<'_>],
    tos: u8,
) -> io::Result<usize> {
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = destination.as_ptr().cast_mut().cast::<c_void>();
    message.msg_namelen = destination.len();
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    let (level, kind) = if destination.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TOS)
    };
    // SAFETY: the buffer has room for one header and an int, as asserted above, and is aligned for both.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as usize;
        libc::CMSG_DATA(header)
            .cast::<c_int>()
            .write_unaligned(c_int::from(tos));
        message.msg_controllen = libc::CMSG_SPACE(size_of::<c_int>() as u32) as usize;
    }
    // SAFETY: `destination`, `slices` and `control` outlive the call; IoSlice has the layout of iovec; sendmsg writes to none of them.
    let sent = unsafe {
        libc::sendmsg(
            fd.as_fd().as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// setsockopt(2) with an int.
///
/// # Errors
/// What the kernel says of this option.
pub fn set_option(fd: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the option value is a local int, given with its size.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as u32,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;

    fn pair(address: std::net::IpAddr) -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind((address, 0)).expect("loopback has a free port");
        (bind(), bind())
    }

    fn exchange(address: std::net::IpAddr, level: c_int, option: c_int) -> Datagram {
        let (from, to) = pair(address);
        set_option(&to, level, option, 1).expect("TOS can be asked for");
        let destination = to.local_addr().expect("bound").into();
        let slices = [IoSlice::new(b"over"), IoSlice::new(b"lay")];
        assert_eq!(send(&from, &destination, &slices, 0xb9).expect("sent"), 7);
        let mut buffer = [0; 64];
        let datagram = recv(&to, &mut buffer).expect("loopback delivers at once");
        assert_eq!(&buffer[..datagram.len], b"overlay");
        assert_eq!(datagram.source, from.local_addr().expect("bound"));
        datagram
    }

    #[test]
    fn tos_crosses_on_ipv4() {
        let datagram = exchange(
            Ipv4Addr::LOCALHOST.into(),
            libc::IPPROTO_IP,
            libc::IP_RECVTOS,
        );
        assert_eq!((datagram.tos, datagram.truncated), (0xb9, false));
    }

    #[test]
    fn traffic_class_crosses_on_ipv6() {
        let datagram = exchange(
            Ipv6Addr::LOCALHOST.into(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVTCLASS,
        );
        assert_eq!(datagram.tos, 0xb9);
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_says_so() {
        let (from, to) = pair(Ipv4Addr::LOCALHOST.into());
        let destination = to.local_addr().expect("bound").into();
        send(&from, &destination, &[IoSlice::new(&[7; 100])], 0).expect("sent");
        let datagram = recv(&to, &mut [0; 10]).expect("loopback delivers at once");
        assert_eq!((datagram.len, datagram.truncated), (10, true));
    }
}

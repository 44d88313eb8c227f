//! UDP datagrams with their control messages: sendmsg(2), recvmmsg(2), and the options `socket2` lacks.

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use arrayvec::ArrayVec;
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
    /// Bytes of each datagram but the last, if the kernel joined several of one sender (UDP_GRO); `None`: it is one.
    pub segment_bytes: Option<u16>,
}

/// Room for three control messages: as many as are sent, one more than are asked for. Aligned as `cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

const CONTROL_LEN: usize = 128;
// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(CONTROL_LEN >= 3 * unsafe { libc::CMSG_SPACE(4) } as usize);
const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// Messages that one [`recv_many`] reads at the most.
const MESSAGES_MAX: usize = 16;

/// What the kernel fills in for one message, besides its bytes.
struct Envelope {
    name: SockAddrStorage,
    control: Control,
    bytes: libc::iovec,
}

/// recvmmsg(2), not blocking: the messages that are there, one to each `slot_bytes` of `bytes`, appended to `messages`.
///
/// # Errors
/// EAGAIN if nothing is there, or what the socket has pending.
pub fn recv_many(
    fd: impl AsFd,
    bytes: &mut [u8],
    slot_bytes: usize,
    messages: &mut Vec<Datagram>,
) -> io::Result<()> {
    let mut envelopes: ArrayVec<Envelope, MESSAGES_MAX> = bytes
        .chunks_exact_mut(slot_bytes)
        .take(MESSAGES_MAX)
        .map(|slot| Envelope {
            name: SockAddrStorage::zeroed(),
            control: Control([0; CONTROL_LEN]),
            bytes: libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            },
        })
        .collect();
    let mut headers: ArrayVec<libc::mmsghdr, MESSAGES_MAX> =
        envelopes.iter_mut().map(Envelope::header).collect();
    // SAFETY: every pointer in `headers` is into `envelopes` or `bytes`, with its true length, and both outlive the call.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as u32,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (header, envelope) in headers.iter().zip(envelopes.iter()).take(count) {
        // SAFETY: recvmmsg filled in this header, and the envelope it points to.
        messages.push(unsafe { datagram(header, envelope)? });
    }
    Ok(())
}

impl Envelope {
    /// Points at `self`, which must stay where it is.
    fn header(&mut self) -> libc::mmsghdr {
        // SAFETY: all-zero is a valid mmsghdr.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_name = (&raw mut self.name).cast();
        header.msg_hdr.msg_namelen = self.name.size_of();
        header.msg_hdr.msg_iov = &raw mut self.bytes;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = self.control.0.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = CONTROL_LEN;
        header
    }
}

/// What one message is.
///
/// # Safety
/// The kernel filled in `header`, which points at `envelope`.
unsafe fn datagram(header: &libc::mmsghdr, envelope: &Envelope) -> io::Result<Datagram> {
    let message = &header.msg_hdr;
    // SAFETY: all of a storage is initialised, and a copy of one is one.
    let name = unsafe { ptr::read(&raw const envelope.name) };
    // SAFETY: the kernel wrote `msg_namelen` bytes of a socket address.
    let source = unsafe { SockAddr::new(name, message.msg_namelen) };
    // SAFETY: as the caller vouches.
    let values = unsafe { control_values(message) };
    Ok(Datagram {
        len: header.msg_len as usize,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        source: source
            .as_socket()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?,
        tos: values.tos,
        segment_bytes: values.segment_bytes,
    })
}

/// What the control messages of one message said.
#[derive(Default)]
struct ControlValues {
    tos: u8,
    segment_bytes: Option<u16>,
}

/// Reads the control messages of a message.
///
/// # Safety
/// The kernel filled in `message`, and what it points to is still there.
unsafe fn control_values(message: &libc::msghdr) -> ControlValues {
    let mut values = ControlValues::default();
    // SAFETY: the kernel wrote msg_controllen bytes of well-formed control messages; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a non-null header points at a whole cmsghdr.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        // SAFETY: each of the kinds read below carries at least as many bytes as are read; reads are unaligned.
        unsafe {
            let data = libc::CMSG_DATA(header);
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TOS) => values.tos = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    values.tos = data.cast::<c_int>().read_unaligned() as u8
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    values.segment_bytes = Some(data.cast::<c_int>().read_unaligned() as u16)
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    values
}

/// Datagrams that this socket has dropped since it was made, for want of buffer or for their checksum: SO_MEMINFO's count, which wraps.
///
/// SO_RXQ_OVFL would bring it with each datagram, and must not be asked for: the kernel copies that message out of the packet's own
/// `cb`, and of a packet from `skbuff_fclone_cache` hardened usercopy lets nobody copy that. A container's TCP that a kernel VXLAN device
/// of this host encapsulated is such a packet; after the first drop the kernel kills the thread that reads it (`sock_recv_drops`,
/// `usercopy_abort`; seen on Linux 6.18).
///
/// # Errors
/// ENOPROTOOPT before Linux 4.12.
pub fn dropped(fd: impl AsFd) -> io::Result<u32> {
    let mut values = [0_u32; MEMINFO_VALUES];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes up to `len` bytes to the local array, which has as many.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(values[MEMINFO_DROPS])
    }
}

/// SK_MEMINFO_VARS (linux/sock_diag.h).
const MEMINFO_VALUES: usize = 9;
/// SK_MEMINFO_DROPS.
const MEMINFO_DROPS: usize = 8;

/// sendmsg(2), not blocking: a datagram to `destination`, gathered from `slices`, with `tos` as TOS or traffic class. `ttl` is the TTL or
/// hop limit, if it is not the socket's. With `segment_bytes` the kernel cuts it into datagrams of that size, the last one shorter maybe
/// (UDP_SEGMENT).
///
/// # Errors
/// EAGAIN or ENOBUFS if queues are full, EMSGSIZE, ENETUNREACH and their like, ECONNREFUSED for an earlier datagram; EIO or EINVAL
/// where segmentation is not to be had.
pub fn send(
    fd: impl AsFd,
    destination: &SockAddr,
    slices: &[IoSlice<'_>],
    tos: u8,
    ttl: Option<u8>,
    segment_bytes: Option<u16>,
) -> io::Result<()> {
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = destination.as_ptr().cast_mut().cast::<c_void>();
    message.msg_namelen = destination.len();
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    let (level, tos_kind, ttl_kind) = if destination.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT)
    } else {
        (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL)
    };
    // SAFETY: three values of four bytes each have room in `control`, as asserted beside CONTROL_LEN.
    unsafe {
        push_control(&mut message, level, tos_kind, c_int::from(tos));
        if let Some(ttl) = ttl {
            push_control(&mut message, level, ttl_kind, c_int::from(ttl));
        }
        if let Some(bytes) = segment_bytes {
            push_control(&mut message, libc::SOL_UDP, libc::UDP_SEGMENT, bytes);
        }
    }
    // SAFETY: `destination`, `slices` and `control` outlive the call; IoSlice has the layout of iovec; sendmsg writes to none of them.
    let sent = unsafe {
        libc::sendmsg(
            fd.as_fd().as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Appends one control message behind the `msg_controllen` bytes that are there.
///
/// # Safety
/// `msg_control` points at a buffer aligned as `cmsghdr` is, with room for CMSG_SPACE of `T` behind those bytes.
unsafe fn push_control<T>(message: &mut libc::msghdr, level: c_int, kind: c_int, value: T) {
    // SAFETY: the caller vouches for the room; CMSG_SPACE keeps what follows aligned; the value is written unaligned.
    unsafe {
        let header = message
            .msg_control
            .byte_add(message.msg_controllen)
            .cast::<libc::cmsghdr>();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        message.msg_controllen += libc::CMSG_SPACE(size_of::<T>() as u32) as usize;
    }
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

    fn recv(fd: &UdpSocket, buffer: &mut [u8]) -> Datagram {
        let mut messages = Vec::new();
        let len = buffer.len();
        recv_many(fd, buffer, len, &mut messages).expect("loopback delivers at once");
        messages[0]
    }

    fn exchange(address: std::net::IpAddr, level: c_int, option: c_int) -> Datagram {
        let (from, to) = pair(address);
        set_option(&to, level, option, 1).expect("TOS can be asked for");
        let destination = to.local_addr().expect("bound").into();
        let slices = [IoSlice::new(b"over"), IoSlice::new(b"lay")];
        send(&from, &destination, &slices, 0xb9, None, None).expect("sent");
        let mut buffer = [0; 64];
        let datagram = recv(&to, &mut buffer);
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
        send(
            &from,
            &destination,
            &[IoSlice::new(&[7; 100])],
            0,
            None,
            None,
        )
        .expect("sent");
        let datagram = recv(&to, &mut [0; 10]);
        assert_eq!((datagram.len, datagram.truncated), (10, true));
    }

    #[test]
    fn one_read_takes_as_many_messages_as_there_are_slots() {
        let (from, to) = pair(Ipv4Addr::LOCALHOST.into());
        let destination = to.local_addr().expect("bound").into();
        for byte in 1..=3 {
            send(
                &from,
                &destination,
                &[IoSlice::new(&[byte; 5])],
                0,
                None,
                None,
            )
            .expect("sent");
        }
        let (mut bytes, mut messages) = ([0; 16], Vec::new());
        recv_many(&to, &mut bytes, 8, &mut messages).expect("loopback delivers at once");
        assert_eq!(bytes[..5], [1; 5]);
        assert_eq!(bytes[8..13], [2; 5]);
        recv_many(&to, &mut bytes, 8, &mut messages).expect("the third is still there");
        assert_eq!(bytes[..5], [3; 5]);
        assert_eq!(messages.len(), 3);
        let nothing = recv_many(&to, &mut bytes, 8, &mut messages).expect_err("no fourth");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_the_socket_drops_is_told_without_another_datagram() {
        let (from, to) = pair(Ipv4Addr::LOCALHOST.into());
        set_option(&to, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)
            .expect("the kernel takes the least it may");
        let destination: SockAddr = to.local_addr().expect("bound").into();
        assert_eq!(dropped(&to).expect("since Linux 4.12"), 0);
        for _ in 0..100 {
            let slices = [IoSlice::new(&[7; 1000])];
            send(&from, &destination, &slices, 0, None, None).expect("sent");
        }
        let lost = dropped(&to).expect("as before");
        let (mut bytes, mut messages) = (vec![0; 100 * 1000], Vec::new());
        while recv_many(&to, &mut bytes, 1000, &mut messages).is_ok() {}
        assert!(lost > 0);
        assert_eq!(messages.len() + lost as usize, 100);
    }

    #[test]
    fn a_run_is_cut_by_the_host_and_joined_again() {
        let (from, to) = pair(Ipv4Addr::LOCALHOST.into());
        set_option(&to, libc::SOL_UDP, libc::UDP_GRO, 1).expect("UDP_GRO since Linux 5.0");
        let destination = to.local_addr().expect("bound").into();
        let slices = [
            IoSlice::new(&[1; 100]),
            IoSlice::new(&[2; 100]),
            IoSlice::new(&[3; 7]),
        ];
        send(&from, &destination, &slices, 0, None, Some(100))
            .expect("UDP_SEGMENT since Linux 4.18");
        let datagram = recv(&to, &mut [0; 512]);
        assert_eq!((datagram.len, datagram.segment_bytes), (207, Some(100)));
    }
}

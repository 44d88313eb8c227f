//! What an error of a descriptor means, and how far it reaches: one packet, or the device. One table per descriptor.

use std::io;

use crate::drop_reason::DropReason;

/// The meaning of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing to read; wait for the next event.
    Empty,
    /// It concerns no packet of ours; go on.
    Passing,
    /// The host does not segment: the packets are still to be sent, one by one.
    Refused,
    /// This packet is lost, for this reason.
    Packet(DropReason),
    /// The device is gone for good.
    Gone,
}

impl Fault {
    /// Reading a TAP: EINVAL is this frame, for which the kernel could make no virtio_net_hdr (`tun_put_user`); EBADFD is a deleted
    /// device, and whatever else is not passing would come again for ever.
    #[must_use]
    pub fn of_tap_read(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Empty,
            Some(libc::EINTR) => Self::Passing,
            Some(libc::EINVAL) => Self::Packet(DropReason::BadVnetHeader),
            _ => Self::Gone,
        }
    }

    /// Writing to a TAP: EIO is a link that is down, EBADFD a deleted one, EINVAL or EMSGSIZE this frame, the rest want of memory.
    #[must_use]
    pub fn of_tap_write(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EIO) => Self::Packet(DropReason::TapDown),
            Some(libc::EBADFD | libc::EBADF) => Self::Gone,
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::Packet(DropReason::TapBusy),
            _ => Self::Packet(DropReason::TapRefused),
        }
    }

    /// Why a frame that the TAP did not take is lost; one written to a deleted TAP counts as to a downed one.
    #[must_use]
    pub fn write_drop(error: &io::Error) -> DropReason {
        match Self::of_tap_write(error) {
            Self::Packet(reason) => reason,
            Self::Gone | Self::Empty | Self::Passing | Self::Refused => DropReason::TapDown,
        }
    }

    /// Receiving datagrams: what is pending on the socket (ICMP, a link that went down) concerns no datagram that arrived.
    #[must_use]
    pub fn of_receive(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Empty,
            Some(libc::EBADF | libc::ENOTSOCK) => Self::Gone,
            _ => Self::Passing,
        }
    }

    /// Sending a datagram, or with `segmented` a run that the host is to segment: EIO or EINVAL then mean that it does not
    /// (`udp_send_skb`). ECONNREFUSED reports an earlier datagram's fate: the caller sends this one again.
    #[must_use]
    pub fn of_send(error: &io::Error, segmented: bool) -> Self {
        match error.raw_os_error() {
            Some(libc::EIO | libc::EINVAL) if segmented => Self::Refused,
            Some(libc::EINTR | libc::ECONNREFUSED) => Self::Passing,
            Some(libc::EMSGSIZE) => Self::Packet(DropReason::TooBig),
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                Self::Packet(DropReason::UnderlayBusy)
            }
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EADDRNOTAVAIL
                | libc::EHOSTDOWN,
            ) => Self::Packet(DropReason::UnderlayUnreachable),
            Some(libc::EBADF | libc::ENOTSOCK) => Self::Gone,
            _ => Self::Packet(DropReason::UnderlaySendFailed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_tap_is_gone_and_a_downed_one_is_not() {
        let error = io::Error::from_raw_os_error;
        assert_eq!(Fault::of_tap_read(&error(libc::EBADFD)), Fault::Gone);
        assert_eq!(Fault::of_tap_write(&error(libc::EBADFD)), Fault::Gone);
        assert_eq!(
            Fault::of_tap_write(&error(libc::EIO)),
            Fault::Packet(DropReason::TapDown)
        );
    }

    #[test]
    fn a_dead_peer_costs_no_other_peer_its_packet() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(Fault::of_send(&refused, true), Fault::Passing);
        assert_eq!(Fault::of_receive(&refused), Fault::Passing);
    }
}

//! Says when the VTEP's device may no longer be as it should: others change links, addresses and routes too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use socket2::SockRef;

use super::answer::messages;
use super::departed::{Departed, departed};
use crate::error::{SetupError, errno, shortage};

// linux/rtnetlink.h, enum rtnetlink_groups.
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const GROUPS: [u32; 5] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
];

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// `struct rtmsg`, whose attributes follow.
const ROUTE_HEADER_LEN: usize = 12;
/// Position of `rtm_type` in it.
const ROUTE_TYPE: usize = 7;
const RTA_OIF: u16 = 4;

/// Holds a burst of some thousand route changes between two looks; more is an overflow, which counts as a change.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// Notifications carry no VF lists, so the longest (a link's) is some 2 KiB; a cut one would count as a change.
const MESSAGE_BYTES: usize = 16 << 10;
/// Messages taken at most in one `drain`, so that a flood cannot hold its caller.
const DRAIN_MAX: usize = 10_000;

/// What happened to the watched link since the last look; the later outweighs the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchEvent {
    /// Nothing of ours.
    Nothing,
    /// The link, its addresses or routes, or an `unreachable` route may have changed: configure again.
    Changed,
    /// The link is deleted or in another namespace.
    Gone,
}

impl WatchEvent {
    /// What one datagram of notifications says of the link with number `interface`.
    #[must_use]
    pub fn of(datagram: &[u8], interface: u32) -> Self {
        messages(datagram)
            .map(|message| judge(&message, interface))
            .max()
            // Cut or unreadable: it may have been ours.
            .unwrap_or(Self::Changed)
    }
}

/// Listens to the kernel's notifications and picks out those about one link.
///
/// Readable (poll, mio) when something happened anywhere on the host; [`Self::drain`] says whether it matters.
#[derive(Debug)]
pub struct Watcher {
    socket: Socket,
    interface: u32,
    name: String,
    buffer: Vec<u8>,
    /// Who is gone.
    departed: Vec<Departed>,
}

impl Watcher {
    /// Watches the link with number `interface` in the calling thread's namespace; `name` is for errors.
    ///
    /// # Errors
    /// If the socket cannot be opened or joined to the groups.
    pub fn open(interface: u32, name: &str) -> Result<Self, SetupError> {
        let socket = open_socket().map_err(|error| {
            let cause = format!("NETLINK_ROUTE: {}", errno(&error));
            SetupError::new("watch", name, cause)
                .mend(shortage(&error))
                .or_mend("is the kernel built without netlink?")
        })?;
        Ok(Self {
            socket,
            interface,
            name: name.to_owned(),
            buffer: Vec::with_capacity(MESSAGE_BYTES),
            departed: Vec::new(),
        })
    }

    /// The link's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads what is pending, without waiting. After [`WatchEvent::Changed`] more may be pending, so with
    /// edge-triggered polling drain until [`WatchEvent::Nothing`].
    ///
    /// # Errors
    /// If the socket fails, which only a closed descriptor makes it.
    pub fn drain(&mut self) -> Result<WatchEvent, SetupError> {
        let mut event = WatchEvent::Nothing;
        for _ in 0..DRAIN_MAX {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    event = event.max(WatchEvent::of(&self.buffer, self.interface));
                    self.departed
                        .extend(messages(&self.buffer).filter_map(|message| departed(&message)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(event),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Notifications were lost, maybe one of ours.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    event = event.max(WatchEvent::Changed);
                }
                Err(error) => {
                    return Err(SetupError::system("watch", &self.name, &error));
                }
            }
        }
        // More is pending, unread: assume the worst that is not final.
        Ok(event.max(WatchEvent::Changed))
    }
}

impl Watcher {
    /// To whom a way is gone, by what was read since the last call: where a link had but one at its other end, as containers' have, whoever
    /// wired them. What an overflow lost is not among them.
    pub fn take_departed(&mut self) -> Vec<Departed> {
        std::mem::take(&mut self.departed)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind_auto()?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// One notification, without decoding or allocating: most are about other links.
fn judge(message: &NetlinkBuffer<&[u8]>, interface: u32) -> WatchEvent {
    let body = message.payload();
    let ours = match message.message_type() {
        RTM_NEWLINK | RTM_DELLINK | RTM_NEWADDR | RTM_DELADDR => index_of(body) == Some(interface),
        RTM_NEWROUTE | RTM_DELROUTE => route_concerns(body, interface),
        _ => false,
    };
    // A bridge's RTM_DELLINK (AF_BRIDGE) only says that the link left the bridge.
    let whole = body.first() == Some(&0);
    match message.message_type() {
        RTM_DELLINK if ours && whole => WatchEvent::Gone,
        _ if ours => WatchEvent::Changed,
        _ => WatchEvent::Nothing,
    }
}

/// `ifi_index` and `ifa_index` are both at offset 4.
fn index_of(body: &[u8]) -> Option<u32> {
    let bytes = body.get(4..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn route_concerns(body: &[u8], interface: u32) -> bool {
    let Some((header, attributes)) = body.split_at_checked(ROUTE_HEADER_LEN) else {
        return false;
    };
    header[ROUTE_TYPE] == libc::RTN_UNREACHABLE
        || NlasIterator::new(attributes)
            .filter_map(Result::ok)
            .any(|a| a.kind() == RTA_OIF && a.value() == interface.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 7;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn link(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend([0; 8]);
        message(kind, &body)
    }

    fn route(route_type: u8, oif: u32) -> Vec<u8> {
        let mut body = vec![2, 16, 0, 0, 254, 3, 0, route_type, 0, 0, 0, 0];
        body.extend([8, 0, 4, 0]);
        body.extend(oif.to_ne_bytes());
        message(RTM_DELROUTE, &body)
    }

    #[test]
    fn only_our_link_counts() {
        assert_eq!(
            WatchEvent::of(&link(RTM_NEWLINK, 0, OURS), OURS),
            WatchEvent::Changed
        );
        assert_eq!(
            WatchEvent::of(&link(RTM_NEWLINK, 0, 8), OURS),
            WatchEvent::Nothing
        );
        assert_eq!(
            WatchEvent::of(&link(RTM_DELADDR, 2, OURS), OURS),
            WatchEvent::Changed
        );
        assert_eq!(
            WatchEvent::of(&link(RTM_DELADDR, 2, 8), OURS),
            WatchEvent::Nothing
        );
    }

    #[test]
    fn deletion_is_gone_but_leaving_a_bridge_is_not() {
        const AF_BRIDGE: u8 = 7;
        assert_eq!(
            WatchEvent::of(&link(RTM_DELLINK, 0, OURS), OURS),
            WatchEvent::Gone
        );
        assert_eq!(
            WatchEvent::of(&link(RTM_DELLINK, AF_BRIDGE, OURS), OURS),
            WatchEvent::Changed
        );
        assert_eq!(
            WatchEvent::of(&link(RTM_DELLINK, 0, 8), OURS),
            WatchEvent::Nothing
        );
    }

    #[test]
    fn routes_count_on_our_link_or_unreachable() {
        assert_eq!(WatchEvent::of(&route(1, OURS), OURS), WatchEvent::Changed);
        assert_eq!(WatchEvent::of(&route(1, 8), OURS), WatchEvent::Nothing);
        assert_eq!(
            WatchEvent::of(&route(libc::RTN_UNREACHABLE, 8), OURS),
            WatchEvent::Changed
        );
    }

    #[test]
    fn the_gravest_of_several_wins_and_nonsense_is_a_change() {
        let mut both = link(RTM_DELLINK, 0, OURS);
        both.extend(route(1, 8));
        assert_eq!(WatchEvent::of(&both, OURS), WatchEvent::Gone);
        assert_eq!(WatchEvent::of(&[1, 2, 3], OURS), WatchEvent::Changed);
        for end in 0..both.len() {
            let _ = WatchEvent::of(&both[..end], OURS);
        }
    }
}

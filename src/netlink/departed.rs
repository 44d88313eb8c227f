//! Who was reached over one link alone and no longer is, by the kernel's notifications: a container that is gone, whoever wired it.
//!
//! Of a container's link that goes the kernel tells, for IPv4, the loss of the point-to-point address (`inet_del_ifa`; the routes of a
//! link that goes down it removes without a word, `fib_sync_down_dev`), and for IPv6 that of the host route (`inet6_rt_notify`).
//!
//! A link may lead to somebody in two ways, of which one goes: the kernel is asked what is left.

use std::net::IpAddr;

use netlink_packet_core::{NetlinkBuffer, NlasIterator};

use super::error::NetlinkError;
use super::route::{Route, RouteKind};
use super::socket::Netlink;

const RTM_DELADDR: u16 = 21;
const RTM_DELROUTE: u16 = 25;
/// `struct ifaddrmsg`, whose attributes follow.
const ADDRESS_HEADER_LEN: usize = 8;
/// Position of `ifa_index` in it.
const ADDRESS_INTERFACE: usize = 4;
/// The other end of a point-to-point address, and else the address itself, as `IFA_LOCAL` has it too.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `struct rtmsg`, whose attributes follow.
const ROUTE_HEADER_LEN: usize = 12;
/// Position of `rtm_type` in it.
const ROUTE_TYPE: usize = 7;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// Somebody to whom a way that the kernel had is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Departed {
    /// Who.
    pub address: IpAddr,
    /// The number of the link that led there; `None` if there were several.
    pub interface: Option<u32>,
}

impl Departed {
    /// True if the same link leads there all the same: by a route of another metric, or a route beside the point-to-point address.
    ///
    /// Another link may be that of whoever was given the address since. Of an address that goes the kernel tells before its route does
    /// (`__inet_del_ifa`), so the last word is the route's.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn is_reached(&self, netlink: &mut Netlink) -> Result<bool, NetlinkError> {
        let leads_there = |route: Route| {
            route.kind == RouteKind::Unicast
                && route.destination == self.address.into()
                && route.interface == self.interface
        };
        let route = netlink.route_to(self.address)?;
        Ok(self.interface.is_some() && route.is_some_and(leads_there))
    }
}

/// Of whom `message` says that a way to it is gone.
pub(super) fn departed(message: &NetlinkBuffer<&[u8]>) -> Option<Departed> {
    let body = message.payload();
    match message.message_type() {
        RTM_DELADDR => {
            let (header, attributes) = body.split_at_checked(ADDRESS_HEADER_LEN)?;
            let peer = address(attributes, IFA_ADDRESS)?;
            // The prefix is the other end's.
            let is_peer = is_whole(header[1], peer) && address(attributes, IFA_LOCAL) != Some(peer);
            is_peer.then_some(Departed {
                address: peer,
                interface: number(header.get(ADDRESS_INTERFACE..)?),
            })
        }
        RTM_DELROUTE => {
            let (header, attributes) = body.split_at_checked(ROUTE_HEADER_LEN)?;
            let destination = address(attributes, RTA_DST)?;
            let is_host =
                header[ROUTE_TYPE] == libc::RTN_UNICAST && is_whole(header[1], destination);
            is_host.then_some(Departed {
                address: destination,
                interface: read(attributes, RTA_OIF, number),
            })
        }
        _ => None,
    }
}

fn is_whole(prefix_len: u8, address: IpAddr) -> bool {
    prefix_len == if address.is_ipv4() { 32 } else { 128 }
}

/// Of either family, as its length says.
fn address(attributes: &[u8], kind: u16) -> Option<IpAddr> {
    read(attributes, kind, |value| {
        let v4 = || <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
        <[u8; 16]>::try_from(value)
            .ok()
            .map(IpAddr::from)
            .or_else(v4)
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// What `read` makes of the attribute.
fn read<T>(attributes: &[u8], kind: u16, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let found = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == kind)?;
    read(found.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(16 + body.len()).unwrap();
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    fn told(bytes: &[u8]) -> Option<Departed> {
        departed(&NetlinkBuffer::new_checked(bytes).unwrap())
    }

    fn of_address(kind: u16, prefix_len: u8, local: &[u8], peer: &[u8]) -> Vec<u8> {
        let header = [2, prefix_len, 0, 0, 9, 0, 0, 0];
        let attributes = [attribute(IFA_ADDRESS, peer), attribute(IFA_LOCAL, local)].concat();
        message(kind, &[&header[..], &attributes].concat())
    }

    fn of_route(kind: u16, prefix_len: u8, route_type: u8, destination: &[u8]) -> Vec<u8> {
        let header = [2, prefix_len, 0, 0, 254, 0, 0, route_type, 0, 0, 0, 0];
        let attributes = [
            attribute(RTA_DST, destination),
            attribute(RTA_OIF, &7_u32.to_ne_bytes()),
        ];
        message(kind, &[&header[..], &attributes.concat()].concat())
    }

    const HOST: &[u8] = &[169, 254, 0, 1];
    const CONTAINER: &[u8] = &[10, 255, 108, 184];
    const V6: &[u8] = &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    #[test]
    fn the_other_end_of_a_point_to_point_address_and_a_host_route_are_somebody() {
        let from = |address: IpAddr, interface| Some(Departed { address, interface });
        let container = IpAddr::from([10, 255, 108, 184]);
        assert_eq!(
            told(&of_address(RTM_DELADDR, 32, HOST, CONTAINER)),
            from(container, Some(9))
        );
        assert_eq!(
            told(&of_route(RTM_DELROUTE, 32, 1, CONTAINER)),
            from(container, Some(7))
        );
        let v6 = "fd00::2".parse().unwrap();
        assert_eq!(told(&of_route(RTM_DELROUTE, 128, 1, V6)), from(v6, Some(7)));
        // By several links.
        let header = [2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        let body = [&header[..], &attribute(RTA_DST, CONTAINER)].concat();
        assert_eq!(told(&message(RTM_DELROUTE, &body)), from(container, None));
    }

    #[test]
    fn what_is_added_or_leads_to_many_or_to_ourselves_is_nobody() {
        const NEW: u16 = 20;
        const LOCAL: u8 = 2;
        for message in [
            of_address(NEW, 32, HOST, CONTAINER),
            of_address(RTM_DELADDR, 32, CONTAINER, CONTAINER),
            of_address(RTM_DELADDR, 24, HOST, CONTAINER),
            of_route(RTM_DELROUTE - 1, 32, 1, CONTAINER),
            of_route(RTM_DELROUTE, 24, 1, CONTAINER),
            of_route(RTM_DELROUTE, 32, LOCAL, CONTAINER),
            of_route(RTM_DELROUTE, 32, 1, V6),
            message(RTM_DELADDR, &[2, 32]),
            message(RTM_DELROUTE, &[]),
        ] {
            assert_eq!(told(&message), None, "{message:?}");
        }
    }
}

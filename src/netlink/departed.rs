//! Who was reached over one link alone and no longer is, by the kernel's notifications: a container that is gone, whoever wired it.
//!
//! Of a container's link that goes the kernel tells, for IPv4, the loss of the point-to-point address (`inet_del_ifa`; the routes of a
//! link that goes down it removes without a word, `fib_sync_down_dev`), and for IPv6 that of the host route (`inet6_rt_notify`).

use std::net::IpAddr;

use netlink_packet_core::{NetlinkBuffer, NlasIterator};

const RTM_DELADDR: u16 = 21;
const RTM_DELROUTE: u16 = 25;
/// `struct ifaddrmsg`, whose attributes follow.
const ADDRESS_HEADER_LEN: usize = 8;
/// The other end of a point-to-point address, and else the address itself, as `IFA_LOCAL` has it too.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `struct rtmsg`, whose attributes follow.
const ROUTE_HEADER_LEN: usize = 12;
/// Position of `rtm_type` in it.
const ROUTE_TYPE: usize = 7;
const RTA_DST: u16 = 1;

/// Of whom `message` says that nothing leads to it any more.
pub(super) fn departed(message: &NetlinkBuffer<&[u8]>) -> Option<IpAddr> {
    let body = message.payload();
    match message.message_type() {
        RTM_DELADDR => {
            let (header, attributes) = body.split_at_checked(ADDRESS_HEADER_LEN)?;
            let peer = address(attributes, IFA_ADDRESS)?;
            // The prefix is the other end's.
            let is_peer = is_whole(header[1], peer) && address(attributes, IFA_LOCAL) != Some(peer);
            is_peer.then_some(peer)
        }
        RTM_DELROUTE => {
            let (header, attributes) = body.split_at_checked(ROUTE_HEADER_LEN)?;
            let destination = address(attributes, RTA_DST)?;
            let is_host =
                header[ROUTE_TYPE] == libc::RTN_UNICAST && is_whole(header[1], destination);
            is_host.then_some(destination)
        }
        _ => None,
    }
}

fn is_whole(prefix_len: u8, address: IpAddr) -> bool {
    prefix_len == if address.is_ipv4() { 32 } else { 128 }
}

/// Of either family, as its length says.
fn address(attributes: &[u8], kind: u16) -> Option<IpAddr> {
    let found = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == kind)?;
    let value = found.value();
    let v4 = || <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    <[u8; 16]>::try_from(value)
        .ok()
        .map(IpAddr::from)
        .or_else(v4)
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

    fn told(bytes: &[u8]) -> Option<IpAddr> {
        departed(&NetlinkBuffer::new_checked(bytes).unwrap())
    }

    fn of_address(kind: u16, prefix_len: u8, local: &[u8], peer: &[u8]) -> Vec<u8> {
        let header = [2, prefix_len, 0, 0, 9, 0, 0, 0];
        let attributes = [attribute(IFA_ADDRESS, peer), attribute(IFA_LOCAL, local)].concat();
        message(kind, &[&header[..], &attributes].concat())
    }

    fn of_route(kind: u16, prefix_len: u8, route_type: u8, destination: &[u8]) -> Vec<u8> {
        let header = [2, prefix_len, 0, 0, 254, 0, 0, route_type, 0, 0, 0, 0];
        message(
            kind,
            &[&header[..], &attribute(RTA_DST, destination)].concat(),
        )
    }

    const HOST: &[u8] = &[169, 254, 0, 1];
    const CONTAINER: &[u8] = &[10, 255, 108, 184];
    const V6: &[u8] = &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    #[test]
    fn the_other_end_of_a_point_to_point_address_and_a_host_route_are_somebody() {
        let container = Some(IpAddr::from([10, 255, 108, 184]));
        assert_eq!(
            told(&of_address(RTM_DELADDR, 32, HOST, CONTAINER)),
            container
        );
        assert_eq!(told(&of_route(RTM_DELROUTE, 32, 1, CONTAINER)), container);
        let v6 = Some("fd00::2".parse().unwrap());
        assert_eq!(told(&of_route(RTM_DELROUTE, 128, 1, V6)), v6);
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

//! The host's ends of containers' links: which containers are behind them, and what they have carried.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Stats64};
use nix::errno::Errno;

use super::error::NetlinkError;
use super::link::{LinkKind, link_of};
use super::route::{PROTOCOL_KERNEL, Route, RouteFilter, RouteKind};
use super::socket::Netlink;
use crate::error::SetupError;

/// A veth of the host's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its number: a link made anew has another, whatever its name.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu_bytes: u32,
    /// What is reached by it alone: the peers of its point-to-point addresses, and what its IPv6 host routes lead to.
    pub peers: Vec<IpAddr>,
    /// What it has carried, as the kernel counts it.
    pub traffic: Traffic,
}

/// A link's counters, in the kernel's words: what the host's end received the container sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes, Ethernet headers included.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes, Ethernet headers included.
    pub tx_bytes: u64,
}

/// The veth called `name`, if there is one, without its `peers`.
///
/// # Errors
/// If the kernel does not answer, or refuses the name.
pub fn host_link(netlink: &mut Netlink, name: &str) -> Result<Option<HostLink>, SetupError> {
    let mut request = LinkMessage::default();
    let attribute = LinkAttribute::IfName(name.to_owned());
    request.attributes.push(attribute);
    match netlink.query(RouteNetlinkMessage::GetLink(request)) {
        Ok(message) => Ok(host_link_of(message)),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error.setup("look up link", name)),
    }
}

/// Every veth.
///
/// # Errors
/// If the kernel does not answer.
pub fn host_links(netlink: &mut Netlink) -> Result<Vec<HostLink>, SetupError> {
    let failed = |error: NetlinkError| error.setup("look up", "containers' links");
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answer = netlink.dump(&request).map_err(failed)?;
    let links = answer.into_iter().filter_map(host_link_of);
    let mut by_index: HashMap<_, _> = links.map(|link| (link.index, link)).collect();
    for address in netlink.addresses(None).map_err(failed)? {
        let Some(peer) = address
            .peer
            .filter(|peer| is_host(*peer, address.prefix_len))
        else {
            continue;
        };
        if let Some(link) = by_index.get_mut(&address.interface) {
            link.peers.push(peer);
        }
    }
    // An IPv6 address of a container has no peer to be known by, but a route.
    let filter = RouteFilter {
        v6: true,
        ..RouteFilter::default()
    };
    for route in netlink.routes(filter).map_err(failed)? {
        let link = route.interface.and_then(|index| by_index.get_mut(&index));
        if let Some(link) = link.filter(|_| leads_to_a_host(&route)) {
            link.peers.push(route.destination.addr());
        }
    }
    let mut links: Vec<_> = by_index.into_values().collect();
    links.sort_unstable_by_key(|link| link.index);
    Ok(links)
}

fn is_host(address: IpAddr, prefix_len: u8) -> bool {
    match address {
        IpAddr::V4(_) => prefix_len == 32,
        IpAddr::V6(_) => prefix_len == 128,
    }
}

/// Not the kernel's own routes, which lead to the host's own addresses.
fn leads_to_a_host(route: &Route) -> bool {
    route.kind == RouteKind::Unicast
        && route.gateway.is_none()
        && route.protocol != PROTOCOL_KERNEL
        && is_host(route.destination.addr(), route.destination.prefix_len())
}

fn host_link_of(message: RouteNetlinkMessage) -> Option<HostLink> {
    let traffic = traffic_of(&message);
    let link = link_of(message).filter(|link| link.kind == LinkKind::Veth)?;
    Some(HostLink {
        index: link.index,
        name: link.name,
        mtu_bytes: link.mtu_bytes,
        peers: Vec::new(),
        traffic,
    })
}

fn traffic_of(message: &RouteNetlinkMessage) -> Traffic {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return Traffic::default();
    };
    let counted = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counted) => Some(counted),
            _ => None,
        });
    counted.map(Traffic::from).unwrap_or_default()
}

impl From<&Stats64> for Traffic {
    fn from(counted: &Stats64) -> Self {
        Self {
            rx_packets: counted.rx_packets,
            rx_bytes: counted.rx_bytes,
            tx_packets: counted.tx_packets,
            tx_bytes: counted.tx_bytes,
        }
    }
}

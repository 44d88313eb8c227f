//! What the kernel lists: one kind for each table of the network that is looked at here.

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::{self, Address};
use super::link::{self, Link};
use super::neighbor::{self, Neighbor};
use super::route::{self, Route};

/// One object of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A link.
    Link(Link),
    /// An address of a link, IPv4 or IPv6.
    Address(Address),
    /// A route of the main table, IPv4 or IPv6.
    Route(Route),
    /// A neighbour, IPv4 or IPv6.
    Neighbor(Neighbor),
}

impl Object {
    /// `None` for other kinds, deletions, other tables, and what lacks its key.
    pub(super) fn of(message: RouteNetlinkMessage) -> Option<Self> {
        match &message {
            RouteNetlinkMessage::NewLink(_) => link::link_of(message).map(Self::Link),
            RouteNetlinkMessage::NewAddress(inner) => {
                let family = ip_family(inner.header.family)?;
                address::address_of(message, family).map(Self::Address)
            }
            RouteNetlinkMessage::NewRoute(inner) => {
                let family = ip_family(inner.header.address_family)?;
                route::route_of(message, family).map(Self::Route)
            }
            RouteNetlinkMessage::NewNeighbour(_) => {
                neighbor::neighbor_of(message).map(Self::Neighbor)
            }
            _ => None,
        }
    }
}

fn ip_family(family: AddressFamily) -> Option<AddressFamily> {
    matches!(family, AddressFamily::Inet | AddressFamily::Inet6).then_some(family)
}

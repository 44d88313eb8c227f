//! Neighbours: which MAC an address is at.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;

use super::address::family_of;
use super::error::NetlinkError;
use super::link::mac_of;
use super::socket::{CREATE, Change, Netlink};
use crate::wire::MacAddr;

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    /// The link's number.
    pub interface: u32,
    /// Who.
    pub address: IpAddr,
    /// Where; unknown while it is being asked for.
    pub mac: Option<MacAddr>,
    /// NUD_PERMANENT: set by hand, never asked for, never aged.
    pub permanent: bool,
}

impl Neighbor {
    /// An entry that stays.
    #[must_use]
    pub fn permanent(interface: u32, address: IpAddr, mac: MacAddr) -> Self {
        Self {
            interface,
            address,
            mac: Some(mac),
            permanent: true,
        }
    }

    /// Adds it, in place of the address's if it has one.
    pub(super) fn replacement(&self) -> Change {
        let message = RouteNetlinkMessage::NewNeighbour(message_of(self));
        Change::new(message, NLM_F_CREATE | NLM_F_REPLACE)
    }
}

impl Netlink {
    /// The neighbours on one link, or on all.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn neighbors(&mut self, interface: Option<u32>) -> Result<Vec<Neighbor>, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request
            .attributes
            .extend(interface.map(NeighbourAttribute::IfIndex));
        let answer = self.dump(&RouteNetlinkMessage::GetNeighbour(request))?;
        Ok(answer
            .into_iter()
            .filter_map(neighbor_of)
            .filter(|entry| interface.is_none_or(|index| index == entry.interface))
            .collect())
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// EEXIST if the address has one on that link, ENODEV if the link is gone.
    pub fn add_neighbor(&mut self, neighbor: &Neighbor) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewNeighbour(message_of(neighbor));
        self.change(message, CREATE)
    }
}

fn message_of(neighbor: &Neighbor) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(neighbor.address);
    message.header.ifindex = neighbor.interface;
    message.header.kind = RouteType::Unspec;
    message.header.state = if neighbor.permanent {
        NeighbourState::Permanent
    } else {
        NeighbourState::Reachable
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(neighbor.address.into()));
    let mac = neighbor.mac.map(|mac| mac.octets().to_vec());
    message
        .attributes
        .extend(mac.map(NeighbourAttribute::LinkLayerAddress));
    message
}

/// Entries of IPv4 and IPv6; bridges and VXLAN devices list theirs in the same table.
pub(super) fn neighbor_of(message: RouteNetlinkMessage) -> Option<Neighbor> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(octets) => mac = mac_of(octets),
            _ => {}
        }
    }
    Some(Neighbor {
        interface: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

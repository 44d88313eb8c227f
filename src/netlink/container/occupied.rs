//! Addresses that no new container may have, because somebody of this namespace visibly has them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::host_name;
use crate::error::SetupError;
use crate::netlink::Netlink;
use crate::netlink::address::Address;
use crate::netlink::error::NetlinkError;
use crate::netlink::route::{Route, RouteKind};

const OPERATION: &str = "add container";

/// The addresses of the calling thread's namespace, and those at the other ends of its links.
#[derive(Debug)]
pub struct Occupied {
    addresses: Vec<Address>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// The host.
    Host,
    /// A container, by the name of its link here.
    Container(String),
    /// Whoever is at the other end of this link.
    Peer(String),
}

impl Occupied {
    /// Lists them.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn list(netlink: &mut Netlink) -> Result<Self, SetupError> {
        let addresses = netlink.addresses(None);
        let addresses =
            addresses.map_err(|error| error.setup(OPERATION, "list the host's addresses"))?;
        Ok(Self { addresses })
    }

    /// Who has `address`, if anybody: it has a link by a container's name, is the host's own, or one that a link leads to by a
    /// peer's address or a route of its own.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn by(
        &self,
        netlink: &mut Netlink,
        address: Ipv4Addr,
    ) -> Result<Option<Occupant>, SetupError> {
        let failed = |error: NetlinkError| {
            error.setup_step(OPERATION, &address.to_string(), "look up who has it")
        };
        let is_this = |of: IpAddr| of == IpAddr::from(address);
        if self.addresses.iter().any(|have| is_this(have.local)) {
            return Ok(Some(Occupant::Host));
        }
        let name = host_name(address);
        if netlink.link_named(&name).map_err(failed)?.is_some() {
            return Ok(Some(Occupant::Container(name)));
        }
        let leads_there = |have: &&Address| have.prefix_len == 32 && have.peer.is_some_and(is_this);
        let by_address = self.addresses.iter().find(leads_there);
        let index = match by_address {
            Some(have) => Some(have.interface),
            None => {
                let route = netlink.route_to(address.into()).map_err(failed)?;
                route.and_then(|route| to_one_host(&route))
            }
        };
        let Some(index) = index else {
            return Ok(None);
        };
        let link = netlink.link(index).map_err(failed)?;
        Ok(link.map(|link| Occupant::Peer(link.name)))
    }
}

/// The link of a route to one address alone, which a container's own route would come behind.
fn to_one_host(route: &Route) -> Option<u32> {
    let is_host = route.kind == RouteKind::Unicast && route.destination.prefix_len() == 32;
    route.interface.filter(|_| is_host)
}

impl Occupant {
    /// What to do about it.
    #[must_use]
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Host => "choose another address",
            Self::Container(_) => "choose another address, or remove that container first",
            Self::Peer(_) => "choose another address, or remove that link first",
        }
    }
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("it is an address of this host"),
            Self::Container(link) => write!(f, "link {link} exists: the address has a container"),
            Self::Peer(link) => write!(f, "link {link} leads to it"),
        }
    }
}

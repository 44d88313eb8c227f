//! Routes of the main table.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::address::family_of;
use super::error::{NetlinkError, unless};
use super::socket::{CREATE, Change, Netlink};

/// What the kernel makes of a v6 route without a metric (IP6_RT_PRIO_USER).
const DEFAULT_METRIC_V6: u32 = 1024;
/// As iproute2 and Silk add theirs; `ip route` shows no protocol then.
pub(super) const PROTOCOL_BOOT: u8 = 3;
/// RTPROT_KERNEL: what comes with an address.
pub(super) const PROTOCOL_KERNEL: u8 = 2;

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Answers with an ICMP error.
    Unreachable,
    /// Another type (RTN_*).
    Other(u8),
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it does.
    pub kind: RouteKind,
    /// Where to, without host bits.
    pub destination: IpNet,
    /// Next hop; a connected route has none.
    pub gateway: Option<IpAddr>,
    /// RTNH_F_ONLINK: the next hop needs no route of its own.
    pub onlink: bool,
    /// The link's number.
    pub interface: Option<u32>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Priority, the lowest wins.
    pub metric: u32,
    /// Who made it (RTPROT_*).
    pub protocol: u8,
}

/// Which routes to list; the kernel filters where it can (Linux 4.20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// Only those out of this link.
    pub interface: Option<u32>,
    /// Only `unreachable` ones.
    pub unreachable: bool,
    /// Only IPv6 ones.
    pub v6: bool,
}

impl Route {
    /// A connected route: `destination dev interface scope link`.
    #[must_use]
    pub fn connected(destination: IpNet, interface: u32) -> Self {
        Self {
            kind: RouteKind::Unicast,
            destination: destination.trunc(),
            gateway: None,
            onlink: false,
            interface: Some(interface),
            source: None,
            metric: default_metric(&destination),
            protocol: PROTOCOL_BOOT,
        }
    }

    /// `destination via gateway dev interface`.
    #[must_use]
    pub fn via(destination: IpNet, gateway: IpAddr, interface: u32) -> Self {
        Self {
            gateway: Some(gateway),
            ..Self::connected(destination, interface)
        }
    }

    /// `unreachable destination`, made by `protocol`.
    #[must_use]
    pub fn unreachable(destination: IpNet, protocol: u8) -> Self {
        Self {
            kind: RouteKind::Unreachable,
            interface: None,
            protocol,
            ..Self::connected(destination, 0)
        }
    }

    /// Adds it.
    pub(super) fn addition(&self) -> Change {
        Change::new(RouteNetlinkMessage::NewRoute(message_of(self)), CREATE)
    }
}

fn default_metric(destination: &IpNet) -> u32 {
    match destination {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => DEFAULT_METRIC_V6,
    }
}

impl Netlink {
    /// The main table's routes that `filter` lets through; IPv4 first.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>, NetlinkError> {
        let mut found = Vec::new();
        let v4 = (!filter.v6).then_some(AddressFamily::Inet);
        for family in v4.into_iter().chain([AddressFamily::Inet6]) {
            let request = RouteNetlinkMessage::GetRoute(filter_message(family, filter));
            match self.dump(&request) {
                Ok(answer) => found.extend(
                    answer
                        .into_iter()
                        .filter_map(|message| route_of(message, family))
                        .filter(|route| filter.lets_through(route)),
                ),
                // A kernel without this family's table answers a filtered dump with ENOENT.
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The main table's route that packets to `address` take; `None` if there is none, or another table decides. The table as it stands
    /// (RTM_F_FIB_MATCH, Linux 4.13): before, kernels answer with a route to the address alone, whatever the prefix.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<Route>, NetlinkError> {
        self.query_route(None, address)
    }

    /// The same for packets from `source`.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn route_from(
        &mut self,
        source: IpAddr,
        address: IpAddr,
    ) -> Result<Option<Route>, NetlinkError> {
        self.query_route(Some(source), address)
    }

    fn query_route(
        &mut self,
        source: Option<IpAddr>,
        address: IpAddr,
    ) -> Result<Option<Route>, NetlinkError> {
        let family = family_of(address);
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = IpNet::from(address).max_prefix_len();
        message.header.flags = RouteFlags::FibMatch;
        let destination = RouteAttribute::Destination(RouteAddress::from(address));
        message.attributes.push(destination);
        if let Some(source) = source {
            message.header.source_prefix_length = IpNet::from(source).max_prefix_len();
            let source = RouteAttribute::Source(RouteAddress::from(source));
            message.attributes.push(source);
        }
        match self.query(RouteNetlinkMessage::GetRoute(message)) {
            Ok(answer) => Ok(route_of(answer, family)),
            // No route, or one that says so (`fib_props`).
            Err(error)
                if [
                    Errno::ENETUNREACH,
                    Errno::EHOSTUNREACH,
                    Errno::EACCES,
                    Errno::EINVAL,
                ]
                .map(Some)
                .contains(&error.errno()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// EEXIST if there is one to that destination with that metric, EINVAL or ENETUNREACH for a gateway or source
    /// that does not fit.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.change_one(route.addition())
    }

    /// Adds a route in place of the one with that destination and metric, whosever it is.
    ///
    /// # Errors
    /// As [`Self::add_route`], but for EEXIST.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(message_of(route));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route; false if there is none like it.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, NetlinkError> {
        let message = RouteNetlinkMessage::DelRoute(message_of(route));
        unless(Errno::ESRCH, self.change(message, 0))
    }
}

impl RouteFilter {
    fn lets_through(self, route: &Route) -> bool {
        (self.interface.is_none() || route.interface == self.interface)
            && (!self.unreachable || route.kind == RouteKind::Unreachable)
    }
}

fn filter_message(family: AddressFamily, filter: RouteFilter) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    if filter.unreachable {
        message.header.kind = RouteType::Unreachable;
    }
    message
        .attributes
        .extend(filter.interface.map(RouteAttribute::Oif));
    message
}

fn message_of(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_of(route.destination.addr());
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = scope_of(route);
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Other(raw) => RouteType::from(raw),
    };
    header.flags.set(RouteFlags::Onlink, route.onlink);
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(route.destination.network())),
        RouteAttribute::Priority(route.metric),
    ];
    let gateway = route
        .gateway
        .map(|gateway| RouteAttribute::Gateway(gateway.into()));
    let source = route
        .source
        .map(|source| RouteAttribute::PrefSource(source.into()));
    let interface = route.interface.map(RouteAttribute::Oif);
    let more = [gateway, source, interface].into_iter().flatten();
    message.attributes.extend(more);
    message
}

/// A connected IPv4 route reaches this link only, as iproute2 derives it; IPv6 has no scopes.
fn scope_of(route: &Route) -> RouteScope {
    let connected = route.kind == RouteKind::Unicast && route.gateway.is_none();
    if connected && route.destination.addr().is_ipv4() {
        RouteScope::Link
    } else {
        RouteScope::Universe
    }
}

/// A route of the main table; `None` for other tables, cached routes and host bits the kernel would not send.
pub(super) fn route_of(message: RouteNetlinkMessage, family: AddressFamily) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let header = message.header;
    let wrong_family = header.address_family != family;
    if wrong_family || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let unspecified: IpAddr = match family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let everywhere = IpNet::new(unspecified, header.destination_prefix_length).ok()?;
    let mut route = Route {
        kind: kind_of(header.kind),
        onlink: header.flags.contains(RouteFlags::Onlink),
        interface: None,
        metric: 0,
        protocol: header.protocol.into(),
        ..Route::connected(everywhere, 0)
    };
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                let prefix = IpNet::new(ip_of(&to)?, header.destination_prefix_length).ok()?;
                route.destination = prefix.trunc();
            }
            RouteAttribute::Gateway(gateway) => route.gateway = ip_of(&gateway),
            RouteAttribute::PrefSource(source) => route.source = ip_of(&source),
            RouteAttribute::Oif(interface) => route.interface = Some(interface),
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    // The kernel files a v6 unreachable route under `lo`; nothing leaves by it.
    if route.kind == RouteKind::Unreachable {
        route.interface = None;
    }
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(route)
}

fn kind_of(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Unreachable => RouteKind::Unreachable,
        other => RouteKind::Other(other.into()),
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

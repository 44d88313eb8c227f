//! The kernel's own routes and neighbours in one namespace, in iproute2's words.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::error::SetupError;
use crate::netlink::{
    Link, Namespace, Neighbor, Netlink, NetlinkError, Route, RouteFilter, RouteKind,
};

/// RTPROT_KERNEL: a route that came with an address.
const PROTOCOL_KERNEL: u8 = 2;

/// A look into one namespace.
#[derive(Debug)]
pub(super) struct Kernel {
    netlink: Netlink,
    links: HashMap<u32, String>,
}

impl Kernel {
    /// Looks into `namespace`.
    ///
    /// # Errors
    /// If the kernel does not answer; so with all the others.
    pub(super) fn of(namespace: &Namespace) -> Result<Self, SetupError> {
        let mut netlink = Netlink::open_in(namespace)?;
        let links = netlink.links().map_err(|error| failed(&netlink, error))?;
        let name = |link: Link| (link.index, link.name);
        Ok(Self {
            links: links.into_iter().map(name).collect(),
            netlink,
        })
    }

    /// The main table's routes out of the link called `dev`, or all, as `ip route show`.
    pub(super) fn routes(&mut self, dev: Option<&str>) -> Result<String, SetupError> {
        let routes = self
            .netlink
            .routes(RouteFilter::default())
            .map_err(|error| failed(&self.netlink, error))?;
        let wanted = |route: &&Route| dev.is_none() || self.name(route.interface) == dev;
        Ok(routes
            .iter()
            .filter(wanted)
            .map(|route| route_line(route, self.name(route.interface)))
            .collect())
    }

    /// The neighbours, as `ip neigh show`.
    pub(super) fn neighbors(&mut self) -> Result<String, SetupError> {
        let neighbors = self
            .netlink
            .neighbors(None)
            .map_err(|error| failed(&self.netlink, error))?;
        let line =
            |neighbor: &Neighbor| neighbor_line(neighbor, self.name(Some(neighbor.interface)));
        Ok(neighbors.iter().map(line).collect())
    }

    fn name(&self, interface: Option<u32>) -> Option<&str> {
        self.links.get(&interface?).map(String::as_str)
    }
}

fn failed(netlink: &Netlink, error: NetlinkError) -> SetupError {
    error.setup("look into", netlink.namespace().label())
}

fn route_line(route: &Route, dev: Option<&str>) -> String {
    let kind = match route.kind {
        RouteKind::Unicast => String::new(),
        RouteKind::Unreachable => "unreachable ".to_owned(),
        RouteKind::Other(kind) => format!("type {kind} "),
    };
    let connected = route.kind == RouteKind::Unicast && route.gateway.is_none();
    let words = [
        route.gateway.map(|gateway| format!(" via {gateway}")),
        dev.map(|dev| format!(" dev {dev}")),
        (route.protocol == PROTOCOL_KERNEL).then(|| " proto kernel".to_owned()),
        connected.then(|| " scope link".to_owned()),
        route.source.map(|source| format!(" src {source}")),
        (route.metric != 0).then(|| format!(" metric {}", route.metric)),
        route.onlink.then(|| " onlink".to_owned()),
    ];
    let words: String = words.into_iter().flatten().collect();
    format!("{kind}{}{words}\n", prefix(route.destination))
}

/// `default`, and a host without its length.
fn prefix(prefix: IpNet) -> String {
    match prefix.prefix_len() {
        0 => "default".to_owned(),
        len if len == prefix.max_prefix_len() => prefix.addr().to_string(),
        _ => prefix.to_string(),
    }
}

fn neighbor_line(neighbor: &Neighbor, dev: Option<&str>) -> String {
    let dev = dev.map(|dev| format!(" dev {dev}")).unwrap_or_default();
    let mac = neighbor
        .mac
        .map(|mac| format!(" lladdr {mac}"))
        .unwrap_or_default();
    let state = if neighbor.permanent { " PERMANENT" } else { "" };
    format!("{}{dev}{mac}{state}\n", neighbor.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(route: &Route) -> String {
        route_line(route, route.interface.map(|_| "eth0"))
    }

    #[test]
    fn routes_read_as_iproute2_prints_them() {
        let gateway = "169.254.0.1".parse().unwrap();
        let source = Some("10.255.108.184".parse().unwrap());
        let default = Route {
            source,
            ..Route::via("0.0.0.0/0".parse().unwrap(), gateway, 2)
        };
        assert_eq!(
            line(&default),
            "default via 169.254.0.1 dev eth0 src 10.255.108.184\n"
        );
        let connected = Route {
            protocol: PROTOCOL_KERNEL,
            source,
            ..Route::connected("169.254.0.1/32".parse().unwrap(), 2)
        };
        assert_eq!(
            line(&connected),
            "169.254.0.1 dev eth0 proto kernel scope link src 10.255.108.184\n"
        );
        let own = Route::unreachable("10.255.108.0/24".parse().unwrap(), 3);
        assert_eq!(line(&own), "unreachable 10.255.108.0/24\n");
        let onlink = Route {
            onlink: true,
            ..Route::via("10.255.0.0/16".parse().unwrap(), gateway, 2)
        };
        assert_eq!(
            line(&onlink),
            "10.255.0.0/16 via 169.254.0.1 dev eth0 onlink\n"
        );
    }

    #[test]
    fn neighbors_read_as_iproute2_prints_them() {
        let mac = "aa:aa:0a:ff:6c:b8".parse().unwrap();
        let neighbor = Neighbor::permanent(2, "169.254.0.1".parse().unwrap(), mac);
        let expected = "169.254.0.1 dev eth0 lladdr aa:aa:0a:ff:6c:b8 PERMANENT\n";
        assert_eq!(neighbor_line(&neighbor, Some("eth0")), expected);
    }
}

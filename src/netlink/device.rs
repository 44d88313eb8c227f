//! The VTEP's device as it should be, and what it takes to get it there.
//!
//! One route per overlay leads through a dummy next hop, so that the kernel keeps a single neighbour for it; a NOARP
//! device resolves that to the device's own MAC, and the core does the rest from its tables. The addresses carry no
//! prefix route for the same reason, and `unreachable` for our own subnets keeps packets for absent containers from
//! going round through the device.
//!
//! Everything is *ensured*: compared first, and changed only where it differs, so the same call sets up a fresh
//! device, takes over an old one, and repairs what others broke.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::address::{Address, AddressScope};
use super::error::NetlinkError;
use super::link::Link;
use super::mended::Mended;
use super::route::{Route, RouteFilter};
use super::socket::Netlink;
use crate::error::SetupError;
use crate::wire::MacAddr;

/// The next hop of the overlay's IPv4 routes; nothing has this address.
const NEXT_HOP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 0, 2));
/// The same for IPv6.
const NEXT_HOP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
/// Loses against the route through the next hop.
const SILK_ROUTE_METRIC: u32 = 100;
/// Marks our `unreachable` routes (RTPROT_*, a number no one has claimed in iproute2's rt_protos), so that a restart
/// after a crash knows them from the administrator's.
pub const PROTOCOL: u8 = 83;

/// The alias of every device of ours: a TAP may be another's, and outlives whoever made it. After a crash it tells ours from the
/// administrator's, whose name and form may be the same.
pub const ALIAS: &str = "silk-vtep";

/// What the VTEP's device should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Its name, for errors; the device is found by number.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its MTU: the underlay's less the tunnel's headers.
    pub mtu_bytes: u32,
    /// The VTEP's addresses, host bits and all, with the overlay's prefix length.
    pub addresses: Vec<IpNet>,
    /// What is reached through the tunnel.
    pub overlays: Vec<IpNet>,
    /// What is reached here: `unreachable` but for the containers' own routes.
    pub own_subnets: Vec<IpNet>,
    /// A route per overlay through the dummy next hop, whose frames the core routes. Without, whoever resolves cells in the kernel
    /// brings the routes.
    pub routing: bool,
    /// Also a connected route per overlay, for tools that look for Silk's.
    pub silk_routes: bool,
}

/// Why the device is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The link is deleted, or in another namespace.
    #[error("device {0} is gone: deleted, or moved to another network namespace")]
    Gone(String),
    /// A step failed.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Keeps one TAP as its [`DeviceSpec`] says.
#[derive(Debug)]
pub struct Device {
    netlink: Netlink,
    index: u32,
    spec: DeviceSpec,
}

impl Device {
    /// The link with number `index` in `netlink`'s namespace; nothing is done to it yet.
    #[must_use]
    pub fn new(netlink: Netlink, index: u32, spec: DeviceSpec) -> Self {
        Self {
            netlink,
            index,
            spec,
        }
    }

    /// The link's number.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The link as it is now.
    ///
    /// # Errors
    /// [`DeviceError::Gone`], or if the kernel does not answer.
    pub fn link(&mut self) -> Result<Link, DeviceError> {
        match self.netlink.link(self.index) {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(DeviceError::Gone(self.spec.name.clone())),
            Err(error) => Err(self.failed("look it up", error).into()),
        }
    }

    /// Makes the device what it should be and says what was not; empty if all was well.
    ///
    /// What was mended before a step failed stays mended; the next call goes on from there.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] if there is no such link any more, else the step that failed.
    pub fn configure(&mut self) -> Result<Vec<Mended>, DeviceError> {
        match self.ensure() {
            Ok(mended) => Ok(mended),
            // A deletion under way shows as any errno, even ENOENT from sysctl: look again.
            Err(error) => match self.netlink.link(self.index) {
                Ok(None) => Err(DeviceError::Gone(self.spec.name.clone())),
                _ => Err(error),
            },
        }
    }

    /// Deletes the link, with all on it, and our `unreachable` routes; fine if they are gone already.
    ///
    /// # Errors
    /// The first step that failed; the others are done all the same.
    pub fn remove(&mut self) -> Result<(), SetupError> {
        let mut first = None;
        let mut note = |step: &str, result: Result<bool, NetlinkError>| {
            if let Err(error) = result {
                let failed = error.setup_step("remove", &self.spec.name, step);
                first.get_or_insert(failed);
            }
        };
        note("delete link", self.netlink.delete_link(self.index));
        for route in unreachable_routes(&self.spec) {
            let step = format!("delete unreachable route {}", route.destination);
            note(&step, self.netlink.delete_route(&route));
        }
        first.map_or(Ok(()), Err)
    }

    fn ensure(&mut self) -> Result<Vec<Mended>, DeviceError> {
        let link = self.link()?;
        // Before IPv6 is switched off, which takes its addresses away.
        let found = self.addresses()?;
        let mut mended = Vec::new();
        self.ensure_link(&link, &mut mended)?;
        self.ensure_addresses(&mut mended)?;
        self.ensure_routes(&mut mended)?;
        self.ensure_unreachable(&found, &mut mended)?;
        Ok(mended)
    }

    /// MAC and NOARP before the link comes up, so that nothing is sent with another MAC or asked for.
    fn ensure_link(&mut self, link: &Link, mended: &mut Vec<Mended>) -> Result<(), SetupError> {
        let (mac, mtu_bytes) = (self.spec.mac, self.spec.mtu_bytes);
        if link.alias.as_deref() != Some(ALIAS) {
            let result = self.netlink.set_alias(self.index, ALIAS);
            self.step(result, || format!("set alias {ALIAS}"))?;
            mended.push(Mended::Alias);
        }
        if link.mac != Some(mac) {
            let result = self.netlink.set_mac(self.index, mac);
            self.step(result, || format!("set MAC {mac}"))?;
            mended.push(Mended::Mac(link.mac));
        }
        if !link.flags.is_noarp() {
            let result = self.netlink.set_noarp(self.index, true);
            self.step(result, || "set NOARP".to_owned())?;
            mended.push(Mended::Arp);
        }
        if link.mtu_bytes != mtu_bytes {
            let result = self.netlink.set_mtu(self.index, mtu_bytes);
            self.step(result, || format!("set MTU {mtu_bytes}"))?;
            mended.push(Mended::Mtu(link.mtu_bytes));
        }
        self.ensure_ipv6(&link.name, mended)?;
        if !link.flags.is_up() {
            let result = self.netlink.set_up(self.index, true);
            self.step(result, || "bring up".to_owned())?;
            mended.push(Mended::Down);
        }
        Ok(())
    }

    /// IPv6 is off unless the overlay speaks it: a VTEP would announce itself to nobody.
    fn ensure_ipv6(&self, name: &str, mended: &mut Vec<Mended>) -> Result<(), SetupError> {
        let wanted = self.spec.has_ipv6();
        let path = format!("net/ipv6/conf/{name}/disable_ipv6");
        let value = if wanted { "0" } else { "1" };
        match self.netlink.namespace().set_sysctl(&path, value) {
            Ok(true) => mended.push(Mended::Ipv6 { was_on: !wanted }),
            Ok(false) => {}
            Err(error) if wanted => {
                return Err(error.mend(
                    "the overlay has IPv6, which this kernel has not, or no link with an MTU below 1280",
                ));
            }
            // No IPv6 in the kernel, or a read-only /proc/sys: nothing depends on its being off.
            Err(error) => tracing::debug!(%error, "IPv6 not switched off"),
        }
        Ok(())
    }

    fn ensure_addresses(&mut self, mended: &mut Vec<Mended>) -> Result<(), SetupError> {
        let wanted = self.spec.addresses.iter();
        let wanted: Vec<_> = wanted.map(|net| address_for(*net, self.index)).collect();
        let mut present = self.addresses()?;
        if self.clear_addresses(&present, &wanted, mended)? {
            // With an IPv4 address the kernel deletes its secondaries, which may be wanted.
            present = self.addresses()?;
        }
        for wanted in &wanted {
            if !present.iter().any(|have| same_address(have, wanted)) {
                let result = self.netlink.add_address(wanted);
                self.step(result, || format!("add address {}", wanted.local))?;
                mended.extend(net_of(wanted).map(Mended::Address));
            }
        }
        Ok(())
    }

    fn addresses(&mut self) -> Result<Vec<Address>, SetupError> {
        let present = self.netlink.addresses(Some(self.index));
        self.step(present, || "list addresses".to_owned())
    }

    /// Deletes what an earlier configuration left, and what has the wrong flags or prefix length: those cannot be
    /// changed in place. True if anything was deleted.
    fn clear_addresses(
        &mut self,
        present: &[Address],
        wanted: &[Address],
        mended: &mut Vec<Mended>,
    ) -> Result<bool, SetupError> {
        let is_right = |have: &Address| wanted.iter().any(|wanted| same_address(have, wanted));
        let mut cleared = false;
        for have in present.iter().filter(|have| !is_right(have)) {
            let is_wrong = wanted.iter().any(|wanted| wanted.local == have.local);
            let is_old = !is_wrong && is_our_address(have);
            if is_wrong || is_old {
                let result = self.netlink.delete_address(have);
                self.step(result, || format!("delete address {}", have.local))?;
                cleared = true;
            }
            if is_old {
                mended.extend(net_of(have).map(Mended::OldAddress));
            }
        }
        Ok(cleared)
    }

    fn ensure_routes(&mut self, mended: &mut Vec<Mended>) -> Result<(), SetupError> {
        let filter = RouteFilter {
            interface: Some(self.index),
            ..RouteFilter::default()
        };
        let present = self.netlink.routes(filter);
        let present = self.step(present, || "list routes".to_owned())?;
        let wanted = overlay_routes(&self.spec, self.index);
        for route in &wanted {
            if present.iter().any(|have| same_route(have, route)) {
                continue;
            }
            // Another route to the same place on our own device is ours to replace; on another device it is not.
            let result = if present.iter().any(|have| same_place(have, route)) {
                self.netlink.replace_route(route)
            } else {
                self.netlink.add_route(route)
            };
            self.step(result, || format!("add route {}", route.destination))?;
            mended.push(Mended::Route(route.destination));
        }
        let old = |have: &&Route| {
            is_our_route(have) && !wanted.iter().any(|route| same_place(have, route))
        };
        for have in present.iter().filter(old) {
            let result = self.netlink.delete_route(have);
            self.step(result, || format!("delete route {}", have.destination))?;
            mended.push(Mended::OldRoute(have.destination));
        }
        Ok(())
    }

    /// `found`: the device's addresses as they were.
    fn ensure_unreachable(
        &mut self,
        found: &[Address],
        mended: &mut Vec<Mended>,
    ) -> Result<(), SetupError> {
        let filter = RouteFilter {
            unreachable: true,
            ..RouteFilter::default()
        };
        let present = self.netlink.routes(filter);
        let present = self.step(present, || "list unreachable routes".to_owned())?;
        for wanted in unreachable_routes(&self.spec) {
            // Someone else's does as well, and stays theirs.
            if present.iter().any(|have| same_route(have, &wanted)) {
                continue;
            }
            let result = self.netlink.add_route(&wanted);
            self.step(result, || {
                format!("add unreachable route {}", wanted.destination)
            })?;
            mended.push(Mended::Unreachable(wanted.destination));
        }
        self.clear_unreachable(&present, found, mended)
    }

    /// Deletes the `unreachable` routes of an earlier configuration: ours by their protocol, and this device's because they hold an
    /// address it has or had. Another daemon's hold neither.
    fn clear_unreachable(
        &mut self,
        present: &[Route],
        found: &[Address],
        mended: &mut Vec<Mended>,
    ) -> Result<(), SetupError> {
        let wanted = unreachable_routes(&self.spec);
        let now = self.spec.addresses.iter().map(IpNet::addr);
        let held: Vec<IpAddr> = now.chain(found.iter().map(|had| had.local)).collect();
        let is_old = |have: &&Route| {
            have.protocol == PROTOCOL
                && !wanted.iter().any(|route| same_place(have, route))
                && held
                    .iter()
                    .any(|address| have.destination.contains(address))
        };
        for have in present.iter().filter(is_old) {
            let result = self.netlink.delete_route(have);
            self.step(result, || {
                format!("delete unreachable route {}", have.destination)
            })?;
            mended.push(Mended::OldRoute(have.destination));
        }
        Ok(())
    }

    fn step<T>(
        &self,
        result: Result<T, NetlinkError>,
        what: impl FnOnce() -> String,
    ) -> Result<T, SetupError> {
        result.map_err(|error| self.failed(&what(), error))
    }

    fn failed(&self, step: &str, error: NetlinkError) -> SetupError {
        error.setup_step("configure", &self.spec.name, step)
    }
}

impl DeviceSpec {
    fn has_ipv6(&self) -> bool {
        self.addresses
            .iter()
            .chain(&self.overlays)
            .any(|net| net.addr().is_ipv6())
    }

    /// Our address in `overlay`, else any of its family.
    fn source_for(&self, overlay: &IpNet) -> Option<IpAddr> {
        let family = |address: &&IpNet| address.addr().is_ipv4() == overlay.addr().is_ipv4();
        let inside = |address: &&IpNet| overlay.contains(&address.addr());
        let addresses = || self.addresses.iter().filter(family);
        addresses()
            .find(inside)
            .or_else(|| addresses().next())
            .map(IpNet::addr)
    }
}

fn address_for(address: IpNet, interface: u32) -> Address {
    let is_v6 = address.addr().is_ipv6();
    Address {
        interface,
        local: address.addr(),
        peer: None,
        prefix_len: address.prefix_len(),
        scope: if is_v6 {
            AddressScope::Global
        } else {
            AddressScope::Link
        },
        no_prefix_route: true,
        // Nobody on this link could answer; without it the address would be unusable for a second.
        no_dad: is_v6,
    }
}

/// What of an address can be told from a listing: NODAD is only an instruction.
fn same_address(have: &Address, wanted: &Address) -> bool {
    let no_dad = wanted.no_dad;
    Address { no_dad, ..*have } == *wanted
}

/// Who made a route does not change what it does.
fn same_route(have: &Route, wanted: &Route) -> bool {
    let protocol = have.protocol;
    *have
        == Route {
            protocol,
            ..wanted.clone()
        }
}

/// One of this form on the VTEP's device was put there by us, under an earlier configuration.
fn is_our_address(have: &Address) -> bool {
    let by_us = address_for(IpNet::from(have.local), have.interface);
    let prefix_len = have.prefix_len;
    *have
        == Address {
            prefix_len,
            ..by_us
        }
}

fn net_of(address: &Address) -> Option<IpNet> {
    IpNet::new(address.local, address.prefix_len).ok()
}

/// The same as [`is_our_address`]: through the dummy next hop, or as `silk_routes` makes them.
fn is_our_route(have: &Route) -> bool {
    match have.gateway {
        Some(gateway) => have.onlink && [NEXT_HOP_V4, NEXT_HOP_V6].contains(&gateway),
        None => have.metric == silk_route(have.destination, 0).metric,
    }
}

/// The kernel keeps one route to a destination for each metric.
fn same_place(one: &Route, other: &Route) -> bool {
    one.destination == other.destination && one.metric == other.metric
}

fn silk_route(overlay: IpNet, interface: u32) -> Route {
    let connected = Route::connected(overlay, interface);
    Route {
        metric: connected.metric + SILK_ROUTE_METRIC,
        ..connected
    }
}

fn overlay_routes(spec: &DeviceSpec, interface: u32) -> Vec<Route> {
    let mut routes = Vec::new();
    for overlay in &spec.overlays {
        let source = spec.source_for(overlay);
        let next_hop = match overlay {
            IpNet::V4(_) => NEXT_HOP_V4,
            IpNet::V6(_) => NEXT_HOP_V6,
        };
        if spec.routing {
            routes.push(Route {
                onlink: true,
                source,
                ..Route::via(*overlay, next_hop, interface)
            });
        }
        if spec.silk_routes {
            routes.push(Route {
                source,
                ..silk_route(*overlay, interface)
            });
        }
    }
    routes
}

/// None for a single address: that is the VTEP's own, or a container's, whose route this one would shadow.
fn unreachable_routes(spec: &DeviceSpec) -> Vec<Route> {
    spec.own_subnets
        .iter()
        .filter(|subnet| subnet.prefix_len() < subnet.max_prefix_len())
        .map(|subnet| Route::unreachable(*subnet, PROTOCOL))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn spec(addresses: &[&str], overlays: &[&str], own: &[&str]) -> DeviceSpec {
        DeviceSpec {
            name: "silk-vtep".to_owned(),
            mac: MacAddr::ZERO,
            mtu_bytes: 1450,
            addresses: nets(addresses),
            overlays: nets(overlays),
            own_subnets: nets(own),
            routing: true,
            silk_routes: false,
        }
    }

    #[test]
    fn one_route_per_overlay_leads_through_the_next_hop_of_its_family() {
        let spec = spec(
            &["10.255.108.0/16", "fd00:1::1/64"],
            &["10.255.0.0/16", "10.254.0.0/16", "fd00::/16"],
            &[],
        );
        let routes = overlay_routes(&spec, 5);
        let seen: Vec<_> = routes.iter().map(|r| (r.gateway, r.source)).collect();
        let (v4, v6) = ("10.255.108.0".parse().ok(), "fd00:1::1".parse().ok());
        assert_eq!(
            seen,
            [
                (Some(NEXT_HOP_V4), v4),
                (Some(NEXT_HOP_V4), v4),
                (Some(NEXT_HOP_V6), v6)
            ]
        );
        assert!(routes.iter().all(|r| r.onlink && r.interface == Some(5)));
    }

    #[test]
    fn silk_routes_are_connected_and_lose_against_the_next_hop() {
        let mut spec = spec(&["10.255.108.0/16"], &["10.255.0.0/16"], &[]);
        spec.silk_routes = true;
        let [routed, connected] = &overlay_routes(&spec, 5)[..] else {
            panic!("not two routes");
        };
        assert_eq!(connected.gateway, None);
        assert_eq!((routed.metric, connected.metric), (0, 100));
    }

    #[test]
    fn a_single_address_is_never_unreachable() {
        let spec = spec(
            &[],
            &[],
            &["10.255.108.0/24", "10.255.109.7/32", "fd00::1/128"],
        );
        let routes = unreachable_routes(&spec);
        let subnets: Vec<_> = routes.iter().map(|route| route.destination).collect();
        assert_eq!(subnets, nets(&["10.255.108.0/24"]));
    }
}

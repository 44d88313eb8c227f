//! One container's veth pair, wired as Silk's CNI plugin wires it.
//!
//! ```text
//! host namespace                                    container's namespace
//! s-010255108184  aa:aa:0a:ff:6c:b8  <-- veth -->   eth0  ee:ee:0a:ff:6c:b8
//!   169.254.0.1 peer 10.255.108.184/32                10.255.108.184 peer 169.254.0.1/32
//!   10.255.108.184 lladdr ee:ee:.. PERMANENT          169.254.0.1 lladdr aa:aa:.. PERMANENT
//!                                                     default via 169.254.0.1 src 10.255.108.184
//! ```
//!
//! Both ends are NOARP and know each other by permanent neighbours, which a change of MAC or NOARP flushes: MACs are
//! given at creation, and NOARP comes before the neighbour.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::address::{Address, AddressScope};
use super::device::PROTOCOL;
use super::error::NetlinkError;
use super::link::{Link, LinkKind, VethEnd};
use super::namespace::Namespace;
use super::neighbor::Neighbor;
use super::route::{Route, RouteFilter};
use super::socket::Netlink;
use crate::error::SetupError;
use crate::wire::MacAddr;

/// The host's end of every container's link, and its gateway.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// IFNAMSIZ less the final zero.
const IFNAME_MAX: usize = 15;
/// udev may write its own MAC once after creation; whoever fights on has other plans for the link.
const MAC_ATTEMPTS: usize = 10;

/// Times the operational state is looked at: two seconds in all, twice what linkwatch takes when it has much to do (`linkwatch_nextevent`).
const CARRIER_LOOKS: usize = 400;
/// Pause between two looks.
const CARRIER_PAUSE: Duration = Duration::from_millis(5);

/// A container to be wired.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Its overlay address.
    pub address: Ipv4Addr,
    /// Its network namespace.
    pub namespace: Namespace,
    /// What its link is called there, `eth0` as a rule.
    pub ifname: String,
    /// MTU of both ends: the VTEP's.
    pub mtu_bytes: u32,
    /// Segments of the largest super-frame the container sends; `None`: as many as the kernel likes.
    pub gso_max_segs: Option<u32>,
}

/// A container's two links, as the CNI result names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLinks {
    /// The link in the host's namespace.
    pub host_name: String,
    /// Its MAC.
    pub host_mac: MacAddr,
    /// The link in the container's namespace.
    pub container_name: String,
    /// Its MAC.
    pub container_mac: MacAddr,
}

/// The host's link of the container with `address`: `s-010255108184` for 10.255.108.184.
#[must_use]
pub fn host_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("s-{a:03}{b:03}{c:03}{d:03}")
}

/// Wires a container to the calling thread's namespace.
///
/// # Errors
/// What is wrong with `spec`, before anything is done; or the step that failed, after which all is undone.
pub fn add(spec: &ContainerSpec) -> Result<ContainerLinks, SetupError> {
    let mut netlink = Netlink::open()?;
    check(&mut netlink, spec)?;
    let links = ContainerLinks {
        host_name: host_name(spec.address),
        host_mac: MacAddr::host_side(spec.address),
        container_name: spec.ifname.clone(),
        container_mac: MacAddr::overlay(spec.address),
    };
    create_pair(&mut netlink, spec, &links)?;
    match wire(&mut netlink, spec, &links) {
        Ok(()) => Ok(links),
        Err(error) => Err(undo(&mut netlink, &links.host_name, error)),
    }
}

/// Removes the container with `address`, both its links at once; false if there is none.
///
/// # Errors
/// If its host link's name belongs to something else, or the kernel refuses.
pub fn del(address: Ipv4Addr) -> Result<bool, SetupError> {
    const OPERATION: &str = "delete container";
    let (object, name) = (address.to_string(), host_name(address));
    let mut netlink = Netlink::open()?;
    let failed = |error: NetlinkError| error.setup_step(OPERATION, &object, &name);
    let Some(link) = netlink.link_named(&name).map_err(failed)? else {
        return Ok(false);
    };
    if link.kind != LinkKind::Veth {
        let cause = format!("{name} is no veth");
        return Err(SetupError::new(OPERATION, object, cause)
            .mend("it is not ours: remove it with `ip link del` if it is not wanted"));
    }
    netlink.delete_link(link.index).map_err(failed)
}

/// Everything that can be told before the first change.
fn check(netlink: &mut Netlink, spec: &ContainerSpec) -> Result<(), SetupError> {
    let refused = |cause: String, mend: &str| {
        Err(SetupError::new("add container", spec.address.to_string(), cause).mend(mend))
    };
    if let Some(cause) = unfit_address(spec.address) {
        return refused(cause.to_owned(), "give a unicast address of the overlay");
    }
    if let Some(cause) = unfit_name(&spec.ifname) {
        let cause = format!("interface name `{}` {cause}", spec.ifname);
        return refused(
            cause,
            "accepted: 1 to 15 characters, no `/`, no `:`, no white space",
        );
    }
    if spec.namespace.id() == netlink.namespace().id() {
        let cause = format!("namespace {} is the host's own", spec.namespace.label());
        return refused(
            cause,
            "give the container's: a name of `ip netns list` or /proc/PID/ns/net",
        );
    }
    check_address_is_a_containers(netlink, spec)?;
    let name = host_name(spec.address);
    if find(netlink, &name, spec)?.is_some() {
        return refused(
            format!("link {name} exists: the address has a container"),
            "choose another address, or remove that container first",
        );
    }
    let mut inside = Netlink::open_in(&spec.namespace)?;
    if find(&mut inside, &spec.ifname, spec)?.is_some() {
        let cause = format!("{} has a link {}", spec.namespace.label(), spec.ifname);
        return refused(
            cause,
            "choose another interface name, or remove that link first",
        );
    }
    check_address_is_free(&mut inside, spec)
}

/// A container's route is a /32, which wins over all others: with the address of the host, of a peer's underlay or of another cell's
/// container it would take away their traffic. The subnets are those that a VTEP here made `unreachable` but for containers; without a
/// VTEP nothing can be said of them.
fn check_address_is_a_containers(
    netlink: &mut Netlink,
    spec: &ContainerSpec,
) -> Result<(), SetupError> {
    const OPERATION: &str = "add container";
    let object = spec.address.to_string();
    let step = |step| {
        let object = object.clone();
        move |error: NetlinkError| error.setup_step(OPERATION, &object, step)
    };
    let refused = |cause: String, mend: String| {
        Err(SetupError::new(OPERATION, object.as_str(), cause).mend(mend))
    };
    let addresses = netlink
        .addresses(None)
        .map_err(step("list the host's addresses"))?;
    if addresses.iter().any(|have| have.local == spec.address) {
        let cause = "it is an address of this host".to_owned();
        return refused(cause, "choose another address".to_owned());
    }
    let filter = RouteFilter {
        unreachable: true,
        ..RouteFilter::default()
    };
    let routes = netlink
        .routes(filter)
        .map_err(step("list the VTEP's subnets"))?;
    let ours = routes.iter().filter(|route| route.protocol == PROTOCOL);
    let subnets: Vec<_> = ours
        .map(|route| route.destination)
        .filter(|subnet| subnet.addr().is_ipv4())
        .collect();
    let address = IpAddr::from(spec.address);
    if subnets.is_empty() || subnets.iter().any(|subnet| subnet.contains(&address)) {
        return Ok(());
    }
    let subnets: Vec<_> = subnets.iter().map(IpNet::to_string).collect();
    let mend = format!("give one inside {}", subnets.join(" or "));
    refused("it is not of this cell's subnet".to_owned(), mend)
}

fn check_address_is_free(inside: &mut Netlink, spec: &ContainerSpec) -> Result<(), SetupError> {
    const OPERATION: &str = "add container";
    let object = spec.address.to_string();
    let addresses = inside
        .addresses(None)
        .map_err(|error| error.setup_step(OPERATION, &object, "list the container's addresses"))?;
    if addresses.iter().any(|have| have.local == spec.address) {
        let cause = format!("{} has that address already", spec.namespace.label());
        return Err(SetupError::new(OPERATION, object, cause)
            .mend("choose another address, or remove it there first"));
    }
    Ok(())
}

fn find(
    netlink: &mut Netlink,
    name: &str,
    spec: &ContainerSpec,
) -> Result<Option<Link>, SetupError> {
    netlink.link_named(name).map_err(|error| {
        error.setup_step(
            "add container",
            &spec.address.to_string(),
            &format!("look up {name}"),
        )
    })
}

fn unfit_address(address: Ipv4Addr) -> Option<&'static str> {
    let unfit = address.is_unspecified()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast();
    match address {
        HOST_ADDRESS => Some("that is the host's end of every container's link"),
        _ if unfit => Some("not a container's address"),
        _ => None,
    }
}

/// The kernel's `dev_valid_name`, and the two names that its sysctl tree keeps for itself.
fn unfit_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        "." | ".." | "all" | "default" => Some("is reserved"),
        _ if name.len() > IFNAME_MAX => Some("is longer than 15 bytes"),
        _ if name.contains(['/', ':', '\0', '%']) => {
            Some("has a character that names may not have")
        }
        _ if name.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Some("has white space in it")
        }
        _ => None,
    }
}

/// Both ends at once with their final names and MACs, the container's in its namespace, both down.
fn create_pair(
    netlink: &mut Netlink,
    spec: &ContainerSpec,
    links: &ContainerLinks,
) -> Result<(), SetupError> {
    let end = |name, mac, gso_max_segs| VethEnd {
        name,
        mac,
        mtu_bytes: spec.mtu_bytes,
        gso_max_segs,
    };
    let host = end(&links.host_name, links.host_mac, None);
    let container = end(
        &links.container_name,
        links.container_mac,
        spec.gso_max_segs,
    );
    netlink
        .create_veth(&host, &container, &spec.namespace)
        .map_err(|error| {
            let step = format!("{} and {}", links.host_name, links.container_name);
            error.setup_step("create veth pair", &spec.address.to_string(), &step)
        })
}

fn wire(
    netlink: &mut Netlink,
    spec: &ContainerSpec,
    links: &ContainerLinks,
) -> Result<(), SetupError> {
    let host = End {
        operation: "set up host",
        container: spec.address,
        name: &links.host_name,
        local: (HOST_ADDRESS, links.host_mac),
        peer: (spec.address, links.container_mac),
    };
    let host_index = host.wire(netlink)?;
    let container = End {
        operation: "set up container",
        container: spec.address,
        name: &links.container_name,
        local: host.peer,
        peer: host.local,
    };
    // One thread for all of it: sockets and sysctls are those of the thread's namespace.
    spec.namespace.run(|| {
        let mut inside = Netlink::open()?;
        let index = container.wire(&mut inside)?;
        container.add_default_route(&mut inside, index)
    })??;
    host.await_carrier(netlink, host_index)?;
    // Last: all containers share it, so that a failure after it could not be undone without harm to another.
    host.sysctl(netlink, "net/ipv4/ip_forward")
}

/// Deletes the host's end, and with it the other, after `error`.
fn undo(netlink: &mut Netlink, host_name: &str, error: SetupError) -> SetupError {
    let undone = match netlink.link_named(host_name) {
        Ok(Some(link)) => netlink.delete_link(link.index).map(|_| ()),
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    match undone {
        Ok(()) => error,
        Err(failure) => {
            let mend = format!("{}; left behind: {host_name}, {failure}", error.mend);
            error.mend(mend)
        }
    }
}

/// One end of the pair; the two differ only in who is who.
struct End<'a> {
    operation: &'static str,
    container: Ipv4Addr,
    name: &'a str,
    local: (Ipv4Addr, MacAddr),
    peer: (Ipv4Addr, MacAddr),
}

impl End<'_> {
    /// Silk's order: MAC, IPv6 off, NOARP, neighbour, address, rp_filter, up. Gives the link's number.
    fn wire(&self, netlink: &mut Netlink) -> Result<u32, SetupError> {
        let index = self.verify_mac(netlink)?;
        // Silk ignores errors here, for kernels without IPv6.
        let disable_ipv6 = format!("net/ipv6/conf/{}/disable_ipv6", self.name);
        let _ = netlink.namespace().set_sysctl(&disable_ipv6, "1");
        self.step("set NOARP", netlink.set_noarp(index, true))?;
        let (peer, peer_mac) = self.peer;
        let neighbor = Neighbor::permanent(index, peer.into(), peer_mac);
        let added = netlink.replace_neighbor(&neighbor);
        self.step(&format!("add neighbor {peer} lladdr {peer_mac}"), added)?;
        let local = self.local.0;
        let added = netlink.add_address(&point_to_point(index, local, peer));
        self.step(&format!("add address {local} peer {peer}/32"), added)?;
        self.sysctl(netlink, &format!("net/ipv4/conf/{}/rp_filter", self.name))?;
        self.step("bring up", netlink.set_up(index, true))?;
        Ok(index)
    }

    /// Waits until the end sends. It came up without its peer, so that it drops all it is given until the kernel's linkwatch has seen the
    /// carrier (`dev_activate`), which also makes the operational state UP. One that takes longer works all the same, later.
    fn await_carrier(&self, netlink: &mut Netlink, index: u32) -> Result<(), SetupError> {
        for _ in 0..CARRIER_LOOKS {
            let link = self.step("look up", netlink.link(index))?;
            let link = link.ok_or_else(|| self.failed(format!("{} is gone", self.name)))?;
            if link.operstate == "UP" {
                break;
            }
            std::thread::sleep(CARRIER_PAUSE);
        }
        Ok(())
    }

    /// The MAC given at creation is checked, and set again a few times if something else was faster.
    fn verify_mac(&self, netlink: &mut Netlink) -> Result<u32, SetupError> {
        let mac = self.local.1;
        for _ in 0..MAC_ATTEMPTS {
            let found = self.step("look up", netlink.link_named(self.name))?;
            let Some(link) = found else {
                return Err(self.failed(format!("{} is gone", self.name)));
            };
            if link.mac == Some(mac) {
                return Ok(link.index);
            }
            self.step(&format!("set MAC {mac}"), netlink.set_mac(link.index, mac))?;
        }
        let cause = format!("{} does not keep the MAC {mac}", self.name);
        Err(self
            .failed(cause)
            .mend("udev or systemd changes it: MACAddressPolicy=none for this link"))
    }

    fn add_default_route(&self, netlink: &mut Netlink, index: u32) -> Result<(), SetupError> {
        let route = Route {
            source: Some(self.local.0.into()),
            ..Route::via(Ipv4Net::default().into(), self.peer.0.into(), index)
        };
        let step = format!("add default route via {}", self.peer.0);
        self.step(&step, netlink.add_route(&route))
    }

    fn sysctl(&self, netlink: &Netlink, path: &str) -> Result<(), SetupError> {
        match netlink.namespace().set_sysctl(path, "1") {
            Ok(_) => Ok(()),
            Err(error) => Err(self
                .failed(format!("{path}=1: {}", error.cause))
                .mend(error.mend)),
        }
    }

    fn step<T>(&self, step: &str, result: Result<T, NetlinkError>) -> Result<T, SetupError> {
        let object = self.container.to_string();
        result.map_err(|error| error.setup_step(self.operation, &object, step))
    }

    fn failed(&self, cause: String) -> SetupError {
        SetupError::new(self.operation, self.container.to_string(), cause)
    }
}

fn point_to_point(interface: u32, local: Ipv4Addr, peer: Ipv4Addr) -> Address {
    Address {
        interface,
        local: local.into(),
        peer: Some(peer.into()),
        prefix_len: 32,
        scope: AddressScope::Link,
        no_prefix_route: false,
        no_dad: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_is_silks() {
        let name = host_name(Ipv4Addr::new(10, 255, 108, 184));
        assert_eq!(name, "s-010255108184");
        assert!(name.len() <= IFNAME_MAX);
    }

    #[test]
    fn names_the_kernel_would_refuse_are_refused_first() {
        for name in [
            "",
            ".",
            "..",
            "all",
            "default",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\0b",
            "eth%d",
            "sixteen-bytes-xx",
        ] {
            assert!(unfit_name(name).is_some(), "{name:?}");
        }
        for name in ["eth0", "fifteen-bytes-x", "net.1", "ä"] {
            assert_eq!(unfit_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn addresses_no_container_can_have_are_refused() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.0.1",
            "169.254.0.2",
        ] {
            assert!(
                unfit_address(address.parse().unwrap()).is_some(),
                "{address}"
            );
        }
        assert_eq!(unfit_address(Ipv4Addr::new(10, 255, 1, 2)), None);
    }
}

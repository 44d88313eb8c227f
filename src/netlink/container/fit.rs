//! What can be told of a container before anything is changed: whether its names, its address and its place will do.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{ContainerSpec, HOST_ADDRESS, host_name};
use crate::error::SetupError;
use crate::netlink::Netlink;
use crate::netlink::device::PROTOCOL;
use crate::netlink::error::NetlinkError;
use crate::netlink::link::Link;
use crate::netlink::route::RouteFilter;

/// IFNAMSIZ less the final zero.
const IFNAME_MAX: usize = 15;

/// What is wrong with the spec itself.
pub(super) fn check_spec(netlink: &Netlink, spec: &ContainerSpec) -> Result<(), SetupError> {
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
    Ok(())
}

/// What stands in its way in either namespace.
pub(super) fn check_place(
    netlink: &mut Netlink,
    inside: &mut Netlink,
    spec: &ContainerSpec,
) -> Result<(), SetupError> {
    let refused = |cause: String, mend: &str| {
        Err(SetupError::new("add container", spec.address.to_string(), cause).mend(mend))
    };
    check_address_is_a_containers(netlink, spec)?;
    let name = host_name(spec.address);
    if find(netlink, &name, spec)?.is_some() {
        return refused(
            format!("link {name} exists: the address has a container"),
            "choose another address, or remove that container first",
        );
    }
    if find(inside, &spec.ifname, spec)?.is_some() {
        let cause = format!("{} has a link {}", spec.namespace.label(), spec.ifname);
        return refused(
            cause,
            "choose another interface name, or remove that link first",
        );
    }
    check_address_is_free(inside, spec)
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

/// Why the kernel would not have a link of this name: its `dev_valid_name`, and the two names that its sysctl tree keeps for itself.
#[must_use]
pub fn unfit_name(name: &str) -> Option<&'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;

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

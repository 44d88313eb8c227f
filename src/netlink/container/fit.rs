//! What can be told of a container before anything is changed: whether its names, its address and its place will do.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::occupied::Occupied;
use super::{ContainerSpec, HOST_ADDRESS};
use crate::error::SetupError;
use crate::netlink::Netlink;
use crate::netlink::device::PROTOCOL;
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
    if let Some(occupant) = Occupied::list(netlink)?.by(netlink, spec.address)? {
        return refused(occupant.to_string(), occupant.mend());
    }
    check_address_is_of_a_subnet(netlink, spec)?;
    if find(inside, &spec.ifname, spec)?.is_some() {
        let cause = format!("{} has a link {}", spec.namespace.label(), spec.ifname);
        return refused(
            cause,
            "choose another interface name, or remove that link first",
        );
    }
    check_address_is_free(inside, spec)
}

/// A container's route is a /32, which wins over all others: with the address of a peer's underlay or of another cell's container it would
/// take away their traffic. The subnets are those that a VTEP here made `unreachable` but for containers; without a VTEP nothing can be
/// said of them.
fn check_address_is_of_a_subnet(
    netlink: &mut Netlink,
    spec: &ContainerSpec,
) -> Result<(), SetupError> {
    let filter = RouteFilter {
        unreachable: true,
        ..RouteFilter::default()
    };
    let address = spec.address.to_string();
    let routes = netlink
        .routes(filter)
        .map_err(|error| error.setup_step("add container", &address, "list the VTEP's subnets"))?;
    let ours = routes.iter().filter(|route| route.protocol == PROTOCOL);
    let subnets: Vec<_> = ours
        .filter_map(|route| match route.destination {
            IpNet::V4(subnet) => Some(subnet),
            IpNet::V6(_) => None,
        })
        .collect();
    let refused = |cause: String, mend: String| {
        Err(SetupError::new("add container", address.as_str(), cause).mend(mend))
    };
    let of = subnets.iter().find(|subnet| subnet.contains(&spec.address));
    match of {
        Some(subnet) => match end_of_subnet(spec.address, subnet) {
            Some(cause) => refused(cause, format!("give another one inside {subnet}")),
            None => Ok(()),
        },
        None if subnets.is_empty() => Ok(()),
        None => {
            let subnets: Vec<_> = subnets.iter().map(Ipv4Net::to_string).collect();
            let mend = format!("give one inside {}", subnets.join(" or "));
            refused("it is not of this cell's subnet".to_owned(), mend)
        }
    }
}

/// Why an address of a subnet is none for containers: host-local gives out neither its first nor its last, and hosts with a connected
/// route to the subnet take them for broadcasts (RFC 919 section 7).
fn end_of_subnet(address: Ipv4Addr, subnet: &Ipv4Net) -> Option<String> {
    // Shorter ones than /31 have both (RFC 3021).
    let has_ends = subnet.prefix_len() < 31;
    let end = match address {
        _ if !has_ends => return None,
        _ if address == subnet.network() => "first",
        _ if address == subnet.broadcast() => "last",
        _ => return None,
    };
    Some(format!("it is the {end} address of {subnet}"))
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
    fn the_ends_of_a_subnet_are_no_containers() {
        for (last, subnet, end) in [
            (0, "10.1.0.0/24", Some("first")),
            (255, "10.1.0.0/24", Some("last")),
            (1, "10.1.0.0/24", None),
            (254, "10.1.0.0/24", None),
            (255, "10.1.0.0/16", None),
            (7, "10.1.0.6/31", None),
        ] {
            let found = end_of_subnet(Ipv4Addr::new(10, 1, 0, last), &subnet.parse().unwrap());
            let expected = end.map(|end| format!("it is the {end} address of {subnet}"));
            assert_eq!(found, expected);
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

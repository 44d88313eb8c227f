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
//! given at creation, and NOARP comes before the neighbour. IPv6 is off on both, as with Silk, or the same again with fe80::1 for
//! 169.254.0.1 and a program ([`bpf::source`](crate::bpf::source)) for `rp_filter`. The host's end says whose it is. [`add`] and [`del`] make and remove it, [`check`](check()) says how far it is from what [`add`] made.

mod check;
mod end;
mod fit;
mod occupied;
mod source;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use check::{Deviation, check};
pub use fit::unfit_name;
pub use occupied::{Occupant, Occupied};

use super::error::NetlinkError;
use super::link::{Link, LinkKind, VethEnd};
use super::namespace::Namespace;
use super::socket::Netlink;
use crate::error::SetupError;
use crate::wire::MacAddr;
use end::End;

/// The host's end of every container's link, and its gateway.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// The same for containers with IPv6.
pub const HOST_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A container to be wired.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Its overlay address.
    pub address: Ipv4Addr,
    /// Its IPv6 overlay address; `None`: no IPv6 on its link.
    pub address_v6: Option<Ipv6Addr>,
    /// Its network namespace.
    pub namespace: Namespace,
    /// What its link is called there, `eth0` as a rule.
    pub ifname: String,
    /// MTU of both ends: the VTEP's.
    pub mtu_bytes: u32,
    /// Segments of the largest super-frame the container sends; `None`: as many as the kernel likes.
    pub gso_max_segs: Option<u32>,
    /// What the host's end says of whose it is (its alias, as `ip link show` prints it), for whoever is to remove it: at most
    /// [`ALIAS_BYTES_MAX`]. `None`: nothing.
    pub alias: Option<String>,
}

/// IFALIASZ less the final zero.
pub const ALIAS_BYTES_MAX: usize = 255;

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

impl ContainerLinks {
    /// What Silk calls the links of the container with `address`.
    #[must_use]
    pub fn of(address: Ipv4Addr, ifname: &str) -> Self {
        Self {
            host_name: host_name(address),
            host_mac: MacAddr::host_side(address),
            container_name: ifname.to_owned(),
            container_mac: MacAddr::overlay(address),
        }
    }
}

/// The host's link of the container with `address`: `s-010255108184` for 10.255.108.184.
#[must_use]
pub fn host_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("s-{a:03}{b:03}{c:03}{d:03}")
}

/// The address of the container whose link [`host_name`] calls so.
#[must_use]
pub fn address_of(host_name_of_it: &str) -> Option<Ipv4Addr> {
    let digits = host_name_of_it.strip_prefix("s-")?;
    let octet = |at: usize| digits.get(at..at + 3)?.parse().ok();
    let address = Ipv4Addr::new(octet(0)?, octet(3)?, octet(6)?, octet(9)?);
    (host_name(address) == host_name_of_it).then_some(address)
}

/// Wires a container to the namespace of `netlink`, which is the calling thread's.
///
/// # Errors
/// What is wrong with `spec`, before anything is done; or the step that failed, after which all is undone.
pub fn add(netlink: &mut Netlink, spec: &ContainerSpec) -> Result<ContainerLinks, SetupError> {
    fit::check_spec(netlink, spec)?;
    let mut inside = Netlink::open_in(&spec.namespace)?;
    fit::check_place(netlink, &mut inside, spec)?;
    let links = ContainerLinks::of(spec.address, &spec.ifname);
    create_pair(netlink, spec, &links)?;
    match wire(netlink, &mut inside, spec, &links) {
        Ok(()) => Ok(links),
        Err(error) => Err(undo(netlink, &links.host_name, error)),
    }
}

const DELETE: &str = "delete container";

/// Removes the container with `address`, both its links at once; false if there is none.
///
/// # Errors
/// If its host link's name belongs to something else, or the kernel refuses.
pub fn del(netlink: &mut Netlink, address: Ipv4Addr) -> Result<bool, SetupError> {
    let Some(link) = host_end(netlink, address)? else {
        return Ok(false);
    };
    if link.kind != LinkKind::Veth {
        let cause = format!("{} is no veth", link.name);
        return Err(SetupError::new(DELETE, address.to_string(), cause)
            .mend("it is not ours: remove it with `ip link del` if it is not wanted"));
    }
    let deleted = netlink.delete_link(link.index);
    deleted.map_err(|error| error.setup_step(DELETE, &address.to_string(), &link.name))
}

/// The link here of the container with `address`, whatever its kind, if there is one.
///
/// # Errors
/// If the kernel does not answer.
pub fn host_end(netlink: &mut Netlink, address: Ipv4Addr) -> Result<Option<Link>, SetupError> {
    let name = host_name(address);
    let link = netlink.link_named(&name);
    link.map_err(|error| error.setup_step(DELETE, &address.to_string(), &name))
}

/// True if the other end of `host_end` is in `namespace`, by whatever name.
///
/// # Errors
/// If the kernel does not answer.
pub fn leads_to(host_end: &Link, namespace: &Namespace) -> Result<bool, SetupError> {
    let Some(index) = host_end.tied_to else {
        return Ok(false);
    };
    let failed = |error: NetlinkError| error.setup("look up the other end of", &host_end.name);
    let other = Netlink::open_in(namespace)?.link(index).map_err(failed)?;
    Ok(other
        .is_some_and(|other| other.kind == LinkKind::Veth && other.tied_to == Some(host_end.index)))
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
    let Err(error) = netlink.create_veth(&host, &container, &spec.namespace) else {
        return Ok(());
    };
    let step = format!("{} and {}", links.host_name, links.container_name);
    let failed = error
        .clone()
        .setup_step("create veth pair", &spec.address.to_string(), &step);
    // A refusal is the kernel's word that there is no pair of ours; without its word there may be one.
    Err(match error {
        NetlinkError::Refused { .. } => failed,
        NetlinkError::Socket { .. }
        | NetlinkError::TimedOut { .. }
        | NetlinkError::Interrupted { .. }
        | NetlinkError::Malformed { .. } => undo(netlink, &links.host_name, failed),
    })
}

fn wire(
    netlink: &mut Netlink,
    inside: &mut Netlink,
    spec: &ContainerSpec,
    links: &ContainerLinks,
) -> Result<(), SetupError> {
    let (host, container) = End::both(spec, links);
    let host_index = host.wire(netlink)?;
    if let Some(own) = spec.address_v6 {
        source::keep(netlink, host_index, &links.host_name, own)?;
    }
    // One thread for all of it: sysctls are those of the thread's namespace.
    spec.namespace.run(|| container.wire(inside))??;
    host.await_carrier(netlink, host_index)?;
    // Last: all containers share it, so that a failure after it could not be undone without harm to another.
    host.forward(netlink)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_is_silks() {
        let name = host_name(Ipv4Addr::new(10, 255, 108, 184));
        assert_eq!(name, "s-010255108184");
        assert_eq!(unfit_name(&name), None);
        assert_eq!(address_of(&name), Some(Ipv4Addr::new(10, 255, 108, 184)));
        for other in [
            "s-010255108",
            "s-0102551081840",
            "s-999255108184",
            "s-+10255108184",
            "eth0",
            "s-ä0255108184",
        ] {
            assert_eq!(address_of(other), None, "{other}");
        }
    }
}

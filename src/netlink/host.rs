//! What the host has already: the questions a VTEP asks before it takes a name, a port or an underlay.

use std::net::IpAddr;

use super::error::NetlinkError;
use super::link::{Link, LinkKind};
use super::socket::Netlink;
use crate::error::SetupError;

/// The underlay of a VTEP: the link that carries its outer address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu_bytes: u32,
}

/// The link that carries `local`, if one does yet.
///
/// # Errors
/// If the kernel does not answer.
pub fn underlay(netlink: &mut Netlink, local: IpAddr) -> Result<Option<Underlay>, SetupError> {
    let failed = |error: NetlinkError| error.setup("look up underlay", &local.to_string());
    let addresses = netlink.addresses(None).map_err(failed)?;
    let Some(address) = addresses.iter().find(|address| address.local == local) else {
        return Ok(None);
    };
    let link = netlink.link(address.interface).map_err(failed)?;
    Ok(link.map(|link| Underlay {
        ifindex: link.index,
        name: link.name,
        mtu_bytes: link.mtu_bytes,
    }))
}

/// The link called `name`, for those who must know whether the name is free, a TAP, or something else.
///
/// # Errors
/// If the kernel does not answer.
pub fn existing(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, SetupError> {
    netlink
        .link_named(name)
        .map_err(|error| error.setup("look up link", name))
}

/// The kernel's VXLAN device on UDP `port`: it usually is who holds the port, and no process shows for it.
///
/// # Errors
/// If the kernel does not answer.
pub fn vxlan_on_port(netlink: &mut Netlink, port: u16) -> Result<Option<Link>, SetupError> {
    let links = netlink
        .links()
        .map_err(|error| error.setup("look up VXLAN devices on port", &port.to_string()))?;
    Ok(links
        .into_iter()
        .find(|link| matches!(&link.kind, LinkKind::Vxlan(vxlan) if vxlan.port == port)))
}

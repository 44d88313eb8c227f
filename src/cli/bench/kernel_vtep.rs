//! The kernel's VXLAN device as Silk sets it up: a route, a neighbour and a forwarding entry for the other cell.

use crate::cli::lab::ground::{CellPlan, Place, UNDERLAY_MTU_BYTES, VTEP_LINK};
use crate::error::SetupError;
use crate::netlink::{Address, AddressScope, Neighbor, Netlink, NetlinkError, Route, VxlanSpec};
use crate::wire::MacAddr;

/// Outer Ethernet, IPv4, UDP and VXLAN headers: what the kernel takes off the underlay's MTU by itself.
const OVERHEAD_BYTES: u32 = 50;
pub(super) const VNI: u32 = 1;
pub(super) const PORT: u16 = 4789;
pub(super) const OVERLAY_PREFIX_LENGTH: u8 = 16;
/// Of the overlay.
pub(super) const MTU_BYTES: u32 = UNDERLAY_MTU_BYTES - OVERHEAD_BYTES;

/// Makes both devices and wires the containers.
///
/// # Errors
/// The step that failed.
pub(super) fn set_up([a, b]: &[Place; 2]) -> Result<(), SetupError> {
    for (here, there) in [(a, b), (b, a)] {
        let label = here.host.label();
        make(&mut Netlink::open_in(&here.host)?, here.plan, there.plan)
            .map_err(|error| error.setup("set up kernel VXLAN device in", label))?;
        here.add_container(MTU_BYTES, None)?;
    }
    Ok(())
}

/// The device of one cell.
pub(super) fn spec(plan: &CellPlan) -> VxlanSpec<'static> {
    VxlanSpec {
        name: VTEP_LINK,
        mac: MacAddr::overlay(plan.vtep),
        mtu_bytes: MTU_BYTES,
        vni: VNI,
        local: plan.underlay,
        port: PORT,
    }
}

fn make(netlink: &mut Netlink, here: &CellPlan, there: &CellPlan) -> Result<(), NetlinkError> {
    netlink.create_vxlan(&spec(here))?;
    // Made a moment ago: not to find it is an error of the next step, which says so.
    let interface = netlink.link_named(VTEP_LINK)?.map_or(0, |link| link.index);
    netlink.add_address(&Address {
        interface,
        local: here.vtep.into(),
        peer: None,
        prefix_len: OVERLAY_PREFIX_LENGTH,
        scope: AddressScope::Link,
        no_prefix_route: false,
        no_dad: false,
    })?;
    netlink.set_up(interface, true)?;
    let remote_mac = MacAddr::overlay(there.vtep);
    netlink.append_fdb(interface, remote_mac, there.underlay)?;
    netlink.add_neighbor(&Neighbor::permanent(
        interface,
        there.vtep.into(),
        remote_mac,
    ))?;
    netlink.add_route(&Route {
        onlink: true,
        source: Some(here.vtep.into()),
        ..Route::via(there.subnet(), there.vtep.into(), interface)
    })
}

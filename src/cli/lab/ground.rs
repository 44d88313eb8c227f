//! What stands before any tunnel: two cells and a container beside each, in four namespaces, and the underlay between
//! the cells.
//!
//! ```text
//! container-a     cell-a                              cell-b     container-b
//!    eth0         s-...  eth0 <===== veth =====> eth0  s-...        eth0
//!      <--- veth --->                                    <--- veth --->
//! ```

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::scratch::Scratch;
use crate::error::SetupError;
use crate::netlink::{
    Address, AddressScope, ContainerSpec, NamedNamespace, Namespace, Netlink, VethEnd, container,
};
use crate::wire::MacAddr;

/// The underlay's MTU, and from it the overlay's follows: Ethernet's.
pub(in crate::cli) const UNDERLAY_MTU_BYTES: u32 = 1500;
const UNDERLAY_PREFIX_LENGTH: u8 = 16;
/// The link to the underlay in each cell.
pub(in crate::cli) const UNDERLAY_LINK: &str = "eth0";
/// The link in each container.
pub(in crate::cli) const CONTAINER_LINK: &str = "eth0";
/// The VTEP's device, as the configuration has it by default.
pub(in crate::cli) const VTEP_LINK: &str = "silk-vtep";

/// What one cell is to be.
#[derive(Debug)]
pub(in crate::cli) struct CellPlan {
    /// `a` or `b`.
    pub(in crate::cli) name: &'static str,
    /// Address on the underlay.
    pub(in crate::cli) underlay: Ipv4Addr,
    /// The VTEP's address on the overlay.
    pub(in crate::cli) vtep: Ipv4Addr,
    /// The container's address.
    pub(in crate::cli) container: Ipv4Addr,
    /// The container's group id.
    pub(in crate::cli) group: Option<u16>,
}

impl CellPlan {
    /// The overlay of all cells.
    pub(in crate::cli) const OVERLAY: &'static str = "10.255.0.0/16";

    /// Both, as in the packet walk of the documentation.
    pub(in crate::cli) const BOTH: [Self; 2] = [
        Self {
            name: "a",
            underlay: Ipv4Addr::new(10, 0, 32, 12),
            vtep: Ipv4Addr::new(10, 255, 108, 0),
            container: Ipv4Addr::new(10, 255, 108, 184),
            group: Some(0x0003),
        },
        Self {
            name: "b",
            underlay: Ipv4Addr::new(10, 0, 16, 14),
            vtep: Ipv4Addr::new(10, 255, 43, 0),
            container: Ipv4Addr::new(10, 255, 43, 6),
            group: None,
        },
    ];

    /// Where its containers live.
    pub(in crate::cli) fn subnet(&self) -> IpNet {
        Ipv4Net::new_assert(self.vtep, 24).trunc().into()
    }
}

/// One cell before it has a VTEP. Its namespaces go when it is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Place {
    pub(in crate::cli) plan: &'static CellPlan,
    /// The cell's own namespace.
    pub(in crate::cli) host: NamedNamespace,
    /// Its container's.
    pub(in crate::cli) container: NamedNamespace,
}

impl Place {
    /// The container, for traffic.
    pub(in crate::cli) fn end(&self) -> End<'_> {
        End {
            namespace: &self.container,
            address: self.plan.container,
        }
    }

    /// Wires the container to the cell, which must have a route to the overlay by then. `gso_max_segs` as of a [`ContainerSpec`].
    ///
    /// # Errors
    /// The step that failed.
    pub(in crate::cli) fn add_container(
        &self,
        mtu_bytes: u32,
        gso_max_segs: Option<u32>,
    ) -> Result<(), SetupError> {
        let spec = ContainerSpec {
            address: self.plan.container,
            address_v6: None,
            namespace: (*self.container).clone(),
            ifname: CONTAINER_LINK.to_owned(),
            mtu_bytes,
            gso_max_segs,
            alias: None,
        };
        self.host
            .run(|| container::add(&mut Netlink::open()?, &spec))?
            .map(drop)
    }
}

/// A container as one end of some traffic.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct End<'a> {
    pub(in crate::cli) namespace: &'a Namespace,
    pub(in crate::cli) address: Ipv4Addr,
}

/// Makes both places and joins them by the underlay.
///
/// # Errors
/// The step that failed; what was made until then is gone again.
pub(in crate::cli) fn lay(
    scratch: &mut Scratch,
    [a, b]: [&'static CellPlan; 2],
) -> Result<[Place; 2], SetupError> {
    let mut place = |plan: &'static CellPlan| {
        Ok::<_, SetupError>(Place {
            plan,
            host: scratch.namespace(&format!("cell-{}", plan.name))?,
            container: scratch.namespace(&format!("container-{}", plan.name))?,
        })
    };
    let places = [place(a)?, place(b)?];
    join_underlay(&places)?;
    Ok(places)
}

/// A veth pair between the cells, addressed and up.
fn join_underlay([a, b]: &[Place; 2]) -> Result<(), SetupError> {
    let end = |plan: &CellPlan| VethEnd {
        name: UNDERLAY_LINK,
        mac: underlay_mac(plan.underlay),
        mtu_bytes: UNDERLAY_MTU_BYTES,
        gso_max_segs: None,
    };
    Netlink::open_in(&a.host)?
        .create_veth(&end(a.plan), &end(b.plan), &b.host)
        .map_err(|error| error.setup("create underlay veth pair in", a.host.label()))?;
    bring_up(a.plan, &a.host)?;
    bring_up(b.plan, &b.host)
}

fn bring_up(plan: &CellPlan, host: &NamedNamespace) -> Result<(), SetupError> {
    let mut netlink = Netlink::open_in(host)?;
    let failed =
        |error: crate::netlink::NetlinkError| error.setup("bring up the underlay in", host.label());
    let Some(link) = netlink.link_named(UNDERLAY_LINK).map_err(failed)? else {
        return Err(SetupError::new(
            "bring up the underlay in",
            host.label(),
            "eth0 is gone",
        ));
    };
    netlink
        .add_address(&underlay_address(plan, link.index))
        .map_err(failed)?;
    netlink.set_up(link.index, true).map_err(failed)
}

/// The cell's address on the underlay, for the link with number `interface`.
pub(in crate::cli) fn underlay_address(plan: &CellPlan, interface: u32) -> Address {
    Address {
        interface,
        local: plan.underlay.into(),
        peer: None,
        prefix_len: UNDERLAY_PREFIX_LENGTH,
        scope: AddressScope::Global,
        no_prefix_route: false,
        no_dad: false,
    }
}

/// Locally administered (02), then the address.
fn underlay_mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr::new([0x02, 0, a, b, c, d])
}

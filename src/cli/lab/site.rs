//! Two cells with a container each, in four namespaces of this host.
//!
//! ```text
//! container-a          cell-a                                     cell-b          container-b
//! eth0 <--- veth ---> s-...  silk-vtep  eth0 <=== veth ===> eth0  silk-vtep  s-... <--- veth ---> eth0
//! ```

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::LabError;
use super::daemon::Daemon;
use super::interrupt::Interrupt;
use super::scratch::Scratch;
use crate::control::Client;
use crate::control::protocol::Request;
use crate::control::rows::LinkRow;
use crate::error::SetupError;
use crate::netlink::{
    Address, AddressScope, ContainerSpec, NamedNamespace, Netlink, VethEnd, container,
};
use crate::wire::MacAddr;

/// The underlay's MTU, and from it the overlay's follows: Ethernet's.
const UNDERLAY_MTU_BYTES: u32 = 1500;
const UNDERLAY_PREFIX_LENGTH: u8 = 16;
/// The link to the underlay in each cell.
const UNDERLAY_LINK: &str = "eth0";
/// The link in each container.
const CONTAINER_LINK: &str = "eth0";
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

/// One cell, up and running. Dropped in this order: the daemon goes before its namespace.
#[derive(Debug)]
pub(in crate::cli) struct Cell {
    pub(in crate::cli) plan: &'static CellPlan,
    pub(in crate::cli) daemon: Daemon,
    /// The cell's own namespace.
    pub(in crate::cli) host: NamedNamespace,
    /// Its container's.
    pub(in crate::cli) container: NamedNamespace,
}

/// Both cells. Everything is taken down when it is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Site {
    pub(in crate::cli) cells: [Cell; 2],
}

impl Site {
    /// Builds everything, up to containers that can speak to each other.
    ///
    /// # Errors
    /// The step that failed, or [`LabError::Interrupted`]; what was built until then is gone again.
    pub(in crate::cli) fn build(
        scratch: &mut Scratch,
        interrupt: &Interrupt,
    ) -> Result<Self, LabError> {
        let [plan_a, plan_b] = &CellPlan::BOTH;
        let (host_a, host_b) = (scratch.namespace("cell-a")?, scratch.namespace("cell-b")?);
        let (inner_a, inner_b) = (
            scratch.namespace("container-a")?,
            scratch.namespace("container-b")?,
        );
        join_underlay((plan_a, &host_a), (plan_b, &host_b))?;
        interrupt.check()?;
        let daemon_a = Daemon::start(plan_a, plan_b, &host_a, scratch.directory("a")?)?;
        let daemon_b = Daemon::start(plan_b, plan_a, &host_b, scratch.directory("b")?)?;
        let cell = |plan, daemon, host, container| Cell {
            plan,
            daemon,
            host,
            container,
        };
        let mut cells = [
            cell(plan_a, daemon_a, host_a, inner_a),
            cell(plan_b, daemon_b, host_b, inner_b),
        ];
        for cell in &mut cells {
            cell.daemon.wait_until_ready(interrupt)?;
            cell.add_container()?;
        }
        Ok(Self { cells })
    }

    /// Whether both daemons still run.
    ///
    /// # Errors
    /// The first that does not, with the last thing it said.
    pub(in crate::cli) fn check_daemons(&mut self) -> Result<(), SetupError> {
        self.cells
            .iter_mut()
            .try_for_each(|cell| cell.daemon.check())
    }

    /// Stops both daemons and takes everything down.
    ///
    /// # Errors
    /// The first daemon that did not end in order, or left its device behind. All is taken down nevertheless.
    pub(in crate::cli) fn close(self) -> Result<(), SetupError> {
        let [a, b] = self.cells.map(Cell::close);
        a.and(b)
    }
}

impl Cell {
    /// A connection to the daemon.
    ///
    /// # Errors
    /// If nobody listens.
    pub(in crate::cli) fn client(&self) -> Result<Client, SetupError> {
        self.daemon.client()
    }

    /// Wires the container to the cell, with the MTU that the VTEP has.
    fn add_container(&self) -> Result<(), LabError> {
        let link: LinkRow = self.client()?.call(&Request::Link)?;
        let spec = ContainerSpec {
            address: self.plan.container,
            namespace: (*self.container).clone(),
            ifname: CONTAINER_LINK.to_owned(),
            mtu_bytes: link.mtu,
        };
        self.host.run(|| container::add(&spec))??;
        Ok(())
    }

    fn close(self) -> Result<(), SetupError> {
        self.daemon.stop()?;
        let label = self.host.label();
        let left = Netlink::open_in(&self.host)?.link_named(VTEP_LINK);
        match left.map_err(|error| error.setup("look up silk-vtep in", label))? {
            None => Ok(()),
            Some(_) => Err(SetupError::new(
                "stop",
                format!("daemon of cell {}", self.plan.name),
                "it left its TAP behind",
            )),
        }
    }
}

/// A veth pair between the cells, addressed and up.
fn join_underlay(
    a: (&CellPlan, &NamedNamespace),
    b: (&CellPlan, &NamedNamespace),
) -> Result<(), SetupError> {
    let end = |plan: &CellPlan| VethEnd {
        name: UNDERLAY_LINK,
        mac: underlay_mac(plan.underlay),
        mtu_bytes: UNDERLAY_MTU_BYTES,
    };
    Netlink::open_in(a.1)?
        .create_veth(&end(a.0), &end(b.0), b.1)
        .map_err(|error| error.setup("create underlay veth pair in", a.1.label()))?;
    bring_up(a.0, a.1)?;
    bring_up(b.0, b.1)
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
    let address = Address {
        interface: link.index,
        local: plan.underlay.into(),
        peer: None,
        prefix_len: UNDERLAY_PREFIX_LENGTH,
        scope: AddressScope::Global,
        no_prefix_route: false,
        no_dad: false,
    };
    netlink.add_address(&address).map_err(failed)?;
    netlink.set_up(link.index, true).map_err(failed)
}

/// Locally administered (02), then the address.
fn underlay_mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr::new([0x02, 0, a, b, c, d])
}
